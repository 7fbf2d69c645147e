from dataclasses import replace

import pytest
import torch
from torch import nn

from vidtad.errors import InputError
from vidtad.models import slowfast, slowfast_keys
from vidtad.models.fold import fold_batch_norm

SHAPE = slowfast.SlowFastShape(
    kernels=(((1, 1), (3, 3)), ((1,), (3,)), ((3, 1), (3, 1)), ((3,), (3,))),
    width=16,
    fusion_kernel=5,
    nonlocal_blocks={(4, 0, 1): 8},
    heads={"projection": (16 * 36, 7, True)},
)


def small(shape: slowfast.SlowFastShape = SHAPE, **options) -> slowfast.SlowFast:
    torch.manual_seed(0)
    network = slowfast.SlowFast(shape, slowfast.SlowFastOptions(**options)).eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm3d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    return network


def test_slow_frames_by_both_rules() -> None:
    assert slowfast.slow_index(32, 4).tolist() == [0, 4, 8, 13, 17, 22, 26, 31]
    assert slowfast.slow_index(32, 4, "stride").tolist() == list(range(0, 32, 4))
    with pytest.raises(InputError, match="span or stride"):
        slowfast.SlowFastOptions(slow_frames="middle")


def test_structure_is_read_from_the_weights() -> None:
    network = small()
    assert slowfast.shape_of(network.state_dict()) == SHAPE
    loaded = slowfast.load(network.state_dict()).eval()
    clips = torch.randn(1, 3, 16, 64, 64)
    with torch.inference_mode():
        assert torch.equal(loaded.features(clips), network.features(clips))
        slow, fast = network(clips)
        assert slow.shape == (1, 512, 4, 2, 2) and fast.shape == (1, 64, 16, 2, 2)
        assert network.classify(network.features(clips)).shape == (1, 7)


def test_detection_keeps_res5_at_stride_16_with_the_same_weights() -> None:
    clips = torch.randn(1, 3, 8, 64, 96)
    network = slowfast.load(small().state_dict(), slowfast.DETECTION).eval()
    with torch.inference_mode():
        slow, fast = network(clips)
    assert slow.shape[2:] == (2, 4, 6) and fast.shape[2:] == (8, 4, 6)


def test_folded_network_agrees() -> None:
    network, clips = small(), torch.randn(1, 3, 8, 64, 64)
    folded = fold_batch_norm(network)
    assert not any(isinstance(module, nn.BatchNorm3d) for module in folded.modules())
    with torch.inference_mode():
        expected, computed = network.features(clips), folded.features(clips)
    assert (computed - expected).abs().max() <= 1e-5 * expected.abs().max()


def acar_name(key: str) -> str:
    stage, _, rest = key.partition(".")
    if stage.endswith("_fuse"):
        return f"Tconv{stage[1]}.{rest.replace('conv_f2s.', '0.').replace('bn.', '1.')}"
    path = ("slow", "fast")[int(rest[7])]
    rest = rest[8:]
    if stage == "s1":
        return f"{path}_{rest.replace('_stem.conv.', 'conv1.').replace('_stem.bn.', 'bn1.')}"
    number, _, rest = rest.removeprefix("_res").partition(".")
    rest = rest.replace("branch1.", "downsample.0.").replace("branch1_bn.", "downsample_bn.")
    for i, letter in enumerate("abc", start=1):
        rest = rest.replace(f"branch2.{letter}.", f"conv{i}.").replace(f"branch2.{letter}_bn.", f"bn{i}.")
    return f"{path}_res{int(stage[1]) - 1}.{number}.{rest}"


