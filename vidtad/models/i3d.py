"""I3D: Inception-v1 inflated to three dimensions (Carreira and Zisserman, CVPR 2017, figure 3).

Arithmetic and tensor names are those of the PyTorch conversion of the released TensorFlow model: SAME padding
computed from the size of every call, batch norm with eps 1e-3.
"""

import re
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vidtad.errors import InputError
from vidtad.models.fold import joined
from vidtad.models.i3d_windows import SHARED_END_POINTS, prefix, worthwhile
from vidtad.models.loading import load_exactly

# Channels of the branches [b0, b1a, b1b, b2a, b2b, b3b] of every Inception block.
MIXED: dict[str, tuple[int, int, int, int, int, int]] = {
    "Mixed_3b": (64, 96, 128, 16, 32, 32),
    "Mixed_3c": (128, 128, 192, 32, 96, 64),
    "Mixed_4b": (192, 96, 208, 16, 48, 64),
    "Mixed_4c": (160, 112, 224, 24, 64, 64),
    "Mixed_4d": (128, 128, 256, 24, 64, 64),
    "Mixed_4e": (112, 144, 288, 32, 64, 64),
    "Mixed_4f": (256, 160, 320, 32, 128, 128),
    "Mixed_5b": (256, 160, 320, 32, 128, 128),
    "Mixed_5c": (384, 192, 384, 48, 128, 128),
}
FEATURES = 1024
MIN_FRAMES = 9


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """(front, back) zeros TensorFlow's SAME rule adds to an axis of `size`; the odd one goes to the back."""
    total = max(kernel - (size % stride or stride), 0)
    return total // 2, total - total // 2


def largest_neighbours(maps: Tensor) -> Tensor:
    """maps (B, C, T, H, W) -> the maximum of the 3x3x3 neighbours of every place, the same shape and layout.

    Axis by axis, which on a CPU is faster than PyTorch's 3D pool (it finds indices too). Without gradients.
    """
    for axis in (2, 3, 4):
        size = maps.shape[axis]
        if size == 1:
            continue
        pairs = torch.maximum(maps.narrow(axis, 0, size - 1), maps.narrow(axis, 1, size - 1))
        found = torch.empty_like(maps)
        found.narrow(axis, 0, 1).copy_(pairs.narrow(axis, 0, 1))
        found.narrow(axis, size - 1, 1).copy_(pairs.narrow(axis, size - 2, 1))
        if size > 2:
            first, second = pairs.narrow(axis, 0, size - 2), pairs.narrow(axis, 1, size - 2)
            torch.maximum(first, second, out=found.narrow(axis, 1, size - 2))
        maps = found
    return maps


class SamePool3d(nn.Module):
    """Max pooling with SAME padding, of tensors that are nowhere negative."""

    def __init__(self, kernel: tuple[int, int, int], stride: tuple[int, int, int]):
        super().__init__()
        self.kernel, self.stride = kernel, stride

    def forward(self, x: Tensor) -> Tensor:
        neighbours = set(self.kernel) == {3} and set(self.stride) == {1}
        if neighbours and x.device.type == "cpu" and not torch.is_grad_enabled():
            return largest_neighbours(x)
        # Padding with minus infinity (PyTorch) equals padding with zeros (TensorFlow) after a ReLU, and the
        # one extra element at the back is what ceil_mode adds.
        front = [same_padding(*axis)[0] for axis in zip(x.shape[2:], self.kernel, self.stride, strict=True)]
        return F.max_pool3d(x, self.kernel, self.stride, padding=front, ceil_mode=True)


