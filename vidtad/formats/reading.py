"""Ground truth and predictions of any supported format, recognised by what is inside, not by the file name."""

import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from vidtad.errors import InputError
from vidtad.formats import activitynet, delimited, ego4d, epic, multithumos, thumos
from vidtad.formats.document import collector_paused, first_row, named, parse_json, read_text
from vidtad.formats.tables import Annotations, Findings, Predictions, index_names

TRUTH_KINDS = (
    "ActivityNet, Ego4D or MultiTHUMOS JSON, CSV with video,start_s,end_s,label[,subset], an EPIC-KITCHENS CSV, "
    "a THUMOS'14 folder"
)
PREDICTION_KINDS = (
    "a timeline or ActivityNet results JSON, CSV with video,start_s,end_s,label,score, an EPIC or Ego4D submission, "
    "THUMOS text, ActionFormer's eval_results.pkl"
)
Fits = Callable[[Any], bool]
ANNOTATION_DOCUMENTS: tuple[tuple[Fits, Callable[[Mapping[str, Any], Findings], Annotations]], ...] = (
    (multithumos.is_annotations, multithumos.annotations),
    (ego4d.is_annotations, ego4d.annotations),
    (activitynet.is_annotations, activitynet.annotations),
)
PREDICTION_DOCUMENTS: tuple[tuple[Fits, Callable[[Mapping[str, Any], Findings], Predictions]], ...] = (
    (ego4d.is_predictions, ego4d.predictions),
    (epic.is_predictions, epic.predictions),
    (activitynet.is_predictions, activitynet.predictions),
)


def read_annotations(path: Path) -> Annotations:
    """Ground truth in seconds. Raises InputError when the file is missing, unreadable or of no known
    layout.
    """
    with named(path), collector_paused():
        return _annotations(path)


def read_predictions(path: Path) -> Predictions:
    """Scored segments in seconds; a folder is read as one file per video (timelines).

    Raises InputError when the file is missing, unreadable or of no known layout.
    """
    with named(path), collector_paused():
        return _predictions(path)


def _annotations(path: Path) -> Annotations:
    path, findings = Path(path), Findings()
    if thumos.is_folder(path):
        return thumos.annotations(path, findings)
    refuse_binary(path)
    text = read_text(path)
    if _is_json(text):
        document = parse_json(text, path, findings)
        for fits, read in ANNOTATION_DOCUMENTS:
            if fits(document):
                return read(document, findings)
        if any(fits(document) for fits, _ in PREDICTION_DOCUMENTS):
            raise InputError(f"{path}: holds predictions, where ground truth was expected; swap the two files?")
    else:
        header = first_row(text)
        if epic.is_annotations(header):
            return epic.annotations(text, findings)
        if delimited.is_annotations(header):
            return delimited.annotations(text, findings)
        delimited.refuse_header(header)
    raise InputError(f"{path}: not ground truth of a known layout ({TRUTH_KINDS})")


def _predictions(path: Path) -> Predictions:
    path, findings = Path(path), Findings()
    if path.is_dir():
        return _read_folder(path)
    head = _head(path)
    if head.startswith(b"PK\x03\x04"):
        return delimited.predictions_from_columns(_npz(path), findings)
    if head[:1] == b"\x80":
        return delimited.predictions_from_columns(_pickle(path), findings)
    text = read_text(path)
    if _is_json(text):
        document = parse_json(text, path, findings)
        for fits, read in PREDICTION_DOCUMENTS:
            if fits(document):
                return read(document, findings)
        if any(fits(document) for fits, _ in ANNOTATION_DOCUMENTS):
            raise InputError(f"{path}: holds annotations, where predictions were expected; swap the two files?")
    elif thumos.is_detections(text):
        return thumos.predictions(text, findings)
    elif delimited.is_predictions(first_row(text)):
        return delimited.predictions(text, findings)
    else:
        delimited.refuse_header(first_row(text), delimited.NEEDED | {"score"})
    raise InputError(f"{path}: not predictions of a known layout ({PREDICTION_KINDS})")


