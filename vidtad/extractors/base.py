"""A clip network together with the frames it wants: how many, how far apart, what size, what scale."""

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Protocol, cast

import numpy as np
import torch
from torch import Tensor, nn

from vidtad.errors import InputError
from vidtad.extractors.preprocess import INTERPOLATIONS, centre_crop, resized, target_size
from vidtad.models.fold import channels_last, fold_batch_norm


@dataclass(frozen=True)
class ClipConvention:
    """What a clip network is fed. Sizes in pixels, window and stride in frames.

    `fps` None means the video's own rate; a rate resamples on the time line first. `resize` is the short side
    (aspect kept) or an exact (height, width), `interpolation` one of `preprocess.INTERPOLATIONS`. `mean` and `std`
    are on the 0-255 scale, RGB order. `picks` are the frames of a window the network is shown (None: all). `flow`
    is the method of `vidtad.flow` where the network sees flow.
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

    def __post_init__(self) -> None:
        if self.window < 1 or self.stride < 1:
            raise InputError(f"window {self.window} and stride {self.stride} must be at least 1 frame")
        if self.fps is not None and self.fps <= 0:
            raise InputError(f"frame rate {self.fps} must be above 0")
        if self.picks is not None and not all(0 <= pick < self.window for pick in self.picks):
            raise InputError(f"a window of {self.window} frames has no frame {max(self.picks)}")
        if self.interpolation not in INTERPOLATIONS:
            known = ", ".join(INTERPOLATIONS)
            raise InputError(f"no interpolation is called {self.interpolation!r}; there are {known}")

    @property
    def width(self) -> int:
        """Channels of one feature row."""
        return sum(count for _, count in self.channels)

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
            "channels": [list(block) for block in self.channels],
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

    def frames(self, frames: Iterable[TimedFrame]) -> Iterable[TimedFrame]:
        """The frames windows are cut from."""

    def prepare(self, rgb: np.ndarray) -> np.ndarray:
        """A frame's picture as clips hold it."""

    def __call__(self, clips: np.ndarray) -> np.ndarray:
        """clips (B, window, h, w, channels) -> (B, C) float32."""


class ClipExtractor:
    """Frames to feature rows with one clip network, on one device, in evaluation mode.

    `network` is copied for inference: batch norm folded into the convolutions, channels last.
    """

    def __init__(self, name: str, convention: ClipConvention, network: nn.Module, device: str = "cpu"):
        self.name, self.convention = name, convention
        self.device = torch.device(device)
        self.network = channels_last(fold_batch_norm(network)).to(self.device)
        self._mean = torch.tensor(convention.mean, device=self.device).view(1, -1, 1, 1, 1)
        self._std = torch.tensor(convention.std, device=self.device).view(1, -1, 1, 1, 1)

    def frames(self, frames: Iterable[TimedFrame]) -> Iterable[TimedFrame]:
        """The frames windows are cut from: the decoded ones, or what a kind of extractor makes of them."""
        return frames

    def prepare(self, rgb: np.ndarray) -> np.ndarray:
        """(H, W, 3) uint8 RGB -> (crop, crop, 3): resized, centre crop; uint8, or float32 in 0-255 for "float"."""
        settings = self.convention
        height, width = target_size(rgb.shape[0], rgb.shape[1], settings.resize, settings.interpolation)
        size = max(height, settings.crop), max(width, settings.crop)
        picture = resized(rgb, size, settings.interpolation)
        cropped = centre_crop(picture, settings.crop, half_to_even=settings.interpolation == "float")
        return np.ascontiguousarray(cropped)

    def normalise(self, clips: np.ndarray) -> Tensor:
        """clips (B, T, crop, crop, 3) prepared frames -> (B, 3, T, crop, crop) float32 on the device."""
        batch = torch.from_numpy(clips).to(self.device, non_blocking=True)
        return batch.permute(0, 4, 1, 2, 3).float().sub_(self._mean).div_(self._std)

    @torch.inference_mode()
    def __call__(self, clips: np.ndarray) -> np.ndarray:
        """clips (B, window, crop, crop, 3) prepared frames -> (B, C) float32."""
        if self.convention.picks is not None:
            clips = clips[:, list(self.convention.picks)]
        return cast(ClipNetwork, self.network).features(self.normalise(clips)).float().cpu().numpy()
