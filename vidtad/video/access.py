"""Frames by time, exact on B-frames and open GOPs: seek to a keyframe, decode on, accept only the frame meant."""

from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path

from vidtad.video.header import Promise
from vidtad.video.plan import PacketPlan, read_plan
from vidtad.video.pyav import PyavDecoder
from vidtad.video.types import Decoded, Frame

# Decoding on over this many frames is cheaper than a seek that starts at a keyframe behind them.
CHEAP_TO_CROSS = 8
# Frames a walk from the start keeps, so that slightly earlier times need no new walk.
FRAMES_KEPT = 48


class SeekingAccess:
    """Random access with PyAV over a packet index; `missed` times are the caller's to find sequentially."""

    def __init__(self, path: str | Path, promise: Promise, plan: PacketPlan) -> None:
        self.promise, self.plan = promise, plan
        self.decoder = PyavDecoder(path, promise)
        self._flow: Iterator[Decoded] = iter(())
        self._at: Decoded | None = None

    def close(self) -> None:
        """Free the file."""
        self.decoder.close()

    def frame(self, time_s: float) -> Frame | None:
        """The frame nearest to `time_s`, or None when the file does not keep what its packets announce."""
        first = self.promise.first_ticks or 0
        place = self.plan.nearest(first + Fraction(time_s) / self.promise.time_base)
        wanted = self.plan.times[place]
        if self._at is None or self._at.ticks != wanted:
            if not self._near(wanted):
                self._seek(wanted)
            if not self._advance(wanted):
                self._at = None
                return None
        assert self._at is not None
        return self._frame(self._at, place, wanted - first)

    def _near(self, wanted: int) -> bool:
        if self._at is None or self._at.ticks is None or self._at.ticks >= wanted:
            return False
        key = self.plan.keyframe_for(wanted)
        here = bisect_left(self.plan.times, self._at.ticks)
        return key is None or bisect_left(self.plan.times, key) - here <= CHEAP_TO_CROSS

    def _seek(self, wanted: int) -> None:
        key = self.plan.keyframe_for(wanted)
        self.decoder.seek(self.plan.times[0] if key is None else key)
        self._flow = self.decoder.decode()

    def _advance(self, wanted: int) -> bool:
        for decoded in self._flow:
            if decoded.ticks is not None and decoded.ticks >= wanted:
                self._at = decoded
                return decoded.ticks == wanted and not decoded.damaged
        return False

    def _frame(self, decoded: Decoded, place: int, since_first: int) -> Frame:
        base, info = self.promise.time_base, self.promise.info
        length = decoded.duration or round(1 / info.fps / base)
        return Frame(
            index=place,
            time_s=(since_first * base.numerator) / base.denominator,
            duration_s=(length * base.numerator) / base.denominator,
            height=info.height,
            width=info.width,
            picture=decoded.picture,
        )


class WalkingAccess:
    """Frames by time for files that cannot be sought in: walks on from where it is, or anew from the start."""

    def __init__(self, walk: Callable[[], Iterator[Frame]]) -> None:
        self._walk = walk
        self._flow: Iterator[Frame] | None = None
        self._kept: deque[Frame] = deque(maxlen=FRAMES_KEPT)

    def frame(self, time_s: float) -> Frame | None:
        """The frame nearest to `time_s` (None when the file has no frame)."""
        gone = self._kept and self._kept[0].index > 0 and time_s < self._kept[0].time_s
        if self._flow is None or gone:
            self._flow = self._walk()
            self._kept.clear()
        while not self._kept or self._kept[-1].time_s < time_s:
            coming = next(self._flow, None)
            if coming is None:
                break
            self._kept.append(coming)
        return min(self._kept, key=lambda frame: abs(frame.time_s - time_s), default=None)


class Access:
    """Frames of one video by time: by seeking where that is exact, else by walking."""

    def __init__(self, path: str | Path, promise: Promise, walk: Callable[[], Iterator[Frame]], seeking: bool) -> None:
        self._walking = WalkingAccess(walk)
        self._seeking: SeekingAccess | None = None
        if seeking:
            plan = read_plan(path, promise)
            if not plan.doubt:
                self._seeking = SeekingAccess(path, promise, plan)

    def at(self, times_s: Sequence[float]) -> list[Frame]:
        """The nearest frame for each time, in the order given."""
        found: dict[float, Frame | None] = {}
        for time_s in sorted(set(times_s)):
            frame = self._seeking.frame(time_s) if self._seeking else None
            found[time_s] = frame or self._walking.frame(time_s)
        return [frame for time_s in times_s if (frame := found[time_s]) is not None]

    def close(self) -> None:
        """Free the file."""
        if self._seeking:
            self._seeking.close()
