"""ACFB: ACAR whose actors are related to those of many seconds around them, kept in a feature bank.

From the report of the AVA-Kinetics 2020 challenge (Chen et al., section 1.3): the bank holds first-order maps of all
actors, one clip a second; two relation blocks take keys and values from it, without down-sampling. Where the report
is silent this is the project's own definition: a bank window of 10 s either side, the current second included, at
most 5 actors a second (those surest to be people), float16, and no empty rows among what is attended to.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from vidtad.errors import InputError
from vidtad.models.acar import AcarConfig, AcarHead, AcarOutput, config_of
from vidtad.models.loading import load_exactly

REPORTED = AcarConfig(depth=2, mlp_1x1=False, pool=False)
"""The head of the report, on SlowFast R101."""


@dataclass(frozen=True)
class BankOptions:
    """Which rows of a bank a keyframe sees: `reach_s` seconds either side, `per_second` actors of each keyframe."""

    reach_s: float = 10.0
    per_second: int = 5

    def __post_init__(self) -> None:
        if self.reach_s < 0 or self.per_second < 1:
            raise InputError(f"a bank reaches {self.reach_s} s and keeps {self.per_second} actors: give more")


class Bank:
    """First-order maps of the keyframes of one video, in order of time, as far as they are still wanted.

    All maps of a video have one size, so query and bank are computed at the same scale and flip.
    """

    def __init__(self, options: BankOptions | None = None):
        self.options = options or BankOptions()
        self._rows: deque[tuple[float, Tensor]] = deque()

    def __len__(self) -> int:
        return sum(len(rows) for _, rows in self._rows)

    def add(self, time_s: float, first_order: Tensor, person_scores: Tensor) -> None:
        """Keep the actors of the keyframe at `time_s` who are surest to be people, as float16.

        first_order (n, C, h, w), person_scores (n,). Of equal scores the earlier are kept. Raises InputError when the
        maps are of another size than before, or the time is not after the last one.
        """
        if self._rows and (time_s <= self._rows[-1][0] or first_order.shape[1:] != self._rows[-1][1].shape[1:]):
            raise InputError(f"bank rows at {time_s:g} s: not after the last ones, or maps of another size")
        kept = person_scores.argsort(descending=True, stable=True)[: self.options.per_second].sort().values
        self._rows.append((time_s, first_order[kept.to(first_order.device)].half()))

    def around(self, time_s: float) -> Tensor:
        """(m, C, h, w) float16: all rows within reach of `time_s`; m is 0 when there is none. Raises InputError
        when the bank is empty."""
        if not self._rows:
            raise InputError("the bank is empty: add keyframes first")
        reach = self.options.reach_s + 1e-6
        found = [rows for at, rows in self._rows if abs(at - time_s) <= reach]
        return torch.cat(found) if found else self._rows[0][1][:0]

    def forget_before(self, time_s: float) -> None:
        """Drop rows that no keyframe from `time_s` on can reach."""
        while self._rows and self._rows[0][0] < time_s - self.options.reach_s - 1e-6:
            self._rows.popleft()

    def rows(self) -> list[tuple[float, Tensor]]:
        """What is kept: (seconds, maps (n, C, h, w) float16) of each keyframe."""
        return list(self._rows)


class AcfbHead(AcarHead):
    """The ACAR head with its relation blocks looking into a bank."""

    def __init__(self, config: AcarConfig | None = None):
        super().__init__(config or REPORTED)

    def relate_to(self, maps: Tensor, bank: Tensor | None) -> Tensor:
        """First-order maps (n, 512, h, w) of one clip, attending to `bank` (m, 512, h, w) in every block.

        An empty bank, or none, means the clip's own first-order maps. Raises InputError for maps of another size.
        """
        if bank is None or not len(bank):
            bank = maps
        if bank.shape[1:] != maps.shape[1:]:
            raise InputError(f"bank maps of {tuple(bank.shape[1:])} do not fit maps of {tuple(maps.shape[1:])}")
        return self.relate(maps, bank.to(maps))

    def run(
        self,
        maps: Sequence[Tensor],
        boxes: Sequence[Tensor],
        valid: Sequence[tuple[float, float]] | None = None,
        banks: Sequence[Tensor | None] | None = None,
    ) -> AcarOutput:
        """As `AcarHead.run`; `banks` holds the bank rows (m_i, 512, h', w') of each clip, or None."""
        reduced, actors, first = self.encode(maps, boxes, valid)
        around = banks if banks is not None else [None] * len(first)
        relations = [
            self.relate_to(rows, bank) if len(rows) else rows for rows, bank in zip(first, around, strict=True)
        ]
        return AcarOutput(reduced, actors, first, relations, *self.classify(actors, relations))

    def forward(
        self,
        maps: Sequence[Tensor],
        boxes: Sequence[Tensor],
        valid: Sequence[tuple[float, float]] | None = None,
        banks: Sequence[Tensor | None] | None = None,
    ) -> Tensor:
        """As `run`, the logits (n, classes) alone."""
        return self.run(maps, boxes, valid, banks).logits


def load_acfb(state_dict: Mapping[str, Tensor], config: AcarConfig | None = None) -> AcfbHead:
    """An ACFB head with weights named as ACAR's. Raises InputError when a tensor is missing, unused or misshapen."""
    head = AcfbHead(config_of(state_dict, config or replace(REPORTED)))
    load_exactly(head, state_dict)
    return head
