"""Pillow's resizing on a device: the same pixels, whatever the sizes, and Pillow itself where it is not."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vidtad.extractors import preprocess, shrink
from vidtad.extractors.base import ClipConvention, ClipExtractor
from vidtad.extractors.flows import Sized
from vidtad.extractors.keyframe_stream import preparation
from vidtad.extractors.keyframes import KeyframeConvention
from vidtad.extractors.shrink import by_device, by_pillow, order_of, tap_table
from vidtad.models.tiny3d import Tiny3D

CPU = torch.device("cpu")
SIDES = st.integers(1, 90)


@given(shape=st.tuples(SIDES, SIDES), size=st.tuples(SIDES, SIDES), seed=st.integers(0, 99))
def test_every_size_to_every_size_as_pillow(shape: tuple[int, int], size: tuple[int, int], seed: int) -> None:
    picture = np.random.default_rng(seed).integers(0, 256, (*shape, 3), np.uint8)
    assert order_of(shape, size, CPU) is not None
    assert np.array_equal(by_device(picture, size, CPU), by_pillow(picture, size))


@pytest.mark.parametrize("shape", [(1080, 1920), (720, 1280), (1920, 1080), (257, 4000), (480, 853)])
def test_sizes_of_videos_as_pillow(shape: tuple[int, int]) -> None:
    size = preprocess.target_size(*shape, 256, "pillow")
    picture = np.random.default_rng(1).integers(0, 256, (*shape, 3), np.uint8)
    picture[: shape[0] // 2] = np.where(picture[: shape[0] // 2] > 127, 255, 0)  # the steepest there is
    assert order_of(shape, size, CPU) is not None
    assert np.array_equal(by_device(picture, size, CPU), by_pillow(picture, size))


@given(size=st.integers(1, 2000), count=st.integers(1, 500))
def test_weights_sum_to_one_and_read_inside(size: int, count: int) -> None:
    places, weights = tap_table(size, count)
    assert places.min() >= 0 and places.max() < size and (weights >= 0).all()
    assert (np.abs(weights.sum(1) - 2**shrink.BITS) <= weights.shape[1]).all()


@pytest.mark.filterwarnings("error")
def test_views_and_pictures_that_cannot_be_written_to() -> None:
    torch.set_warn_always(True)
    try:
        picture = np.random.default_rng(4).integers(0, 256, (60, 50, 3), np.uint8)
        picture.flags.writeable = False
        for shown in (picture, picture[:, ::-1]):
            assert np.array_equal(by_device(shown, (20, 17), CPU), by_pillow(shown, (20, 17)))
    finally:
        torch.set_warn_always(False)


def test_where_the_orders_agree_with_nothing_pillow_does_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shrink, "BITS", 7)
    order_of.cache_clear()
    shrink._taps.cache_clear()
    picture = np.random.default_rng(2).integers(0, 256, (60, 50, 3), np.uint8)
    try:
        assert order_of((60, 50), (20, 17), CPU) is None
        assert np.array_equal(by_device(picture, (20, 17), CPU), by_pillow(picture, (20, 17)))
    finally:
        order_of.cache_clear()
        shrink._taps.cache_clear()


@pytest.mark.parametrize("message", ["CUDA out of memory. Tried to allocate 2 GiB", "a kernel failed"])
def test_a_full_device_leaves_it_to_pillow_and_other_errors_are_raised(
    message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: Any) -> Any:
        raise torch.cuda.OutOfMemoryError(message) if "memory" in message else RuntimeError(message)

    order_of((60, 50), (20, 17), CPU)
    monkeypatch.setattr(shrink, "antialiased", full)
    picture = np.random.default_rng(2).integers(0, 256, (60, 50, 3), np.uint8)
    if "memory" in message:
        assert np.array_equal(by_device(picture, (20, 17), CPU), by_pillow(picture, (20, 17)))
    else:
        with pytest.raises(RuntimeError, match="kernel"):
            by_device(picture, (20, 17), CPU)


def test_extractors_flow_and_people_ask_their_device(monkeypatch: pytest.MonkeyPatch) -> None:
    settings: dict[str, Any] = {"resize": 40, "interpolation": "pillow"}
    clip = ClipConvention(
        window=8, stride=4, fps=None, crop=32, mean=(0.0,) * 3, std=(1.0,) * 3, channels=(("rgb", 128),), **settings
    )
    extractor = ClipExtractor("tiny3d", clip, Tiny3D())
    keyframe = KeyframeConvention(window=8, step=2, **settings)
    big, small = (np.random.default_rng(3).integers(0, 256, (side, side + 9, 3), np.uint8) for side in (90, 40))

    class Frame:
        time_s = 0.0

        def rgb(self) -> np.ndarray:
            return big

    asked = []

    def counted(rgb: np.ndarray, size: tuple[int, int], device: torch.device) -> np.ndarray:
        asked.append(size)
        return by_device(rgb, size, device)

    def pictures() -> list[np.ndarray]:
        sized = Sized(Frame(), clip, extractor.device).rgb()
        people = [preparation(keyframe, (), CPU)(picture)[0] for picture in (big, small)]
        return [extractor.prepare(big), extractor.prepare(small), sized, *people]

    expected = pictures()
    monkeypatch.setattr(preprocess, "by_device", counted)
    assert all(map(np.array_equal, pictures(), expected)) and not asked  # a CPU gains nothing
    monkeypatch.setattr(preprocess, "RESIZING", ("cpu",))
    assert all(map(np.array_equal, pictures(), expected))
    assert asked == [(40, 44)] * 3  # what has its size already is left alone


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_gpu_gives_the_same_pixels() -> None:
    device = torch.device("cuda")
    picture = np.random.default_rng(1).integers(0, 256, (1080, 1920, 3), np.uint8)
    assert order_of((1080, 1920), (256, 455), device) is not None
    assert np.array_equal(by_device(picture, (256, 455), device), by_pillow(picture, (256, 455)))
