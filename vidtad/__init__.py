"""From a raw video to a timeline of what happens, when, and who does it."""

from typing import TYPE_CHECKING, Any

__version__ = "0.2.0"
__all__ = ["PeopleOptions", "__version__", "detect", "evaluate", "extract", "train"]

if TYPE_CHECKING:
    from vidtad.api import PeopleOptions, detect, evaluate, extract, train


def __getattr__(name: str) -> Any:
    # The API pulls in torch; `import vidtad` alone stays quick.
    if name in __all__:
        from vidtad import api

        return getattr(api, name)
    raise AttributeError(f"module 'vidtad' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__} - {"Any", "TYPE_CHECKING"})
