import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vidtad.geometry import mid_len, pairwise_iou, start_end, temporal_giou, temporal_iou

SEGMENT = st.tuples(st.floats(-50, 50), st.floats(0.01, 40)).map(lambda p: (p[0], p[0] + p[1]))


@given(st.lists(SEGMENT, min_size=1, max_size=6), st.lists(SEGMENT, min_size=1, max_size=6))
def test_pairwise_iou_is_the_scalar_formula_in_both_libraries(a, b) -> None:
    x, y = np.array(a), np.array(b)
    expected = np.zeros((len(a), len(b)))
    for i, (s, e) in enumerate(a):
        for j, (u, v) in enumerate(b):
            inside = max(0.0, min(e, v) - max(s, u))
            expected[i, j] = inside / ((e - s) + (v - u) - inside)
    np.testing.assert_allclose(pairwise_iou(x, y, epsilon=0), expected, atol=1e-9)
    np.testing.assert_allclose(
        pairwise_iou(torch.from_numpy(x), torch.from_numpy(y), epsilon=0).numpy(), expected, atol=1e-9
    )


@given(st.lists(SEGMENT, min_size=1, max_size=6))
def test_conversions_are_inverse(segments) -> None:
    x = np.array(segments)
    np.testing.assert_allclose(start_end(mid_len(x)), x, atol=1e-9)
    np.testing.assert_allclose(mid_len(start_end(torch.from_numpy(x))).numpy(), x, atol=1e-9)


@pytest.mark.parametrize(
    ("a", "b", "iou", "giou"),
    [
        ((0.0, 4.0), (0.0, 4.0), 1.0, 1.0),
        ((0.0, 4.0), (2.0, 6.0), 1 / 3, 1 / 3),
        ((0.0, 4.0), (1.0, 3.0), 0.5, 0.5),
        ((0.0, 1.0), (3.0, 4.0), 0.0, -0.5),
    ],
)
def test_known_overlaps(a, b, iou: float, giou: float) -> None:
    for make in (np.array, lambda v: torch.tensor(v, dtype=torch.float64)):
        assert float(temporal_iou(make(a), make(b), epsilon=0)) == pytest.approx(iou)
        assert float(temporal_giou(make(a), make(b), epsilon=0)) == pytest.approx(giou)


def test_giou_pulls_separate_segments_together() -> None:
    moving = torch.tensor([0.0, 0.2], requires_grad=True)
    temporal_giou(moving, torch.tensor([0.6, 0.9])).backward()
    assert moving.grad is not None and moving.grad.sum() > 0


def test_importing_geometry_leaves_torch_alone() -> None:
    import subprocess
    import sys

    code = "import sys, vidtad.geometry, vidtad.postprocess, vidtad.windows; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
