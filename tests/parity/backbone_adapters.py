"""Adapters of the clip networks: built and loaded by the product, run on the fixture's drawn inputs."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tests.parity import seeded
from vidtad.models import bninception, i3d, r2plus1d, tsn

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
            feature=network.features(clip),
            logits=network.classify(pooled),
            feature_mean=network.features(clip),
        )
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


ADAPTERS = {
    "i3d": i3d_adapter,
    "tsn_resnet50": tsn_adapter,
    "bninception": bninception_adapter,
    "r2plus1d_tsp": r2plus1d_adapter,
}
