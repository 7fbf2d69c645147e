"""Temporal detection mAP and recall@kx."""

from collections.abc import Collection
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from vidtad.evaluation.align import Aligned, align
from vidtad.evaluation.matching import Pairs, assign, blocks, ordered_pairs, temporal_iou
from vidtad.evaluation.precision import interpolated_ap
from vidtad.evaluation.protocols import Protocol
from vidtad.evaluation.result import Evaluation, TiesEffect
from vidtad.formats.tables import Annotations, Predictions


@dataclass(frozen=True)
class Matching:
    """The outcome at every threshold.

    hits: bool (thresholds, predictions), by rank (the order of `Aligned.order`). taken_by: int64 (thresholds,
    annotations), the rank of the prediction that took each annotation, or -1.
    """

    hits: np.ndarray
    taken_by: np.ndarray


def evaluate_temporal(
    truth: Annotations,
    predicted: Predictions,
    protocol: Protocol,
    subset: str | None = None,
    blocked: Collection[str] = (),
) -> Evaluation:
    """Score predictions against ground truth in memory. Raises InputError as `align` does."""
    return score(align(truth, predicted, protocol, subset, blocked))


def score(aligned: Aligned) -> Evaluation:
    """mAP, recall@kx and the effect of ties of an aligned pair."""
    pairs = find_pairs(aligned)
    matching = match(aligned, pairs)
    ap = average_precision(aligned, matching)
    return Evaluation(
        protocol=aligned.protocol,
        subset=aligned.subset,
        classes=aligned.classes,
        ap=ap,
        videos=aligned.annotated_videos,
        instances=len(aligned.gt_class),
        predictions=len(aligned.pr_class),
        recall=recall_at(aligned, pairs),
        findings=aligned.findings,
        ties=ties_effect(aligned, pairs),
    )


def find_pairs(aligned: Aligned) -> Pairs:
    """All pairs of one class and video whose overlap reaches the lowest threshold."""
    protocol, order, videos = aligned.protocol, aligned.order, len(aligned.videos)
    start, end = aligned.pr_start[order], aligned.pr_end[order]
    ranked, rows, overlaps = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)], [np.zeros(0)]
    pr_group = (aligned.pr_class * videos + aligned.pr_video)[order]
    for prediction, annotation in blocks(pr_group, aligned.gt_class * videos + aligned.gt_video):
        tiou = temporal_iou(
            aligned.gt_start[annotation],
            aligned.gt_end[annotation],
            start[prediction],
            end[prediction],
            guard=protocol.least_union,
        )
        # 0/0 passes every `tIoU < threshold: stop` of the published loops and is tried first.
        tiou = np.where(np.isnan(tiou), np.inf, tiou)
        close = tiou >= min(protocol.tiou)
        ranked.append(prediction[close])
        rows.append(annotation[close])
        overlaps.append(tiou[close])
    return ordered_pairs(np.concatenate(ranked), np.concatenate(rows), np.concatenate(overlaps))


def match(aligned: Aligned, pairs: Pairs) -> Matching:
    """One-to-one matching at each threshold, independently."""
    tiou = aligned.protocol.tiou
    hits = np.zeros((len(tiou), len(aligned.order)), bool)
    taken_by = np.full((len(tiou), len(aligned.gt_class)), -1, np.int64)
    for row, threshold in enumerate(tiou):
        close = pairs.tiou >= threshold
        taken_by[row] = assign(pairs.prediction[close], pairs.annotation[close], len(aligned.gt_class))
        hits[row, taken_by[row][taken_by[row] >= 0]] = True
    return Matching(hits, taken_by)


def class_slices(aligned: Aligned) -> list[slice]:
    """Where the ranked predictions of each class lie."""
    bounds = np.searchsorted(aligned.pr_class[aligned.order], np.arange(len(aligned.classes) + 1))
    return [slice(begin, end) for begin, end in pairwise(bounds.tolist())]


def average_precision(aligned: Aligned, matching: Matching) -> np.ndarray:
    """AP, float64 (classes, thresholds)."""
    instances = aligned.per_class
    return np.array(
        [
            interpolated_ap(matching.hits[:, part], int(instances[number]))
            for number, part in enumerate(class_slices(aligned))
        ]
    ).reshape(len(aligned.classes), len(aligned.protocol.tiou))


def recall_at(aligned: Aligned, pairs: Pairs) -> np.ndarray:
    """recall@kx: share of annotations that one of the k*x best predictions overlaps, x the number of
    annotations of the class in the video (Ego4D's measure as ActionFormer computes it). float64 (classes,
    thresholds, k).
    """
    protocol, videos = aligned.protocol, len(aligned.videos)
    group = (aligned.pr_class * videos + aligned.pr_video)[aligned.order]
    grouped = np.argsort(group, kind="stable")
    begins = np.searchsorted(group[grouped], group, "left")
    place = np.empty(len(group), np.int64)
    place[grouped] = np.arange(len(group))
    place -= begins
    gt_group = aligned.gt_class * videos + aligned.gt_video
    _, of_group, sizes = np.unique(gt_group, return_inverse=True, return_counts=True)
    annotations_there = sizes[of_group.reshape(-1)]
    real = np.isfinite(pairs.tiou)
    recall = np.zeros((len(aligned.classes), len(protocol.tiou), len(protocol.recall_at)))
    for column, k in enumerate(protocol.recall_at):
        within = real & (place[pairs.prediction] < k * annotations_there[pairs.annotation])
        for row, threshold in enumerate(protocol.tiou):
            found = np.zeros(len(gt_group), bool)
            found[pairs.annotation[within & (pairs.tiou >= threshold)]] = True
            recall[:, row, column] = np.bincount(aligned.gt_class[found], minlength=len(aligned.classes))
    return recall / aligned.per_class[:, None, None]


def ties_effect(aligned: Aligned, pairs: Pairs) -> TiesEffect | None:
    """How much the order of equal scores could move average mAP; None when no two scores of a class are
    equal.
    """
    order = aligned.order
    scores, classes = aligned.pr_score[order], aligned.pr_class[order]
    equal = (scores[1:] == scores[:-1]) & (classes[1:] == classes[:-1])
    tied = np.r_[False, equal] | np.r_[equal, False]
    if not tied.any():
        return None
    best = np.zeros(len(order))
    np.maximum.at(best, pairs.prediction, pairs.tiou)
    by_file = order if aligned.protocol.ties == "later_first" else -order
    results = [float(average_precision(aligned, match(aligned, pairs)).mean(axis=0).mean())]
    for preference in (by_file, best, -best):
        again = np.lexsort((preference, -scores, classes))
        new_rank = np.empty(len(order), np.int64)
        new_rank[again] = np.arange(len(order))
        moved = ordered_pairs(new_rank[pairs.prediction], pairs.annotation, pairs.tiou)
        changed = replace(aligned, order=order[again])
        results.append(float(average_precision(changed, match(changed, moved)).mean(axis=0).mean()))
    return TiesEffect(aligned.protocol.ties, int(tied.sum()), results[1], min(results), max(results))
