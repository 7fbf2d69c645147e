"""Clips around keyframes from one pass over a video: frames are converted once, however many clips share them."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch

from vidtad.errors import InputError
from vidtad.extractors.keyframes import KeyframeConvention
from vidtad.extractors.preprocess import CPU, resized, target_size

Prepared = tuple[np.ndarray, ...]


class NumberedFrame(Protocol):
    """A frame on a time line of constant rate: its number, and its picture when asked.

    Frames that repeat one decoded picture carry the same `picture` object.
    """

    @property
    def index(self) -> int:
        """Its number from 0."""

    @property
    def picture(self) -> Any:
        """What was decoded."""

    def rgb(self) -> np.ndarray:
        """(H, W, 3) uint8."""


@dataclass(frozen=True)
class KeyClip:
    """A keyframe: the time asked for, its `picture` (H, W, 3) uint8 RGB, and the clip around it.

    `clips`: one array (frames, h, w, 3) uint8 for each size asked for.
    """

    time_s: float
    picture: np.ndarray
    clips: tuple[np.ndarray, ...]


@dataclass
class _Pending:
    time_s: float
    centre: int
    first: int
    last: int
    until: int
    picture: np.ndarray | None = None


def every(seconds: float) -> Iterator[float]:
    """0, seconds, 2 seconds, ... without end."""
    number = 0
    while True:
        yield number * seconds
        number += 1


def preparation(
    convention: KeyframeConvention,
    resizes: Iterable[int | tuple[int, int]] = (),
    device: torch.device = CPU,
) -> Callable[[np.ndarray], Prepared]:
    """A function from a picture (H, W, 3) uint8 to it in each size of `resizes` (default: the convention's own).

    `device`: see `resized`.
    """
    wanted = tuple(resizes) or (convention.resize,)

    def prepare(rgb: np.ndarray) -> Prepared:
        sizes = (scaled_size(rgb.shape[0], rgb.shape[1], resize, convention.interpolation) for resize in wanted)
        return tuple(np.ascontiguousarray(resized(rgb, size, convention.interpolation, device)) for size in sizes)

    return prepare


def scaled_size(height: int, width: int, resize: int | tuple[int, int], interpolation: str) -> tuple[int, int]:
    """(height, width) of the network's input; a picture whose short side is right already stays as it is."""
    if isinstance(resize, int) and min(height, width) == resize:
        return height, width
    return target_size(height, width, resize, interpolation)


class KeyframeClips:
    """Keyframes of a stream, in order of time, as soon as the last frame of their clip has come.

    `times_s`: seconds, ascending, each once; may be endless. A keyframe is the frame nearest to its time, and the clip
    around it repeats the video's first or last frame where it reaches beyond. Keyframes after the last frame are left
    out and counted in `beyond` (endless times excepted). Memory: the frames of one window, and the keyframe pictures
    whose clip is not complete yet.
    """

    def __init__(
        self,
        frames: Iterable[NumberedFrame],
        times_s: Iterable[float],
        convention: KeyframeConvention,
        prepare: Callable[[np.ndarray], Prepared] | None = None,
    ):
        self.frames, self.convention = frames, convention
        self.prepare = prepare or preparation(convention)
        self.beyond = 0
        self.frames_read = 0
        self._coming = self._placed(times_s)
        self._next = next(self._coming, None)
        self._pending: deque[_Pending] = deque()
        self._kept: dict[int, Prepared] = {}
        self._same: tuple[Any, np.ndarray | None, Prepared | None] = (None, None, None)

    def __iter__(self) -> Iterator[KeyClip]:
        frame: NumberedFrame | None = None
        for number, frame in enumerate(self.frames):
            self.frames_read = number + 1
            self._admit(number)
            self._take(frame, number)
            while self._pending and self._pending[0].until <= number:
                yield self._clip(self._pending.popleft(), number)
            self._drop()
            if not self._pending and self._next is None:
                return
        if frame is None:
            return
        yield from self._end(frame, self.frames_read - 1)

    def _end(self, frame: NumberedFrame, final: int) -> Iterator[KeyClip]:
        if self._pending and final not in self._kept:
            self._kept[final] = self._prepared(frame)
        for key in self._pending:
            if key.picture is not None:
                yield self._clip(key, final)
            elif not self._endless:
                self.beyond += 1
        if not self._endless:
            self.beyond += (self._next is not None) + sum(1 for _ in self._coming)
        self._pending.clear()

    def _placed(self, times_s: Iterable[float]) -> Iterator[_Pending]:
        convention, before = self.convention, -1.0
        self._endless = not hasattr(times_s, "__len__")
        for time_s in times_s:
            if not time_s > before:
                raise InputError(f"keyframe at {time_s:g} s: keyframes must be listed in order of time, each once")
            before = time_s
            centre = convention.centre(time_s)
            first = convention.first(centre)
            last = first + (convention.shown - 1) * convention.step
            yield _Pending(time_s, centre, first, last, max(last, centre))

    def _admit(self, number: int) -> None:
        while self._next is not None and self._next.first <= number:
            self._pending.append(self._next)
            self._next = next(self._coming, None)

    def _take(self, frame: NumberedFrame, number: int) -> None:
        step = self.convention.step
        for key in self._pending:
            if key.centre == number and key.picture is None:
                key.picture = self._rgb(frame)
            inside = key.first <= number <= key.last and (number - key.first) % step == 0
            if (inside or (number == 0 and key.first < 0)) and number not in self._kept:
                self._kept[number] = self._prepared(frame)

    def _rgb(self, frame: NumberedFrame) -> np.ndarray:
        if self._same[0] is not frame.picture or self._same[1] is None:
            self._same = (frame.picture, frame.rgb(), None)
        assert self._same[1] is not None
        return self._same[1]

    def _prepared(self, frame: NumberedFrame) -> Prepared:
        rgb = self._rgb(frame)
        if self._same[2] is None:
            self._same = (frame.picture, rgb, self.prepare(rgb))
        assert self._same[2] is not None
        return self._same[2]

    def _clip(self, key: _Pending, last: int) -> KeyClip:
        assert key.picture is not None
        numbers = np.clip(np.arange(key.first, key.last + 1, self.convention.step), 0, last)
        shown = [self._kept[number] for number in numbers.tolist()]
        return KeyClip(key.time_s, key.picture, tuple(np.stack(pictures) for pictures in zip(*shown, strict=True)))

    def _drop(self) -> None:
        starts = [key.first for key in self._pending]
        if self._next is not None:
            starts.append(self._next.first)
        oldest = min(starts, default=0)
        if oldest > 0:
            for number in [number for number in self._kept if number < oldest]:
                del self._kept[number]
