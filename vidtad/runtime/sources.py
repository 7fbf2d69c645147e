"""Files that are read for a while: what is hashed and what is read must be one content."""

import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TypeVar

from vidtad.errors import InputError, RunError, VidtadError
from vidtad.runtime.files import sha256

T = TypeVar("T")
TICK_NS = 2_000_000_000
"""File systems keep times as coarsely as this: within it, a second write may leave no trace."""


class Changed(RunError):
    """A file is not what it was when its reading began."""


class Source:
    """A file whose content must stay what it is at the first look for as long as it is read.

    Device, inode, size and times tell, seen through an open file, as network file systems look at the server only
    then. Where they leave room for doubt (a file just written, moved or given other rights) its hash decides.
    """

    def __init__(self, path: Path):
        self.path = Path(path)
        self._seen: _Signature | None = None
        self._strict, self._doubt = True, False

    def look(self) -> None:
        """The first look, unless that was. Raises InputError when the file cannot be read."""
        if self._seen is not None:
            return
        try:
            self._seen = _signature(self.path)
        except (OSError, ValueError) as error:  # a name with a zero byte
            raise InputError(f"{self.path}: cannot be read ({getattr(error, 'strerror', None) or error})") from error
        self._doubt = abs(time.time_ns() - max(self._seen[1:3])) < TICK_NS

    @property
    def mark(self) -> tuple[int, int]:
        """Size in bytes and time of the last write in nanoseconds, as at the first look. Raises InputError."""
        self.look()
        assert self._seen is not None
        return self._seen[:2]

    @cached_property
    def sha256(self) -> str:
        """Hexadecimal SHA-256 of the content. Raises Changed, or InputError when the file cannot be read."""
        self.look()
        found = sha256(self.path)
        self.check()
        return found

    def check(self, *, last: bool = False) -> None:
        """Raise Changed when the content is, or may be, another one. `last`: nothing more is read afterwards."""
        if self._seen is None:
            return self.look()
        try:
            now = _signature(self.path)
        except OSError as error:
            raise Changed(
                f"{self.path}: is gone, or cannot be read any more, while it was at work ({error.strerror or error}); "
                "nothing of it was kept; run the same command again"
            ) from error
        if now[:2] != self._seen[:2]:
            raise self._changed()
        other = now != self._seen
        if (other and self._strict) or (last and self._doubt):
            known = self.__dict__.get("sha256")
            if known is None:
                if other:
                    raise self._changed()
            elif sha256(self.path) != known:
                raise self._changed()
        if other:  # some file systems number a file anew at each opening
            self._seen, self._strict, self._doubt = now, False, True

    def _changed(self) -> Changed:
        return Changed(
            f"{self.path}: was changed or replaced while it was read; nothing of it was kept; "
            "run the same command again when it is whole"
        )

    @contextmanager
    def watched(self) -> Iterator[None]:
        """The reading of the file. Where it fails, or ends, and the file has changed, that is what is said."""
        self.look()
        try:
            yield
        except VidtadError:
            self.check()
            raise
        self.check(last=True)


def source_of(path: Path | Source) -> Source:
    """The source itself, or one for the file."""
    return path if isinstance(path, Source) else Source(path)


_Signature = tuple[int, int, int, int, int]


def _signature(path: Path) -> _Signature:
    """Size, time of the last write, of the last change, device, inode."""
    if not stat.S_ISREG(os.stat(path).st_mode):  # opening a pipe would wait
        raise OSError(0, "not a file")
    with open(path, "rb") as file:
        found = os.fstat(file.fileno())
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_dev, found.st_ino


def read_hashed(path: Path, read: Callable[[Path], T]) -> tuple[T, str]:
    """What `read(path)` gives, and the SHA-256 of the very bytes it read. Raises Changed, and as `read` does."""
    source = Source(path)
    try:
        source.look()
    except InputError:  # said better by who knows what is to be there
        return read(path), source.sha256
    with source.watched():
        digest = source.sha256
        value = read(path)
    return value, digest
