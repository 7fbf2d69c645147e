"""Annotations and predictions as columns: what every reader returns and every evaluator takes."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from vidtad.errors import InputError
from vidtad.runtime.names import composed

MOST_EXAMPLES = 1000
"""Places of one kind of finding that are kept; the others are counted."""
MILLISECOND = 1e-3
"""Annotations shorter than that, in seconds, are none, and those no further apart are one."""
DROPPED = "dropped"
"""What becomes of a finding unless it says something else: a reader could make nothing of it."""
NOTHING_HAPPENS = "kept, as one in which nothing happens"


@dataclass(frozen=True)
class Finding:
    """Something in the input worth telling: how often it occurs, and one example.

    `serious` findings are the ones `--strict` refuses. `examples`: where it occurs, as far as that was noted (at most
    MOST_EXAMPLES). `fate`: what becomes of it in training, beginning with dropped, cut or kept.
    """

    kind: str
    count: int
    example: str
    serious: bool = True
    examples: tuple[str, ...] = ()
    fate: str = DROPPED

    def line(self) -> str:
        return f"{self.count} x {self.kind}, e.g. {self.example}"

    def to_json(self) -> dict[str, Any]:
        return {"kind": self.kind, "count": self.count, "example": self.example, "serious": self.serious}


class Findings:
    """Collects findings of one kind into a count and their examples, of which the first one is the example."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self._examples: dict[str, list[str]] = {}
        self._serious: dict[str, bool] = {}
        self._fates: dict[str, str] = {}

    def add(self, kind: str, example: str, count: int = 1, *, serious: bool = True, fate: str = DROPPED) -> None:
        self._counts[kind] = self._counts.get(kind, 0) + count
        self._serious.setdefault(kind, serious)
        self._fates.setdefault(kind, fate)
        examples = self._examples.setdefault(kind, [])
        if len(examples) < MOST_EXAMPLES:
            examples.append(example)

    def result(self) -> tuple[Finding, ...]:
        return tuple(
            Finding(kind, count, examples[0], self._serious[kind], tuple(examples), self._fates[kind])
            for (kind, count), examples in zip(self._counts.items(), self._examples.values(), strict=True)
        )


@dataclass(frozen=True)
class _Segments:
    """Columns shared by both tables; every array has one entry per segment, in file order.

    videos, labels: the names that `video` and `label` (both int64) point into.
    start, end: seconds, float64; finite, not necessarily in order.
    """

    videos: tuple[str, ...]
    labels: tuple[str, ...]
    video: np.ndarray
    label: np.ndarray
    start: np.ndarray
    end: np.ndarray

    def __post_init__(self) -> None:
        for name in ("videos", "labels"):
            self._compose(name)
        columns = {
            name: np.ascontiguousarray(getattr(self, name), dtype)
            for name, dtype in (
                ("video", np.int64),
                ("label", np.int64),
                ("start", np.float64),
                ("end", np.float64),
            )
        }
        for name, column in columns.items():
            if column.ndim != 1 or len(column) != len(columns["video"]):
                raise InputError(f"segment table: column {name!r} is not as long as the others")
            object.__setattr__(self, name, column)
        if not (np.isfinite(self.start).all() and np.isfinite(self.end).all()):
            raise InputError("segment table: a start or end is not a finite number")
        for name, names in (("video", self.videos), ("label", self.labels)):
            column = columns[name]
            if len(column) and not (column.min() >= 0 and column.max() < len(names)):
                raise InputError(f"segment table: column {name!r} points outside its names")

    def _compose(self, attribute: str) -> None:
        """Names in the form in which they are compared. Raises InputError where two videos become one."""
        names = tuple(map(composed, getattr(self, attribute)))
        if names == getattr(self, attribute):
            return
        if len(set(names)) < len(names):
            if attribute == "videos":
                twice = next(name for name in names if names.count(name) > 1)
                raise InputError(f"two videos are called {twice!r}, in two spellings that look the same; rename one")
            names, place = index_names(names)
            object.__setattr__(self, "label", np.asarray(place)[np.asarray(self.label, np.int64)])
        object.__setattr__(self, attribute, names)

    def __len__(self) -> int:
        return len(self.video)


