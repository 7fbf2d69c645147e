import numpy as np
import pytest
import torch
import torch.nn.functional as F

from vidtad.errors import InputError
from vidtad.hub.reading import read_state_dict
from vidtad.models import i3d
from vidtad.models.fold import fold_batch_norm

HASSONY2 = {
    "b0": "branch_0",
    "b1a": "branch_1.0",
    "b1b": "branch_1.1",
    "b2a": "branch_2.0",
    "b2b": "branch_2.1",
}


@pytest.fixture(scope="module")
def network() -> i3d.InceptionI3d:
    torch.manual_seed(0)
    network = i3d.InceptionI3d(2, 5).eval()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm3d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    return network


def hassony2_name(key: str) -> str:
    layer, _, rest = key.partition(".")
    rest = rest.replace("bn.", "batch3d.")
    if layer.startswith("Mixed"):
        branch, _, tail = rest.partition(".")
        rest = f"{HASSONY2.get(branch, 'branch_3.1')}.{tail}"
    return f"{'conv3d_0c_1x1' if layer == 'logits' else layer.lower()}.{rest}"


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "expected"),
    [
        (224, 7, 2, (2, 3)),
        (99, 7, 2, (3, 3)),
        (28, 3, 2, (0, 1)),
        (13, 3, 2, (1, 1)),
        (7, 2, 2, (0, 1)),
        (9, 1, 1, (0, 0)),
    ],
)
def test_same_padding(size: int, kernel: int, stride: int, expected: tuple[int, int]) -> None:
    assert i3d.same_padding(size, kernel, stride) == expected


@pytest.mark.parametrize("size", [(4, 7, 8), (5, 6, 9), (1, 2, 3)])
@pytest.mark.parametrize(("kernel", "stride"), [((3, 3, 3), (2, 2, 2)), ((1, 3, 3), (1, 2, 2)), ((2, 2, 2), (2, 2, 2))])
def test_pool_equals_explicit_zero_padding(size, kernel, stride) -> None:
    x = torch.rand(2, 3, *size)
    pads = [i3d.same_padding(*axis) for axis in zip(size, kernel, stride, strict=True)]
    padded = F.pad(x, [side for pair in reversed(pads) for side in pair])
    expected = F.max_pool3d(padded, kernel, stride)
    torch.testing.assert_close(i3d.SamePool3d(kernel, stride)(x), expected, rtol=0, atol=0)


def test_end_points_and_feature_of_a_map_smaller_than_the_pool(network) -> None:
    clips = torch.randn(2, 2, 9, 33, 47)
    with torch.inference_mode():
        maps = network.run(clips)
        feature = network.features(clips)
    assert next(iter(maps)) == "Conv3d_1a_7x7" and list(maps)[-1] == "Mixed_5c" and len(maps) == 16
    assert maps["Mixed_5c"].shape == (2, 1024, 2, 2, 2)
    torch.testing.assert_close(feature, maps["Mixed_5c"].mean(dim=(2, 3, 4)))
    assert network(clips).shape == (2, 5)


def test_pool_takes_2x7x7_windows() -> None:
    maps = torch.rand(1, 4, 3, 7, 8)
    pooled = i3d.InceptionI3d.pool(maps)
    expected = [[maps[0, c, t : t + 2, :, w : w + 7].mean() for w in (0, 1)] for c in (2,) for t in (0, 1)]
    assert pooled.shape == (1, 4, 2)
    torch.testing.assert_close(pooled[0, 2], torch.tensor(expected).mean(dim=1))


def test_a_clip_under_nine_frames_is_refused() -> None:
    with pytest.raises(InputError, match="at least 9 frames"):
        i3d.InceptionI3d.pool(torch.zeros(1, 1024, 1, 7, 7))


def test_both_published_layouts_load_to_the_same_network(network) -> None:
    own = network.state_dict()
    without_counters = {key: value for key, value in own.items() if not key.endswith("num_batches_tracked")}
    assert len(without_counters) == 287
    other = {hassony2_name(key): value for key, value in own.items()}
    assert set(other).isdisjoint(own)
    for state_dict in (own, without_counters, other):
        loaded = i3d.load(state_dict).state_dict()
        assert all(torch.equal(loaded[key], own[key]) for key in without_counters)


