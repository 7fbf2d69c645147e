"""What installed packages add: heads, extractors and formats that come in through entry points.

A plug-in is a package that somebody installed; a downloaded file never brings code.
"""

import warnings
from collections.abc import Collection, Iterator, Mapping
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class PluginWarning(UserWarning):
    """A plug-in was left out; the message says which and why."""


def installed(group: str, kind: type[T], taken: Collection[str]) -> dict[str, T]:
    """{name: object} of the entry points of `group` (`vidtad.heads`, ...), each of class `kind`.

    One that fails to import, is of another class, or has a name in `taken` or of an earlier one is left out with a
    PluginWarning that names it and its package, which worker processes leave to the one that started them.
    """
    from importlib import metadata

    known: dict[str, T] = {}
    for point in metadata.entry_points(group=group):
        package = point.dist.name if point.dist else "an unnamed package"
        where = f"{group} {point.name!r} of {package}"
        try:
            value: Any = point.load()
        except Exception as error:
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            _warn(f"{where} cannot be imported ({reason}); it is left out")
            continue
        if not isinstance(value, kind):
            _warn(f"{where} is no {kind.__name__}; it is left out")
        elif point.name in taken or point.name in known:
            _warn(f"{where}: the name is taken; it is left out")
        else:
            known[point.name] = value
    return known


def _warn(sentence: str) -> None:
    from multiprocessing import parent_process

    if parent_process() is None:
        warnings.warn(sentence, PluginWarning, stacklevel=3)


class Table(Mapping[str, T], Generic[T]):
    """What is built in under `own`, then what packages add to `group`, looked for once, when it is first needed."""

    def __init__(self, group: str, kind: type[T], own: Mapping[str, T]):
        self._group, self._kind, self._own = group, kind, dict(own)
        self._added: dict[str, T] | None = None

    def _all(self) -> dict[str, T]:
        if self._added is None:
            self._added = installed(self._group, self._kind, self._own)
        return {**self._own, **self._added}

    def __getitem__(self, name: str) -> T:
        return self._own[name] if name in self._own else self._all()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._all())

    def __len__(self) -> int:
        return len(self._all())
