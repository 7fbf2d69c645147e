"""From scored candidates to the detections of a video: suppression, voting, fusion of windows and scores.

Arrays in, arrays out, NumPy only. Segments are (start, end) rows in any one unit.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

FEW = 1000
"""Candidates up to which all of them are decayed at every pick, whether they overlap or not."""
METHODS = ("gaussian", "linear", "vanilla", "hard", "none")


class Detections(NamedTuple):
    """Scored, labelled segments, best first: (n, 2) (start, end), (n,) scores, (n,) int64 class numbers."""

    segments: np.ndarray
    scores: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True)
class Nms:
    """How overlapping candidates suppress one another.

    `method`: after each pick, the scores of all others are multiplied by exp(-tIoU^2 / `sigma`) ("gaussian",
    Bodla et al., ICCV 2017), by 1 - tIoU ("linear") or by 0 ("vanilla") where tIoU >= `iou_threshold`; "hard"
    removes these and leaves scores alone; "none" only sorts and cuts. `min_score`: candidates whose score
    falls below it are dropped ("hard": not above it at the start, unless it is 0). `top_k`: most detections
    kept in all (and per class). `class_agnostic`: one pool for all classes. `voting`: move every kept segment
    to the mean, weighted by score times tIoU, of all candidates with at least this tIoU (one pool only, as in
    ActionFormer, whose published per-class settings never vote). `length_epsilon` is added to every length; a
    picked segment counts as at least `min_length` long (unit of the segments). `prefilter` False lets even a
    first pick below `min_score` through. Raises ValueError for values out of range.
    """

    method: Literal["gaussian", "linear", "vanilla", "hard", "none"] = "gaussian"
    sigma: float = 0.5
    iou_threshold: float = 0.1
    min_score: float = 0.001
    top_k: int = 200
    class_agnostic: bool = False
    voting: float | None = None
    length_epsilon: float = 1e-6
    min_length: float = 0.0
    prefilter: bool = False

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ValueError(f"unknown suppression {self.method!r}: one of {', '.join(METHODS)}")
        if self.method == "gaussian" and not self.sigma > 0:
            raise ValueError(f"sigma must be positive, not {self.sigma}")
        if self.top_k < 1:
            raise ValueError(f"top_k must be at least 1, not {self.top_k}")


def suppress(
    segments: np.ndarray, scores: np.ndarray, rule: Nms, limit: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Non-maximum suppression in one pool: row numbers in the order picked, and their scores then.

    `segments` (n, 2), `scores` (n,); float32 input is computed in float32. At most `limit` (default
    `rule.top_k`) are picked.
    """
    dtype = np.float32 if segments.dtype == scores.dtype == np.float32 else np.float64
    limit = rule.top_k if limit is None else limit
    pool = np.arange(len(scores))
    if rule.prefilter:
        pool = np.flatnonzero(scores >= rule.min_score)
    if rule.method in ("hard", "none"):
        if rule.min_score > 0:
            pool = pool[scores[pool] > rule.min_score]
        pool = pool[np.argsort(-scores[pool], kind="stable")]
        if rule.method == "hard":
            pool = pool[_hard(segments[pool].astype(dtype), rule, limit)]
        return pool[:limit], scores[pool[:limit]].astype(dtype)
    held = _Pool(segments[pool].astype(dtype), scores[pool].astype(dtype), rule)
    picked, decayed = _picked([held], limit)
    return pool[[row for _, row in picked]], decayed


def _hard(segments: np.ndarray, rule: Nms, limit: int) -> np.ndarray:
    """Row numbers kept of segments sorted by descending score."""
    start, end = segments.T
    length = end - start + segments.dtype.type(rule.length_epsilon)
    left = np.arange(len(segments))
    kept: list[int] = []
    while len(left) and len(kept) < limit:
        best, left = left[0], left[1:]
        kept.append(best)
        overlap = (np.minimum(end[left], end[best]) - np.maximum(start[left], start[best])).clip(min=0)
        own = max(length[best], segments.dtype.type(rule.min_length))
        union = np.maximum(own + length[left] - overlap, np.finfo(segments.dtype).tiny)
        left = left[overlap / union < rule.iou_threshold]
    return np.array(kept, dtype=np.int64)


