"""More training sequences from few videos: pieces of them joined anew, read from the original rows when asked for."""

import itertools
from collections.abc import Sequence

import numpy as np

from vidtad.training.video import TrainingVideo


class JoinedRows:
    """Rows of several sequences, one after the other, as if they were one array (rows, channels) float32."""

    def __init__(self, parts: Sequence[np.ndarray]):
        self.parts = parts
        self.bounds = np.cumsum([0, *map(len, parts)])
        self.shape = (int(self.bounds[-1]), parts[0].shape[1])

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> np.ndarray:
        start, stop, step = rows.indices(len(self))
        pieces = [
            part[max(start - first, 0) : stop - first]
            for part, first, last in zip(self.parts, self.bounds[:-1], self.bounds[1:], strict=True)
            if first < stop and last > start
        ]
        joined = np.concatenate(pieces) if pieces else np.zeros((0, self.shape[1]), np.float32)
        return joined[::step]


class PartOfRows:
    """Rows `first` to `last` (exclusive) of a sequence, read when sliced."""

    def __init__(self, values: np.ndarray, first: int, last: int):
        self.values, self.first = values, first
        self.shape = (last - first, values.shape[1])

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> np.ndarray:
        start, stop, step = rows.indices(len(self))
        return self.values[self.first + start : self.first + max(stop, start) : step]


def pieces_of(video: TrainingVideo) -> list[TrainingVideo]:
    """The video cut in the middle of every stretch without an action; rows are read when asked for."""
    order = np.argsort(video.segments[:, 0], kind="stable")
    start, end = video.segments[order, 0], np.maximum.accumulate(video.segments[order, 1])
    free = np.flatnonzero(start[1:] - end[:-1] >= 1)
    middles = np.rint((start[free + 1] + end[free]) / 2).astype(int).tolist()
    cuts = [0, *middles, len(video.values)]
    pieces = []
    for number, (first, last) in enumerate(itertools.pairwise(cuts)):
        inside = (video.segments[:, 0] < last) & (video.segments[:, 1] > first)
        if last > first:
            pieces.append(
                TrainingVideo(
                    f"{video.name}/{number}",
                    PartOfRows(video.values, first, last),  # type: ignore[arg-type]
                    video.segments[inside] - first,
                    video.labels[inside],
                )
            )
    return pieces


def spliced(videos: Sequence[TrainingVideo], count: int, rows: int, seed: int = 0) -> list[TrainingVideo]:
    """`count` sequences of at most `rows` rows, each of pieces in random order; pieces longer than that stay alone.

    Cuts lie in the middle of idle stretches, so every action keeps its borders and half of what surrounds it.
    Sequence i depends on (seed, i) alone.
    """
    pieces = [piece for video in videos for piece in pieces_of(video)]
    made = []
    for number in range(count):
        random = np.random.default_rng((seed, number))
        parts: list[TrainingVideo] = []
        length, limit = 0, int(random.integers(max(1, rows // 2), rows + 1))
        for index in random.permutation(len(pieces)).tolist():
            if parts and length + len(pieces[index].values) > limit:
                break
            parts.append(pieces[index])
            length += len(pieces[index].values)
        begins = np.cumsum([0, *(len(part.values) for part in parts)])
        segments = np.concatenate([part.segments + first for part, first in zip(parts, begins, strict=False)])
        labels = np.concatenate([part.labels for part in parts])
        values = JoinedRows([part.values for part in parts])
        made.append(TrainingVideo(f"spliced-{number}", values, segments, labels))  # type: ignore[arg-type]
    return made