class Unit3d(nn.Module):
    """Convolution with SAME padding; then batch norm and ReLU, or (eps None) a bias alone."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1, eps: float | None = 1e-3):
        super().__init__()
        around = kernel // 2 if stride == 1 else 0  # else it depends on the size
        self.conv3d = nn.Conv3d(inputs, outputs, kernel, stride, padding=around, bias=eps is None)
        self.bn: nn.Module | None = None if eps is None else nn.BatchNorm3d(outputs, eps, momentum=0.01)

    def forward(self, x: Tensor) -> Tensor:
        conv = self.conv3d
        if not isinstance(conv, nn.Conv3d) or set(conv.stride) == {1}:
            x = conv(x)
            return x if self.bn is None else F.relu_(self.bn(x))
        pads = [same_padding(*axis) for axis in zip(x.shape[2:], conv.kernel_size, conv.stride, strict=True)]
        if any(front != back for front, back in pads):
            x = F.pad(x, [side for pair in reversed(pads) for side in pair])
            x = F.conv3d(x, conv.weight, conv.bias, conv.stride)
        else:
            x = F.conv3d(x, conv.weight, conv.bias, conv.stride, padding=[front for front, _ in pads])
        return x if self.bn is None else F.relu_(self.bn(x))


class Mixed(nn.Module):
    """Inception block: 1x1x1, two bottlenecked 3x3x3, and a pooled branch, concatenated in this order."""

    def __init__(self, inputs: int, channels: tuple[int, int, int, int, int, int], eps: float):
        super().__init__()
        c0, c1a, c1b, c2a, c2b, c3b = channels
        self.b0 = Unit3d(inputs, c0, eps=eps)
        self.b1a = Unit3d(inputs, c1a, eps=eps)
        self.b1b = Unit3d(c1a, c1b, kernel=3, eps=eps)
        self.b2a = Unit3d(inputs, c2a, eps=eps)
        self.b2b = Unit3d(c2a, c2b, kernel=3, eps=eps)
        self.b3a = SamePool3d((3, 3, 3), (1, 1, 1))
        self.b3b = Unit3d(inputs, c3b, eps=eps)

    def forward(self, x: Tensor) -> Tensor:
        branches = [self.b0(x), self.b1b(self.b1a(x)), self.b2b(self.b2a(x)), self.b3b(self.b3a(x))]
        return joined(branches)


class InceptionI3d(nn.Module):
    """I3D for clips (B, in_channels, T, H, W) float32 in [-1, 1]; in_channels 3 for RGB, 2 for optical flow.

    `end_points` names the layers before the average pool, in order. Parameter names are those of the
    published `rgb_imagenet.pt`.
    """

    def __init__(self, in_channels: int = 3, num_classes: int = 400, bn_eps: float = 1e-3):
        super().__init__()
        self.Conv3d_1a_7x7 = Unit3d(in_channels, 64, kernel=7, stride=2, eps=bn_eps)
        self.MaxPool3d_2a_3x3 = SamePool3d((1, 3, 3), (1, 2, 2))
        self.Conv3d_2b_1x1 = Unit3d(64, 64, eps=bn_eps)
        self.Conv3d_2c_3x3 = Unit3d(64, 192, kernel=3, eps=bn_eps)
        self.MaxPool3d_3a_3x3 = SamePool3d((1, 3, 3), (1, 2, 2))
        pools = {
            "Mixed_4b": ("MaxPool3d_4a_3x3", SamePool3d((3, 3, 3), (2, 2, 2))),
            "Mixed_5b": ("MaxPool3d_5a_2x2", SamePool3d((2, 2, 2), (2, 2, 2))),
        }
        width = 192
        for name, channels in MIXED.items():
            if name in pools:
                self.add_module(*pools[name])
            self.add_module(name, Mixed(width, channels, bn_eps))
            width = channels[0] + channels[2] + channels[4] + channels[5]
        self.end_points = tuple(name for name, _ in self.named_children())
        self.logits = Unit3d(width, num_classes, eps=None)

    def run(self, clips: Tensor) -> dict[str, Tensor]:
        """Every end point's map (B, C, T', H', W') by name, in order. Keeps all of them in memory."""
        maps: dict[str, Tensor] = {}
        for name in self.end_points:
            clips = maps[name] = self.get_submodule(name)(clips)
        return maps

    def trunk(self, clips: Tensor) -> Tensor:
        """clips (B, in_channels, T, H, W) -> Mixed_5c map (B, 1024, ceil(T/8), ceil(H/32), ceil(W/32))."""
        for name in self.end_points:
            clips = self.get_submodule(name)(clips)
        return clips

    @staticmethod
    def pool(maps: Tensor) -> Tensor:
        """Mixed_5c (B, 1024, T', H', W') -> (B, 1024, T''): 2x7x7 averages at stride 1, no padding.

        The windows of maps larger than 7x7 are averaged too. Maps smaller than the window are averaged whole
        (T'' = 1). Raises InputError for one time step (clips under 9 frames) under a map that fits.
        """
        steps, height, width = maps.shape[2:]
        if height < 7 or width < 7:
            return maps.float().mean(dim=(2, 3, 4)).unsqueeze(2)
        if steps < 2:
            raise InputError(f"I3D needs clips of at least {MIN_FRAMES} frames")
        return F.avg_pool3d(maps.float(), (2, 7, 7), stride=1).mean(dim=(3, 4))

    def features(self, clips: Tensor) -> Tensor:
        """clips (B, in_channels, T, H, W) -> (B, 1024), the mean over time of the pooled Mixed_5c map."""
        return self.pool(self.trunk(clips)).mean(dim=2)

    def window_features(self, frames: Tensor, starts: Sequence[int], window: int) -> Tensor | None:
        """Features (B, 1024) of the windows of `frames` (C, N, H, W) that begin at `starts`; None if nothing is shared.

        What neighbouring windows have in common is computed once: see `vidtad.models.i3d_windows`.
        """
        if frames.device.type != "cpu" or not worthwhile(starts, window):
            return None
        maps = prefix(self, frames, starts, window)
        for name in self.end_points[SHARED_END_POINTS:]:
            maps = self.get_submodule(name)(maps)
        return self.pool(maps).mean(dim=2)

    def classify(self, pooled: Tensor) -> Tensor:
        """pooled (B, 1024, T'') -> class scores before softmax (B, num_classes, T'')."""
        return self.logits(pooled[:, :, :, None, None]).flatten(2)

    def forward(self, clips: Tensor) -> Tensor:
        """clips (B, in_channels, T, H, W) -> scores before softmax (B, num_classes), mean over time."""
        return self.classify(self.pool(self.trunk(clips))).mean(dim=2)


# Branch names of the second published conversion (hassony2), against the names used here.
_HASSONY2_BRANCHES = {
    "branch_0": "b0",
    "branch_1.0": "b1a",
    "branch_1.1": "b1b",
    "branch_2.0": "b2a",
    "branch_2.1": "b2b",
    "branch_3.1": "b3b",
}


def from_hassony2(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the keys of hassony2's `model_rgb.pth` (also shipped as `i3d_rgb.pt`) to the names used here."""
    table = {
        **{
            f"mixed_{name[-2:]}.{theirs}": f"{name}.{ours}"
            for name in MIXED
            for theirs, ours in _HASSONY2_BRANCHES.items()
        },
        "conv3d_1a_7x7": "Conv3d_1a_7x7",
        "conv3d_2b_1x1": "Conv3d_2b_1x1",
        "conv3d_2c_3x3": "Conv3d_2c_3x3",
        "conv3d_0c_1x1": "logits",
    }
    renamed = {}
    for key, tensor in state_dict.items():
        found = re.fullmatch(r"(.+)\.(conv3d|batch3d)\.(\w+)", key)
        if found and found[1] in table:
            key = f"{table[found[1]]}.{'bn' if found[2] == 'batch3d' else 'conv3d'}.{found[3]}"
        renamed[key] = tensor
    return renamed


_TENSORFLOW_BRANCHES = {
    "Branch_0/Conv3d_0a_1x1": "b0",
    "Branch_1/Conv3d_0a_1x1": "b1a",
    "Branch_1/Conv3d_0b_3x3": "b1b",
    "Branch_2/Conv3d_0a_1x1": "b2a",
    "Branch_2/Conv3d_0b_3x3": "b2b",
    "Branch_2/Conv3d_0a_3x3": "b2b",  # as Mixed_5b has it
    "Branch_3/Conv3d_0b_1x1": "b3b",
}
_TENSORFLOW_TENSORS = {
    "conv_3d/w": "conv3d.weight",
    "conv_3d/b": "conv3d.bias",
    "batch_norm/gamma": "bn.weight",
    "batch_norm/beta": "bn.bias",
    "batch_norm/moving_mean": "bn.running_mean",
    "batch_norm/moving_variance": "bn.running_var",
}
_TENSORFLOW_KEY = re.compile(
    r"(?:(?:RGB|Flow)/inception_i3d/)?(\w+?)(?:/(Branch_\d/\w+))?(?:/Conv3d_0c_1x1)?/((?:conv_3d|batch_norm)/\w+?)(?::0)?"
)


def from_tensorflow(variables: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename and transpose the variables of DeepMind's TensorFlow checkpoints, arrays by variable name.

    Kernels are (T, H, W, in, out) there, and norms have no gamma: it is 1. Unknown names stay as they are.
    """
    renamed = {}
    for key, tensor in variables.items():
        found = _TENSORFLOW_KEY.fullmatch(key)
        branch = _TENSORFLOW_BRANCHES.get(found[2]) if found and found[2] else ""
        name = _TENSORFLOW_TENSORS.get(found[3]) if found else None
        if found is None or branch is None or name is None:
            renamed[key] = tensor
            continue
        unit = "logits" if found[1] == "Logits" else ".".join(filter(None, (found[1], branch)))
        kernel = name == "conv3d.weight" and tensor.ndim == 5
        renamed[f"{unit}.{name}"] = tensor.permute(4, 3, 0, 1, 2).contiguous() if kernel else tensor.flatten()
    for key in [key for key in renamed if key.endswith("bn.bias")]:
        renamed.setdefault(f"{key.removesuffix('bias')}weight", torch.ones_like(renamed[key]))
    return renamed


def load(state_dict: Mapping[str, Tensor], bn_eps: float = 1e-3) -> InceptionI3d:
    """I3D with the weights of any published layout, PyTorch's two or TensorFlow's.

    Input channels and classes are read from them.

    hassony2's own code normalises with `bn_eps` 1e-5, which moves features by about 1 %. Raises InputError when a
    tensor is missing, unused or of another shape.
    """
    if "conv3d_1a_7x7.conv3d.weight" in state_dict:
        state_dict = from_hassony2(state_dict)
    elif any(key.partition(":")[0].endswith("Conv3d_1a_7x7/conv_3d/w") for key in state_dict):
        state_dict = from_tensorflow(state_dict)
    first, last = state_dict.get("Conv3d_1a_7x7.conv3d.weight"), state_dict.get("logits.conv3d.weight")
    in_channels = 3 if first is None or first.ndim != 5 else first.shape[1]
    num_classes = 400 if last is None or last.ndim != 5 else last.shape[0]
    network = InceptionI3d(in_channels, num_classes, bn_eps)
    load_exactly(network, state_dict)
    return network
