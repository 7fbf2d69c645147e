"""Windows over a frame stream: the right frames, the right times, nothing decoded or prepared twice."""

from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vidtad.extractors.base import ClipConvention
from vidtad.extractors.stream import clips, feature_rows, prefetch

CONVENTION = ClipConvention(
    window=16,
    stride=4,
    fps=None,
    resize=4,
    crop=4,
    mean=(0.0, 0.0, 0.0),
    std=(1.0, 1.0, 1.0),
    channels=(("rgb", 1),),
)


@dataclass
class Numbered:
    """A frame whose picture is its own number; counts conversions."""

    number: int
    time_s: float
    converted: list[int]

    def rgb(self) -> np.ndarray:
        self.converted.append(self.number)
        return np.full((4, 4, 3), self.number, dtype=np.int64)


def stream(count: int, fps: float = 25.0) -> tuple[list[Numbered], list[int]]:
    converted: list[int] = []
    return [Numbered(i, i / fps, converted) for i in range(count)], converted


class FirstAndLast:
    """Stands in for a network: a row is the window's first and last frame number."""

    name = "first and last"
    convention = replace(CONVENTION, channels=(("rgb", 2),))
    device = torch.device("cpu")

    def frames(self, frames, wanted):
        return frames

    def prepare(self, rgb: np.ndarray) -> np.ndarray:
        return rgb

    def rows(self, pictures: np.ndarray, index: np.ndarray) -> torch.Tensor:
        assert len(np.unique(pictures[:, 0, 0, 0])) == len(pictures), "no frame is there twice"
        return torch.from_numpy(pictures[index[:, [0, -1]], 0, 0, 0].astype(np.float32))


@given(st.integers(1, 120), st.integers(1, 20), st.integers(1, 30), st.integers(0, 9))
def test_windows_are_the_published_ones(count: int, window: int, stride: int, skip: int) -> None:
    convention = replace(CONVENTION, window=window, stride=stride)
    frames, converted = stream(count)
    found = list(clips(frames, convention, lambda rgb: rgb, fps=25.0, skip=skip))
    total = (count - window) // stride + 1 if count >= window else 1
    assert len(found) == max(0, total - skip)
    for number, clip in enumerate(found, start=skip):
        expected = np.minimum(np.arange(number * stride, number * stride + window), count - 1)
        np.testing.assert_array_equal(clip.pictures[:, 0, 0, 0], expected)
        if count >= window:
            assert clip.centre_s == pytest.approx((number * stride + window / 2) / 25)
    assert len(converted) == len(set(converted))
    shown = {n for k in range(skip, (count - 1) // stride + 1) for n in range(k * stride, k * stride + window)}
    assert set(converted) <= shown


@given(st.integers(1, 80), st.integers(1, 12), st.integers(1, 15), st.data())
def test_ranges_are_parts_of_the_whole(count: int, window: int, stride: int, data: st.DataObject) -> None:
    tail = data.draw(st.integers(0, window - 1))
    convention = replace(CONVENTION, window=window, stride=stride, tail=tail)
    whole = list(clips(stream(count)[0], convention, lambda rgb: rgb, fps=25.0))
    full = max(0, (count - window) // stride + 1)
    first = data.draw(st.integers(0, max(0, full - 1)))
    stop = data.draw(st.one_of(st.none(), st.integers(first + 1, full))) if full else None
    end = None if stop is None else (stop - 1) * stride + window + data.draw(st.integers(0, stride))
    begin = data.draw(st.integers(max(0, first * stride - 3), first * stride))
    frames = list(stream(count)[0])[begin:end]
    found = list(clips(frames, convention, lambda rgb: rgb, fps=25.0, skip=first, first=begin, stop=stop))
    expected = whole[first:stop]
    assert [(c.numbers, c.centre_s, c.padded) for c in found] == [(c.numbers, c.centre_s, c.padded) for c in expected]
    assert all(np.array_equal(c.pictures, w.pictures) for c, w in zip(found, expected, strict=True))


@given(st.integers(1, 60), st.integers(1, 12), st.integers(1, 15), st.integers(0, 5), st.data())
def test_picked_frames_alone_are_converted(count, window, stride, skip, data) -> None:
    tail = data.draw(st.integers(0, window - 1))
    picks = tuple(sorted(data.draw(st.sets(st.integers(0, window - 1), min_size=1))))
    convention = replace(CONVENTION, window=window, stride=stride, picks=picks, tail=tail)
    frames, converted = stream(count)
    found = list(clips(frames, convention, lambda rgb: rgb, fps=25.0, skip=skip))
    starts = [s for s in range(0, count, stride) if s + window <= count + tail] or [0]
    expected = [[min(s + pick, count - 1) for pick in picks] for s in starts[skip:]]
    assert [clip.pictures[:, 0, 0, 0].tolist() for clip in found] == expected
    assert len(converted) == len(set(converted))
    reached = {s + pick for s in range(skip * stride, count, stride) for pick in picks}
    assert set(converted) <= reached | {count - 1}
    for start, clip in zip(starts[skip:], found, strict=True):
        if count + tail >= window:
            assert clip.centre_s == pytest.approx((start + window / 2) / 25)


def test_a_variable_rate_window_carries_its_own_time() -> None:
    frames = [Numbered(i, t, []) for i, t in enumerate([0.0, 0.1, 0.5, 0.6, 2.0, 2.1])]
    convention = replace(CONVENTION, window=4, stride=2)
    assert [clip.centre_s for clip in clips(frames, convention, lambda rgb: rgb, fps=10.0)] == [0.5, 2.0]


def test_a_short_video_is_padded_and_says_so() -> None:
    frames, _ = stream(5)
    (clip,) = clips(frames, CONVENTION, lambda rgb: rgb, fps=25.0)
    assert clip.padded == 11
    assert clip.pictures[:, 0, 0, 0].tolist() == [0, 1, 2, 3] + [4] * 12
    assert clip.centre_s == pytest.approx(0.1)


@pytest.mark.parametrize("batch", [1, 3, 8, 100])
def test_batches_do_not_change_rows(batch: int) -> None:
    frames, _ = stream(61)
    rows = list(feature_rows(frames, FirstAndLast(), fps=25.0, batch=batch))  # type: ignore[arg-type]
    values = np.concatenate([r.values for r in rows])
    assert values.tolist() == [[4.0 * k, 4.0 * k + 15] for k in range(12)]
    assert rows[-1].frames_read == 61
    assert all(len(r.values) == len(r.times_s) <= batch for r in rows)


def test_an_error_of_the_source_reaches_the_consumer() -> None:
    def broken():
        yield from stream(20)[0]
        raise RuntimeError("the disk went away")

    with pytest.raises(RuntimeError, match="disk went away"):
        list(feature_rows(broken(), FirstAndLast(), fps=25.0))  # type: ignore[arg-type]


def test_prefetch_stays_within_its_depth_and_stops_when_closed() -> None:
    made: list[int] = []

    def source():
        for i in range(1000):
            made.append(i)
            yield i

    items = prefetch(source(), depth=3)
    assert next(items) == 0
    items.close()
    assert len(made) <= 6


def test_convention_refuses_nonsense() -> None:
    with pytest.raises(Exception, match="at least 1 frame"):
        replace(CONVENTION, stride=0)
    with pytest.raises(Exception, match="above 0"):
        replace(CONVENTION, fps=Fraction(0))