def joined(parts: list[Predictions]) -> Predictions:
    """One table of several, in order. A video in two of them is a finding."""
    videos, video_of = index_names([name for part in parts for name in part.videos])
    labels, label_of = index_names([name for part in parts for name in part.labels])
    findings = Findings()
    seen: set[str] = set()
    for part in parts:
        for name in part.videos:
            if name in seen:
                findings.add("video in two files", repr(name))
            seen.add(name)
    v = np.cumsum([0, *(len(part.videos) for part in parts)])
    k = np.cumsum([0, *(len(part.labels) for part in parts)])
    extra = set.intersection(*(set(part.extra) for part in parts))
    return Predictions(
        videos,
        labels,
        np.concatenate([video_of[v[i] : v[i + 1]][part.video] for i, part in enumerate(parts)]),
        np.concatenate([label_of[k[i] : k[i + 1]][part.label] for i, part in enumerate(parts)]),
        np.concatenate([part.start for part in parts]),
        np.concatenate([part.end for part in parts]),
        score=np.concatenate([part.score for part in parts]),
        numbered=all(part.numbered for part in parts),
        extra={name: np.concatenate([part.extra[name] for part in parts]) for name in extra},
        source=parts[0].source,
        findings=(*(finding for part in parts for finding in part.findings), *findings.result()),
    )


def refuse_binary(path: Path) -> None:
    """Say what a pickled annotation file should be replaced by. Raises InputError for one."""
    if _head(path)[:1] == b"\x80":
        raise InputError(f"{path}: a pickle, which can run code; give the CSV or JSON of the same annotations")


def _read_folder(folder: Path) -> Predictions:
    files = sorted(folder.glob("*.json")) or sorted(folder.glob("*.csv"))
    if not files:
        raise InputError(f"{folder}: no timeline (*.json or *.csv) in this folder")
    parts = []
    for file in files:
        try:
            parts.append(read_predictions(file))
        except InputError as error:
            if len(files) == 1:
                raise
            # A summary or report document beside the timelines is not one of them.
            parts.append(_nothing(f"{file.name}: {error}"))
    if not any(part.source != "skipped" for part in parts):
        raise InputError(f"{folder}: no file in this folder is a timeline or other predictions")
    good = joined([part for part in parts if part.source != "skipped"])
    skipped = [finding for part in parts if part.source == "skipped" for finding in part.findings]
    return replace(good, findings=(*good.findings, *skipped))


def _nothing(reason: str) -> Predictions:
    findings = Findings()
    findings.add("file that holds no predictions", reason)
    none = np.zeros(0)
    return Predictions((), (), none, none, none, none, score=none, source="skipped", findings=findings.result())


def _head(path: Path) -> bytes:
    # A pipe can be read once only, and one without a writer waits for ever.
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise InputError(f"{path}: is a pipe or device, not a file; save its content to a file first")
    try:
        with open(path, "rb") as file:
            return file.read(512)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from error


def _is_json(text: str) -> bool:
    return text[:200].lstrip()[:1] in ("{", "[")


def _npz(path: Path) -> Mapping[str, Any]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            table = {name: archive[name] for name in archive.files}
    except (OSError, ValueError, zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise InputError(f"{path}: not readable as arrays ({error})") from error
    return _columns(table, path)


def _pickle(path: Path) -> Mapping[str, Any]:
    from vidtad.hub.pickles import Refused, read_numpy_pickle

    try:
        table = read_numpy_pickle(path.read_bytes())
    except Refused as error:
        raise InputError(f"{path}: refused, it holds {error}; write the predictions as JSON or CSV") from error
    return _columns(_plain(table), path)


def _columns(table: Any, path: Path) -> Mapping[str, Any]:
    if not delimited.is_columns(table):
        raise InputError(f"{path}: no prediction columns (video-id, t-start, t-end, label, score)")
    return table


def _plain(table: Any) -> Any:
    """Arrays of a restricted load come as stand-ins that carry the array in `value`."""
    if isinstance(table, dict):
        return {name: getattr(column, "value", column) for name, column in table.items()}
    return table
