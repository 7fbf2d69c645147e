"""Who does the work: this process, or worker processes on this machine. (`ray_engine`: on many machines.)

An engine is a fleet of numbered workers. It starts them, hands each one item at a time, and says what happened.
Work may hold an item back to finish it together with the next; its record then comes later.
Which item goes where, and what follows from a death, is decided in `vidtad.pipelines.batches.run` for all alike.
"""

import errno
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, nullcontext, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Protocol, cast, runtime_checkable

from vidtad.errors import InputError, RunError, VidtadError, out_of_memory
from vidtad.pipelines.batches.shutdown import GRACE_S, deaf, ends_when_told, environment
from vidtad.runtime.endings import at_end
from vidtad.runtime.locks import Busy


@dataclass(frozen=True)
class Part:
    """One of `parts` time ranges of a video, from 0; they are done before the video itself, in any order."""

    path: Path
    number: int
    parts: int

    @property
    def name(self) -> str:
        """For progress bars."""
        return f"{self.path.name} {self.number + 1}/{self.parts}"

    def __str__(self) -> str:
        return str(self.path)


Item = Path | Part
ReportProgress = Callable[[int, "int | None"], None]


@runtime_checkable
class Holding(Protocol):
    """Work that may hold items back."""

    def records(self, item: "Item | None", progress: ReportProgress) -> "list[Record]":
        """Do an item (None: no other comes for now, so hold none back any more). What is over by now, in any order."""

    def close(self) -> None:
        """Give up what is held back."""


Work = Callable[[Any, ReportProgress], Any] | Holding
"""Turns an `Item` into a value; that of a `Part` is not used."""
Task = Callable[[str], Work]
"""Makes the work on a device ("cpu", "cuda:1"): loads models once, then turns items into values. Can be pickled.

One that has a method `left_out(path)` is told of an item that is given up because its workers died.
"""
Watch = Callable[[int, Item, int, "int | None"], None]
"""Called with worker, item, frames read so far and their expected number (None: unknown)."""

PROGRESS_EVERY_S = 0.2
UNWRITABLE = {
    errno.ENOSPC,
    getattr(errno, "EDQUOT", errno.ENOSPC),
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
    errno.ENOTDIR,
}
"""Reasons for a failed write that the next item meets too."""


@dataclass(frozen=True)
class Setup:
    """Who does the work. `workers` None: this process alone, or with Ray as many as the cluster has room for.

    `devices` are handed out in turn. `threads`: CPU threads of each worker (None: an equal share). `address`: of a
    Ray cluster (None: a Ray of its own on this machine). After `patience_s` seconds without any sign of life a
    worker is taken for hung. Each video is done in `ranges` parts first, for tasks that know what to do with a `Part`.
    """

    engine: str = "local"
    workers: int | None = None
    devices: tuple[str, ...] = ("cpu",)
    threads: int | None = None
    address: str | None = None
    patience_s: float = 1800.0
    ranges: int = 1


@dataclass(frozen=True)
class Record:
    """What became of the item `path`. `status` is done, failed or busy (another process has it: try later).

    `misuse`: the item itself is at fault. `fatal`: the next ones would fail alike (a full disk).
    """

    path: Any
    status: str
    value: Any = None
    error: str = ""
    seconds: float = 0.0
    misuse: bool = False
    fatal: bool = False


@dataclass(frozen=True)
class Event:
    """What a worker says: `ready`, `progress` (frames done, expected or None), `records` or `died` (why).

    `records` answer what was given, with what is over by then: without that of the item, it is held back.
    """

    worker: int
    kind: str
    content: Any = None


class Fleet(Protocol):
    """Numbered workers, from 0. Making one raises InputError or RunError when it cannot be had."""

    size: int

    def give(self, worker: int, item: Item | None) -> None:
        """Start an item on a worker that is ready and has none; None: finish what is held back."""

    def poll(self, timeout_s: float) -> list[Event]:
        """What happened since; waits for the first event, but at most this long."""

    def replace(self, worker: int) -> None:
        """A fresh worker under the same number; the old one, if it still lives, is ended."""

    def close(self) -> None:
        """End all workers, at once."""


