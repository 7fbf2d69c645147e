"""TV-L1 optical flow for many pairs at once (Zach et al., DAGM 2007; numerical scheme of Sánchez et al., IPOL 2013).

The arithmetic is that of OpenCV's DualTVL1OpticalFlow, down to the order of sums: on a CPU the results are those of
OpenCV 5, bit for bit. Pairs stop one by one, so a pair's result does not depend on its neighbours in the batch.
Coordinates of warps are exact, as in OpenCV 5 (OpenCV 4 rounds them to 1/32 pixel).
"""

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from vidtad.errors import InputError

MIN_SIDE = 16
FLAT = float(np.finfo(np.float32).eps)
"""Where the squared gradient is no larger the picture counts as flat."""
# How many iterations run between two looks at which pairs are done: a look waits for the device.
_LOOK_EVERY = 5
# OpenCV 4 rounds coordinates to 1/32 pixel when it remaps.
EXACT_REMAP = int(cv2.__version__.split(".")[0]) >= 5


@dataclass(frozen=True)
class TvL1:
    """Settings of TV-L1, OpenCV's defaults: `lambda_` weighs the brightness term and belongs to 0-255 intensities.

    Per level `warps` warps, each with at most `outer` rounds of a `median`-wide filter (1: none) and at most `inner`
    iterations, ended early when the mean squared update falls to `epsilon` squared (0: never).
    """

    tau: float = 0.25
    lambda_: float = 0.15
    theta: float = 0.3
    scales: int = 5
    warps: int = 5
    epsilon: float = 0.01
    inner: int = 30
    outer: int = 10
    scale_step: float = 0.8
    median: int = 5

    def __post_init__(self) -> None:
        if self.median not in (1, 3, 5) or not 0 < self.scale_step < 1 or min(self.scales, self.warps) < 1:
            raise InputError(
                "TV-L1 wants a median of 1, 3 or 5, a scale step between 0 and 1, and scales and warps from 1"
            )


CUDA_LIKE = TvL1(inner=300, outer=1, median=1)
"""What denseflow runs: plain iterations, no median filter."""


def tvl1(first: Tensor, second: Tensor, settings: TvL1 | None = None) -> Tensor:
    """Flow from `first` to `second`: grey pictures (B, H, W) in 0-255 -> (B, H, W, 2) float32, x then y, in pixels.

    Runs on the device of `first`. Raises InputError when the shapes differ.
    """
    settings = settings or TvL1()
    if first.shape != second.shape or first.ndim != 3:
        raise InputError(
            f"optical flow wants two (B, H, W) batches of one size, not {list(first.shape)} and {list(second.shape)}"
        )
    levels = _pyramid(torch.stack([first, second], dim=1).float(), settings)
    flow = levels[-1].new_zeros(len(first), 2, *levels[-1].shape[2:])
    for level in reversed(levels):
        if flow.shape[2:] != level.shape[2:]:
            flow = _resize(flow, (level.shape[2], level.shape[3])) * (1 / settings.scale_step)
        flow = _solve(level[:, 0], level[:, 1], flow, settings)
    return flow.permute(0, 2, 3, 1).contiguous()


def _pyramid(pictures: Tensor, settings: TvL1) -> list[Tensor]:
    levels = [pictures]
    while len(levels) < settings.scales:
        height, width = (round(side * settings.scale_step) for side in levels[-1].shape[2:])
        if min(height, width) < MIN_SIDE:
            break
        levels.append(_resize(levels[-1], (height, width), 1 / settings.scale_step))
    return levels


def _resize(maps: Tensor, size: tuple[int, int], step: float | None = None) -> Tensor:
    """Bilinear, pixel centres at halves, edges repeated; `step` source pixels per target pixel (None: the ratio)."""
    for axis in (3, 2):
        old, new = maps.shape[axis], size[axis - 2]
        position = ((torch.arange(new, dtype=torch.float64) + 0.5) * (step or old / new) - 0.5).clamp(0, old - 1)
        below = position.floor()
        share = (position - below).to(maps).view(-1, 1) if axis == 2 else (position - below).to(maps)
        index = below.long().to(maps.device)
        near = maps.index_select(axis, index)
        far = maps.index_select(axis, (index + 1).clamp(max=old - 1))
        maps = torch.addcmul(near, far - near, share)
    return maps


