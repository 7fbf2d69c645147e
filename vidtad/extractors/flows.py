"""Extractors that see optical flow: alone, or beside the pictures it is computed from, every frame decoded once."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vidtad.errors import InputError, RunError, out_of_memory
from vidtad.extractors.base import ClipConvention, ClipExtractor, TimedFrame, Wanted
from vidtad.extractors.preprocess import CPU, resized, target_size
from vidtad.flow import BOUND, FlowMethod, flow_of, grey, levels_video_features, quantise

CHUNK = 16
"""Pairs whose flow is computed together."""

Keep = Callable[[int, np.ndarray], None]
"""Takes the number of a pair and its flow in levels (h, w, 2) uint8."""
Give = Callable[[int], np.ndarray]
"""The flow of the pair of this number, from 0, in levels (h, w, 2) uint8 of the size flow is computed at."""


@dataclass(frozen=True)
class Picture:
    """A frame made from decoded ones: `picture` (H, W, C) uint8 at `time_s` seconds."""

    time_s: float
    picture: np.ndarray

    def rgb(self) -> np.ndarray:
        """(H, W, C) uint8; C is what the extractor that asked for it wants."""
        return self.picture


class Sized:
    """A decoded frame brought to the size flow is computed at, once, when first asked."""

    def __init__(self, frame: TimedFrame, convention: ClipConvention, device: torch.device = CPU):
        self.frame: TimedFrame | None = frame
        self.time_s, self.convention, self.device = frame.time_s, convention, device
        self._picture: np.ndarray | None = None
        self._grey: np.ndarray | None = None

    def grey(self) -> np.ndarray:
        """(h, w) uint8."""
        if self._grey is None:
            self._grey = grey(self.rgb())
        return self._grey

    def rgb(self) -> np.ndarray:
        """(h, w, 3) uint8."""
        if self._picture is None:
            assert self.frame is not None
            rgb, settings = self.frame.rgb(), self.convention
            size = target_size(rgb.shape[0], rgb.shape[1], settings.resize, settings.interpolation)
            self._picture, self.frame = resized(rgb, size, settings.interpolation, self.device), None
        return self._picture


class Pair:
    """A frame and the flow from it to the next, computed when first asked unless `solve` did so before."""

    def __init__(self, first: Sized, second: Sized, method: FlowMethod):
        self.first, self.second, self.method = first, second, method
        self.time_s = first.time_s
        self._levels: np.ndarray | None = None

    def levels(self) -> np.ndarray:
        """(h, w, 2) uint8, displacement along x and y, 128 is rest."""
        if self._levels is None:
            solve([self])
            assert self._levels is not None
        return self._levels

    def set(self, levels: np.ndarray) -> None:
        """Take `levels` as the flow of this pair."""
        self._levels = levels


class GivenPair(Pair):
    """A pair whose flow is asked from `give` instead."""

    def __init__(self, first: Sized, second: Sized, number: int, give: Give):
        super().__init__(first, second, GIVEN)
        self.number, self.give = number, give

    def levels(self) -> np.ndarray:
        """(h, w, 2) uint8, as given; not kept."""
        return self.give(self.number)


class Given:
    """Stands in the place of a method where flow is given, not computed: see `FlowExtractor.give`."""

    name = "pictures"

    def __call__(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        raise InputError("this extractor computes no optical flow: say where the pictures of it are")


GIVEN = Given()


def solve(pairs: list[Pair], at_once: int = CHUNK) -> int:
    """Compute the flow of pairs of one size, `at_once` together, fewer where the device's memory does not suffice.

    Returns how many at once it came to. Raises RunError when a single pair is too much.
    """
    done = 0
    while done < len(pairs):
        part = pairs[done : done + at_once]
        if _solved(part):
            done += len(part)
        elif len(part) > 1:
            at_once = len(part) // 2
        else:
            raise RunError("out of memory with the flow of a single pair of frames; free memory, or pass --device cpu")
    return at_once


def _solved(pairs: list[Pair]) -> bool:
    method = pairs[0].method
    view = Sized.rgb if getattr(method, "colour", False) else Sized.grey
    first, second = np.stack([view(pair.first) for pair in pairs]), np.stack([view(pair.second) for pair in pairs])
    try:
        flows = method(first, second)
    except RuntimeError as error:
        if not out_of_memory(error):
            raise
    else:
        for pair, flow in zip(pairs, flows, strict=True):
            pair.set(levels_of(flow, pair.first.convention.levels))
        return True
    # Only now, with the error, are the tensors of the failed attempt gone.
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return False


def levels_of(flow: np.ndarray, rule: str) -> np.ndarray:
    """Flow (h, w, 2) in pixels -> uint8 levels by one of `LEVELS`.

    video_features does without 8 bits: its level 256, of 19.9 pixels and more, is 255 here.
    """
    if rule == "video_features":
        return np.minimum(levels_video_features(flow, BOUND), 255).astype(np.uint8)
    return quantise(flow, BOUND)


def flow_pairs(
    frames: Iterable[TimedFrame],
    convention: ClipConvention,
    method: FlowMethod,
    wanted: Wanted,
    device: torch.device = CPU,
) -> Iterator[Pair]:
    """The pairs of neighbouring frames; the flow of wanted ones is computed CHUNK at a time.

    At most 2 * CHUNK frames are waited for. `device`: see `resized`.
    """
    waiting: list[Pair] = []
    pending: list[Pair] = []
    at_once = CHUNK
    for number, (first, second) in enumerate(pairwise(Sized(frame, convention, device) for frame in frames)):
        waiting.append(Pair(first, second, method))
        if wanted(number):
            pending.append(waiting[-1])
        if len(pending) == CHUNK or len(waiting) == 2 * CHUNK or not pending:
            at_once = solve(pending, at_once)
            yield from waiting
            waiting, pending = [], []
    solve(pending, at_once)
    yield from waiting


class FlowExtractor(ClipExtractor):
    """Clips of flow pictures (levels of x and y displacement, 128 is rest) to feature rows.

    Frames are resized as the convention says before their flow is computed: its length scales with the picture.
    N frames give N - 1 pictures. `method` stands in for the one the convention names; `keep` is handed the flow of
    every pair, in order. Where `give` is set, it is asked for the flow of pairs that are shown, and none is computed.
    """

    keep: Keep | None = None
    give: Give | None = None

    def __init__(
        self,
        name: str,
        convention: ClipConvention,
        network: nn.Module,
        device: str = "cpu",
        precision: str = "float32",
        method: FlowMethod | None = None,
    ):
        super().__init__(name, convention, network, device, precision)
        self.method = method or flow_of(convention.flow or "tvl1", device)

    def pairs(self, frames: Iterable[TimedFrame], wanted: Wanted) -> Iterator[Pair]:
        """The pairs of neighbouring frames; see `flow_pairs`. Of given flow nothing is asked before it is shown."""
        keep, give = self.keep, self.give
        if give is not None:
            sized = (Sized(frame, self.convention, self.device) for frame in frames)
            for number, (first, second) in enumerate(pairwise(sized)):
                yield GivenPair(first, second, number, give)
            return
        solved = wanted if keep is None else lambda number: True
        for number, pair in enumerate(flow_pairs(frames, self.convention, self.method, solved, self.device)):
            if keep is not None:
                keep(number, pair.levels())
            yield pair

    def frames(self, frames: Iterable[TimedFrame], wanted: Wanted = lambda number: True) -> Iterator[TimedFrame]:
        """The flow from each frame to the next, as a picture of levels (h, w, 2) uint8 at the first one's time."""
        return (_Levels(pair) for pair in self.pairs(frames, wanted))


