import pytest
import torch
from torch import Tensor, nn

from vidtad.errors import InputError
from vidtad.models import bninception, r2plus1d, torchvision_video, tsn
from vidtad.models.fold import fold_batch_norm


def shaken(network: nn.Module) -> nn.Module:
    """`network` with random statistics in its batch norms, so that folding has something to fold."""
    torch.manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm3d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
            nn.init.uniform_(module.weight, 0.5, 1.5)
    return network.eval()


@pytest.mark.parametrize(
    ("network", "shape"),
    [
        (tsn.TsnResNet((1, 1, 1, 1)), (1, 3, 2, 64, 64)),
        (bninception.BNInception(), (1, 3, 2, 64, 64)),
        (r2plus1d.R2Plus1d((1, 1, 1, 1)), (1, 3, 8, 32, 32)),
        (torchvision_video.TorchvisionVideo("r2plus1d_18"), (1, 3, 8, 32, 32)),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else None,
)
def test_folded_network_agrees(network: nn.Module, shape: tuple[int, ...]) -> None:
    shaken(network)
    clips = torch.randn(shape)
    folded = fold_batch_norm(network)
    assert not any(isinstance(module, nn.BatchNorm2d | nn.BatchNorm3d) for module in folded.modules())
    with torch.inference_mode():
        expected, computed = network.features(clips), folded.features(clips)
    assert (computed - expected).abs().max() <= 1e-5 * expected.abs().max()


def mmaction2_name(key: str) -> str:
    key = key.replace("downsample.0.", "downsample.conv.").replace("downsample.1.", "downsample.bn.")
    for i in "123":
        key = key.replace(f".conv{i}.", f".conv{i}.conv.").replace(f".bn{i}.", f".conv{i}.bn.")
    return f"cls_head.{key}" if key.startswith("fc_cls") else key


def test_tsn_reads_mmaction2_names_and_its_sizes_from_the_weights() -> None:
    network = tsn.TsnResNet(tsn.DEPTHS[101], in_channels=10, num_classes=7)
    published = {mmaction2_name(key): value for key, value in network.state_dict().items()}
    assert "backbone.layer1.0.downsample.bn.weight" in published and "cls_head.fc_cls.bias" in published
    loaded = tsn.load(published)
    assert loaded.in_channels == 10 and len(loaded.backbone.layer3) == 23
    assert all(torch.equal(a, b) for a, b in zip(loaded.parameters(), network.parameters(), strict=True))
    published["cls_head.fc_cls.extra"] = torch.zeros(1)
    with pytest.raises(InputError, match=r"unused: fc_cls\.extra"):
        tsn.load(published)


def test_tsn_flow_snippets_interleave_x_and_y() -> None:
    seen: list[Tensor] = []
    network = tsn.TsnResNet((1, 1, 1, 1), in_channels=10).eval()
    network.snippet_features = lambda images: seen.append(images) or torch.zeros(len(images), tsn.FEATURES)
    flow = torch.arange(2.0)[None, :, None, None, None] + 2 * torch.arange(10.0)[None, None, :, None, None]
    assert network.features(flow.expand(1, 2, 10, 1, 1)).shape == (1, 2048)
    assert seen[0].flatten(1).tolist() == [list(range(10)), list(range(10, 20))]


def test_bninception_reads_every_published_layout() -> None:
    network = bninception.BNInception(10, 6)
    own = {key: value for key, value in network.state_dict().items() if "num_batches" not in key}
    row = {key: value[None] if "_bn." in key else value for key, value in own.items()}
    imagenet = {key.replace("last_linear", "fc"): value for key, value in row.items()}
    trained = {
        f"module.{key.replace('last_linear', 'new_fc')}" if "last_linear" in key else f"module.base_model.{key}": value
        for key, value in own.items()
    }
    for published in (own, imagenet, trained):
        loaded = bninception.load(published).state_dict()
        assert all(torch.equal(loaded[key], value) for key, value in own.items())
    without = {key: value for key, value in own.items() if "last_linear" not in key}
    assert not hasattr(bninception.load(without), "last_linear")


def test_bninception_takes_rgb_frames_and_feeds_bgr() -> None:
    network = bninception.BNInception(3, 0).eval()
    frame = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        expected = network.image_features(frame[:, [2, 1, 0]])
        assert torch.allclose(network.features(frame[:, :, None]), expected)
        with pytest.raises(InputError, match="multiples of 32"):
            network.trunk(torch.rand(1, 3, 240, 320))


@pytest.mark.parametrize(("inputs", "outputs", "width"), [(64, 64, 144), (64, 128, 230), (256, 512, 921)])
def test_middle_width_of_each_convolution(inputs: int, outputs: int, width: int) -> None:
    assert r2plus1d.middle_width(inputs, outputs) == width


def test_r2plus1d_reads_tsp_and_ig65m_names() -> None:
    network = r2plus1d.R2Plus1d((1, 2, 1, 1), {"fc": (512, 487)})
    own = network.state_dict()
    flat = {key.removeprefix("trunk.").removeprefix("heads."): value for key, value in own.items()}
    tsp = {key if key.startswith("fc") else f"features.{key}": value for key, value in flat.items()}
    for published in (flat, tsp):
        loaded = r2plus1d.load(published)
        assert len(loaded.trunk.layer2) == 2 and loaded.heads["fc"].out_features == 487
        assert all(torch.equal(loaded.state_dict()[key], value) for key, value in own.items())
    with pytest.raises(InputError, match=r"missing: trunk\.stem"):
        r2plus1d.load({key: value for key, value in flat.items() if "stem" not in key})


@pytest.mark.parametrize("name", ["r3d_18", "s3d", "swin3d_t"])
def test_torchvision_networks_load_their_own_files_and_keep_their_scores(name: str) -> None:
    original = getattr(torchvision_video.video, name)(weights=None, num_classes=3).eval()
    network = torchvision_video.load(name, original.state_dict()).eval()
    side = 224 if name == "s3d" else 64
    clips = torch.randn(1, 3, 16, side, side)
    with torch.inference_mode():
        features = network.features(clips)
        assert features.shape == (1, torchvision_video.NETWORKS[name][0])
        torch.testing.assert_close(network.classify(features), original(clips))
    torchvision_video.load(name, network.state_dict())


def test_unknown_torchvision_name_lists_the_known_ones() -> None:
    with pytest.raises(InputError, match="swin3d_t"):
        torchvision_video.load("x3d", {})
