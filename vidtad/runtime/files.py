"""Writing files so that a reader never sees half of one, and recognising files by their content."""

import hashlib
import io
import json
import os
import re
import socket
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO, cast

from vidtad.errors import InputError, RunError

_SUFFIXES = """
.3gp .264 .265 .asf .avi .dv .f4v .flv .gif .h264 .h265 .hevc .insv .m2ts .m2v .m4v .mjpeg .mjpg .mkv .mov .mp4 .mpeg
.mpg .mts .mxf .ogv .qt .ts .vob .webm .wmv .y4m
"""
VIDEO_SUFFIXES = frozenset(_SUFFIXES.split())
"""What a folder is searched for; a video given by name may be called anything."""


_temporaries: set[str] = set()
"""Files of `atomic_write` that are not whole yet, and those of locks that are held."""


def remove_temporaries() -> None:
    """Remove what `atomic_write` has not finished and files of locks, for a process that ends inside such blocks."""
    for temporary in list(_temporaries):
        with suppress(OSError):
            os.unlink(temporary)


@contextmanager
def passing(path: str) -> Iterator[None]:
    """While the block runs, `path` is a file that `remove_temporaries` removes."""
    _temporaries.add(path)
    try:
        yield
    finally:
        _temporaries.discard(path)


def make_folder(folder: Path) -> None:
    """Make `folder` with those above it; one that is there stays. Raises InputError when a file is in its place."""
    for attempt in range(20):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            return
        except (FileExistsError, NotADirectoryError) as error:
            # A neighbour may have removed the folder just after it was found: then nothing is in the way.
            in_the_way = any(place.exists() and not place.is_dir() for place in (folder, *folder.parents))
            if in_the_way or attempt == 19:
                raise InputError(f"{folder}: a file is in the place of this folder; choose another one") from error


def is_file(path: Path) -> bool:
    """Whether a file is there; a name that no file can have is none, instead of an error."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def brief(name: str, most: int = 200) -> str:
    """`name`, or of one longer than `most` bytes its beginning and a hash of it all.

    For names that are made of a file's name and more: file systems take 255 bytes, and a letter may have four.
    """
    raw = name.encode(errors="surrogatepass")
    if len(raw) <= most:
        return name
    return f"{raw[: most - 9].decode(errors='ignore')}~{hashlib.sha256(raw).hexdigest()[:8]}"


def temporary_prefix(name: str) -> str:
    """How the temporary file begins through which `atomic_write` writes a file of this name."""
    return f".{brief(name)}."


_TEMPORARY = re.compile(r"\..+\.([0-9a-f]{8})-[^.]+\.tmp", re.DOTALL)
_STALE_S = 24 * 3600.0
"""After so long without a write, a temporary file of another machine is a dead writer's."""
_swept: set[tuple[int, int]] = set()
"""Folders that this process has looked through, by device and inode."""


@cache
def machine() -> str:
    """Eight hexadecimal digits for this machine since it was started; containers on it share them."""
    try:
        name = Path("/proc/sys/kernel/random/boot_id").read_text()
    except OSError:
        name = socket.gethostname()
    return hashlib.sha256(name.encode(errors="surrogateescape")).hexdigest()[:8]


def lock_file(descriptor: int) -> bool | None:
    """Lock an open file as long as it is open. False: another one has it; None: files cannot be locked here."""
    try:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except (OSError, ImportError):
        return None
    return True


def remove_dead(folder: Path, names: Iterable[str] = ()) -> None:
    """Remove the temporary files in `folder` whose writer is gone: their lock is free.

    A file system may not carry the locks of other machines, so a file of one of them must not have been written to for
    a day either, unless it is one for a file of `names`, which the caller knows that nobody else writes.
    """
    begins = tuple(map(temporary_prefix, names))
    try:
        listed = os.listdir(folder)
    except OSError:
        return
    for name in listed:
        ours = name.endswith(".tmp") and name.startswith(begins)
        found = _TEMPORARY.fullmatch(name)
        if not (ours or found):
            continue
        path = os.path.join(folder, name)
        with suppress(OSError), open(path, "r+b") as file:
            if lock_file(file.fileno()) is not (True if os.name != "nt" else None):
                continue
            here = found is not None and found[1] == machine() and os.name != "nt"
            if ours or here or abs(time.time() - os.fstat(file.fileno()).st_mtime) > _STALE_S:
                if os.name == "nt":  # an open file cannot be removed there, so a live writer's stays
                    file.close()
                os.unlink(path)


def _sweep(folder: Path) -> None:
    """As `remove_dead`, once in a process."""
    with suppress(OSError):
        found = os.stat(folder)
        if (found.st_dev, found.st_ino) not in _swept:
            _swept.add((found.st_dev, found.st_ino))
            remove_dead(folder)


def _temporary(path: Path) -> tuple[int, str]:
    """A new file beside `path`, open and locked, and its name."""
    while True:
        prefix = f"{temporary_prefix(path.name)}{machine()}-"
        descriptor, temporary = tempfile.mkstemp(prefix=prefix, suffix=".tmp", dir=path.parent)
        _temporaries.add(temporary)
        # Another process may take it for a dead one's before it is locked: then it goes, and the next one is ours.
        if lock_file(descriptor) is not False and os.path.exists(temporary):
            return descriptor, temporary
        os.close(descriptor)
        _discard(temporary)


