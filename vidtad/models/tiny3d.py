"""A small clip network for the demonstration detectors: 3D convolutions factorised into space, then time.

The factorisation is that of R(2+1)D (Tran et al., 2018, section 3.5); sizes are chosen for one slow CPU core.
"""

import torch
from torch import Tensor, nn

FEATURES = 128
WINDOW = 16
SIDE = 96
EVERY = 2
"""Only every second frame of a window is looked at: the demonstration's actions are slower than that."""


def _convolution(into: int, out: int, kernel: tuple[int, int], stride: tuple[int, int]) -> nn.Sequential:
    padding = (kernel[0] // 2, kernel[1] // 2)
    return nn.Sequential(
        nn.Conv2d(into, out, kernel, stride, padding, bias=False), nn.BatchNorm2d(out), nn.ReLU(inplace=True)
    )


def _in_space(layer: nn.Module, maps: Tensor) -> Tensor:
    """Apply a 2D layer to every time step of maps (B, T, H, W, C)."""
    out = layer(maps.flatten(0, 1).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
    return out.unflatten(0, maps.shape[:2])


def _in_time(layer: nn.Module, maps: Tensor) -> Tensor:
    """Apply a 2D layer over (time, place) to maps (B, T, H, W, C)."""
    out = layer(maps.flatten(2, 3).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
    return out.unflatten(2, maps.shape[2:4])


class _Block(nn.Module):
    """Spatial then temporal convolution of maps (B, T, H, W, C); `stride` is (time, height and width)."""

    def __init__(self, into: int, out: int, stride: tuple[int, int]):
        super().__init__()
        self.spatial = _convolution(into, out, (3, 3), (stride[1], stride[1]))
        self.temporal = _convolution(out, out, (3, 1), (stride[0], 1))
        self.residual = into == out and stride == (1, 1)

    def forward(self, maps: Tensor) -> Tensor:
        out = _in_time(self.temporal, _in_space(self.spatial, maps))
        return maps + out if self.residual else out


class Tiny3D(nn.Module):
    """Clips of 16 frames of 96 x 96 pixels, every second one looked at -> 128 features.

    Space is pooled (mean and maximum), time is not: the last layer sees the eight time steps in order, so that
    a feature tells where in its window something began. 1 x 3 x 3 and 3 x 1 x 1 convolutions run as 2D ones on
    channels-last maps: the same sums, and on a CPU several times as fast as PyTorch's 3D ones.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 32, 7, 4, 3), nn.ReLU(inplace=True))
        self.blocks = nn.Sequential(
            _Block(32, 64, (1, 2)), _Block(64, 64, (1, 1)), _Block(64, 128, (1, 2)), _Block(128, 128, (1, 1))
        )
        self.mix = nn.Conv1d(256, 128, 3, padding=1)
        self.order = nn.Linear(128 * (WINDOW // EVERY), FEATURES)

    def features(self, clips: Tensor) -> Tensor:
        """clips (B, 3, 16, 96, 96) float32, about -2 to 2 -> (B, 128) float32, not negative."""
        return self(clips[:, :, ::EVERY])

    def forward(self, clips: Tensor) -> Tensor:
        """clips (B, 3, 8, 96, 96), every second frame of a window -> (B, 128)."""
        maps = clips.permute(0, 2, 3, 4, 1).contiguous()
        maps = self.blocks(_in_space(self.stem, maps))
        pooled = torch.cat([maps.mean((2, 3)), maps.amax((2, 3))], -1).transpose(1, 2)
        return torch.relu(self.order(torch.relu(self.mix(pooled)).flatten(1)))
