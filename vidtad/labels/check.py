"""What is wrong with labels before hours are spent on them, and the part of them that can be used."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from vidtad.formats.label_types import ON_PLAYER, Labels
from vidtad.formats.tables import DROPPED, MILLISECOND, NOTHING_HAPPENS, Annotations, Finding, Findings, distinct
from vidtad.labels.subsets import NO_CLASS, kind_of

FEW = 10
"""Fewer segments of a class than this teach little."""
LEAST_S = MILLISECOND - 1e-9
"""Seconds that a segment lasts at least: a millisecond, as far as differences of decimal seconds can say it."""
TOLERANCE_S = 0.5
"""By how much a stated duration may differ from the video's own, or an end lie behind it, unnoticed."""


class Duration(NamedTuple):
    """What is known of the time of a video that is there: seconds throughout."""

    seconds: float
    step_s: float | None = None
    """From one step of its features to the next; None where that is not known."""
    player_start_s: float = 0.0
    """What a player's clock shows at its first frame."""


@dataclass(frozen=True)
class ClassFacts:
    """Of one class: segments, videos that hold it, and their lengths in seconds (shortest, median, longest)."""

    name: str
    segments: int
    videos: int
    shortest_s: float
    median_s: float
    longest_s: float


@dataclass(frozen=True)
class Check:
    """The outcome: what the labels hold and what was found. `serious` findings are those `--strict` refuses.

    `overlapping`: share of segments that overlap one of another class; `together`: the most classes at one
    moment; `labelled`: share of the videos' time inside a segment (None without durations).
    """

    source: str
    videos: int
    present: int
    segments: int
    subsets: tuple[tuple[str, int], ...]
    groups: int
    classes: tuple[ClassFacts, ...]
    overlapping: float
    together: int
    labelled: float | None
    findings: tuple[Finding, ...]

    @property
    def serious(self) -> tuple[Finding, ...]:
        return tuple(finding for finding in self.findings if finding.serious)

    def lines(self) -> list[str]:
        """The report in a few lines; classes are a table of their own."""
        there = "" if self.present == self.videos else f" ({self.present} of them found)"
        classes = f"{len(self.classes)} classes in {self.videos} videos{there}"
        lines = [f"{self.source}: {self.segments} segments of {classes}"]
        if len(self.subsets) > 1 or (self.subsets and self.subsets[0][0]):
            lines.append("subsets: " + ", ".join(f"{name or '(none)'} {count}" for name, count in self.subsets))
        if self.groups:
            lines.append(f"groups: {self.groups}")
        share = "" if self.labelled is None else f"; {100 * self.labelled:.0f} % of the time is labelled"
        lines.append(
            f"overlap: {100 * self.overlapping:.0f} % of the segments share time with one of another class, "
            f"at most {self.together} at once{share}"
        )
        lines += [f"{'problem' if finding.serious else 'note'}: {finding.line()}" for finding in self.findings]
        return lines

    def listing(self, most: int) -> list[str]:
        """The same with what `train` does with each finding, and where it is: at most so many places of a kind."""
        lines = self.lines()[: -len(self.findings) or None]
        for finding in self.findings:
            word = "problem" if finding.serious else "note"
            lines.append(f"{word}: {finding.count} x {finding.kind}; train: {finding.fate}")
            examples = finding.examples or (finding.example,)
            lines += [f"  {example}" for example in examples[:most]]
            if len(examples) > most:
                lines.append(f"  and {finding.count - most} more")
        return lines

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "source": self.source,
            "videos": self.videos,
            "videos_found": self.present,
            "segments": self.segments,
            "subsets": dict(self.subsets),
            "groups": self.groups,
            "classes": [vars(entry) for entry in self.classes],
            "overlapping_share": self.overlapping,
            "most_at_once": self.together,
            "labelled_share": self.labelled,
            "findings": [
                finding.to_json() | {"train": finding.fate, "examples": list(finding.examples)}
                for finding in self.findings
            ],
        }


