"""Detectors and checkpoints by name: what is published, what is on this machine, and which one a name means."""

import dataclasses
import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vidtad.errors import InputError, RunError, VidtadError, unknown
from vidtad.heads.registry import HEADS, converters
from vidtad.hub.bundle import Bundle, load_bundle, read_document, save_bundle
from vidtad.hub.download import ReportProgress, cache_dir, checkpoint_path, fetch, published, record_path, verify
from vidtad.hub.registry import CHECKPOINTS, Checkpoint
from vidtad.runtime.files import atomic_write, is_file, sha256, write_text
from vidtad.runtime.sources import read_hashed

__all__ = [
    "CHECKPOINTS",
    "Added",
    "Checkpoint",
    "add",
    "builtin_bundle",
    "bundle_path",
    "cache_dir",
    "fetch_detector",
    "list_models",
    "resolve_model",
    "show",
]

BUILTIN_FOLDER = Path(__file__).parents[1] / "data"
SUFFIX = ".safetensors"


@dataclass(frozen=True)
class Added:
    """What `add` did: the name to use from now on, the file in the cache, sentences the user should see."""

    name: str
    path: Path
    notes: tuple[str, ...] = ()


def fetch_detector(id: str, *, progress: ReportProgress | None = None, offline: bool = False) -> Path:
    """The bundle of a published detector in the cache; its checkpoint is downloaded and converted where need be.

    `progress` is called with (bytes done, bytes in all or None). Raises InputError for an id that is no published
    detector, with the near ones, and RunError, with the address and where to put the file by hand, when it cannot be
    had.
    """
    detectors = converters()
    if id not in detectors:
        raise InputError(unknown("published detector", id, detectors, "see `vidtad models list`"))
    path = _bundle_path(id)
    if path.is_file():
        return path
    from vidtad.hub.reading import read_checkpoint

    checkpoint = fetch(id, progress=progress, offline=offline)
    return save_bundle(detectors[id](*read_hashed(checkpoint, read_checkpoint)), path)


def _preferred(name: str) -> tuple[str, ...]:
    """Bundles that the name of a head also means."""
    return HEADS[name].preferred if name in HEADS else ()


def _tells_who(name: str) -> bool:
    return name in HEADS and HEADS[name].tells_who


def resolve_model(name: str | Path) -> tuple[Bundle, str | None]:
    """The bundle that `--model name` means, and a sentence for the user when it is only the built-in one.

    A path to a bundle; else a bundle added, fetched or trained under that name (the name of a head prefers its
    published detector when that is here), or a built-in one of that very name; else a published detector with an
    address, which is fetched; else the small built-in bundle of that head. Raises InputError for an unknown name, with
    the near ones, for a published detector that has to be got by hand, and for a broken bundle; RunError for a failed
    download.
    """
    text = str(name)
    if is_file(Path(text)):
        return load_bundle(Path(text)), None
    if text.endswith(SUFFIX) or "/" in text or os.sep in text or len(text) > 100:
        raise InputError(f"{text[:300]}: no such bundle file")
    path = _installed_path(text)
    if path is not None:
        return load_bundle(path), None
    detectors = converters()
    names = (text, *_preferred(text))
    hosted = next((id for id in names if id in detectors and CHECKPOINTS[id].url), None)
    if hosted is not None and text not in _builtins():
        try:
            return load_bundle(fetch_detector(hosted)), None
        except RunError as error:
            path = _builtin_path(text)
            if path is None or text == hosted:
                raise
            bundle = load_bundle(path)
            return bundle, f"{error}; {_demonstration_notice(text, bundle)}"
    path = _builtin_path(text)
    if path is not None:
        bundle = load_bundle(path)
        return bundle, _demonstration_notice(text, bundle) if bundle.demonstration else None
    if _tells_who(text):
        raise InputError(f"no {text} detector is on this machine: {_how_to_have(text)}")
    if text in CHECKPOINTS:
        checkpoint = CHECKPOINTS[text]
        if text in detectors:
            raise InputError(f"{text} is not on this machine: {_how_to_get(checkpoint)}")
        raise InputError(f"{text} is a {checkpoint.task} checkpoint of {checkpoint.network}, not a detector bundle")
    names_here = [*_bundles(), *_builtins(), *HEADS, *detectors]
    raise InputError(unknown("detector", text, names_here, "see `vidtad models list`"))


def bundle_path(name: str) -> Path | None:
    """The file on this machine that `name` means: a bundle here, or a built-in one; else None.

    The demonstration of a person-box head counts under its own name only, not under the head's: there, a dry run or
    further training wants the published size.
    """
    if is_file(Path(name)):
        return Path(name)
    return _installed_path(name) or (_builtins().get(name) if _tells_who(name) else _builtin_path(name))


def builtin_bundle(name: str) -> Bundle:
    """The bundle shipped with the package for the head `name`. Raises InputError with the names there are."""
    path = _builtin_path(name)
    if path is None:
        there = sorted({_document(path).get("head", "") for path in _builtins().values()} - {""})
        raise InputError(f"no built-in detector is called {name!r}; there is {', '.join(there) or 'none'}")
    return load_bundle(path)


