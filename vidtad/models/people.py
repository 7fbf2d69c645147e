"""A trunk and a person-box head as one network: clips and boxes in, class logits out."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from vidtad.models.acar import AcarHead
from vidtad.models.acfb import AcfbHead


class PersonNetwork(nn.Module):
    """A trunk (clips to maps of stride 16) with a head that reads them (`HeadSpec.parts`).

    `bank`: for ACFB, the head whose first-order maps fill the feature bank (the trained, frozen ACAR of the report);
    without it the head's own do. `freeze_norm`: in training, batch norms keep their statistics (their scales still
    learn); off for a trunk that starts from nothing. `freeze_trunk`: the trunk does not learn, so that a filled bank
    stays what the network would fill.
    """

    trunk: Any
    head: Any

    def __init__(self, trunk: nn.Module, head: nn.Module, bank: AcarHead | None = None):
        super().__init__()
        self.trunk, self.head, self.bank = trunk, head, bank
        self.freeze_norm, self.freeze_trunk = True, False

    def train(self, mode: bool = True) -> "PersonNetwork":
        """As any module's, but for batch norms that are frozen and the bank's head, which never learns."""
        super().train(mode)
        if self.bank is not None:
            self.bank.eval()
        if self.freeze_trunk:
            self.trunk.eval()
        for module in self.modules():
            if self.freeze_norm and isinstance(module, nn.BatchNorm2d | nn.BatchNorm3d):
                module.eval()
        return self

    def forward(
        self, clips: Tensor, boxes: Sequence[Tensor], valid: Sequence[tuple[float, float]] | None = None, **more: Any
    ) -> Tensor:
        """clips (B, 3, T, H, W) normalised, boxes B x (n_i, 4) -> logits (n, classes).

        Boxes are x1 y1 x2 y2 in the unit the head wants (pixels of H x W where its configuration says so, else
        fractions). `valid` as for `AcarHead`; `more` goes to the head (`banks` of ACFB).
        """
        return self.head(self.maps(clips), boxes, valid, **more)

    def maps(self, clips: Tensor) -> tuple[Tensor, ...]:
        """clips (B, 3, T, H, W) normalised -> the trunk's maps, without gradients where it is frozen."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.freeze_trunk):
            return self.trunk(clips)

    @property
    def in_pixels(self) -> bool:
        """Whether boxes are given in pixels of the clip."""
        return bool(getattr(self.head.config, "pixels", False))

    def scores(self, logits: Tensor) -> Tensor:
        """logits (n, classes) -> scores in 0-1."""
        return self.head.scores(logits)


def bank_rows(
    network: PersonNetwork, maps: Sequence[Tensor], boxes: Sequence[Tensor]
) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """What ACFB needs of a batch: (actors (n, 1024), queries, rows for the bank), the last two a clip each.

    maps are the trunk's; queries and rows are first-order maps (n_i, 512, h - 2, w - 2).
    """
    assert isinstance(network.head, AcfbHead)
    _, actors, queries = network.head.encode(maps, boxes)
    if network.bank is None:
        return actors, queries, queries
    with torch.no_grad():
        return actors, queries, network.bank.encode(maps, boxes)[2]
