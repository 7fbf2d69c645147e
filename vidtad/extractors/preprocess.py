"""How published pipelines bring a decoded frame to the size a network wants; they differ in the last digit or more.

| name | used by | filter | long side |
|---|---|---|---|
| opencv | mmaction2 (TSN) | OpenCV bilinear on uint8, no antialias | rounded half up |
| opencv-floor | PySlowFast | the same | truncated |
| torchvision | torchvision's video models | the same; an odd margin starts the crop rounded half to even | truncated |
| pillow | video_features (I3D), ACAR | Pillow bilinear on uint8, antialiased when shrinking | truncated |
| float | TSP | PyTorch bilinear on floats, no antialias, no rounding to grey levels | rounded half up |

Pillow's costs ten times OpenCV's and more, so a GPU does it where there is one, with the same pixels (`shrink`).
OpenCV's takes a processor about as long as handing the whole picture over would.
"""

import cv2
import numpy as np
import torch
import torch.nn.functional as F

from vidtad.errors import InputError
from vidtad.extractors.shrink import by_device, by_pillow

INTERPOLATIONS = ("opencv", "opencv-floor", "torchvision", "pillow", "float")
HALF_TO_EVEN = ("torchvision", "float")
"""Those whose crop begins at half an odd margin rounded half to even, others at its floor."""
_ROUNDED_UP = ("opencv", "float")
CPU = torch.device("cpu")
RESIZING = ("cuda",)
"""Kinds of devices that are given whole pictures to shrink."""


def target_size(height: int, width: int, resize: int | tuple[int, int], interpolation: str) -> tuple[int, int]:
    """(height, width) in pixels after resizing to a short side (aspect kept) or to an exact (height, width)."""
    if isinstance(resize, tuple):
        return resize
    short, long = sorted((height, width))
    if interpolation in _ROUNDED_UP:
        stretched = int(long * (resize / short) + 0.5)
    else:
        stretched = int(resize * long / short)
    return (resize, stretched) if height <= width else (stretched, resize)


def resized(rgb: np.ndarray, size: tuple[int, int], interpolation: str, device: torch.device = CPU) -> np.ndarray:
    """(H, W, 3) uint8 -> (*size, 3) uint8, or float32 in 0-255 for "float".

    `device` may be used to get there and changes nothing about the result.
    """
    height, width = size
    if interpolation == "pillow":
        if rgb.shape[:2] == size:
            return rgb
        smaller = rgb.shape[0] > height or rgb.shape[1] > width
        return by_device(rgb, size, device) if smaller and device.type in RESIZING else by_pillow(rgb, size)
    if interpolation == "float":
        return rgb.astype(np.float32) if rgb.shape[:2] == size else by_torch(rgb, size)
    if rgb.shape[:2] == size:
        return rgb
    return cv2.resize(rgb, (width, height), interpolation=cv2.INTER_LINEAR)


def by_torch(rgb: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(H, W, 3) uint8 -> (*size, 3) float32 in 0-255, bilinear.

    PyTorch places pixels in single precision, OpenCV in double: up to 0.02 grey levels apart where neighbours differ.
    """
    maps = torch.from_numpy(rgb.astype(np.float32)).permute(2, 0, 1)[None]
    return F.interpolate(maps, size=size, mode="bilinear", align_corners=False)[0].permute(1, 2, 0).numpy()


def centre_crop(picture: np.ndarray, side: int, *, half_to_even: bool = False) -> np.ndarray:
    """(H, W, 3) -> (side, side, 3), a view. An odd margin starts the crop at its floor, or rounded half to even.

    Raises InputError when the picture is smaller than the crop.
    """
    height, width = picture.shape[:2]
    if height < side or width < side:
        raise InputError(f"a {width}x{height} frame is smaller than the {side}-pixel crop the network wants")
    margins = ((height - side) / 2, (width - side) / 2)
    top, left = (round(margin) if half_to_even else int(margin) for margin in margins)
    return picture[top : top + side, left : left + side]
