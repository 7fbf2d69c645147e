"""Names of SlowFast's tensors in every published layout, translated to PySlowFast's.

PySlowFast itself (`s1.pathway0_stem...`), pytorchvideo (`blocks.0.multipathway_blocks...`), Caffe2 (`conv1_w`), ACAR
(`slow_conv1...`, with or without `backbone.module.` in front) and mmaction2 (`backbone.slow_path...`).
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from vidtad.errors import InputError

Rules = tuple[tuple[str, str], ...]

_STAGE = {"1": "s2", "2": "s3", "3": "s4", "4": "s5"}
_BRANCH = {"1": "a", "2": "b", "3": "c"}
_PATH = {"slow": "0", "fast": "1"}


def from_pytorchvideo(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename pytorchvideo's `model_state`, classification (`blocks.*`) or detection (`model.blocks.*`).

    Of a network of the slow pathway alone, too, whose blocks have no `multipathway_blocks` around them.
    """

    def stem(part: str) -> Callable[[re.Match[str]], str]:
        return lambda found: f"s1.pathway{(found[1] or '0')[0]}_stem.{part}."

    def rename(key: str) -> str:
        key = key.removeprefix("model.")
        key = re.sub(r"^blocks\.[56]\.proj\.|^detection_head\.proj\.", "head.projection.", key)
        key = re.sub(r"^blocks\.0\.(?:multipathway_blocks\.)?(\d\.)?conv\.", stem("conv"), key)
        key = re.sub(r"^blocks\.0\.(?:multipathway_blocks\.)?(\d\.)?norm\.", stem("bn"), key)
        fusion = re.match(r"blocks\.(\d)\.multipathway_fusion\.(conv_fast_to_slow|norm)\.(.+)", key)
        if fusion:
            part = "bn" if fusion[2] == "norm" else "conv_f2s"
            return f"s{int(fusion[1]) + 1}_fuse.{part}.{fusion[3]}"
        block = re.match(r"blocks\.(\d)\.(?:multipathway_blocks\.(\d)\.)?res_blocks\.(\d+)\.(.+)", key)
        if block:
            inner = block[4].replace("branch1_conv.", "branch1.").replace("branch1_norm.", "branch1_bn.")
            inner = re.sub(r"branch2\.conv_([abc])\.", r"branch2.\1.", inner)
            inner = re.sub(r"branch2\.norm_([abc])\.", r"branch2.\1_bn.", inner)
            return f"s{int(block[1]) + 1}.pathway{block[2] or 0}_res{block[3]}.{inner}"
        return key

    return {rename(key): tensor for key, tensor in state_dict.items()}


_CAFFE2_LEAVES = {"_w": ".weight", "_b": ".bias"}
_CAFFE2_NORM = {"_s": ".weight", "_b": ".bias", "_rm": ".running_mean", "_riv": ".running_var"}
_CAFFE2_SKIPPED = re.compile(r"momentum|^lr$|^model_iter$")
_CAFFE2: Rules = (
    (r"t_pool1_subsample", "s1_fuse.conv_f2s"),
    (r"t_pool1_subsample_bn", "s1_fuse.bn"),
    (r"t_res(\d)_\d+_branch2c_bn_subsample", r"s\1_fuse.conv_f2s"),
    (r"t_res(\d)_\d+_branch2c_bn_subsample_bn", r"s\1_fuse.bn"),
    (r"conv1", "s1.pathway0_stem.conv"),
    (r"t_conv1", "s1.pathway1_stem.conv"),
    (r"res_conv1_bn", "s1.pathway0_stem.bn"),
    (r"t_res_conv1_bn", "s1.pathway1_stem.bn"),
    (r"res(\d)_(\d+)_branch1(_bn)?", r"s\1.pathway0_res\2.branch1\3"),
    (r"t_res(\d)_(\d+)_branch1(_bn)?", r"s\1.pathway1_res\2.branch1\3"),
    (r"res(\d)_(\d+)_branch2([abc])(_bn)?", r"s\1.pathway0_res\2.branch2.\3\4"),
    (r"t_res(\d)_(\d+)_branch2([abc])(_bn)?", r"s\1.pathway1_res\2.branch2.\3\4"),
    (r"nonlocal_conv(\d)_(\d+)_(theta|phi|g|out)", r"s\1.pathway0_nonlocal\2.conv_\3"),
    (r"nonlocal_conv(\d)_(\d+)_bn", r"s\1.pathway0_nonlocal\2.bn"),
    (r"pred", "head.projection"),
)


def from_caffe2(blobs: Mapping[str, Any]) -> dict[str, Tensor]:
    """Rename the `blobs` of a Caffe2 file, NumPy arrays or tensors; solver state is left out.

    Some arrays lack trailing axes of length 1, which are appended: all convolutions have five axes.
    """
    renamed = {}
    for name, array in blobs.items():
        if not _CAFFE2_SKIPPED.search(name):
            key = _caffe2_key(name)
            tensor = torch.as_tensor(array)
            if key.endswith("weight") and 2 <= tensor.ndim < 5 and not key.startswith("head."):
                tensor = tensor.reshape(*tensor.shape, *[1] * (5 - tensor.ndim))
            renamed[key] = tensor
    return renamed


