"""Geometry of segments on the time axis, for arrays of NumPy and tensors of torch alike.

A segment is a row of two numbers, either (start, end) or (mid, len), in any unit both sides share. Importing
this module does not import torch.
"""

from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

if TYPE_CHECKING:
    import torch

Array = TypeVar("Array", np.ndarray, "torch.Tensor")


def _stack(first: Array, second: Array) -> Array:
    if isinstance(first, np.ndarray):
        return np.stack([first, second], axis=-1)
    import torch

    return torch.stack([first, second], dim=-1)


def _extrema(module_of: Any) -> tuple[Any, Any]:
    if isinstance(module_of, np.ndarray):
        return np.minimum, np.maximum
    import torch

    return torch.minimum, torch.maximum


def start_end(segments: Array) -> Array:
    """(mid, len) -> (start, end) over the last axis; (..., 2) -> (..., 2)."""
    mid, half = segments[..., 0], segments[..., 1] / 2
    return _stack(mid - half, mid + half)


def mid_len(segments: Array) -> Array:
    """(start, end) -> (mid, len) over the last axis; (..., 2) -> (..., 2)."""
    start, end = segments[..., 0], segments[..., 1]
    return _stack((start + end) / 2, end - start)


def overlap_and_union(a: Array, b: Array) -> tuple[Array, Array]:
    """Lengths of intersection and union of (start, end) segments, broadcast: (..., 2), (..., 2) -> (...)."""
    minimum, maximum = _extrema(a)
    overlap = (minimum(a[..., 1], b[..., 1]) - maximum(a[..., 0], b[..., 0])).clip(min=0)
    return overlap, (a[..., 1] - a[..., 0]) + (b[..., 1] - b[..., 0]) - overlap


def temporal_iou(a: Array, b: Array, epsilon: float = 1e-6) -> Array:
    """Temporal IoU of (start, end) segments, broadcast elementwise: overlap / (union + epsilon)."""
    overlap, union = overlap_and_union(a, b)
    return overlap / (union + epsilon)


def pairwise_iou(a: Array, b: Array, epsilon: float = 1e-6) -> Array:
    """Temporal IoU of every pair: (..., n, 2), (..., m, 2) -> (..., n, m)."""
    return temporal_iou(a[..., :, None, :], b[..., None, :, :], epsilon)


def temporal_giou(a: Array, b: Array, epsilon: float = 1e-6) -> Array:
    """Generalised temporal IoU (Rezatofighi et al., CVPR 2019), elementwise, in (-1, 1].

    overlap / (union + epsilon) - (hull - union) / (hull + epsilon), where the hull is the smallest segment
    that covers both.
    """
    minimum, maximum = _extrema(a)
    overlap, union = overlap_and_union(a, b)
    hull = maximum(a[..., 1], b[..., 1]) - minimum(a[..., 0], b[..., 0])
    return overlap / (union + epsilon) - (hull - union) / (hull + epsilon)