def add(path: Path, *, name: str | None = None) -> Added:
    """Put a local file into the cache, verified: a detector bundle, or a checkpoint fetched by hand.

    A bundle is kept under `name` (default: its own). A checkpoint is known by `name` (its id) or by its hash or
    file name, must have the published hash where there is one, and must read as weights; one that is a whole
    detector is turned into a bundle. Raises InputError for a file that is neither, or not the one it should be.
    """
    path = Path(path)
    try:
        document: Mapping[str, Any] | None = read_document(path)
    except InputError:
        if not path.is_file() or path.suffix == SUFFIX:
            raise
        document = None
    if document is not None:
        return _add_bundle(path, name)
    digests = _digests(path)
    checkpoint = published(name) if name is not None else _recognise(path, digests)
    _check_published(path, checkpoint, digests)
    notes: tuple[str, ...] = ()
    if not checkpoint.sha256 and not checkpoint.md5:
        notes = (f"no hash of {checkpoint.id} is published: taken as it is, SHA-256 {digests['sha256']}",)
    if checkpoint.task == "features":
        return Added(checkpoint.id, path, (*notes, "these are features: verified and left where they are"))
    from vidtad.hub.reading import LAYOUTS, read_checkpoint

    if checkpoint.layout in LAYOUTS:
        contents = read_checkpoint(path)
        if convert := converters().get(checkpoint.id):
            try:
                bundle = convert(contents, digests["sha256"])
            except InputError as error:
                raise InputError(f"{path}: {error}") from error
            return Added(checkpoint.id, save_bundle(bundle, _bundle_path(checkpoint.id)), notes)
    target = checkpoint_path(checkpoint)
    _copy(path, target)
    write_text(record_path(target), digests["sha256"] + "\n")
    verify(target, checkpoint)
    return Added(checkpoint.id, target, notes)


def list_models() -> list[dict[str, Any]]:
    """One row a model: bundles here first, then what is published. Reads headers only.

    Keys: name, kind (`bundle` or `checkpoint`), task, classes (how many), size (bytes), licence, cached (on this
    machine), builtin, fetchable (it has an address), get (`built in`, `here`, `fetch` or `by hand`), hash (of published
    ones, see `Checkpoint.check`), and `problem` for a file in the cache that is no sound bundle.
    """
    rows = {name: _bundle_row(name, path, builtin=True) for name, path in _builtins().items()}
    rows |= {name: _bundle_row(name, path, builtin=False) for name, path in _bundles().items()}
    for id, checkpoint in CHECKPOINTS.items():
        if id in rows:
            continue
        path = checkpoint_path(checkpoint)
        cached = path.is_file()
        rows[id] = {
            "name": id,
            "kind": "checkpoint",
            "task": _task(checkpoint),
            "classes": checkpoint.classes,
            "size": path.stat().st_size if cached else checkpoint.size,
            "licence": checkpoint.licence,
            "cached": cached,
            "builtin": False,
        }
    return [row | _origin(row) for row in rows.values()]


def _origin(row: Mapping[str, Any]) -> dict[str, Any]:
    """Where the model of a row comes from, and by what it is known to be the right one."""
    checkpoint = CHECKPOINTS.get(row["name"])
    fetchable = checkpoint is not None and checkpoint.url is not None
    get = "built in" if row["builtin"] else "here" if row["cached"] else "fetch" if fetchable else "by hand"
    return {"fetchable": fetchable, "get": get, "hash": None if checkpoint is None else checkpoint.check}


def show(name: str | Path) -> dict[str, Any]:
    """Everything known of one model, as plain JSON values: of a bundle file, a bundle here, or what is published.

    Raises InputError for an unknown name, with the near ones.
    """
    text = str(name)
    path = Path(text) if is_file(Path(text)) else _installed_path(text) or _builtin_path(text)
    checkpoint = CHECKPOINTS.get(text)
    shown: dict[str, Any] = {}
    if path is not None:
        shown = _bundle_row(text, path, builtin=path.parent == BUILTIN_FOLDER) | read_document(path)
        shown |= {"path": str(path), "sha256": sha256(path)}
    if checkpoint is not None:
        entry = dataclasses.asdict(checkpoint)
        target = checkpoint_path(checkpoint)
        entry |= {"class_names": list(checkpoint.class_names), "how_to_get": _how_to_get(checkpoint)}
        entry |= {"task": _task(checkpoint), "hash": checkpoint.check, "fetchable": checkpoint.url is not None}
        if pinned := _pinned(target):
            entry["pinned_sha256"] = pinned
        if shown:
            return shown | {"published": entry}
        known_place = checkpoint.url is not None or target.is_file()
        entry |= {"kind": "checkpoint", "cached": target.is_file(), "path": str(target) if known_place else None}
        return {"name": entry.pop("id"), **entry}
    if not shown:
        raise InputError(unknown("model", text, [*_bundles(), *_builtins(), *CHECKPOINTS], "see `vidtad models list`"))
    return shown


