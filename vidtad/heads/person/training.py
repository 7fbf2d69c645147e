"""Training of person-box heads, end to end: clips around keyframes with boxes and their actions.

A bank head learns from a bank that a trained, frozen network filled before (`fill_banks`).
"""

import hashlib
import json
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from vidtad.errors import InputError
from vidtad.extractors.keyframe_stream import preparation
from vidtad.extractors.keyframes import KeyframeConvention, cropped, flipped, in_network_pixels, jittered
from vidtad.extractors.stream import prefetch
from vidtad.heads.person.feature_bank import Banks
from vidtad.models.acfb import AcfbHead, Bank, BankOptions
from vidtad.models.action_transformer import ActionTransformer
from vidtad.models.people import PersonNetwork, bank_rows
from vidtad.models.people_losses import TransformerLosses, class_loss, transformer_loss
from vidtad.training.distributed import Part
from vidtad.training.loop import Position
from vidtad.video import Video, open_video


@dataclass(frozen=True, eq=False)
class Keyframe:
    """A labelled keyframe: the video, seconds, boxes (n, 4) normalised, and targets (n, classes) multi-hot.

    `person_scores` (n,): how surely each box is a person (1 for annotated ones).
    """

    video: Path
    time_s: float
    boxes: np.ndarray
    targets: np.ndarray
    person_scores: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float32))

    @property
    def surely(self) -> np.ndarray:
        """`person_scores`, 1 where none are given."""
        return self.person_scores if len(self.person_scores) else np.ones(len(self.boxes), np.float32)


Crop = tuple[float, float, float, float]
WHOLE: Crop = (0.0, 0.0, 1.0, 1.0)


@dataclass(frozen=True)
class Augmentation:
    """Changes of training clips: chance of mirroring, box sides moved by up to `jitter` of the box, and the range of
    short sides in pixels (None: the convention's size).

    `crop`: least and largest share of the picture's area to cut out at random (None: the whole picture); people of
    whom less than half remains are left out, and one at least remains.
    """

    flip: float = 0.5
    jitter: float = 0.075
    short_sides: tuple[int, int] | None = None
    crop: tuple[float, float] | None = None

    def drawn(self, boxes: np.ndarray, rng: np.random.Generator) -> tuple[Crop, np.ndarray]:
        """A crop (x1, y1, x2, y2), normalised, and which of the boxes (n, 4) remain: bool (n,)."""
        least, largest = self.crop or (1.0, 1.0)
        for _ in range(10 if self.crop is not None else 0):
            share = rng.uniform(least, largest)
            wide = share ** rng.uniform()
            tall = share / wide
            left, top = rng.uniform(0, 1 - wide), rng.uniform(0, 1 - tall)
            crop = (left, top, left + wide, top + tall)
            remain = cropped(boxes, crop, 0.5)[1]
            if remain.any():
                return crop, remain
        return WHOLE, np.ones(len(boxes), bool)


class PeopleBatch(NamedTuple):
    """Clips padded right and below to one size, with what is on them. All boxes of the batch stand in one tensor.

    clips (B, T, H, W, 3) uint8; boxes (n, 4) in fractions of the padded frame; pixels (n, 4) in pixels of the network;
    targets (n, classes); valid (B, 2) fractions (width, height) that are picture; counts: boxes of each clip;
    bank: for a bank head, rows (m_i, C, h, w) of each clip; `joint_boxes`, `joint_clips`: of all parts together.
    """

    clips: Tensor
    boxes: Tensor
    pixels: Tensor
    targets: Tensor
    valid: Tensor
    counts: tuple[int, ...]
    bank: tuple[Tensor, ...]
    joint_boxes: int
    joint_clips: int


