"""Bringing ground truth and predictions onto common class and video numbers, under a protocol."""

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from vidtad.errors import InputError
from vidtad.evaluation.protocols import Protocol
from vidtad.formats.tables import MILLISECOND, Annotations, Finding, Findings, Predictions, distinct
from vidtad.formats.thumos import CLASS_IDS


@dataclass(frozen=True)
class Aligned:
    """One evaluation's columns. Predictions keep file order; `order` ranks them.

    classes, videos: names; the videos of the subset come first (`subset_videos` of them). gt_*: annotations;
    pr_*: predictions: class (int64, -1 outside the class set), video (int64), start, end (s), score
    (float64). gt_row, pr_row: their rows in the tables they come from. order: rows of the predictions that
    have a class, by class, then best score first.
    """

    protocol: Protocol
    subset: str
    classes: tuple[str, ...]
    videos: tuple[str, ...]
    subset_videos: int
    gt_video: np.ndarray
    gt_class: np.ndarray
    gt_start: np.ndarray
    gt_end: np.ndarray
    gt_row: np.ndarray
    pr_video: np.ndarray
    pr_class: np.ndarray
    pr_start: np.ndarray
    pr_end: np.ndarray
    pr_score: np.ndarray
    pr_row: np.ndarray
    order: np.ndarray
    findings: tuple[Finding, ...]

    @property
    def per_class(self) -> np.ndarray:
        """Annotations of each class, int64."""
        return np.bincount(self.gt_class, minlength=len(self.classes))

    @property
    def annotated_videos(self) -> int:
        return len(np.unique(self.gt_video))


def align(
    truth: Annotations,
    predicted: Predictions,
    protocol: Protocol,
    subset: str | None = None,
    blocked: Collection[str] = (),
) -> Aligned:
    """Apply subset, blocked videos, duplicates, the class set and the order of ties.

    Raises InputError when the subset does not exist or holds no annotation, or when the protocol refuses
    unknown labels and there are some.
    """
    findings = Findings()
    subset = choose_subset(truth, predicted, subset, findings)
    gone = set(blocked)
    pairs = zip(truth.videos, truth.subset, strict=True)
    chosen = np.array([name not in gone and subset in ("", part) for name, part in pairs], bool)
    rows = _evaluated_rows(truth, chosen, protocol, findings)
    if not len(rows):
        raise InputError(f"ground truth: no annotation to evaluate{f' in subset {subset!r}' if subset else ''}")
    gt = truth.select(rows)
    classes, label_number = _class_numbers(gt, protocol)
    videos, known, video_number = _video_numbers(truth, chosen)
    pr_videos = match_video_names(predicted, truth, findings)
    outside: dict[str, int] = {}
    pr_number = np.array(
        [
            video_number[name] if name in video_number else outside.setdefault(name, known + len(outside))
            for name in pr_videos
        ],
        np.int64,
    )
    pr_rows = _kept_predictions(truth, gt, predicted, pr_videos, gone, protocol)
    labels = prediction_labels(predicted, truth, findings)
    to_class = _prediction_classes(labels, predicted, truth, label_number, protocol, pr_rows, findings)
    pr = predicted.select(pr_rows)
    report_videos(truth, predicted, pr_videos, pr_rows, chosen, findings)
    report_times(truth, gt, pr, pr_videos, findings)
    pr_class = to_class[pr.label]
    return Aligned(
        protocol=protocol,
        subset=subset,
        classes=classes,
        videos=(*videos, *outside),
        subset_videos=known,
        gt_video=np.array([video_number.get(name, -1) for name in truth.videos], np.int64)[gt.video],
        gt_class=label_number[gt.label],
        gt_start=gt.start,
        gt_end=gt.end,
        gt_row=rows,
        pr_video=pr_number[pr.video],
        pr_class=pr_class,
        pr_start=pr.start,
        pr_end=pr.end,
        pr_score=pr.score,
        pr_row=pr_rows,
        order=rank_known(pr_class, pr.score, protocol.ties),
        findings=(*truth.findings, *predicted.findings, *findings.result()),
    )


def _evaluated_rows(truth: Annotations, chosen: np.ndarray, protocol: Protocol, findings: Findings) -> np.ndarray:
    no_class = [position for position, name in enumerate(truth.labels) if name in protocol.drop_labels]
    keep = chosen[truth.video] & ~np.isin(truth.label, no_class) if len(truth) else np.zeros(0, bool)
    rows = np.flatnonzero(keep)
    return rows[distinct_annotations(truth.select(rows), protocol, findings)]


