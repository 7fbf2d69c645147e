"""Video Action Transformer (Girdhar et al., CVPR 2019): a person's box asks the whole clip what the person does.

No code or weights were released: names are this package's. What the paper leaves open is chosen as follows. Location
embedding: relative places in (-1, 1), two layers of 64 and 32 for space and for time. Regions: 14x14 corner-aligned
bilinear samples, then a 2x2 maximum. The feed-forward layer (512 wide) reads the updated query. Query preprocessors,
one for each first-layer head, reduce to 384 channels. One output more for background. Box code scaled by 10, 10, 5, 5.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import clip_boxes_to_image, nms, roi_align

from vidtad.errors import InputError
from vidtad.models.i3d import MIXED, Mixed, SamePool3d, Unit3d
from vidtad.models.roi import SIDE, crop_and_resize

BOX_CODE = (10.0, 10.0, 5.0, 5.0)


@dataclass(frozen=True)
class ActionTransformerConfig:
    """The full model of the paper; `query` "low" and `i3d_head` off are its ablations.

    `channels`: of the maps it reads (832 for I3D's Mixed_4f). `proposals`: regions a clip, 0 for a network that is
    always given boxes and has no region proposal network. `align`: RoIAlign instead of corner-aligned samples.
    `shrink`: divides the widths of the I3D head, for small networks. `anchors`: sides of the proposals' anchors in
    pixels of the network's input; smaller for small pictures.
    """

    classes: int = 80
    channels: int = 832
    query: str = "high"
    heads: int = 2
    layers: int = 3
    width: int = 128
    feedforward: int = 512
    reduced: int = 384
    embedding: int = 32
    dropout: float = 0.3
    i3d_head: bool = True
    shrink: int = 1
    proposals: int = 300
    rpn_width: int = 512
    anchors: tuple[int, ...] = (64, 128, 256, 512)
    align: bool = False
    nms: float = 0.6

    def __post_init__(self) -> None:
        object.__setattr__(self, "anchors", tuple(self.anchors))  # a list when read from a bundle
        if not self.anchors or min(self.anchors) < 1:
            raise InputError(f"anchors of {list(self.anchors)} pixels: give one side at least, each above 0")
        sizes = (self.classes, self.channels, self.heads, self.layers, self.width, self.reduced, self.shrink)
        if min(sizes) < 1 or self.query not in ("high", "low") or self.proposals < 0:
            raise InputError('an Action Transformer has sizes of at least 1 and a query that is "high" or "low"')


class TransformerOutput(NamedTuple):
    """Raw outputs for all boxes of a batch: logits (n, 1 + classes), the first for background, and offsets (n, 4).

    `i3d_logits` and `i3d_offsets` are None without the I3D head.
    """

    logits: Tensor
    offsets: Tensor
    i3d_logits: Tensor | None
    i3d_offsets: Tensor | None


class Found(NamedTuple):
    """People of one clip: boxes (n, 4) normalised, how surely each is a person (n,), scores (n, classes)."""

    boxes: Tensor
    person: Tensor
    scores: Tensor


def widths(name: str, shrink: int) -> tuple[int, int, int, int, int, int]:
    """Branch channels of an Inception block, divided by `shrink`."""
    return tuple(max(1, channels // shrink) for channels in MIXED[name])  # type: ignore[return-value]


class I3dTrunk(nn.Module):
    """I3D up to Mixed_4f: clips (B, 3, T, H, W) in [-1, 1] -> maps (B, 832, T / 4, H / 16, W / 16).

    Parameters are named as in `models.i3d`. `shrink` divides all widths.
    """

    def __init__(self, shrink: int = 1, bn_eps: float = 1e-3):
        super().__init__()
        first, second = max(1, 64 // shrink), max(1, 192 // shrink)
        self.Conv3d_1a_7x7 = Unit3d(3, first, kernel=7, stride=2, eps=bn_eps)
        self.MaxPool3d_2a_3x3 = SamePool3d((1, 3, 3), (1, 2, 2))
        self.Conv3d_2b_1x1 = Unit3d(first, first, eps=bn_eps)
        self.Conv3d_2c_3x3 = Unit3d(first, second, kernel=3, eps=bn_eps)
        self.MaxPool3d_3a_3x3 = SamePool3d((1, 3, 3), (1, 2, 2))
        self.width = second
        for name in MIXED:
            if name.startswith("Mixed_5"):
                break
            if name == "Mixed_4b":
                self.MaxPool3d_4a_3x3 = SamePool3d((3, 3, 3), (2, 2, 2))
            channels = widths(name, shrink)
            self.add_module(name, Mixed(self.width, channels, bn_eps))
            self.width = channels[0] + channels[2] + channels[4] + channels[5]

    def forward(self, clips: Tensor) -> tuple[Tensor]:
        """clips (B, 3, T, H, W) -> the one map (B, width, T / 4, H / 16, W / 16), lengths rounded up."""
        for layer in self.children():
            clips = layer(clips)
        return (clips,)


class LocationEmbedding(nn.Module):
    """Where and when each cell is, relative to the clip's centre, as channels."""

    def __init__(self, width: int, hidden: int = 64):
        super().__init__()
        self.space = nn.Sequential(nn.Linear(2, hidden), nn.ReLU(), nn.Linear(hidden, width))
        self.time = nn.Sequential(nn.Linear(1, hidden), nn.ReLU(), nn.Linear(hidden, width))

    def forward(self, maps: Tensor) -> Tensor:
        """maps (B, C, T, H, W) -> (B, C + 2 width, T, H, W)."""
        t, h, w = (
            (2 * torch.arange(size, device=maps.device, dtype=maps.dtype) + 1) / size - 1 for size in maps.shape[2:]
        )
        space = self.space(torch.stack(torch.meshgrid(h, w, indexing="ij"), dim=-1)).permute(2, 0, 1)
        time = self.time(t[:, None]).T
        count, _, steps, height, width = maps.shape
        here = space[None, :, None].expand(count, -1, steps, -1, -1)
        now = time[None, :, :, None, None].expand(count, -1, -1, height, width)
        return torch.cat([maps, here, now], dim=1)


class HighResQuery(nn.Module):
    """Region features (n, C, 7, 7) -> (n, width), places kept apart."""

    def __init__(self, channels: int, reduced: int, width: int):
        super().__init__()
        self.reduce = nn.Conv2d(channels, reduced, 1)
        self.linear = nn.Linear(reduced * SIDE * SIDE, width)

    def forward(self, regions: Tensor) -> Tensor:
        return self.linear(F.relu(self.reduce(regions)).flatten(1))


class LowResQuery(nn.Module):
    """Region features (n, C, 7, 7) -> (n, width), from their mean."""

    def __init__(self, channels: int, width: int):
        super().__init__()
        self.linear = nn.Linear(channels, width)

    def forward(self, regions: Tensor) -> Tensor:
        return self.linear(regions.mean(dim=(2, 3)))


class Unit(nn.Module):
    """One head of one layer: a query per box attends to every cell of the clip (section 3.2)."""

    def __init__(self, query: nn.Module, channels: int, config: ActionTransformerConfig):
        super().__init__()
        width = config.width
        self.query = query
        self.key, self.value = nn.Linear(channels, width), nn.Linear(channels, width)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.feedforward = nn.Sequential(
            nn.Linear(width, config.feedforward), nn.ReLU(), nn.Linear(config.feedforward, width)
        )
        self.dropout = nn.Dropout(config.dropout)

    def attend(self, query: Tensor, cells: Tensor) -> Tensor:
        """query (n, width), cells (T H W, C) -> what each query finds (n, width)."""
        affinity = query @ self.key(cells).T / math.sqrt(query.shape[1])
        return affinity.softmax(dim=1) @ self.value(cells)

    def forward(self, asked: Tensor, cells: Tensor) -> Tensor:
        """asked: regions (n, C, 7, 7) in the first layer, else (n, heads width); cells (T H W, C) -> (n, width)."""
        query = self.query(asked)
        query = self.norm1(query + self.dropout(self.attend(query, cells)))
        return self.norm2(query + self.dropout(self.feedforward(query)))


class TransformerHead(nn.Module):
    """Units in layers; the heads of a layer are concatenated into the next layer's query."""

    layers: Any

    def __init__(self, config: ActionTransformerConfig):
        super().__init__()
        channels = config.channels + 2 * config.embedding
        joined = config.heads * config.width

        def query(layer: int) -> nn.Module:
            if layer:
                return nn.Linear(joined, config.width)
            if config.query == "low":
                return LowResQuery(channels, config.width)
            return HighResQuery(channels, config.reduced, config.width)

        self.layers = nn.ModuleList(
            nn.ModuleList(Unit(query(layer), channels, config) for _ in range(config.heads))
            for layer in range(config.layers)
        )
        self.classes = nn.Linear(joined, 1 + config.classes)
        self.offsets = nn.Linear(joined, 4)

    def forward(self, regions: Tensor, maps: Tensor) -> Tensor:
        """regions (n, C, 7, 7) of one clip and its maps (C, T, H, W) -> box features (n, heads width)."""
        cells = maps.flatten(1).T
        asked = regions
        for layer in self.layers:
            asked = torch.cat([unit(asked, cells) for unit in layer], dim=1)
        return asked


class I3dHead(nn.Module):
    """The paper's baseline head, which places boxes best: the box in every frame, through I3D's last blocks."""

    def __init__(self, config: ActionTransformerConfig, bn_eps: float = 1e-3):
        super().__init__()
        self.MaxPool3d_5a_2x2 = SamePool3d((2, 2, 2), (2, 2, 2))
        width = config.channels
        for name in ("Mixed_5b", "Mixed_5c"):
            channels = widths(name, config.shrink)
            self.add_module(name, Mixed(width, channels, bn_eps))
            width = channels[0] + channels[2] + channels[4] + channels[5]
        self.classes = nn.Linear(width, 1 + config.classes)
        self.offsets = nn.Linear(width, 4)

    def forward(self, regions: Tensor) -> Tensor:
        """regions (n, C, T, 7, 7) -> (n, width)."""
        for layer in (self.MaxPool3d_5a_2x2, self.get_submodule("Mixed_5b"), self.get_submodule("Mixed_5c")):
            regions = layer(regions)
        return regions.mean(dim=(2, 3, 4))


class ActionTransformer(nn.Module):
    """Both heads and the region proposals, on the maps of a trunk of strides 4 (time) and 16 (space)."""

    def __init__(self, config: ActionTransformerConfig | None = None):
        super().__init__()
        self.config = config = config or ActionTransformerConfig()
        self.embedding = LocationEmbedding(config.embedding)
        self.tx = TransformerHead(config)
        self.i3d: I3dHead | None = I3dHead(config) if config.i3d_head else None
        self.rpn: Any = None
        if config.proposals:
            from vidtad.models.proposals import ProposalNetwork

            self.rpn = ProposalNetwork(config.channels, config.rpn_width, config.proposals, config.anchors)

    def regions(self, maps: Tensor, boxes: Tensor) -> Tensor:
        """maps (C, h, w), boxes (n, 4) normalised -> (n, C, 7, 7): the 2x2 maximum of 14x14 samples."""
        if self.config.align:
            cells = maps.new_tensor([maps.shape[2], maps.shape[1]] * 2)
            sampled = roi_align(maps[None], [boxes.to(maps) * cells], 2 * SIDE)
        else:
            sampled = crop_and_resize(maps, boxes)
        return F.max_pool2d(sampled, 2)

    def _i3d_rows(self, maps: Tensor, boxes: Tensor, most: int = 16) -> Tensor:
        # A box is 2.6 MB for every frame of the map: at inference a few are taken at a time.
        assert self.i3d is not None
        most = len(boxes) if self.training else most
        rows = []
        for part in boxes.split(max(most, 1)):
            regions = self.regions(maps.flatten(0, 1), part).unflatten(1, maps.shape[:2])
            rows.append(self.i3d(regions))
        return torch.cat(rows) if rows else maps.new_zeros(0, self.i3d.classes.in_features)

    def run(self, maps: Sequence[Tensor], boxes: Sequence[Tensor]) -> TransformerOutput:
        """maps: one tensor (B, C, T, h, w); boxes B x (n_i, 4) x1 y1 x2 y2 normalised -> raw outputs of both heads."""
        (trunk,) = maps
        located = self.embedding(trunk)
        centre = trunk.shape[2] // 2
        tx, i3d = [], []
        for i, rows in enumerate(boxes):
            tx.append(self.tx(self.regions(located[i, :, centre], rows), located[i]))
            if self.i3d is not None:
                i3d.append(self._i3d_rows(trunk[i], rows))
        features = torch.cat(tx)
        output = (self.tx.classes(features), self.tx.offsets(features))
        if self.i3d is None:
            return TransformerOutput(*output, None, None)
        features = torch.cat(i3d)
        return TransformerOutput(*output, self.i3d.classes(features), self.i3d.offsets(features))

    def forward(self, maps: Sequence[Tensor], boxes: Sequence[Tensor], valid: object = None) -> Tensor:
        """As `run`, the class logits (n, classes) of the transformer alone. Clips are never padded: no `valid`."""
        (trunk,) = maps
        located = self.embedding(trunk)
        centre = trunk.shape[2] // 2
        rows = [self.tx(self.regions(located[i, :, centre], box), located[i]) for i, box in enumerate(boxes)]
        return self.tx.classes(torch.cat(rows))[:, 1:]

    def scores(self, logits: Tensor) -> Tensor:
        """logits (n, classes) -> scores in 0-1, each class for itself."""
        return logits.sigmoid()

    @torch.no_grad()
    def detect(self, maps: Sequence[Tensor], size: tuple[int, int]) -> list[Found]:
        """People without given boxes; `size` is the (height, width) of the network's input in pixels.

        Offsets are the I3D head's where there is one. Of people who overlap by more than `nms` (IoU) the surest is
        kept. Raises InputError for a network without region proposals.
        """
        if self.rpn is None:
            raise InputError("this Action Transformer has no region proposals: give it boxes")
        proposals = [regions for regions, _ in self.rpn(maps[0], size)]
        output = self.run(maps, proposals)
        offsets = output.offsets if output.i3d_offsets is None else output.i3d_offsets
        counts = [len(regions) for regions in proposals]
        found = []
        for rows, logits, codes in zip(proposals, output.logits.split(counts), offsets.split(counts), strict=True):
            boxes = clip_boxes_to_image(decoded(rows, codes), (1, 1))
            person, scores = (-logits[:, 0]).sigmoid(), logits[:, 1:].sigmoid()
            whole = ((boxes[:, 2:] - boxes[:, :2]) > 1e-3).all(dim=1).nonzero()[:, 0]
            kept = whole[nms(boxes[whole], person[whole], self.config.nms)]
            found.append(Found(boxes[kept], person[kept], scores[kept]))
        return found


def decoded(boxes: Tensor, codes: Tensor) -> Tensor:
    """boxes (n, 4) moved by codes (n, 4): (dx, dy, dw, dh), scaled by `BOX_CODE` (Ren et al., 2015, equation 2)."""
    code = codes / codes.new_tensor(BOX_CODE)
    size = boxes[:, 2:] - boxes[:, :2]
    centre = boxes[:, :2] + size / 2 + code[:, :2] * size
    half = size * code[:, 2:].clamp(max=math.log(1000 / 16)).exp() / 2
    return torch.cat([centre - half, centre + half], dim=1)


def encoded(boxes: Tensor, targets: Tensor) -> Tensor:
    """The codes (n, 4) that move boxes (n, 4) onto targets (n, 4); inverse of `decoded`."""
    size, wanted = boxes[:, 2:] - boxes[:, :2], targets[:, 2:] - targets[:, :2]
    moved = (targets[:, :2] + wanted / 2 - boxes[:, :2] - size / 2) / size
    return torch.cat([moved, (wanted / size).log()], dim=1) * boxes.new_tensor(BOX_CODE)


def from_i3d(state_dict: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """(trunk, I3D head) parts of I3D weights named as in `models.i3d`; its classifier is left out."""
    blocks = ("Mixed_5b.", "Mixed_5c.")
    trunk = {key: value for key, value in state_dict.items() if not key.startswith((*blocks, "logits."))}
    return trunk, {key: value for key, value in state_dict.items() if key.startswith(blocks)}
