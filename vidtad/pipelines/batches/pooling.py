"""Batches filled across the borders of videos: the windows left over at one's end wait for those of the next."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any

import numpy as np

from vidtad.extractors.base import Extractor
from vidtad.extractors.stream import Clip, Rows, rows_of_several
from vidtad.pipelines.batches.local import Item, Record, ReportProgress, attempt
from vidtad.pipelines.extract.extraction import Steps
from vidtad.progress import no_progress
from vidtad.runtime.device_memory import Parts

LONG = 8
"""Batches of a video after which those before it no longer wait for its end."""
_LEFT = object()


@dataclass
class _Held:
    """An item whose last windows wait: `clips`, without those whose rows are there."""

    item: Item
    steps: Steps[Any]
    clips: list[Clip]
    seconds: float = 0.0
    rows: list[Rows] = field(default_factory=list)


class Together:
    """Work that does one item after another and holds those back whose last windows fill no batch (`Holding`).

    `start` begins an item: see `extract_in_steps`. Fewer than `batch` windows wait between items, so fewer items; each
    holds its lock and the pictures of its windows, no decoder. There is one thread, and what is shown together depends
    on the order of the items alone.
    """

    def __init__(self, start: Callable[[Item, ReportProgress], Steps[Any]], extractor: Extractor, batch: int):
        self.start, self.extractor = start, extractor
        self.fitting = Parts(extractor.device, f"a single window of {extractor.name}", batch)
        self.waiting: deque[_Held] = deque()
        self.over: list[Record] = []

    def records(self, item: Item | None, progress: ReportProgress) -> list[Record]:
        """See `Holding`."""
        if item is None:
            self._show_all()
        else:
            self._begin(item, progress)
            while sum(len(held.clips) for held in self.waiting) >= (self.fitting.size or 1):
                self._show()
        over, self.over = self.over, []
        return over

    def close(self) -> None:
        """Let go of the locks; rows that are missing are made by a later run."""
        while self.waiting:
            self.waiting.popleft().steps.close()

    def _begin(self, item: Item, progress: ReportProgress) -> None:
        batches = count(1)

        def watched(done: int, total: int | None) -> None:
            if next(batches) == LONG:
                self._show_all()
            progress(done, total)

        steps = self.start(item, watched)
        clips: list[Clip] = []

        def begun(item: Item, progress: ReportProgress) -> Any:
            try:
                clips.extend(next(steps))
            except StopIteration as end:
                return end.value
            return _LEFT

        record = attempt(begun, item, watched)
        if record.value is _LEFT:
            self.waiting.append(_Held(item, steps, clips, record.seconds))
        else:
            self.over.append(record)

    def _show_all(self) -> None:
        while self.waiting:
            self._show()

    def _show(self) -> None:
        """Show the network one batch of what waits, the first come first."""
        room, parts = self.fitting.size or 1, []
        for held in self.waiting:
            if room:
                parts.append(held.clips[:room])
                room -= len(parts[-1])
        try:
            found = rows_of_several(parts, self.extractor, self.fitting)
        except Exception:  # whose fault it is shows when each is by itself
            for _ in parts:
                self._finish()
            return
        for rows in found:
            held = self.waiting[0]
            held.rows.append(rows)
            del held.clips[: len(rows.values)]
            if not held.clips:
                self._finish()

    def _finish(self) -> None:
        """End the item that has waited longest; what goes wrong with it becomes its record."""
        held = self.waiting[0]

        def finished(item: Item, progress: ReportProgress) -> Any:
            try:
                if held.clips:
                    held.rows += rows_of_several([held.clips], self.extractor, self.fitting)
            except Exception as error:
                held.steps.throw(error)
            try:
                held.steps.send(_joined(held.rows))
            except StopIteration as end:
                return end.value
            raise AssertionError("it paused again")

        record = attempt(finished, held.item, no_progress)
        self.waiting.popleft()
        self.over.append(replace(record, seconds=held.seconds + record.seconds))


def _joined(rows: list[Rows]) -> Rows:
    return Rows(
        np.concatenate([part.values for part in rows]),
        np.concatenate([part.times_s for part in rows]),
        0,
        max(part.padded for part in rows),
        min(part.batch for part in rows),
    )
