"""AR@AN and its area: recall of class-agnostic proposals against their average number per video.

The budget of every video is a share of its own list, and truncations to integers decide results; the
expressions keep the operation order of ActivityNet's `eval_proposal.py` (OpenTAD's `recall.py` differs in
the grid).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vidtad.evaluation.align import Aligned, rank
from vidtad.evaluation.matching import blocks, temporal_iou
from vidtad.evaluation.protocols import ACTIVITYNET_TIOU


@dataclass(frozen=True)
class ProposalRecall:
    """recall: float64 (thresholds, points). proposals_per_video: float64 (points,), the abscissa."""

    tiou: tuple[float, ...]
    recall: np.ndarray
    proposals_per_video: np.ndarray

    @property
    def average_recall(self) -> np.ndarray:
        """Mean over the thresholds, float64 (points,)."""
        return self.recall.mean(axis=0)

    @property
    def area(self) -> float:
        """Trapezoid of average recall over proposals per video, from the first point on."""
        x, y = self.proposals_per_video, self.average_recall
        return float((np.diff(x) * (y[1:] + y[:-1]) / 2).sum())

    @property
    def auc_percent(self) -> float:
        """`area` divided by the last abscissa, in percent: the challenge's figure."""
        last = self.proposals_per_video[-1]
        return 100 * self.area / float(last) if last else 0.0

    def at(self, number: int) -> float:
        """AR@AN for an average number of proposals of at most the grid's length."""
        return float(self.average_recall[number - 1])

    def to_json(self) -> dict[str, Any]:
        """AR at the usual numbers, AUC, and the whole curve."""
        points = [n for n in (1, 5, 10, 50, 100) if n <= len(self.average_recall)]
        return {
            "AR@AN": {str(n): self.at(n) for n in points},
            "AUC_percent": self.auc_percent,
            "average_recall": self.average_recall.tolist(),
            "proposals_per_video": self.proposals_per_video.tolist(),
            "tiou_thresholds": list(self.tiou),
        }


def proposal_recall(
    aligned: Aligned,
    max_avg: float | None = 100,
    tiou: Sequence[float] = ACTIVITYNET_TIOU,
    *,
    grid: np.ndarray | None = None,
) -> ProposalRecall:
    """AR@AN of the predictions of `aligned`, their labels ignored.

    max_avg: proposals kept per video on average; None keeps all. grid: shares of `max_avg` to evaluate at
    (k/100 for k = 1..100 by default). Videos are those with an annotation; all predictions of the file
    count in the budget, also those elsewhere.
    """
    videos = np.unique(aligned.gt_video)
    count = len(videos)
    total = len(aligned.pr_video)
    share = np.arange(1, 101) / 100.0 if grid is None else grid
    if not total:
        return ProposalRecall(tuple(tiou), np.zeros((len(tiou), len(share))), np.zeros(len(share)))
    if max_avg is None:
        max_avg = float(total) / count
    ratio = max_avg * float(count) / total
    sizes = np.bincount(aligned.pr_video, minlength=len(aligned.videos))
    kept = np.minimum((sizes * ratio).astype(np.int64), sizes)
    first = _first_hits(aligned, kept, tiou)
    kept_total = int(kept[videos].sum())
    if not kept_total:
        return ProposalRecall(tuple(tiou), np.zeros((len(tiou), len(share))), np.zeros(len(share)))
    points = share * (max_avg * float(count) / kept_total)
    budget = np.minimum((kept[:, None] * points).astype(np.int64), kept[:, None])
    recall = np.array(
        [[(hits < of_point).sum() for of_point in budget.T[:, aligned.gt_video]] for hits in first]
    ) / len(aligned.gt_video)
    return ProposalRecall(tuple(tiou), recall, points * (float(kept_total) / count))


def opentad_grid(max_avg: int) -> np.ndarray:
    """OpenTAD's grid: one point per proposal."""
    return np.arange(1, max_avg + 1) / max_avg


def _first_hits(aligned: Aligned, kept: np.ndarray, tiou: Sequence[float]) -> np.ndarray:
    """Place, in its video's list, of the first kept proposal that reaches each threshold: int64 (thresholds,
    annotations); a number beyond any list where there is none."""
    order = rank(aligned.pr_video, aligned.pr_score, aligned.protocol.ties)
    video = aligned.pr_video[order]
    place = np.arange(len(order)) - np.searchsorted(video, video, "left")
    inside = place < kept[video]
    rows, video, place = order[inside], video[inside], place[inside]
    first = np.full((len(tiou), len(aligned.gt_video)), np.iinfo(np.int64).max)
    start, end = aligned.pr_start[rows], aligned.pr_end[rows]
    for proposal, annotation in blocks(video, aligned.gt_video):
        overlap = temporal_iou(
            aligned.gt_start[annotation],
            aligned.gt_end[annotation],
            start[proposal],
            end[proposal],
            guard=aligned.protocol.least_union,
        )
        close = np.flatnonzero(overlap >= min(tiou))
        overlap, where, which = overlap[close], annotation[close], place[proposal[close]]
        for row, threshold in enumerate(tiou):
            enough = overlap >= threshold
            np.minimum.at(first[row], where[enough], which[enough])
    return first
