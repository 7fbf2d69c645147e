"""From a container's clock to seconds that start at 0 and increase strictly, in exact arithmetic."""

from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Generic, TypeVar

from vidtad.errors import InputError
from vidtad.video.types import Frame

USUAL = Fraction(1, 100), Fraction(1000)
"""Frame rates that a header is believed without a second look."""
POSSIBLE = Fraction(1, 100_000), Fraction(100_000)
"""Frame rates that are taken where the frames' own times bear them out: high-speed cameras, a picture a day."""
# Distinct frame lengths remembered for the median: bounds memory on files whose every gap differs.
MOST_GAPS = 20_000
# A jump ahead past the promised end by more than this is a broken clock, not a pause.
WILD_JUMP_S = 10
# Frames that are looked at beyond the one to be placed: always, and where times are out of order.
AHEAD, AHEAD_IN_DISORDER = 2, 16
# Offsets of a clock that jumped before, to which it may come back.
MOST_OFFSETS = 8

Item = TypeVar("Item")


@dataclass(frozen=True)
class Stamp(Generic[Item]):
    """A frame on its way to the time line: time and length in ticks of the container, None and 0 where not said."""

    item: Item
    ticks: int | None
    duration: int
    after_loss: bool = False
    """Whether packets were lost before it, so that a gap may be a hole."""


def plausible(rate: Fraction | None) -> bool:
    """Whether a frame rate (frames per second) is one that recordings usually have."""
    return rate is not None and USUAL[0] <= rate <= USUAL[1]


def possible(rate: Fraction | None) -> bool:
    """Whether a frame rate (frames per second) can be that of a real recording at all."""
    return rate is not None and POSSIBLE[0] <= rate <= POSSIBLE[1]


def check_rate(fps: Fraction) -> None:
    """Raise InputError for a rate (frames per second) that no recording has."""
    if not possible(fps):
        raise InputError(f"A frame rate of {fps} per second is out of range: give one from 0.00001 to 100000")


