"""The ActivityNet layouts: `{"database": ...}` for annotations, `{"results": ...}` for predictions.

Also what the widely used programs write in their place: ActionFormer's `{"database": {id: [{"segment",
"label_id", "scores"}]}}` predictions, a bare `{id: [...]}` of rows, and the annotation tables without the
`database` wrapper that the BSN family uses. vidtad's own timeline JSON is read as predictions.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from vidtad.errors import InputError
from vidtad.formats.document import SegmentColumns, numbers, rows_of
from vidtad.formats.tables import Annotations, Findings, Predictions

# What DETAD wants to know about an annotation, under both spellings its files use.
CHARACTERISTICS = {
    "length": "length",
    "coverage": "coverage",
    "num-instances": "num-instances",
    "num_instances": "num-instances",
}


def is_annotations(document: Any) -> bool:
    """Whether this JSON document is a table of annotated videos, with or without the `database` wrapper."""
    table = document.get("database", document) if isinstance(document, dict) else None
    if not isinstance(table, dict):
        return False
    if not table and "database" in document:
        return True
    return any(isinstance(video, dict) and isinstance(video.get("annotations"), list) for video in table.values())


def is_predictions(document: Any) -> bool:
    """Whether this JSON document holds scored segments per video."""
    return _results(document) is not None


def annotations(document: Mapping[str, Any], findings: Findings) -> Annotations:
    """Read annotations of every subset. Raises InputError when no video table is there."""
    table = document.get("database", document)
    if not isinstance(table, dict):
        raise InputError("ground truth: 'database' is not an object of videos")
    columns, durations, subsets = SegmentColumns(findings), [], []
    label_ids: dict[str, int] = {}
    extra: dict[str, list[Any]] = {}
    for name, video in table.items():
        if not isinstance(video, dict):
            findings.add("video that is no object", name)
            continue
        position = columns.add_video(name)
        durations.append(video.get("duration", video.get("duration_second")))
        subsets.append(str(video.get("subset") or ""))
        for row in rows_of(findings, name, video.get("annotations", [])):
            before = len(columns.video)
            for label in labels_in(row.get("label", row.get("label_id")), name, findings):
                columns.add(position, label, _segment(row))
            if len(columns.video) == before:
                continue
            if "label_id" in row and isinstance(row["label_id"], int):
                label_ids.setdefault(str(row.get("label", row["label_id"])), row["label_id"])
            for known, value in {CHARACTERISTICS[key]: row[key] for key in CHARACTERISTICS if key in row}.items():
                column = extra.setdefault(known, [])
                column.extend([None] * (before - len(column)))
                column.extend([value] * (len(columns.video) - before))
    table_columns = columns.columns()
    del table_columns["score"]
    kept, total = table_columns.pop("kept"), len(columns.video)
    return Annotations(
        **table_columns,
        subset=tuple(subsets),
        duration=numbers(durations),
        label_ids=label_ids,
        extra={key: numbers(column + [None] * (total - len(column)))[kept] for key, column in extra.items()},
        source="activitynet",
        findings=findings.result(),
    )


def predictions(document: Mapping[str, Any], findings: Findings) -> Predictions:
    """Read scored segments. Raises InputError when the document holds no `results`."""
    results = _results(document)
    if results is None:
        raise InputError("predictions: no 'results' object of videos")
    columns = SegmentColumns(findings)
    numbered = False
    for name, rows in results.items():
        position = columns.add_video(name)
        for row in rows_of(findings, name, rows):
            label = row.get("label")
            if label is None and "label_id" in row:
                label, numbered = row["label_id"], True
            score = row["score"] if "score" in row else row.get("scores")
            for each in labels_in(label, name, findings):
                columns.add(position, each, _segment(row), score)
    table = columns.columns()
    del table["kept"]
    if "" in table["labels"]:
        findings.add("prediction without a label", "read as class-agnostic proposals", serious=False)
    return Predictions(**table, numbered=numbered, source="activitynet", findings=findings.result())


def labels_in(value: Any, where: str, findings: Findings) -> list[Any]:
    """The labels of one entry: a text or a class number, or each of a list of these. Others are a finding."""
    if isinstance(value, list):
        return [label for each in value for label in labels_in(each, where, findings)]
    if value is None or (isinstance(value, str | int) and not isinstance(value, bool)):
        return [value]
    findings.add("label that is no text", f"{where}: {str(value)[:40]}")
    return []


def _segment(row: Mapping[str, Any]) -> Any:
    if "segment" in row:
        return row["segment"]
    if "start_time" in row and "end_time" in row:
        return [row["start_time"], row["end_time"]]
    return None


def _results(document: Any) -> Mapping[str, Any] | None:
    if not isinstance(document, dict):
        return None
    for key in ("results", "detect_results", "database"):
        if key in document:
            table = document[key]
            if key == "database" and not table:
                return None
            return table if isinstance(table, dict) and _all_lists(table) else None
    return document if document and _all_lists(document) else None


def _all_lists(table: Mapping[str, Any]) -> bool:
    return all(isinstance(rows, list) for rows in table.values())


def results_json(predicted: Predictions) -> dict[str, Any]:
    """ActivityNet results document; scores and times are written in full."""
    results: dict[str, list[dict[str, Any]]] = {name: [] for name in predicted.videos}
    rows = zip(
        predicted.video.tolist(),
        predicted.label.tolist(),
        predicted.score.tolist(),
        predicted.start.tolist(),
        predicted.end.tolist(),
        strict=True,
    )
    for video, label, score, start, end in rows:
        results[predicted.videos[video]].append(
            {"label": predicted.labels[label], "score": score, "segment": [start, end]}
        )
    return {"version": "vidtad", "results": results, "external_data": {}}


def annotations_json(truth: Annotations) -> dict[str, Any]:
    """ActivityNet ground-truth document."""
    database: dict[str, dict[str, Any]] = {}
    for name, subset, duration in zip(truth.videos, truth.subset, truth.duration.tolist(), strict=True):
        database[name] = {"subset": subset, "annotations": []}
        if np.isfinite(duration):
            database[name]["duration"] = duration
    rows = zip(truth.video.tolist(), truth.label.tolist(), truth.start.tolist(), truth.end.tolist(), strict=True)
    for video, label, start, end in rows:
        row: dict[str, Any] = {"label": truth.labels[label], "segment": [start, end]}
        if truth.labels[label] in truth.label_ids:
            row["label_id"] = truth.label_ids[truth.labels[label]]
        database[truth.videos[video]]["annotations"].append(row)
    return {"version": "vidtad", "taxonomy": [], "database": database}
