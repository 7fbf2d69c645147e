"""The THUMOS'14 evaluation kit's detection metric (MATLAB `TH14evalDet`), in both released versions.

Not the metric of the later Python programs: annotations choose detections, the threshold is strict,
detections that touch an `Ambiguous` interval are forgiven, and AP is not interpolated (2015) or has 11
points (2014).
"""

from collections.abc import Collection
from dataclasses import replace

import numpy as np

from vidtad.evaluation.align import Aligned, align
from vidtad.evaluation.matching import assign, blocks, ordered_pairs
from vidtad.evaluation.protocols import Protocol
from vidtad.evaluation.result import Evaluation
from vidtad.formats.tables import Annotations, Predictions

AMBIGUOUS = "Ambiguous"
TRUE, FALSE, FORGIVEN = 1, 2, 0
RECALL_POINTS = np.arange(11) * 0.1


def evaluate_kit(
    truth: Annotations, predicted: Predictions, protocol: Protocol, subset: str | None, blocked: Collection[str]
) -> Evaluation:
    """Score by the kit's rule; `protocol.kind` says which version. Ties keep the order of the file."""
    # The kit sorts stably by falling score; of equal ones the earlier comes first.
    rules = replace(protocol, ties="earlier_first", drop_labels=(AMBIGUOUS,))
    aligned = align(truth, predicted, rules, subset, blocked)
    flags = kit_flags(aligned, truth)
    name_order = np.argsort(np.argsort(np.array(aligned.videos)))
    ap = np.zeros((len(aligned.classes), len(rules.tiou)))
    for number, instances in enumerate(aligned.per_class):
        own = np.flatnonzero(aligned.pr_class[aligned.order] == number)
        rows = aligned.order[own]
        for column in range(len(rules.tiou)):
            flag = flags[column, own]
            hit_first = flag == TRUE if protocol.kind == "thumos-kit-2014" else np.zeros(len(own), bool)
            # Pooled by video name, each video's list by score; the final sort by score is stable.
            pooled = np.lexsort(
                (
                    np.arange(len(own)),
                    name_order[aligned.pr_video[rows]],
                    ~hit_first,
                    -aligned.pr_score[rows],
                )
            )
            counted = flag[pooled][flag[pooled] != FORGIVEN]
            ap[number, column] = kit_ap(counted == TRUE, int(instances), protocol.kind)
    return Evaluation(
        protocol=rules,
        subset=aligned.subset,
        classes=aligned.classes,
        ap=ap,
        videos=aligned.annotated_videos,
        instances=len(aligned.gt_class),
        predictions=len(aligned.pr_class),
        findings=aligned.findings,
    )


def kit_flags(aligned: Aligned, truth: Annotations) -> np.ndarray:
    """TRUE, FALSE or FORGIVEN per threshold and ranked prediction: int8 (thresholds, predictions)."""
    order, videos = aligned.order, len(aligned.videos)
    start, end = aligned.pr_start[order], aligned.pr_end[order]
    detection, annotation, overlap = _overlaps(
        start,
        end,
        (aligned.pr_class * videos + aligned.pr_video)[order],
        (aligned.gt_start, aligned.gt_end),
        aligned.gt_class * videos + aligned.gt_video,
    )
    # Each annotation, in file order, wants its best detection, the higher-scored one of two equal overlaps.
    wishes = ordered_pairs(annotation, -detection, overlap)
    flags = np.full((len(aligned.protocol.tiou), len(order)), FALSE, np.int8)
    flags[:, _touches_ambiguous(aligned, truth, start, end)] = FORGIVEN
    for row, threshold in enumerate(aligned.protocol.tiou):
        above = wishes.tiou > threshold
        taken = assign(wishes.prediction[above], -wishes.annotation[above], len(order))
        flags[row, taken >= 0] = TRUE
    return flags


def kit_ap(hits: np.ndarray, instances: int, kind: str) -> float:
    """AP of one class's ranked hits (bool): mean precision at the hits, or the 11-point mean of 2014."""
    if not instances or not len(hits):
        return 0.0
    precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
    if kind != "thumos-kit-2014":
        return float(precision[hits].sum() / instances)
    recall = np.cumsum(hits) / instances
    return float(np.mean([precision[recall >= point].max(initial=0.0) for point in RECALL_POINTS]))


def _touches_ambiguous(aligned: Aligned, truth: Annotations, start: np.ndarray, end: np.ndarray) -> np.ndarray:
    touched = np.zeros(len(start), bool)
    if AMBIGUOUS not in truth.labels:
        return touched
    number = {name: position for position, name in enumerate(aligned.videos)}
    rows = np.flatnonzero(truth.label == truth.labels.index(AMBIGUOUS))
    video = np.array([number.get(truth.videos[v], -1) for v in truth.video[rows]], np.int64)
    pairs = _overlaps(
        start,
        end,
        aligned.pr_video[aligned.order],
        (truth.start[rows], truth.end[rows]),
        video,
    )
    touched[pairs[0]] = True
    return touched


def _overlaps(
    start: np.ndarray,
    end: np.ndarray,
    group: np.ndarray,
    other: tuple[np.ndarray, np.ndarray],
    other_group: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(row, other row, intersection over hull) of the pairs of equal group that intersect."""
    found = [(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))]
    for row, column in blocks(group, other_group):
        low, high = other[0][column], other[1][column]
        inter = np.minimum(end[row], high) - np.maximum(start[row], low)
        meet = inter > 0
        row, column = row[meet], column[meet]
        hull = np.maximum(end[row], high[meet]) - np.minimum(start[row], low[meet])
        found.append((row, column, inter[meet] / hull))
    rows, columns, overlap = (np.concatenate(part) for part in zip(*found, strict=True))
    return rows, columns, overlap
