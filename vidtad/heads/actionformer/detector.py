"""ActionFormer as a detector: a whole video in one go, in memory that does not grow with its length."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch

from vidtad.errors import InputError, RunError, out_of_memory
from vidtad.heads.actionformer.presets import ActionFormerDecoding
from vidtad.hub.bundle import Bundle
from vidtad.hub.fields import known_fields
from vidtad.models.actionformer import ActionFormer
from vidtad.models.actionformer_config import ActionFormerConfig
from vidtad.models.actionformer_keys import released_state
from vidtad.models.loading import load_exactly
from vidtad.postprocess import Detections, point_candidates, soft_nms
from vidtad.progress import Progress, no_progress
from vidtad.windows import from_resized, resized

PIECE = 16384
"""Rows that one pass answers for; to either side it also reads what the network's reach asks for."""
SMALLEST = 256
"""Rows of a piece below which less memory would not be needed: what lies to either side is read too."""
ROWS = 256
"""Feature rows in memory at a time."""


class Points(NamedTuple):
    """Predictions at the valid points of each level: `scores` (T_l, classes) in 0-1, `offsets` (T_l, 2) in strides."""

    scores: list[np.ndarray]
    offsets: list[np.ndarray]


class ActionFormerDetector:
    """ActionFormer over the whole sequence, piece by piece, with the results of a single pass.

    `precision`: of weights and activations, `float32` or `bf16`; what comes out is float32.
    """

    def __init__(self, bundle: Bundle, device: str = "cpu", precision: str = "float32", *, piece: int = PIECE):
        config = known_fields(ActionFormerConfig, bundle.head_config, f"bundle {bundle.name}: head_config")
        self.bundle, self.device, self.precision, self.piece = bundle, torch.device(device), precision, piece
        self.decoding: ActionFormerDecoding = known_fields(
            ActionFormerDecoding, bundle.decoding, f"bundle {bundle.name}: decoding"
        )
        self.display_score = self.decoding.display_score
        self.warnings: tuple[str, ...] = ()
        if config.classes != len(bundle.classes) or config.inputs != bundle.width:
            raise InputError(
                f"bundle {bundle.name}: a head of {config.inputs} channels and {config.classes} classes does not "
                f"fit its {bundle.width} feature channels and {len(bundle.classes)} class names"
            )
        network = ActionFormer(config)
        load_exactly(network, released_state(bundle.head_weights))
        self.network = network.eval().to(self.device, torch.bfloat16 if precision == "bf16" else torch.float32)

    def __call__(self, values: np.ndarray, progress: Progress = no_progress) -> Detections:
        config, decoding = self.network.config, self.decoding
        rows = resized(values, config.max_len) if config.resize else values
        points = self._points(rows, progress)
        found = point_candidates(
            points.scores,
            points.offsets,
            min_score=decoding.score_threshold,
            top_k=decoding.candidates,
            min_length=decoding.min_length,
            pooled=decoding.pooled,
        )
        kept = soft_nms(*found, decoding.rule())
        segments = kept.segments.astype(np.float64)
        if config.resize:
            overlap = self.bundle.sampling["window"] / self.bundle.sampling["stride"]
            return kept._replace(segments=from_resized(segments, len(values), config.max_len, overlap) + 0.5)
        # A released step lies at the centre of its window, where row i covers [i, i + 1].
        return kept._replace(segments=segments + 0.5)

    def _points(self, rows: np.ndarray, progress: Progress) -> Points:
        """Predictions for all rows, in pieces half as long, from then on, when the device runs out of memory."""
        self.warnings = ()
        while True:
            try:
                return predict_points(self.network, rows, self.device, self.piece, progress)
            except RuntimeError as error:
                if not out_of_memory(error):
                    raise
            self.piece = min(self.piece, len(rows)) // 2
            if self.piece < SMALLEST or self.network.config.reach is None:
                raise RunError(
                    f"out of memory on {self.device} with {len(rows)} feature rows of {self.bundle.name}; free memory "
                    "there or pass --device cpu"
                )
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            self.warnings = (f"memory ran out on {self.device}: went on with pieces of {self.piece} rows",)


@torch.inference_mode()
def predict_points(
    network: ActionFormer,
    values: np.ndarray,
    device: torch.device = torch.device("cpu"),
    piece: int = PIECE,
    progress: Progress = no_progress,
) -> Points:
    """Scores and offsets of a video's rows (T, C), computed `piece` rows at a time.

    Equal to one pass over the whole, because each piece is read together with everything its outputs depend on; a
    network that attends to everything takes the whole at once. `values` may be memory-mapped.
    """
    config, steps = network.config, len(values)
    total = config.padded_length(steps)
    parts: list[tuple[list[np.ndarray], list[np.ndarray]]] = [([], []) for _ in config.ranges]
    for own, read in pieces(config, total, piece):
        if own.start >= steps:
            break  # nothing but padding
        mask = (torch.arange(read.start, read.stop)[None] >= steps).to(device)
        output = network.detect(embedded(network, values, read, total, device), mask).single()
        for level, stride in enumerate(config.strides):
            last = min(own.stop, steps)
            kept = slice((own.start - read.start) // stride, -(-(last - read.start) // stride))
            parts[level][0].append(output.logits[level][0, kept].sigmoid().cpu().numpy())
            parts[level][1].append(output.offsets[level][0, kept].cpu().numpy())
        progress(min(own.stop, steps), steps)
    return Points([np.concatenate(scores) for scores, _ in parts], [np.concatenate(offsets) for _, offsets in parts])


def embedded(network: ActionFormer, values: np.ndarray, read: slice, total: int, device: torch.device) -> torch.Tensor:
    """(1, rows, D) of the rows `read` of a video padded to `total`, with few feature rows in memory at a time."""
    config, steps = network.config, len(values)
    margin = config.embedding_layers * (config.kernel // 2)
    dtype = next(network.parameters()).dtype
    result = torch.empty(1, read.stop - read.start, config.channels, device=device, dtype=dtype)
    for start in range(read.start, read.stop, ROWS):
        stop = min(start + ROWS, read.stop)
        left, right = max(start - margin, 0), min(stop + margin, total)
        features = np.zeros((1, right - left, config.inputs), dtype=np.float32)
        features[0, : max(min(right, steps) - left, 0)] = values[left : min(right, steps)]
        mask = torch.arange(left, right)[None] >= steps
        # The position embedding of a long video is stretched over the length that the released code pads to.
        whole = config.official_length(steps)
        part = network.embed(torch.from_numpy(features).to(device, dtype), mask.to(device), left, whole)
        result[:, start - read.start : stop - read.start] = part[:, start - left : stop - left]
    return result


def pieces(config: ActionFormerConfig, total: int, piece: int = PIECE) -> Iterator[tuple[slice, slice]]:
    """Steps that each pass answers for, and those it reads, of `total`; all multiples of the last stride."""
    coarsest = config.strides[-1]
    margin = 0 if config.reach is None else -(-config.reach // coarsest) * coarsest
    size = -(-piece // coarsest) * coarsest
    if config.reach is None or total <= size + 2 * margin:
        size = total
    for start in range(0, total, size):
        stop = min(start + size, total)
        yield slice(start, stop), slice(max(start - margin, 0), min(stop + margin, total))
