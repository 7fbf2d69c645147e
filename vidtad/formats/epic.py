"""EPIC-KITCHENS-100 action detection: the annotation CSV and the challenge's submission JSON.

Every row has a verb and a noun number; its label is `verb,noun`, as the submission writes an action.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from vidtad.formats.document import SegmentColumns, csv_records, numbers, rows_of
from vidtad.formats.tables import Annotations, Findings, Predictions

COLUMNS = {"video_id", "start_timestamp", "stop_timestamp", "verb_class", "noun_class"}
VERBS, NOUNS = 97, 300


def is_annotations(header: list[str]) -> bool:
    """Whether a CSV file with this header line is an EPIC-KITCHENS-100 annotation table."""
    return set(header) >= COLUMNS


def annotations(text: str, findings: Findings) -> Annotations:
    """Read the CSV; timestamps `HH:MM:SS.ss` become seconds, h*3600 + m*60 + s as floats. `extra` has verb,
    noun.
    """
    positions: dict[str, int] = {}
    columns, verbs, nouns = SegmentColumns(findings), [], []
    for row in csv_records(text):
        name = row["video_id"]
        if name not in positions:
            positions[name] = columns.add_video(name)
        ends = [seconds(row["start_timestamp"]), seconds(row["stop_timestamp"])]
        columns.add(positions[name], f"{row['verb_class']},{row['noun_class']}", ends)
        verbs.append(row["verb_class"])
        nouns.append(row["noun_class"])
    table = columns.columns()
    kept, extra, valid = _classes(verbs, nouns, table, findings)
    del table["score"], table["kept"]
    result = Annotations(**table, extra=extra, source="epic", findings=findings.result())
    return result.select(valid) if len(kept) != valid.sum() else result


def is_predictions(document: Any) -> bool:
    """Whether this is a submission: rows with `verb` and `noun` in `results`, or none under the challenge's name."""
    results = document.get("results") if isinstance(document, dict) else None
    if not isinstance(results, dict):
        return False
    first = next((rows[0] for rows in results.values() if isinstance(rows, list) and rows), None)
    if first is None:
        return document.get("challenge") == "action_detection"
    return isinstance(first, dict) and "verb" in first and "noun" in first


def predictions(document: Mapping[str, Any], findings: Findings) -> Predictions:
    """Read a submission. Rows whose class numbers are out of range are dropped with a finding."""
    columns, verbs, nouns = SegmentColumns(findings), [], []
    for name, rows in document["results"].items():
        position = columns.add_video(name)
        for row in rows_of(findings, name, rows):
            before = len(columns.video)
            columns.add(position, f"{row.get('verb')},{row.get('noun')}", row.get("segment"), row.get("score"))
            if len(columns.video) > before:
                verbs.append(row.get("verb"))
                nouns.append(row.get("noun"))
    table = columns.columns()
    kept, extra, valid = _classes(verbs, nouns, table, findings)
    del table["kept"]
    result = Predictions(**table, extra=extra, source="epic", findings=findings.result())
    return result.select(valid) if len(kept) != valid.sum() else result


def seconds(timestamp: str) -> float | str:
    """`HH:MM:SS.ss` in seconds; text that is no time is returned as it is, and refused with the ends."""
    try:
        hours, minutes, rest = timestamp.split(":")
        return float(hours) * 3600 + float(minutes) * 60 + float(rest)
    except (ValueError, AttributeError):
        return timestamp


def _classes(
    verbs: list[Any], nouns: list[Any], table: Mapping[str, Any], findings: Findings
) -> tuple[np.ndarray, dict[str, np.ndarray], np.ndarray]:
    kept = table["kept"]
    verb, noun = numbers(verbs)[kept], numbers(nouns)[kept]
    with np.errstate(invalid="ignore"):
        valid = (verb >= 0) & (verb < VERBS) & (noun >= 0) & (noun < NOUNS) & (verb % 1 == 0) & (noun % 1 == 0)
    wrong = np.flatnonzero(~valid)
    if len(wrong):
        where = table["videos"][table["video"][wrong[0]]]
        example = f"{where}: verb {verb[wrong[0]]:g}, noun {noun[wrong[0]]:g}"
        findings.add("verb or noun number out of range", example, len(wrong))
    whole = {"verb": np.where(valid, verb, 0), "noun": np.where(valid, noun, 0)}
    return kept, {name: column.astype(np.int64) for name, column in whole.items()}, valid
