"""How long work says how far it is: one kind of callback for the whole program."""

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    pass


Progress = Callable[[int, "int | None"], None]
"""Called with the frames read so far and their expected number (None: unknown)."""


def no_progress(done: int, total: int | None) -> None:
    """The progress callback of a quiet run."""
