"""A video from any frame on: numbers, times and pixels are those of a pass from its start, or it is not done."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from fractions import Fraction
from itertools import chain, islice
from pathlib import Path

from vidtad.errors import InputError
from vidtad.video.clock import Clock, Stamp
from vidtad.video.plan import PacketPlan, read_plan
from vidtad.video.pyav import PyavDecoder
from vidtad.video.reader import Video, Walk, as_found, open_video
from vidtad.video.types import Damage, Decoded, Frame, VideoInfo

KEYFRAMES_TRIED = 3


class Inexact(Exception):
    """What is decoded is not what the packets announce: only a pass from the start finds the frames' numbers."""


class Index:
    """Frame numbers and times of a whole video, read from its packets, and its frames from any number on."""

    def __init__(self, video: Video, plan: PacketPlan):
        self.path, self.strict = video.path, video.strict
        self.info, self.promise, self.plan = video.info, video.promise, plan
        self._first = plan.times[0]
        self._clock = self._counted(0)

    def _counted(self, last_length: int) -> Clock:
        clock = Clock(self.promise.time_base, self.info.fps, False, self.promise.duration_s)
        for _ in clock.placed(Stamp(None, ticks, last_length) for ticks in self.plan.times):
            pass
        return clock

    @property
    def sound(self) -> bool:
        """Whether times increase from the first frame to the last without a repair."""
        return not (self._clock.jumps or self._clock.moved) and self._first == (self.promise.first_ticks or 0)

    def __len__(self) -> int:
        return len(self.plan.times)

    def number_before(self, time_s: float) -> int:
        """Number of the last frame at or before a time in seconds, 0 when there is none."""
        ticks = self._first + Fraction(time_s) / self.promise.time_base
        return max(0, bisect_right(self.plan.times, ticks) - 1)

    def frames(self, first: int = 0) -> Iterator[Frame]:
        """Every frame from number `first` to the end, decoded from the nearest keyframe before it.

        Raises Inexact as soon as a frame is not the announced one, is damaged, or has another size.
        """
        decoder, flow = self._begun(first)
        try:
            number = first
            for decoded in flow:
                if decoder.damage.failures or not self._announced(decoded, number):
                    raise Inexact(f"{self.path}: frame {number} is not the one announced")
                yield self._frame(decoded, number)
                number += 1
            if number != len(self) or decoder.damage.failures:
                raise Inexact(f"{self.path}: {number} of {len(self)} frames were found")
        finally:
            decoder.close()

    def _begun(self, first: int) -> tuple[PyavDecoder, Iterator[Decoded]]:
        """A decoder and what it gives from frame `first` on."""
        wanted = self.plan.times[first]
        place = bisect_right(self.plan.keyframes, wanted) - 1
        # Some containers seek by decoding times and land behind the keyframe asked for.
        for key in [self.plan.keyframes[at] for at in range(place, place - KEYFRAMES_TRIED, -1) if at >= 0]:
            decoder = PyavDecoder(self.path, self.promise)
            decoder.seek(key)
            flow = decoder.decode()
            for decoded in flow:
                if decoded.ticks is not None and decoded.ticks >= wanted:
                    if decoded.ticks == wanted:
                        return decoder, chain([decoded], flow)
                    break
            decoder.close()
        decoder = PyavDecoder(self.path, self.promise)
        return decoder, islice(decoder.decode(), first, None)

    def _announced(self, decoded: Decoded, number: int) -> bool:
        return (
            number < len(self)
            and decoded.ticks == self.plan.times[number]
            and (decoded.height, decoded.width) == (self.info.height, self.info.width)
            and not decoded.damaged
        )

    def _frame(self, decoded: Decoded, number: int) -> Frame:
        clock = self._clock
        return Frame(
            index=number,
            time_s=clock.seconds(self.plan.times[number] - self._first),
            duration_s=clock.seconds(decoded.duration if decoded.duration > 0 else clock.usual),
            height=self.info.height,
            width=self.info.width,
            picture=decoded.picture,
        )

    def found(self) -> tuple[VideoInfo, tuple[str, ...]]:
        """What a pass over the whole video would find, and its warnings, when every frame is as announced.

        The last frames are decoded. Raises InputError as a strict pass does, Inexact like `frames`.
        """
        key = self.plan.keyframe_for(self.plan.times[-1])
        *_, last = self.frames(0 if key is None else bisect_left(self.plan.times, key))
        length = round(Fraction(last.duration_s) / self.promise.time_base)
        walk = Walk(self, self.promise, _Announced(self, length))
        for _ in walk.frames():
            pass
        report = walk.report()
        if self.strict and report.broke_at_s is not None:
            raise InputError(report.warnings[-1])
        return as_found(self.info, report), report.warnings


class _Announced:
    """The decoder that finds what the packets announce, without pictures."""

    name = "pyav"

    def __init__(self, index: Index, length: int):
        self.index, self.length = index, length
        self.time_base, self.damage = index.promise.time_base, Damage()

    def decode(self) -> Iterator[Decoded]:
        info = self.index.info
        for ticks in self.index.plan.times:
            yield Decoded(ticks, self.length, info.height, info.width, None)  # type: ignore[arg-type]

    def close(self) -> None:
        """Nothing is open."""


def read_index(
    path: str | Path, *, decoder: str = "pyav", fps: Fraction | None = None, strict: bool = False
) -> Index | None:
    """The index of a video, from its packets alone; None where frames cannot be told by them.

    That is so with other decoders than pyav, and for files without usable times, with a broken clock or with broken
    packets. Raises InputError like `open_video`.
    """
    if decoder != "pyav":
        return None
    with open_video(path, fps=fps, strict=strict) as video:
        plan = read_plan(path, video.promise)
        if plan.doubt:
            return None
        index = Index(video, plan)
    return index if index.sound else None