def _kept_predictions(
    truth: Annotations,
    gt: Annotations,
    predicted: Predictions,
    names: tuple[str, ...],
    gone: set[str],
    protocol: Protocol,
) -> np.ndarray:
    keep = np.array([name not in gone for name in names], bool)
    if protocol.stray_videos == "drop":
        annotated = {truth.videos[video] for video in np.unique(gt.video)}
        keep &= np.array([name in annotated for name in names], bool)
    return np.flatnonzero(keep[predicted.video]) if len(predicted) else np.zeros(0, np.int64)


def rank(group: np.ndarray, score: np.ndarray, ties: str) -> np.ndarray:
    """Rows by group, then by falling score; `ties` says which of two equal ones comes first."""
    position = np.arange(len(score))
    return np.lexsort((position if ties == "earlier_first" else -position, -score, group))


def rank_known(group: np.ndarray, score: np.ndarray, ties: str) -> np.ndarray:
    """As `rank`, without the rows of a negative group."""
    order = rank(group, score, ties)
    return order[int((group < 0).sum()) :]


def choose_subset(truth: Annotations, predicted: Predictions, subset: str | None, findings: Findings) -> str:
    """The subset to evaluate; "" stands for all videos of a file that names none."""
    names = truth.subsets
    if subset is not None:
        if subset in names:
            return subset
        loose = [name for name in names if name.lower() == subset.lower()]
        if len(loose) == 1:
            findings.add("subset taken in another case", f"{loose[0]!r} for {subset!r}", serious=False)
            return loose[0]
        if names == ("",):
            findings.add("subset asked of a file without subsets", repr(subset), serious=False)
            return ""
        raise InputError(f"ground truth: no subset {subset!r}; it has {', '.join(map(repr, names))}")
    if len(names) <= 1:
        return names[0] if names else ""
    part_of = dict(zip(truth.videos, truth.subset, strict=True))
    counts = dict.fromkeys(names, 0)
    sizes = np.bincount(predicted.video, minlength=len(predicted.videos))
    for name, size in zip(predicted.videos, sizes.tolist(), strict=True):
        if name in part_of:
            counts[part_of[name]] += max(size, 1)
    with_predictions = [name for name in names if counts[name]]
    held_out = [name for name in names if name.lower().startswith(("val", "test"))]
    candidates = with_predictions if len(with_predictions) == 1 else held_out or list(names)
    chosen = max(candidates, key=lambda name: counts[name])
    findings.add("subset not given", f"{chosen!r} of {', '.join(map(repr, names))} taken", serious=False)
    return chosen


def distinct_annotations(gt: Annotations, protocol: Protocol, findings: Findings) -> np.ndarray:
    """Rows that the protocol's rule about repeated and empty annotations leaves, ascending."""
    length = gt.end - gt.start
    if protocol.duplicates == "keep":
        return np.arange(len(gt))
    long_enough = length >= MILLISECOND if protocol.duplicates == "actionformer" else length > 0
    rows = distinct(gt, np.flatnonzero(long_enough).tolist())
    if len(rows) != len(gt):
        gone = np.setdiff1d(np.arange(len(gt)), rows)
        example = f"{gt.videos[gt.video[gone[0]]]} [{gt.start[gone[0]]:g}, {gt.end[gone[0]]:g}]"
        findings.add("empty or repeated annotation dropped", example, len(gone), serious=False)
    return rows


def match_video_names(predicted: Predictions, truth: Annotations, findings: Findings) -> tuple[str, ...]:
    """Prediction video names as the ground truth writes them: with or without the prefix `v_`."""
    known = set(truth.videos)
    names = predicted.videos
    if not names or any(name in known for name in names):
        return names
    for change in (lambda name: f"v_{name}", lambda name: name.removeprefix("v_")):
        renamed = tuple(change(name) for name in names)
        if sum(name in known for name in renamed) > len(names) / 2:
            findings.add(
                "video ids differ by the prefix 'v_'",
                f"{names[0]} read as {renamed[0]}",
                len(names),
                serious=False,
            )
            return renamed
    return names


def prediction_labels(predicted: Predictions, truth: Annotations, findings: Findings) -> tuple[str, ...]:
    """Prediction labels by name; class numbers are named through the ground truth."""
    if not predicted.numbered:
        return predicted.labels
    by_number = {str(number): name for name, number in truth.label_ids.items()}
    kit = CLASS_IDS.keys() >= set(truth.labels) - {"Ambiguous"}
    if not by_number and kit and not set(predicted.labels) <= set(map(str, range(len(CLASS_IDS)))):
        by_number = {str(number): name for name, number in CLASS_IDS.items()}
    if not by_number:
        by_number = {str(number): name for number, name in enumerate(sorted(truth.labels))}
        findings.add("class numbers without a table", "taken as positions in the sorted class names", serious=False)
    own = set(truth.labels)
    return tuple(label if label in own else by_number.get(label, label) for label in predicted.labels)


