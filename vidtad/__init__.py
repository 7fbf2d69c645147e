"""From a raw video to a timeline of what happens, when, and who does it."""

__version__ = "0.1.0"
