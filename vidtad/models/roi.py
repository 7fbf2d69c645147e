"""From maps of a clip to one row a person box: RoIAlign, crop-and-resize, and the linear RoI head.

The linear head is that of PySlowFast and pytorchvideo (`projection`), of ACAR's baseline (`fc`) and of mmaction2
(`projection` after renaming, with an unused first output).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import roi_align

from vidtad.errors import InputError
from vidtad.models.loading import load_exactly

POSES = 13
"""Of the 60 evaluated AVA classes the first 13 are poses, of which a person has one at a time."""
SIDE = 7


def time_mean(*maps: Tensor) -> Tensor:
    """Maps (B, C_i, T_i, h, w), one a pathway -> (B, sum of C_i, h, w), each averaged over its own time."""
    # Channels last a mean over the second axis is 20 times as fast on a CPU as one over the third.
    return torch.cat([pathway.movedim(1, -1).mean(dim=1).movedim(-1, 1) for pathway in maps], dim=1)


def activate(logits: Tensor, poses: int = 0) -> Tensor:
    """logits (n, classes) -> scores in 0-1: softmax over the first `poses` classes, sigmoid over the others."""
    return torch.cat([logits[:, :poses].softmax(dim=1), logits[:, poses:].sigmoid()], dim=1)


def scores(logits: Tensor) -> Tensor:
    """logits (n, 60) -> scores in 0-1: softmax over the 13 poses, sigmoid over the other classes."""
    return activate(logits, POSES)


def by_clip(regions: Tensor, clips: int) -> tuple[list[Tensor], Tensor]:
    """Boxes of several clips in any order -> those of each clip, and the way back.

    regions (n, 5) float: number of the clip, then x1 y1 x2 y2. Returns `clips` tensors (n_i, 4), in which the order
    is kept, and int64 (n,): a head's output for these boxes, indexed by it, is in the order of `regions`. Raises
    InputError when a box is of no clip.
    """
    number = regions[:, 0]
    if not ((number >= 0) & (number < clips) & (number == number.floor())).all():
        raise InputError(f"a box belongs to one of {clips} clips, numbered from 0")
    order = number.argsort(stable=True)
    return [regions[number == clip, 1:] for clip in range(clips)], order.argsort()


def box_features(
    maps: Tensor,
    boxes: Sequence[Tensor],
    *,
    scale: tuple[float, float] | None = None,
    aligned: bool = False,
    side: int = SIDE,
) -> Tensor:
    """The maximum over side x side RoIAlign samples of each box: maps (B, C, h, w), boxes B x (n_i, 4) -> (n, C).

    Boxes are x1 y1 x2 y2, normalised to the frame, or in units of `scale` (x, y) map cells. Cells are sampled as often
    as the box is large. `aligned` shifts by half a cell (some PySlowFast configurations).
    """
    across, down = scale or (maps.shape[3], maps.shape[2])
    cells = maps.new_tensor([across, down, across, down])
    return roi_align(maps, [box.to(maps) * cells for box in boxes], side, aligned=aligned).amax(dim=(2, 3))


def crop_and_resize(maps: Tensor, boxes: Tensor, side: int = 2 * SIDE) -> Tensor:
    """One bilinear sample at each of side x side points of every box, corners included, zero outside the map.

    maps (C, h, w) of one clip, boxes (n, 4) x1 y1 x2 y2 normalised -> (n, C, side, side). Point k of an axis lies at
    (start + k (end - start) / (side - 1)) (size - 1) cells: how TensorFlow's object detection API pools regions.
    """
    along = torch.linspace(0, 1, side, device=maps.device, dtype=maps.dtype)
    x1, y1, x2, y2 = boxes.to(maps).unbind(dim=1)
    x = x1[:, None] + (x2 - x1)[:, None] * along
    y = y1[:, None] + (y2 - y1)[:, None] * along
    count = len(boxes)
    points = torch.stack([x[:, None].expand(-1, side, -1), y[:, :, None].expand(-1, -1, side)], dim=-1) * 2 - 1
    grid = points.reshape(1, count * side, side, 2)
    sampled = F.grid_sample(maps[None], grid, mode="bilinear", padding_mode="zeros", align_corners=True)
    return sampled[0].unflatten(1, (count, side)).transpose(0, 1)


@dataclass(frozen=True)
class LinearConfig:
    """A linear RoI head.

    `poses`: classes at the front that share a softmax (ACAR 13, PySlowFast 0: all sigmoid). `background`: outputs at
    the front that are no class (mmaction2 1). `pixels`: boxes come in pixels of the network's input, one map cell
    being 16 of them (PySlowFast); else they are fractions of the map (ACAR). `side`: RoIAlign samples a side;
    `aligned` as in `box_features`. `maximum`: pathways are pooled over time by maximum (mmaction2's variant).
    """

    width: int = 2304
    classes: int = 80
    bias: bool = True
    dropout: float = 0.5
    poses: int = 0
    background: int = 0
    pixels: bool = True
    aligned: bool = False
    side: int = SIDE
    maximum: bool = False

    def __post_init__(self) -> None:
        if min(self.width, self.classes, self.side) < 1 or not 0 <= self.dropout < 1:
            raise InputError(f"a linear head cannot have {self.classes} classes on {self.width} channels")


STRIDE = 16
"""Pixels of the network's input in one cell of the maps every head here reads."""


class LinearHead(nn.Module):
    """Pooled box features to class logits with one linear layer."""

    def __init__(self, config: LinearConfig | None = None):
        super().__init__()
        self.config = config = config or LinearConfig()
        self.dropout = nn.Dropout(config.dropout)
        self.projection = nn.Linear(config.width, config.classes + config.background, bias=config.bias)
        nn.init.normal_(self.projection.weight, std=0.01)

    def forward(self, maps: Sequence[Tensor], boxes: Sequence[Tensor], valid: object = None) -> Tensor:
        """maps: pathways (B, C_i, T_i, h, w); boxes B x (n_i, 4), see `LinearConfig.pixels` -> (n, classes).

        `valid` is not used: padding is context only for heads that look outside the boxes.
        """
        config = self.config
        pooled = torch.cat([m.amax(2) for m in maps], dim=1) if config.maximum else time_mean(*maps)
        scale = (1 / STRIDE, 1 / STRIDE) if config.pixels else None
        rows = box_features(pooled, boxes, scale=scale, aligned=config.aligned, side=config.side)
        return self.projection(self.dropout(rows))[:, config.background :]

    def scores(self, logits: Tensor) -> Tensor:
        """logits (n, classes) -> scores in 0-1."""
        return activate(logits, self.config.poses)


def load_linear(state_dict: Mapping[str, Tensor], config: LinearConfig | None = None) -> LinearHead:
    """A linear head with weights named `projection.*` or, as ACAR's, `fc.*`; sizes are read from them.

    `config` gives what weights cannot tell. Raises InputError when a tensor is missing, unused or of another shape.
    """
    from dataclasses import replace

    renamed = {f"projection.{key[3:]}" if key.startswith("fc.") else key: value for key, value in state_dict.items()}
    config = config or LinearConfig()
    weight = renamed.get("projection.weight")
    if weight is not None and weight.ndim == 2:
        outputs, width = weight.shape
        bias = "projection.bias" in renamed
        config = replace(config, width=width, classes=outputs - config.background, bias=bias)
    head = LinearHead(config)
    load_exactly(head, renamed)
    return head