def report_videos(
    truth: Annotations,
    predicted: Predictions,
    names: tuple[str, ...],
    rows: np.ndarray,
    chosen: np.ndarray,
    findings: Findings,
) -> None:
    """Note videos that only one side has; predictions there stay and are false positives."""
    evaluated = {name for name, inside in zip(truth.videos, chosen, strict=True) if inside}
    known = set(truth.videos)
    sizes = np.bincount(predicted.video[rows], minlength=len(names))
    stray = [(name, size) for name, size in zip(names, sizes.tolist(), strict=True) if size]
    unknown = [name for name, _ in stray if name not in known]
    if unknown:
        findings.add("predicted video unknown to the ground truth", unknown[0], len(unknown))
    other = [name for name, _ in stray if name in known and name not in evaluated]
    if other:
        what = "predicted video of another subset, all false positives unless --rule stray_videos=drop"
        findings.add(what, other[0], len(other), serious=False)
    annotated = {truth.videos[v] for v in np.unique(truth.video)} & evaluated
    silent = sorted(annotated - {name for name, _ in stray})
    if silent:
        findings.add("annotated video without predictions", silent[0], len(silent))


def report_times(
    truth: Annotations, gt: Annotations, predicted: Predictions, names: tuple[str, ...], findings: Findings
) -> None:
    """Note times beyond the end of the video, where its duration is known; nothing is clipped."""
    late = np.flatnonzero(gt.end > truth.duration[gt.video])
    if len(late):
        where = gt.videos[gt.video[late[0]]]
        findings.add("annotation that ends after its video", where, len(late), serious=False)
    length = dict(zip(truth.videos, truth.duration.tolist(), strict=True))
    duration = np.array([length.get(name, np.nan) for name in names] or [np.nan])[predicted.video]
    beyond = np.flatnonzero(predicted.start >= duration)
    if len(beyond):
        example = f"{names[predicted.video[beyond[0]]]} at {predicted.start[beyond[0]]:g} s"
        if len(beyond) > np.isfinite(duration).sum() / 2:
            example += "; most do: are these frames, not seconds?"
        findings.add("prediction that starts after its video", example, len(beyond))


def _class_numbers(gt: Annotations, protocol: Protocol) -> tuple[tuple[str, ...], np.ndarray]:
    present, first = np.unique(gt.label, return_index=True)
    ordered = present[np.argsort(first)]
    if protocol.class_order == "label_id" and gt.label_ids:
        ordered = np.array(sorted(present, key=lambda label: gt.label_ids.get(gt.labels[label], 1 << 60)))
    number = np.full(len(gt.labels), -1, np.int64)
    number[ordered] = np.arange(len(ordered))
    return tuple(gt.labels[label] for label in ordered), number


def _video_numbers(truth: Annotations, chosen: np.ndarray) -> tuple[list[str], int, dict[str, int]]:
    videos = [name for name, inside in zip(truth.videos, chosen, strict=True) if inside]
    return videos, len(videos), {name: number for number, name in enumerate(videos)}


def _prediction_classes(
    labels: tuple[str, ...],
    predicted: Predictions,
    truth: Annotations,
    label_number: np.ndarray,
    protocol: Protocol,
    rows: np.ndarray,
    findings: Findings,
) -> np.ndarray:
    """Class number of each prediction label, -1 for one outside the class set."""
    known = {truth.labels[label]: int(number) for label, number in enumerate(label_number) if number >= 0}
    to_class = np.array([known.get(name, -1) for name in labels], np.int64)
    used = np.unique(predicted.label[rows], return_index=True)
    unknown = [(int(rows[at]), labels[label]) for label, at in zip(*used, strict=True) if to_class[label] < 0]
    if not unknown:
        return to_class
    row, name = min(unknown)
    if protocol.unknown_labels == "refuse":
        raise InputError(
            f"predictions: label {name!r} has no annotation in the evaluated subset "
            f"(first in {predicted.videos[predicted.video[row]]})"
        )
    count = int((to_class[predicted.label[rows]] < 0).sum())
    verb = "left out"
    if protocol.unknown_labels == "collide":
        verb = "counted under the class re-numbered to its id"
        for label, text in enumerate(labels):
            raw = truth.label_ids.get(text, -1)
            if to_class[label] < 0 and 0 <= raw < len(known):
                to_class[label] = raw
    findings.add("prediction of a label without annotations", f"{name!r} ({verb})", count)
    return to_class
