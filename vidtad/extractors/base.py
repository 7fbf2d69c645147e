"""A clip network together with the frames it wants: how many, how far apart, what size, what scale."""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import Any, Protocol, cast

import numpy as np
import torch
from torch import Tensor, nn

from vidtad.errors import InputError
from vidtad.extractors.preprocess import HALF_TO_EVEN, INTERPOLATIONS, centre_crop, resized, target_size
from vidtad.models.fold import for_inference

PRECISIONS = {"float32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
"""Names of the number formats a network may compute in."""
LEVELS = ("denseflow", "video_features")
"""Names of the rules that turn flow into grey levels: rest between 127 and 128 and rounded to it, or at 128."""
CPU_FRAMES = 64
"""Frames a network is shown at once on a CPU; a window of more is shown by itself."""


@dataclass(frozen=True)
class ClipConvention:
    """What a clip network is fed. Sizes in pixels, window and stride in frames.

    `fps` None means the video's own rate; a rate resamples on the time line first. `resize` is the short side
    (aspect kept) or an exact (height, width), `interpolation` one of `preprocess.INTERPOLATIONS`. `mean` and `std`
    are on the 0-255 scale, RGB order. `picks` are the frames of a window the network is shown (None: all). `flow`
    is the method of `vidtad.flow` where the network sees flow. The last windows may end up to `tail` frames beyond the
    video, whose last frame is repeated. With `paired`, the last frame, which begins no pair, is left out
    of RGB as it is of flow. `levels` is the rule of `LEVELS` that turns flow into grey levels.
    """

    window: int
    stride: int
    fps: Fraction | None
    resize: int | tuple[int, int]
    crop: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    channels: tuple[tuple[str, int], ...]
    interpolation: str = "opencv"
    picks: tuple[int, ...] | None = None
    flow: str | None = None
    tail: int = 0
    paired: bool = False
    levels: str = "denseflow"

    def __post_init__(self) -> None:
        if self.window < 1 or self.stride < 1:
            raise InputError(f"window {self.window} and stride {self.stride} must be at least 1 frame")
        if not 0 <= self.tail < self.window:
            raise InputError(f"a window of {self.window} frames cannot lie {self.tail} frames beyond a video")
        if self.fps is not None and self.fps <= 0:
            raise InputError(f"frame rate {self.fps} must be above 0")
        if self.picks is not None and not all(0 <= pick < self.window for pick in self.picks):
            raise InputError(f"a window of {self.window} frames has no frame {max(self.picks)}")
        if self.interpolation not in INTERPOLATIONS:
            known = ", ".join(INTERPOLATIONS)
            raise InputError(f"no interpolation is called {self.interpolation!r}; there are {known}")
        if self.levels not in LEVELS:
            raise InputError(f"no levels of flow are called {self.levels!r}; there are {', '.join(LEVELS)}")

    @property
    def width(self) -> int:
        """Channels of one feature row."""
        return sum(count for _, count in self.channels)

    @property
    def shown(self) -> tuple[int, ...]:
        """The frames of a window the network is shown."""
        return tuple(range(self.window)) if self.picks is None else self.picks

    def to_json(self) -> dict[str, Any]:
        """The settings a sidecar or a bundle records."""
        return {
            "window": self.window,
            "stride": self.stride,
            "fps": None if self.fps is None else str(self.fps),
            "resize": self.resize,
            "crop": self.crop,
            "interpolation": self.interpolation,
            "mean": list(self.mean),
            "std": list(self.std),
            "picks": None if self.picks is None else list(self.picks),
            "flow": self.flow,
            "tail": self.tail,
            "channels": [list(block) for block in self.channels],
            **({"paired": True} if self.paired else {}),
            **({} if self.levels == "denseflow" else {"levels": self.levels}),
        }


class TimedFrame(Protocol):
    """A decoded frame: seconds from the first frame, and its picture when asked."""

    @property
    def time_s(self) -> float:
        """Seconds."""

    def rgb(self) -> np.ndarray:
        """(H, W, 3) uint8."""


class ClipNetwork(Protocol):
    """What an extractor asks of a network (a `torch.nn.Module`)."""

    def features(self, clips: Tensor) -> Tensor:
        """clips (B, 3, T, H, W) float32, normalised -> (B, C) float32."""


class Extractor(Protocol):
    """What streaming asks of an extractor; `ClipExtractor` and `TwoStream` are ones."""

    name: str
    convention: ClipConvention
    device: torch.device

    def frames(self, frames: Iterable[TimedFrame], wanted: "Wanted") -> Iterable[TimedFrame]:
        """The frames windows are cut from; of those that are not `wanted` by number, pictures are seldom asked."""

    def prepare(self, rgb: np.ndarray) -> np.ndarray:
        """A frame's picture as clips hold it."""

    def rows(self, pictures: np.ndarray, index: np.ndarray) -> Tensor:
        """pictures (N, h, w, channels), of which clip b shows `index[b]` (B, T) int64 -> (B, C) float32."""

    def settings(self) -> dict[str, Any]:
        """Everything besides weights and video that decides the rows, as plain JSON values."""


Wanted = Callable[[int], bool]
"""Whether the frame of this number will be shown to the network."""


def exact(device: torch.device, dtype: torch.dtype) -> "AbstractContextManager[object]":
    """Where convolutions in float32 keep all its bits: by default PyTorch lets a GPU drop 13 of 23 (TF32)."""
    if device.type != "cuda" or dtype != torch.float32:
        return nullcontext()
    return torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=False, allow_tf32=False)


