"""What is wrong with labels, and what of them can be used."""

from vidtad.labels.check import Check, Duration, check, cleaned, from_first_frame

__all__ = ["Check", "Duration", "check", "cleaned", "from_first_frame"]
