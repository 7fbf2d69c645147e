"""Adapters of the clip networks: built and loaded by the product, run on the fixture's drawn inputs."""

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tests.parity import seeded
from vidtad.models import acar, bninception, i3d, r2plus1d, slowfast, slowfast_keys, tsn
from vidtad.models.loading import load_exactly

Manifest = dict[str, Any]
Arrays = Mapping[str, np.ndarray]


def weights(manifest: Manifest) -> dict[str, Tensor]:
    drawn = seeded.state_dict(manifest["state_dict"], manifest["seed"], manifest.get("drawn_as"))
    return {key: torch.from_numpy(np.asarray(array)) for key, array in drawn.items()}


def drawn_input(name: str, manifest: Manifest) -> Tensor:
    entry = manifest["inputs"][name]
    array = seeded.array(f"input:{name}", entry["shape"], entry.get("seed", manifest["seed"]))
    array = array * np.float32(entry.get("scale", 1.0))
    if "clip" in entry.get("then", ""):
        array = np.clip(array, -1, 1)
    return torch.from_numpy(array)


def taken(array: np.ndarray, expression: str) -> np.ndarray:
    """`array` under a manifest's slice such as "x[0, ::4, :, -1]", read without evaluating it."""
    index: list[int | slice] = []
    for part in re.fullmatch(r"x\[(.*)\]", expression)[1].split(","):  # type: ignore[index]
        numbers = [int(number) if number.strip() else None for number in part.split(":")]
        index.append(slice(*numbers) if len(numbers) > 1 else numbers[0])  # type: ignore[arg-type]
    return array[tuple(index)]


def statistics(array: np.ndarray) -> np.ndarray:
    wide = array.astype(np.float64)
    return np.float32([wide.mean(), wide.std(), np.abs(wide).max(), wide.min(), wide.max()])