def check(labels: Labels, durations: Mapping[str, Duration] | None, unused: Collection[str] = ()) -> Check:
    """Check labels, against the videos that are there when `durations` (by video name) is given.

    `unused`: videos that are there and that the labels do not name. Nothing is changed; `cleaned` says what
    will be used.
    """
    findings = Findings()
    if durations is not None:
        for name in _late(labels, durations):
            example = f"{name}: its frames begin {durations[name].player_start_s:.2f} s after its sound"
            findings.add("video whose labels were moved to its first frame", example, serious=False, fate="kept, moved")
        labels = from_first_frame(labels, durations)
        _check_presence(labels, durations, unused, findings)
        _check_ends(labels, durations, findings)
    table = labels.table
    _check_segments(table, _cut(table, _lengths(table, durations or {})), findings)
    _check_names(table, findings)
    _check_subsets(table, findings)
    facts = tuple(_class_facts(table, number) for number in np.unique(table.label).tolist())
    few = [entry for entry in facts if entry.segments < FEW]
    if few:
        named = ", ".join(f"{entry.name} ({entry.segments})" for entry in sorted(few, key=lambda e: e.segments))
        findings.add(f"class with fewer than {FEW} segments", named, len(few), serious=False, fate="kept")
    for number in sorted(set(range(len(table.videos))) - set(table.video.tolist())):
        findings.add("video without a segment", table.videos[number], serious=False, fate=NOTHING_HAPPENS)
    overlapping, together = _overlap(table)
    subsets = tuple((name, table.subset.count(name)) for name in table.subsets)
    return Check(
        source=labels.source,
        videos=len(table.videos),
        present=len(table.videos) if durations is None else sum(name in durations for name in table.videos),
        segments=len(table),
        subsets=subsets,
        groups=len({group for group in labels.groups if group}),
        classes=facts,
        overlapping=overlapping,
        together=together,
        labelled=_labelled(table, durations),
        findings=(*table.findings, *findings.result()),
    )


def cleaned(labels: Labels, durations: Mapping[str, Duration]) -> Labels:
    """The labels of the videos that are there, with segments cut to their video and the unusable ones left out.

    Left out: reversed, less than a millisecond long or inside the video, without a label, stated twice (to the
    millisecond).
    """
    labels = from_first_frame(labels, durations)
    table = labels.table
    there = np.array([name in durations for name in table.videos], bool)
    length = _lengths(table, durations)
    cut = _cut(table, length)
    usable = np.flatnonzero(_usable(cut) & there[table.video])
    keep = np.isin(np.arange(len(table)), distinct(cut, usable.tolist()))
    number = np.cumsum(there) - 1
    new = replace(
        cut.select(keep),
        videos=_where(table.videos, there),
        subset=_where(table.subset, there),
        duration=length[there],
        video=number[table.video[keep]],
        findings=(),
    )
    return Labels(new, _where(labels.groups, there), _where(labels.files, there), labels.fps[there])


def from_first_frame(labels: Labels, durations: Mapping[str, Duration]) -> Labels:
    """The labels with times from the first frame of each video, where they are on the clock of players."""
    table = labels.table
    if ON_PLAYER not in table.extra:
        return labels
    late = np.array([durations[name].player_start_s if name in durations else 0.0 for name in table.videos])
    moved = np.where(table.extra[ON_PLAYER], late[table.video], 0.0)
    extra = {name: column for name, column in table.extra.items() if name != ON_PLAYER}
    return replace(labels, table=replace(table, start=table.start - moved, end=table.end - moved, extra=extra))


def _late(labels: Labels, durations: Mapping[str, Duration]) -> list[str]:
    """Videos with times on a player's clock that begin after its zero."""
    table = labels.table
    if ON_PLAYER not in table.extra:
        return []
    numbers = np.unique(table.video[table.extra[ON_PLAYER]]).tolist()
    names = [table.videos[number] for number in numbers]
    return [name for name in names if name in durations and durations[name].player_start_s]


