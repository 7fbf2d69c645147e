"""ReAct's predictions to the detections of a video."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from vidtad.postprocess import Detections, Nms, soft_nms

# ReAct on THUMOS14 as released; `min_length` refers to fractions of the video.
REACT = Nms(
    sigma=0.4,
    min_score=1e-6,
    top_k=1000,
    class_agnostic=True,
    length_epsilon=0.0,
    min_length=1e-5,
    prefilter=True,
)


def react_candidates(
    segments: np.ndarray, scores: np.ndarray, windows: Sequence[slice], min_score: float = 0.0
) -> Detections:
    """ReAct's predictions for the windows of one video, as candidates on the whole video, best first.

    `segments` (W, Q, 2) are (mid, len) fractions of each window's valid snippets, `scores` (W, Q, classes).
    Every query gives its best class alone, if its score exceeds `min_score`. Positions returned are float64,
    in snippets of the whole video.
    """
    middle, half = segments[..., 0].astype(np.float64), segments[..., 1].astype(np.float64) / 2
    bounds = np.stack([middle - half, middle + half], axis=-1).clip(0, 1)
    first = np.array([window.start for window in windows], dtype=np.float64)
    length = np.array([window.stop - window.start for window in windows], dtype=np.float64)
    positions = (bounds * length[:, None, None] + first[:, None, None]).reshape(-1, 2)
    labels = scores.argmax(-1).ravel()
    best = scores.max(-1).ravel()
    order = np.argsort(-best, kind="stable")
    order = order[best[order] > min_score]
    return Detections(positions[order], best[order], labels[order])


def react_detections(
    segments: np.ndarray,
    scores: np.ndarray,
    windows: Sequence[slice],
    *,
    min_score: float = 0.0,
    rule: Nms = REACT,
) -> Detections:
    """ReAct's detections in one video: `react_candidates` of all windows, then suppression.

    Positions are float64, in snippets of the whole video. Suppression sees fractions of the video, as
    released.
    """
    found = react_candidates(segments, scores, windows, min_score)
    total = max(window.stop for window in windows)
    kept = soft_nms(found.segments / total, found.scores.astype(np.float64), found.labels, rule)
    return Detections(kept.segments * total, kept.scores, kept.labels)


@dataclass(frozen=True)
class ReActDecoding:
    """Post-processing of ReAct; the defaults are those of the released THUMOS14 model (section 6 of its sheet).

    `score_threshold` applies before Soft-NMS, `min_score` to the decayed scores. Soft-NMS is Gaussian, over all
    classes of a video together unless `class_agnostic` is off. `display_score` only says which segments a table shows.
    """

    score_threshold: float = 0.0
    sigma: float = 0.4
    min_score: float = 1e-6
    top_k: int = 1000
    class_agnostic: bool = True
    display_score: float = 0.3

    def rule(self) -> Nms:
        """The suppression these options ask for. Raises ValueError for values out of range."""
        return replace(
            REACT,
            sigma=self.sigma,
            min_score=self.min_score,
            top_k=self.top_k,
            class_agnostic=self.class_agnostic,
        )
