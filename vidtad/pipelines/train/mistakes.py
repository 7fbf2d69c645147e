"""What a trained detector gets wrong on its validation videos, and the score from which segments are worth showing."""

from collections.abc import Collection
from dataclasses import dataclass, replace

import numpy as np

from vidtad.errors import InputError
from vidtad.evaluation.align import Aligned, align
from vidtad.evaluation.matching import temporal_iou
from vidtad.evaluation.protocols import Protocol
from vidtad.evaluation.temporal import find_pairs, match
from vidtad.formats.tables import Annotations, Predictions

TIOU = 0.5


@dataclass(frozen=True)
class Operating:
    """At a display score: F1, precision and recall at tIoU 0.5."""

    score: float
    f1: float
    precision: float
    recall: float


@dataclass(frozen=True)
class Mistake:
    """One wrong or missing segment: `kind` and `why` in words, seconds, the score (None for a missed one)."""

    kind: str
    why: str
    video: str
    label: str
    start_s: float
    end_s: float
    score: float | None


def _matched(
    truth: Annotations, predictions: Predictions, protocol: Protocol
) -> tuple[Aligned, np.ndarray, np.ndarray]:
    """The aligned pair; of the ranked predictions which are right; of the annotations the rank that found each."""
    aligned = align(truth, predictions, _at_half(protocol))
    matching = match(aligned, find_pairs(aligned))
    return aligned, matching.hits[0], matching.taken_by[0]


def _at_half(protocol: Protocol) -> Protocol:
    return replace(protocol, kind="temporal", tiou=(TIOU,))


def best_operating_point(truth: Annotations, predictions: Predictions, protocol: Protocol) -> Operating | None:
    """The score with the highest F1 at tIoU 0.5, one prediction an annotation; None when nothing is right."""
    aligned, right, _ = _matched(truth, predictions, protocol)
    scores = aligned.pr_score[aligned.order]
    by_score = np.argsort(-scores, kind="stable")
    hits = np.cumsum(right[by_score])
    if not len(hits) or not hits[-1]:
        return None
    shown = np.arange(1, len(hits) + 1)
    f1 = 2 * hits / (shown + len(aligned.gt_class))
    # Equal scores are shown together or not at all.
    last_of_tie = np.append(np.diff(scores[by_score]) != 0, True)
    best = int(np.argmax(np.where(last_of_tie, f1, -1)))
    # Rounded down: the segment that sets the score must pass it.
    score = np.floor(float(scores[by_score[best]]) * 1000) / 1000
    return Operating(
        float(score), float(f1[best]), float(hits[best] / shown[best]), float(hits[best] / len(aligned.gt_class))
    )


def blind_predictions(truth: Annotations, train: Collection[str], names: Collection[str]) -> Predictions:
    """What a detector would say that never looks: where actions lie in the training videos, said of every video.

    Every training segment, as a share of its video, is proposed for each video of `names`; its score is how often
    its class occurs in a training video times its mean tIoU with the others of its class (itself included). Equal
    ones are proposed once. `truth.duration` must be known.
    """
    lengths = dict(zip(truth.videos, truth.duration.tolist(), strict=True))
    rows = np.flatnonzero(np.isin(np.array(truth.videos), list(train))[truth.video])
    whole = truth.duration[truth.video[rows]]
    start, end, label = truth.start[rows] / whole, truth.end[rows] / whole, truth.label[rows]
    found = []
    for number in np.unique(label).tolist():
        own = label == number
        s, e = start[own], end[own]
        overlap = temporal_iou(s[:, None], e[:, None], s[None], e[None])
        score = min(1.0, own.sum() / len(train)) * overlap.mean(1)
        left = np.ones(len(s), bool)
        for best in np.argsort(-score, kind="stable").tolist():
            if left[best]:
                left &= overlap[best] < TIOU
                found.append((truth.labels[number], s[best], e[best], float(score[best])))
    return Predictions.from_rows(
        (name, text, s * lengths[name], e * lengths[name], score) for name in names for text, s, e, score in found
    )


def worst_mistakes(
    truth: Annotations, predictions: Predictions, protocol: Protocol, display_score: float, most: int = 8
) -> list[Mistake]:
    """The surest wrong segments, then the longest missed ones; at most `most` of each, at `display_score`."""
    try:
        aligned, right, taken_by = _matched(truth, predictions, protocol)
    except InputError:  # nothing annotated: nothing can be said to be wrong
        return []
    order = aligned.order
    scores = aligned.pr_score[order]
    shown = scores >= display_score
    wrong = np.flatnonzero(shown & ~right)
    wrong = wrong[np.argsort(-scores[wrong], kind="stable")][:most]
    found = [_wrong(aligned, int(rank)) for rank in wrong]
    missed = np.flatnonzero((taken_by < 0) | ~shown[taken_by.clip(min=0)]) if len(order) else np.arange(len(taken_by))
    length = aligned.gt_end - aligned.gt_start
    missed = missed[np.argsort(-length[missed], kind="stable")][:most]
    for row in missed.tolist():
        why = "nothing of its class overlaps it enough"
        if taken_by[row] >= 0:
            why = f"found, but with score {scores[taken_by[row]]:.2f}"
        found.append(
            Mistake(
                "missed",
                why,
                aligned.videos[aligned.gt_video[row]],
                aligned.classes[aligned.gt_class[row]],
                float(aligned.gt_start[row]),
                float(aligned.gt_end[row]),
                None,
            )
        )
    return found


def _wrong(aligned: Aligned, rank: int) -> Mistake:
    row = int(aligned.order[rank])
    start, end = float(aligned.pr_start[row]), float(aligned.pr_end[row])
    same_video = np.flatnonzero(aligned.gt_video == aligned.pr_video[row])
    overlap = temporal_iou(aligned.gt_start[same_video], aligned.gt_end[same_video], np.float64(start), np.float64(end))
    of_class = aligned.gt_class[same_video] == aligned.pr_class[row]
    own = float(overlap[of_class].max(initial=0.0))
    other = float(overlap[~of_class].max(initial=0.0))
    if own >= TIOU:
        why = "a second one for an action already found"
    elif other >= TIOU:
        best = same_video[~of_class][int(np.argmax(overlap[~of_class]))]
        why = f"this is {aligned.classes[aligned.gt_class[best]]}"
    elif own > 0.1:
        why = f"right class, wrong times (tIoU {own:.2f})"
    else:
        why = "nothing labelled here"
    label = aligned.classes[aligned.pr_class[row]]
    score = float(aligned.pr_score[row])
    return Mistake("wrong", why, aligned.videos[aligned.pr_video[row]], label, start, end, score)
