"""Convolutions with 3x3 kernels by fewer multiplications, on a CPU: Winograd's F(4x4, 3x3).

Lavin and Gray, Fast Algorithms for Convolutional Neural Networks (CVPR 2016), sections 3 and 4.1: a tile of 4x4 outputs
takes 36 products for each pair of channels in place of 144. A tile of 6x6 inputs is a polynomial's coefficients, which
are turned into its values at five points and at infinity, along each axis; values are multiplied and turned back. The
points decide the rounding: with the usual 0, 1, -1, 2, -2 the largest error is four times that of those below, found by
trying. Theirs is two to five times as large as a plain float32 convolution's, about 1e-6 of the sums' root mean square.
"""

import math
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

POINTS = (0.0, 0.75, -0.75, 1.5, -1.5)
TILE, KERNEL = 4, 3
SIDE = TILE + KERNEL - 1
HELD = 48 * 2**20
"""Bytes of transformed inputs and outputs that are held at once."""
LARGEST = 2**18
"""Pairs of channels (times taps) of a kernel beyond which four times its memory is too much to spend."""


@lru_cache(maxsize=1)
def matrices() -> tuple[Tensor, Tensor, Tensor]:
    """(outputs (4, 6), weights (6, 3), inputs (6, 6)) float64: A^T, G and B^T of the paper, for `POINTS`."""
    points = np.array(POINTS)

    def values(length: int) -> np.ndarray:
        """Of a polynomial with so many coefficients: at the points, and (its last coefficient) at infinity."""
        return np.vstack([np.vander(points, length, increasing=True), np.eye(1, length, length - 1)])

    gaps = [math.prod(point - other for other in POINTS if other != point) for point in POINTS]
    scale = np.array([*gaps, 1.0])[:, None]  # moved from the inputs' matrix into the weights', which are computed once
    inputs = np.linalg.inv(values(SIDE)).T * scale
    return torch.from_numpy(values(TILE).T), torch.from_numpy(values(KERNEL) / scale), torch.from_numpy(inputs)


def transformed(weight: Tensor) -> list[Tensor]:
    """Weights (K, C, 3, 3) or (K, C, taps, 3, 3) -> what each of a tile's 36 values is multiplied with; same dtype.

    36 of (C, K), or of (K, C, taps, 1) channels last.
    """
    _, of_weights, _ = matrices()
    parts = [torch.einsum("ia,kc...ab,jb->ijkc...", of_weights, w.double(), of_weights) for w in weight.split(64)]
    made = torch.cat([part.to(weight.dtype) for part in parts], dim=2).flatten(0, 1)
    if weight.ndim == 4:
        return list(made.transpose(1, 2).contiguous())
    return [part[..., None].contiguous(memory_format=torch.channels_last) for part in made]