def _lengths(table: Annotations, durations: Mapping[str, Duration]) -> np.ndarray:
    """Seconds of each video, infinity where that is not known."""
    return np.array([durations[name].seconds if name in durations else np.inf for name in table.videos])


def _cut(table: Annotations, length: np.ndarray) -> Annotations:
    """The table with its segments cut to their videos; reversed where nothing of one lies inside."""
    return replace(table, start=np.maximum(table.start, 0.0), end=np.minimum(table.end, length[table.video]))


def _usable(cut: Annotations) -> np.ndarray:
    """Which segments of a cut table, bool (n,), have a label and last long enough."""
    return (cut.end - cut.start >= LEAST_S) & _named(cut)


def _named(table: Annotations) -> np.ndarray:
    return np.array([bool(name.strip()) for name in table.labels], bool)[table.label]


def _where(values: Sequence[str], keep: np.ndarray) -> tuple[str, ...]:
    return tuple(value for value, kept in zip(values, keep.tolist(), strict=True) if kept)


def _check_presence(
    labels: Labels, durations: Mapping[str, Duration], unused: Collection[str], findings: Findings
) -> None:
    for name in labels.videos:
        if name not in durations:
            findings.add("labelled video that is not there", name, fate=f"{DROPPED}, with its segments")
    for name in sorted(unused):
        example = f"{name} (label it, or list it without segments, to use it)"
        findings.add("video that the labels do not name", example, serious=False, fate=f"{DROPPED}: it is not used")


def _check_ends(labels: Labels, durations: Mapping[str, Duration], findings: Findings) -> None:
    table = labels.table
    length = _lengths(table, durations)
    step = np.array([(durations[name].step_s or 0.0) if name in durations else 0.0 for name in table.videos])
    own, cut = length[table.video], _cut(table, length)

    def report(kind: str, wrong: np.ndarray, remark: str = "", serious: bool = True, fate: str = DROPPED) -> None:
        for row in np.flatnonzero(wrong).tolist():
            example = _example(table, row, f", video of {own[row]:.2f} s{remark}")
            findings.add(kind, example, serious=serious, fate=fate)

    inside, whole = cut.end - cut.start, table.end - table.start >= LEAST_S
    beyond = whole & (table.start >= own)
    scale = "; are these times frames or milliseconds?" if beyond.sum() > len(table) / 2 else ""
    report("segment that begins after its video ends (left out)", beyond, scale)
    touching = whole & ~beyond & (table.end >= LEAST_S) & (inside < LEAST_S)
    report("segment that lies less than a millisecond inside its video (left out)", touching)
    late = (inside >= LEAST_S) & (table.end > own + TOLERANCE_S)
    report("segment that ends after its video (cut)", late, fate="cut to its video")
    if len(table):
        short = (table.end > table.start) & (table.end - table.start < step[table.video]) & np.isfinite(own)
        kind = "segment shorter than one feature row, which the detector can hardly see"
        report(kind, short, serious=False, fate="kept")
    stated = np.flatnonzero(np.abs(table.duration - length) > np.maximum(TOLERANCE_S, 0.02 * length))
    stated = stated[np.isfinite(length[stated]) & np.isfinite(table.duration[stated])]
    for video in stated.tolist():
        example = f"{table.videos[video]}: labels say {table.duration[video]:.2f} s, the file {length[video]:.2f} s"
        findings.add("video of another length than the labels state", example, fate="kept, with the length of the file")


