"""Split and stitch are inverse to each other."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vidtad.windows import split, stitch


@given(st.integers(1, 400), st.integers(1, 80), st.integers(1, 80))
def test_stitch_undoes_split(length: int, size: int, hop: int) -> None:
    if hop > size:
        with pytest.raises(ValueError, match="cannot split"):
            split(length, size, hop)
        return
    windows = split(length, size, hop)
    values = np.random.default_rng(length).normal(size=(length, 2))
    np.testing.assert_array_equal(stitch([values[w] for w in windows], windows, length), values)
    if length >= size:
        assert all(w.stop - w.start == size for w in windows)


def test_overlap_is_taken_from_the_deeper_window() -> None:
    windows = split(6, 4, 2)
    whole = stitch([np.full(4, 0), np.full(4, 1)], windows, 6)
    assert whole.tolist() == [0, 0, 0, 1, 1, 1]


def test_stitch_refuses_gaps() -> None:
    with pytest.raises(ValueError, match="step 2 of 3 lies in no window"):
        stitch([np.zeros(2)], [slice(0, 2)], 3)
