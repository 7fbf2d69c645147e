"""Files elsewhere: `s3://`, `gs://`, `file://` and whatever else fsspec has a package for (extra `vidtad[remote]`).

On the command line such a place is a path like any other. As a `pathlib.Path` it has lost a slash (`s3:/bucket/x`),
which `url_of` gives back. Nothing here decodes or writes results: files are copied whole, out and in.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from vidtad.errors import InputError, RunError, first_line
from vidtad.secrecy import masked

_FORM = re.compile(r"([a-z][a-z0-9+.-]+):/+(.*)", re.DOTALL)
OBJECT_STORES = frozenset({"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "oss", "oci", "tos"})
"""Protocols where a file appears whole or not at all; elsewhere it is renamed into its place."""


def url_of(path: Path | str) -> str | None:
    """`s3://bucket/x` for the path `s3:/bucket/x`; None for a place on this machine."""
    found = _FORM.fullmatch(str(path))
    if found is None or Path(path).exists():
        return None
    return f"{found[1]}://{'/' if found[1] in ('file', 'local') else ''}{found[2]}"


def shown(path: Path) -> str:
    """The place as the user wrote it, without passwords or signatures: what is said and stored of it."""
    return masked(url_of(path) or str(path))


@contextmanager
def _said(url: str) -> Iterator[None]:
    """Turn what a storage package raises, which is nearly anything, into one of our errors."""
    try:
        yield
    except (InputError, RunError):
        raise
    except FileNotFoundError as error:
        raise InputError(f"{url}: no such file or folder") from error
    except PermissionError as error:
        raise RunError(f"{url}: no permission ({first_line(error)})") from error
    except Exception as error:
        raise RunError(f"{url}: the storage does not answer as it should ({first_line(error)})") from error


def _filesystem(url: str) -> tuple[Any, str]:
    """The file system of a URL, and the name there. Raises InputError when the package for it is missing."""
    protocol = url.partition("://")[0]
    try:
        import fsspec
    except ImportError as error:
        raise InputError(f"{url}: places elsewhere need fsspec: pip install 'vidtad[remote]'") from error
    try:
        with _said(url):
            found = fsspec.core.url_to_fs(url)
    except RunError as error:
        cause = error.__cause__
        if isinstance(cause, ImportError):
            raise InputError(f"{url}: {protocol}:// needs one more package ({first_line(cause)})") from cause
        if isinstance(cause, ValueError):
            raise InputError(f"{url}: {protocol}:// is no protocol that fsspec knows") from cause
        raise
    return found


def find(path: Path, suffixes: frozenset[str]) -> list[Path]:
    """The file itself, or the files right inside the folder that look right by their suffix, sorted by name.

    Raises InputError when there is none.
    """
    url = url_of(path)
    assert url is not None
    system, name = _filesystem(url)
    with _said(url):
        if system.isfile(name):
            return [path]
        names = [entry["name"] for entry in system.ls(name, detail=True) if entry["type"] == "file"]
    inside = sorted(Path(one.rstrip("/")).name for one in names)
    kept = [path / one for one in inside if Path(one).suffix.lower() in suffixes and not one.startswith(".")]
    if not kept:
        raise InputError(f"{url}: no file of the right kind in this folder")
    return kept


def mark(path: Path) -> str:
    """Text that changes when the file does, as far as its storage tells. Raises InputError, RunError."""
    url = url_of(path)
    assert url is not None
    system, name = _filesystem(url)
    with _said(url):
        return str(system.ukey(name))


def size(path: Path) -> int | None:
    """Bytes of a file, None when it is not there."""
    url = url_of(path)
    if url is None:
        return path.stat().st_size if path.is_file() else None
    system, name = _filesystem(url)
    with _said(url):
        return system.info(name)["size"] if system.isfile(name) else None


def fetch(path: Path, folder: Path) -> Path:
    """Copy a file into `folder` under its own name. Raises RunError when less came than the storage said there is."""
    url = url_of(path)
    assert url is not None
    system, name = _filesystem(url)
    local = folder / path.name
    with _said(url):
        expected = system.info(name)["size"]
        system.get_file(name, str(local))
    came = local.stat().st_size
    if expected is not None and came != expected:
        local.unlink()
        raise RunError(f"{url}: {came} of {expected} bytes came; try again")
    return local


def read(path: Path) -> bytes | None:
    """A small file, None when it is not there."""
    url = url_of(path)
    if url is None:
        with suppress(OSError):
            return path.read_bytes()
        return None
    system, name = _filesystem(url)
    with _said(url):
        return bytes(system.cat_file(name)) if system.isfile(name) else None


def put(local: Path, path: Path) -> None:
    """Copy a finished file to its place elsewhere, where it appears whole. Raises RunError."""
    url = url_of(path)
    assert url is not None
    system, name = _filesystem(url)
    with _said(url):
        if url.partition("://")[0] in OBJECT_STORES:
            system.put_file(str(local), name)
        else:
            system.makedirs(name.rpartition("/")[0], exist_ok=True)
            coming = f"{name}.coming"
            system.put_file(str(local), coming)
            system.mv(coming, name)
        there = system.info(name)["size"]
    if there is not None and there != local.stat().st_size:
        raise RunError(f"{url}: {there} of {local.stat().st_size} bytes arrived; try again")


@contextmanager
def folder_for(path: Path) -> Iterator[Path]:
    """A folder to write into: `path` itself, or one here whose files are put to `path` when the block has ended."""
    from vidtad.runtime.endings import temporary_folder

    if url_of(path) is None:
        yield path
        return
    with temporary_folder() as folder:
        there = folder.stat().st_ino
        yield folder
        if not folder.is_dir() or folder.stat().st_ino != there:
            raise RunError(f"{folder}: this temporary folder was removed while it was at work; run it again")
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                put(file, path / file.relative_to(folder))
