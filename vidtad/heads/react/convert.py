"""Published ReAct checkpoints to bundles."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from vidtad.errors import InputError
from vidtad.hub.bundle import Bundle
from vidtad.hub.registry import CHECKPOINTS, THUMOS14_CLASSES


def bundle_from_react(
    checkpoint: Mapping[str, Any],
    preset: str = "thumos14",
    *,
    classes: Sequence[str] | None = None,
    sha256: str | None = None,
) -> Bundle:
    """Bundle `react-<preset>` of a released ReAct checkpoint, as `vidtad.hub.reading.read_checkpoint` returns it.

    Unwraps {meta, state_dict, optimizer}, drops the second names `transformer.decoder.segment_embed.*`, and loads
    the rest into the network once, with nothing missing and nothing left over. `sha256`: of the checkpoint file,
    kept as provenance. `classes`: names by output; by default THUMOS14's. The detector wants two-stream TSN features,
    RGB before flow, one step every 5 frames (ReAct's THUMOS14 configuration). Raises InputError for another preset,
    another network's weights, or class names that are not as many as its outputs.
    """
    from vidtad.hub.reading import state_dict
    from vidtad.models.loading import load_exactly
    from vidtad.models.react import THUMOS14, ReAct, released_state

    if preset != "thumos14":
        raise InputError(f"no ReAct weights were released for {preset!r}: the preset is thumos14")
    try:
        weights = released_state({"state_dict": state_dict(checkpoint, "torch")})
    except ValueError as error:
        raise InputError(f"not a sound ReAct checkpoint ({error})") from error
    load_exactly(ReAct(THUMOS14), weights)
    names = THUMOS14_CLASSES if classes is None else tuple(classes)
    if len(names) != len(THUMOS14_CLASSES):
        raise InputError(f"{len(names)} class names for the {len(THUMOS14_CLASSES)} classes of this checkpoint")
    source = CHECKPOINTS["react-thumos14"].source
    return Bundle(
        name="react-thumos14",
        head="react",
        head_config=dataclasses.asdict(THUMOS14),
        classes=names,
        extractor="tsn/thumos14",
        # A row stands for the five frames up to the next one, which makes window fractions fractions of the video.
        sampling={"window": 5, "stride": 5, "fps": None},
        channels=(("rgb", 1024), ("flow", 1024)),
        head_weights=weights,
        decoding={"score_threshold": 0.0, "sigma": 0.4, "min_score": 1e-6, "top_k": 1000, "class_agnostic": True},
        training={"source": source, "dataset": "THUMOS14 validation", "checkpoint_sha256": sha256},
        scores={"published": {"dataset": "THUMOS14 test", "average_mAP": 0.552}},
    )
