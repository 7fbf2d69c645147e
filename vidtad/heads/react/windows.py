"""ReAct's overlapping windows, and the ground truth a training window keeps."""

import math

import numpy as np


def react_windows(n_snippets: int, clip_len: int = 256, stride_rate: float = 0.25) -> list[slice]:
    """Overlapping windows of a video for ReAct, as slices of snippet rows.

    Windows start every `int(clip_len * stride_rate)` snippets and hold `clip_len` of them; only the last one
    may be shorter, and a video no longer than `clip_len` is one window. ReAct's released data set does the
    same in training and testing. Raises ValueError for an empty video or a step below one snippet.
    """
    step = int(clip_len * stride_rate)
    if n_snippets < 1 or clip_len < 1 or step < 1:
        raise ValueError(f"cannot window {n_snippets} snippets with clip_len {clip_len} and stride_rate {stride_rate}")
    count = max(math.ceil((n_snippets - clip_len) / step) + 1, 1)
    return [slice(w * step, min(w * step + clip_len, n_snippets)) for w in range(count)]


def retain(
    segments: np.ndarray,
    window: slice,
    n_snippets: int,
    clip_len: int = 256,
    threshold: float = 0.75,
) -> tuple[np.ndarray, np.ndarray]:
    """Ground truth that a training window of ReAct keeps.

    `segments` (n, 2) holds (mid, len) as fractions of the whole video, `window` is one of `react_windows`. An
    instance stays when at least `threshold` of its own length (not tIoU) lies inside the window; a video of a
    single window keeps every instance. Returns the kept segments (k, 2) float64 as fractions of the window's
    valid snippets, not clipped (a start may be negative, an end above one: the loss clamps them), and their
    row numbers (k,).
    """
    segments = np.asarray(segments, dtype=np.float64).reshape(-1, 2)
    length = window.stop - window.start
    first = window.start / n_snippets
    if length == n_snippets:
        kept = np.arange(len(segments))
    else:
        start, end = segments[:, 0] - segments[:, 1] / 2, segments[:, 0] + segments[:, 1] / 2
        inside = np.minimum(end, first + clip_len / n_snippets) - np.maximum(start, first)
        kept = np.flatnonzero(inside >= threshold * segments[:, 1].clip(min=1e-12))
    relative = segments[kept].copy()
    relative[:, 0] -= first
    return relative * (n_snippets / length), kept
