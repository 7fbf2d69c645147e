"""R(2+1)D-34: residual network of factorised convolutions (Tran et al., CVPR 2018, sections 3.5 and 4), as TSP uses it.

TSP (Alwassel et al., 2021) and ig65m share the network. Its middle widths are computed for every convolution by
itself, unlike torchvision's R(2+1)D, so the two do not load each other's files.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from vidtad.models.loading import load_exactly

FEATURES = 512
LAYERS = (3, 4, 6, 3)
STAGES = ("stem", "layer1", "layer2", "layer3", "layer4")


def middle_width(inputs: int, outputs: int) -> int:
    """Channels between the spatial and the temporal part, so that parameters match a 3x3x3 convolution's (eq. 1)."""
    return 27 * inputs * outputs // (9 * inputs + 3 * outputs)


def _factorised(inputs: int, outputs: int, stride: int, eps: float) -> nn.Sequential:
    middle = middle_width(inputs, outputs)
    return nn.Sequential(
        nn.Conv3d(inputs, middle, (1, 3, 3), (1, stride, stride), (0, 1, 1), bias=False),
        nn.BatchNorm3d(middle, eps=eps),
        nn.ReLU(inplace=True),
        nn.Conv3d(middle, outputs, (3, 1, 1), (stride, 1, 1), (1, 0, 0), bias=False),
    )


class _BasicBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int, eps: float):
        super().__init__()
        norms = [nn.BatchNorm3d(outputs, eps=eps) for _ in range(2)]
        self.conv1 = nn.Sequential(_factorised(inputs, outputs, stride, eps), norms[0], nn.ReLU(inplace=True))
        self.conv2 = nn.Sequential(_factorised(outputs, outputs, 1, eps), norms[1])
        self.downsample: nn.Module | None = None
        if stride != 1 or inputs != outputs:
            projection = nn.Conv3d(inputs, outputs, 1, stride, bias=False)
            self.downsample = nn.Sequential(projection, nn.BatchNorm3d(outputs, eps=eps))

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        return torch.relu_(self.conv2(self.conv1(x)) + shortcut)


class _Trunk(nn.Module):
    def __init__(self, layers: tuple[int, ...], eps: float):
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv3d(3, 45, (1, 7, 7), (1, 2, 2), (0, 3, 3), bias=False),
            nn.BatchNorm3d(45, eps=eps),
            nn.ReLU(inplace=True),
            nn.Conv3d(45, 64, (3, 1, 1), 1, (1, 0, 0), bias=False),
            nn.BatchNorm3d(64, eps=eps),
            nn.ReLU(inplace=True),
        )
        inputs = 64
        for stage, count in enumerate(layers):
            outputs = 64 << stage
            blocks = []
            for i in range(count):
                blocks.append(_BasicBlock(inputs, outputs, 2 if stage and not i else 1, eps))
                inputs = outputs
            self.add_module(f"layer{stage + 1}", nn.Sequential(*blocks))


class R2Plus1d(nn.Module):
    """R(2+1)D for clips (B, 3, T, H, W) float32, normalised as Kinetics; usually 16 frames of 112 x 112.

    `heads` maps the name of each linear head to its (inputs, outputs): TSP has `fc1` (actions) and `fc2` (inside or
    outside an action, on the clip feature followed by the whole video's), its baselines and ig65m one `fc`.
    """

    def __init__(
        self,
        layers: tuple[int, ...] = LAYERS,
        heads: Mapping[str, tuple[int, int]] | None = None,
        bn_eps: float = 1e-3,
    ):
        super().__init__()
        self.trunk = _Trunk(layers, bn_eps)
        self.heads = nn.ModuleDict({name: nn.Linear(*sizes) for name, sizes in (heads or {}).items()})

    def run(self, clips: Tensor) -> dict[str, Tensor]:
        """clips (B, 3, T, H, W) -> the map of every stage by name, in order."""
        maps: dict[str, Tensor] = {}
        for name in STAGES:
            clips = maps[name] = self.trunk.get_submodule(name)(clips)
        return maps

    def features(self, clips: Tensor) -> Tensor:
        """clips (B, 3, T, H, W) -> (B, 512), the average of the last map over time and space."""
        for name in STAGES:
            clips = self.trunk.get_submodule(name)(clips)
        return clips.mean(dim=(2, 3, 4))

    def classify(self, head: str, features: Tensor) -> Tensor:
        """features (B, inputs of that head) -> scores before softmax (B, outputs)."""
        return self.heads[head](features)


def from_published(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the keys of a TSP file (its `model` entry, `features.*`) or an ig65m file (flat) to those used here."""
    renamed = {}
    for key, tensor in state_dict.items():
        first = key.split(".")[0]
        if first == "features":
            key = f"trunk.{key.removeprefix('features.')}"
        elif first in STAGES:
            key = f"trunk.{key}"
        elif first in ("fc", "fc1", "fc2"):
            key = f"heads.{key}"
        renamed[key] = tensor
    return renamed


def load(state_dict: Mapping[str, Tensor], bn_eps: float = 1e-3) -> R2Plus1d:
    """R(2+1)D with TSP's or ig65m's weights; depth and heads are read from them.

    Raises InputError when a tensor is missing, unused or of another shape.
    """
    renamed = from_published(state_dict)
    heads = {
        key.split(".")[1]: (tensor.shape[1], tensor.shape[0])
        for key, tensor in renamed.items()
        if key.startswith("heads.") and key.endswith(".weight")
    }
    counts = (
        len({key.split(".")[2] for key in renamed if key.startswith(f"trunk.layer{stage}.")}) for stage in (1, 2, 3, 4)
    )
    network = R2Plus1d(tuple(counts), heads, bn_eps)
    load_exactly(network, renamed)
    return network
