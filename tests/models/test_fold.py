"""Networks made ready for inference compute what they did before."""

import copy

import pytest
import torch
from torch import nn

from vidtad import extractors
from vidtad.models.fold import (
    Planar,
    Pointwise,
    averages_in_float32,
    channels_last,
    fold_batch_norm,
    planar,
    pointwise,
)

CASES = [
    ((1, 1, 1), (1, 1, 1), 0, 1),
    ((1, 1, 1), (2, 2, 2), 0, 1),
    ((1, 3, 3), (1, 2, 2), (0, 1, 1), 1),
    ((1, 3, 3), (2, 1, 1), (0, 2, 2), (1, 2, 2)),
    ((3, 1, 1), (1, 1, 1), (1, 0, 0), 1),
    ((5, 1, 1), (4, 1, 1), (2, 0, 0), 1),
]


@pytest.mark.parametrize(("kernel", "stride", "padding", "dilation"), CASES)
@pytest.mark.parametrize("channels_first", [True, False])
def test_flat_kernels_in_two_dimensions(kernel, stride, padding, dilation, channels_first) -> None:
    torch.manual_seed(0)
    convolution = nn.Conv3d(3, 5, kernel, stride, padding, dilation)
    assert Planar.fits(convolution)
    x = torch.randn(2, 3, 9, 10, 8)
    x = x if channels_first else x.contiguous(memory_format=torch.channels_last_3d)
    found, expected = Planar(convolution)(x), convolution(x)
    assert found.shape == expected.shape
    assert found.is_contiguous(memory_format=torch.channels_last_3d)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "convolution",
    [
        nn.Conv3d(4, 4, 3, padding=1),
        nn.Conv3d(4, 4, (3, 1, 1), (1, 2, 2), (1, 0, 0)),
        nn.Conv3d(4, 4, (1, 3, 3), padding=1),
        nn.Conv3d(4, 4, 1, groups=2),
        nn.Conv3d(4, 4, (1, 3, 3), padding="same"),
        nn.Conv3d(4, 4, (1, 3, 3), padding=(0, 1, 1), padding_mode="replicate"),
        nn.Conv2d(4, 4, 1),
    ],
)
def test_other_kernels_are_left_alone(convolution) -> None:
    assert not Planar.fits(convolution)


@pytest.mark.parametrize("name", ["i3d", "slowfast/epic", "r2plus1d/tsp", "tiny3d", "r3d_18", "tsn/thumos14"])
@torch.inference_mode()
def test_every_kind_of_network(name: str) -> None:
    preset, weights = extractors.PRESETS[name], extractors.random_weights(name, 2)
    network = preset.network().eval()
    network.load_state_dict(weights)
    prepared = channels_last(planar(fold_batch_norm(network)))
    frames = {"slowfast/epic": 32, "tsn/thumos14": 1}.get(name, 16)
    clips = torch.rand(2, frames, 64, 64, 3).movedim(-1, 1) * 2 - 1
    expected = network.features(clips.contiguous())
    assert (prepared.features(clips) - expected).abs().max() <= 1e-5 * expected.abs().max()


@pytest.mark.parametrize("name", ["s3d", "slowfast/epic", "r2plus1d/tsp"])
@torch.inference_mode()
def test_short_number_formats_run(name: str) -> None:
    preset = extractors.PRESETS[name]
    network = preset.network().eval()
    network.load_state_dict(extractors.random_weights(name, 2))
    short = averages_in_float32(channels_last(planar(fold_batch_norm(network)))).bfloat16()
    clips = torch.rand(1, 32, 224, 224, 3).movedim(-1, 1) if name == "s3d" else torch.rand(1, 3, 32, 64, 64)
    expected, found = network.features(clips), short.features(clips.bfloat16()).float()
    assert (found - expected).abs().max() <= 0.05 * expected.abs().max()


def test_1x1_kernels_by_another_product_are_the_same_function() -> None:
    torch.manual_seed(3)
    original = torch.nn.Sequential(torch.nn.Conv2d(8, 16, 1, stride=2), torch.nn.Conv2d(16, 4, 3)).eval()
    made = pointwise(copy.deepcopy(original))
    assert isinstance(made[0], Pointwise) and not isinstance(made[1], Pointwise)
    maps = torch.randn(2, 8, 9, 9)
    with torch.inference_mode():
        torch.testing.assert_close(made(maps), original(maps), rtol=0, atol=1e-5)
        torch.testing.assert_close(made.bfloat16()(maps.bfloat16()).float(), original(maps), rtol=0.1, atol=0.05)
