"""Features -> detections -> timeline, for the heads that say what happens when."""

from typing import Any

import numpy as np

from vidtad import __version__
from vidtad.errors import InputError
from vidtad.features import Features, Provenance
from vidtad.heads.spec import TemporalDetector
from vidtad.hub.bundle import Bundle
from vidtad.postprocess import Detections
from vidtad.progress import Progress, no_progress
from vidtad.timeline import Segment, Timeline


def check_fits(features: Features, bundle: Bundle, where: str) -> tuple[str, ...]:
    """Raise InputError unless these features are of the kind the bundle's head was trained on.

    What a foreign file does not say (no sidecar) is not checked, except the width: the warnings name what was assumed.
    """
    provenance, grid = features.provenance, features.grid
    wants = f"detector {bundle.name} wants {bundle.extractor} features ({_channels(bundle.channels)})"
    remedy = "extract them with its extractor or choose another --model"
    if features.values.shape[1] != bundle.width:
        raise InputError(
            f"{where}: rows are {features.values.shape[1]} wide ({_channels(provenance.channels)}) but {wants}; "
            f"{remedy}"
        )
    if not provenance.extractor:
        assumed = (
            f"{bundle.extractor} features, channels in the order {_channels(bundle.channels)}, of {grid.span} frames "
            f"every {grid.stride} at {float(grid.fps):g} a second"
        )
        return (f"{where}: no sidecar says what its rows are of; took them for {assumed}",)
    if provenance.channels != bundle.channels:
        raise InputError(f"{where}: channel order is {_channels(provenance.channels)} but {wants}; {remedy}")
    if _families(provenance.extractor) != _families(bundle.extractor):
        raise InputError(f"{where}: made by {provenance.extractor} but {wants}; {remedy}")
    sampling = (bundle.sampling["window"], bundle.sampling["stride"])
    if (grid.span, grid.stride) != sampling:
        raise InputError(
            f"{where}: windows of {grid.span} frames every {grid.stride} but detector {bundle.name} wants "
            f"{sampling[0]} every {sampling[1]}; extract again with --window {sampling[0]} --stride {sampling[1]}"
        )
    return ()


def _families(extractor: str) -> set[str]:
    """Networks in an extractor's name: {"i3d"} of i3d/thumos14+i3d/flow."""
    return {part.partition("/")[0] for part in extractor.split("+")}


def _channels(channels: tuple[tuple[str, int], ...]) -> str:
    return ", ".join(f"{name or 'channels'} {count}" for name, count in channels)


def to_segments(found: Detections, features: Features, classes: tuple[str, ...], min_score: float) -> list[Segment]:
    """Detections as segments in seconds, clipped to the video; empty ones and those under `min_score` dropped."""
    times = np.clip(features.grid.seconds(found.segments - 0.5), 0.0, features.video.duration_s)
    return [
        Segment(float(start), float(end), classes[label], float(score))
        for (start, end), score, label in zip(times, found.scores, found.labels, strict=True)
        if end > start and score >= min_score
    ]


def detect_features(
    features: Features,
    detector: TemporalDetector,
    video_id: str,
    *,
    where: str = "",
    min_score: float = 0.0,
    progress: Progress = no_progress,
) -> Timeline:
    """Timeline of one video from its features. `where` names the features in errors."""
    assumed = check_fits(features, detector.bundle, where or video_id)
    found = detector(features.values, progress)
    segments = to_segments(found, features, detector.bundle.classes, min_score)
    identity = detector_identity(detector.bundle, features.provenance, min_score, detector.precision)
    identity["warnings"] += [*assumed, *(f"{where or video_id}: {warning}" for warning in detector.warnings)]
    return Timeline({video_id: tuple(segments)}, {video_id: features.video}, identity)


def detector_identity(
    bundle: Bundle, provenance: Provenance, min_score: float, precision: str = "float32"
) -> dict[str, Any]:
    """What made a timeline: everything that decides its content, and the warnings of its making."""
    identity: dict[str, Any] = {
        "name": bundle.name,
        "head": bundle.head,
        "sha256": bundle.sha256,
        "classes": list(bundle.classes),
        "decoding": dict(bundle.decoding),
        "min_score": min_score,
        "features": provenance.fingerprint(),
        "extractor": provenance.extractor or bundle.extractor,
        "extractor_weights": provenance.weights,
        "source_sha256": provenance.source_sha256,
        "vidtad": __version__,
        "warnings": list(provenance.warnings),
    }
    if precision != "float32":
        identity["precision"] = precision
    if bundle.demonstration:
        identity["demonstration"] = True
    if provenance.settings.get("random_weights") or bundle.training.get("random_weights"):
        identity["random_weights"] = True
    return identity
