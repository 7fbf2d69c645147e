"""Batch norm folded into the convolution before it: the same function, with one pass less over the maps."""

import copy
import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vidtad.models.winograd import winograd

# A convolution's attribute name and that of the batch norm which follows it, over all networks here.
_NAMES = (
    ("conv3d", "bn"),
    ("conv", "bn"),
    ("conv_f2s", "bn"),
    ("conv_out", "bn"),
    ("conv1", "bn1"),
    ("conv2", "bn2"),
    ("conv3", "bn3"),
)
_NORMS = (nn.BatchNorm2d, nn.BatchNorm3d)
_CONVOLUTIONS = (nn.Conv2d, nn.Conv3d)


def fold_batch_norm(network: nn.Module) -> nn.Module:
    """A copy of `network` for inference, in evaluation mode, each convolution having taken in its batch norm.

    Results agree with the original to about 1e-6 of the largest value (float32 rounding; the folding is done
    in float64). The copy's state dict is no longer the published one: load first, fold after.
    """
    folded = copy.deepcopy(network).eval()
    for module in list(folded.modules()):
        for convolution, norm in _pairs(module):
            taker = _last(getattr(module, convolution))
            assert isinstance(taker, _CONVOLUTIONS)
            _take_in(taker, getattr(module, norm))
            setattr(module, norm, nn.Identity())
    return folded


def for_inference(network: nn.Module, dtype: torch.dtype = torch.float32) -> nn.Module:
    """A copy of `network` that computes the same faster, in `dtype`: folded, channels last, flat kernels in 2D.

    In float32, on a CPU, 3x3 kernels go by Winograd's algorithm where that is faster.
    """
    folded = fold_batch_norm(network)
    inference = channels_last(pointwise(planar(winograd(folded) if dtype == torch.float32 else folded)))
    return (inference if dtype == torch.float32 else averages_in_float32(inference)).to(dtype)


def channels_last(network: nn.Module) -> nn.Module:
    """Lay out convolution weights of `network` channels last, in place, the faster layout at inference."""
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    for parameter in network.parameters():
        if parameter.ndim in formats:
            parameter.data = parameter.data.contiguous(memory_format=formats[parameter.ndim])
    return network


class Planar(nn.Module):
    """A 3D convolution whose kernel spans time alone, space alone, or neither, computed as a 2D one.

    The same sums. On a CPU, PyTorch 2D convolutions are the faster ones (two to ten times for kernels in time alone,
    see docs/performance.md), and keep channels last, where 3D ones of such kernels may answer in the other layout, in
    which every later layer is slower too.
    """

    def __init__(self, convolution: nn.Conv3d):
        super().__init__()
        weight, padding = convolution.weight.detach(), convolution.padding
        assert isinstance(padding, tuple)
        self.in_time = convolution.kernel_size[0] > 1
        self.weight = nn.Parameter((weight[..., 0] if self.in_time else weight[:, :, 0]).contiguous(), False)
        self.bias = convolution.bias
        axes = (0, 2) if self.in_time else (1, 2)
        self.stride, self.padding, self.dilation = (
            (values[axes[0]], values[axes[1]]) for values in (convolution.stride, padding, convolution.dilation)
        )
        self.every = 1 if self.in_time else convolution.stride[0]

    @staticmethod
    def fits(module: nn.Module) -> bool:
        """Whether `module` is a convolution that this class stands for."""
        if not isinstance(module, nn.Conv3d) or module.groups > 1 or not isinstance(module.padding, tuple):
            return False
        time_only = set(module.kernel_size[1:]) == {1} and set(module.stride[1:]) == {1}
        flat = module.padding[0] == 0 if module.kernel_size[0] == 1 else not any(module.padding[1:])
        return (module.kernel_size[0] == 1 or time_only) and flat and module.padding_mode == "zeros"

    def forward(self, x: Tensor) -> Tensor:
        """x (B, C, T, H, W) -> (B, C', T', H', W'), channels last."""
        x = x[:, :, :: self.every].movedim(1, -1).contiguous()
        batch, time, height, width, channels = x.shape
        shape = (batch, time, height * width) if self.in_time else (batch * time, height, width)
        flat = x.reshape(*shape, channels).movedim(-1, 1)
        flat = by_onednn(flat, self.weight, self.bias, self.stride, self.padding, self.dilation).movedim(1, -1)
        sides = (-1, height, width) if self.in_time else (time, *flat.shape[1:3])
        return flat.reshape(batch, *sides, flat.shape[-1]).movedim(-1, 1)


