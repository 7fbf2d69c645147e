"""Frames in, feature rows out, with bounded memory: each frame is decoded and prepared once."""

import queue
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from vidtad.extractors.base import ClipConvention, Extractor, TimedFrame

T = TypeVar("T")


@dataclass(frozen=True)
class Clip:
    """The frames of one window, `pictures` (window, h, w, 3) uint8, and the time of the window's centre."""

    pictures: np.ndarray
    centre_s: float
    padded: int = 0


@dataclass(frozen=True)
class Rows:
    """Consecutive feature rows: `values` (n, C) float32 and their centres `times_s` (n,) float64."""

    values: np.ndarray
    times_s: np.ndarray
    frames_read: int
    padded: int


def clips(
    frames: Iterable[TimedFrame],
    convention: ClipConvention,
    prepare: Callable[[np.ndarray], np.ndarray],
    *,
    fps: float,
    skip: int = 0,
) -> Iterator[Clip]:
    """Full windows of `frames` in order, from window number `skip` on.

    There are (N - window) // stride + 1 of them for N frames. A video shorter than one window gives one, its last
    frame repeated. Only frames that some wanted window shows are converted and prepared. A window's centre is the
    time of the frame boundary in its middle: (start + window / 2) / fps where the rate is constant.
    """
    window, stride = convention.window, convention.stride
    pictures: deque[np.ndarray | None] = deque(maxlen=window)
    times: deque[float] = deque(maxlen=window)
    count = 0
    for count, frame in enumerate(frames, start=1):
        index = count - 1
        newest = index // stride  # the last window this frame can start or lie in
        wanted = newest >= skip and index - newest * stride < window
        pictures.append(prepare(frame.rgb()) if wanted else None)
        times.append(frame.time_s)
        number, offset = divmod(count - window, stride)
        if number >= skip and offset == 0:
            yield Clip(np.stack(pictures), _centre(times, window, fps))  # type: ignore[arg-type]
    if 0 < count < window and skip == 0:
        shown = [picture for picture in pictures if picture is not None]
        end_s = times[-1] + 1 / fps
        missing = window - count
        yield Clip(np.stack(shown + shown[-1:] * missing), end_s / 2, padded=missing)


def _centre(times: "deque[float]", window: int, fps: float) -> float:
    middle = times[window // 2]
    return middle + 0.5 / fps if window % 2 else middle


def feature_rows(
    frames: Iterable[TimedFrame], extractor: Extractor, *, fps: float, batch: int = 8, skip: int = 0
) -> Iterator[Rows]:
    """Feature rows from row `skip` on, up to `batch` at a time; decoding runs in a thread beside the network.

    Raises what the frame source raises.
    """
    counted = _Counted(frames)
    source = prefetch(
        clips(extractor.frames(counted), extractor.convention, extractor.prepare, fps=fps, skip=skip), depth=2 * batch
    )
    pending: list[Clip] = []
    for clip in source:
        pending.append(clip)
        if len(pending) == batch:
            yield _run(pending, extractor, counted.seen)
            pending = []
    if pending:
        yield _run(pending, extractor, counted.seen)


def _run(pending: list[Clip], extractor: Extractor, frames_read: int) -> Rows:
    values = extractor(np.stack([clip.pictures for clip in pending]))
    times_s = np.array([clip.centre_s for clip in pending])
    return Rows(values, times_s, frames_read, padded=max(clip.padded for clip in pending))


class _Counted:
    def __init__(self, frames: Iterable[TimedFrame]):
        self.frames, self.seen = frames, 0

    def __iter__(self) -> Iterator[TimedFrame]:
        for frame in self.frames:
            self.seen += 1
            yield frame


def prefetch(items: Iterable[T], depth: int) -> Iterator[T]:
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
