"""Adapters of the clip networks: built and loaded by the product, run on the fixture's drawn inputs."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tests.parity import seeded
from vidtad.models import i3d

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


@torch.inference_mode()
def i3d_adapter(manifest: Manifest, io: Arrays, folder: Path) -> dict[str, np.ndarray]:
    network = i3d.load(weights(manifest)).eval()
    outputs: dict[str, np.ndarray] = {}
    for case in manifest["inputs"]:
        wanted = {name.split("/")[1] for name in manifest["outputs"] if name.startswith(f"{case}/")}
        maps = clip = drawn_input(case, manifest)
        for point in network.end_points:
            maps = network.get_submodule(point)(maps)
            if point in wanted:
                name = f"{case}/{point}"
                outputs.update(described(name, maps.numpy(), manifest["outputs"][name]))
        pooled = network.pool(maps)
        computed = {
            "pooled": pooled,
            "feature": network.features(clip),
            "logits": network.classify(pooled),
            "feature_mean": maps.mean(dim=(2, 3, 4)),
        }
        outputs.update({f"{case}/{name}": computed[name].numpy() for name in computed if name in wanted})
        if "feature_mean" in wanted:
            assert torch.equal(pooled.mean(dim=2), computed["feature_mean"])
    return outputs


ADAPTERS = {"i3d": i3d_adapter}