def test_acar_files_bare_or_whole() -> None:
    network = small(replace(SHAPE, nonlocal_blocks={}, heads={}))
    bare = {acar_name(key): value for key, value in network.state_dict().items()}
    whole = {f"module.backbone.module.{key}": value for key, value in bare.items()}
    whole["module.head.module.fc1.weight"] = torch.zeros(2, 2)
    for published in (bare, whole):
        loaded = slowfast.load(published).state_dict()
        assert all(torch.equal(loaded[key], value) for key, value in network.state_dict().items())
    assert list(slowfast_keys.split_acar(whole)[1]) == ["fc1.weight"]


def test_caffe2_names_missing_axes_and_solver_state() -> None:
    blobs = {
        "t_res4_22_branch2c_bn_subsample_w": torch.zeros(8, 4, 5).numpy(),
        "nonlocal_conv4_6_theta_w": torch.zeros(2, 4).numpy(),
        "nonlocal_conv4_6_bn_riv": torch.zeros(4).numpy(),
        "t_res5_0_branch2a_bn_rm": torch.zeros(4).numpy(),
        "pred_w": torch.zeros(3, 4).numpy(),
        "conv1_w_momentum": torch.zeros(1).numpy(),
        "lr": torch.zeros(1).numpy(),
    }
    renamed = {key: tuple(value.shape) for key, value in slowfast_keys.from_caffe2(blobs).items()}
    assert renamed == {
        "s4_fuse.conv_f2s.weight": (8, 4, 5, 1, 1),
        "s4.pathway0_nonlocal6.conv_theta.weight": (2, 4, 1, 1, 1),
        "s4.pathway0_nonlocal6.bn.running_var": (4,),
        "s5.pathway1_res0.branch2.a_bn.running_mean": (4,),
        "head.projection.weight": (3, 4),
    }


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("backbone.slow_path.conv1_lateral.conv.weight", "s1_fuse.conv_f2s.weight"),
        ("backbone.slow_path.layer3_lateral.conv.weight", "s4_fuse.conv_f2s.weight"),
        ("backbone.fast_path.layer4.2.conv3.bn.bias", "s5.pathway1_res2.branch2.c_bn.bias"),
        ("backbone.slow_path.layer1.0.downsample.conv.weight", "s2.pathway0_res0.branch1.weight"),
        ("roi_head.bbox_head.fc_cls.bias", "head.projection.bias"),
    ],
)
def test_mmaction2_names(theirs: str, ours: str) -> None:
    assert list(slowfast_keys.from_mmaction2({theirs: torch.zeros(1)})) == [ours]


def test_pytorchvideo_detection_names() -> None:
    keys = ["model.blocks.3.multipathway_blocks.1.res_blocks.5.branch2.norm_b.bias", "model.detection_head.proj.bias"]
    renamed = slowfast_keys.from_pytorchvideo(dict.fromkeys(keys, torch.zeros(1)))
    assert list(renamed) == ["s4.pathway1_res5.branch2.b_bn.bias", "head.projection.bias"]


def test_other_weights_are_refused_in_one_sentence() -> None:
    with pytest.raises(InputError, match="no known SlowFast layout"):
        slowfast.load({"conv1.weight": torch.zeros(1)})
    weights = dict(small().state_dict())
    del weights["s3.pathway1_res0.branch2.c.weight"]
    with pytest.raises(InputError, match=r"missing: s3\.pathway1_res0\.branch2\.c\.weight"):
        slowfast.load(weights)


def test_nonlocal_dot_product_against_plain_sums() -> None:
    torch.manual_seed(1)
    block = slowfast.NonLocal(4, 2, None).eval()
    x = torch.randn(1, 4, 1, 2, 2)
    with torch.inference_mode():
        theta, phi, g = (layer(x)[0, :, 0].flatten(1) for layer in (block.conv_theta, block.conv_phi, block.conv_g))
        mixed = torch.stack([sum((theta[:, i] @ phi[:, j]) * g[:, j] for j in range(4)) / 4 for i in range(4)], dim=1)
        expected = x + block.bn(block.conv_out(mixed.view(1, 2, 1, 2, 2)))
        torch.testing.assert_close(block(x), expected)
