"""ACAR: actors related to each other through the places they share (Pan et al., CVPR 2021, section 3), and RoI heads.

Arithmetic and tensor names are those of the released code, which reproduces its published scores: second-order maps
are added to their input, down-sampled by a 3x3 maximum of stride 2 beforehand, and normalised with one group.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import roi_align

from vidtad.models.loading import load_exactly

POSES = 13
"""Of the 60 evaluated AVA classes the first 13 are poses, of which a person has one at a time."""
SIDE = 7


@dataclass(frozen=True)
class AcarConfig:
    """Sizes of an ACAR head: the R101 models have depth 1 and `mlp_1x1`, the R50 model depth 2 without."""

    width: int = 2304
    reduced: int = 1024
    hidden: int = 512
    classes: int = 60
    depth: int = 1
    mlp_1x1: bool = True


@dataclass(frozen=True)
class AcarOutput:
    """What an ACAR head computes: `logits` (n, classes) over all actors, and the steps on the way.

    `reduced` (B, 1024, h, w); `actors` (n, 1024); per clip `first_order` and `relations` (n_i, 512, h', w');
    `high_order` (n, 512).
    """

    reduced: Tensor
    actors: Tensor
    first_order: list[Tensor]
    relations: list[Tensor]
    high_order: Tensor
    logits: Tensor


def time_mean(slow: Tensor, fast: Tensor) -> Tensor:
    """slow (B, 2048, T, h, w), fast (B, 256, T', h, w) -> (B, 2304, h, w), each averaged over its time."""
    return torch.cat([slow.mean(dim=2), fast.mean(dim=2)], dim=1)


def scores(logits: Tensor) -> Tensor:
    """logits (n, 60) -> scores in 0-1: softmax over the 13 poses, sigmoid over the other classes."""
    return torch.cat([logits[:, :POSES].softmax(dim=1), logits[:, POSES:].sigmoid()], dim=1)


def box_features(
    maps: Tensor, boxes: Sequence[Tensor], *, scale: tuple[float, float] | None = None, aligned: bool = False
) -> Tensor:
    """The maximum over 7x7 RoIAlign samples of each box: maps (B, C, h, w), boxes B x (n_i, 4) -> (n, C).

    Boxes are x1 y1 x2 y2, normalised to the frame, or in units of `scale` (x, y) map cells. Cells are sampled as often
    as the box is large. `aligned` shifts by half a cell (some PySlowFast configurations).
    """
    across, down = scale or (maps.shape[3], maps.shape[2])
    cells = maps.new_tensor([across, down, across, down])
    return roi_align(maps, [box.to(maps) * cells for box in boxes], SIDE, aligned=aligned).amax(dim=(2, 3))


class Hr2o(nn.Module):
    """High-order relation block: at every place each actor attends to all actors of its clip (section 3.2)."""

    def __init__(self, width: int, mlp_1x1: bool):
        super().__init__()
        self.conv_q = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.conv_k = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.conv_v = nn.Conv2d(width, width, 3, padding=1, bias=False)
        kernel = 1 if mlp_1x1 else 3
        self.conv = nn.Conv2d(width, width, kernel, padding=kernel // 2, bias=False)
        self.norm = nn.GroupNorm(1, width)
        self.dropout = nn.Dropout(0.2)

    def forward(self, x: Tensor) -> Tensor:
        """x (n, C, h, w), the actors of one clip -> the same shape."""
        query, key, value = self.conv_q(x), self.conv_k(x), self.conv_v(x)
        affinity = torch.einsum("ichw,jchw->ijhw", query, key) / math.sqrt(x.shape[1])
        mixed = torch.einsum("ijhw,jchw->ichw", affinity.softmax(dim=1), value)
        return x + self.dropout(self.conv(F.relu(self.norm(mixed))))


class AcarHead(nn.Module):
    """The actor-context-actor relation head on SlowFast's res5 maps."""

    def __init__(self, config: AcarConfig | None = None):
        super().__init__()
        config = config or AcarConfig()
        hidden, reduced = config.hidden, config.reduced
        self.conv_reduce = nn.Conv2d(config.width, reduced, 1, bias=False)
        self.conv1 = nn.Conv2d(2 * reduced, hidden, 1, bias=False)
        self.conv2 = nn.Conv2d(hidden, hidden, 3, bias=False)
        self.hr2o = nn.ModuleList(Hr2o(hidden, config.mlp_1x1) for _ in range(config.depth))
        self.fc1 = nn.Linear(reduced, hidden, bias=False)
        self.fc2 = nn.Linear(2 * hidden, config.classes, bias=False)

    def first_order(self, actors: Tensor, context: Tensor) -> Tensor:
        """actors (n, 1024) and their clip's map (1024, h, w) -> (n, 512, h - 2, w - 2)."""
        tiled = actors[:, :, None, None].expand(-1, -1, *context.shape[1:])
        joined = torch.cat([context.expand(len(actors), -1, -1, -1), tiled], dim=1)
        return F.relu(self.conv2(F.relu(self.conv1(joined))))

    def relate(self, maps: Tensor) -> Tensor:
        """First-order maps (n, 512, h, w) of one clip -> (n, 512, ceil(h / 2), ceil(w / 2))."""
        maps = F.max_pool2d(maps, 3, stride=2, padding=1)
        for block in self.hr2o:
            maps = block(maps)
        return maps

    def run(
        self, slow: Tensor, fast: Tensor, boxes: Sequence[Tensor], valid: Sequence[tuple[float, float]] | None = None
    ) -> AcarOutput:
        """slow (B, 2048, T, h, w), fast (B, 256, T', h, w), boxes B x (n_i, 4) -> everything on the way to logits.

        Boxes are x1 y1 x2 y2, normalised to the padded frame. `valid` holds the (width, height) fractions of it
        that are picture; only that part of the map is context. Maps must be at least 3x3.
        """
        reduced = self.conv_reduce(time_mean(slow, fast))
        actors = box_features(reduced, boxes)
        height, width = reduced.shape[2:]
        first, relations = [], []
        for i, rows in enumerate(actors.split([len(box) for box in boxes])):
            across, down = valid[i] if valid is not None else (1.0, 1.0)
            context = reduced[i, :, : math.ceil(height * down), : math.ceil(width * across)]
            first.append(self.first_order(rows, context))
            relations.append(self.relate(first[-1]) if len(rows) else first[-1])
        high = torch.cat([maps.mean(dim=(2, 3)) for maps in relations])
        logits = self.fc2(torch.cat([F.relu(self.fc1(actors)), high], dim=1))
        return AcarOutput(reduced, actors, first, relations, high, logits)

    def forward(
        self, slow: Tensor, fast: Tensor, boxes: Sequence[Tensor], valid: Sequence[tuple[float, float]] | None = None
    ) -> Tensor:
        """As `run`, the logits (n, classes) alone."""
        return self.run(slow, fast, boxes, valid).logits


def load_head(state_dict: Mapping[str, Tensor]) -> AcarHead:
    """An ACAR head with released weights (names without wrapper prefix, see `slowfast_keys.split_acar`).

    Sizes are read from the weights. Raises InputError when a tensor is missing, unused or of another shape.
    """
    config = AcarConfig()
    if {"conv_reduce.weight", "fc1.weight", "fc2.weight", "hr2o.0.conv.weight"} <= state_dict.keys():
        reduced, width = state_dict["conv_reduce.weight"].shape[:2]
        config = AcarConfig(
            width=width,
            reduced=reduced,
            hidden=state_dict["fc1.weight"].shape[0],
            classes=state_dict["fc2.weight"].shape[0],
            depth=len({key.split(".")[1] for key in state_dict if key.startswith("hr2o.")}),
            mlp_1x1=state_dict["hr2o.0.conv.weight"].shape[-1] == 1,
        )
    head = AcarHead(config)
    load_exactly(head, state_dict)
    return head