class Clock:
    """Places frames on the time line: the first at 0, each later one after its predecessor.

    `time_base` is seconds per tick. With `by_index` the container's times are not used and frame k lies at
    k / rate. A time that is missing, repeated or out of order moves its own frame alone, between its neighbours; the
    next sound one counts again. Where the clock jumps for good (backwards, or past `promised_s`), the rest is joined
    up, one frame after the previous one. `moved` and `jumps` count both, `moved_at_s` and `jumps_at_s` keep the times
    of the first few.
    """

    def __init__(self, time_base: Fraction, rate: Fraction, by_index: bool, promised_s: float | None) -> None:
        self.time_base = 1 / rate if by_index else time_base
        self.by_index = by_index
        self.usual = max(1, round(1 / rate / self.time_base))
        self.promised = None if promised_s is None else round((promised_s + WILD_JUMP_S) / self.time_base)
        self.wild = round(WILD_JUMP_S / self.time_base)
        self.first: int | None = None
        self.last: int | Fraction | None = None
        self.last_length = self.usual
        self.gaps: Counter[int] = Counter()
        self.moved = self.jumps = 0
        self.moved_at_s: list[float] = []
        self.jumps_at_s: list[float] = []
        self._offset = 0
        self._offsets: list[int] = []
        self._after_sound = False

    def placed(self, stamps: Iterable[Stamp[Item]]) -> Iterator[tuple[Item, int | Fraction]]:
        """(item, ticks since the first frame) of each stamp, in order and increasing.

        A frame is given out once the AHEAD frames after it are known, AHEAD_IN_DISORDER where their times are not in
        order.
        """
        waiting: deque[Stamp[Item]] = deque()
        source = iter(stamps)
        ended = False
        while True:
            wanted = AHEAD if self._in_order(waiting) else AHEAD_IN_DISORDER
            if not ended and len(waiting) <= wanted:
                stamp = next(source, None)
                ended = stamp is None
                if stamp is not None:
                    waiting.append(stamp)
                continue
            if not waiting:
                return
            for ticks in self._next(waiting):
                stamp = waiting.popleft()
                self.last, self.last_length = ticks, stamp.duration if stamp.duration > 0 else self.usual
                if self.by_index:
                    self.last_length = 1
                yield stamp.item, ticks

    def _in_order(self, waiting: Iterable[Stamp[Item]]) -> bool:
        if self.by_index:
            return True
        before = self.last
        for stamp in waiting:
            ticks = self._ticks(stamp, self._offset)
            if ticks is None or (before is not None and ticks <= before) or self._is_wild(ticks):
                return False
            before = ticks
        return True

    def _ticks(self, stamp: Stamp[Item], offset: int) -> int | None:
        if stamp.ticks is None:
            return None
        return stamp.ticks - (stamp.ticks if self.first is None else self.first) + offset

    def _is_wild(self, ticks: int) -> bool:
        return self.promised is not None and ticks > self.promised and ticks - (self.last or 0) > self.wild

    def _next(self, waiting: Sequence[Stamp[Item]]) -> list[int | Fraction]:
        """Places of the first of the waiting frames, or of the first few where they hang together."""
        if self.by_index:
            self.first = 0
            return [0 if self.last is None else self.last + 1]
        if self.last is None:
            self.first, self._after_sound = self._zero(waiting), True
            return [0]
        sound = self._chain(waiting, self._offset)
        timed = sum(stamp.ticks is not None for stamp in waiting)
        if not timed:
            return [self._moved(self.last + self.median())]
        if 2 * len(sound) < timed:  # most of what follows does not fit: the clock may have jumped for good
            head = next(stamp.ticks for stamp in waiting if stamp.ticks is not None)
            for offset in (*reversed(self._offsets), self.last + self.median() - (head - (self.first or 0))):
                anew = self._chain(waiting, int(offset))
                if len(anew) > len(sound) and self._near(waiting[anew[0]], int(offset)):
                    self._jump(int(offset))
                    sound = anew
                    break
        if not sound:
            return [self._moved(self.last + self.median())]
        place = self._ticks(waiting[sound[0]], self._offset)
        assert place is not None
        if sound[0] == 0:
            self._note_gap(place, waiting[0].after_loss)
            self._after_sound = True
            return [place]
        step = Fraction(place - self.last) / (sound[0] + 1)
        return [self._moved(_whole(self.last + step * (count + 1))) for count in range(sound[0])]

    def _zero(self, waiting: Sequence[Stamp[Item]]) -> int:
        """The container's time of the first frame: its own, unless those after it say otherwise."""
        timed = [stamp.ticks for stamp in waiting if stamp.ticks is not None]
        if not timed:
            return 0
        chain = _longest(timed)
        if waiting[0].ticks is not None and (chain[0] == 0 or 2 * len(chain) < len(timed)):
            return waiting[0].ticks
        at = next(place for place, stamp in enumerate(waiting) if stamp.ticks == timed[chain[0]])
        self._moved(0)
        return timed[chain[0]] - at * self.usual

    def _chain(self, waiting: Sequence[Stamp[Item]], offset: int) -> list[int]:
        """Which of the waiting frames have sound times: the longest increasing series after the last frame."""
        assert self.last is not None
        fits = []
        for place, stamp in enumerate(waiting):
            ticks = self._ticks(stamp, offset)
            if ticks is not None and ticks > self.last and not self._is_wild(ticks):
                fits.append((place, ticks))
        chain = _longest([ticks for _, ticks in fits])
        return [fits[place][0] for place in chain]

    def _near(self, stamp: Stamp[Item], offset: int) -> bool:
        ticks = self._ticks(stamp, offset)
        return ticks is not None and self.last is not None and ticks - self.last <= self.wild

    def _jump(self, offset: int) -> None:
        assert self.last is not None
        self._offsets = [*self._offsets[1 - MOST_OFFSETS :], self._offset]
        self._offset = offset
        self.jumps += 1
        if len(self.jumps_at_s) < 5:
            self.jumps_at_s.append(self.seconds(self.last + self.median()))

    def _moved(self, ticks: int | Fraction) -> int | Fraction:
        self.moved += 1
        self._after_sound = False
        if len(self.moved_at_s) < 5:
            self.moved_at_s.append(self.seconds(ticks))
        return ticks

    def _note_gap(self, ticks: int, after_loss: bool) -> None:
        assert self.last is not None
        gap = ticks - self.last
        hole = after_loss and gap > 1.5 * self.median()
        if not isinstance(gap, int) or not self._after_sound or hole:
            return
        if gap in self.gaps or len(self.gaps) < MOST_GAPS:
            self.gaps[gap] += 1

    def median(self) -> int:
        """The usual gap between frames in ticks: the median of those seen, else what the header says."""
        if not self.gaps:
            return self.usual
        if len(self.gaps) == 1:
            return next(iter(self.gaps))
        half, seen = (sum(self.gaps.values()) + 1) // 2, 0
        for gap in sorted(self.gaps):
            seen += self.gaps[gap]
            if seen >= half:
                return gap
        raise AssertionError("unreachable")

    def constant(self) -> bool:
        """Whether every gap equals the median within one tick and 10 % (containers round to their ticks)."""
        middle = self.median()
        slack = min(1, middle / 2) + middle / 10
        return all(abs(gap - middle) <= slack for gap in self.gaps)

    def rate(self, header: Fraction, frames: int) -> Fraction:
        """Average frames per second: the header's where the times bear it out, else the measured one."""
        if self.last is None or self.last == 0:
            return header
        span = self.last * self.time_base
        measured = (frames - 1) / span
        off_s = abs((frames - 1) / header - span)
        agree = abs(measured - header) <= header / 100 or off_s <= 2 * self.time_base
        return header if agree else Fraction(measured).limit_denominator(100_000)

    def seconds(self, ticks: int | Fraction) -> float:
        """Seconds of a number of ticks, rounded once."""
        if isinstance(ticks, Fraction):
            return float(ticks * self.time_base)
        return (ticks * self.time_base.numerator) / self.time_base.denominator

    def end(self) -> int | Fraction:
        """Ticks from the first frame to the end of the last one."""
        return 0 if self.last is None else self.last + self.last_length


