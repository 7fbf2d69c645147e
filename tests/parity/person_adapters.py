"""Adapters of person-box heads and of what happens to boxes and frames before them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tests.parity import seeded
from tests.parity.backbone_adapters import unit_scale_input, weights
from tests.parity.documents import flat
from vidtad.extractors import keyframes
from vidtad.models import acar, acfb, roi, slowfast, slowfast_keys

Manifest = dict[str, Any]
Arrays = Mapping[str, np.ndarray]


def acar_config(config: Manifest) -> acar.AcarConfig:
    """What the weights of a head do not tell."""
    return acar.AcarConfig(pool=not config["downsample"].startswith("none"), side=config["roi_spatial"])


@torch.inference_mode()
def acar_head(manifest: Manifest, io: Arrays, folder: Path) -> dict[str, np.ndarray]:
    state = slowfast_keys.split_acar(weights(manifest))[1]
    head = acar.load_head(state, acar_config(manifest["config"])).eval()
    maps, boxes, sizes, back = head_inputs(manifest, io)
    return head_outputs(head.run(maps, boxes, sizes), back)


@torch.inference_mode()
def acfb_head(manifest: Manifest, io: Arrays, folder: Path) -> dict[str, np.ndarray]:
    state = slowfast_keys.split_acar(weights(manifest))[1]
    head = acfb.load_acfb(state, acar_config(manifest["config"])).eval()
    maps, boxes, sizes, back = head_inputs(manifest, io)
    banks = []
    for i, first in enumerate(head.encode(maps, boxes, sizes)[2]):
        entry = manifest["inputs"][f"bank{i}"]
        banks.append(drawn_bank(f"bank{i}", (entry["shape"][0], *first.shape[1:]), manifest["seed"]))
    return head_outputs(head.run(maps, boxes, sizes, banks), back)


def head_inputs(manifest: Manifest, io: Arrays) -> tuple[list[Tensor], list[Tensor], list[tuple[float, float]], Tensor]:
    maps = [unit_scale_input(name, manifest).abs() for name in ("slow", "fast")]
    boxes, back = roi.by_clip(torch.from_numpy(io["rois"]), len(maps[0]))
    assert [len(own) for own in boxes] == np.diff(io["roi_ids"]).tolist(), "roi_ids counts the boxes of each clip"
    return maps, boxes, io["sizes_before_padding"].tolist(), back


def drawn_bank(name: str, shape: tuple[int, ...], seed: int) -> Tensor:
    if not shape[0]:
        return torch.zeros(shape)
    drawn = seeded.array(f"input:{name}", [int(np.prod(shape)) // 2, 2], seed)
    return torch.from_numpy(np.abs(drawn).reshape(shape))


def head_outputs(found: acar.AcarOutput, back: Tensor) -> dict[str, np.ndarray]:
    outputs = {
        "effective_hw": torch.tensor([[m.shape[2] + 2, m.shape[3] + 2] for m in found.first_order]),
        "reduced_sub": found.reduced[:, ::32],
        "roi_feats": found.actors[back],
        "high_order": found.high_order[back],
        "logits": found.logits[back],
        "scores": acar.scores(found.logits)[back],
    }
    for i, (first, relations) in enumerate(zip(found.first_order, found.relations, strict=True)):
        outputs[f"first_order_sub_{i}"] = first[:, ::32]
        outputs[f"hr2o_out_sub_{i}"] = relations[:, ::32]
    return {name: tensor.numpy() for name, tensor in outputs.items()}


@torch.inference_mode()
def roi_head(manifest: Manifest, io: Arrays, folder: Path) -> dict[str, np.ndarray]:
    config, boxes = manifest["config"], torch.from_numpy(io["boxes"])
    state = {key.removeprefix("head."): value for key, value in weights(manifest).items()}
    maps = [unit_scale_input(name, manifest).abs() for name in ("slow", "fast")]
    clips, back = roi.by_clip(boxes, len(maps[0]))
    assert config["spatial_scale"] == 1 / roi.STRIDE
    outputs = {}
    for variant in config["variants"]:
        aligned = variant == "aligned"
        head = roi.load_linear(state, roi.LinearConfig(aligned=aligned, side=config["resolution"])).eval()
        rows: list[Tensor] = []
        head.dropout.register_forward_hook(lambda _, inputs, output, rows=rows: rows.append(output))
        logits = head(maps, clips)
        named = {"roi_feats": rows[0], "logits": logits, "scores": head.scores(logits)}
        outputs.update({f"{name}_{variant}": tensor[back].numpy() for name, tensor in named.items()})
    return outputs


def box_after(case: Mapping[str, Any], keep: float) -> list[float] | None:
    aug = case["aug"]
    boxes, survives = keyframes.cropped(np.array([case["box"]]), aug["crop_box"], keep)
    boxes = keyframes.flipped(boxes) if aug["flip"] else boxes
    return keyframes.padded(boxes, aug["pad_ratio"])[0].tolist() if survives[0] else None


def stad_inputs(manifest: Manifest, io: Arrays, folder: Path) -> dict[str, Any]:
    document = json.loads((folder / "expected.json").read_text())
    for case in document["keyframe_clamped"]:
        where = (case["center"], case["half_window"], case["step"], case["num_frames"])
        case["indices"] = keyframes.clamped_window(*where).tolist()
    for case in document["acar_center_crop"]:
        where = (case["start"], case["n_frames"], case["size"], case["step"])
        case["indices"] = keyframes.centred_window(*where).tolist()
    for case in document["slow_linspace"]:
        case["indices"] = slowfast.slow_index(case["T"], case["alpha"], "span").tolist()
    for case in document["acar_box_after_aug"]:
        case["result"] = box_after(case, manifest["config"]["crop_keep_threshold"])
    for case in document["short_side"]:
        case["out_wh"] = list(keyframes.short_side_size(*case["wh"], case["short"]))
    for case in document["feature_size"]:
        case["stride16"] = keyframes.map_cells(case["pixels"])
    return flat(document)


ADAPTERS = {
    "acar_head": acar_head,
    "acfb_head": acfb_head,
    "slowfast_roi_head": roi_head,
    "stad_inputs": stad_inputs,
}