def _caffe2_key(name: str) -> str:
    stem, _, leaf = name.rpartition("_")
    leaves = _CAFFE2_NORM if stem.endswith("_bn") else _CAFFE2_LEAVES
    for theirs, ours in _CAFFE2:
        found = re.fullmatch(theirs, stem)
        if found and f"_{leaf}" in leaves:
            return found.expand(ours) + leaves[f"_{leaf}"]
    return name


def split_acar(state_dict: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """(backbone, head) of an ACAR file, wrapper prefixes removed, ACAR's own names kept.

    Backbone files are flat; whole models have `backbone.` and `head.` in front, each with `module.` around it.
    """
    backbone, head = {}, {}
    for key, tensor in state_dict.items():
        key = key.removeprefix("module.")
        if key.startswith("head."):
            head[key.removeprefix("head.").removeprefix("module.")] = tensor
        else:
            backbone[key.removeprefix("backbone.").removeprefix("module.")] = tensor
    return backbone, head


def from_acar(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the backbone of an ACAR file; its head, if there is one, is left out (see `split_acar`)."""

    def rename(key: str) -> str:
        stem = re.match(r"(slow|fast)_(conv1|bn1)\.(.+)", key)
        if stem:
            return f"s1.pathway{_PATH[stem[1]]}_stem.{stem[2][:-1]}.{stem[3]}"
        block = re.match(r"(slow|fast)_res(\d)\.(\d+)\.(.+)", key)
        if block:
            return f"{_STAGE[block[2]]}.pathway{_PATH[block[1]]}_res{block[3]}.{_acar_inner(block[4])}"
        key = re.sub(r"^Tconv(\d)\.(?:0\.)?weight$", r"s\1_fuse.conv_f2s.weight", key)
        return re.sub(r"^Tconv(\d)\.1\.", r"s\1_fuse.bn.", key)

    return {rename(key): tensor for key, tensor in split_acar(state_dict)[0].items()}


def _acar_inner(key: str) -> str:
    if key.startswith("downsample"):
        return key.replace("downsample.0.", "branch1.").replace("downsample_bn.", "branch1_bn.")
    key = re.sub(r"^conv([123])\.", lambda found: f"branch2.{_BRANCH[found[1]]}.", key)
    return re.sub(r"^bn([123])\.", lambda found: f"branch2.{_BRANCH[found[1]]}_bn.", key)


def from_mmaction2(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the `state_dict` of an mmaction2 SlowFast file, recogniser or detector (fusion without batch norm)."""

    def rename(key: str) -> str:
        key = re.sub(r"^(roi_head\.bbox_head|cls_head)\.fc_cls\.", "head.projection.", key)
        key = re.sub(r"^backbone\.slow_path\.conv1_lateral\.conv\.", "s1_fuse.conv_f2s.", key)
        lateral = re.match(r"backbone\.slow_path\.layer(\d)_lateral\.conv\.(.+)", key)
        if lateral:
            return f"{_STAGE[lateral[1]]}_fuse.conv_f2s.{lateral[2]}"
        stem = re.match(r"backbone\.(slow|fast)_path\.conv1\.(conv|bn)\.(.+)", key)
        if stem:
            return f"s1.pathway{_PATH[stem[1]]}_stem.{stem[2]}.{stem[3]}"
        block = re.match(r"backbone\.(slow|fast)_path\.layer(\d)\.(\d+)\.(conv\d|downsample)\.(conv|bn)\.(.+)", key)
        if block:
            inner = "branch1" if block[4] == "downsample" else f"branch2.{_BRANCH[block[4][-1]]}"
            norm = "_bn" if block[5] == "bn" else ""
            return f"{_STAGE[block[2]]}.pathway{_PATH[block[1]]}_res{block[3]}.{inner}{norm}.{block[6]}"
        return key

    return {rename(key): tensor for key, tensor in state_dict.items()}


# A tensor that only files of the layout have, and how the layout is translated.
_LAYOUTS = (
    ("s1.pathway0_stem.conv.weight", dict),
    ("blocks.0.multipathway_blocks.0.conv.weight", from_pytorchvideo),
    ("blocks.0.conv.weight", from_pytorchvideo),
    ("t_conv1_w", from_caffe2),
    ("fast_conv1.weight", from_acar),
    ("backbone.fast_path.conv1.conv.weight", from_mmaction2),
)


def from_published(state_dict: Mapping[str, Any]) -> dict[str, Tensor]:
    """PySlowFast's names for a SlowFast state dict in any published layout, told apart by its own names.

    Raises InputError when the names are of no known layout.
    """
    for mark, translate in _LAYOUTS:
        if any(key == mark or key.endswith(f".{mark}") for key in state_dict):
            return translate(state_dict)
    some = ", ".join(list(state_dict)[:3])
    raise InputError(f"these weights are of no known SlowFast layout (their names begin with {some})")
