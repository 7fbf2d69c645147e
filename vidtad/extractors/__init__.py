"""Clip networks by name, each with the frames it was trained on: from decoded frames to feature rows."""

import dataclasses
import difflib
from collections.abc import Mapping
from fractions import Fraction
from types import EllipsisType
from typing import Any

import torch
from torch import Tensor

from vidtad.errors import InputError
from vidtad.extractors.base import ClipConvention, ClipExtractor
from vidtad.extractors.flows import FlowExtractor, TwoStream
from vidtad.extractors.presets import PRESETS, Preset
from vidtad.flow import flow_of
from vidtad.models.loading import load_exactly

__all__ = [
    "PRESETS",
    "ClipConvention",
    "ClipExtractor",
    "FlowExtractor",
    "Preset",
    "TwoStream",
    "build",
    "find",
    "random_weights",
]


def find(name: str) -> Preset:
    """The preset called `name`. Raises InputError naming the nearest ones."""
    if name in PRESETS:
        return PRESETS[name]
    near = difflib.get_close_matches(name, PRESETS, n=3, cutoff=0.4) or sorted(PRESETS)
    raise InputError(f"no extractor is called {name!r}; did you mean {', '.join(near)}?")


def build(
    name: str,
    weights: Mapping[str, Tensor],
    *,
    device: str = "cpu",
    window: int | None = None,
    stride: int | None = None,
    fps: Fraction | EllipsisType | None = ...,
    flow: str | None = None,
) -> ClipExtractor:
    """The extractor `name` with `weights` (a state dict in any published layout), ready on `device`.

    `window` and `stride` (frames) and `fps` (None: the video's own rate) replace the preset's, as
    does `flow` (a method of `vidtad.flow`) for networks that see flow. Raises InputError for an unknown name, weights
    of another network, or a window or stride under 1.
    """
    preset = find(name)
    changes: dict[str, Any] = {
        key: value for key, value in (("window", window), ("stride", stride)) if value is not None
    }
    convention = dataclasses.replace(preset.convention, **changes)
    if fps is not ...:
        convention = dataclasses.replace(convention, fps=fps)
    if flow is not None:
        if convention.flow is None:
            raise InputError(f"extractor {name} sees no optical flow: leave its method out")
        flow_of(flow)
        convention = dataclasses.replace(convention, flow=flow)
    load = preset.load or (lambda state_dict: load_exactly(preset.network(), state_dict))
    kind = ClipExtractor if convention.flow is None else FlowExtractor
    return kind(name, convention, load(weights), device)


def random_weights(name: str, seed: int = 0) -> dict[str, Tensor]:
    """Seeded random weights of the extractor `name`, the same on every machine with the same PyTorch.

    Convolutions and linear layers are drawn at fan-in scale (He et al., 2015), norms are left neutral, so
    activations neither vanish nor overflow. The features carry no meaning: this is for dry runs and tests.
    """
    generator = torch.Generator().manual_seed(seed)
    weights = find(name).network().state_dict()
    for key, tensor in weights.items():
        if key.endswith("weight") and tensor.ndim >= 2:
            spread = (2.0 / tensor[0].numel()) ** 0.5
            weights[key] = torch.randn(tensor.shape, generator=generator) * spread
        elif key.endswith("bias"):
            weights[key] = torch.zeros_like(tensor)
    return weights
