"""Timelines as ActivityNet results, ActivityNet annotations, CSV and THUMOS text; and any of these read back."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from vidtad.errors import InputError
from vidtad.formats.delimited import columns_of
from vidtad.formats.document import csv_records, first_row, read_text
from vidtad.formats.reading import read_annotations, read_predictions
from vidtad.formats.shared import Videos, assemble, labels_of
from vidtad.formats.tables import Annotations, Predictions
from vidtad.formats.thumos import CLASS_IDS
from vidtad.timeline import CSV_COLUMNS, Segment, Timeline, timeline_csv


def write_activitynet(timeline: Timeline) -> dict[str, str]:
    """Results document without anything of our own in it."""
    document = {"version": "VERSION 1.3", "results": {}, "external_data": {}}
    document["results"] = {
        name: [{"label": s.label, "score": s.score, "segment": [s.start_s, s.end_s]} for s in found]
        for name, found in timeline.results.items()
    }
    return {".activitynet.json": json.dumps(document, ensure_ascii=False, allow_nan=False, indent=1) + "\n"}


def write_annotations(timeline: Timeline) -> dict[str, str]:
    """Ground truth for `vidtad train` and `vidtad evaluate`: every segment as true, in order of time.

    A video that nothing is known of but its segments has no `duration`: the end of the last one is none.
    """

    def duration(name: str, found: Sequence[Segment]) -> dict[str, float]:
        info = timeline.videos[name]
        known = info.fps or info.duration_s > max((s.end_s for s in found), default=0.0)
        return {"duration": info.duration_s} if known else {}

    database = {
        name: {
            "subset": "training",
            **duration(name, found),
            "annotations": [
                {"label": s.label, "segment": [s.start_s, s.end_s]} for s in sorted(found, key=lambda s: s.start_s)
            ],
        }
        for name, found in timeline.results.items()
    }
    document = {"version": "vidtad", "taxonomy": [], "database": database}
    return {".annotations.json": json.dumps(document, ensure_ascii=False, allow_nan=False, indent=1) + "\n"}


def write_csv(timeline: Timeline) -> dict[str, str]:
    """One row a segment: video, start_s, end_s, label, score and, where persons were followed, track."""
    return {".csv": timeline_csv(timeline)}


def write_thumos(timeline: Timeline) -> dict[str, str]:
    """Lines `video start end class_id score`; the list of classes goes beside them unless it is THUMOS'14's."""
    labels = labels_of(timeline)
    ids, files = CLASS_IDS, {}
    if not ids.keys() >= set(labels):
        ids = {label: number for number, label in enumerate(labels, 1)}
        files[".thumos.classes.txt"] = "".join(f"{ids[label]} {'_'.join(label.split())}\n" for label in labels)
    lines = []
    for name, found in timeline.results.items():
        if name.split() != [name]:
            raise InputError(f"THUMOS text separates by blanks, so a video cannot be called {name!r}; rename it")
        lines += [f"{name} {s.start_s!r} {s.end_s!r} {ids[s.label]} {s.score!r}\n" for s in found]
    return {".thumos.txt": "".join(lines), **files}


def read(text: str, videos: Videos, path: Path) -> Timeline:
    """Predictions of every layout that `vidtad evaluate` reads, else annotations (score 1). Raises InputError."""
    if {*CSV_COLUMNS, "track"} <= set(first_row(text)):
        return _own_csv(text, videos)
    table: Predictions | Annotations
    scores: list[float]
    try:
        table = found = read_predictions(path)
        scores, names = found.score.tolist(), _thumos_names(path) if found.source == "thumos-text" else {}
    except InputError as first:
        try:
            table = read_annotations(path)
        except InputError as second:
            # What lacks scores was hardly meant as predictions: the other reader's reason is the one to give.
            header = columns_of(first_row(text))
            raise (second if header and "score" not in header else first) from None
        scores, names = [1.0] * len(table), {}
    segments: dict[str, list[Segment]] = {name: [] for name in table.videos}
    columns = zip(
        table.video.tolist(), table.start.tolist(), table.end.tolist(), table.label.tolist(), scores, strict=True
    )
    for video, start, end, label, score in columns:
        name = table.labels[label]
        segments[table.videos[video]].append(Segment(start, end, names.get(name, name), score))
    made = assemble(segments, videos, source=table.source)
    warnings = [finding.line() for finding in table.findings]
    return replace(made, detector={**made.detector, "warnings": warnings}) if warnings else made


def _own_csv(text: str, videos: Videos) -> Timeline:
    segments: dict[str, list[Segment]] = {}
    for number, row in enumerate(csv_records(text), 2):
        try:
            ends, track = (float(row["start_s"]), float(row["end_s"])), row["track"].strip()
            segment = Segment(*ends, row["label"], float(row["score"]), int(track) if track else None)
        except ValueError as error:
            raise InputError(f"line {number}: {error}") from error
        segments.setdefault(row["video"], []).append(segment)
    return assemble(segments, videos, source="csv")


def _thumos_names(path: Path) -> dict[str, str]:
    beside = path.with_name(path.name.removesuffix(".txt").removesuffix(".thumos") + ".thumos.classes.txt")
    if not beside.exists():
        return {str(number): name for name, number in CLASS_IDS.items()}
    lines = (line.split() for line in read_text(beside).splitlines() if line.strip())
    return {words[0]: " ".join(words[1:]) for words in lines}