class Clips:
    """Clips around keyframes of video files, by random access; the last few files stay open."""

    def __init__(self, convention: KeyframeConvention, most_open: int = 8):
        self.convention, self.most_open = convention, most_open
        self._open: OrderedDict[Path, Video] = OrderedDict()

    def __call__(
        self, key: Keyframe, resize: int | tuple[int, int] | None = None, crop: Crop = WHOLE
    ) -> tuple[np.ndarray, tuple[int, int]]:
        """(T, h, w, 3) uint8, and the (height, width) of `crop` in the video. Frames beyond the video repeat its first
        or last; `crop` lies on whole pixels, see `on_pixels`."""
        convention = self.convention
        first = convention.first(convention.centre(key.time_s))
        numbers = np.maximum(first + np.arange(convention.shown) * convention.step, 0)
        video = self._video(key.video)
        frames = video.at([number / float(convention.fps) for number in numbers.tolist()])
        size = (video.info.width, video.info.height) * 2
        left, top, right, bottom = (round(part * side) for part, side in zip(crop, size, strict=True))
        prepare = preparation(convention, () if resize is None else (resize,))
        pictures: dict[int, np.ndarray] = {}
        for frame in frames:
            if frame.index not in pictures:
                pictures[frame.index] = prepare(frame.rgb()[top:bottom, left:right])[0]
        return np.stack([pictures[frame.index] for frame in frames]), (bottom - top, right - left)

    def on_pixels(self, key: Keyframe, crop: Crop) -> Crop:
        """The crop of whole pixels of the key's video that is nearest."""
        if crop == WHOLE:
            return crop
        info = self._video(key.video).info
        size = np.array([info.width, info.height] * 2)
        low, high = np.split(np.round(np.array(crop) * size), 2)
        left, top, right, bottom = (np.concatenate([low, np.maximum(high, low + 1)]) / size).tolist()
        return left, top, right, bottom

    def _video(self, path: Path) -> Video:
        if path not in self._open:
            self._open[path] = open_video(path)
            while len(self._open) > self.most_open:
                self._open.popitem(last=False)[1].close()
        self._open.move_to_end(path)
        return self._open[path]

    def close(self) -> None:
        """Close all files."""
        while self._open:
            self._open.popitem()[1].close()


