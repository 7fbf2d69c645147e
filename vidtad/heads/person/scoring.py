"""Clips and boxes of keyframes to class scores, with several scales and flips, and with ACFB's feature bank."""

import itertools
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from vidtad.extractors.base import PRECISIONS, exact
from vidtad.extractors.keyframe_stream import KeyClip
from vidtad.extractors.keyframes import KeyframeConvention, flipped, in_network_pixels
from vidtad.heads.person.boxes import People
from vidtad.models.acfb import AcfbHead, Bank, BankOptions
from vidtad.models.fold import for_inference
from vidtad.models.people import PersonNetwork, bank_rows
from vidtad.runtime.device_memory import Parts


class Scored(NamedTuple):
    """The people of a keyframe and what each does: scores (n, classes) float32."""

    time_s: float
    people: People
    scores: np.ndarray


class FastTrunk(nn.Module):
    """A trunk as inference wants it: folded, in `precision` (a name of `PRECISIONS`), its maps in float32.

    On a CPU clips go through one by one: their maps are large, and together they are no faster.
    """

    def __init__(self, trunk: nn.Module, precision: str = "float32", device: str = "cpu"):
        super().__init__()
        self.dtype = PRECISIONS[precision]
        self.trunk = for_inference(trunk, self.dtype).to(device)

    def forward(self, clips: Tensor) -> tuple[Tensor, ...]:
        """clips (B, 3, T, H, W) float32 -> the trunk's maps, float32."""
        parts = clips.split(1) if clips.device.type == "cpu" else (clips,)
        with exact(clips.device, self.dtype):
            found = [self.trunk(part.to(self.dtype)) for part in parts]
        if len(found) == 1:
            return tuple(maps.float() for maps in found[0])
        return tuple(torch.cat(maps).float() for maps in zip(*found, strict=True))


def faster(network: PersonNetwork, precision: str = "float32", device: str = "cpu") -> PersonNetwork:
    """`network` for inference: the same results with float32, to rounding; the head computes in float32 always."""
    return PersonNetwork(FastTrunk(network.trunk, precision, device), network.head, network.bank).eval()


class _Variant(NamedTuple):
    clips: Tensor
    boxes: list[Tensor]


@dataclass
class _Waiting:
    """A keyframe whose bank is not complete: per variant its actors and queries."""

    time_s: float
    people: People
    steps: list[tuple[Tensor, Tensor]]