@dataclass(frozen=True)
class Annotations(_Segments):
    """Ground truth of any number of videos, also of several subsets.

    subset: one name per video ("" where the file gives none). duration: seconds per video, NaN where unknown.
    label_ids: the file's own number of a label. extra: further columns per annotation (`coverage`, `verb`,
    ...). source: name of the format it was read from. findings: what the reader noticed.
    """

    subset: tuple[str, ...] = ()
    duration: np.ndarray = field(default_factory=lambda: np.zeros(0))
    label_ids: Mapping[str, int] = field(default_factory=dict)
    extra: Mapping[str, np.ndarray] = field(default_factory=dict)
    source: str = "memory"
    findings: tuple[Finding, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.subset:
            object.__setattr__(self, "subset", ("",) * len(self.videos))
        duration = np.asarray(self.duration, np.float64)
        if not len(duration):
            duration = np.full(len(self.videos), np.nan)
        object.__setattr__(self, "duration", duration)
        if len(self.subset) != len(self.videos) or len(duration) != len(self.videos):
            raise InputError("annotation table: subset and duration need one entry per video")

    @property
    def subsets(self) -> tuple[str, ...]:
        """Names of the subsets, in file order."""
        return tuple(dict.fromkeys(self.subset))

    def select(self, keep: np.ndarray) -> "Annotations":
        """The rows where the boolean array `keep` (one entry per annotation) is true."""
        return replace(
            self,
            video=self.video[keep],
            label=self.label[keep],
            start=self.start[keep],
            end=self.end[keep],
            extra={name: column[keep] for name, column in self.extra.items()},
        )

    @classmethod
    def from_rows(cls, rows: Iterable[tuple[str, str, float, float]], **more: Any) -> "Annotations":
        """Table from (video, label, start_s, end_s) rows, in order of first appearance."""
        videos, labels, columns = _columns(rows, 2)
        return cls(videos, labels, *columns, **more)


@dataclass(frozen=True)
class Predictions(_Segments):
    """Scored segments. score: float64, higher is better, finite. Not rounded, not sorted.

    videos may hold names without a row (an empty list in the file). numbered: the labels are the data set's
    own class numbers, to be named through the ground truth. retrieval: a second list meant for recall only
    (Ego4D). extra, source, findings as in `Annotations`.
    """

    score: np.ndarray = field(default_factory=lambda: np.zeros(0))
    numbered: bool = False
    retrieval: "Predictions | None" = None
    extra: Mapping[str, np.ndarray] = field(default_factory=dict)
    source: str = "memory"
    findings: tuple[Finding, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        score = np.ascontiguousarray(self.score, np.float64)
        if score.shape != self.video.shape or not np.isfinite(score).all():
            raise InputError("prediction table: every segment needs one finite score")
        object.__setattr__(self, "score", score)

    def select(self, keep: np.ndarray) -> "Predictions":
        """The rows where the boolean array `keep` (one entry per prediction) is true."""
        return replace(
            self,
            video=self.video[keep],
            label=self.label[keep],
            start=self.start[keep],
            end=self.end[keep],
            score=self.score[keep],
            extra={name: column[keep] for name, column in self.extra.items()},
        )

    @classmethod
    def from_rows(cls, rows: Iterable[tuple[str, str, float, float, float]], **more: Any) -> "Predictions":
        """Table from (video, label, start_s, end_s, score) rows, in order of first appearance."""
        videos, labels, columns = _columns(rows, 3)
        return cls(videos, labels, *columns, **more)


def distinct(table: Annotations, among: Iterable[int]) -> np.ndarray:
    """Those of the rows `among` that no earlier one repeats, int64.

    One repeats another of its video and class when both its ends are within a millisecond of the other's
    (ActionFormer's rule, in the training on ActivityNet and in every evaluation).
    """
    # Rows by the millisecond they start in: of a day of one class, all with all would take minutes.
    kept: dict[tuple[int, int, float], list[int]] = {}
    rows = []
    slots = np.floor(table.start / MILLISECOND).tolist()
    for row in among:
        video, label, slot = int(table.video[row]), int(table.label[row]), slots[row]
        near = (other for offset in range(-2, 3) for other in kept.get((video, label, slot + offset), ()))
        if not any(
            abs(table.start[row] - table.start[other]) <= MILLISECOND
            and abs(table.end[row] - table.end[other]) <= MILLISECOND
            for other in near
        ):
            kept.setdefault((video, label, slot), []).append(row)
            rows.append(row)
    return np.array(rows, np.int64)


def index_names(names: Sequence[str]) -> tuple[tuple[str, ...], np.ndarray]:
    """Distinct names in order of first appearance, and for each entry its position among them (int64)."""
    place = {name: position for position, name in enumerate(dict.fromkeys(names))}
    return tuple(place), np.fromiter(map(place.__getitem__, names), np.int64, len(names))


def _columns(rows: Iterable[tuple[Any, ...]], numbers: int) -> tuple[tuple[str, ...], tuple[str, ...], tuple]:
    table = list(rows)
    videos, video = index_names([row[0] for row in table])
    labels, label = index_names([row[1] for row in table])
    values = np.array([row[2 : 2 + numbers] for row in table], np.float64).reshape(-1, numbers)
    return videos, labels, (video, label, *values.T)