def records(work: Work, item: Item | None, progress: ReportProgress) -> list[Record]:
    """Do one item; None ends what is held back. What is over by now."""
    if isinstance(work, Holding):
        return work.records(item, progress)
    return [] if item is None else [attempt(work, item, progress)]


def attempt(work: Callable[[Any, ReportProgress], Any], path: Item, progress: ReportProgress) -> Record:
    """Do one item. Whatever goes wrong with it becomes a record: a bad item never stops the rest."""
    begun = time.monotonic()

    def failed(sentence: str, error: BaseException) -> Record:
        status = "busy" if isinstance(error, Busy) else "failed"
        return Record(
            path,
            status,
            error=" ".join(sentence.split()),
            seconds=time.monotonic() - begun,
            misuse=isinstance(error, InputError),
            fatal=unwritable(error),
        )

    try:
        return Record(path, "done", work(path, progress), seconds=time.monotonic() - begun)
    except VidtadError as error:
        return failed(str(error), error)
    except OSError as error:
        return failed(f"{error.filename or path}: {error.strerror or error}", error)
    except Exception as error:
        if out_of_memory(error):
            return failed(f"{path}: out of memory; try a smaller --batch or fewer --workers", error)
        if os.environ.get("VIDTAD_TRACEBACK"):
            raise
        name = type(error).__name__
        return failed(f"{path}: internal error ({name}: {error}); set VIDTAD_TRACEBACK=1 to see where", error)


def unwritable(error: BaseException | None) -> bool:
    """Whether the next item would fail alike, because of where it is written (a full disk)."""
    if isinstance(error, InputError):  # reading failed
        return False
    while error is not None:
        if isinstance(error, OSError) and error.errno in UNWRITABLE:
            return True
        error = error.__cause__
    return False


class Serial:
    """One worker: this process. Items are done while they are given; progress goes straight to `watch`."""

    size = 1

    def __init__(self, task: Task, setup: Setup, watch: Watch):
        self.work, self.watch = task(setup.devices[0]), watch
        self.threads_before = use_threads(setup.threads)
        self.events = [Event(0, "ready")]

    def give(self, worker: int, item: Item | None) -> None:
        """Do the item now."""
        given = cast(Item, item)  # without one there is no progress
        found = records(self.work, item, lambda done, total: self.watch(0, given, done, total))
        self.events.append(Event(0, "records", found))

    def poll(self, timeout_s: float) -> list[Event]:
        """What happened since; never waits when there was something."""
        if not self.events:
            time.sleep(timeout_s)
        events, self.events = self.events, []
        return events

    def replace(self, worker: int) -> None:
        """Nothing to do: this process is alive."""

    def close(self) -> None:
        """Let go of what is held back, and of the limit on threads."""
        use_threads(self.threads_before)
        if isinstance(self.work, Holding):
            self.work.close()


def usable_cpus() -> int:
    """Processors this process may run on (a job scheduler may have given it fewer than there are)."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def thread_settings(threads: int) -> dict[str, str]:
    """Environment that keeps a process to so many CPU threads; what the user has set stays."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "OPENCV_FOR_THREADS_NUM")
    return {name: str(threads) for name in names if name not in os.environ}


def use_device(device: str, threads: int | None) -> None:
    """Make `device` this process's own, and see `use_threads`."""
    if device.startswith("cuda:"):
        import torch

        torch.cuda.set_device(device)
    use_threads(threads)


def use_threads(threads: int | None) -> int | None:
    """Keep PyTorch, if it is there by now, to so many CPU threads (None: as they are); how many it had if changed."""
    loaded = sys.modules.get("torch")
    if loaded is None or threads is None:
        return None
    before = loaded.get_num_threads()
    loaded.set_num_threads(threads)
    return int(before)


@dataclass
class _Worker:
    process: Any
    connection: Connection


