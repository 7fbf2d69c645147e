"""What installed packages add: heads, extractors and formats that come in through entry points.

A plug-in is a package that somebody installed; a downloaded file never brings code.
"""

import warnings
from collections.abc import Collection, Iterator, Mapping
from importlib import metadata
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class PluginWarning(UserWarning):
    """A plug-in was left out; the message says which and why."""


def installed(group: str, kind: type[T], taken: Collection[str]) -> dict[str, T]:
    """{name: object} of the entry points of `group` (`vidtad.heads`, ...), each of class `kind`.

    One that fails to import, is of another class, or has a name in `taken` or of an earlier one is left out with a
    PluginWarning that names it and its package.
    """
    known: dict[str, T] = {}
    for point in metadata.entry_points(group=group):
        package = point.dist.name if point.dist else "an unnamed package"
        where = f"{group} {point.name!r} of {package}"
        try:
            value: Any = point.load()
        except Exception as error:
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            warnings.warn(f"{where} cannot be imported ({reason}); it is left out", PluginWarning, stacklevel=2)
            continue
        if not isinstance(value, kind):
            warnings.warn(f"{where} is no {kind.__name__}; it is left out", PluginWarning, stacklevel=2)
        elif point.name in taken or point.name in known:
            warnings.warn(f"{where}: the name is taken; it is left out", PluginWarning, stacklevel=2)
        else:
            known[point.name] = value
    return known


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
