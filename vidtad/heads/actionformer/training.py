"""Training data and training head of ActionFormer: sequences cropped at random, with the targets of their points."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from vidtad.errors import InputError
from vidtad.models.actionformer import ActionFormer
from vidtad.models.actionformer_config import ActionFormerConfig
from vidtad.models.actionformer_losses import (
    ActionFormerCriterion,
    LossConfig,
    PointTargets,
    assign,
    param_groups,
    point_table,
)
from vidtad.training.distributed import Part
from vidtad.training.loop import Position
from vidtad.training.video import TrainingVideo
from vidtad.windows import resized, to_resized

TRIES = 200
"""Random crops drawn until one keeps an action."""
ABSENT_PRIOR = 1e-6
"""Starting probability of a class that no training video holds."""


class Crop(NamedTuple):
    """Rows `start` to `start + length` of a sequence, and the actions (n, 2) in them, in steps from `start`."""

    start: int
    length: int
    segments: np.ndarray
    labels: np.ndarray


class SequenceBatch(NamedTuple):
    """`features` (B, T, C) zero padded, `mask` (B, T) true on padding; `classes` (B, P, N) bool and `offsets`
    (B, P, 2) of all points; `positives`: points with a class in the joint batch.
    """

    features: Tensor
    mask: Tensor
    classes: Tensor
    offsets: Tensor
    positives: int


class ActionFormerSequences:
    """Training sequences of some videos, as released.

    Positions count steps from the centre of the first window. A video longer than `config.max_len` is cropped to
    that length; a shorter one, with `crop`, to a random share of it between the two given. A crop is drawn until
    an action keeps at least `keep` of its length; actions that keep less are left out. `edge`: steps added to
    either end of a crop when deciding what is left of an action. With `config.resize` videos are interpolated to
    `config.max_len` first, `overlap` being window over stride of their features. Features are read when a batch
    is made. Raises InputError when no video holds an action or widths differ.
    """

    def __init__(
        self,
        videos: Sequence[TrainingVideo],
        config: ActionFormerConfig,
        *,
        keep: float = 0.5,
        crop: tuple[float, float] | None = (0.9, 1.0),
        edge: float = 0.0,
        overlap: float = 1.0,
    ):
        self.config, self.keep, self.crop, self.edge, self.overlap = config, keep, crop, edge, overlap
        held = [(video, *self._actions(video)) for video in videos]
        self.videos = [(video, segments, labels) for video, segments, labels in held if len(labels)]
        if not self.videos:
            raise InputError("no training video holds an action: check that annotations and videos belong together")
        widths = {video.values.shape[1] for video in videos}
        if widths != {config.inputs}:
            raise InputError(f"training features are {sorted(widths)} wide, the network reads {config.inputs}")

    def __len__(self) -> int:
        return len(self.videos)

    def classes(self) -> set[int]:
        """Classes that occur."""
        return {int(label) for _, _, labels in self.videos for label in labels}

    def _actions(self, video: TrainingVideo) -> tuple[np.ndarray, np.ndarray]:
        """The actions of a video in steps, without those that lie outside it."""
        rows = len(video.values)
        segments = np.asarray(video.segments, dtype=np.float64).reshape(-1, 2) - 0.5
        labels = np.asarray(video.labels, dtype=np.int64)
        if not self.config.resize:
            start, end = segments.T
            usable = (end > start) & (start < rows) & (end > 0)
            return segments[usable], labels[usable]
        # As released for ActivityNet, where some videos end before their annotations do.
        start, end = to_resized(segments, rows, self.config.max_len, self.overlap).T
        last = self.config.max_len + 0.5
        usable = (end > start) & (start < last)
        usable &= np.minimum(end, last) - start >= self.keep * (end - start)
        return np.stack([start, np.minimum(end, last)], axis=1)[usable], labels[usable]

    def draw(self, number: int, random: np.random.Generator) -> Crop:
        """A random crop of a video."""
        video, segments, labels = self.videos[number]
        rows = self.config.max_len if self.config.resize else len(video.values)
        length = self._length(rows, random)
        if length == rows:
            return Crop(0, rows, segments, labels)
        for _ in range(TRIES):
            start = int(random.integers(rows - length + 1))
            left = np.maximum(segments[:, 0], start - self.edge)
            right = np.minimum(segments[:, 1], start + length + self.edge)
            kept = (right - left).clip(min=0) >= self.keep * (segments[:, 1] - segments[:, 0])
            if kept.any():
                break
        return Crop(start, length, np.stack([left, right], axis=1)[kept] - start, labels[kept])

    def _length(self, rows: int, random: np.random.Generator) -> int:
        if rows > self.config.max_len:
            return self.config.max_len
        if self.crop is None:
            return rows
        low, high = (round(share * rows) for share in self.crop)
        return int(random.integers(max(low, 1), min(high, rows) + 1))

    def rows(self, number: int, crop: Crop) -> np.ndarray:
        """Feature rows of a crop."""
        values = self.videos[number][0].values
        if self.config.resize:
            values = resized(values, self.config.max_len)
        return values[crop.start : crop.start + crop.length]


class ActionFormerHead:
    """ActionFormer in the training loop: shuffled batches of `batch_size` videos, an incomplete last one dropped.

    Sequences are padded no further than the released outputs ask for, which leaves losses as they are.
    """

    def __init__(
        self,
        network: ActionFormer,
        data: ActionFormerSequences,
        losses: LossConfig = LossConfig(),
        *,
        batch_size: int = 2,
    ):
        self.network, self.data = network, data
        self.batch_size = min(batch_size, len(data))
        self.criterion = ActionFormerCriterion(losses)
        absent = sorted(set(range(network.config.classes)) - data.classes())
        network.set_prior(ABSENT_PRIOR, absent)

    def identity(self) -> Any:
        data = self.data
        options = (self.batch_size, data.keep, data.crop, data.edge, data.overlap)
        videos = [(v.name, len(v.values), s.round(6).tolist(), n.tolist()) for v, s, n in data.videos]
        held = hashlib.sha256(json.dumps(videos).encode()).hexdigest()
        return [asdict(self.network.config), asdict(self.criterion.config), options, held]

    def parameters(self, lr: float) -> list[dict[str, Any]]:
        return param_groups(self.network, lr)

    def steps(self, epoch: int) -> int:
        return len(self.data) // self.batch_size

    def state(self) -> dict[str, Any]:
        return {"normaliser": self.criterion.normaliser}

    def load_state(self, state: Mapping[str, Any]) -> None:
        self.criterion.normaliser = float(state["normaliser"])

    def batches(self, epoch: int, seed: int, first: int = 0, part: Part = Part()) -> Iterator[SequenceBatch]:
        if part.world > 1 and self.criterion.config.regression <= 0:
            raise InputError("a regression weight of 0 balances the losses of a whole batch: train in one process")
        order = np.random.default_rng((seed, epoch)).permutation(len(self.data))
        for index in range(first, self.steps(epoch)):
            chosen = order[index * self.batch_size : (index + 1) * self.batch_size].tolist()
            crops = [self.data.draw(number, np.random.default_rng((seed, epoch, number, 1))) for number in chosen]
            yield self.batch(chosen, crops, slice(part.rank, None, part.world))

    def batch(self, numbers: Sequence[int], crops: Sequence[Crop], mine: slice = slice(None)) -> SequenceBatch:
        """The batch of these crops of these videos, or `mine` of it; features are read for that part only."""
        config = self.network.config
        length = max(config.padded_length(crop.length) for crop in crops)
        points = point_table(config, length)
        targets = [self._targets(points, crop) for crop in crops]
        positives = sum(int(target.classes.any(1).sum()) for target in targets)
        features = np.zeros((len(crops[mine]), length, config.inputs), np.float32)
        for row, number, crop in zip(features, numbers[mine], crops[mine], strict=True):
            row[: crop.length] = self.data.rows(number, crop)
        lengths = torch.tensor([crop.length for crop in crops[mine]], dtype=torch.int64)
        classes = np.array([t.classes for t in targets[mine]]).reshape(-1, len(points), config.classes)
        offsets = np.array([t.offsets for t in targets[mine]], dtype=np.float32).reshape(-1, len(points), 2)
        return SequenceBatch(
            torch.from_numpy(features),
            torch.arange(length) >= lengths[:, None],
            torch.from_numpy(classes.astype(bool)),
            torch.from_numpy(offsets),
            positives,
        )

    def _targets(self, points: np.ndarray, crop: Crop) -> PointTargets:
        """Targets of one crop; points on its padding have no class."""
        config = self.network.config
        targets = assign(points, crop.segments, crop.labels, config.classes, self.criterion.config)
        targets.classes[points[:, 0] >= crop.length] = False
        return targets

    def loss(self, batch: SequenceBatch, position: Position) -> dict[str, Tensor]:
        if not len(batch.features):  # fewer videos than processes
            self.criterion.advance(batch.positives)
            nothing = torch.stack([p.sum() * 0 for p in self.network.parameters()]).sum()
            return {"cls_loss": nothing, "reg_loss": nothing}
        output = self.network(batch.features, batch.mask)
        # The losses are not for mixed precision.
        with torch.autocast(batch.features.device.type, enabled=False):
            losses = self.criterion(output.single(), batch.classes, batch.offsets, batch.positives)
        return {"cls_loss": losses.classification, "reg_loss": losses.weight * losses.regression}
