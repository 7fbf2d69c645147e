"""Published ActionFormer checkpoints, of the authors or of OpenTAD, to bundles."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from vidtad.errors import InputError
from vidtad.heads.actionformer.presets import EGO4D_VARIANTS, PRESETS, ActionFormerPreset
from vidtad.hub.bundle import Bundle
from vidtad.hub.registry import THUMOS14_CLASSES

if TYPE_CHECKING:
    from torch import Tensor

RELEASED = {f"actionformer-{name}": name for name in PRESETS}
"""Ids of the published checkpoints, and the preset each belongs to."""


def bundle_from_actionformer(
    checkpoint: Mapping[str, Any],
    preset: str = "thumos14",
    *,
    classes: Sequence[str] | None = None,
    sha256: str | None = None,
) -> Bundle:
    """Bundle `actionformer-<preset>` of a published checkpoint, as `vidtad.hub.reading.read_checkpoint` returns it.

    Takes the averaged weights (`state_dict_ema`) where there are any, drops `module.`, renames OpenTAD's keys, and
    loads the rest into the network once, with nothing missing and nothing left over. OpenTAD's weights keep its
    masking and norm constants, and its choice of candidates; its voting weights and rounding are not
    reproduced. For `ego4d` the features (SlowFast, Omnivore, EgoVLP) follow from the weights.

    `classes`: names by output; by default THUMOS14's, `action` for a single output, else numbers such as
    `verb 3`, which are `output 3` where they are not as many as the data set's (OpenTAD numbers the 293 nouns that
    occur). `sha256`: of the checkpoint file, kept as provenance. Raises InputError for an unknown preset or another
    network's weights, and for OpenTAD's ActivityNet models, which resize features in another way.
    """
    from vidtad.hub.reading import state_dict
    from vidtad.models.actionformer_keys import is_opentad, load_released, released_state

    if preset not in PRESETS:
        raise InputError(f"no ActionFormer preset is called {preset!r}; there is {', '.join(PRESETS)}")
    published = state_dict(checkpoint, "actionformer")
    weights = released_state(published)
    chosen = _chosen(preset, weights)
    opentad = is_opentad(published)
    if opentad and chosen.network.resize:
        raise InputError("OpenTAD resizes ActivityNet features in another way than vidtad: use the authors' weights")
    outputs = weights.get("cls_head.cls_head.conv.bias")
    config = chosen.network if outputs is None else dataclasses.replace(chosen.network, classes=len(outputs))
    network = load_released(config, published)
    names = tuple(classes) if classes is not None else class_names(chosen, config.classes)
    if len(names) != config.classes:
        raise InputError(f"{len(names)} class names for the {config.classes} classes of this checkpoint")
    decoding = dataclasses.asdict(chosen.decoding)
    if opentad:
        decoding |= {"pooled": True, "min_length": 0.0, "top_k": max(decoding["top_k"], 2000)}
    features = chosen.features
    training = {"dataset": chosen.dataset, "checkpoint_sha256": sha256}
    training["source"] = "sming256/OpenTAD" if opentad else "happyharrycn/actionformer_release"
    result = {"dataset": chosen.dataset, "average_mAP": chosen.score, "video_level_scores": chosen.fused}
    return Bundle(
        name=f"actionformer-{preset}",
        head="actionformer",
        head_config=dataclasses.asdict(network.config),
        classes=names,
        extractor=features.extractor,
        sampling={"window": features.window, "stride": features.stride, "fps": features.fps},
        channels=features.channels,
        head_weights=network.state_dict(),
        decoding=decoding,
        training=training,
        scores={} if opentad else {"published": result},
    )


def converter(id: str) -> Callable[[Any, str], Bundle]:
    """What turns a read checkpoint, and the hash of its file, into the bundle `id`."""
    return lambda checkpoint, digest: bundle_from_actionformer(checkpoint, RELEASED[id], sha256=digest)


def _chosen(preset: str, weights: "Mapping[str, Tensor]") -> ActionFormerPreset:
    """The preset; of Ego4D the variant whose features these weights read."""
    if preset != "ego4d":
        return PRESETS[preset]
    from vidtad.models.actionformer_keys import fitting

    networks = {variant: held.network for variant, held in EGO4D_VARIANTS.items()}
    return EGO4D_VARIANTS[fitting(networks, weights)]


def class_names(preset: ActionFormerPreset, count: int) -> tuple[str, ...]:
    """Names of a preset's outputs as far as they are known."""
    if preset.dataset.startswith("THUMOS14") and count == len(THUMOS14_CLASSES):
        return THUMOS14_CLASSES
    unit = preset.unit if count == preset.network.classes else "output"
    return ("action",) if count == 1 else tuple(f"{unit} {number}" for number in range(count))