def _solve(first: Tensor, second: Tensor, flow: Tensor, settings: TvL1) -> Tensor:
    """One pyramid level: pictures (B, H, W) and a flow (B, 2, H, W) to start from -> the refined flow."""
    height, width = first.shape[1:]
    padded = F.pad(second[:, None], (1, 1, 1, 1), mode="replicate")[:, 0]
    across = 0.5 * (padded[:, 1:-1, 2:] - padded[:, 1:-1, :-2])
    down = 0.5 * (padded[:, 2:, 1:-1] - padded[:, :-2, 1:-1])
    sampled = torch.stack([second, across, down], dim=1)
    dual = flow.new_zeros(len(flow), 2, 2, height, width)
    for _ in range(settings.warps):
        warped = warp(sampled, flow)
        gradient = warped[:, 1:]
        square = gradient[:, 0] * gradient[:, 0] + gradient[:, 1] * gradient[:, 1]
        # The order of every sum from here on is OpenCV's: the threshold in _iterate amplifies rounding.
        constant = warped[:, 0] - gradient[:, 0] * flow[:, 0] - gradient[:, 1] * flow[:, 1] - first
        flow, dual = _relax(flow, dual, gradient, constant, square, settings)
    return flow


def warp(maps: Tensor, flow: Tensor) -> Tensor:
    """maps (B, C, H, W) at positions moved by `flow` (B, 2, H, W): bicubic with A = -0.75, zero outside."""
    if maps.device.type == "cpu" and EXACT_REMAP:
        return _warp_opencv(maps, flow)
    return warp_by_gathering(maps, flow)


def _warp_opencv(maps: Tensor, flow: Tensor) -> Tensor:
    height, width = maps.shape[2:]
    x = flow[:, 0].numpy() + np.arange(width, dtype=np.float32)
    y = flow[:, 1].numpy() + np.arange(height, dtype=np.float32)[:, None]
    warped = [
        [cv2.remap(plane, x[i], y[i], cv2.INTER_CUBIC, borderMode=cv2.BORDER_CONSTANT) for plane in planes]
        for i, planes in enumerate(maps.numpy())
    ]
    return torch.from_numpy(np.array(warped))


def warp_by_gathering(maps: Tensor, flow: Tensor) -> Tensor:
    """As `warp`, on any device."""
    height, width = maps.shape[2:]
    columns, across = _taps(torch.arange(width, device=maps.device, dtype=maps.dtype), flow[:, 0], width)
    rows, down = _taps(torch.arange(height, device=maps.device, dtype=maps.dtype)[:, None], flow[:, 1], height)
    # torch's grid_sample has the same kernel, but scaling coordinates to -1..1 and back costs digits that the
    # threshold of the solver then amplifies.
    flat = F.pad(maps, (1, 1, 1, 1)).flatten(2)
    result = torch.zeros_like(maps)
    for row, weight_down in zip(rows, down, strict=True):
        line = torch.zeros_like(maps)
        for column, weight_across in zip(columns, across, strict=True):
            index = (row * (width + 2) + column).flatten(1)[:, None].expand(-1, maps.shape[1], -1)
            line += flat.gather(2, index).view(maps.shape) * weight_across[:, None]
        result += line * weight_down[:, None]
    return result


def _taps(start: Tensor, moved: Tensor, side: int) -> tuple[list[Tensor], list[Tensor]]:
    """Indices (into an axis with one zero at each end) and weights of the four taps of cubic convolution."""
    position = start + moved
    base = position.floor()
    # Float32 polynomials lose two digits by cancellation.
    share = (position - base).to(torch.float32 if moved.device.type == "mps" else torch.float64)
    a = -0.75  # Keys' parameter as OpenCV has it
    far, near = share + 1, 1 - share
    first = ((a * far - 5 * a) * far + 8 * a) * far - 4 * a
    second = ((a + 2) * share - (a + 3)) * share * share + 1
    third = ((a + 2) * near - (a + 3)) * near * near + 1
    weights = [weight.to(moved) for weight in (first, second, third, 1 - first - second - third)]
    whole = base.clamp(-3, side + 2).long()
    return [(whole + tap).clamp(-1, side) + 1 for tap in (-1, 0, 1, 2)], weights


