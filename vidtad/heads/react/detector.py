"""ReAct as a detector: overlapping windows, merged once per video."""

import numpy as np
import torch

from vidtad.errors import InputError, RunError, out_of_memory
from vidtad.heads.react.decoding import ReActDecoding, react_detections
from vidtad.heads.react.windows import react_windows
from vidtad.hub.bundle import Bundle
from vidtad.hub.fields import known_fields
from vidtad.models.loading import load_exactly
from vidtad.models.react import ReAct, ReActConfig, released_state
from vidtad.postprocess import Detections
from vidtad.progress import Progress, no_progress
from vidtad.windows import resized


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