def described(name: str, array: np.ndarray, entry: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """What a fixture stores of a large tensor: named slices and statistics."""
    stored = {f"{name}/{part}": taken(array, entry[part]) for part in ("sub", "edge") if part in entry}
    if "stats" in entry:
        stored[f"{name}/stats"] = statistics(array)
    return stored or {name: array}


def wanted(case: str, maps: Mapping[str, Tensor], manifest: Manifest) -> dict[str, np.ndarray]:
    """The outputs a manifest lists under `case/`, described as it says, from the tensors of that name."""
    outputs: dict[str, np.ndarray] = {}
    for name, entry in manifest["outputs"].items():
        point = name.removeprefix(f"{case}/")
        if point != name and point in maps:
            outputs.update(described(name, maps[point].numpy(), entry))
    return outputs


@torch.inference_mode()
def i3d_adapter(manifest: Manifest, io: Arrays, folder: Path) -> dict[str, np.ndarray]:
    network = i3d.load(weights(manifest), manifest["config"]["bn_eps"]).eval()
    outputs: dict[str, np.ndarray] = {}
    for case in manifest["inputs"]:
        clip = drawn_input(case, manifest)
        maps = network.run(clip)
        last = maps["Mixed_5c"]
        pooled = network.pool(last)
        maps.update(
            pooled=pooled,
            feature=pooled.mean(dim=2),
            logits=network.classify(pooled),
        )
        if f"{case}/feature_mean" in manifest["outputs"]:
            maps["feature_mean"] = network.features(clip)
        outputs.update(wanted(case, maps, manifest))
    return outputs


@torch.inference_mode()
def tsn_adapter(manifest: Manifest, io: Arrays, folder: Path) -> dict[str, np.ndarray]:
    network = tsn.load(weights(manifest), manifest["config"]["bn_eps"]).eval()
    outputs: dict[str, np.ndarray] = {}
    for case in manifest["inputs"]:
        maps = network.run(drawn_input(case, manifest))
        feature = maps["layer4"].mean(dim=(2, 3))
        maps.update(feature=feature, logits=network.classify(feature.mean(dim=0, keepdim=True)))
        outputs.update(wanted(case, maps, manifest))
    return outputs


@torch.inference_mode()
def bninception_adapter(manifest: Manifest, io: Arrays, folder: Path) -> dict[str, np.ndarray]:
    network = bninception.load(weights(manifest), manifest["config"]["bn_eps"]).eval()
    maps: dict[str, Tensor] = {}
    for name, module in network.named_children():
        module.register_forward_hook(lambda _, __, output, name=name: maps.update({name: output.clone()}))
    outputs: dict[str, np.ndarray] = {}
    for case in manifest["inputs"]:
        last = network.trunk(drawn_input(case, manifest))
        feature = last.mean(dim=(2, 3))
        outputs.update(
            wanted(case, {**maps, "features": last, "feature": feature, "logits": network.classify(feature)}, manifest)
        )
    return outputs


@torch.inference_mode()
def r2plus1d_adapter(manifest: Manifest, io: Arrays, folder: Path) -> dict[str, np.ndarray]:
    network = r2plus1d.load(weights(manifest), manifest["config"]["bn_eps"]).eval()
    outputs: dict[str, np.ndarray] = {}
    for case in manifest["inputs"]:
        if case.endswith("/gvf"):
            continue
        maps = network.run(drawn_input(case, manifest))
        feature = maps["layer4"].mean(dim=(2, 3, 4))
        maps["feature"] = feature
        for head, layer in network.heads.items():
            whole = layer.in_features > feature.shape[1]
            joined = torch.cat([feature, drawn_input(f"{case}/gvf", manifest)], dim=1) if whole else feature
            maps[head] = network.classify(head, joined)
        outputs.update(wanted(case, maps, manifest))
    return outputs


def unit_scale_input(name: str, manifest: Manifest) -> Tensor:
    """An input drawn as pairs, so that its standard deviation is 1."""
    shape = manifest["inputs"][name]["shape"]
    drawn = seeded.array(f"input:{name}", [int(np.prod(shape)) // 2, 2], manifest["seed"])
    return torch.from_numpy(drawn.reshape(shape))


def in_every_layout(drawn: dict[str, Tensor], folder: Path) -> list[dict[str, Tensor]]:
    """The drawn weights, and the same under the names of each `key_map_*.json` of the fixture."""
    layouts = [drawn]
    for path in sorted(folder.glob("key_map_*.json")):
        theirs = dict(json.loads(path.read_text()))
        layouts.append({theirs[key]: value for key, value in drawn.items() if key in theirs})
    return layouts


def pathway_statistics(maps: dict[str, tuple[Tensor, Tensor]]) -> np.ndarray:
    return np.array(
        [[[x.double().mean(), x.double().std(correction=0), x.abs().max()] for x in pair] for pair in maps.values()]
    )


def slowfast_options(config: Manifest) -> slowfast.SlowFastOptions:
    """Options of a PySlowFast configuration; both pathways have the same strides there."""
    return slowfast.SlowFastOptions(
        alpha=config["alpha"],
        strides=tuple(pair[0] for pair in config["spatial_strides"]),
        dilations=tuple(pair[0] for pair in config["spatial_dilations"]),
        bn_eps=config["bn_eps"],
    )


@torch.inference_mode()
def slowfast_adapter(manifest: Manifest, io: Arrays, folder: Path) -> dict[str, np.ndarray]:
    config, drawn = manifest["config"], weights(manifest)
    if "head" in config:
        return slowfast_acar(manifest, io, drawn)
    options = slowfast_options(config)
    network = slowfast.load(drawn, options).eval()
    for layout in in_every_layout(drawn, folder)[1:]:
        same = slowfast.load(layout, options).state_dict()
        own = network.state_dict()
        assert all(torch.equal(own[key], value) for key, value in same.items() if "num_batches" not in key)
    clip = unit_scale_input("clip", manifest)
    maps = network.run(clip)
    slow, fast = maps["s5"]
    pooled = network.features(clip)
    outputs = {
        "slow_index": slowfast.slow_index(clip.shape[2], options.alpha, options.slow_frames),
        "slow_res5": slow,
        "fast_res5": fast,
        "pooled": pooled,
        "logits": network.classify(pooled),
    }
    return {name: tensor.numpy() for name, tensor in outputs.items()} | {"stage_stats": pathway_statistics(maps)}


def slowfast_acar(manifest: Manifest, io: Arrays, drawn: dict[str, Tensor]) -> dict[str, np.ndarray]:
    config = manifest["config"]
    dilation = config["res5_dilation"]
    rule = "stride" if config["slow_frames"].startswith("every") else "span"
    options = replace(slowfast.DETECTION, alpha=config["alpha"], slow_frames=rule, dilations=(1, 1, 1, dilation))
    network = slowfast.load(drawn, options).eval()
    pool = not config["head"].get("downsample", "").startswith("none")
    head = acar.load_head(slowfast_keys.split_acar(drawn)[1], acar.AcarConfig(pool=pool)).eval()
    name = "head.module.fc.weight"
    linear = torch.from_numpy(seeded.array(name, [config["num_classes"], network.width], manifest["seed"]))
    slow, fast = network(unit_scale_input("clip", manifest))
    boxes = [torch.from_numpy(io["boxes"])]
    pooled = acar.time_mean(slow, fast)
    outputs = {
        "slow_res5_sub": slow[:, ::16],
        "fast_res5_sub": fast[:, ::8, ::2],
        "pooled_map": pooled,
        "acar_logits": head((slow, fast), boxes),
        "linear_logits": acar.box_features(pooled, boxes) @ linear.T,
    }
    return {name: tensor.numpy() for name, tensor in outputs.items()}


@torch.inference_mode()
def nonlocal_adapter(manifest: Manifest, io: Arrays, folder: Path) -> dict[str, np.ndarray]:
    config, x = manifest["config"], unit_scale_input("x", manifest)
    drawn = {key.split(".", 2)[2]: value for key, value in weights(manifest).items()}
    outputs = {}
    for name, variant in config["variants"].items():
        pool = tuple(variant["pool_THW"]) if variant["pool_THW"] else None
        softmax = variant["instantiation"] == "softmax"
        block = slowfast.NonLocal(config["dim"], config["dim_inner"], pool, softmax, config["bn_eps"])
        outputs[name] = load_exactly(block, drawn).eval()(x).numpy()
    return outputs


ADAPTERS = {
    "i3d": i3d_adapter,
    "tsn_resnet50": tsn_adapter,
    "bninception": bninception_adapter,
    "r2plus1d_tsp": r2plus1d_adapter,
    "slowfast": slowfast_adapter,
    "nonlocal_block": nonlocal_adapter,
}