def _relax(
    flow: Tensor, dual: Tensor, gradient: Tensor, constant: Tensor, square: Tensor, settings: TvL1
) -> tuple[Tensor, Tensor]:
    """Primal and dual iterations of one warp; pairs whose update has become small stay as they are."""
    limit = settings.epsilon**2 * flow[0, 0].numel()
    running = torch.ones(len(flow), dtype=torch.bool, device=flow.device)
    early = settings.epsilon > 0
    for _ in range(settings.outer):
        if early and not running.any():
            break
        if settings.median > 1:
            flow = torch.where(running[:, None, None, None], median_filter(flow, settings.median), flow)
        for iteration in range(settings.inner):
            if early and iteration % _LOOK_EVERY == 0 and iteration and not running.any():
                break
            new_flow, new_dual = _iterate(flow, dual, gradient, constant, square, settings)
            if early:
                change = (new_flow - flow).square().sum(dim=(1, 2, 3))
                mask = running[:, None, None, None]
                flow = torch.where(mask, new_flow, flow)
                dual = torch.where(mask[..., None], new_dual, dual)
                running = running & (change > limit)
            else:
                flow, dual = new_flow, new_dual
    return flow, dual


def _iterate(
    flow: Tensor, dual: Tensor, gradient: Tensor, constant: Tensor, square: Tensor, settings: TvL1
) -> tuple[Tensor, Tensor]:
    reach = settings.lambda_ * settings.theta
    residual = constant + (gradient[:, 0] * flow[:, 0]).add_(gradient[:, 1] * flow[:, 1])
    bound = square * reach
    factor = torch.where(square > FLAT, -residual / square, 0)
    factor = torch.where(residual > bound, -reach, factor)
    factor = torch.where(residual < -bound, reach, factor)[:, None]
    along_y = dual[:, :, 1].clone()
    along_y[..., 1:, :] -= dual[:, :, 1, :-1]
    divergence = dual[:, :, 0].clone()
    divergence[..., 1:] -= dual[:, :, 0, :, :-1]
    divergence += along_y
    divergence[..., 1:, 0] = dual[:, :, 0, 1:, 0] + dual[:, :, 1, 1:, 0] - dual[:, :, 1, :-1, 0]
    new_flow = (factor * gradient).add_(flow).add_(divergence.mul_(settings.theta))
    slope = torch.zeros_like(dual)
    torch.sub(new_flow[..., 1:], new_flow[..., :-1], out=slope[:, :, 0, :, :-1])
    torch.sub(new_flow[..., 1:, :], new_flow[..., :-1, :], out=slope[:, :, 1, :-1])
    step = settings.tau / settings.theta
    length = torch.hypot(slope[:, :, :1], slope[:, :, 1:])
    return new_flow, slope.mul_(step).add_(dual).div_(length.mul_(step).add_(1))


def median_filter(maps: Tensor, side: int) -> Tensor:
    """(B, C, H, W) float32 -> the median of `side` x `side` neighbours, edges repeated. `side` is 3 or 5."""
    if maps.device.type == "cpu":
        planes = maps.numpy().reshape(-1, *maps.shape[2:])
        return torch.from_numpy(np.stack([cv2.medianBlur(plane, side) for plane in planes])).view(maps.shape)
    return median_by_selection(maps, side)


def median_by_selection(maps: Tensor, side: int) -> Tensor:
    """As `median_filter`, by comparisons alone, which any device runs element by element.

    Of a little more than half the values neither the smallest nor the largest can be the median of all: both are
    dropped and one more value is taken in, until three are left.
    """
    margin = side // 2
    padded = F.pad(maps, (margin,) * 4, mode="replicate")
    height, width = maps.shape[2:]
    values = [padded[..., y : y + height, x : x + width] for y in range(side) for x in range(side)]
    kept = values[: len(values) // 2 + 2]
    for value in [*values[len(kept) :], None]:
        kept = _without_extremes(kept)
        if value is not None:
            kept.append(value)
    return kept[0]


def _without_extremes(values: list[Tensor]) -> list[Tensor]:
    """`values` less their smallest and their largest, place by place."""
    return _without_extreme(_without_extreme(values, torch.minimum, torch.maximum), torch.maximum, torch.minimum)


def _without_extreme(
    values: list[Tensor], extreme: Callable[[Tensor, Tensor], Tensor], other: Callable[[Tensor, Tensor], Tensor]
) -> list[Tensor]:
    found, rest = values[0], []
    for value in values[1:]:
        rest.append(other(found, value))
        found = extreme(found, value)
    return rest