class Scorer:
    """Scores keyframes with one network; the logits of all variants (scales, and each mirrored) are averaged."""

    def __init__(
        self,
        network: PersonNetwork,
        convention: KeyframeConvention,
        *,
        flip: bool = False,
        bank: BankOptions | None = None,
        device: str = "cpu",
        parts: Parts | None = None,
    ):
        self.parts = parts or Parts(device, "a single keyframe")
        self.network, self.flip, self.device = network, flip, torch.device(device)
        self.bank_options = bank or BankOptions()
        self._mean = torch.tensor(convention.mean, device=self.device).view(1, 3, 1, 1, 1)
        self._std = torch.tensor(convention.std, device=self.device).view(1, 3, 1, 1, 1)

    @torch.inference_mode()
    def __call__(self, batches: Iterable[tuple[Sequence[KeyClip], Sequence[People]]]) -> Iterator[Scored]:
        """Every keyframe once, in order. ACFB's come out when the bank has reached past them."""
        if isinstance(self.network.head, AcfbHead):
            yield from self._with_bank(batches)
            return
        for keys, people in batches:
            for found in self.parts(self._batch, list(zip(keys, people, strict=True))):
                yield from found

    def _batch(self, pairs: list[tuple[KeyClip, People]]) -> list[Scored]:
        shown = [(key, who) for key, who in pairs if len(who.boxes)]
        scores: list[np.ndarray] = []
        if shown:
            sums: Tensor | None = None
            count = 0
            for variant in self._variants(*zip(*shown, strict=True)):
                logits = self.network(variant.clips, variant.boxes)
                sums, count = logits if sums is None else sums + logits, count + 1
            assert sums is not None
            rows = self.network.scores(sums / count).float().cpu().numpy()
            scores = np.split(rows, np.cumsum([len(who.boxes) for _, who in shown])[:-1])
        taken = iter(scores)
        return [Scored(key.time_s, who, next(taken) if len(who.boxes) else self._none()) for key, who in pairs]

    def _none(self) -> np.ndarray:
        return np.zeros((0, self.network.head.config.classes), np.float32)

    def _variants(self, keys: Sequence[KeyClip], people: Sequence[People]) -> Iterator[_Variant]:
        for size in range(len(keys[0].clips)):
            clips = self.normalised(keys, size)
            for mirrored in (False, True)[: 1 + self.flip]:
                boxes = [
                    self._boxes(key, who, clips.shape[3:], mirrored) for key, who in zip(keys, people, strict=True)
                ]
                yield _Variant(clips.flip(-1) if mirrored else clips, boxes)

    def normalised(self, keys: Sequence[KeyClip], size: int) -> Tensor:
        """Clips (B, 3, T, h, w) float32 as the network wants them, in size number `size` of those prepared."""
        pictures = torch.from_numpy(np.stack([key.clips[size] for key in keys])).to(self.device)
        return pictures.permute(0, 4, 1, 2, 3).float().sub_(self._mean).div_(self._std)

    def _boxes(self, key: KeyClip, people: People, size: Sequence[int], mirrored: bool) -> Tensor:
        boxes = flipped(people.boxes) if mirrored else people.boxes
        if self.network.in_pixels:
            boxes = in_network_pixels(boxes, key.picture.shape[:2], (size[0], size[1]))
        return torch.from_numpy(np.ascontiguousarray(boxes, np.float32)).to(self.device)

    def _with_bank(self, batches: Iterable[tuple[Sequence[KeyClip], Sequence[People]]]) -> Iterator[Scored]:
        waiting: deque[_Waiting] = deque()
        banks: list[Bank] = []
        reach = self.bank_options.reach_s
        for keys, people in batches:
            for entry in self._encoded(keys, people, banks):
                waiting.append(entry)
                while waiting and waiting[0].time_s + reach < entry.time_s - 1e-6:
                    yield self._resolved(waiting.popleft(), banks)
                for bank in banks:
                    bank.forget_before(waiting[0].time_s)
        while waiting:
            yield self._resolved(waiting.popleft(), banks)

    def _encoded(self, keys: Sequence[KeyClip], people: Sequence[People], banks: list[Bank]) -> Iterator[_Waiting]:
        steps: list[list[tuple[Tensor, Tensor]]] = [[] for _ in keys]
        rows: list[list[Tensor]] = [[] for _ in keys]
        shown = [i for i, who in enumerate(people) if len(who.boxes)]
        found = self.parts(self._bank_rows, [(keys[i], people[i]) for i in shown])
        for i, (of_steps, of_rows) in zip(shown, itertools.chain.from_iterable(found), strict=True):
            steps[i], rows[i] = of_steps, of_rows
        for i, (key, who) in enumerate(zip(keys, people, strict=True)):
            if rows[i] and not banks:
                banks.extend(Bank(self.bank_options) for _ in rows[i])
            for bank, row in zip(banks, rows[i], strict=False):
                bank.add(key.time_s, row, torch.from_numpy(who.scores))
            yield _Waiting(key.time_s, who, steps[i])

    def _bank_rows(self, pairs: list[tuple[KeyClip, People]]) -> list[tuple[list[tuple[Tensor, Tensor]], list[Tensor]]]:
        """Of each keyframe, a variant after the other: its actors and queries, and its row for the bank."""
        found: list[tuple[list[tuple[Tensor, Tensor]], list[Tensor]]] = [([], []) for _ in pairs]
        for variant in self._variants(*zip(*pairs, strict=True)):
            maps = self.network.trunk(variant.clips)
            actors, queries, kept = bank_rows(self.network, maps, variant.boxes)
            parts = actors.split([len(boxes) for boxes in variant.boxes])
            for (steps, rows), actor, query, row in zip(found, parts, queries, kept, strict=True):
                steps.append((actor, query))
                rows.append(row)
        return found

    def _resolved(self, entry: _Waiting, banks: Sequence[Bank]) -> Scored:
        if not entry.steps:
            return Scored(entry.time_s, entry.people, self._none())
        head = self.network.head
        assert isinstance(head, AcfbHead)
        logits = [
            head.classify(actors, [head.relate_to(queries, bank.around(entry.time_s))])[1]
            for (actors, queries), bank in zip(entry.steps, banks, strict=True)
        ]
        scores = self.network.scores(torch.stack(logits).mean(dim=0))
        return Scored(entry.time_s, entry.people, scores.float().cpu().numpy())
