"""Writing files so that a reader never sees half of one, and recognising files by their content."""

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO

from vidtad.errors import InputError, RunError

VIDEO_SUFFIXES = frozenset(
    ".3gp .asf .avi .flv .m2ts .m4v .mkv .mov .mp4 .mpeg .mpg .mts .mxf .ogv .ts .vob .webm .wmv".split()  # noqa: SIM905
)
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


@contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """Binary file that appears under `path` only when the block ends without an error.

    The bytes go to a temporary file in the same folder, reach the disk, and are renamed. Raises RunError when
    the folder cannot be made or written (permission, full disk), InputError when it is a file.
    """
    path = Path(path)
    try:
        make_folder(path.parent)
        descriptor, temporary = tempfile.mkstemp(prefix=temporary_prefix(path.name), suffix=".tmp", dir=path.parent)
    except OSError as error:
        raise RunError(f"{path}: cannot write here ({error.strerror or error})") from error
    _temporaries.add(temporary)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        # mkstemp makes the file private; give it the mode any new file of this process would get.
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)
        os.replace(temporary, path)
    except OSError as error:
        raise RunError(f"{path}: writing failed ({error.strerror or error})") from error
    finally:
        with suppress(OSError):
            os.unlink(temporary)
        _temporaries.discard(temporary)


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
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from error
    return digest.hexdigest()