def _whole(ticks: Fraction) -> int | Fraction:
    return ticks.numerator if ticks.denominator == 1 else ticks


def _longest(values: Sequence[int]) -> list[int]:
    """Places of the longest strictly increasing series in `values`; of equally long ones, one that begins early."""
    length = [1] * len(values)
    for at in range(len(values) - 2, -1, -1):
        length[at] += max((length[on] for on in range(at + 1, len(values)) if values[on] > values[at]), default=0)
    series: list[int] = []
    wanted = max(length, default=0)
    for at, value in enumerate(values):
        if length[at] == wanted and (not series or value > values[series[-1]]):
            series.append(at)
            wanted -= 1
    return series


def resample(frames: Iterable[Frame], fps: Fraction, first: int = 0) -> Iterator[Frame]:
    """Frames at the constant rate `fps`: at each k / fps the source frame nearest in time, k from `first`.

    Of two equally near the earlier is taken. Ends where the source's last frame ends. Streams with one frame
    of look-ahead; a source frame may come out several times or never. Of the sources, those before the last
    but one at or before `first` / fps are not needed. Raises InputError when `fps` is out of range.
    """
    check_rate(Fraction(fps))
    fps, step = Fraction(fps), float(1 / Fraction(fps))
    k = first
    held: Frame | None = None
    for coming in frames:
        if held is not None:
            # Microseconds of slack: containers round times, and a tie must not hang on that.
            while (coming.time_s - float(k / fps)) > (float(k / fps) - held.time_s) - 2e-6:
                yield replace(held, index=k, time_s=float(k / fps), duration_s=step)
                k += 1
        held = coming
    while held is not None and float(k / fps) < held.time_s + held.duration_s - 1e-6:
        yield replace(held, index=k, time_s=float(k / fps), duration_s=step)
        k += 1
