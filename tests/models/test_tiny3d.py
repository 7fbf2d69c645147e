"""The small clip network: factorised convolutions are 3D convolutions, and the extractor's form is the same net."""

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from vidtad.errors import InputError
from vidtad.extractors import PRESETS, build, random_weights
from vidtad.models.tiny3d import FEATURES, Tiny3D, _Block


def test_block_is_two_3d_convolutions():
    torch.manual_seed(0)
    block = _Block(4, 6, (2, 2)).eval()
    norms = [layer for layer in block.modules() if isinstance(layer, nn.BatchNorm2d)]
    for norm in norms:
        nn.init.uniform_(norm.running_mean, -0.5, 0.5)
        nn.init.uniform_(norm.running_var, 0.5, 2)
    maps = torch.randn(2, 4, 8, 10, 12)
    spatial, temporal = block.spatial[0].weight, block.temporal[0].weight
    x = nn.functional.conv3d(maps, spatial[:, :, None], stride=(1, 2, 2), padding=(0, 1, 1))
    x = torch.relu(_normed(x, norms[0]))
    x = nn.functional.conv3d(x, temporal[..., None], stride=(2, 1, 1), padding=(1, 0, 0))
    x = torch.relu(_normed(x, norms[1]))
    ours = block(maps.permute(0, 2, 3, 4, 1).contiguous()).permute(0, 4, 1, 2, 3)
    torch.testing.assert_close(ours, x, rtol=1e-5, atol=1e-5)


def _normed(x, norm):
    return nn.functional.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias)


def test_features_tell_time_order():
    torch.manual_seed(0)
    network = Tiny3D().eval()
    clips = torch.randn(2, 3, 16, 96, 96)
    with torch.inference_mode():
        forth, back = network.features(clips), network.features(clips.flip(2))
    assert forth.shape == (2, FEATURES)
    assert (forth >= 0).all()
    assert not torch.allclose(forth, back, atol=1e-4)


def test_extractor_is_the_network_on_normalised_frames():
    weights = random_weights("tiny3d", seed=3)
    extractor = build("tiny3d", weights)
    network = Tiny3D().eval()
    network.load_state_dict(weights, strict=False)
    rng = np.random.default_rng(0)
    frames = [extractor.prepare(rng.integers(0, 256, (120, 160, 3), dtype=np.uint8)) for _ in range(16)]
    clip = np.stack(frames)[None]
    assert clip.shape == (1, 16, 96, 96, 3)
    with torch.inference_mode():
        plain = torch.from_numpy(clip).permute(0, 4, 1, 2, 3).float()
        expected = network.features((plain - 127.5) / 63.75)
    np.testing.assert_allclose(extractor(clip), expected.numpy(), rtol=1e-4, atol=1e-5)


def test_one_window_at_a_time_gives_the_same_rows():
    extractor = build("tiny3d", random_weights("tiny3d"))
    clips = np.random.default_rng(1).integers(0, 256, (3, 16, 96, 96, 3), dtype=np.uint8)
    rows = np.concatenate([extractor(clips[index : index + 1]) for index in range(3)])
    np.testing.assert_allclose(extractor(clips), rows, rtol=1e-4, atol=1e-5)


def test_weights_of_another_network_are_refused():
    weights = random_weights("tiny3d")
    del weights["mix.weight"]
    with pytest.raises(InputError, match=r"missing: mix\.weight"):
        build("tiny3d", weights)


def test_preset_sees_the_whole_frame():
    convention = PRESETS["tiny3d"].convention
    assert convention.resize == (convention.crop, convention.crop)
    assert dataclasses.replace(convention, stride=8).width == FEATURES
