"""Tables with one row per segment: CSV with a header line, and arrays in `.npz` or ActionFormer's pickle.

CSV columns (in any order, others ignored): video, start_s, end_s, label, and score for predictions; ground
truth may add subset and duration_s. Usual other spellings are understood (`video-name`, `t-init`,
`label-idx`, ...).
"""

import difflib
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from vidtad.errors import InputError
from vidtad.formats.document import SegmentColumns, csv_records, is_number, numbers, refused, seconds_of
from vidtad.formats.tables import Annotations, Findings, Predictions

SPELLINGS = {
    "video": ("video", "video_id", "video-id", "video-name", "video_name"),
    "start": ("start_s", "start", "t-start", "t-init", "start_time", "xmin"),
    "end": ("end_s", "end", "t-end", "stop", "end_time", "xmax"),
    "label": ("label", "class", "action", "label-idx", "label_id", "class_id"),
    "score": ("score", "confidence"),
    "subset": ("subset", "split"),
    "duration": ("duration_s", "duration", "video-duration"),
}
NEEDED = frozenset({"video", "start", "end", "label"})
BOXES = frozenset({"xmin", "xmax", "ymin", "ymax"})
"""Columns of a box in a frame; `xmin` and `xmax` alone are the ends of a segment in some data sets."""


def columns_of(header: Iterable[str]) -> dict[str, str]:
    """Our column name -> the header's spelling of it."""
    lowered = {name.strip().lower(): name.strip() for name in header}
    boxes = lowered.keys() >= BOXES
    return {
        ours: lowered[spelling]
        for ours, spellings in SPELLINGS.items()
        for spelling in reversed(spellings)
        if spelling in lowered and not (boxes and spelling in BOXES)
    }


def refuse_header(header: Sequence[str], needed: Collection[str] = NEEDED) -> None:
    """Raise InputError for a header that has some of the needed columns and lacks others, naming near ones.

    Nothing happens for a header that is complete, or so different that it is another kind of file's.
    """
    names = columns_of(header)
    missing = sorted(needed - names.keys(), key=list(SPELLINGS).index)
    if not missing or len(needed & names.keys()) < 2:
        return
    free = [name.strip() for name in header if name.strip() and name.strip() not in names.values()]
    lowered = {name.lower(): name for name in free}
    sentences = []
    for column in missing:
        near = difflib.get_close_matches(column, lowered, n=1, cutoff=0.6)
        sentences.append(f"no column `{column}`" + (f"; did you mean `{lowered[near[0]]}`?" if near else ""))
    boxes = [name for name in free if name.lower() in BOXES]
    remark = f"; {', '.join(boxes)} are boxes, not times" if boxes else ""
    frames = next((name for name in free if name.lower() in ("frame", "frames", "start_frame", "end_frame")), None)
    if frames and not boxes:
        remark = f"; `{frames}` counts frames: give seconds"
    raise InputError(f"{' and '.join(sentences)} (the header is {','.join(header)[:120]}){remark}")


def is_annotations(header: Sequence[str]) -> bool:
    """Whether this CSV header has everything an annotation needs."""
    return columns_of(header).keys() >= NEEDED


def is_predictions(header: Sequence[str]) -> bool:
    """Whether this CSV header has everything a prediction needs."""
    return columns_of(header).keys() >= NEEDED | {"score"}


def annotations(text: str, findings: Findings) -> Annotations:
    """Read ground-truth rows. Labels that are all whole numbers become class numbers; -1 is `Ambiguous`."""
    records = csv_records(text, findings)
    names = columns_of(records[0] if records else ())
    columns, subsets, durations = SegmentColumns(findings), [], []
    positions: dict[str, int] = {}
    for row in records:
        video = row[names["video"]]
        if video not in positions:
            positions[video] = columns.add_video(video)
            subsets.append(row.get(names.get("subset", ""), "").strip())
            durations.append(row.get(names.get("duration", "")))
        label = row[names["label"]].strip()
        columns.add(positions[video], "Ambiguous" if label == "-1" else label, _ends(row, names))
    table = columns.columns()
    del table["score"], table["kept"]
    ids = {label: int(label) for label in table["labels"] if is_number(label)}
    return Annotations(
        **table,
        subset=tuple(subsets),
        duration=numbers(durations),
        label_ids=ids,
        source="csv",
        findings=findings.result(),
    )


def predictions(text: str, findings: Findings) -> Predictions:
    """Read prediction rows."""
    records = csv_records(text, findings)
    names = columns_of(records[0] if records else ())
    columns, positions = SegmentColumns(findings), {}
    for row in records:
        video = row[names["video"]]
        if video not in positions:
            positions[video] = columns.add_video(video)
        columns.add(positions[video], row[names["label"]].strip(), _ends(row, names), row[names["score"]])
    table = columns.columns()
    del table["kept"]
    numbered = bool(table["labels"]) and all(is_number(label) for label in table["labels"])
    return Predictions(**table, numbered=numbered, source="csv", findings=findings.result())


def is_columns(table: Any) -> bool:
    """Whether this mapping holds the columns of predictions: ActionFormer's dump, or ours."""
    return isinstance(table, Mapping) and columns_of(map(str, table)).keys() >= NEEDED | {"score"}


def predictions_from_columns(table: Mapping[str, Any], findings: Findings) -> Predictions:
    """Read flat columns of equal length: names or class numbers, ends in seconds, scores.

    With further entries `videos` and `classes` the columns `video` and `label` are positions in those.
    ActionFormer's times are float32; they become float64 unchanged. Raises InputError when the lengths
    differ.
    """
    names = columns_of(map(str, table))
    with refused("predictions: a column is no list of numbers or names"):
        arrays = {ours: np.asarray(table[theirs]) for ours, theirs in names.items()}
    sizes = {len(arrays[name]) for name in NEEDED | {"score"} if arrays[name].ndim == 1}
    if len(sizes) != 1 or any(arrays[name].ndim != 1 for name in NEEDED | {"score"}):
        raise InputError("predictions: the columns are not lists of one length")
    columns = SegmentColumns(findings)
    videos, video = _named(arrays["video"], table.get("videos"))
    labels, label = _named(arrays["label"], table.get("classes"))
    columns.names = videos
    columns.video = video
    columns.label = [labels[number] for number in label]
    columns.start, columns.end = arrays["start"].tolist(), arrays["end"].tolist()
    columns.score = arrays["score"].tolist()
    done = columns.columns()
    del done["kept"]
    numbered = "classes" not in table and arrays["label"].dtype.kind in "iu"
    return Predictions(**done, numbered=numbered, source="columns", findings=findings.result())


def _named(column: np.ndarray, names: Any) -> tuple[list[str], list[int]]:
    if names is None:
        distinct, position = np.unique(column, return_inverse=True)
        return [str(name) for name in distinct.tolist()], position.reshape(-1).tolist()
    names = [str(name) for name in np.asarray(names).tolist()]
    if column.dtype.kind not in "iu" or (len(column) and not (column.min() >= 0 and column.max() < len(names))):
        raise InputError("predictions: a column points outside its list of names")
    return names, column.astype(np.int64).tolist()


def _ends(row: Mapping[str, Any], names: Mapping[str, str]) -> list[Any]:
    return [seconds_of(row[names["start"]]), seconds_of(row[names["end"]])]
