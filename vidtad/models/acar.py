"""ACAR: actors related to each other through the places they share (Pan et al., CVPR 2021, section 3).

Arithmetic and tensor names are those of the released code, which reproduces its published scores: second-order maps
are added to their input, down-sampled by a 3x3 maximum of stride 2 beforehand, and normalised with one group.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vidtad.errors import InputError
from vidtad.models.loading import load_exactly
from vidtad.models.roi import POSES, SIDE, activate, box_features, scores, time_mean

__all__ = ["POSES", "AcarConfig", "AcarHead", "AcarOutput", "box_features", "load_head", "scores", "time_mean"]


@dataclass(frozen=True)
class AcarConfig:
    """Sizes of an ACAR head: the R101 models have depth 1 and `mlp_1x1`, the R50 model depth 2 without.

    `kernel`: of the relation blocks. `pool`: whether first-order maps are halved before them (ACFB's are not).
    `poses`: classes at the front that share a softmax. `bias`: of the two linear layers (released models: none).
    """

    width: int = 2304
    reduced: int = 1024
    hidden: int = 512
    classes: int = 60
    depth: int = 1
    mlp_1x1: bool = True
    kernel: int = 3
    pool: bool = True
    side: int = SIDE
    poses: int = POSES
    bias: bool = False

    def __post_init__(self) -> None:
        if min(self.width, self.reduced, self.hidden, self.classes, self.depth, self.side) < 1:
            raise InputError("the sizes of an ACAR head must be at least 1")
        if self.kernel % 2 == 0 or not 0 <= self.poses <= self.classes:
            raise InputError(f"an ACAR head has an odd kernel, not {self.kernel}, and poses among its classes")


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


class Hr2o(nn.Module):
    """High-order relation block: at every place each actor attends to others through it (section 3.2)."""

    def __init__(self, width: int, mlp_1x1: bool, kernel: int = 3):
        super().__init__()
        self.conv_q = nn.Conv2d(width, width, kernel, padding=kernel // 2, bias=False)
        self.conv_k = nn.Conv2d(width, width, kernel, padding=kernel // 2, bias=False)
        self.conv_v = nn.Conv2d(width, width, kernel, padding=kernel // 2, bias=False)
        last = 1 if mlp_1x1 else kernel
        self.conv = nn.Conv2d(width, width, last, padding=last // 2, bias=False)
        self.norm = nn.GroupNorm(1, width)
        self.dropout = nn.Dropout(0.2)

    def forward(self, x: Tensor, others: Tensor | None = None) -> Tensor:
        """x (n, C, h, w) -> the same shape, attending to `others` (m, C, h, w); default: x, the clip's own actors."""
        others = x if others is None else others
        query, key, value = self.conv_q(x), self.conv_k(others), self.conv_v(others)
        affinity = torch.einsum("ichw,jchw->ijhw", query, key) / math.sqrt(x.shape[1])
        mixed = torch.einsum("ijhw,jchw->ichw", affinity.softmax(dim=1), value)
        return x + self.dropout(self.conv(F.relu(self.norm(mixed))))


class AcarHead(nn.Module):
    """The actor-context-actor relation head on SlowFast's res5 maps, or any maps of stride 16."""

    def __init__(self, config: AcarConfig | None = None):
        super().__init__()
        self.config = config = config or AcarConfig()
        hidden, reduced = config.hidden, config.reduced
        self.conv_reduce = nn.Conv2d(config.width, reduced, 1, bias=False)
        self.conv1 = nn.Conv2d(2 * reduced, hidden, 1, bias=False)
        self.conv2 = nn.Conv2d(hidden, hidden, 3, bias=False)
        self.hr2o = nn.ModuleList(Hr2o(hidden, config.mlp_1x1, config.kernel) for _ in range(config.depth))
        self.fc1 = nn.Linear(reduced, hidden, bias=config.bias)
        self.fc2 = nn.Linear(2 * hidden, config.classes, bias=config.bias)

    def first_order(self, actors: Tensor, context: Tensor) -> Tensor:
        """actors (n, 1024) and their clip's map (1024, h, w) -> (n, 512, h - 2, w - 2).

        The convolution of [context, actor] is the sum of one over the context, done once, and one over the actors.
        """
        over_context, over_actor = self.conv1.weight.split(context.shape[0], dim=1)
        shared = F.conv2d(context[None], over_context)
        own = actors @ over_actor.flatten(1).T
        return F.relu(self.conv2(F.relu(shared + own[:, :, None, None])))

    def relate(self, maps: Tensor, bank: Tensor | None = None) -> Tensor:
        """First-order maps (n, 512, h, w) of one clip -> (n, 512, ceil(h / 2), ceil(w / 2)), or h, w without `pool`.

        Every block attends to `bank` (m, 512, h, w), first-order maps too; default: each to its own input.
        """
        if self.config.pool:
            maps = F.max_pool2d(maps, 3, stride=2, padding=1)
            bank = None if bank is None else F.max_pool2d(bank, 3, stride=2, padding=1)
        for block in self.hr2o:
            maps = block(maps, bank)
        return maps

    def encode(
        self, maps: Sequence[Tensor], boxes: Sequence[Tensor], valid: Sequence[tuple[float, float]] | None = None
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        """The steps before relations: `reduced`, `actors` and `first_order` of `AcarOutput`; arguments as in `run`."""
        reduced = self.conv_reduce(time_mean(*maps))
        height, width = reduced.shape[2:]
        actors = box_features(reduced, boxes, side=self.config.side)
        first = []
        for i, rows in enumerate(actors.split([len(box) for box in boxes])):
            across, down = valid[i] if valid is not None else (1.0, 1.0)
            context = reduced[i, :, : cells_within(height, down), : cells_within(width, across)]
            if min(context.shape[1:]) < 3:
                raise InputError(f"ACAR needs maps of at least 3x3 cells, not {context.shape[2]}x{context.shape[1]}")
            first.append(self.first_order(rows, context))
        return reduced, actors, first

    def classify(self, actors: Tensor, relations: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """`high_order` and `logits` of `AcarOutput`, from its `actors` and `relations`."""
        high = torch.cat([maps.mean(dim=(2, 3)) for maps in relations])
        return high, self.fc2(torch.cat([F.relu(self.fc1(actors)), high], dim=1))

    def run(
        self, maps: Sequence[Tensor], boxes: Sequence[Tensor], valid: Sequence[tuple[float, float]] | None = None
    ) -> AcarOutput:
        """maps: pathways (B, C_i, T_i, h, w), boxes B x (n_i, 4) -> everything on the way to logits.

        Boxes are x1 y1 x2 y2, normalised to the padded frame. `valid` holds the (width, height) fractions of it
        that are picture; only that part of the map is context. Raises InputError for maps under 3x3.
        """
        reduced, actors, first = self.encode(maps, boxes, valid)
        relations = [self.relate(rows) if len(rows) else rows for rows in first]
        return AcarOutput(reduced, actors, first, relations, *self.classify(actors, relations))

    def forward(
        self, maps: Sequence[Tensor], boxes: Sequence[Tensor], valid: Sequence[tuple[float, float]] | None = None
    ) -> Tensor:
        """As `run`, the logits (n, classes) alone."""
        return self.run(maps, boxes, valid).logits

    def scores(self, logits: Tensor) -> Tensor:
        """logits (n, classes) -> scores in 0-1."""
        return activate(logits, self.config.poses)


def cells_within(cells: int, share: float) -> int:
    """How many of `cells` the picture reaches into, whose share of the padded frame this is.

    The product is rounded to single precision: 0.8 of ten cells are eight, also where 0.8 has been a float32.
    """
    return math.ceil(np.float32(cells) * np.float32(share))


HeadType = TypeVar("HeadType", bound=AcarHead)
_MARKS = {"conv_reduce.weight", "fc1.weight", "fc2.weight", "hr2o.0.conv.weight", "hr2o.0.conv_q.weight"}


def config_of(state_dict: Mapping[str, Tensor], config: AcarConfig | None = None) -> AcarConfig:
    """`config` (default: the published one) with the sizes that the weights of a head tell."""
    config = config or AcarConfig()
    if not state_dict.keys() >= _MARKS:
        return config
    reduced, width = state_dict["conv_reduce.weight"].shape[:2]
    return replace(
        config,
        width=width,
        reduced=reduced,
        hidden=state_dict["fc1.weight"].shape[0],
        classes=state_dict["fc2.weight"].shape[0],
        depth=len({key.split(".")[1] for key in state_dict if key.startswith("hr2o.")}),
        kernel=state_dict["hr2o.0.conv_q.weight"].shape[-1],
        mlp_1x1=state_dict["hr2o.0.conv.weight"].shape[-1] == 1,
        bias="fc1.bias" in state_dict,
    )


def load_head(state_dict: Mapping[str, Tensor], config: AcarConfig | None = None) -> AcarHead:
    """An ACAR head with released weights (names without wrapper prefix, see `slowfast_keys.split_acar`).

    Sizes are read from the weights, the rest from `config`. Raises InputError when a tensor is missing, unused or of
    another shape.
    """
    head = AcarHead(config_of(state_dict, config))
    load_exactly(head, state_dict)
    return head