def _discard(temporary: str) -> None:
    with suppress(OSError):
        os.unlink(temporary)
    _temporaries.discard(temporary)


class _Writing(io.BufferedIOBase):
    """A binary file that remembers which write failed: libraries swallow that, or call it by other names."""

    def __init__(self, file: Any):
        self.file, self.error = file, None

    file: Any
    error: OSError | None

    def _try(self, work: Any, *arguments: Any) -> Any:
        try:
            return work(*arguments)
        except OSError as error:
            self.error = self.error or error
            raise

    def write(self, data: Any) -> int:
        """All of it."""
        return int(self._try(self.file.write, data))

    def flush(self) -> None:
        """To the operating system."""
        self._try(self.file.flush)

    def close(self) -> None:
        """Nothing: `atomic_write` closes the file. Python calls this as it drops the object, when the file is gone."""

    def read(self, size: int | None = -1) -> bytes:
        """What was written, from the present place on."""
        return bytes(self.file.read(size))

    def seek(self, place: int, whence: int = 0) -> int:
        """Go to a place; writes out what waits."""
        return int(self._try(self.file.seek, place, whence))

    def tell(self) -> int:
        """The present place."""
        return int(self.file.tell())

    def truncate(self, size: int | None = None) -> int:
        """Cut off."""
        return int(self._try(self.file.truncate, size))

    def fileno(self) -> int:
        """Of the operating system."""
        return int(self.file.fileno())

    def readable(self) -> bool:
        """Yes."""
        return True

    def writable(self) -> bool:
        """Yes."""
        return True

    def seekable(self) -> bool:
        """Yes."""
        return True


@contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """Binary file that appears under `path` only when the block ends without an error.

    The bytes go to a temporary file in the same folder, reach the disk, and are renamed. What dead processes left in
    that folder is removed. Raises RunError when the folder cannot be made or written (permission, full disk),
    whatever the block makes of it; InputError when it is a file.
    """
    path = Path(path)
    try:
        make_folder(path.parent)
        _sweep(path.parent)
        descriptor, temporary = _temporary(path)
    except OSError as error:
        raise RunError(f"{path}: cannot write here ({error.strerror or error})") from error
    try:
        with os.fdopen(descriptor, "w+b") as file:
            writing = _Writing(file)
            try:
                yield cast(BinaryIO, writing)
                writing.flush()
                os.fsync(file.fileno())
            except Exception:
                if writing.error is None:
                    raise
            if writing.error is not None:
                raise writing.error
            # mkstemp makes the file private; give it the mode any new file of this process would get.
            umask = os.umask(0)
            os.umask(umask)
            os.chmod(temporary, 0o666 & ~umask)
            if os.name != "nt":  # under its lock as long as it has this name; an open file cannot be renamed there
                os.replace(temporary, path)
        if os.name == "nt":
            os.replace(temporary, path)
    except OSError as error:
        raise RunError(f"{path}: writing failed ({error.strerror or error})") from error
    finally:
        _discard(temporary)


def still_there(paths: Iterable[Path], what: str = "") -> None:
    """Raise RunError when one of several files that belong together, all just written, is gone (`what`: its name)."""
    for path in paths:
        if not os.path.exists(path):
            raise RunError(
                f"{what or path}: was written and is gone: its folder was removed or replaced meanwhile; "
                "run the same command again"
            )


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8, atomically."""
    with atomic_write(path) as file:
        # Undecodable bytes of file names, and broken text from JSON, stay what JSON itself writes for them.
        file.write(text.encode(errors="backslashreplace"))


def write_json(path: Path, document: Any) -> None:
    """Write `document` as JSON, atomically. NaN and infinity are refused: no JSON reader agrees on them."""
    write_text(path, json.dumps(document, ensure_ascii=False, allow_nan=False, indent=1) + "\n")


def fraction_of(number: Any) -> Fraction:
    """A number, or the text of one such as 25, 29.97 or 30000/1001, exactly.

    Raises ValueError, TypeError or ArithmeticError for anything else, and for 1e999999999, which Python would work
    out for hours.
    """
    if isinstance(number, str) and (len(number) > 60 or "e" in number.lower()):
        raise ValueError(f"not a plain number: {number[:60]}")
    return Fraction(number)


def read_json(path: Path) -> Any:
    """Parse a UTF-8 JSON file. Raises InputError when it is missing, unreadable or not JSON."""
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not a JSON file (not UTF-8 text)") from error
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not valid JSON ({error})") from error


def sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's bytes. Raises InputError when it cannot be read."""
    try:
        with open(path, "rb") as file:
            return digest_of(file)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from error


def digest_of(file: BinaryIO) -> str:
    """Hexadecimal SHA-256 of an open file, from its present place on."""
    digest = hashlib.sha256()
    while block := file.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()
