"""The slow pathway alone (Feichtenhofer et al., ICCV 2019, section 3.1; "Slow-only"), as a trunk for detection.

Parameter names are PySlowFast's, those of the pathway 0 of a SlowFast network.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from vidtad.errors import InputError
from vidtad.models.loading import load_exactly
from vidtad.models.slowfast import DETECTION, SlowFastOptions, _Block, _kernels, _Stem

Kernels = tuple[tuple[int, ...], ...]
PUBLISHED: Kernels = ((1,) * 3, (1,) * 4, (3,) * 6, (3,) * 3)
"""Temporal kernels of the 50-layer network, res2 to res5."""


class Slow(nn.Module):
    """Clips (B, 3, T, H, W) float32, T = 4 for the 4x16 network: every 16th frame of 64 at 30 frames a second."""

    def __init__(self, kernels: Kernels = PUBLISHED, width: int = 64, options: SlowFastOptions = DETECTION):
        super().__init__()
        eps = options.bn_eps
        self.s1 = nn.ModuleDict({"pathway0_stem": _Stem(width, 1, eps)})
        inputs = width
        for n, stage in enumerate(kernels, start=2):
            blocks, outputs = nn.ModuleDict(), width << n
            for i, kernel in enumerate(stage):
                stride, dilation = 1 if i else options.strides[n - 2], options.dilations[n - 2]
                widths = (inputs, outputs // 4, outputs)
                blocks[f"pathway0_res{i}"] = _Block(widths, kernel, stride, dilation, eps, first=not i)
                inputs = outputs
            self.add_module(f"s{n}", blocks)

    def forward(self, clips: Tensor) -> tuple[Tensor]:
        """clips (B, 3, T, H, W) -> res5 (B, 2048, T, H / 16, W / 16), alone in a tuple as trunks have it."""
        x = self.s1["pathway0_stem"](clips)
        for n in range(2, 6):
            for block in self.get_submodule(f"s{n}").children():
                x = block(x)
        return (x,)


def load(state_dict: Mapping[str, Tensor], options: SlowFastOptions = DETECTION) -> Slow:
    """The network of a state dict with PySlowFast's names, without its head.

    Raises InputError when a tensor is missing, unused or of another shape.
    """
    kernels = tuple(_kernels(state_dict, n, 0) for n in range(2, 6))
    stem = state_dict.get("s1.pathway0_stem.conv.weight", torch.empty(0))
    if stem.ndim != 5 or not all(kernels):
        raise InputError("these weights are not those of a slow pathway")
    network = Slow(kernels, stem.shape[0], options)
    load_exactly(network, dict(state_dict))
    return network
