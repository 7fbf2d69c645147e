"""A label file, or a folder of them, of any supported tool; recognised by what is inside."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from vidtad.errors import InputError
from vidtad.formats import boris, cvat, elan, labelstudio, srt, subtitles, via3, webvtt
from vidtad.formats.delimited import NEEDED, columns_of, refuse_header
from vidtad.formats.document import csv_records, first_row, named, parse_json, read_text, seconds_of
from vidtad.formats.label_types import Gather, Labels, video_id, with_columns
from vidtad.formats.reading import read_annotations, refuse_binary
from vidtad.formats.tables import Findings
from vidtad.formats.thumos import is_folder

KINDS = (
    "ActivityNet JSON, CSV with video,start,end,label[,group], ELAN .eaf, a BORIS project or event table, a VIA 3 "
    "project, a Label Studio export, CVAT for video 1.1, SRT, WebVTT, or a ground truth that `vidtad evaluate` reads"
)
SUFFIXES = frozenset({".eaf", ".boris", ".json", ".csv", ".tsv", ".xml", ".srt", ".vtt"})


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
            into.on_player = False
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
    if elan.fits(text):
        elan.read_labels(text, path, into)
        return "elan"
    if cvat.fits(text):
        cvat.read_labels(text, path, into, frame_rate)
        return "cvat"
    if srt.fits(text) or webvtt.fits(text):
        subtitles.read_labels(text, path, into, escaped=webvtt.fits(text))
        return "vtt" if webvtt.fits(text) else "srt"
    if text[:200].lstrip()[:1] in ("{", "["):
        document = parse_json(text, path, into.findings)
        if boris.is_project(document):
            into.on_player = True
            boris.gather_project(document, into)
            return "boris"
        if via3.is_project(document):
            via3.read_labels(document, into)
            return "via"
        if labelstudio.is_export(document):
            labelstudio.read_labels(document, into, frame_rate)
            return "label-studio"
        return None
    if boris.fits(text):
        boris.read_labels(text, path, into)
        return "boris"
    return "csv" if _gather_table(text, into) else None


def _gather_table(text: str, into: Gather) -> bool:
    """Add the rows of a CSV; False when its header has not the needed columns.

    Commas, semicolons or tabs; seconds, or clock times such as 1:02:03.5. A row with a video alone states that
    nothing happens in it. Raises InputError for a header that lacks some of the columns.
    """
    header = first_row(text)
    names = columns_of(header)
    if {"verb_class", "narration_id"} & set(header):
        return False
    refuse_header(header)
    if not names.keys() >= NEEDED:
        return False
    lowered = {name.strip().lower(): name.strip() for name in header}
    for record in csv_records(text, into.findings):
        into.columns.place = f"line {record.line}: "
        _gather_row(record, names, lowered, into)
    into.columns.place = ""
    return True


def _gather_row(record: dict[str, str], names: dict[str, str], lowered: dict[str, str], into: Gather) -> None:
    stated = record[names["video"]].strip()
    if not stated:
        into.findings.add("row without a video", into.columns.place + repr(list(record.values()))[:60])
        return
    columns: dict[str, str] = {key: names[key] for key in ("subset", "duration") if key in names}
    columns |= {key: lowered[key] for key in ("group", "fps", "file") if key in lowered}
    more = {key: record[column].strip() for key, column in columns.items()}
    video = into.video(stated, **more)
    label, start, end = (record[names[key]].strip() for key in ("label", "start", "end"))
    if label or start or end:
        into.add(video, "Ambiguous" if label == "-1" else label, seconds_of(start), seconds_of(end))


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
