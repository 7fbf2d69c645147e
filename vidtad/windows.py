"""Cutting a feature sequence into windows; every function here is pure."""

from collections.abc import Sequence

import numpy as np


def split(length: int, size: int, hop: int) -> list[slice]:
    """Windows of `size` steps over `length`, `hop` apart; the last is pulled back to stay full.

    `length` <= `size` gives one short window. Inverse: `stitch`. Raises ValueError unless length >= 1 and
    1 <= hop <= size (a wider hop would leave steps uncovered).
    """
    if length < 1 or not 1 <= hop <= size:
        raise ValueError(f"cannot split {length} steps into windows of {size} every {hop}")
    starts = [*range(0, length - size, hop), length - size] if length > size else [0]
    return [slice(start, min(start + size, length)) for start in starts]


def stitch(parts: Sequence[np.ndarray], windows: Sequence[slice], length: int) -> np.ndarray:
    """The whole sequence (length, ...) from what each window gives, (window length, ...) each.

    Where windows overlap, each step comes from the window in which it lies furthest from an edge. Raises ValueError
    when windows and parts do not fit or leave a step uncovered.
    """
    if len(parts) != len(windows) or not parts:
        raise ValueError(f"{len(parts)} parts for {len(windows)} windows")
    whole = np.empty((length, *parts[0].shape[1:]), dtype=parts[0].dtype)
    depth = np.full(length, -1)
    for part, window in zip(parts, windows, strict=True):
        size = window.stop - window.start
        if len(part) != size or window.start < 0 or window.stop > length:
            raise ValueError(f"part of {len(part)} steps for window {window.start}-{window.stop} of {length}")
        inside = np.minimum(np.arange(size), np.arange(size)[::-1])
        deeper = inside > depth[window]
        whole[window][deeper] = part[deeper]
        depth[window][deeper] = inside[deeper]
    if (depth < 0).any():
        raise ValueError(f"step {int((depth < 0).argmax())} of {length} lies in no window")
    return whole


def resized(values: np.ndarray, steps: int) -> np.ndarray:
    """Rows (T, C) interpolated linearly to (steps, C) float32; the ends of both cover the same time."""
    position = ((np.arange(steps) + 0.5) * (len(values) / steps) - 0.5).clip(0, len(values) - 1)
    before = np.floor(position).astype(np.int64)
    after = np.minimum(before + 1, len(values) - 1)
    share = (position - before).astype(np.float32)[:, None]
    return (values[before] * (1 - share) + values[after] * share).astype(np.float32, copy=False)


def from_resized(positions: np.ndarray, rows: int, steps: int, overlap: float) -> np.ndarray:
    """Positions on the `rows` of a video of those on its `steps` after `resized`; 0 is the centre of the first.

    `overlap` is window over stride. ActionFormer's convention for ActivityNet: all steps together cover all frames
    of all windows, so that a step is (rows - 1 + overlap) / steps strides.
    """
    return (positions + 0.5) * ((rows - 1 + overlap) / steps) - 0.5 * overlap


def to_resized(positions: np.ndarray, rows: int, steps: int, overlap: float) -> np.ndarray:
    """The inverse of `from_resized`."""
    return (positions + 0.5 * overlap) * (steps / (rows - 1 + overlap)) - 0.5