class ClipExtractor:
    """Frames to feature rows with one clip network, on one device, in evaluation mode.

    `network` is copied for inference: batch norm folded into the convolutions, channels last, and its weights in
    `precision`, one of PRECISIONS. In "float32", rows agree between devices and batches to about 1e-6 of the largest
    value; the shorter formats hold 8 (bf16) or 11 (fp16) significant bits in weights and activations.
    """

    def __init__(
        self,
        name: str,
        convention: ClipConvention,
        network: nn.Module,
        device: str = "cpu",
        precision: str = "float32",
    ):
        if precision not in PRECISIONS:
            raise InputError(f"no precision is called {precision!r}; there are {', '.join(PRECISIONS)}")
        self.name, self.convention, self.precision = name, convention, precision
        self.device = torch.device(device)
        self.network = for_inference(network, PRECISIONS[precision]).to(self.device)
        self._mean = torch.tensor(convention.mean, device=self.device)
        self._std = torch.tensor(convention.std, device=self.device)

    def frames(self, frames: Iterable[TimedFrame], wanted: Wanted = lambda number: True) -> Iterable[TimedFrame]:
        """The frames windows are cut from: the decoded ones, or what a kind of extractor makes of them."""
        return (first for first, _ in pairwise(frames)) if self.convention.paired else frames

    def prepare(self, rgb: np.ndarray) -> np.ndarray:
        """(H, W, 3) uint8 RGB -> (crop, crop, 3): resized, centre crop; uint8, or float32 in 0-255 for "float"."""
        settings = self.convention
        height, width = target_size(rgb.shape[0], rgb.shape[1], settings.resize, settings.interpolation)
        size = max(height, settings.crop), max(width, settings.crop)
        picture = resized(rgb, size, settings.interpolation, self.device)
        cropped = centre_crop(picture, settings.crop, half_to_even=settings.interpolation in HALF_TO_EVEN)
        return np.ascontiguousarray(cropped)

    def settings(self) -> dict[str, Any]:
        """The convention and the precision, as a sidecar records them."""
        return {**self.convention.to_json(), "precision": self.precision}

    def normalise(self, pictures: np.ndarray) -> Tensor:
        """Prepared pictures (..., T, h, w, C) -> (..., C, T, h, w) on the device, in the network's number format.

        The bytes are uploaded as they are and scaled on the device, in float32.
        """
        batch = torch.from_numpy(pictures)
        if self.device.type == "cuda":
            batch = batch.pin_memory()
        batch = batch.to(self.device, non_blocking=True).float()
        # Line by line: a CPU is slow at rows of two or three channels.
        width = batch.shape[-2]
        lines = batch.flatten(-2).sub(self._mean.repeat(width)).div_(self._std.repeat(width))
        batch = lines.unflatten(-1, (width, -1))
        return batch.to(PRECISIONS[self.precision]).movedim(-1, -4)

    @torch.inference_mode()
    def rows(self, pictures: np.ndarray, index: np.ndarray) -> Tensor:
        """pictures (N, h, w, channels), of which clip b shows `index[b]` (B, T) int64 -> (B, C) float32, on the device.

        Every picture is uploaded and scaled once, however many clips show it.
        """
        frames = self.normalise(pictures)
        starts, window = index[:, 0], index.shape[1]
        with exact(self.device, PRECISIONS[self.precision]):
            sharing = getattr(self.network, "window_features", None)
            if sharing is not None and (index == starts[:, None] + np.arange(window)).all():
                shared = sharing(frames, starts.tolist(), window)
                if shared is not None:
                    return shared.float()
            # A CPU gains nothing by more frames at once, and their maps take memory.
            at_once = max(1, CPU_FRAMES // window) if self.device.type == "cpu" else len(index)
            parts = [self._features(frames, index[first : first + at_once]) for first in range(0, len(index), at_once)]
            return torch.cat(parts)

    def _features(self, frames: Tensor, index: np.ndarray) -> Tensor:
        clips = frames.movedim(0, -1)[torch.from_numpy(index).to(self.device)].movedim(-1, 1)
        return cast(ClipNetwork, self.network).features(clips).float()

    def __call__(self, clips: np.ndarray) -> np.ndarray:
        """clips (B, window, crop, crop, 3) prepared frames -> (B, C) float32."""
        index = np.arange(clips.shape[0] * clips.shape[1]).reshape(clips.shape[:2])
        shown = index if self.convention.picks is None else index[:, list(self.convention.picks)]
        return self.rows(clips.reshape(-1, *clips.shape[2:]), shown).cpu().numpy()