class _Pool:
    """Candidates that suppress one another: each `take` gives the best one left and decays the others.

    Among equal scores the first in the working array wins, and that array is reordered by swaps; keeping the order of
    a compiled in-place implementation makes results equal to ActionFormer's extension even then.
    """

    def __init__(self, segments: np.ndarray, scores: np.ndarray, rule: Nms):
        start, end = segments.T.copy()
        kind = segments.dtype.type
        self.rule, self.first, self.count = rule, 0, len(scores)
        self.columns = (start, end, end - start + kind(rule.length_epsilon), scores.copy(), np.arange(len(scores)))
        self.minimum, self.shortest, self.sigma = kind(rule.min_score), kind(rule.min_length), kind(-rule.sigma)
        self.tiny, self.zero = np.finfo(segments.dtype).tiny, kind(0)
        self.best = -1
        self.look()

    def look(self) -> None:
        """Find the best candidate left; `top` is its score, -1 where none is left."""
        if self.first >= self.count:
            self.top = -1.0
            return
        score = self.columns[3]
        self.best = self.first + int(score[self.first : self.count].argmax())
        self.top = float(score[self.best])

    def take(self) -> int:
        """Row number of the best candidate; the scores of the others decay."""
        first, best, count = self.first, self.best, self.count
        for column in self.columns:
            column[first], column[best] = column[best], column[first]
        start, end, length, score, index = self.columns
        rest = slice(first + 1, count)
        overlap = np.minimum(end[rest], end[first])
        overlap -= np.maximum(start[rest], start[first])
        others: slice | np.ndarray = slice(None)
        if count - first > FEW:  # of many candidates few overlap: to pick these out costs less than their decay
            others = np.flatnonzero(overlap > 0)
            overlap = overlap[others]
        np.maximum(overlap, self.zero, out=overlap)
        union = length[rest][others] + max(length[first], self.shortest)
        union -= overlap
        np.maximum(union, self.tiny, out=union)
        overlap /= union
        score[rest][others] *= self._decay(overlap)
        self.first = first + 1
        self._drop()
        self.look()
        return int(index[first])

    def _decay(self, iou: np.ndarray) -> np.ndarray:
        if self.rule.method == "gaussian":
            iou *= iou
            iou /= self.sigma
            # Rounded once, as C's expf is: NumPy's in single precision is a bit off at every third value, and
            # nearly equal scores would change places.
            return np.exp(iou, dtype=np.float64).astype(iou.dtype, copy=False)
        lowered = 1 - iou if self.rule.method == "linear" else np.zeros_like(iou)
        return np.where((iou >= iou.dtype.type(self.rule.iou_threshold)) & (iou > 0), lowered, self.zero + 1)

    def _drop(self) -> None:
        """Remove what fell below the minimum, each hole taking the last row left."""
        first, count = self.first, self.count
        alive = self.columns[3][first:count] >= self.minimum
        kept = int(np.count_nonzero(alive))
        if kept < count - first:
            holes = first + np.flatnonzero(~alive[:kept])
            fillers = first + kept + np.flatnonzero(alive[kept:])[::-1]
            for column in self.columns:
                column[holes] = column[fillers]
            self.count = first + kept


def _picked(pools: Sequence[_Pool], limit: int) -> tuple[list[tuple[int, int]], np.ndarray]:
    """(pool, row) of the `limit` best of several pools, best first, and their decayed scores.

    Scores only fall from pick to pick, so that nothing behind the last one of a pool need be computed. Of equals the
    first pool comes first.
    """
    tops = np.array([pool.top for pool in pools])
    picked: list[tuple[int, int]] = []
    scores: list[np.floating] = []
    while len(picked) < limit and len(tops):
        number = int(tops.argmax())
        if tops[number] < 0:
            break
        pool = pools[number]
        row = pool.take()
        picked.append((number, row))
        scores.append(pool.columns[3][pool.first - 1])
        tops[number] = pool.top
    dtype = pools[0].columns[3].dtype if pools else np.dtype(np.float64)
    return picked, np.array(scores, dtype=dtype)


def soft_nms(segments: np.ndarray, scores: np.ndarray, labels: np.ndarray, rule: Nms) -> Detections:
    """Suppress within classes (or one pool, `rule.class_agnostic`), sort by score, cut to `top_k`, vote.

    `segments` (n, 2), `scores` (n,), `labels` (n,) integers; n may be 0. Raises ValueError when the lengths
    differ.
    """
    segments, scores, labels = np.asarray(segments).reshape(-1, 2), np.asarray(scores), np.asarray(labels)
    if not len(segments) == len(scores) == len(labels):
        raise ValueError(f"{len(segments)} segments, {len(scores)} scores, {len(labels)} labels")
    if rule.class_agnostic:
        rows, decayed = suppress(segments, scores, rule)
    elif rule.method in ("hard", "none"):
        rows, decayed = _within_classes(segments, scores, labels, rule)
    else:
        rows, decayed = _soft_within_classes(segments, scores, labels, rule)
    kept = segments[rows]
    if rule.voting is not None and rule.class_agnostic:
        kept = vote(kept, segments, scores, rule.voting)
    return Detections(kept, decayed, labels[rows].astype(np.int64))


def _within_classes(
    segments: np.ndarray, scores: np.ndarray, labels: np.ndarray, rule: Nms
) -> tuple[np.ndarray, np.ndarray]:
    """As `suppress`, every class for itself; the best `top_k` of all."""
    pools = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    found = [suppress(segments[pool], scores[pool], rule) for pool in pools]
    rows = np.concatenate([pool[r] for pool, (r, _) in zip(pools, found, strict=True)] + [np.zeros(0, np.int64)])
    decayed = np.concatenate([s for _, s in found] + [np.zeros(0, scores.dtype)])
    order = np.argsort(-decayed, kind="stable")[: rule.top_k]
    return rows[order], decayed[order]


