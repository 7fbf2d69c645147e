"""Which frames and boxes a keyframe gets, and the stream that makes clips of them."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vidtad.errors import InputError
from vidtad.extractors import keyframes as kf
from vidtad.extractors.keyframe_stream import KeyframeClips, every, preparation

SMALL = kf.KeyframeConvention(window=8, step=2, fps=Fraction(4), resize=(2, 3), interpolation="opencv-floor")


@dataclass
class Counted:
    """A frame whose pixels are its number; `log` receives the number of every conversion."""

    index: int
    picture: object
    log: list[int]

    def rgb(self) -> np.ndarray:
        self.log.append(self.index)
        return np.full((4, 6, 3), self.index, np.uint8)


def stream(count: int, log: list[int]) -> Iterator[Counted]:
    return (Counted(number, object(), log) for number in range(count))


@settings(max_examples=150)
@given(
    st.integers(1, 60),
    st.integers(1, 12),
    st.integers(1, 4),
    st.lists(st.integers(0, 70), min_size=1, max_size=12, unique=True).map(sorted),
)
def test_streamed_clips_are_the_clamped_windows_and_no_frame_is_converted_twice(
    count: int, half: int, step: int, centres: list[int]
) -> None:
    convention, log = replace(SMALL, window=2 * half, step=step), []
    times = [centre / 4 for centre in centres]
    clips = KeyframeClips(stream(count, log), times, convention)
    found = list(clips)
    expected = [centre for centre in centres if centre < count]
    assert [key.time_s for key in found] == [centre / 4 for centre in expected]
    assert clips.beyond == len(centres) - len(expected)
    for key, centre in zip(found, expected, strict=True):
        numbers = kf.clamped_window(centre, half, step, count)
        assert key.clips[0].shape == (convention.shown, 2, 3, 3)
        assert key.clips[0][:, 0, 0, 0].tolist() == numbers.tolist()
        assert (key.picture == centre).all() and key.picture.shape == (4, 6, 3)
    assert len(log) == len(set(log)), "a frame was converted twice"


def test_endless_seconds_end_with_the_video_and_memory_stays_bounded() -> None:
    log: list[int] = []
    clips = KeyframeClips(stream(200, log), every(1.0), SMALL)
    most, seen = 0, []
    for key in clips:
        most = max(most, len(clips._kept))
        seen.append(key.time_s)
    assert seen == [float(second) for second in range(50)] and clips.beyond == 0
    assert most <= SMALL.window
    assert len(log) == 101, "every second frame, and the last one for padding"


def test_repeated_pictures_are_prepared_once() -> None:
    log: list[int] = []
    shared = [object() for _ in range(10)]
    frames = [Counted(number, shared[number // 4], log) for number in range(40)]
    prepared = []

    def prepare(rgb: np.ndarray) -> tuple[np.ndarray, ...]:
        prepared.append(rgb[0, 0, 0])
        return (rgb[:1, :1],)

    list(KeyframeClips(frames, [float(k) for k in range(10)], SMALL, prepare))
    assert len(prepared) == len(set(prepared)) == 10


def test_several_sizes_at_once() -> None:
    log: list[int] = []
    prepare = preparation(replace(SMALL, resize=2), [2, 4, 8])
    (key,) = KeyframeClips(stream(9, log), [1.0], replace(SMALL, resize=2), prepare)
    assert [clip.shape[1:3] for clip in key.clips] == [(2, 3), (4, 6), (8, 12)]


def test_keyframes_out_of_order_are_refused() -> None:
    with pytest.raises(InputError, match="order of time"):
        list(KeyframeClips(stream(9, []), [1.0, 0.5], SMALL))


def test_no_frames_no_keyframes() -> None:
    assert list(KeyframeClips(stream(0, []), every(1.0), SMALL)) == []


@given(st.floats(0.05, 0.5), st.integers(0, 2**32 - 1))
def test_jitter_moves_sides_by_a_share_of_the_box(scale: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    low = rng.uniform(0, 0.5, (6, 2))
    boxes = np.concatenate([low, low + rng.uniform(0.1, 0.5, (6, 2))], axis=1)
    moved = kf.jittered(boxes, scale, rng)
    size = np.tile(boxes[:, 2:] - boxes[:, :2], 2)
    assert (np.abs(moved - boxes) <= scale * size + 1e-12).all()
    assert (moved[:, :2] >= 0).all() and (moved[:, 2:] <= 1).all()


def test_pixels_of_the_network_follow_the_long_side() -> None:
    boxes = np.array([[0.0, 0.0, 1.0, 1.0], [0.5, 0.5, 0.75, 0.75]])
    found = kf.in_network_pixels(boxes, (340, 453), (256, 341))
    np.testing.assert_allclose(found[0], [0, 0, 340, 255])
    np.testing.assert_allclose(found[1], np.array([226.5, 170, 339.75, 255]) * 341 / 453)
    tall = kf.in_network_pixels(boxes[1:], (453, 340), (341, 256))
    np.testing.assert_allclose(tall[0], np.array([170, 226.5, 255, 339.75]) * 341 / 453)


def test_wrong_conventions_are_refused() -> None:
    with pytest.raises(InputError, match="above 0"):
        kf.KeyframeConvention(window=0)
    with pytest.raises(InputError, match="interpolation"):
        kf.KeyframeConvention(interpolation="magic")
