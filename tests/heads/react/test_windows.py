import numpy as np
import pytest

from vidtad.heads.react.windows import react_windows, retain


@pytest.mark.parametrize(
    ("n", "expected"),
    [
        (1, [(0, 1)]),
        (256, [(0, 256)]),
        (257, [(0, 256), (64, 257)]),
        (320, [(0, 256), (64, 320)]),
        (321, [(0, 256), (64, 320), (128, 321)]),
    ],
)
def test_window_edges(n: int, expected: list[tuple[int, int]]) -> None:
    assert [(w.start, w.stop) for w in react_windows(n)] == expected


def test_windows_cover_every_snippet() -> None:
    for n in range(1, 900, 7):
        covered = np.zeros(n, bool)
        for window in react_windows(n, clip_len=64, stride_rate=0.5):
            assert window.start < window.stop <= n
            covered[window] = True
        assert covered.all()


@pytest.mark.parametrize("arguments", [(0,), (10, 0), (10, 8, 0.1)])
def test_impossible_windows(arguments: tuple[float, ...]) -> None:
    with pytest.raises(ValueError):
        react_windows(*arguments)


def test_retention_is_overlap_over_instance_length() -> None:
    n, window = 512, slice(64, 320)
    starts = np.array([64.0, 44.0, 40.0, 300.0, 400.0])
    lengths = np.array([80.0, 80.0, 80.0, 40.0, 20.0])
    relative, kept = retain(np.stack([(starts + lengths / 2) / n, lengths / n], 1), window, n)
    # 80-long instances starting 20 and 24 before the window keep 0.75 and 0.70; the 40-long one keeps half.
    assert kept.tolist() == [0, 1]
    np.testing.assert_allclose(relative[:, 1] * 256, [80, 80])
    np.testing.assert_allclose((relative[:, 0] - relative[:, 1] / 2) * 256, [0, -20], atol=1e-9)


def test_single_window_keeps_everything() -> None:
    segments = np.array([[0.1, 0.5], [0.99, 0.4]])
    relative, kept = retain(segments, slice(0, 30), 30)
    assert kept.tolist() == [0, 1]
    np.testing.assert_array_equal(relative, segments)
