"""Which frames published pipelines read, and how features of any length become a fixed number of snippets.

Frame indices count from 0 unless said otherwise; every function is pure.
"""

from fractions import Fraction

import numpy as np

from vidtad.errors import InputError


def window_starts(frames: int, window: int, stride: int) -> np.ndarray:
    """First frame of every full window: floor((frames - window) / stride) + 1 of them, (n,) int64.

    ActionFormer's THUMOS14 features (window 16, stride 4).
    """
    return np.arange(0, frames - window + 1, stride, dtype=np.int64)


def spread_clips(frames: int, length: int, interval: int, clips: int) -> np.ndarray:
    """Frames of `clips` clips spread over a video at test time, mmaction2's rule: (clips, length) int64.

    Single frames sit at int(frames / clips * (i + 0.5)). Longer clips of `length` frames, `interval` apart, start
    at equally spaced offsets rounded half to even. Indices past the end wrap around.
    """
    if length == 1:
        step = frames / clips
        starts = (np.arange(clips) * step + step / 2).astype(np.int64)
    else:
        last = max(frames - ((length - 1) * interval + 1), 0)
        if clips > 1:
            starts = np.round(np.arange(clips) * (last / (clips - 1))).astype(np.int64)
        else:
            starts = np.array([last // 2], dtype=np.int64)
    return (starts[:, None] + np.arange(length) * interval) % frames


def dense_clips(frames: int, length: int, interval: int) -> np.ndarray:
    """Frames of clips centred every `interval` frames, mmaction2's untrimmed rule: (n, length) int64.

    Centres are interval // 2, interval // 2 + interval, ...; indices are clamped to the video.
    """
    centres = np.arange(interval // 2, frames, interval, dtype=np.int64)
    around = np.arange(-(length // 2), length - length // 2)
    return np.clip(centres[:, None] + around, 0, frames - 1)


def segment_starts(frames: int, length: int, segments: int) -> np.ndarray:
    """First frame of one `length`-frame snippet in the middle of each of `segments` equal parts: (segments,) int64.

    The test rule of TSN-PyTorch, whose own numbers are one higher (its frames count from 1).
    """
    tick = (frames - length + 1) / segments
    return np.array([int(tick / 2 + tick * i) for i in range(segments)], dtype=np.int64)


def resampled(frames: int, source_fps: float | Fraction, fps: float | Fraction) -> np.ndarray:
    """Source frame shown at each tick of a video resampled to `fps` by index, TSP's rule: (n,) int64.

    Every k-th frame when the rates' ratio is a whole k, else floor(i * ratio) in float32 for
    floor(frames * fps / source_fps) ticks. Raises InputError for rates that are not above 0.
    """
    if source_fps <= 0 or fps <= 0:
        raise InputError(f"frame rates must be above 0, not {source_fps} and {fps}")
    ratio = float(source_fps) / float(fps)
    if ratio.is_integer():
        return np.arange(0, frames, int(ratio), dtype=np.int64)
    ticks = int(frames * (float(fps) / float(source_fps)))
    return np.floor(np.arange(ticks, dtype=np.float32) * np.float32(ratio)).astype(np.int64)


def linear(features: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Rows of `features` (T, C) at fractional `positions` (n,), clamped to [0, T - 1]: (n, C) float32."""
    positions = np.clip(np.asarray(positions, dtype=np.float64), 0, len(features) - 1)
    below = np.minimum(positions.astype(np.int64), max(len(features) - 2, 0))
    above = np.minimum(below + 1, len(features) - 1)
    share = (positions - below)[:, None]
    return (features[below] * (1 - share) + features[above] * share).astype(np.float32)


def resize_rows(features: np.ndarray, rows: int = 100) -> np.ndarray:
    """(T, C) -> (rows, C) float32, linear between the first and the last row (BSN; G-TAD and ReAct describe it)."""
    return linear(features, np.arange(rows) * (len(features) - 1) / max(rows - 1, 1))


def pool_rows_mmaction(features: np.ndarray, rows: int = 100, points: int = 3) -> np.ndarray:
    """(T, C) -> (rows, C) float32: the mean of `points` linear samples in each of `rows` steps, mmaction2's rule.

    The range is [1e-4, T - 1 - 1e-4] and each step's end is left out. One row is repeated.
    """
    if len(features) == 1:
        return np.repeat(features, rows, axis=0).astype(np.float32)
    margin = 1e-4
    step = (len(features) - 1 - 2 * margin) / rows
    positions = margin + (np.arange(rows * points) / points) * step
    return linear(features, positions).reshape(rows, points, -1).mean(axis=1, dtype=np.float64).astype(np.float32)


def pool_rows_bsn(
    features: np.ndarray, *, frames: int, duration_s: float, rows: int = 100, interval: int = 16, points: int = 3
) -> np.ndarray:
    """(T, C) -> (rows, C) float32, as the published ActivityNet features of BSN, BMN and G-TAD were pooled.

    Snippet i of `interval` frames is centred at (i + 0.5) * interval / fps. The time the T snippets cover is
    divided into `rows` bins; a bin is the mean of `points` linear samples, both its ends included, or zero where
    it lies before the first centre or after the last. `frames` and `duration_s` are the video's own count and
    seconds.
    """
    if len(features) == 1:
        return np.repeat(features, rows, axis=0).astype(np.float32)
    # With 2, 5, 10, 25 or 50 snippets an edge falls on the last centre, and the order of operations decides whether
    # the bin behind it is empty: this is BSN's.
    snippet_s = interval / (frames / duration_s)
    centre_s = snippet_s / 2 + np.arange(len(features)) * snippet_s
    edges_s = np.arange(rows + 1) * (1 / rows) * (interval * len(features) / frames * duration_s)
    margin_s = 1e-4
    starts_s = np.maximum(edges_s[:-1], centre_s[0] + margin_s)
    ends_s = np.minimum(edges_s[1:], centre_s[-1] - margin_s)
    outside = (ends_s < centre_s[0]) | (starts_s > centre_s[-1])
    times_s = starts_s[:, None] + (ends_s - starts_s)[:, None] * np.linspace(0, 1, points)
    positions = (times_s.ravel() - centre_s[0]) / (centre_s[1] - centre_s[0])
    pooled = linear(features, positions).reshape(rows, points, -1).mean(axis=1, dtype=np.float64)
    pooled[outside] = 0
    return pooled.astype(np.float32)