class Winograd(nn.Module):
    """A convolution with a kernel of (taps,) 3x3, stride 1 and zeros around, which keeps the size of its maps.

    `weight` (K, C, 3, 3) or (K, C, taps, 3, 3) and `bias` (K,) stay those of the convolution. What is multiplied with
    is computed from them when first needed, so they must not change any more. Where nothing is gained (another device
    or dtype, few channels, training) this computes what the convolution does.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None):
        super().__init__()
        self.weight = nn.Parameter(weight.detach(), False)
        self.bias = None if bias is None else nn.Parameter(bias.detach(), False)
        self._made: list[Tensor] = []
        self._of_taps: dict[tuple[int, ...], Winograd] = {}

    @staticmethod
    def fits(module: nn.Module) -> bool:
        """Whether `module` is a convolution that this class stands for."""
        if not isinstance(module, nn.Conv2d | nn.Conv3d) or module.groups > 1 or module.padding_mode != "zeros":
            return False
        kernel = module.kernel_size
        return (
            kernel[-2:] == (KERNEL, KERNEL)
            and kernel[0] % 2 == 1
            and {*module.stride, *module.dilation} == {1}
            and module.padding == tuple(size // 2 for size in kernel)
        )

    def forward(self, x: Tensor) -> Tensor:
        """x (B, C, H, W) or (B, C, T, H, W) -> the same with K channels, channels last."""
        if x.ndim == 5 and self.weight.shape[2] == 1:  # pictures know nothing of one another
            pictures = x.movedim(1, -1).contiguous().flatten(0, 1).movedim(-1, 1)
            found = self._of_maps(pictures, self.weight.squeeze(2)).movedim(1, -1)
            return found.unflatten(0, (x.shape[0], -1)).movedim(-1, 1)
        return self._of_maps(x, self.weight)

    def taps(self, chosen: tuple[int, ...]) -> "Winograd":
        """The 2D convolution that has the kernels of these steps in time side by side: (B, C, H, W) -> len(chosen) K.

        The bias goes with the middle step, which every output has.
        """
        if chosen not in self._of_taps:
            self._of_taps[chosen] = Winograd(*side_by_side(self.weight, self.bias, chosen))
        return self._of_taps[chosen]

    def _of_maps(self, x: Tensor, weight: Tensor) -> Tensor:
        if not pays(x, weight):
            plain = F.conv2d if x.ndim == 4 else F.conv3d
            return plain(x, weight, self.bias, padding=[size // 2 for size in weight.shape[2:]])
        if not self._made:
            self._made = transformed(weight)
        last = x.movedim(1, -1)
        if x.ndim == 5:
            return convolved(last, self._made, self.bias).movedim(-1, 1)
        return convolved(last.unsqueeze(1), self._made, self.bias).squeeze(1).movedim(-1, 1)


def pays(x: Tensor, weight: Tensor) -> bool:
    """Whether maps x are convolved faster by tiles: a model of what both take, in ns, measured on one thread.

    It looks at shapes alone, so that a video gives the same features wherever a CPU computes them.
    """
    if x.device.type != "cpu" or x.dtype != torch.float32 or torch.is_grad_enabled():
        return False
    outputs, inputs = weight.shape[:2]
    pairs = weight.numel() // KERNEL**2
    pictures = x.numel() // (inputs * x.shape[-2] * x.shape[-1])
    tiles = pictures * math.prod(-(-size // TILE) for size in x.shape[-2:])
    plain = 0.14 * pairs * x.numel() / inputs
    calls = SIDE**2 * (5e3 if x.ndim == 4 else 25e3)
    ours = tiles * (0.72 * pairs + 64 * inputs + 35 * outputs) + 30 * pairs + calls
    return pairs <= LARGEST and ours < 0.85 * plain


def side_by_side(weight: Tensor, bias: Tensor | None, taps: tuple[int, ...]) -> tuple[Tensor, Tensor | None]:
    """(K, C, 3, 3, 3), (K,) -> kernels (len(taps) K, C, 3, 3) channels last and biases, the bias at tap 1 alone."""
    kernels = torch.cat([weight[:, :, tap] for tap in taps]).contiguous(memory_format=torch.channels_last)
    if bias is None:
        return kernels, None
    return kernels, torch.cat([bias if tap == 1 else torch.zeros_like(bias) for tap in taps])


def winograd(network: nn.Module) -> nn.Module:
    """Replace the convolutions of `network` that `Winograd` stands for, in place."""
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if Winograd.fits(child):
                setattr(module, name, Winograd(child.weight, child.bias))  # type: ignore[arg-type]
    return network


def convolved(x: Tensor, weights: list[Tensor], bias: Tensor | None) -> Tensor:
    """Maps x (B, T, H, W, C), zeros around -> (B, T, H, W, K), by the `transformed` weights.

    With those of 2D kernels each step in time is a picture by itself.
    """
    batch, time, height, width, channels = x.shape
    outputs = weights[0].shape[1 if weights[0].ndim == 2 else 0]
    down, across = -(-height // TILE), -(-width // TILE)
    padded = x.new_zeros(batch, time, down * TILE + 2, across * TILE + 2, channels)
    padded[:, :, 1 : height + 1, 1 : width + 1] = x
    found = x.new_empty(batch, time, down, TILE, across, TILE, outputs)
    row = time * across * SIDE**2 * (channels + outputs) * x.element_size()
    rows = min(down, max(1, HELD // row))
    items = max(1, HELD // (row * down)) if rows == down else 1
    for first in range(0, batch, items):
        for top in range(0, down, rows):
            part = padded[first : first + items, :, top * TILE : (top + rows) * TILE + 2]
            _tiles(part, weights, bias, found[first : first + items, :, top : top + rows])
    found = found.view(batch, time, down * TILE, across * TILE, outputs)
    return found[:, :, :height, :width].contiguous()


def _tiles(x: Tensor, weights: list[Tensor], bias: Tensor | None, found: Tensor) -> None:
    """Rows of tiles: x (B, T, 4 r + 2, 4 c + 2, C) into found (B, T, r, 4, c, 4, K)."""
    to_outputs, _, to_values = (matrix.to(x.dtype) for matrix in matrices())
    batch, time, down, _, across, _, outputs = found.shape
    channels, tiles = x.shape[-1], down * across
    values = x.unfold(2, SIDE, TILE).movedim(-1, 0).reshape(SIDE, -1)
    values = (to_values @ values).view(SIDE, batch, time, down, -1, channels)
    values = values.unfold(4, SIDE, TILE).movedim(-1, 1).reshape(SIDE, SIDE, -1)
    values = (to_values @ values).view(SIDE * SIDE, batch, time, tiles, channels)
    products = x.new_empty(SIDE * SIDE, batch, time, tiles, outputs)
    for value, weight, product in zip(values, weights, products, strict=True):
        if weight.ndim == 2:
            torch.mm(value.view(-1, channels), weight, out=product.view(-1, outputs))
        else:
            product.copy_(F.conv2d(value.movedim(-1, 1), weight, padding=(weight.shape[2] // 2, 0)).movedim(1, -1))
    del values
    sums = (to_outputs @ products.view(SIDE, -1)).view(TILE, SIDE, -1)
    sums = (to_outputs @ sums).view(TILE, TILE, batch, time, down, across, outputs).permute(2, 3, 4, 0, 5, 1, 6)
    if bias is None:
        found.copy_(sums)
    else:
        torch.add(sums, bias, out=found)