def tensorflow_variable(key: str, tensor: torch.Tensor, prefix: str) -> tuple[str, np.ndarray] | None:
    """Name and value of a tensor in DeepMind's checkpoints, which have neither gamma nor step counters."""
    layers = {"conv3d.weight": "conv_3d/w", "conv3d.bias": "conv_3d/b", "bn.bias": "batch_norm/beta"}
    layers |= {"bn.running_mean": "batch_norm/moving_mean", "bn.running_var": "batch_norm/moving_variance"}
    unit, layer = (".".join(part) for part in (key.split(".")[:-2], key.split(".")[-2:]))
    if layer not in layers:
        return None
    end_point, _, branch = unit.partition(".")
    if branch:
        size = "3x3" if branch in ("b1b", "b2b") else "1x1"
        letter = "b" if branch in ("b1b", "b2b", "b3b") and unit != "Mixed_5b.b2b" else "a"
        end_point = f"{end_point}/Branch_{branch[1]}/Conv3d_0{letter}_{size}"
    end_point = "Logits/Conv3d_0c_1x1" if end_point == "logits" else end_point
    value = tensor.numpy()
    if layer == "conv3d.weight":
        value = np.transpose(value, (2, 3, 4, 1, 0))
    elif layer != "conv3d.bias":
        value = value.reshape(1, 1, 1, 1, -1)
    return f"{prefix}{end_point}/{layers[layer]}", value


@pytest.mark.parametrize("prefix", ["RGB/inception_i3d/", "Flow/inception_i3d/", ""])
def test_tensorflows_variables_load_to_the_same_network(network, tmp_path, prefix: str) -> None:
    own = {key: value.clone() for key, value in network.state_dict().items()}
    for key in own:
        if key.endswith("bn.weight"):
            own[key].fill_(1)
    pairs = [tensorflow_variable(key, value, prefix) for key, value in own.items()]
    variables = dict(pair for pair in pairs if pair)
    assert len(variables) == 57 * 4 + 2
    assert f"{prefix}Mixed_5b/Branch_2/Conv3d_0a_3x3/conv_3d/w" in variables
    assert variables[f"{prefix}Conv3d_1a_7x7/conv_3d/w"].shape[:3] == (7, 7, 7)
    np.savez(tmp_path / "i3d.npz", **variables)
    loaded = i3d.load(read_state_dict(tmp_path / "i3d.npz", "tensorflow")).state_dict()
    for key, value in own.items():
        assert key.endswith("num_batches_tracked") or torch.equal(loaded[key], value), key
    variables[f"{prefix}Mixed_5b/Branch_9/Conv3d_0a_3x3/conv_3d/w"] = np.zeros((1, 1, 1, 1, 1))
    with pytest.raises(InputError, match=r"unused: .*Branch_9"):
        i3d.load({key: torch.tensor(value) for key, value in variables.items()})


def test_loading_lists_what_is_missing_unused_or_of_another_shape(network) -> None:
    weights = dict(network.state_dict())
    weights["Mixed_9z.weight"] = weights.pop("Mixed_3b.b0.conv3d.weight")
    weights["logits.conv3d.bias"] = torch.zeros(6)
    with pytest.raises(InputError) as caught:
        i3d.load(weights)
    message = str(caught.value)
    assert "missing: Mixed_3b.b0.conv3d.weight" in message
    assert "unused: Mixed_9z.weight" in message
    assert "logits.conv3d.bias [6] instead of [5]" in message


def test_folded_network_agrees(network) -> None:
    clips = torch.randn(1, 2, 9, 64, 70)
    folded = fold_batch_norm(network)
    assert not any(isinstance(module, torch.nn.BatchNorm3d) for module in folded.modules())
    with torch.inference_mode():
        expected, computed = network.features(clips), folded.features(clips)
    assert (computed - expected).abs().max() <= 1e-5 * expected.abs().max()
    assert isinstance(network.Conv3d_1a_7x7.bn, torch.nn.BatchNorm3d)


@pytest.mark.parametrize("size", [(4, 14, 14), (1, 7, 5), (2, 2, 2), (3, 1, 9)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_maxima_axis_by_axis_are_those_of_the_pool(size: tuple[int, int, int], dtype: torch.dtype) -> None:
    maps = torch.rand(2, 8, *size, generator=torch.Generator().manual_seed(1)).to(dtype)
    maps = maps.contiguous(memory_format=torch.channels_last_3d)
    found = i3d.largest_neighbours(maps)
    assert torch.equal(found, torch.nn.functional.max_pool3d(maps, 3, 1, 1))
    assert found.stride() == maps.stride()
