"""Windows of one stream computed together are each window by itself."""

import pytest
import torch

from vidtad import extractors
from vidtad.models import i3d_windows
from vidtad.models.fold import channels_last, fold_batch_norm, planar


@pytest.fixture(scope="module")
def published() -> torch.nn.Module:
    return extractors.PRESETS["i3d"].load(extractors.random_weights("i3d", 5)).eval()


@pytest.fixture(scope="module")
def folded(published) -> torch.nn.Module:
    return channels_last(planar(fold_batch_norm(published)))


def stream(frames: int, side: int = 64) -> torch.Tensor:
    generator = torch.Generator().manual_seed(frames)
    return torch.rand(frames, side, side, 3, generator=generator).movedim(-1, 0) * 2 - 1


@pytest.mark.parametrize(("window", "starts"), [(16, [0, 4, 8]), (16, [2, 4, 10]), (12, [0, 6]), (32, [0, 2])])
@torch.inference_mode()
def test_shared_windows_equal_each_alone(published, folded, monkeypatch, window: int, starts: list[int]) -> None:
    frames = stream(starts[-1] + window + 1)
    calls = []
    original = i3d_windows._early
    monkeypatch.setattr(i3d_windows, "_early", lambda *args: calls.append(args) or original(*args))
    for network in (folded, published):
        found = network.window_features(frames, starts, window)
        alone = torch.cat([published.features(frames[None, :, s : s + window]) for s in starts])
        assert (found - alone).abs().max() <= 1e-5 * alone.abs().max()
    # Frames in the windows' interior went through the first convolution once, whatever the number of windows.
    assert calls[0][1].shape[:3] == (1, 3, starts[-1] - starts[0] + window)


@torch.inference_mode()
def test_more_windows_than_are_held_together(folded) -> None:
    starts = list(range(0, 4 * (i3d_windows.AT_A_TIME + 2), 4))
    frames = stream(starts[-1] + 16, 32)
    found = folded.window_features(frames, starts, 16)
    alone = torch.cat([folded.features(frames[None, :, s : s + 16]) for s in starts])
    assert (found - alone).abs().max() <= 1e-5 * alone.abs().max()


@pytest.mark.parametrize(("starts", "window"), [([0], 16), ([0, 16], 16), ([0, 3], 16), ([0, 4], 9), ([4, 0], 16)])
def test_windows_that_share_nothing_are_left_to_the_usual_path(folded, starts, window) -> None:
    assert folded.window_features(stream(40, 32), starts, window) is None


@pytest.mark.parametrize("stride", [3, 4, 16])
def test_rows_of_an_extractor_do_not_depend_on_the_path(stride: int) -> None:
    weights = extractors.random_weights("i3d", 5)
    i3d = extractors.build("i3d", weights, stride=stride)
    pictures = torch.randint(0, 256, (2 * stride + 16, 48, 48, 3), generator=torch.Generator().manual_seed(1))
    pictures = pictures.to(torch.uint8).numpy()
    index = torch.arange(16)[None] + stride * torch.arange(3)[:, None]
    together = i3d.rows(pictures, index.numpy())
    alone = torch.cat([i3d.rows(pictures, index[i : i + 1].numpy()) for i in range(3)])
    assert (together - alone).abs().max() <= 1e-5 * alone.abs().max()


@torch.inference_mode()
def test_every_map_stays_channels_last(folded) -> None:
    x = stream(16, 224)[None]
    assert x.is_contiguous(memory_format=torch.channels_last_3d)
    for name, maps in folded.run(x).items():
        assert maps.is_contiguous(memory_format=torch.channels_last_3d), name
