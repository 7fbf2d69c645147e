"""Which prediction takes which annotation.

Every published program walks through the predictions of a class by falling score; each takes its
best-overlapping annotation that is still free. That is a serial dictatorship, whose outcome equals the
stable matching in which all annotations prefer the higher-ranked prediction; so it is computed here by
deferred acceptance, in a few rounds of array operations over all classes and videos at once instead of one
prediction after another.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

PAIRS_AT_ONCE = 1 << 20


@dataclass(frozen=True)
class Pairs:
    """Overlapping (prediction, annotation) pairs, by rank of the prediction, then by preference.

    prediction: rank; annotation: row; tiou: float64, infinity for a 0/0 overlap that counts as a match.
    """

    prediction: np.ndarray
    annotation: np.ndarray
    tiou: np.ndarray


def temporal_iou(
    start: np.ndarray, end: np.ndarray, other_start: np.ndarray, other_end: np.ndarray, *, guard: float = 0.0
) -> np.ndarray:
    """Overlap of segments, elementwise, float64; the first pair is the annotation.

    The operation order is the one of ActivityNet's evaluator, so that an overlap that lands on a threshold
    does so here too. guard: lower bound of the union (OpenTAD takes 1e-8); without it 0/0 gives NaN.
    """
    # Lengths beyond the largest float are infinite, and such a segment overlaps nothing.
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        inter = np.maximum(0.0, np.minimum(other_end, end) - np.maximum(other_start, start))
        union = (end - start) + (other_end - other_start) - inter
        if guard:
            union = np.maximum(union, guard)
        return inter / union


def blocks(prediction_group: np.ndarray, annotation_group: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(prediction rows, annotation rows) of all pairs within equal group numbers, a bounded block at a time.

    Predictions come in order; the annotations of one prediction in file order.
    """
    by_group = np.argsort(annotation_group, kind="stable")
    groups = annotation_group[by_group]
    first = np.searchsorted(groups, prediction_group, "left")
    count = np.searchsorted(groups, prediction_group, "right") - first
    busy = np.flatnonzero(count)
    ends = np.cumsum(count[busy])
    begin = 0
    while begin < len(busy):
        done = ends[begin - 1] if begin else 0
        stop = max(int(np.searchsorted(ends, done + PAIRS_AT_ONCE, "right")), begin + 1)
        rows = busy[begin:stop]
        counts = count[rows]
        offset = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        yield np.repeat(rows, counts), by_group[np.repeat(first[rows], counts) + offset]
        begin = stop


def ordered_pairs(prediction: np.ndarray, annotation: np.ndarray, tiou: np.ndarray) -> Pairs:
    """Sort pairs by prediction, falling overlap, and among equal overlaps the later annotation first."""
    order = np.lexsort((-annotation, -tiou, prediction))
    return Pairs(prediction[order], annotation[order], tiou[order])


def assign(prediction: np.ndarray, annotation: np.ndarray, annotations: int) -> np.ndarray:
    """One-to-one matching of the given pairs (ordered as in `Pairs`); the lower prediction number chooses
    first.

    Returns one entry per annotation (of `annotations`): the prediction that took it, or -1.
    """
    taken = np.full(annotations, -1, np.int64)
    if not len(prediction):
        return taken
    opens = np.flatnonzero(np.r_[True, prediction[1:] != prediction[:-1]])
    closes = np.r_[opens[1:], len(prediction)]
    nobody = len(opens)
    holder = np.full(annotations, nobody, np.int64)
    pointer = opens.copy()
    active = np.arange(nobody)
    while len(active):
        wanted = annotation[pointer[active]]
        before = holder[wanted]
        np.minimum.at(holder, wanted, active)
        now = holder[wanted]
        lost = active[now != active]
        displaced = np.unique(before[(before != now) & (before != nobody)])
        active = np.concatenate([lost, displaced])
        pointer[active] += 1
        active = active[pointer[active] < closes[active]]
    held = holder != nobody
    taken[held] = prediction[opens[holder[held]]]
    return taken
