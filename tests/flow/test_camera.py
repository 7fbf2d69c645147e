"""Flow without the camera's motion: known similarities, a known mover, light that changes."""

import cv2
import numpy as np
import pytest

from vidtad.flow import dis, farneback
from vidtad.flow.camera import camera_motion, residual


def texture(height: int = 120, width: int = 160, seed: int = 0) -> np.ndarray:
    """Grey picture (H, W) uint8 of clouds."""
    rng = np.random.default_rng(seed)
    grid = rng.uniform(30, 220, (height // 6 + 2, width // 6 + 2)).astype(np.float32)
    return np.clip(cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC), 0, 255).astype(np.uint8)


def field(matrix: np.ndarray, height: int = 120, width: int = 160) -> np.ndarray:
    """The flow (H, W, 2) float32 of a similarity (2, 3)."""
    rows, columns = np.mgrid[:height, :width].astype(np.float64)
    x = matrix[0, 0] * columns + matrix[0, 1] * rows + matrix[0, 2] - columns
    y = matrix[1, 0] * columns + matrix[1, 1] * rows + matrix[1, 2] - rows
    return np.stack([x, y], -1).astype(np.float32)


ZOOM = np.array([[1.02, -0.01, 1.5], [0.01, 1.02, -2.0]])


def test_a_known_similarity_is_found_beside_a_mover():
    flow = field(ZOOM)
    flow[40:80, 50:100] += (6, 3)
    np.testing.assert_allclose(camera_motion(texture(), flow), ZOOM, atol=2e-3)


def test_a_picture_without_texture_takes_the_median():
    flow = np.broadcast_to(np.float32([2, -1]), (120, 160, 2)).copy()
    flow[:30] = 9
    found = camera_motion(np.full((120, 160), 90, np.uint8), flow)
    np.testing.assert_allclose(found, [[1, 0, 2], [0, 1, -1]], atol=1e-6)


@pytest.mark.parametrize("mover", [False, True])
def test_only_what_moves_by_itself_is_left(mover):
    first = texture()
    second = cv2.warpAffine(first, ZOOM, (160, 120), borderMode=cv2.BORDER_REFLECT)
    if mover:
        patch = texture(32, 32, seed=1)
        first[40:72, 48:80] = patch
        second = second.copy()
        second[40:72, 53:85] = patch
    found = residual(first, second, dis(first[None], second[None])[0])
    assert not found.cut
    if not mover:
        assert found.energy() < 0.1
        return
    own = np.array([5, 0]) - (ZOOM @ (64, 56, 1) - (64, 56))
    assert found.energy() == pytest.approx(np.hypot(*own), rel=0.15)
    rows, columns = np.nonzero(found.speed > 1)
    assert rows.min() >= 4 and rows.max() <= 9 and columns.min() >= 5 and columns.max() <= 11


def test_light_that_changes_is_no_motion():
    first = texture()
    second = np.clip(first * 1.06, 0, 255).astype(np.uint8)
    assert residual(first, second, farneback(first[None], second[None])[0]).energy() < 0.1


def test_a_change_of_shot_is_seen():
    first, second = texture(seed=1), texture(seed=2)
    assert residual(first, second, farneback(first[None], second[None])[0]).cut
