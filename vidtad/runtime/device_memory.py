"""When a device's memory does not suffice: go on with less at a time."""

from collections.abc import Callable, Iterator
from typing import TypeVar

import torch

from vidtad.errors import RunError, out_of_memory

T = TypeVar("T")
R = TypeVar("R")


class Parts:
    """Does work on parts of at most `size` items (None: all), halved for good when the device runs out of memory.

    `one`: what a single item is called, for the sentence of the RunError raised when not even that fits.
    """

    def __init__(self, device: object, one: str, size: int | None = None):
        self.device, self.one, self.size = device, one, size

    def __call__(self, work: Callable[[list[T]], R], items: list[T]) -> Iterator[R]:
        """What `work` gives for each part, in order."""
        at = 0
        while at < len(items):
            part = items[at : at + (self.size or len(items))]
            found = self._try(work, part)
            if found is not None:
                yield found
                at += len(part)
            elif len(part) > 1:
                self.size = len(part) // 2
            else:
                raise RunError(
                    f"out of memory on {self.device} with {self.one}; free memory there or pass --device cpu"
                )

    def notes(self) -> tuple[str, ...]:
        """What a timeline says about it: nothing while everything fits."""
        return () if self.size is None else (f"memory ran out on {self.device}: went on with {self.size} at a time",)

    def _try(self, work: Callable[[list[T]], R], part: list[T]) -> R | None:
        try:
            return work(part)
        except RuntimeError as error:
            if not out_of_memory(error):
                raise
        # Only now, with the error, are the tensors of the failed attempt gone.
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        return None