class PeopleHead:
    """A person-box network in the training loop. `banks`: for a bank head.

    Whether batch norms keep their statistics, as in all published schedules, is `PersonNetwork.freeze_norm`.
    """

    def __init__(
        self,
        network: PersonNetwork,
        data: Sequence[Keyframe],
        convention: KeyframeConvention,
        *,
        batch_size: int = 8,
        augmentation: Augmentation | None = None,
        banks: Banks | None = None,
        losses: TransformerLosses | None = None,
    ):
        if not any(len(key.boxes) for key in data):
            raise InputError("there is no labelled person to train on")
        self.network, self.convention, self.batch_size = network, convention, batch_size
        self.data = [key for key in data if len(key.boxes)]
        self.augmentation = augmentation or Augmentation()
        self.losses = losses or TransformerLosses()
        self.banks = banks
        self.clips = Clips(convention)
        if isinstance(network.head, AcfbHead) and banks is None:
            raise InputError("a head with a feature bank learns from filled banks: fill them first")
        if banks is not None and self.augmentation.crop is not None:
            raise InputError("a feature bank is of whole pictures: train without crops")

    def identity(self) -> Any:
        """What decides the loss curve besides schedule and seed."""
        keys = [
            (key.video.name, key.time_s, np.round(key.boxes, 6).tolist(), key.targets.tolist()) for key in self.data
        ]
        held = hashlib.sha256(json.dumps(keys).encode()).hexdigest()
        options = [self.batch_size, asdict(self.augmentation), asdict(self.losses), self.convention.to_json()]
        return [type(self.network.head).__name__, asdict(self.network.head.config), options, held]

    def parameters(self, lr: float) -> list[dict[str, Any]]:
        """All that learn: not the bank's own head, nor a frozen trunk. Norms and biases of an Action Transformer do not
        decay."""
        fixed = ("bank.", "trunk.") if self.network.freeze_trunk else ("bank.",)
        named = [(name, p) for name, p in self.network.named_parameters() if not name.startswith(fixed)]
        if not isinstance(self.network.head, ActionTransformer):
            return [{"params": [p for _, p in named], "lr": lr}]
        plain = [p for _, p in named if p.ndim > 1]
        others = [p for _, p in named if p.ndim <= 1]
        return [{"params": plain, "lr": lr}, {"params": others, "lr": lr, "weight_decay": 0.0}]

    def steps(self, epoch: int) -> int:
        """Batches of an epoch."""
        return -(-len(self.data) // self.batch_size)

    def batches(self, epoch: int, seed: int, first: int = 0, part: Part = Part()) -> Iterator[PeopleBatch]:
        """Batches from number `first` on, made in a thread beside the network."""
        order = np.random.default_rng((seed, epoch)).permutation(len(self.data))

        def made() -> Iterator[PeopleBatch]:
            for index in range(first, self.steps(epoch)):
                chosen = order[index * self.batch_size : (index + 1) * self.batch_size].tolist()
                yield self._batch(chosen, (seed, epoch, index), part)

        return prefetch(made(), depth=2)

    def _batch(self, chosen: list[int], seed: tuple[int, int, int], part: Part) -> PeopleBatch:
        # One draw for the whole batch, before the parts separate: they must add up to the same batch.
        rng = np.random.default_rng((*seed, 1))
        sides = self.augmentation.short_sides
        resize = None if sides is None else int(rng.integers(sides[0], sides[1] + 1))
        crops = [self.augmentation.drawn(self.data[n].boxes, np.random.default_rng((*seed, n, 2))) for n in chosen]
        joint = sum(int(remain.sum()) for _, remain in crops)
        mine = slice(part.rank, None, part.world)
        pairs = zip(chosen[mine], crops[mine], strict=True)
        shown = [self._shown(number, resize, (*seed, number), *crop) for number, crop in pairs]
        return collate(shown, self.network.head.config.classes, joint, len(chosen))

    def _shown(self, number: int, resize: int | None, seed: tuple[int, ...], crop: Crop, remain: np.ndarray) -> "Shown":
        rng, change, key = np.random.default_rng(seed), self.augmentation, self.data[number]
        crop = self.clips.on_pixels(key, crop)
        pictures, original = self.clips(key, resize, crop)
        boxes = jittered(key.boxes, change.jitter, rng) if change.jitter else np.asarray(key.boxes, np.float64)
        boxes = cropped(boxes[remain], crop)[0]
        mirrored = bool(rng.uniform() < change.flip)
        if mirrored:
            pictures, boxes = pictures[:, :, ::-1], flipped(boxes)
        bank = None
        if self.banks is not None:
            bank = self.banks[key.video, mirrored].around(key.time_s)
        return Shown(pictures, boxes, key.targets[remain], original, bank)

    def loss(self, batch: PeopleBatch, position: Position) -> dict[str, Tensor]:
        """Loss terms of a batch."""
        network, head = self.network, self.network.head
        clips, size = normalised(batch, self.convention), (batch.clips.shape[2], batch.clips.shape[3])
        boxes = (batch.pixels if network.in_pixels else batch.boxes).split(batch.counts)
        targets = batch.targets.split(batch.counts)
        if isinstance(head, ActionTransformer):
            maps = network.maps(clips)
            return transformer_loss(head, maps, boxes, targets, size=size, losses=self.losses, joint=batch.joint_clips)
        more = {"banks": batch.bank} if batch.bank else {}
        logits = network(clips, boxes, [tuple(row) for row in batch.valid.tolist()], **more)
        return {"class": class_loss(logits, batch.targets, getattr(head.config, "poses", 0), batch.joint_boxes)}


class Shown(NamedTuple):
    """One clip on its way into a batch: pictures (T, h, w, 3), boxes (n, 4), targets, the video's size, bank rows."""

    pictures: np.ndarray
    boxes: np.ndarray
    targets: np.ndarray
    original: tuple[int, int]
    bank: Tensor | None


def collate(shown: Sequence[Shown], classes: int, joint_boxes: int, joint_clips: int) -> PeopleBatch:
    """One batch of clips, padded right and below to the largest."""
    height = max((s.pictures.shape[1] for s in shown), default=16)
    width = max((s.pictures.shape[2] for s in shown), default=16)
    frames = shown[0].pictures.shape[0] if shown else 1
    clips = np.zeros((len(shown), frames, height, width, 3), np.uint8)
    valid = np.ones((len(shown), 2), np.float64)
    boxes, pixels = [np.zeros((0, 4))], [np.zeros((0, 4))]
    for i, s in enumerate(shown):
        tall, wide = s.pictures.shape[1:3]
        clips[i, :, :tall, :wide] = s.pictures
        valid[i] = wide / width, tall / height
        boxes.append(s.boxes * np.tile(valid[i], 2))
        pixels.append(in_network_pixels(s.boxes, s.original, (tall, wide)))
    targets = [np.zeros((0, classes), np.float32), *(s.targets for s in shown)]
    return PeopleBatch(
        torch.from_numpy(clips),
        torch.from_numpy(np.concatenate(boxes).astype(np.float32)),
        torch.from_numpy(np.concatenate(pixels).astype(np.float32)),
        torch.from_numpy(np.concatenate(targets).astype(np.float32)),
        torch.from_numpy(valid),
        tuple(len(s.boxes) for s in shown),
        tuple(s.bank for s in shown if s.bank is not None),
        joint_boxes,
        joint_clips,
    )


def normalised(batch: PeopleBatch, convention: KeyframeConvention) -> Tensor:
    """(B, 3, T, H, W) float32; what lies outside the picture is 0 (ACAR pads after normalisation)."""
    clips = batch.clips.permute(0, 4, 1, 2, 3).float()
    mean, std = (clips.new_tensor(values).view(1, 3, 1, 1, 1) for values in (convention.mean, convention.std))
    clips = clips.sub_(mean).div_(std)
    for clip, (across, down) in zip(clips, batch.valid.tolist(), strict=True):
        clip[:, :, round(clip.shape[2] * down) :] = 0
        clip[:, :, :, round(clip.shape[3] * across) :] = 0
    return clips


@torch.inference_mode()
def fill_banks(
    network: PersonNetwork,
    data: Sequence[Keyframe],
    convention: KeyframeConvention,
    *,
    options: BankOptions | None = None,
    device: str = "cpu",
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[tuple[Path, bool], Bank]:
    """Banks of all videos of `data`, each plain and mirrored, from a trained network in evaluation mode.

    Rows come from `network.bank` where there is one. They stay in memory as float16.
    """
    network = network.eval().to(device)
    banks: dict[tuple[Path, bool], Bank] = {}
    ordered = sorted(data, key=lambda key: (str(key.video), key.time_s))
    with closing(Clips(convention)) as clips:
        for done, key in enumerate(ordered, 1):
            pictures, original = clips(key)
            for mirrored in (False, True):
                boxes = flipped(key.boxes) if mirrored else key.boxes
                shown = Shown(pictures[:, :, ::-1] if mirrored else pictures, boxes, key.targets, original, None)
                batch = collate([shown], key.targets.shape[1], len(boxes), 1)
                maps = network.trunk(normalised(batch, convention).to(device))
                _, _, rows = bank_rows(network, maps, [batch.boxes.to(device)])
                bank = banks.setdefault((key.video, mirrored), Bank(options))
                bank.add(key.time_s, rows[0].cpu(), torch.from_numpy(np.asarray(key.surely)))
            progress(done, len(ordered))
    return banks