class _Levels:
    def __init__(self, pair: Pair):
        self.pair, self.time_s = pair, pair.time_s

    def rgb(self) -> np.ndarray:
        return self.pair.levels()


class TwoStream:
    """Two extractors side by side on the same windows, at least one of flow: rows are the first's, then the second's.

    Frame i goes with the flow from it to frame i + 1, so the last frame is shown to neither stream: both are as long
    as the shorter one, as in the published two-stream features. Raises InputError when the two differ in window,
    stride, rate or crop.
    """

    def __init__(self, first: ClipExtractor, second: ClipExtractor):
        same = ("window", "stride", "fps", "resize", "crop", "interpolation", "tail")
        differing = [key for key in same if getattr(first.convention, key) != getattr(second.convention, key)]
        if differing:
            raise InputError(
                f"{first.name} and {second.name} differ in {', '.join(differing)}: they cannot share windows"
            )
        flows = [stream for stream in (first, second) if isinstance(stream, FlowExtractor)]
        if len(flows) != 1:
            raise InputError(f"{first.name} and {second.name}: one of two streams must be of flow, the other of RGB")
        self.name, self.streams, self.flow = f"{first.name}+{second.name}", (first, second), flows[0]
        self.device = first.device
        shown = tuple(sorted({*first.convention.shown, *second.convention.shown}))
        self.convention = dataclasses.replace(
            first.convention,
            channels=(*first.convention.channels, *second.convention.channels),
            picks=shown,
            flow=self.flow.convention.flow,
            levels=self.flow.convention.levels,
            paired=False,
        )
        self._columns = [[shown.index(pick) for pick in stream.convention.shown] for stream in self.streams]

    def frames(self, frames: Iterable[TimedFrame], wanted: Wanted = lambda number: True) -> Iterator[TimedFrame]:
        """Every frame but the last, prepared, with the flow to the next one: (crop, crop, 5) uint8."""
        return (_Both(pair, self.streams) for pair in self.flow.pairs(frames, wanted))

    def prepare(self, picture: np.ndarray) -> np.ndarray:
        """The same picture: `frames` has prepared it."""
        return picture

    def settings(self) -> dict[str, Any]:
        """The settings of both streams, as a sidecar records them."""
        return {
            **self.convention.to_json(),
            "streams": [{"extractor": stream.name, **stream.settings()} for stream in self.streams],
        }

    def rows(self, pictures: np.ndarray, index: np.ndarray) -> Tensor:
        """pictures (N, crop, crop, 5), of which clip b shows `index[b]` (B, T) int64 -> (B, C) float32."""
        parts, start = [], 0
        for stream, columns in zip(self.streams, self._columns, strict=True):
            depth = len(stream.convention.mean)
            used, own = np.unique(index[:, columns], return_inverse=True)
            own_pictures = np.ascontiguousarray(pictures[used, ..., start : start + depth])
            parts.append(stream.rows(own_pictures, own.reshape(len(index), -1)))
            start += depth
        return torch.cat(parts, dim=1)


class _Both:
    def __init__(self, pair: Pair, streams: tuple[ClipExtractor, ClipExtractor]):
        self.pair, self.streams, self.time_s = pair, streams, pair.time_s

    def rgb(self) -> np.ndarray:
        parts = [
            stream.prepare(self.pair.levels() if isinstance(stream, FlowExtractor) else self.pair.first.rgb())
            for stream in self.streams
        ]
        return np.concatenate(parts, axis=2)
