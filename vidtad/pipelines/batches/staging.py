"""Inputs and outputs elsewhere: fetched for as long as they are worked on, put there when whole, skipped when there.

The work itself sees local files only. What stands in its JSON files names the places the user named, and under the key
`remote` what made it: nothing is fetched again for a video whose storage says that it is the same.
"""

import hashlib
import json
import re
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vidtad import __version__
from vidtad.arrays import file_of
from vidtad.errors import InputError, RunError, VidtadError
from vidtad.heads.catalogue import cache_dir
from vidtad.pipelines.claims import forget
from vidtad.runtime.files import brief, make_folder, read_json, sha256, still_there, write_json
from vidtad.runtime.locks import claim, turn
from vidtad.runtime.remote import fetch, mark, put, read, shown, size, url_of

Rename = Callable[[Any], Any]
"""Puts the places the user named for the local ones, in text, and in all texts of JSON values."""


@dataclass(frozen=True)
class Outputs:
    """What an item leaves in `folder` (None: nothing): its stem with these suffixes; the JSON document is the last.

    `key` stands for everything besides the item that decides them.
    """

    folder: Path | None
    suffixes: tuple[str, ...]
    key: str
    overwrite: bool = False

    def names(self, path: Path) -> list[str]:
        """Names of the files for one item."""
        return [path.stem + suffix for suffix in self.suffixes]


def is_away(path: Path, outputs: Outputs) -> bool:
    """Whether input or outputs are elsewhere."""
    return url_of(path) is not None or (outputs.folder is not None and url_of(outputs.folder) is not None)


def with_copies(path: Path, outputs: Outputs, work: Callable[[Path, Path | None], Any]) -> tuple[Any, bool]:
    """Do `work(input, output folder)`, both local, for an item that is away.

    Returns (what it returns, JSON values, with the user's names in place of local ones; False), or, when finished
    outputs of the same making from the same file were there, (their JSON document; True). Raises like `work`; Busy
    while another process on this machine is at it.
    """
    if outputs.folder is not None and not outputs.overwrite:
        document = finished(path, outputs)
        if document is not None:
            return document, True
    if outputs.folder is None:
        with fetched(path) as local:
            return _renaming({local: path}, lambda: work(local, None)), False
    away = url_of(outputs.folder) is not None
    folder = _staging(outputs.folder) if away else outputs.folder
    seen = _mark(path)
    with claim(folder / f".{brief(path.stem)}.away.lock", shown(path)), fetched(path) as local:
        if _mark(path) != seen:
            raise RunError(f"{shown(path)}: was changed or replaced while it was fetched; run the same command again")
        places = {local: path, folder: outputs.folder}
        if away and not outputs.overwrite:
            for name in outputs.names(path):
                if size(outputs.folder / name) is not None:
                    fetch(outputs.folder / name, folder)
        value = _renaming(places, lambda: work(local, folder))
        _publish(path, outputs, folder, seen, _renamer(places))
    return value, False


def forget_away(folder: Path, path: Path) -> None:
    """Remove what workers that died over `path` left in the output folder `folder`, or here on the way there."""
    forget(folder if url_of(folder) is None else _staging(folder), path)
    _sweep()


def finished(path: Path, outputs: Outputs) -> Any:
    """The JSON document of finished outputs of the same making, None when there are none."""
    assert outputs.folder is not None
    data = read(outputs.folder / f"{path.stem}.json")
    try:
        document = json.loads(data or b"null")
        made = document["remote"]
        if made["key"] != outputs.key or made["source"] != shown(path) or made["mark"] != _mark(path):
            return None
        sizes = {name: size(outputs.folder / name) for name in outputs.names(path)[:-1]}
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    return document if sizes == made["sizes"] else None


def making(*settings: object, files: Sequence[object] = ()) -> str:
    """A key for `Outputs`: of settings whose `repr` says everything, and of the content of those `files` that are."""
    total = hashlib.sha256(repr((__version__, settings)).encode())
    for part in (part for file in files if file is not None for part in str(file).split(",")):
        if Path(part).is_file():
            total.update(sha256(Path(part)).encode())
    return total.hexdigest()


def _mark(path: Path) -> str:
    if url_of(path) is not None:
        return mark(path)
    try:
        found = file_of(path).stat()
    except OSError as error:
        raise InputError(f"{path}: cannot be opened ({error.strerror or error})") from error
    return f"{found.st_size} {found.st_mtime_ns}"


def _root() -> Path:
    return cache_dir() / "remote"


def _staging(folder: Path) -> Path:
    """Where outputs and unfinished rows for a place elsewhere are on this machine, the same in every run."""
    return _root() / hashlib.sha256(shown(folder).encode()).hexdigest()[:16]


@contextmanager
def fetched(path: Path) -> Iterator[Path]:
    """The input on this machine while the block runs: itself, or a copy that is gone afterwards."""
    if url_of(path) is None:
        yield path
        return
    _sweep()
    place = _root() / f"in-{uuid.uuid4().hex}"
    with turn(place.with_suffix(".lock")):
        try:
            make_folder(place)
            local = fetch(path, place)
            if local.suffix.lower() == ".npy" and size(path.with_suffix(".json")) is not None:
                fetch(path.with_suffix(".json"), place)
            yield local
        finally:
            shutil.rmtree(place, ignore_errors=True)


def _sweep() -> None:
    """Remove copies whose process was killed."""
    for left in _root().glob("in-*/") if _root().is_dir() else ():
        if left.is_dir():
            with suppress(RunError), claim(left.with_suffix(".lock")):
                shutil.rmtree(left, ignore_errors=True)


def _renamer(places: Mapping[Path, Path]) -> Rename:
    texts = {str(local): shown(place) for local, place in places.items() if local != place}
    form = re.compile("|".join(map(re.escape, sorted(texts, key=len, reverse=True))) or r"(?!)")

    def rename(value: Any) -> Any:
        if isinstance(value, str):
            return form.sub(lambda found: texts[found[0]], value)
        if isinstance(value, dict):
            return {rename(name): rename(entry) for name, entry in value.items()}
        return [rename(entry) for entry in value] if isinstance(value, list | tuple) else value

    return rename


def _renaming(places: Mapping[Path, Path], work: Callable[[], Any]) -> Any:
    rename = _renamer(places)
    try:
        return rename(work())
    except VidtadError as error:
        raise type(error)(rename(str(error))) from (error.__cause__ or error)


def _publish(path: Path, outputs: Outputs, folder: Path, seen: str, rename: Rename) -> None:
    """Name what made the outputs, and put them where they belong, the JSON document last."""
    assert outputs.folder is not None
    names = outputs.names(path)
    sizes = {name: size(folder / name) for name in names[:-1]}
    still_there(folder / name for name in names)
    made = {"key": outputs.key, "source": shown(path), "mark": seen, "sizes": sizes}
    last = folder / names[-1]
    write_json(last, rename(read_json(last)) | {"remote": made})
    if folder != outputs.folder:
        for name in names:
            put(folder / name, outputs.folder / name)
        for name in names:
            (folder / name).unlink(missing_ok=True)
