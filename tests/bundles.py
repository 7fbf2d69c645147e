"""Detector bundles with seeded random weights: they find nothing real, but run the whole path."""

from pathlib import Path

import torch

from vidtad.bundle import Bundle, save_bundle
from vidtad.extractors import PRESETS, random_weights
from vidtad.models.react import ReAct, ReActConfig


def seeded_react(
    path: Path,
    extractor: str = "tiny3d",
    *,
    embed: bool = True,
    seed: int = 0,
    classes: tuple[str, ...] = ("jump", "wave", "walk"),
    **config: object,
) -> Path:
    """Write a ReAct bundle over `extractor`'s features to `path`; `config` goes to the head."""
    convention = PRESETS[extractor].convention
    torch.manual_seed(seed)
    head = {"in_channels": convention.width, "classes": len(classes), **config}
    network = ReAct(ReActConfig(**head))  # type: ignore[arg-type]
    for classifier in network.class_embed:
        torch.nn.init.normal_(classifier.weight, std=0.5)
    bundle = Bundle(
        name=path.stem,
        head="react",
        head_config=head,
        classes=classes,
        extractor=extractor,
        sampling={"window": convention.window, "stride": convention.stride, "fps": None},
        channels=convention.channels,
        head_weights=network.state_dict(),
        licence="Apache-2.0",
        training={"random_weights": True},
        extractor_weights=random_weights(extractor, seed) if embed else None,
    )
    return save_bundle(bundle, path)
