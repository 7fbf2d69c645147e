"""How far long work is, where no bar can move: one plain line a minute on standard error."""

import sys
import time

from vidtad.cli.common import note

EVERY_S = 60.0


def watched(*, quiet: bool) -> bool:
    """Whether lines are wanted: standard error is no terminal, and nobody asked for quiet."""
    return not quiet and not sys.stderr.isatty()


class Ticker:
    """Says how far work is, at most once in `every_s` seconds, from the first call on."""

    def __init__(self, every_s: float = EVERY_S):
        self.every_s = every_s
        self._said_s = self._begun_s = time.monotonic()
        self._what: str | None = None
        self._first = 0

    def __call__(self, what: str, done: int, total: int | None, detail: str = "") -> None:
        """`done` of `total` (None: not known) of `what`; the time left is of this `what` alone."""
        now = time.monotonic()
        if what != self._what:
            self._what, self._begun_s, self._first = what, now, done
        if now - self._said_s < self.every_s:
            return
        self._said_s = now
        sentence = f"{what}: {done}" + (f" of {total}" if total else "")
        if total and done > self._first:
            left_s = (now - self._begun_s) * (total - done) / (done - self._first)
            sentence += f", about {lasting(left_s)} left"
        note(sentence + (f" ({detail})" if detail else ""))


def lasting(seconds: float) -> str:
    """A duration in two units at most: `45 s`, `12 min`, `3 h 20 min`."""
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{round(seconds)} s"
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
