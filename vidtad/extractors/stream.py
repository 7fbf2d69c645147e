"""Frames in, feature rows out, with bounded memory: each frame is decoded and prepared once."""

import math
import queue
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from torch import Tensor

from vidtad.extractors.base import ClipConvention, Extractor, TimedFrame, Wanted
from vidtad.runtime.device_memory import Parts

T = TypeVar("T")
Prepare = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Clip:
    """The frames of one window that the network is shown, by number, and the time of the window's centre in seconds.

    `shown` (T,): the prepared picture (h, w, channels) of every number; clips share those they share. `padded`: how
    often the last frame of a video shorter than one window was repeated.
    """

    numbers: tuple[int, ...]
    shown: tuple[np.ndarray, ...]
    centre_s: float
    padded: int = 0

    @property
    def pictures(self) -> np.ndarray:
        """(T, h, w, channels), a copy."""
        return np.stack(self.shown)


@dataclass(frozen=True)
class Rows:
    """Consecutive feature rows: `values` (n, C) float32 and their centres `times_s` (n,) float64.

    `frames_read`: of the video so far, 0 where it is over. `batch`: the most windows the device took at once.
    """

    values: np.ndarray
    times_s: np.ndarray
    frames_read: int
    padded: int
    batch: int


def wanted_frames(convention: ClipConvention, skip: int = 0) -> Wanted:
    """Which frames, by number, the windows from number `skip` on show (of a video that never ends)."""
    stride = convention.stride
    if convention.picks is None:

        def wanted(number: int) -> bool:
            newest = number // stride  # the last window this frame can lie in
            return newest >= skip and number - newest * stride < convention.window
    else:
        picks = convention.picks

        def wanted(number: int) -> bool:
            return any((number - pick) % stride == 0 and (number - pick) // stride >= skip for pick in picks)

    return wanted


class _Window:
    """The latest frames of a stream: pictures by number, those past the end being the last one's."""

    def __init__(self, prepare: Prepare, fps: float, first: int = 0):
        self.prepare, self.fps, self.count = prepare, fps, first
        self.pictures: dict[int, np.ndarray] = {}
        self.times: deque[float] = deque()
        self.last: TimedFrame | None = None

    def add(self, frame: TimedFrame, keep: bool, window: int) -> None:
        if keep:
            self.pictures[self.count] = self.prepare(frame.rgb())
        self.times.append(frame.time_s)
        self.last, self.count = frame, self.count + 1
        if len(self.times) > window:
            self.times.popleft()
            self.pictures.pop(self.count - window - 1, None)

    def picture(self, number: int) -> np.ndarray:
        if number not in self.pictures:
            assert self.last is not None
            self.pictures[number] = self.prepare(self.last.rgb())
        return self.pictures[number]

    def time_s(self, number: int) -> float:
        end = self.count - 1
        return self.times[min(number, end) - self.count] + max(0, number - end) / self.fps

    def clip(self, start: int, convention: ClipConvention) -> Clip:
        numbers = tuple(min(start + pick, self.count - 1) for pick in convention.shown)
        shown = tuple(self.picture(number) for number in numbers)
        middle = self.time_s(start + convention.window // 2)
        padded = 0
        if start == 0 and self.count < convention.window - convention.tail:
            middle, padded = (self.times[-1] + 1 / self.fps) / 2, convention.window - self.count
        elif convention.window % 2:
            middle += 0.5 / self.fps
        return Clip(numbers, shown, middle, padded)


def clips(
    frames: Iterable[TimedFrame],
    convention: ClipConvention,
    prepare: Prepare,
    *,
    fps: float,
    skip: int = 0,
    first: int = 0,
    stop: int | None = None,
) -> Iterator[Clip]:
    """Full windows of `frames` in order, from window number `skip` up to, not including, `stop` (None: all).

    `first`: number of the first of `frames` in the video, at most skip * stride.

    There are (N + tail - window) // stride + 1 of them for N frames, the last frame being repeated `tail` times; one,
    padded further, where that is none.
    Only frames that some wanted window shows are converted and prepared. A window's centre is the time of the frame
    boundary in its middle: (start + window / 2) / fps where the rate is constant.
    """
    window, stride = convention.window, convention.stride
    wanted, held = wanted_frames(convention, skip), _Window(prepare, fps, first)
    behind = math.inf if stop is None else stop
    for frame in frames:
        held.add(frame, wanted(held.count), window)
        number, offset = divmod(held.count - window, stride)
        if skip <= number < behind and offset == 0:
            yield held.clip(number * stride, convention)
    complete = max(0, (held.count - window) // stride + 1)
    needed = window - convention.tail
    every = (held.count - needed) // stride + 1 if held.count >= needed else min(1, held.count)
    for number in range(max(complete, skip), every if stop is None else min(every, stop)):
        yield held.clip(number * stride, convention)


def feature_rows(
    frames: Iterable[TimedFrame],
    extractor: Extractor,
    *,
    fps: float,
    batch: int = 8,
    skip: int = 0,
    first: int = 0,
    stop: int | None = None,
    left: list[Clip] | None = None,
) -> Iterator[Rows]:
    """Feature rows from row `skip` up to, not including, `stop` (None: all), up to `batch` at a time.

    `first`: number of the first of `frames` in the video. Decoding runs in a thread beside the network. `left`, where
    given, receives the last windows instead when they are fewer than a batch, for `rows_of_several`.

    On a GPU the next batch is queued before the rows of the last one are fetched. Batches are halved, from then on,
    when the device runs out of memory. Raises what the frame source raises, RunError when one window is too much.
    """
    counted = _Counted(frames)
    convention = extractor.convention
    wanted = wanted_frames(convention, skip)
    source = extractor.frames(counted, lambda number: wanted(first + number))
    cut = clips(source, convention, extractor.prepare, fps=fps, skip=skip, first=first, stop=stop)
    running: deque[tuple[Tensor, list[Clip]]] = deque()
    ahead = 0 if extractor.device.type == "cpu" else 1
    fitting = Parts(extractor.device, f"a single window of {extractor.name}", batch)

    def begin(part: list[Clip]) -> tuple[Tensor, list[Clip]]:
        return _start(part, extractor), part

    # Closed with this frame, not with the traceback that holds it: the caller closes the video as an error passes.
    with closing(prefetch(cut, depth=2 * batch)) as windows:
        for chosen in _batches(windows, batch):
            if left is not None and len(chosen) < batch:
                left += chosen
                break
            for started in fitting(begin, chosen):
                running.append(started)
                if len(running) > ahead:
                    yield _finish(*running.popleft(), counted.seen, fitting.size or batch)
    while running:
        yield _finish(*running.popleft(), counted.seen, fitting.size or batch)


def rows_of_several(videos: Sequence[list[Clip]], extractor: Extractor, fitting: Parts) -> list[Rows]:
    """Feature rows of windows of several videos, shown to the network together: one `Rows` for each video.

    They go in parts of at most `fitting.size`. Raises RunError when one window is too much for the device's memory.
    """
    chosen: list[Clip] = []
    for video, cut in enumerate(videos):  # frames of different videos have the same numbers
        chosen += [replace(clip, numbers=tuple((video << 40) + number for number in clip.numbers)) for clip in cut]
    values = [part.cpu().numpy() for part in fitting(lambda part: _start(part, extractor), chosen)]
    ends, batch = np.cumsum([len(cut) for cut in videos])[:-1], fitting.size or len(chosen)
    return [
        Rows(rows, np.array([clip.centre_s for clip in cut]), 0, max(clip.padded for clip in cut), batch)
        for rows, cut in zip(np.split(np.concatenate(values), ends), videos, strict=True)
    ]


def _batches(items: Iterator[T], size: int) -> Iterator[list[T]]:
    pending: list[T] = []
    for item in items:
        pending.append(item)
        if len(pending) == size:
            yield pending
            pending = []
    if pending:
        yield pending


def _start(chosen: list[Clip], extractor: Extractor) -> Tensor:
    pictures = {number: picture for clip in chosen for number, picture in zip(clip.numbers, clip.shown, strict=True)}
    place = {number: i for i, number in enumerate(pictures)}
    index = np.array([[place[number] for number in clip.numbers] for clip in chosen], dtype=np.int64)
    return extractor.rows(np.stack(list(pictures.values())), index)


def _finish(values: Tensor, chosen: list[Clip], frames_read: int, batch: int) -> Rows:
    times_s = np.array([clip.centre_s for clip in chosen])
    return Rows(values.cpu().numpy(), times_s, frames_read, max(clip.padded for clip in chosen), batch)


class _Counted:
    def __init__(self, frames: Iterable[TimedFrame]):
        self.frames, self.seen = frames, 0

    def __iter__(self) -> Iterator[TimedFrame]:
        for frame in self.frames:
            self.seen += 1
            yield frame


def prefetch(items: Iterable[T], depth: int) -> Generator[T, None, None]:
    """The same items, made up to `depth` ahead in a thread; an error in the thread is raised here.

    Closing this generator early stops the thread.
    """
    ready: queue.Queue[tuple[str, T | BaseException | None]] = queue.Queue(maxsize=depth)
    stop = threading.Event()

    def put(kind: str, value: T | BaseException | None) -> bool:
        while not stop.is_set():
            try:
                ready.put((kind, value), timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def work() -> None:
        try:
            for item in items:
                if not put("item", item):
                    return
            put("end", None)
        except BaseException as error:  # handed to the consumer, who raises it
            put("error", error)

    thread = threading.Thread(target=work, name="vidtad-prefetch", daemon=True)
    thread.start()
    try:
        while True:
            kind, value = ready.get()
            if kind == "end":
                return
            if kind == "error":
                raise value  # type: ignore[misc]
            yield value  # type: ignore[misc]
    finally:
        stop.set()
        thread.join(timeout=5)