class Pool:
    """Worker processes on this machine, each with its device and its share of the processors.

    A worker that dies is replaced without a trace in the others. Workers end with the process that started them.
    """

    def __init__(self, task: Task, setup: Setup, watch: Watch):
        self.size = setup.workers or len(setup.devices)
        self.task, self.devices = task, setup.devices
        given = os.environ.get("OMP_NUM_THREADS", "")
        share = max(1, usable_cpus() // self.size)
        self.threads = setup.threads or (int(given) if given.isdecimal() and int(given) else share)
        self.explicit = setup.threads is not None
        self.context = multiprocessing.get_context("spawn")  # fork deadlocks with threads of torch and decoders
        self.workers: dict[int, _Worker] = {}
        self.forget = at_end(self._end_all)
        try:
            for number in range(self.size):
                self.workers[number] = self._start(number)
        except OSError as error:
            self.close()
            raise RunError(f"a worker process cannot be started ({error.strerror or error})") from error

    def _start(self, number: int) -> _Worker:
        ours, theirs = self.context.Pipe()
        device = self.devices[number % len(self.devices)]
        process = self.context.Process(
            target=_serve, args=(theirs, self.task, device, self.threads), name=f"vidtad-{number}", daemon=True
        )
        settings = thread_settings(self.threads)
        if self.explicit:
            settings["OMP_NUM_THREADS"] = str(self.threads)
        with environment(settings), deaf():
            process.start()
        theirs.close()
        return _Worker(process, ours)

    def give(self, worker: int, item: Item | None) -> None:
        """Send the item; a worker that died meanwhile shows in the next `poll`."""
        with suppress(OSError):
            self.workers[worker].connection.send(item)

    def poll(self, timeout_s: float) -> list[Event]:
        """Messages of the workers, and deaths. Raises what made a worker's loading fail."""
        by_handle: dict[Any, int] = {}
        for number, one in self.workers.items():
            by_handle |= {one.connection: number, one.process.sentinel: number}
        events: list[Event] = []
        for number in sorted({by_handle[handle] for handle in wait(list(by_handle), timeout_s)}):
            events += self._heard(number)
        return events

    def _heard(self, number: int) -> Iterator[Event]:
        one = self.workers[number]
        try:
            # What a worker said before it died still counts.
            while one.connection.poll():
                kind, content = one.connection.recv()
                if kind == "broken":
                    raise content
                yield Event(number, kind, content)
            if one.process.exitcode is None:
                return
        except VidtadError:
            raise
        except Exception:  # the pipe broke, perhaps in the middle of a message
            one.process.join(timeout=5)
        code = one.process.exitcode
        self._end(self.workers.pop(number))
        reason = "stopped answering" if code is None else f"{'signal' if code < 0 else 'exit code'} {abs(code)}"
        yield Event(number, "died", reason)

    def replace(self, worker: int) -> None:
        """Start anew."""
        old = self.workers.pop(worker, None)
        if old is not None:
            self._end(old)
        self.workers[worker] = self._start(worker)

    def close(self) -> None:
        """End all: asked first, so that temporary files go, and soon made to."""
        self._end_all()
        self.forget()

    def _end_all(self) -> None:
        workers = list(self.workers.values())
        for one in workers:
            one.process.terminate()
        deadline = time.monotonic() + 4 * GRACE_S
        for one in workers:
            wait([one.process.sentinel], max(0.0, deadline - time.monotonic()))
            self._end(one)
        self.workers = {}

    def _end(self, one: _Worker) -> None:
        if one.process.is_alive():
            one.process.kill()
        if hasattr(os, "killpg"):  # with the decoders it may have started
            with suppress(OSError):
                os.killpg(one.process.pid, signal.SIGKILL)
        one.process.join(timeout=5)
        one.connection.close()


def _serve(connection: Connection, task: Task, device: str, threads: int) -> None:
    """Life of a worker process: load, then one item after another, until the pipe closes."""
    ends_when_told()
    try:
        use_device(device, None)
        work = task(device)
        use_device(device, threads)
    except VidtadError as error:
        connection.send(("broken", error))
        return
    except (OSError, MemoryError, RuntimeError) as error:
        connection.send(("broken", RunError(f"a worker on {device} cannot load the model ({error})")))
        return
    connection.send(("ready", None))
    sent = 0.0

    def progress(done: int, total: int | None) -> None:
        nonlocal sent
        if time.monotonic() - sent >= PROGRESS_EVERY_S:
            sent = time.monotonic()
            connection.send(("progress", (done, total)))

    with suppress(EOFError, OSError), closing(work) if isinstance(work, Holding) else nullcontext():
        while True:
            connection.send(("records", records(work, connection.recv(), progress)))
