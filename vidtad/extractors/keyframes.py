"""Clips around keyframes: which frames, at what size, and what becomes of the boxes on them.

Frame numbers count from 0 on a time line of constant rate. Boxes are x1 y1 x2 y2.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from vidtad.errors import InputError
from vidtad.extractors.preprocess import INTERPOLATIONS, target_size


@dataclass(frozen=True)
class KeyframeConvention:
    """What a person-box network is fed at a keyframe.

    `window` frames around it on a time line of `fps` frames a second, every `step`-th shown. `resize`: short side in
    pixels (aspect kept) or an exact (height, width). `interpolation`: see `preprocess`. `mean` and `std` are on the
    0-255 scale, RGB order.
    """

    window: int = 64
    step: int = 2
    fps: Fraction = Fraction(30)
    resize: int | tuple[int, int] = 256
    interpolation: str = "opencv-floor"
    mean: tuple[float, float, float] = (0.45 * 255,) * 3
    std: tuple[float, float, float] = (0.225 * 255,) * 3

    def __post_init__(self) -> None:
        if self.window < 1 or self.step < 1 or self.fps <= 0:
            raise InputError(f"window {self.window}, step {self.step} and fps {self.fps} must be above 0")
        if self.interpolation not in INTERPOLATIONS:
            known = ", ".join(INTERPOLATIONS)
            raise InputError(f"no interpolation is called {self.interpolation!r}; there are {known}")

    @property
    def shown(self) -> int:
        """Frames of a clip."""
        return -(-self.window // self.step)

    def centre(self, time_s: float) -> int:
        """Number of the keyframe nearest to `time_s`."""
        return int(np.floor(time_s * float(self.fps) + 0.5))

    def first(self, centre: int) -> int:
        """Number of the first frame of the window around `centre`, before clamping."""
        return centre - self.window // 2

    def to_json(self) -> dict[str, Any]:
        """Plain values, as a bundle keeps them."""
        return {
            "window": self.window,
            "step": self.step,
            "fps": str(self.fps),
            "resize": self.resize if isinstance(self.resize, int) else list(self.resize),
            "interpolation": self.interpolation,
            "mean": list(self.mean),
            "std": list(self.std),
        }


def clamped_window(centre: int, half: int, step: int, frames: int) -> np.ndarray:
    """Frames centre - half, ..., centre + half - 1, every step-th, each clamped to [0, frames - 1]: int64.

    How PySlowFast, its long-term feature banks and this package show a keyframe.
    """
    return np.clip(np.arange(centre - half, centre + half, step, dtype=np.int64), 0, frames - 1)


def centred_window(start: int, count: int, size: int, step: int) -> np.ndarray:
    """Frames of ACAR's central crop of the list start, ..., start + count - 1: every step-th of `size` of them, int64.

    The crop lies around position count // 2 but not before the list; a list shorter than it is repeated from its
    beginning. Away from the ends of a video this equals `clamped_window`.
    """
    first = max(0, count // 2 - size // 2)
    chosen = np.arange(first, min(first + size, count), dtype=np.int64)
    return start + np.resize(chosen, size)[::step]


def short_side_size(width: int, height: int, short: int) -> tuple[int, int]:
    """(width, height) after scaling the short side to `short`, the long side truncated."""
    if min(width, height) == short:
        return width, height
    tall, wide = target_size(height, width, short, "pillow")
    return wide, tall


def map_cells(pixels: int) -> int:
    """Cells of a stride-16 map along an axis of so many pixels: four halvings, each rounded up."""
    return -(-pixels // 16)


def in_network_pixels(boxes: np.ndarray, original: tuple[int, int], scaled: tuple[int, int]) -> np.ndarray:
    """Normalised boxes (n, 4) in pixels of the scaled picture, PySlowFast's way; sizes are (height, width).

    Both axes are multiplied by the ratio of the long sides, whose length was truncated, and boxes end one pixel before
    the border, before and after scaling.
    """
    (height, width), (tall, wide) = original, scaled
    ratio = wide / width if width >= height else tall / height
    edge = np.array([width - 1, height - 1] * 2, np.float64)
    pixels = np.clip(np.asarray(boxes, np.float64) * [width, height, width, height], 0, edge) * ratio
    return np.clip(pixels, 0, np.array([wide - 1, tall - 1] * 2, np.float64))


def flipped(boxes: np.ndarray) -> np.ndarray:
    """Normalised boxes (n, 4) of the mirrored picture."""
    return np.stack([1 - boxes[:, 2], boxes[:, 1], 1 - boxes[:, 0], boxes[:, 3]], axis=1)


def cropped(boxes: np.ndarray, crop: Sequence[float], keep: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Normalised boxes (n, 4) in the picture cut to `crop` (x1, y1, x2, y2), and which survive: bool (n,).

    A box survives when more than `keep` of its area lies inside.
    """
    left, top, right, bottom = crop
    low, high = np.array([left, top] * 2, np.float64), np.array([right, bottom] * 2, np.float64)
    inside = np.clip(np.asarray(boxes, np.float64), low, high)
    survives = area(inside) > keep * area(np.asarray(boxes, np.float64))
    return (inside - low) / np.array([right - left, bottom - top] * 2), survives


def padded(boxes: np.ndarray, ratio: Sequence[float]) -> np.ndarray:
    """Normalised boxes (n, 4) in the picture padded right and below to `ratio` (x, y) times its size."""
    return np.asarray(boxes, np.float64) / np.array([ratio[0], ratio[1]] * 2, np.float64)


def jittered(boxes: np.ndarray, scale: float, rng: np.random.Generator) -> np.ndarray:
    """Normalised boxes (n, 4) with every side moved by up to `scale` times the box's width or height.

    Left and top stay at 0 or above, right and bottom at 1 or below (ACAR's augmentation, scale 0.075).
    """
    boxes = np.asarray(boxes, np.float64)
    size = np.tile(boxes[:, 2:] - boxes[:, :2], 2)
    moved = boxes + rng.uniform(-scale, scale, boxes.shape) * size
    return np.concatenate([np.maximum(moved[:, :2], 0), np.minimum(moved[:, 2:], 1)], axis=1)


def area(boxes: np.ndarray) -> np.ndarray:
    """Areas (n,) of boxes (n, 4), in the square of their unit."""
    return np.maximum(boxes[:, 2] - boxes[:, 0], 0) * np.maximum(boxes[:, 3] - boxes[:, 1], 0)
