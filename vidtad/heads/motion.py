"""From how much moves at each moment to stretches of motion: smoothing, background level, hysteresis."""

from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from vidtad.heads.spec import TEMPORAL, HeadSpec


@dataclass(frozen=True)
class MotionSettings:
    """When movement counts as motion. Energies are percent of the picture's diagonal a second, times seconds.

    `smooth_s`: length of the median filter (it keeps edges sharp). `background`: quantile of the energy within
    `around_s` to either side that is taken for the scene's own restlessness (water, leaves, noise), at most
    `restless`. A stretch begins where the energy is `rise` times the background, at least `floor`, above it, and lasts
    while it is `keep` times that. Stretches nearer than `gap_s` are one; those shorter than `shortest_s` are dropped.
    `side_px`: the pictures' shorter side; `every_s`: least time between the two pictures of a flow.
    """

    smooth_s: float = 0.35
    background: float = 0.2
    around_s: float = 15.0
    restless: float = 12.0
    rise: float = 1.0
    floor: float = 3.0
    keep: float = 0.5
    gap_s: float = 0.5
    shortest_s: float = 0.4
    side_px: int = 120
    every_s: float = 1 / 16
    display_score: float = 0.3

    def __post_init__(self) -> None:
        if not 0 <= self.background <= 1 or not 0 < self.keep <= 1:
            raise ValueError("background must lie within 0-1 and keep above 0, at most at 1")
        if min(self.smooth_s, self.around_s, self.restless, self.rise, self.gap_s, self.shortest_s) < 0:
            raise ValueError("lengths and factors of motion must not be negative")
        if self.floor <= 0 or self.every_s <= 0 or self.side_px < 32:
            raise ValueError("floor and every_s must be above 0, side_px at least 32")


def motion_segments(
    edges_s: np.ndarray, energy: np.ndarray, settings: MotionSettings = MotionSettings()
) -> list[tuple[float, float, float]]:
    """Stretches of motion, best first, as (start_s, end_s, score).

    edges_s (T + 1,): increasing times of the pictures in seconds; energy (T,): what moves between picture i and
    i + 1, NaN where that cannot be told. The score, 0-1, is x / (1 + x) with x how many times the rise that begins a
    stretch its mean energy lies above the background.
    """
    if len(energy) == 0:
        return []
    step_s = float(np.median(np.diff(edges_s)))
    smooth = median_filtered(_filled(energy), settings.smooth_s / step_s)
    quiet = np.minimum(background_level(smooth, settings.background, settings.around_s / step_s), settings.restless)
    rise = np.maximum(settings.floor, settings.rise * quiet)
    excess = (smooth - quiet) / rise
    found = []
    for first, last in _joined(_hysteresis(excess, settings.keep), edges_s, settings.gap_s):
        start, end = float(edges_s[first]), float(edges_s[last])
        if end - start >= settings.shortest_s:
            level = float(np.average(excess[first:last], weights=np.diff(edges_s[first : last + 1])))
            found.append((start, end, max(level, 0.0) / (1 + max(level, 0.0))))
    return sorted(found, key=lambda item: -item[2])


def median_filtered(values: np.ndarray, length: float) -> np.ndarray:
    """Running median over about `length` values (odd, at least 1); the ends are repeated."""
    reach = round(length) // 2
    if reach == 0:
        return values
    return np.median(sliding_window_view(np.pad(values, reach, "edge"), 2 * reach + 1), axis=1)


def background_level(values: np.ndarray, quantile: float, reach: float) -> np.ndarray:
    """The quantile of the values within `reach` to either side of each, computed at 16 places a reach.

    At the ends the window is moved inside, so that it is as long as elsewhere.
    """
    count, reach_n = len(values), max(1, round(reach))
    if count <= 2 * reach_n + 1:
        return np.full(count, np.quantile(values, quantile))
    places = np.unique(np.append(np.arange(reach_n, count - reach_n, max(1, reach_n // 16)), count - reach_n - 1))
    levels = [np.quantile(values[place - reach_n : place + reach_n + 1], quantile) for place in places]
    return np.interp(np.arange(count), places, levels)


def _filled(energy: np.ndarray) -> np.ndarray:
    known = np.flatnonzero(np.isfinite(energy))
    if not len(known):
        return np.zeros(len(energy))
    return np.interp(np.arange(len(energy)), known, energy[known])


def _hysteresis(excess: np.ndarray, keep: float) -> list[tuple[int, int]]:
    """Runs [first, last) at or above `keep` that reach 1 somewhere."""
    above = np.diff(np.concatenate([[0], (excess >= keep).astype(np.int8), [0]]))
    runs = zip(np.flatnonzero(above == 1).tolist(), np.flatnonzero(above == -1).tolist(), strict=True)
    return [(first, last) for first, last in runs if excess[first:last].max() >= 1]


def _joined(runs: list[tuple[int, int]], edges_s: np.ndarray, gap_s: float) -> list[tuple[int, int]]:
    joined: list[tuple[int, int]] = []
    for first, last in runs:
        if joined and edges_s[first] - edges_s[joined[-1][1]] < gap_s:
            joined[-1] = (joined[-1][0], last)
        else:
            joined.append((first, last))
    return joined


SPEC = HeadSpec(
    name="motion",
    says="motion of anything, from optical flow; nothing is trained",
    task=TEMPORAL,
    feeds="frames",
    decoding=lambda: MotionSettings,
    classless=True,
)
