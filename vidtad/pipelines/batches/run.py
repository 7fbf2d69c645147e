"""Many inputs at once: which worker does what, what follows from a death, and what came out in the end.

Nothing is remembered here between runs: items write their own outputs, and a finished one is known by them.
"""

import hashlib
import os
import re
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from vidtad.errors import InputError, RunError, VidtadError
from vidtad.pipelines.batches.local import Fleet, Item, Part, Pool, Record, Serial, Setup, Task, Watch
from vidtad.pipelines.batches.ray import RayActors
from vidtad.runtime.remote import size

DEATHS = 2
"""Workers an item may take with it before it is given up."""
BUSY_PAUSE_S = 1.0
POLL_S = 0.5

ENGINES: dict[str, Callable[[Task, Setup, Watch], Fleet]] = {"serial": Serial, "pool": Pool, "ray": RayActors}


def engine_of(setup: Setup) -> str:
    """Key of ENGINES: `local` is this process, or the pool when a number of workers was asked for."""
    if setup.engine == "local":
        return "serial" if setup.workers is None else "pool"
    return setup.engine


def unwatched(worker: int, item: Item, done: int, total: int | None) -> None:
    """The progress callback of a quiet run."""


def run(
    items: Sequence[Path], task: Task, setup: Setup = Setup(), watch: Watch = unwatched
) -> Generator[Record, None, None]:
    """Do every item once; yields its record, done or failed, as soon as it is over, in no fixed order.

    With `setup.ranges`, the parts of an item go before it, and one that fails takes the item with it. An item whose
    worker dies is tried once more, last; one that another process has at work is waited for. Closing this generator
    ends the workers. Raises InputError or RunError when no worker can be had, or none shows life.
    """
    if not items:
        return
    engine = engine_of(setup)
    most = len(items) * setup.ranges  # further workers would load a model for nothing
    if engine == "pool" and setup.workers is not None and setup.workers > most:
        setup = replace(setup, workers=most)
    fleet = ENGINES[engine](task, setup, watch)
    try:
        left_out = getattr(task, "left_out", lambda path: None)
        yield from _Run(items if engine == "serial" else longest_first(items), fleet, setup, watch, left_out).records()
    finally:
        fleet.close()