def _soft_within_classes(
    segments: np.ndarray, scores: np.ndarray, labels: np.ndarray, rule: Nms
) -> tuple[np.ndarray, np.ndarray]:
    """The same for the soft methods, which stop at the `top_k`-th best of all classes."""
    dtype = np.float32 if segments.dtype == scores.dtype == np.float32 else np.float64
    usable = np.flatnonzero(scores >= rule.min_score) if rule.prefilter else np.arange(len(scores))
    order = usable[np.argsort(labels[usable], kind="stable")]
    members = np.split(order, np.flatnonzero(np.diff(labels[order])) + 1) if len(order) else []
    pools = [_Pool(segments[rows].astype(dtype), scores[rows].astype(dtype), rule) for rows in members]
    picked, decayed = _picked(pools, rule.top_k)
    decayed = decayed if len(decayed) else np.zeros(0, scores.dtype)
    return np.array([members[pool][row] for pool, row in picked], dtype=np.int64), decayed


def vote(kept: np.ndarray, candidates: np.ndarray, scores: np.ndarray, threshold: float) -> np.ndarray:
    """Each of `kept` (k, 2) moved to the mean of the `candidates` (n, 2) with tIoU >= `threshold`.

    Weights are a candidate's `scores` (n,) entry times its tIoU. A segment without a supporter (zero length)
    stays.
    """
    moved = kept.copy()
    start, end = candidates.T
    length = end - start
    for row, (first, last) in enumerate(kept):
        overlap = (np.minimum(end, last) - np.maximum(start, first)).clip(min=0)
        near = np.flatnonzero(overlap > 0)
        iou = overlap[near] / (length[near] + (last - first) - overlap[near])
        weight = scores[near] * iou * (iou >= threshold)
        if (total := weight.sum()) > 0:
            moved[row] = weight @ candidates[near] / total
    return moved


def fuse_video_scores(
    detections: Detections, class_scores: np.ndarray, classes: int = 2, geometric: bool = True
) -> Detections:
    """Relabel class-agnostic detections with the best classes of a video-level classifier.

    Each detection is emitted once for each of the `classes` best entries of `class_scores` (N,), with the
    square root of the product of both scores (`geometric`, ActionFormer's code) or the product (its paper).
    """
    best = np.argsort(-class_scores, kind="stable")[:classes]
    product = detections.scores[:, None] * class_scores[best]
    scores = (np.sqrt(product) if geometric else product).ravel()
    order = np.argsort(-scores, kind="stable")
    segments = np.repeat(detections.segments, len(best), axis=0)
    labels = np.tile(best.astype(np.int64), len(detections.scores))
    return Detections(segments[order], scores[order], labels[order])


def point_segments(offsets: np.ndarray, stride: int) -> np.ndarray:
    """Segments (T, 2) around the points 0, `stride`, ... from distances (T, 2) in strides to start and end."""
    points = np.arange(len(offsets), dtype=offsets.dtype) * offsets.dtype.type(stride)
    return np.stack([points - offsets[:, 0] * stride, points + offsets[:, 1] * stride], axis=1)


def point_candidates(
    scores: Sequence[np.ndarray],
    offsets: Sequence[np.ndarray],
    *,
    min_score: float = 0.001,
    top_k: int = 2000,
    min_length: float = 0.05,
    pooled: bool = False,
) -> Detections:
    """ActionFormer's predictions for one video as candidates, in steps of the finest level.

    `scores` (T_l, classes) and `offsets` (T_l, 2), distances in strides, of each pyramid level, finest first, each
    level half as dense. Kept: of every level (`pooled`: of all together, as in OpenTAD) the `top_k` best
    pairs of point and class above `min_score`, if the segment is longer than `min_length` steps. Level by
    level, best first within each.
    """
    segments, kept, labels = [np.zeros((0, 2), np.float32)], [np.zeros(0, np.float32)], [np.zeros(0, np.int64)]
    floor = min_score
    if pooled and sum(level.size for level in scores) > top_k:
        every = np.concatenate([level.ravel() for level in scores])
        floor = max(min_score, np.nextafter(np.partition(every, -top_k)[-top_k], np.float32(-1)))
    for number, (level, distances) in enumerate(zip(scores, offsets, strict=True)):
        flat = level.ravel()
        found = np.flatnonzero(flat > floor)
        found = found[np.argsort(-flat[found], kind="stable")][:top_k]
        rows, classes = np.divmod(found, level.shape[1])
        bounds = point_segments(distances, 2**number)[rows]
        long = bounds[:, 1] - bounds[:, 0] > min_length
        segments.append(bounds[long])
        kept.append(flat[found][long])
        labels.append(classes[long])
    return Detections(np.concatenate(segments), np.concatenate(kept), np.concatenate(labels))
