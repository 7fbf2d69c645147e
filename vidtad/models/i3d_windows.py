"""I3D over overlapping windows of one stream of frames, what they share computed once.

Up to the first 3x3x3 convolution, an output depends on few frames: only those at a window's ends see its zero padding,
the others are the same in every window that holds their frames. Convolutions with zeros are left out, and the 3x3x3
convolution is a sum over its three steps in time, each computed once a frame. Sums are taken in another order than in
a window by itself, so features agree to float32 rounding.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from vidtad.models.winograd import Winograd, side_by_side

if TYPE_CHECKING:
    from vidtad.models.i3d import InceptionI3d

SHARED_END_POINTS = 4
"""How many of the network's first end points `prefix` stands for: up to Conv3d_2c_3x3."""
AT_A_TIME = 8
"""Windows whose partial sums are held together: some 20 MB each for pictures of 224 pixels."""
WIDEST_STRIDE = 6
"""Beyond this many frames sharing saves nothing worth having: see docs/performance.md."""


def worthwhile(starts: Sequence[int], window: int) -> bool:
    """Whether windows of `window` frames at these first frames share enough, and lie on one grid of even frames."""
    steps = {second - first for first, second in pairwise(starts)}
    return (
        window % 2 == 0 and window >= 12 and bool(steps) and all(0 < s <= WIDEST_STRIDE and s % 2 == 0 for s in steps)
    )


def prefix(network: "InceptionI3d", frames: Tensor, starts: Sequence[int], window: int) -> Tensor:
    """frames (C, N, H, W), and windows at `starts` for which `worthwhile` holds -> Conv3d_2c_3x3 maps (B, 192, ...)."""
    parts = [_prefix(network, frames, starts[i : i + AT_A_TIME], window) for i in range(0, len(starts), AT_A_TIME)]
    return parts[0] if len(parts) == 1 else torch.cat([p.movedim(1, -1) for p in parts]).movedim(-1, 1)


def _prefix(network: "InceptionI3d", frames: Tensor, starts: Sequence[int], window: int) -> Tensor:
    steps = window // 2
    whole = _early(network, frames[None, :, starts[0] : starts[-1] + window], slice(0, 7))
    inside = _sums(network, whole[0])
    # SAME padding of an even number of frames is 2 in front and 3 behind: three steps touch it.
    ends = {}
    for step in (0, steps - 2, steps - 1):
        first = 2 * step - 2
        taps = slice(max(0, -first), min(7, window - first))
        own = torch.stack([frames[:, s + first + taps.start : s + first + taps.stop] for s in starts])
        used = (1, 0) if step == 0 else (1, 2) if step == steps - 1 else (1, 0, 2)
        ends[step] = _sums(network, _early(network, own, taps)[:, :, 0].movedim(1, 0), used)
    height, width, count = inside[1].shape[1:]
    maps = inside[1].new_empty(len(starts), steps, height, width, count)
    # Step t of the input is tap 0 of output t + 1, tap 1 of output t, tap 2 of output t - 1.
    for tap in (1, 0, 2):
        put = torch.Tensor.copy_ if tap == 1 else torch.Tensor.add_
        for row, start in zip(maps, starts, strict=True):
            offset = (start - starts[0]) // 2
            put(row[2 - tap : steps - 1 - tap], inside[tap][offset : offset + steps - 3])
        for step, parts in ends.items():
            if tap in parts:
                put(maps[:, step + 1 - tap], parts[tap])
    unit = network.Conv3d_2c_3x3
    maps = maps.movedim(-1, 1)
    return F.relu_(maps if unit.bn is None else unit.bn(maps))


def _early(network: "InceptionI3d", frames: Tensor, taps: slice) -> Tensor:
    """frames (B, C, T, H, W) -> Conv3d_2b_1x1 maps (B, 64, T', h, w), with these `taps` of the first kernel in time."""
    from vidtad.models.i3d import same_padding

    unit = network.Conv3d_1a_7x7
    weight = unit.conv3d.weight[:, :, taps]
    sides = [side for size in reversed(frames.shape[3:]) for side in same_padding(size, 7, 2)]
    maps = F.conv3d(F.pad(frames, sides), weight, unit.conv3d.bias, stride=2)
    maps = F.relu_(maps if unit.bn is None else unit.bn(maps))
    return network.Conv3d_2b_1x1(network.MaxPool3d_2a_3x3(maps))


def _sums(network: "InceptionI3d", maps: Tensor, taps: tuple[int, ...] = (1, 0, 2)) -> dict[int, Tensor]:
    """maps (64, T, h, w) -> by tap, what step t adds to an output of Conv3d_2c_3x3: (T, h, w, 192)."""
    conv = network.Conv3d_2c_3x3.conv3d
    pictures = maps.movedim(0, 1)
    if isinstance(conv, Winograd):
        sums = conv.taps(taps)(pictures)
    else:
        sums = F.conv2d(pictures, *side_by_side(conv.weight, conv.bias, taps), padding=1)
    sums = sums.movedim(1, -1)
    return dict(zip(taps, sums.chunk(len(taps), dim=-1), strict=True))
