"""A clip network together with the frames it wants: how many, how far apart, what size, what scale."""

from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Protocol

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from vidtad.errors import InputError
from vidtad.models.fold import channels_last, fold_batch_norm


@dataclass(frozen=True)
class ClipConvention:
    """What a clip network is fed. Sizes in pixels, window and stride in frames.

    `fps` None means the video's own rate; a rate resamples on the time line first. `resize` is the short side
    (aspect kept) or an exact (height, width). `mean` and `std` are on the 0-255 scale, RGB order.
    """

    window: int
    stride: int
    fps: Fraction | None
    resize: int | tuple[int, int]
    crop: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    channels: tuple[tuple[str, int], ...]

    def __post_init__(self) -> None:
        if self.window < 1 or self.stride < 1:
            raise InputError(f"window {self.window} and stride {self.stride} must be at least 1 frame")
        if self.fps is not None and self.fps <= 0:
            raise InputError(f"frame rate {self.fps} must be above 0")

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
            "mean": list(self.mean),
            "std": list(self.std),
            "channels": [list(block) for block in self.channels],
        }


class ClipNetwork(Protocol):
    """What an extractor asks of a network (a `torch.nn.Module`)."""

    def features(self, clips: Tensor) -> Tensor:
        """clips (B, 3, T, H, W) float32, normalised -> (B, C) float32."""


class ClipExtractor:
    """Frames to feature rows with one clip network, on one device, in evaluation mode.

    `network` is copied for inference: batch norm folded into the convolutions, channels last.
    """

    def __init__(self, name: str, convention: ClipConvention, network: nn.Module, device: str = "cpu"):
        self.name, self.convention = name, convention
        self.device = torch.device(device)
        self.network = channels_last(fold_batch_norm(network)).to(self.device)
        self._mean = torch.tensor(convention.mean, device=self.device).view(1, 3, 1, 1, 1)
        self._std = torch.tensor(convention.std, device=self.device).view(1, 3, 1, 1, 1)

    def prepare(self, rgb: np.ndarray) -> np.ndarray:
        """(H, W, 3) uint8 RGB -> (crop, crop, 3) uint8: resized (OpenCV bilinear), centre crop."""
        height, width = rgb.shape[:2]
        crop = self.convention.crop
        if isinstance(self.convention.resize, tuple):
            target_h, target_w = self.convention.resize
        else:
            scale = self.convention.resize / min(height, width)
            target_h, target_w = (max(crop, int(side * scale + 0.5)) for side in (height, width))
        if (target_h, target_w) != (height, width):
            rgb = cv2.resize(rgb, (target_w, target_h), interpolation=cv2.INTER_LINEAR)
        top, left = (target_h - crop) // 2, (target_w - crop) // 2
        return np.ascontiguousarray(rgb[top : top + crop, left : left + crop])

    @torch.inference_mode()
    def __call__(self, clips: np.ndarray) -> np.ndarray:
        """clips (B, window, crop, crop, 3) uint8 prepared frames -> (B, C) float32."""
        batch = torch.from_numpy(clips).to(self.device, non_blocking=True)
        batch = batch.permute(0, 4, 1, 2, 3).float()  # (B, 3, T, H, W)
        batch.sub_(self._mean).div_(self._std)
        return self.network.features(batch).float().cpu().numpy()
