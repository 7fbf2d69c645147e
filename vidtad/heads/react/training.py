"""Training data and training head of ReAct: windows of feature sequences with their targets and contrastive pairs."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from vidtad.errors import InputError
from vidtad.heads.react.windows import react_windows, retain
from vidtad.models.react import ReAct
from vidtad.models.react_losses import Counts, LossConfig, Pairs, ReActCriterion, Targets, param_groups
from vidtad.training.distributed import Part
from vidtad.training.loop import Position
from vidtad.training.video import TrainingVideo
from vidtad.windows import resized


class WindowBatch(NamedTuple):
    """`features` (B, T, C) zero padded, `mask` (B, T) true on padding, `targets` of all windows."""

    features: Tensor
    mask: Tensor
    targets: Targets


class Draw(NamedTuple):
    """Windows of an anchor, its positive and its negative; their `segments` (3, 2); `inner` negatives (K, 2)."""

    windows: tuple[int, int, int]
    segments: np.ndarray
    inner: np.ndarray


@dataclass(frozen=True, eq=False)
class _Window:
    """A training window: its rows of its video, and the kept instances as (mid, len) of the valid part."""

    video: TrainingVideo
    rows: slice
    segments: np.ndarray
    labels: np.ndarray

    @property
    def length(self) -> int:
        return self.rows.stop - self.rows.start


class ReActWindows:
    """Every training window of some videos, as released: cut by `react_windows`, emptied ones dropped.

    `inner`: sub-segments of the anchor used as contrastive negatives (1 in the released configuration).
    `rescale_anchor` False repeats an oversight of the released code that matters for windows shorter than
    `clip_len` only: the anchor's position alone is not scaled to the padded window.
    With `resize` a video is interpolated to `clip_len` rows, which are its one window, as in the paper's section on
    ActivityNet. Features are read when a batch is made; nothing but the ground truth is held. Raises InputError
    when no window keeps an instance or a video's rows have another width.
    """

    def __init__(
        self,
        videos: Sequence[TrainingVideo],
        clip_len: int = 256,
        stride_rate: float = 0.25,
        *,
        retention: float = 0.75,
        inner: int = 1,
        rescale_anchor: bool = False,
        resize: bool = False,
    ):
        self.clip_len, self.inner, self.rescale_anchor, self.resize = clip_len, inner, rescale_anchor, resize
        self.windows = [window for video in videos for window in self._cut(video, stride_rate, retention)]
        if not self.windows:
            raise InputError("no training window holds an action: check that annotations and videos belong together")
        widths = {video.values.shape[1] for video in videos}
        if len(widths) > 1:
            raise InputError(f"training features are of different widths: {sorted(widths)}")
        self.by_class: dict[int, list[int]] = {}
        for number, window in enumerate(self.windows):
            for label in np.unique(window.labels).tolist():
                self.by_class.setdefault(label, []).append(number)

    def __len__(self) -> int:
        return len(self.windows)

    def _cut(self, video: TrainingVideo, stride_rate: float, retention: float) -> Iterator[_Window]:
        rows = len(video.values)
        start, end = np.asarray(video.segments, dtype=np.float64).reshape(-1, 2).T
        usable = (end > start) & (start < rows) & (end > 0)
        share = np.stack([(start + end) / 2, end - start], axis=1)[usable] / rows
        labels = np.asarray(video.labels, dtype=np.int64)[usable]
        if self.resize:  # shares of the video stay what they are
            rows = self.clip_len
        for window in react_windows(rows, self.clip_len, stride_rate):
            segments, kept = retain(share, window, rows, self.clip_len, retention)
            if len(kept):
                yield _Window(video, window, segments, labels[kept])

    def features(self, numbers: Sequence[int]) -> np.ndarray:
        """(B, clip_len, C) float32 rows of the windows, zero padded."""
        width = self.windows[0].video.values.shape[1]
        rows = np.zeros((len(numbers), self.clip_len, width), dtype=np.float32)
        for row, number in zip(rows, numbers, strict=True):
            window = self.windows[number]
            values = window.video.values
            row[: window.length] = resized(values, self.clip_len) if self.resize else values[window.rows]
        return rows

    def batch(self, numbers: Sequence[int], joint: Counts | None = None) -> WindowBatch:
        """The detection batch of these windows; `joint` as in `Targets`."""
        chosen = [self.windows[number] for number in numbers]
        lengths = torch.tensor([window.length for window in chosen], dtype=torch.int64)
        mask = torch.arange(self.clip_len) >= lengths[:, None]
        targets = Targets(
            torch.from_numpy(np.concatenate([np.zeros((0, 2)), *(window.segments for window in chosen)])).float(),
            torch.from_numpy(np.concatenate([np.zeros(0, np.int64), *(window.labels for window in chosen)])),
            torch.repeat_interleave(torch.tensor([len(window.labels) for window in chosen], dtype=torch.int64)),
            joint,
        )
        return WindowBatch(torch.from_numpy(self.features(numbers)), mask, targets)

    def pairs(self, drawn: Sequence[Draw], joint: int | None = None) -> Pairs:
        """The contrastive batch of what `draw` gave for each window; `joint` as in `Pairs`."""
        windows = [d.windows[k] for k in range(3) for d in drawn]
        segments = np.array([d.segments for d in drawn], dtype=np.float32).reshape(-1, 3, 2)
        inner = np.array([d.inner for d in drawn], dtype=np.float32).reshape(-1, self.inner, 2)
        anchor, positive, negative = torch.from_numpy(segments).unbind(1)
        rows = torch.from_numpy(self.features(windows))
        return Pairs(rows, anchor, positive, negative, torch.from_numpy(inner), joint)

    def draw(self, number: int, random: np.random.Generator) -> Draw:
        """An anchor in a window, and what it is compared to (section 3.4 of the paper).

        The positive is any instance of the anchor's class, the negative one of another class, both from
        windows drawn uniformly among those that hold the class; inner negatives keep 0.1 to 0.5 of the
        anchor.
        """
        own = self.windows[number]
        row = int(random.integers(len(own.labels)))
        label, anchor = int(own.labels[row]), _bounds(own.segments[row])
        positive = int(random.choice(self.by_class[label]))
        other = int(random.choice([c for c in sorted(self.by_class) if c != label]))
        negative = int(random.choice(self.by_class[other]))
        near = self._segment(positive, np.flatnonzero(self.windows[positive].labels == label), random)
        far = self._segment(negative, np.flatnonzero(self.windows[negative].labels != label), random)
        length = anchor[1] - anchor[0]
        lost = random.uniform(*((0.5, 0.8) if length <= 0.75 else (0.6, 0.9)), size=self.inner)
        first = anchor[0] + random.uniform(0, 1, size=self.inner) * lost * length
        scale = own.length / self.clip_len
        inner = np.stack([first, first + (1 - lost) * length], axis=1) * scale
        if self.rescale_anchor:
            anchor = anchor * scale
        return Draw((number, positive, negative), np.stack([anchor, near, far]), inner)

    def _segment(self, number: int, rows: np.ndarray, random: np.random.Generator) -> np.ndarray:
        window = self.windows[number]
        return _bounds(window.segments[int(random.choice(rows))]) * (window.length / self.clip_len)


def _bounds(segment: np.ndarray) -> np.ndarray:
    return np.array([segment[0] - segment[1] / 2, segment[0] + segment[1] / 2])


class ReActHead:
    """ReAct in the training loop: `contrastive_epochs` of ACE-enc alone, then detection (as released, 6 of 20).

    In the first phase only the input projection learns. It is skipped when the data hold a single class,
    which has nothing to be told apart from. The learning-rate drop of the released schedule counts both
    phases.
    """

    def __init__(
        self,
        network: ReAct,
        data: ReActWindows,
        losses: LossConfig = LossConfig(),
        *,
        batch_size: int = 16,
        contrastive_epochs: int = 6,
    ):
        self.network, self.data, self.batch_size = network, data, batch_size
        self.criterion = ReActCriterion(losses)
        self.contrastive_epochs = contrastive_epochs if len(data.by_class) > 1 else 0

    def identity(self) -> Any:
        data = self.data
        options = (self.batch_size, self.contrastive_epochs, data.inner, data.rescale_anchor, data.resize)
        windows = [
            (w.video.name, w.rows.start, w.length, w.labels.tolist(), w.segments.round(6).tolist())
            for w in self.data.windows
        ]
        held = hashlib.sha256(json.dumps(windows).encode()).hexdigest()
        return [asdict(self.network.config), asdict(self.criterion.config), options, held]

    def parameters(self, lr: float) -> list[dict[str, Any]]:
        return param_groups(self.network, lr)

    def steps(self, epoch: int) -> int:
        return -(-len(self.data) // self.batch_size)

    def batches(self, epoch: int, seed: int, first: int = 0, part: Part = Part()) -> Iterator[WindowBatch | Pairs]:
        order = np.random.default_rng((seed, epoch)).permutation(len(self.data))
        for index in range(first, self.steps(epoch)):
            chosen = order[index * self.batch_size : (index + 1) * self.batch_size].tolist()
            mine = slice(part.rank, None, part.world)
            if epoch < self.contrastive_epochs:
                random = np.random.default_rng((seed, epoch, index + 1))
                drawn = [self.data.draw(number, random) for number in chosen]
                yield self.data.pairs(drawn[mine], len(chosen))
            else:
                instances = [len(self.data.windows[number].labels) for number in chosen]
                matched = sum(min(count, self.network.config.queries) for count in instances)
                yield self.data.batch(chosen[mine], Counts(len(chosen), sum(instances), matched))

    def loss(self, batch: WindowBatch | Pairs, position: Position) -> dict[str, Tensor]:
        if isinstance(batch, Pairs):
            return self.criterion.contrastive(self.network, batch)
        started = self.contrastive_epochs * self.steps(0)
        classify = position.step - started >= self.criterion.config.warmup_steps
        output = self.network(batch.features, batch.mask)
        # The losses, and the second decoder pass among them, are not for mixed precision.
        with torch.autocast(batch.features.device.type, enabled=False):
            return self.criterion.detection(self.network, output.single(), batch.targets, classify)
