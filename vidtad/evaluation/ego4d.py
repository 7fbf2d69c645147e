"""Ego4D moment queries: detection mAP as everywhere, and the challenge's own retrieval recall."""

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from vidtad.evaluation.align import Aligned, align
from vidtad.evaluation.matching import blocks
from vidtad.evaluation.protocols import Protocol
from vidtad.evaluation.result import Evaluation
from vidtad.evaluation.temporal import score
from vidtad.formats.tables import Annotations, Predictions

RETRIEVAL_TIOU = (0.3, 0.5, 0.7)
RETRIEVAL_AT = (1, 2, 3, 4, 5)


def evaluate_ego4d(
    truth: Annotations, predicted: Predictions, protocol: Protocol, subset: str | None, blocked: Collection[str]
) -> Evaluation:
    """Detection mAP, with the retrieval recall in `details["retrieval"]`.

    A submission's retrieval list is used where there is one, the detections otherwise.
    """
    aligned = align(truth, predicted, protocol, subset, blocked)
    listed = predicted.retrieval if predicted.retrieval is not None else predicted
    recall = retrieval_recall(align(truth, listed, protocol, aligned.subset, blocked))
    retrieval: dict[str, Any] = {
        "tiou": list(RETRIEVAL_TIOU),
        "at": [f"{k}x" for k in RETRIEVAL_AT],
        "recall": recall.tolist(),
        "recall_1x_at_0.5": float(recall[RETRIEVAL_TIOU.index(0.5), 0]),
    }
    return replace(score(aligned), details={"retrieval": retrieval})


def retrieval_recall(
    aligned: Aligned, tiou: Sequence[float] = RETRIEVAL_TIOU, at: Sequence[int] = RETRIEVAL_AT
) -> np.ndarray:
    """Share of instances that one of the first k*x predictions of their class and clip overlaps by more
    than the threshold, x the number of such instances; predictions in file order. float64 (thresholds, k).

    Unlike recall@kx: strictly more, the hull as union, file order instead of scores, mean over instances.
    """
    videos = len(aligned.videos)
    known = np.flatnonzero(aligned.pr_class >= 0)
    pr_group = (aligned.pr_class * videos + aligned.pr_video)[known]
    gt_group = aligned.gt_class * videos + aligned.gt_video
    grouped = np.argsort(pr_group, kind="stable")
    place = np.empty(len(known), np.int64)
    place[grouped] = np.arange(len(known)) - np.searchsorted(pr_group[grouped], pr_group[grouped], "left")
    _, of_group, sizes = np.unique(gt_group, return_inverse=True, return_counts=True)
    there = sizes[of_group.reshape(-1)]
    found = np.zeros((len(tiou), len(at), len(gt_group)), bool)
    start, end = aligned.pr_start[known], aligned.pr_end[known]
    for prediction, annotation in blocks(pr_group, gt_group):
        low, high = aligned.gt_start[annotation], aligned.gt_end[annotation]
        inter = np.maximum(0.0, np.minimum(end[prediction], high) - np.maximum(start[prediction], low))
        hull = np.maximum(end[prediction], high) - np.minimum(start[prediction], low)
        with np.errstate(divide="ignore", invalid="ignore"):
            overlap = inter / hull
        for column, k in enumerate(at):
            within = place[prediction] < k * there[annotation]
            for row, threshold in enumerate(tiou):
                found[row, column, annotation[within & (overlap > threshold)]] = True
    return found.mean(axis=2)