def _add_bundle(path: Path, name: str | None) -> Added:
    bundle = load_bundle(path)
    if name is not None and name != bundle.name:
        bundle = dataclasses.replace(bundle, name=name)
        return Added(name, save_bundle(bundle, _bundle_path(name)))
    target = _bundle_path(bundle.name)
    if not (target.exists() and target.samefile(path)):
        _copy(path, target)
    return Added(bundle.name, target)


def _copy(path: Path, target: Path) -> None:
    try:
        with open(path, "rb") as source, atomic_write(target) as file:
            while block := source.read(1 << 20):
                file.write(block)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from error


def _digests(path: Path) -> dict[str, str]:
    digests = {"sha256": hashlib.sha256(), "md5": hashlib.md5(usedforsecurity=False)}
    try:
        with open(path, "rb") as file:
            while block := file.read(1 << 20):
                for digest in digests.values():
                    digest.update(block)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from error
    return {name: digest.hexdigest() for name, digest in digests.items()}


def _recognise(path: Path, digests: Mapping[str, str]) -> Checkpoint:
    for checkpoint in CHECKPOINTS.values():
        if checkpoint.sha256 and digests["sha256"].startswith(checkpoint.sha256):
            return checkpoint
        if checkpoint.md5 == digests["md5"]:
            return checkpoint
    named = [checkpoint for checkpoint in CHECKPOINTS.values() if checkpoint.url and checkpoint.file_name == path.name]
    if len(named) == 1:
        return named[0]
    raise InputError(f"{path}: not a bundle, and no published hash or name is its own; say which one it is with --as")


def _check_published(path: Path, checkpoint: Checkpoint, digests: Mapping[str, str]) -> None:
    for kind, expected in (("sha256", checkpoint.sha256), ("md5", checkpoint.md5)):
        if expected and not digests[kind].startswith(expected):
            raise InputError(
                f"{path}: not {checkpoint.id} ({kind} {digests[kind][:16]}, published {expected}); get it again"
            )


def _pinned(path: Path) -> str | None:
    """The hash that a fetched or added file had when it came."""
    try:
        return record_path(path).read_text(encoding="utf-8", errors="replace").strip()[:64]
    except OSError:
        return None


def _task(checkpoint: Checkpoint) -> str:
    """What it does, in the word that the bundle made of it will have."""
    converted = next((spec for spec in HEADS.values() if checkpoint.id in spec.converters), None)
    return checkpoint.task if converted is None else converted.task


def _how_to_get(checkpoint: Checkpoint) -> str:
    if checkpoint.url is not None:
        return f"run `vidtad models fetch {checkpoint.id}`"
    return f"get {checkpoint.how_to_get or 'it by hand'}, then run `vidtad models add FILE --as {checkpoint.id}`"


def _how_to_have(head: str) -> str:
    real = next((id for id in _preferred(head) if id in converters()), None)
    if real is not None:
        return f"{_how_to_get(CHECKPOINTS[real])}; --weights random makes a dry run"
    return f"none was released, so train one (vidtad train --model {head}) and pass its file; --weights random dry-runs"


def _demonstration_notice(name: str, bundle: Bundle) -> str:
    real = next((id for id in _preferred(bundle.head) if id in converters()), None)
    remedy = f"; for the published detector {_how_to_get(CHECKPOINTS[real])}" if real else ""
    if not real and _tells_who(bundle.head):
        remedy = f"; none was released, so train one (vidtad train --model {bundle.head})"
    return f"`{name}` is the built-in demonstration detector, which knows generated classes only{remedy}"


def _bundle_path(name: str) -> Path:
    return cache_dir() / "bundles" / f"{name}{SUFFIX}"


def _bundles() -> dict[str, Path]:
    return {path.stem: path for path in sorted((cache_dir() / "bundles").glob(f"*{SUFFIX}"))}


def _installed_path(name: str) -> Path | None:
    installed = _bundles()
    return next((installed[id] for id in (name, *_preferred(name)) if id in installed), None)


def _builtins() -> dict[str, Path]:
    return {path.stem: path for path in sorted(BUILTIN_FOLDER.glob(f"*{SUFFIX}"))}


def _builtin_path(name: str) -> Path | None:
    builtins = _builtins()
    if name in builtins:
        return builtins[name]
    return next((path for path in builtins.values() if _document(path).get("head") == name), None)


def _document(path: Path) -> dict[str, Any]:
    try:
        return read_document(path)
    except VidtadError:
        return {}


def _bundle_row(name: str, path: Path, *, builtin: bool) -> dict[str, Any]:
    document = _document(path)
    classes, head = document.get("classes"), document.get("head")
    row = {
        "name": name,
        "kind": "bundle",
        "task": HEADS[head].task if isinstance(head, str) and head in HEADS else None,
        "classes": len(classes) if isinstance(classes, list) else None,
        "size": path.stat().st_size,
        "licence": document.get("licence"),
        "cached": True,
        "builtin": builtin,
    }
    return row if document else row | {"problem": "not a sound bundle"}
