"""Turning authors' checkpoints into detector bundles."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vidtad.errors import InputError
from vidtad.hub.bundle import Bundle
from vidtad.hub.registry import CHECKPOINTS, THUMOS14_CLASSES

KINDS = ("react", "actionformer", "opentad")
"""Whose checkpoints become temporal detectors."""


def bundle_from_react(checkpoint: Mapping[str, Any], preset: str = "thumos14", *, sha256: str | None = None) -> Bundle:
    """Bundle `react-<preset>` of a released ReAct checkpoint, as `vidtad.hub.reading.read_checkpoint` returns it.

    Unwraps {meta, state_dict, optimizer}, drops the second names `transformer.decoder.segment_embed.*`, and loads
    the rest into the network once, with nothing missing and nothing left over. `sha256`: of the checkpoint file,
    kept as provenance. The detector wants two-stream TSN features, RGB before flow, one row every 5 frames
    (ReAct's THUMOS14 configuration). Raises InputError for another preset or another network's weights.
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
    source = CHECKPOINTS["react-thumos14"].source
    return Bundle(
        name="react-thumos14",
        head="react",
        head_config=dataclasses.asdict(THUMOS14),
        classes=THUMOS14_CLASSES,
        extractor="tsn/thumos14",
        # A row stands for the five frames up to the next one, which makes window fractions fractions of the video.
        sampling={"window": 5, "stride": 5, "fps": None},
        channels=(("rgb", 1024), ("flow", 1024)),
        head_weights=weights,
        decoding={"score_threshold": 0.0, "sigma": 0.4, "min_score": 1e-6, "top_k": 1000, "class_agnostic": True},
        training={"source": source, "dataset": "THUMOS14 validation", "checkpoint_sha256": sha256},
        scores={"published": {"dataset": "THUMOS14 test", "average_mAP": 0.552}},
    )


def convert_checkpoint(path: Path, kind: str, preset: str = "thumos14", classes: Sequence[str] | None = None) -> Bundle:
    """Bundle of an authors' checkpoint file, also of one you trained with their code.

    `kind`: `react`, `actionformer` or `opentad` (its ActionFormer; the two are told apart by their keys anyway).
    `classes`: names in the order of the outputs, where the preset's are not those. Raises InputError, naming the
    file, for an unknown kind or preset and for another network's weights.
    """
    from vidtad.heads.actionformer.convert import bundle_from_actionformer
    from vidtad.hub.reading import read_checkpoint
    from vidtad.sources import read_hashed

    if kind not in KINDS:
        raise InputError(f"--from {kind}: no such layout; there is {', '.join(KINDS)}")
    checkpoint, digest = read_hashed(path, read_checkpoint)
    try:
        if kind != "react":
            return bundle_from_actionformer(checkpoint, preset, classes=classes, sha256=digest)
        bundle = bundle_from_react(checkpoint, preset, sha256=digest)
        return bundle if classes is None else dataclasses.replace(bundle, classes=_as_many(classes, bundle))
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def _as_many(classes: Sequence[str], bundle: Bundle) -> tuple[str, ...]:
    if len(classes) != len(bundle.classes):
        raise InputError(f"{len(classes)} class names for the {len(bundle.classes)} classes of this checkpoint")
    return tuple(classes)