def planar(network: nn.Module) -> nn.Module:
    """Replace the convolutions of `network` that `Planar` stands for, in place."""
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if Planar.fits(child):
                setattr(module, name, Planar(child))  # type: ignore[arg-type]
    return network


Sides = tuple[int, ...]


def by_onednn(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: Sides, padding: Sides, dilation: Sides, groups: int = 1
) -> Tensor:
    """`F.conv2d`, on a CPU by oneDNN: with a single thread PyTorch would take slower matrix products."""
    if x.device.type != "cpu" or x.dtype != torch.float32 or not torch.backends.mkldnn.is_available():
        return F.conv2d(x, weight, bias, stride, padding, dilation, groups)
    return torch.mkldnn_convolution(x, weight, bias, padding, stride, dilation, groups)


class Pointwise(nn.Conv2d):
    """A convolution `by_onednn`."""

    def forward(self, x: Tensor) -> Tensor:
        """As `Conv2d`."""
        assert isinstance(self.padding, tuple)
        return by_onednn(x, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)


def pointwise(network: nn.Module) -> nn.Module:
    """Make the 1x1 convolutions of 2D maps in `network` `Pointwise` ones, in place."""
    for module in network.modules():
        if type(module) is nn.Conv2d and module.kernel_size == (1, 1) and isinstance(module.padding, tuple):
            module.__class__ = Pointwise
    return network


class Float32(nn.Module):
    """A layer without weights, computed in float32 whatever the format of its input, to which it returns."""

    def __init__(self, layer: nn.Module):
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        """What the layer gives."""
        return self.layer(x.float()).to(x.dtype)


def averages_in_float32(network: nn.Module) -> nn.Module:
    """Let average pools of 3D maps in `network` compute in float32, in place: on a CPU, PyTorch has no shorter ones."""
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.AvgPool3d | nn.AdaptiveAvgPool3d):
                setattr(module, name, Float32(child))
    return network


def joined(branches: list[Tensor]) -> Tensor:
    """Maps (B, C, ...) side by side in their channels, channels last where the first one is."""
    if branches[0].is_contiguous():
        return torch.cat(branches, dim=1)
    return torch.cat([branch.movedim(1, -1) for branch in branches], dim=-1).movedim(-1, 1)


def _pairs(module: nn.Module) -> list[tuple[str, str]]:
    children = dict(module.named_children())
    if isinstance(module, nn.Sequential):
        names = list(children)
        candidates = list(itertools.pairwise(names))
    else:
        candidates = [pair for pair in _NAMES if pair[0] in children]
        candidates += [(name, f"{name}_bn") for name in children]
    return [
        (convolution, norm)
        for convolution, norm in candidates
        if isinstance(_last(children.get(convolution)), _CONVOLUTIONS) and isinstance(children.get(norm), _NORMS)
    ]


def _last(module: nn.Module | None) -> nn.Module | None:
    """What computes the output of `module`: the last layer of a sequence."""
    while isinstance(module, nn.Sequential) and len(module):
        module = module[-1]
    return module


@torch.no_grad()
def _take_in(convolution: nn.Conv2d | nn.Conv3d, norm: nn.BatchNorm2d | nn.BatchNorm3d) -> None:
    # y = gamma * (conv(x) + b - mean) / sqrt(var + eps) + beta (Ioffe and Szegedy, 2015, section 3.1).
    assert norm.running_mean is not None and norm.running_var is not None  # of a network that has been trained
    scale = norm.weight.double() / torch.sqrt(norm.running_var.double() + norm.eps)
    bias = convolution.bias.double() if convolution.bias is not None else torch.zeros_like(scale)
    weight = convolution.weight.double() * scale.view(-1, *[1] * (convolution.weight.ndim - 1))
    convolution.weight.copy_(weight)
    shifted = (bias - norm.running_mean.double()) * scale + norm.bias.double()
    convolution.bias = nn.Parameter(shifted.to(convolution.weight.dtype), requires_grad=False)
