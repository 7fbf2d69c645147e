"""Features -> detections -> timeline, for the heads that say what happens when."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch

from vidtad import __version__
from vidtad.errors import InputError, RunError, out_of_memory
from vidtad.features import Features, Provenance
from vidtad.heads.actionformer.detector import ActionFormerDetector
from vidtad.hub.bundle import Bundle
from vidtad.hub.fields import known_fields
from vidtad.models.loading import load_exactly
from vidtad.models.react import ReAct, ReActConfig, released_state
from vidtad.pipelines.extract.extraction import Progress, no_progress
from vidtad.postprocess import REACT, Detections, Nms, react_detections
from vidtad.timeline import Segment, Timeline
from vidtad.windows import react_windows, resized


class TemporalDetector(Protocol):
    """A head with its weights: feature rows of a whole video to detections, whatever its length.

    `precision` is that of its arithmetic, `display_score` the score from which a segment is worth showing in a table,
    `warnings` what the user should know about the last call.
    """

    bundle: Bundle
    precision: str
    display_score: float
    warnings: tuple[str, ...]

    def __call__(self, values: np.ndarray, progress: Progress = no_progress) -> Detections:
        """values (T, C) float32 -> detections in row positions: row i covers [i, i + 1], best first."""


@dataclass(frozen=True)
class ReActDecoding:
    """Post-processing of ReAct; the defaults are those of the released THUMOS14 model (section 6 of its sheet).

    `score_threshold` applies before Soft-NMS, `min_score` to the decayed scores. Soft-NMS is Gaussian, over all
    classes of a video together unless `class_agnostic` is off. `display_score` only says which segments a table shows.
    """

    score_threshold: float = 0.0
    sigma: float = 0.4
    min_score: float = 1e-6
    top_k: int = 1000
    class_agnostic: bool = True
    display_score: float = 0.3

    def rule(self) -> Nms:
        """The suppression these options ask for. Raises ValueError for values out of range."""
        return replace(
            REACT,
            sigma=self.sigma,
            min_score=self.min_score,
            top_k=self.top_k,
            class_agnostic=self.class_agnostic,
        )


class ReActDetector:
    """ReAct over overlapping windows, `batch` of them together, merged once per video.

    The batch is halved, from then on, when the device runs out of memory. `precision`: of most of the arithmetic,
    `float32` or `bf16`; segments and scores are float32.
    """

    def __init__(self, bundle: Bundle, device: str = "cpu", precision: str = "float32", *, batch: int = 16):
        config = known_fields(ReActConfig, bundle.head_config, f"bundle {bundle.name}: head_config")
        self.bundle, self.batch, self.device, self.precision = bundle, batch, torch.device(device), precision
        self.decoding = known_fields(ReActDecoding, bundle.decoding, f"bundle {bundle.name}: decoding")
        self.display_score = self.decoding.display_score
        self.warnings: tuple[str, ...] = ()
        if config.classes != len(bundle.classes) or config.in_channels != bundle.width:
            raise InputError(
                f"bundle {bundle.name}: a head of {config.in_channels} channels and {config.classes} classes does not "
                f"fit its {bundle.width} feature channels and {len(bundle.classes)} class names"
            )
        self.config = config
        self.network = ReAct(config).eval()
        load_exactly(self.network, released_state(bundle.head_weights))
        self.network.to(self.device)

    @torch.inference_mode()
    def __call__(self, values: np.ndarray, progress: Progress = no_progress) -> Detections:
        config = self.config
        rows = resized(values, config.clip_len) if config.resize else values
        windows = react_windows(len(rows), config.clip_len, config.stride_rate)
        segments, scores, done = [], [], 0
        self.warnings = ()
        while done < len(windows):
            chosen = windows[done : done + self.batch]
            found = self._windows(rows, chosen)
            if found is None:
                self._halve(len(chosen))
                continue
            segments.append(found[0])
            scores.append(found[1])
            done += len(chosen)
            progress(done, len(windows))
        merged = react_detections(
            np.concatenate(segments),
            np.concatenate(scores),
            windows,
            min_score=self.decoding.score_threshold,
            rule=self.decoding.rule(),
        )
        return merged._replace(segments=merged.segments * (len(values) / len(rows)))

    def _windows(self, rows: np.ndarray, windows: list[slice]) -> tuple[np.ndarray, np.ndarray] | None:
        """Segments (W, Q, 2) and scores (W, Q, classes) of some windows; None when they do not fit the memory."""
        first = windows[0].start
        covered = torch.from_numpy(np.array(rows[first : windows[-1].stop], dtype=np.float32))
        index = torch.tensor([window.start for window in windows])[:, None] - first + torch.arange(self.config.clip_len)
        index[index >= len(covered)] = -1  # only the last window of a video is short
        try:
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
                output = self.network.overlapping(covered.to(self.device), index.to(self.device)).single()
            return output.segments[-1].cpu().numpy(), output.scores().cpu().numpy()
        except RuntimeError as error:
            if not out_of_memory(error):
                raise
        return None

    def _halve(self, size: int) -> None:
        if size == 1:
            raise RunError(
                f"out of memory on {self.device} with a single window of {self.bundle.name}; free memory there or "
                "pass --device cpu"
            )
        self.batch = size // 2
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        self.warnings = (f"memory ran out on {self.device}: went on with {self.batch} windows at a time",)


DETECTORS: dict[str, Callable[[Bundle, str, str], TemporalDetector]] = {
    "react": ReActDetector,
    "actionformer": ActionFormerDetector,
}


def load_detector(bundle: Bundle, device: str = "cpu", precision: str = "float32") -> TemporalDetector:
    """The bundle's head with its weights, on `device`, in `precision` (`float32` or `bf16`).

    Raises InputError when the bundle does not fit together.
    """
    if bundle.head not in DETECTORS:
        raise InputError(f"bundle {bundle.name}: head {bundle.head!r} is none of {', '.join(sorted(DETECTORS))}")
    return DETECTORS[bundle.head](bundle, device, precision)


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