class _Run:
    """The state of one run: items that wait, items at work, and who has died."""

    def __init__(
        self, items: Sequence[Path], fleet: Fleet, setup: Setup, watch: Watch, left_out: Callable[[Path], None]
    ):
        self.fleet, self.setup, self.watch, self.left_out = fleet, setup, watch, left_out
        parts = setup.ranges
        self.waiting: deque[Item] = deque(
            items if parts == 1 else [Part(item, number, parts) for item in items for number in range(parts)]
        )
        self.parts_left = {} if parts == 1 else dict.fromkeys(items, parts)
        self.later: deque[tuple[float, Item]] = deque()
        self.working: dict[int, Item | None] = {}
        self.held: defaultdict[int, list[Item]] = defaultdict(list)  # begun, to be finished together with others
        self.ready: set[int] = set()
        self.heard: dict[int, float] = {}
        self.deaths: Counter[Item] = Counter()
        self.early_deaths = 0
        self.moved = time.monotonic()

    def records(self) -> Iterator[Record]:
        """See `run`."""
        while self.waiting or self.later or self.working or any(self.held.values()):
            self._hand_out()
            for event in self.fleet.poll(POLL_S):
                self.moved = self.heard[event.worker] = time.monotonic()
                if event.kind == "ready":
                    self.early_deaths = 0
                    self.ready.add(event.worker)
                elif event.kind == "progress":
                    item = self.working.get(event.worker)
                    if item is not None:
                        self.watch(event.worker, item, *event.content)
                elif event.kind == "records":
                    yield from self._answered(event.worker, event.content)
                elif event.kind == "died":
                    yield from self._died(event.worker, event.content)
            yield from self._hung()

    def _hand_out(self) -> None:
        now = time.monotonic()
        while self.later and self.later[0][0] <= now:
            self.waiting.append(self.later.popleft()[1])
        for worker in sorted(self.ready):
            if not (self.waiting or self.held[worker]):
                continue
            self.ready.discard(worker)
            self.working[worker] = self.waiting.popleft() if self.waiting else None
            self.heard[worker] = time.monotonic()
            self.fleet.give(worker, self.working[worker])

    def _answered(self, worker: int, records: list[Record]) -> Iterator[Record]:
        item, over = self.working.pop(worker, None), {record.path for record in records}
        begun = self.held[worker] if item is None else [*self.held[worker], item]
        self.held[worker] = [one for one in begun if one not in over]
        self.ready.add(worker)
        for record in records:
            yield from self._over(record)

    def _over(self, record: Record) -> Iterator[Record]:
        if record.status == "busy":
            self.later.append((time.monotonic() + BUSY_PAUSE_S, record.path))
            return
        yield from self._settled(record)
        if record.fatal:
            waiting = (*self.waiting, *(item for _, item in self.later), *self.parts_left)
            left = dict.fromkeys(map(_whole, waiting))
            self.waiting.clear()
            self.later.clear()
            self.parts_left.clear()
            for path in left:
                yield Record(path, "failed", error=f"{path}: not begun, because nothing more can be written")

    def _settled(self, record: Record) -> Iterator[Record]:
        """What goes out: records of whole items. Those of parts decide whether their item is next, or has failed."""
        part = record.path
        if not isinstance(part, Part):
            yield record
        elif part.path in self.parts_left:  # else another part of it has failed
            self.parts_left[part.path] -= 1
            over = record.status == "failed" or not self.parts_left[part.path]
            if over:
                del self.parts_left[part.path]
            if record.status == "failed":
                self.waiting = deque(item for item in self.waiting if _whole(item) != part.path)
                self.later = deque((when, item) for when, item in self.later if _whole(item) != part.path)
                yield replace(record, path=part.path)
            elif over:
                self.waiting.appendleft(part.path)

    def _died(self, worker: int, reason: str) -> Iterator[Record]:
        self.ready.discard(worker)
        begun = worker in self.working
        item, held = self.working.pop(worker, None), self.held.pop(worker, [])
        if not (begun or held):
            self.early_deaths += 1
            if self.early_deaths > 2 * self.fleet.size:
                raise RunError(f"workers die before they begin ({reason}); try fewer --workers, or none to see why")
        if item is not None:  # what was only held back had no part in it
            self.waiting.extend(held)
            held = [item]
        for item in held:
            self.deaths[item] += 1
            if self.deaths[item] >= DEATHS:
                sentence = f"{item}: its worker died {DEATHS} times ({reason}), so it was left out"
                self.left_out(_whole(item))
                yield from self._settled(Record(item, "failed", error=sentence))
            elif not isinstance(item, Part) or item.path in self.parts_left:
                self.waiting.append(item)
        self.fleet.replace(worker)

    def _hung(self) -> Iterator[Record]:
        patience = self.setup.patience_s
        now = time.monotonic()
        for worker in [one for one in self.working if now - self.heard[one] > patience]:
            yield from self._died(worker, f"no sign of life for {patience:g} s")
            self.moved = now
        if not self.working and not self.later and now - self.moved > patience:
            raise RunError(f"no worker could begin within {patience:g} s; ask for fewer or smaller workers")


def _whole(item: Item) -> Path:
    return item.path if isinstance(item, Part) else item


def longest_first(items: Sequence[Path]) -> list[Path]:
    """Largest files first, so that no long one is left for the end; ties in the given order.

    By bytes, here or as the storage elsewhere tells them, not by duration: this process opens no video, so that none
    can take the whole run with it. What tells no size goes last.
    """

    def bytes_of(path: Path) -> int:
        try:
            return size(path) or 0
        except (OSError, VidtadError):  # its worker will say what is wrong with it
            return 0

    return sorted(items, key=bytes_of, reverse=True)


def parse_shard(text: str) -> tuple[int, int]:
    """`2/8` -> (2, 8): the second of eight. Raises InputError."""
    found = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text)
    part, parts = map(int, found.groups()) if found else (0, 0)
    if not 1 <= part <= parts:
        raise InputError(f"--shard {text}: write it like 1/8 (the first of eight) up to 8/8")
    return part, parts


def shard_of(path: Path, parts: int) -> int:
    """Which of `parts` shards a file belongs to, from 1, by its name alone: the same on every machine."""
    name = hashlib.sha256(os.fsencode(Path(path).name)).digest()
    return int.from_bytes(name[:8], "big") % parts + 1