def _check_segments(table: Annotations, cut: Annotations, findings: Findings) -> None:
    known = {finding.kind for finding in table.findings}
    length, early = table.end - table.start, table.start < 0
    wrong = (
        ("reversed segment (left out)", DROPPED, length < 0),
        ("segment without length (left out)", DROPPED, (length >= 0) & (length < LEAST_S)),
        ("segment that begins before 0 (cut)", "cut to its video", early & (table.end >= LEAST_S)),
        ("segment that ends before 0 (left out)", DROPPED, early & (length >= LEAST_S) & (table.end < LEAST_S)),
        ("segment without a label (left out)", DROPPED, ~_named(table)),
    )
    for kind, fate, rows in wrong:
        for row in np.flatnonzero(rows).tolist() if kind.partition(" (")[0] not in known else ():
            findings.add(kind, _example(table, row), fate=fate)
    usable = np.flatnonzero(_usable(cut))
    own = distinct(cut, usable.tolist())
    twice = np.setdiff1d(usable, own)
    order = own[np.lexsort((cut.end[own], cut.start[own], cut.label[own], cut.video[own]))]
    before, after = order[:-1], order[1:]
    same = (cut.video[before] == cut.video[after]) & (cut.label[before] == cut.label[after])
    meets = same & (cut.start[after] < cut.end[before])
    for kind, fate, where in (
        ("segment stated twice (used once)", f"{DROPPED}, but for the first", twice),
        ("segment that overlaps another one of its class", "kept, both", after[meets]),
    ):
        for row in where.tolist():
            findings.add(kind, _example(table, row), serious=False, fate=fate)


def _check_subsets(table: Annotations, findings: Findings) -> None:
    for name, subset in zip(table.videos, table.subset, strict=True):
        if subset.strip() and not kind_of(subset):
            fate = "kept, as without a subset: write training, validation or test"
            findings.add("value of `subset` that is not understood", f"{name}: {subset[:40]}", fate=fate)
        elif not subset.strip() and any(table.subsets):
            findings.add("video without a subset among others with one", name, serious=False, fate="kept, for training")


def _check_names(table: Annotations, findings: Findings) -> None:
    if NO_CLASS in table.labels:
        for row in np.flatnonzero(table.label == table.labels.index(NO_CLASS)).tolist():
            findings.add(f"segment of {NO_CLASS}, which is no class (left out)", _example(table, row), serious=False)
    spelled: dict[str, str] = {}
    for number in np.unique(table.label).tolist():
        name = table.labels[number]
        other = spelled.setdefault("".join(c for c in name.casefold() if c.isalnum()) or name, name)
        if other != name:
            findings.add("two classes that differ in spelling only", f"{other!r} and {name!r}", fate="kept, both")


def _example(table: Annotations, row: int, remark: str = "") -> str:
    name, label = table.videos[table.video[row]], table.labels[table.label[row]]
    place = table.extra["place"][row] if "place" in table.extra else ""
    return f"{place}{name} [{table.start[row]:g}, {table.end[row]:g}] {label}{remark}"


def _class_facts(table: Annotations, number: int) -> ClassFacts:
    own = table.label == number
    length = (table.end - table.start)[own]
    return ClassFacts(
        table.labels[number],
        int(own.sum()),
        len(np.unique(table.video[own])),
        *(float(value) for value in (length.min(), np.median(length), length.max())),
    )


def _overlap(table: Annotations) -> tuple[float, int]:
    """Share of segments that share time with one of another class; most classes at one moment."""
    shared, most = 0, 0
    for video in np.unique(table.video).tolist():
        rows = np.flatnonzero((table.video == video) & (table.end > table.start))
        start, end, label = table.start[rows], table.end[rows], table.label[rows]
        for i in range(len(rows)):
            others = (start < end[i]) & (end > start[i]) & (label != label[i])
            shared += bool(others.any())
            now = (start <= start[i]) & (end > start[i])
            most = max(most, len(np.unique(label[now])))
    return shared / max(len(table), 1), most


def _labelled(table: Annotations, durations: Mapping[str, Duration] | None) -> float | None:
    inside, total = 0.0, 0.0
    for video, name in enumerate(table.videos):
        stated = float(table.duration[video])
        seconds = durations[name].seconds if durations and name in durations else stated
        if not seconds > 0 or not np.isfinite(seconds):
            continue
        total += seconds
        rows = table.video == video
        reached = 0.0
        for start, end in sorted(zip(table.start[rows].tolist(), table.end[rows].tolist(), strict=True)):
            start, end = max(start, reached), min(end, seconds)
            if end > start:
                inside, reached = inside + end - start, end
    return inside / total if total else None
