import dataclasses
from fractions import Fraction

import numpy as np
import pytest
import torch

from vidtad import extractors, flow
from vidtad.errors import InputError
from vidtad.extractors.flows import Picture
from vidtad.extractors.stream import feature_rows


class Mean(torch.nn.Module):
    """Two features a channel: mean of the first frame, mean of the last."""

    def features(self, clips: torch.Tensor) -> torch.Tensor:
        return torch.cat([clips[:, :, 0].mean(dim=(2, 3)), clips[:, :, -1].mean(dim=(2, 3))], dim=1)


def convention(stream: str, channels: int) -> extractors.ClipConvention:
    return extractors.ClipConvention(
        window=3,
        stride=2,
        fps=None,
        resize=32,
        crop=32,
        mean=(0.0,) * channels,
        std=(1.0,) * channels,
        channels=((stream, 2 * channels),),
        flow="farneback" if stream == "flow" else None,
    )


RGB = extractors.ClipExtractor("rgb", convention("rgb", 3), Mean())
FLOW = extractors.FlowExtractor("flow", convention("flow", 2), Mean())


@pytest.fixture(scope="module")
def frames() -> list[Picture]:
    """Ten frames of a texture that moves two pixels to the right each time, brighter by one each time."""
    noise = np.random.default_rng(0).integers(20, 200, (16, 40), dtype=np.uint8).repeat(4, 0).repeat(4, 1)
    return [
        Picture(i / 5, np.repeat(np.roll(noise[:64, :80], 2 * i, axis=1)[..., None], 3, axis=2) + i) for i in range(10)
    ]


def rows(frames: list[Picture], extractor, batch: int = 2) -> tuple[np.ndarray, np.ndarray]:
    found = list(feature_rows(frames, extractor, fps=5.0, batch=batch))
    return np.concatenate([part.values for part in found]), np.concatenate([part.times_s for part in found])


def test_flow_rows_show_the_flow_from_each_frame_to_the_next(frames) -> None:
    values, times_s = rows(frames, FLOW)
    assert values.shape == (4, 4), "nine flows of ten frames hold four windows of three at stride two"
    greys = [flow.grey(resized(frame.rgb())) for frame in frames]
    pictures = [flow.quantise(one) for one in flow.pairwise_flow(greys, flow.farneback)]
    crops = [picture[:, 4:36] for picture in pictures]
    expected = [np.concatenate([crops[2 * i].mean((0, 1)), crops[2 * i + 2].mean((0, 1))]) for i in range(4)]
    np.testing.assert_allclose(values, expected, rtol=1e-5)
    assert values[:, 0].min() > 129, "the texture moves to the right"
    np.testing.assert_allclose(times_s, (np.arange(4) * 2 + 1.5) / 5)


def resized(rgb: np.ndarray) -> np.ndarray:
    from vidtad.extractors.preprocess import resized, target_size

    return resized(rgb, target_size(*rgb.shape[:2], 32, "opencv"), "opencv")


def test_two_streams_in_one_pass_equal_each_alone(frames) -> None:
    both = extractors.TwoStream(RGB, FLOW)
    assert both.convention.channels == (("rgb", 6), ("flow", 4)) and both.convention.width == 10
    values, times_s = rows(frames, both)
    rgb, _ = rows(frames[:-1], RGB)
    flows, flow_times_s = rows(frames, FLOW)
    np.testing.assert_allclose(values, np.concatenate([rgb, flows], axis=1), rtol=1e-6)
    np.testing.assert_array_equal(times_s, flow_times_s)


def test_frames_are_read_once(frames) -> None:
    reads: list[float] = []

    class Counting(Picture):
        def rgb(self) -> np.ndarray:
            reads.append(self.time_s)
            return self.picture

    rows([Counting(frame.time_s, frame.picture) for frame in frames], extractors.TwoStream(RGB, FLOW))
    assert reads == [frame.time_s for frame in frames]


def test_streams_with_other_windows_are_refused() -> None:
    other = extractors.FlowExtractor("flow", dataclasses.replace(FLOW.convention, stride=4), Mean())
    with pytest.raises(InputError, match="differ in stride"):
        extractors.TwoStream(RGB, other)


def test_build_records_the_flow_method() -> None:
    weights = extractors.random_weights("i3d/flow", 0)
    built = extractors.build("i3d/flow", weights, flow="dis", fps=Fraction(25))
    assert isinstance(built, extractors.FlowExtractor) and built.convention.to_json()["flow"] == "dis"
    with pytest.raises(InputError, match="farneback"):
        extractors.build("i3d/flow", weights, flow="farnebak")
    with pytest.raises(InputError, match="sees no optical flow"):
        extractors.build("i3d", {}, flow="dis")
