"""BN-Inception: Inception-v2 as TSN uses it (Ioffe and Szegedy, 2015, section 4 and table 5; Wang et al., 2016).

Names and padding are those of the Caffe network and its PyTorch conversions: every convolution has a bias, all pools
round their output size up.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vidtad.errors import InputError
from vidtad.models.loading import load_exactly

FEATURES = 1024


@dataclass(frozen=True)
class _Block:
    """Channels of a block: 1x1; 3x3 (reduce, out); double 3x3 (reduce, first, second); pool kind and projection."""

    one: int
    three: tuple[int, int]
    double: tuple[int, int, int]
    pool: str
    projection: int

    @property
    def stride(self) -> int:
        return 1 if self.one else 2


BLOCKS: dict[str, _Block] = {
    "3a": _Block(64, (64, 64), (64, 96, 96), "avg", 32),
    "3b": _Block(64, (64, 96), (64, 96, 96), "avg", 64),
    "3c": _Block(0, (128, 160), (64, 96, 96), "max", 0),
    "4a": _Block(224, (64, 96), (96, 128, 128), "avg", 128),
    "4b": _Block(192, (96, 128), (96, 128, 128), "avg", 128),
    "4c": _Block(160, (128, 160), (128, 160, 160), "avg", 128),
    "4d": _Block(96, (128, 192), (160, 192, 192), "avg", 128),
    "4e": _Block(0, (128, 192), (192, 256, 256), "max", 0),
    "5a": _Block(352, (192, 320), (160, 224, 224), "avg", 128),
    "5b": _Block(352, (192, 320), (192, 224, 224), "max", 128),
}


class BNInception(nn.Module):
    """BN-Inception over images (N, in_channels, H, W) float32 in the published scale and channel order.

    RGB weights want blue, green, red in 0-255 minus (104, 117, 128); flow weights want ten planes x1 y1 ... x5 y5.
    `num_classes` 0 leaves the classifier out.
    """

    def __init__(self, in_channels: int = 3, num_classes: int = 1000, bn_eps: float = 1e-5):
        super().__init__()
        self.in_channels, self.bn_eps = in_channels, bn_eps
        self._convolution("conv1_7x7_s2", in_channels, 64, 7, 2)
        self.pool1_3x3_s2 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self._convolution("conv2_3x3_reduce", 64, 64)
        self._convolution("conv2_3x3", 64, 192, 3)
        self.pool2_3x3_s2 = nn.MaxPool2d(3, 2, ceil_mode=True)
        width = 192
        for name, block in BLOCKS.items():
            width = self._add_block(f"inception_{name}", width, block)
        if num_classes:
            self.last_linear = nn.Linear(width, num_classes)

    def _convolution(self, name: str, inputs: int, outputs: int, kernel: int = 1, stride: int = 1) -> None:
        self.add_module(name, nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2))
        self.add_module(f"{name}_bn", nn.BatchNorm2d(outputs, eps=self.bn_eps))

    def _add_block(self, name: str, width: int, block: _Block) -> int:
        stride = block.stride
        if block.one:
            self._convolution(f"{name}_1x1", width, block.one)
        self._convolution(f"{name}_3x3_reduce", width, block.three[0])
        self._convolution(f"{name}_3x3", *block.three, 3, stride)
        self._convolution(f"{name}_double_3x3_reduce", width, block.double[0])
        self._convolution(f"{name}_double_3x3_1", *block.double[:2], 3)
        self._convolution(f"{name}_double_3x3_2", *block.double[1:], 3, stride)
        if block.pool == "avg":
            pool: nn.Module = nn.AvgPool2d(3, 1, padding=1, ceil_mode=True, count_include_pad=True)
        else:
            pool = nn.MaxPool2d(3, stride, padding=0 if stride == 2 else 1, ceil_mode=True)
        self.add_module(f"{name}_pool", pool)
        if block.projection:
            self._convolution(f"{name}_pool_proj", width, block.projection)
        return block.one + block.three[1] + block.double[2] + (block.projection or width)

    def _unit(self, name: str, x: Tensor) -> Tensor:
        return F.relu_(self.get_submodule(f"{name}_bn")(self.get_submodule(name)(x)))

    def _run_block(self, name: str, x: Tensor, block: _Block) -> Tensor:
        if block.stride == 2 and (x.shape[2] % 2 or x.shape[3] % 2):
            raise InputError(
                f"BN-Inception cannot join its branches at {name} on a {x.shape[3]}x{x.shape[2]} map: "
                "feed it pictures whose sides are multiples of 32"
            )
        branches = [self._unit(f"{name}_1x1", x)] if block.one else []
        branches.append(self._unit(f"{name}_3x3", self._unit(f"{name}_3x3_reduce", x)))
        double = self._unit(f"{name}_double_3x3_1", self._unit(f"{name}_double_3x3_reduce", x))
        branches.append(self._unit(f"{name}_double_3x3_2", double))
        pooled = self.get_submodule(f"{name}_pool")(x)
        branches.append(self._unit(f"{name}_pool_proj", pooled) if block.projection else pooled)
        return torch.cat(branches, dim=1)

    def trunk(self, images: Tensor) -> Tensor:
        """images (N, in_channels, H, W) -> the map of block 5b (N, 1024, H / 32, W / 32).

        Raises InputError for sizes at which the branches of a block do not fit together.
        """
        x = self.pool1_3x3_s2(self._unit("conv1_7x7_s2", images))
        x = self._unit("conv2_3x3", self._unit("conv2_3x3_reduce", x))
        x = self.pool2_3x3_s2(x)
        for name, block in BLOCKS.items():
            x = self._run_block(f"inception_{name}", x, block)
        return x

    def image_features(self, images: Tensor) -> Tensor:
        """images (N, in_channels, H, W) -> (N, 1024), the average of the last map ("global_pool" in Caffe)."""
        return self.trunk(images).mean(dim=(2, 3))

    def features(self, clips: Tensor) -> Tensor:
        """clips (B, C, T, H, W) -> (B, 1024), the mean over the images of a clip.

        An image is one frame, red, green, blue (turned around here), or `in_channels` / 2 consecutive flow fields.
        """
        if self.in_channels == 3:
            clips = clips.flip(1)
        images = clips.transpose(1, 2).reshape(-1, self.in_channels, *clips.shape[3:])
        return self.image_features(images).view(clips.shape[0], -1, FEATURES).mean(dim=1)

    def classify(self, features: Tensor) -> Tensor:
        """features (N, 1024) -> class scores before softmax (N, num_classes)."""
        return self.last_linear(features)


_CLASSIFIERS = ("last_linear.", "new_fc.", "fc.")


def from_published(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Names and shapes used here, from any published PyTorch layout.

    pretrainedmodels (names as here), yjxiong's ImageNet file and the converted Kinetics files (classifier `fc`, batch
    norm vectors stored as (1, C)), TSN-PyTorch checkpoints (prefix `module.base_model.`, classifier `module.new_fc`).
    """
    renamed = {}
    for key, tensor in state_dict.items():
        key = key.removeprefix("module.").removeprefix("base_model.")
        for classifier in _CLASSIFIERS:
            if key.startswith(classifier):
                key = f"last_linear.{key.removeprefix(classifier)}"
        if "_bn." in key and tensor.ndim == 2 and tensor.shape[0] == 1:
            tensor = tensor.squeeze(0)
        renamed[key] = tensor
    return renamed


def load(state_dict: Mapping[str, Tensor], bn_eps: float = 1e-5) -> BNInception:
    """BN-Inception with the weights of any published PyTorch layout; channels and classes are read from them.

    Raises InputError when a tensor is missing, unused or of another shape.
    """
    renamed = from_published(state_dict)
    first, last = renamed.get("conv1_7x7_s2.weight"), renamed.get("last_linear.weight")
    in_channels = 3 if first is None else first.shape[1]
    network = BNInception(in_channels, 0 if last is None else last.shape[0], bn_eps)
    load_exactly(network, renamed)
    return network
