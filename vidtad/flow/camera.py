"""What moves against the scene: flow with the camera's own motion taken out."""

from dataclasses import dataclass

import cv2
import numpy as np

BLOCK = 8
_STEP = 4
_ROBUST_PX = 0.75
_CHANGED = 2.0
_CHANGED_FACTOR = 2.5
_CUT_SHARE = 0.5
_BUSIEST = 0.02


@dataclass(frozen=True, eq=False)
class Residual:
    """Motion between two pictures after the camera's was removed.

    `speed` (rows, columns) float32: the median length in pixels of what flow is left in each block of 8 x 8 pixels,
    0 where the moved first picture already explains the second. `camera` (2, 3): the removed similarity, first to
    second. `cut`: True when no motion explains the second picture, as at a change of shot.
    """

    speed: np.ndarray
    camera: np.ndarray
    cut: bool

    def energy(self) -> float:
        """Pixels: the mean over the busiest 2 % of the blocks, so that a small mover counts as much as a large one."""
        count = max(1, round(_BUSIEST * self.speed.size))
        return float(np.partition(self.speed.ravel(), -count)[-count:].mean())


def residual(first: np.ndarray, second: np.ndarray, flow: np.ndarray) -> Residual:
    """`first`, `second` grey (H, W) uint8; `flow` (H, W, 2) float32 pixels from one to the other."""
    camera = camera_motion(first, flow)
    height, width = first.shape
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    own = flow.copy()
    own[..., 0] -= camera[0, 0] * columns + camera[0, 1] * rows + camera[0, 2] - columns
    own[..., 1] -= camera[1, 0] * columns + camera[1, 1] * rows + camera[1, 2] - rows
    size = (width, height)
    moved = cv2.warpAffine(first, camera, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    inside = cv2.warpAffine(np.ones_like(first), camera, size, flags=cv2.INTER_NEAREST)
    difference = second.astype(np.float32) - moved
    # Light that changes over the whole picture is no motion: only what differs from its surroundings counts.
    difference = np.abs(difference - cv2.blur(difference, (31, 31))) * inside
    changed = _blocks(difference).mean(-1)
    threshold = max(_CHANGED, _CHANGED_FACTOR * float(np.median(changed)))
    own_speed = np.median(_blocks(np.hypot(own[..., 0], own[..., 1]) * inside), axis=-1)
    cut = bool((changed > 8 * _CHANGED).mean() > _CUT_SHARE)
    return Residual(np.where(changed > threshold, own_speed, 0).astype(np.float32), camera, cut)


def camera_motion(picture: np.ndarray, flow: np.ndarray) -> np.ndarray:
    """The similarity (2, 3) float64 that most of the flow (H, W, 2) of a grey picture (H, W) agrees with.

    Robust fit (RANSAC) to the flow where the picture has texture; without enough of it, the median flow.
    """
    height, width = picture.shape
    rows, columns = np.mgrid[_STEP : height - _STEP : _STEP, _STEP : width - _STEP : _STEP]
    texture = cv2.cornerMinEigenVal(picture, 5)[rows, columns]
    textured = texture >= max(float(np.median(texture)), 1e-6)
    start = np.stack([columns[textured], rows[textured]], -1).astype(np.float32)
    matrix = None
    if len(start) >= 8:
        end = start + flow[rows[textured], columns[textured]]
        matrix, _ = cv2.estimateAffinePartial2D(
            start, end, method=cv2.RANSAC, ransacReprojThreshold=_ROBUST_PX, maxIters=500, confidence=0.99
        )
    if matrix is None:
        shift = np.median(flow.reshape(-1, 2), axis=0)
        matrix = np.array([[1, 0, shift[0]], [0, 1, shift[1]]], np.float64)
    return matrix


def _blocks(values: np.ndarray) -> np.ndarray:
    """(H, W) -> (H // 8, W // 8, 64); what is left at the right and the bottom is dropped."""
    height, width = (side // BLOCK * BLOCK for side in values.shape)
    tiles = values[:height, :width].reshape(height // BLOCK, BLOCK, width // BLOCK, BLOCK)
    return tiles.swapaxes(1, 2).reshape(height // BLOCK, width // BLOCK, BLOCK * BLOCK)
