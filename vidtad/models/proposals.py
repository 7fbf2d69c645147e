"""Where people may be: a class-agnostic region proposal network (Ren et al., NeurIPS 2015, section 3)."""

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.rpn import RegionProposalNetwork

SIZES = (64, 128, 256, 512)
RATIOS = (0.5, 1.0, 2.0)


class _Head(nn.Module):
    def __init__(self, channels: int, width: int, anchors: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, width, 3, padding=1)
        self.objectness = nn.Conv2d(width, anchors, 1)
        self.offsets = nn.Conv2d(width, 4 * anchors, 1)
        for layer in (self.conv, self.objectness, self.offsets):
            nn.init.normal_(layer.weight, std=0.01)
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)

    def forward(self, maps: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        hidden = [F.relu(self.conv(m)) for m in maps]
        return [self.objectness(m) for m in hidden], [self.offsets(m) for m in hidden]


class ProposalNetwork(nn.Module):
    """Proposals from the centre slice of a clip's maps: torchvision's matching and losses.

    Anchors of `sizes` pixels a side in three shapes, IoU of at least 0.7 positive and under 0.3 negative, 256 of
    them a clip in the loss, at most half positive; suppression at IoU 0.7, then the best `count`. Offsets are not
    scaled (torchvision's code), unlike those of the second stage.
    """

    def __init__(self, channels: int, width: int, count: int, sizes: tuple[int, ...] = SIZES):
        super().__init__()
        per_cell = len(sizes) * len(RATIOS)
        kept = {"training": max(count, 1), "testing": max(count, 1)}
        self.network = RegionProposalNetwork(
            AnchorGenerator((tuple(sizes),), (RATIOS,)),
            _Head(channels, width, per_cell),
            fg_iou_thresh=0.7,
            bg_iou_thresh=0.3,
            batch_size_per_image=256,
            positive_fraction=0.5,
            pre_nms_top_n={"training": 12000, "testing": 6000},
            post_nms_top_n=kept,
            nms_thresh=0.7,
        )
        self.losses: dict[str, Tensor] = {}

    def forward(
        self, maps: Tensor, size: tuple[int, int], truth: list[Tensor] | None = None
    ) -> list[tuple[Tensor, Tensor]]:
        """maps (B, C, T, h, w) of clips of `size` (height, width) pixels -> per clip (regions (n, 4), scores (n,)).

        Regions are normalised, best first. In training `truth` holds the people's boxes (n_i, 4), normalised, and
        `losses` receives the terms "objectness" and "box" afterwards.
        """
        middle = maps[:, :, maps.shape[2] // 2]
        height, width = size
        cells = middle.new_tensor([width, height, width, height])
        images = ImageList(middle.new_zeros(len(middle), 3, height, width), [size] * len(middle))
        targets: Any = None if truth is None else [{"boxes": boxes.to(cells) * cells} for boxes in truth]
        scored: list[Tensor] = []
        filtered = self.network.filter_proposals

        def remembering(*args: Any) -> tuple[list[Tensor], list[Tensor]]:
            boxes, scores = filtered(*args)
            scored.extend(scores)
            return boxes, scores

        self.network.filter_proposals = remembering
        try:
            regions, losses = self.network(images, {"0": middle}, targets)
        finally:
            self.network.filter_proposals = filtered
        if losses:
            self.losses = {"objectness": losses["loss_objectness"], "box": losses["loss_rpn_box_reg"]}
        return [(boxes.detach() / cells, scores.detach()) for boxes, scores in zip(regions, scored, strict=True)]
