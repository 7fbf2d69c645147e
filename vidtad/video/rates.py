"""The border to PyAV's numbers: rates and time bases come in as `Fraction`, whatever class a release has for them."""

from fractions import Fraction
from typing import Any


def exact(value: Any) -> Fraction | None:
    """A rate (frames per second) or time base (seconds per tick) of PyAV as a fraction; None where it says none.

    PyAV up to 18 gives fractions, from 19 on rationals of its own, which have no abs, round or limit_denominator.
    """
    if value is None or not value.denominator:
        return None
    return Fraction(value.numerator, value.denominator)


def average_rate(stream: Any) -> Fraction | None:
    """What the container says, averaged over the file."""
    return exact(stream.average_rate)


def base_rate(stream: Any) -> Fraction | None:
    """The lowest rate in whose steps all times of the file can be said."""
    return exact(stream.base_rate)


def guessed_rate(stream: Any) -> Fraction | None:
    """FFmpeg's guess from container and codec."""
    return exact(stream.guessed_rate)


def time_base(stream: Any) -> Fraction:
    """Seconds per tick of the times of a stream, a packet or a frame."""
    base = exact(stream.time_base)
    assert base is not None
    return base
