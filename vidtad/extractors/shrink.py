"""Pillow's antialiased bilinear resizing in integers, on any device, equal to Pillow's own to the last bit.

Each output pixel is a weighted mean of the pixels under a triangle as wide as two output pixels (two input pixels when
enlarging), weights rounded to 22 bits, along one axis and then along the other, the picture between them in bytes.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from vidtad.errors import out_of_memory

BITS = 22
ORDERS = ((1, 0), (0, 1))
"""Lines first, as Pillow always did, or columns first, as it does since version 13 for some sizes."""


def by_pillow(rgb: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(H, W, 3) uint8 -> (*size, 3) uint8."""
    return np.asarray(Image.fromarray(rgb).resize((size[1], size[0]), Image.Resampling.BILINEAR))


def by_device(rgb: np.ndarray, size: tuple[int, int], device: torch.device) -> np.ndarray:
    """What `by_pillow` gives, computed on `device` whenever the two agree there, and by Pillow otherwise."""
    try:
        with _beside(device):
            order = order_of(rgb.shape[:2], size, device)  # type: ignore[arg-type]
            if order is not None:
                return antialiased(_uploaded(rgb, device), size, order).cpu().numpy()
    except RuntimeError as error:
        if not out_of_memory(error):
            raise
    return by_pillow(rgb, size)


@lru_cache(maxsize=64)
def order_of(shape: tuple[int, int], size: tuple[int, int], device: torch.device) -> tuple[int, int] | None:
    """The one of ORDERS in which this Pillow works between these sizes, found out on noise; None: in neither."""
    noise = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    expected, picture = by_pillow(noise, size), _uploaded(noise, device)
    for order in ORDERS:
        if np.array_equal(antialiased(picture, size, order).cpu().numpy(), expected):
            return order
    return None


def antialiased(picture: Tensor, size: tuple[int, int], order: tuple[int, int] = ORDERS[0]) -> Tensor:
    """(H, W, C) uint8 -> (*size, C) uint8, on the device of `picture`, along one axis of `order` after the other."""
    for axis in order:
        picture = _along(picture, axis, size[axis])
    return picture


def _along(picture: Tensor, axis: int, count: int) -> Tensor:
    if picture.shape[axis] == count:
        return picture
    shape = [1] * picture.ndim
    shape[axis] = count
    places, weights = _taps(picture.shape[axis], count, picture.device)
    total = torch.full((), 1 << (BITS - 1), dtype=torch.int32, device=picture.device)
    for place, weight in zip(places, weights, strict=True):
        total = total + picture.index_select(axis, place).int() * weight.view(shape)
    return (total >> BITS).clamp_(0, 255).to(torch.uint8)


@lru_cache(maxsize=32)
def _taps(size: int, count: int, device: torch.device) -> tuple[Tensor, Tensor]:
    places, weights = tap_table(size, count)
    return torch.from_numpy(places.T.copy()).to(device), torch.from_numpy(weights.T.copy()).to(device)


def tap_table(size: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """How `count` pixels are made of `size`: the pixels each reads (count, taps) int64, and their weights int32.

    Weights are in 2 ** -BITS; those of taps a pixel has no use for are 0.
    """
    scale = size / count
    reach = max(scale, 1.0)
    centres = (np.arange(count) + 0.5) * scale
    first = np.maximum((centres - reach + 0.5).astype(np.int64), 0)
    behind = np.minimum((centres + reach + 0.5).astype(np.int64), size)
    places = first[:, None] + np.arange(int((behind - first).max()))
    # In Pillow's order of operations, since weights are rounded at the end.
    distances = np.abs((places - centres[:, None] + 0.5) * (1.0 / reach))
    weights = np.where((places < behind[:, None]) & (distances < 1), 1 - distances, 0.0)
    total = np.zeros(count)
    for column in weights.T:
        total += column
    weights /= total[:, None]
    return np.minimum(places, size - 1), (weights * (1 << BITS) + 0.5).astype(np.int32)


def _uploaded(rgb: np.ndarray, device: torch.device) -> Tensor:
    # PyTorch warns of arrays that cannot be written to, as decord's are.
    picture = torch.from_numpy(np.require(rgb, requirements=("C", "W")))
    return picture.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else picture.to(device)


@contextmanager
def _beside(device: torch.device) -> Iterator[None]:
    """Work given to a GPU in here does not wait for what the network has queued there."""
    if device.type != "cuda":
        yield
    else:
        with torch.cuda.stream(_stream(device)):
            yield


@lru_cache
def _stream(device: torch.device) -> "torch.cuda.Stream":
    return torch.cuda.Stream(device)
