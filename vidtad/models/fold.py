"""Batch norm folded into the convolution before it: the same function, with one pass less over the maps."""

import copy
import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

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
            _take_in(_last(getattr(module, convolution)), getattr(module, norm))
            setattr(module, norm, nn.Identity())
    return folded


def channels_last(network: nn.Module) -> nn.Module:
    """Lay out convolution weights of `network` channels last, in place, the faster layout at inference."""
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    for parameter in network.parameters():
        if parameter.ndim in formats:
            parameter.data = parameter.data.contiguous(memory_format=formats[parameter.ndim])
    return network


class Pointwise(nn.Module):
    """A convolution of kernel 1 as a matrix product: its output is channels last where its input is.

    PyTorch's own, given such input and a kernel of one position, may answer in the other layout, in which every
    later layer of a 3D network is slower (max pooling ten times on a CPU).
    """

    def __init__(self, convolution: nn.Conv3d):
        super().__init__()
        self.weight = nn.Parameter(convolution.weight.detach().flatten(1).contiguous(), requires_grad=False)
        self.bias = convolution.bias
        self.stride = convolution.stride

    def forward(self, x: Tensor) -> Tensor:
        """x (B, C, T, H, W) -> (B, C', T', H', W')."""
        if max(self.stride) > 1:
            x = x[(..., *(slice(None, None, step) for step in self.stride))]
        return F.linear(x.movedim(1, -1), self.weight, self.bias).movedim(-1, 1)


def pointwise(network: nn.Module) -> nn.Module:
    """Replace the 3D convolutions of kernel 1 in `network` by `Pointwise`, in place."""
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.Conv3d) and set(child.kernel_size) == {1} and child.groups == 1:
                setattr(module, name, Pointwise(child))
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
    scale = norm.weight.double() / torch.sqrt(norm.running_var.double() + norm.eps)
    bias = convolution.bias.double() if convolution.bias is not None else torch.zeros_like(scale)
    weight = convolution.weight.double() * scale.view(-1, *[1] * (convolution.weight.ndim - 1))
    convolution.weight.copy_(weight)
    shifted = (bias - norm.running_mean.double()) * scale + norm.bias.double()
    convolution.bias = nn.Parameter(shifted.to(convolution.weight.dtype), requires_grad=False)
