"""A label file, or a folder of them, of any supported tool; recognised by what is inside."""

import csv
import io
from dataclasses import replace
from pathlib import Path
from typing import Any

from vidtad.errors import InputError
from vidtad.formats.delimited import NEEDED, columns_of
from vidtad.formats.document import named, parse_json, read_text
from vidtad.formats.label_types import Gather, Labels, video_id, with_columns
from vidtad.formats.reading import read_annotations, refuse_binary
from vidtad.formats.tables import Findings
from vidtad.formats.thumos import is_folder
from vidtad.labels import boris, elan, label_studio, via

KINDS = (
    "ActivityNet JSON, CSV with video,start,end,label[,group], ELAN .eaf, a BORIS project or event table, a VIA 3 "
    "project, a Label Studio export, or a ground truth that `vidtad evaluate` reads"
)
SUFFIXES = frozenset({".eaf", ".boris", ".json", ".csv", ".tsv"})


def read_labels(path: Path, *, frame_rate: float | None = None) -> Labels:
    """Labels of a file, or of every label file of a folder (ELAN writes one a video).

    `frame_rate`: frames a second of tools that count frames. Raises InputError when nothing of a known layout is
    there or no segment is usable.
    """
    path = Path(path)
    with named(path):
        if path.is_dir() and not is_folder(path):
            labels = _folder(path, frame_rate)
        else:
            labels = _file(path, frame_rate)
    if not len(labels.table):
        why = "; ".join(finding.line() for finding in labels.table.findings if finding.serious)
        raise InputError(f"{path}: holds no usable segment{f' ({why})' if why else ''}")
    return labels


def _folder(path: Path, frame_rate: float | None) -> Labels:
    files = sorted(file for file in path.iterdir() if file.suffix.lower() in SUFFIXES and not file.name.startswith("."))
    if not files:
        raise InputError(f"{path}: no label file in this folder ({', '.join(sorted(SUFFIXES))})")
    into, sources = Gather(), set()
    for file in files:
        with named(file):
            sources.add(_gather(file, into, frame_rate) or "")
            if "" in sources:
                raise InputError(f"{file}: in a folder only files of annotation tools and CSV are read; give this file")
    return into.labels(", ".join(sorted(sources)))


def _file(path: Path, frame_rate: float | None) -> Labels:
    if path.is_dir():  # THUMOS'14 comes as a folder of text files
        table = read_annotations(path)
        return with_columns(table, [{} for _ in table.videos])
    into = Gather()
    source = _gather(path, into, frame_rate)
    return into.labels(source) if source else _ground_truth(path)


def _gather(path: Path, into: Gather, frame_rate: float | None) -> str | None:
    """Add a file of an annotation tool and return its kind; None when it is none of those."""
    refuse_binary(path)
    text = read_text(path)
    if elan.is_elan(text):
        elan.gather(text, path, into)
        return "elan"
    if text[:200].lstrip()[:1] in ("{", "["):
        document = parse_json(text, path, into.findings)
        if boris.is_project(document):
            boris.gather_project(document, into)
            return "boris"
        if via.is_project(document):
            via.gather(document, into)
            return "via"
        if label_studio.is_export(document):
            label_studio.gather(document, into, frame_rate)
            return "label-studio"
        return None
    if boris.is_table(text):
        boris.gather_table(text, path, into)
        return "boris"
    return "csv" if _gather_table(text, into) else None


def _gather_table(text: str, into: Gather) -> bool:
    """Add the rows of a CSV; False when its header has not the needed columns.

    Commas, semicolons or tabs; seconds, or clock times such as 1:02:03.5. A row with a video alone states that
    nothing happens in it.
    """
    first = text[: text.find("\n") + 1] or text
    for delimiter in (",", ";", "\t"):
        try:
            header = next(csv.reader(io.StringIO(first), delimiter=delimiter), [])
            names = columns_of(header)
            if not names.keys() >= NEEDED or {"verb_class", "narration_id"} & set(header):
                continue
            rows = list(csv.reader(io.StringIO(text), delimiter=delimiter))[1:]
        except csv.Error as error:
            raise InputError(f"not readable as CSV ({error})") from error
        lowered = {name.strip().lower(): name for name in header}
        for row in rows:
            if not any(cell.strip() for cell in row):
                continue
            record = dict(zip(header, row + [""] * (len(header) - len(row)), strict=False))
            _gather_row(record, names, lowered, into)
        return True
    return False


def _gather_row(record: dict[str, str], names: dict[str, str], lowered: dict[str, str], into: Gather) -> None:
    stated = record[names["video"]].strip()
    if not stated:
        into.findings.add("row without a video", repr(list(record.values()))[:60])
        return
    columns: dict[str, str] = {key: names[key] for key in ("subset", "duration") if key in names}
    columns |= {key: lowered[key] for key in ("group", "fps", "file") if key in lowered}
    more = {key: record[column].strip() for key, column in columns.items()}
    video = into.video(stated, **more)
    label, start, end = (record[names[key]].strip() for key in ("label", "start", "end"))
    if label or start or end:
        into.add(video, "Ambiguous" if label == "-1" else label, seconds(start), seconds(end))


def seconds(text: str) -> float | str:
    """Seconds of `75.2`, `75,2`, `1:15.2` or `0:01:15.2`; anything else unchanged, for the findings to show."""
    parts = text.replace(",", ".").split(":")
    if len(parts) > 3 or not all(part.replace(".", "", 1).isdigit() and part.isascii() for part in parts):
        return text
    total = 0.0
    for part in parts:
        total = 60 * total + float(part)
    return total


def _ground_truth(path: Path) -> Labels:
    """Whatever `vidtad evaluate` reads; of ActivityNet JSON also the further entries of a video."""
    try:
        table = read_annotations(path)
    except InputError as error:
        if "known layout" not in str(error):
            raise
        raise InputError(f"{path}: no labels of a known layout ({KINDS})") from error
    more: list[dict[str, Any]] = [{}] * len(table.videos)
    if table.source == "activitynet":
        document = parse_json(read_text(path), path, Findings())
        videos = document.get("database", document)
        more = [entry if isinstance(entry := videos.get(name), dict) else {} for name in table.videos]
    names = tuple(map(video_id, table.videos))
    if len(set(names)) == len(names) and all(names):
        table = replace(table, videos=names)
    return with_columns(table, more)
