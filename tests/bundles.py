"""Detector bundles with seeded random weights: they find nothing real, but run the whole path."""

from pathlib import Path

import torch
from torch import nn

from vidtad.extractors import PRESETS, random_weights
from vidtad.hub.bundle import Bundle, save_bundle
from vidtad.models.actionformer import ActionFormer
from vidtad.models.actionformer_config import ActionFormerConfig
from vidtad.models.react import ReAct, ReActConfig

TINY = {"width": 16, "heads": 2, "stem_layers": 1, "ranges": ((0, 4), (4, 8), (8, 10000)), "windows": 5, "max_len": 32}


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
    torch.manual_seed(seed)
    head = {"in_channels": PRESETS[extractor].convention.width, "classes": len(classes), **config}
    network = ReAct(ReActConfig(**head))  # type: ignore[arg-type]
    for classifier in network.class_embed:
        nn.init.normal_(classifier.weight, std=0.5)
    return _save(path, "react", head, network, extractor, embed, seed, classes)


def seeded_actionformer(
    path: Path,
    extractor: str = "tiny3d",
    *,
    embed: bool = True,
    seed: int = 0,
    classes: tuple[str, ...] = ("jump", "wave", "walk"),
    **config: object,
) -> Path:
    """Write a tiny ActionFormer bundle over `extractor`'s features to `path`; `config` goes to the head."""
    torch.manual_seed(seed)
    head = {**TINY, "in_channels": PRESETS[extractor].convention.width, "classes": len(classes), **config}
    network = ActionFormer(ActionFormerConfig(**head))  # type: ignore[arg-type]
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.3)
    return _save(path, "actionformer", head, network, extractor, embed, seed, classes)


def _save(
    path: Path,
    kind: str,
    head: dict[str, object],
    network: nn.Module,
    extractor: str,
    embed: bool,
    seed: int,
    classes: tuple[str, ...],
) -> Path:
    convention = PRESETS[extractor].convention
    bundle = Bundle(
        name=path.stem,
        head=kind,
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
