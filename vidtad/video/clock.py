"""From a container's clock to seconds that start at 0 and increase strictly, in exact arithmetic."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from fractions import Fraction

from vidtad.errors import InputError
from vidtad.video.types import Frame

FASTEST, SLOWEST = Fraction(1000), Fraction(1, 100)
# Distinct frame lengths remembered for the median: bounds memory on files whose every gap differs.
MOST_GAPS = 20_000
# A jump ahead past the promised end by more than this is a broken clock, not a pause.
WILD_JUMP_S = 10


def plausible(rate: Fraction | None) -> bool:
    """Whether a frame rate (frames per second) can be that of a real recording."""
    return rate is not None and SLOWEST <= rate <= FASTEST


class Clock:
    """Places frames on the time line: the first at 0, each later one after its predecessor.

    `time_base` is seconds per tick. With `by_index` the container's times are not used and frame k lies at
    k / rate. A clock that runs backwards, stands still, or leaps past `promised_s` is rebased to one frame
    after the previous one; `rebased_at_s` keeps the times of the first few such places.
    """

    def __init__(self, time_base: Fraction, rate: Fraction, by_index: bool, promised_s: float | None) -> None:
        self.time_base = 1 / rate if by_index else time_base
        self.by_index = by_index
        self.usual = max(1, round(1 / rate / self.time_base))
        self.promised = None if promised_s is None else round((promised_s + WILD_JUMP_S) / self.time_base)
        self.first: int | None = None
        self.last: int | None = None
        self.last_length = self.usual
        self.offset = 0
        self.gaps: Counter[int] = Counter()
        self.rebased_at_s: list[float] = []
        self.rebased = 0

    def place(self, ticks: int | None, duration: int, after_loss: bool = False) -> int:
        """Ticks since the first frame for the next frame; `after_loss`: gaps may be holes left by damage."""
        if self.by_index:
            ticks, duration = (0 if self.last is None else self.last + 1), 1
        if self.last is None:
            self.first = ticks or 0
            placed = 0
        else:
            placed = self._follow(ticks, after_loss)
        self.last, self.last_length = placed, duration if duration > 0 else self.usual
        return placed

    def _follow(self, ticks: int | None, after_loss: bool) -> int:
        assert self.last is not None and self.first is not None
        if ticks is None:
            return self.last + self.median()
        placed = ticks - self.first + self.offset
        leap = (
            self.promised is not None
            and placed > self.promised
            and ((placed - self.last) * self.time_base > WILD_JUMP_S)
        )
        if placed <= self.last or leap:
            due = self.last + self.median()
            self.rebased += 1
            if len(self.rebased_at_s) < 5:
                self.rebased_at_s.append(self.seconds(due))
            self.offset += due - placed
            return due
        gap = placed - self.last
        hole = after_loss and gap > 1.5 * self.median()
        if not hole and (gap in self.gaps or len(self.gaps) < MOST_GAPS):
            self.gaps[gap] += 1
        return placed

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

    def seconds(self, ticks: int) -> float:
        """Seconds of a number of ticks, rounded once."""
        return (ticks * self.time_base.numerator) / self.time_base.denominator

    def end(self) -> int:
        """Ticks from the first frame to the end of the last one."""
        return 0 if self.last is None else self.last + self.last_length


def resample(frames: Iterable[Frame], fps: Fraction, first: int = 0) -> Iterator[Frame]:
    """Frames at the constant rate `fps`: at each k / fps the source frame nearest in time, k from `first`.

    Of two equally near the earlier is taken. Ends where the source's last frame ends. Streams with one frame
    of look-ahead; a source frame may come out several times or never. Of the sources, those before the last
    but one at or before `first` / fps are not needed. Raises InputError when `fps` is not
    within 0.01 to 1000.
    """
    if not plausible(Fraction(fps)):
        raise InputError(f"A frame rate of {fps} per second is out of range: give one from 0.01 to 1000")
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
