"""Workers on many machines: one Ray Core actor for each GPU or share of the processors (extra `vidtad[ray]`).

An actor holds a loaded model and has one item at a time; paths go there, small records come back. Restarts and
retries are ours, not Ray's, so that the same rules hold for every engine.
"""

import os
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from vidtad.errors import InputError, RunError, VidtadError, first_line
from vidtad.pipelines.batches.local import Event, Item, Record, Setup, Task, records, usable_cpus, use_device
from vidtad.runtime.endings import at_end, descendants

STORE_BYTES = 200 * 2**20
"""Of Ray's object store, where we start it: only paths and records travel."""
ASK_EVERY_S = 2.0
CPU_SHARE = 4
"""Processors of a worker without a GPU, when nothing else is said."""


class RayActors:
    """A fleet of actors. Connects to the cluster at `setup.address`, else starts a Ray of its own and ends it."""

    def __init__(self, task: Task, setup: Setup, watch: Callable[..., None]):
        self.ray = _import_ray()
        self.task = task
        self.actors: dict[int, Any] = {}
        joined = bool(setup.address or os.environ.get("RAY_ADDRESS")) or self.ray.is_initialized()
        self.below_before = None if joined else frozenset(descendants(os.getpid()))
        self.below: set[int] = set()
        self.forget = at_end(self._end_at_once)  # before Ray starts, which takes seconds
        try:
            self.stop_ray = _connect(self.ray, setup.address)
        except Exception:
            self.forget()
            raise
        self.awaited: dict[Any, tuple[int, str]] = {}
        self.seen: dict[int, Any] = {}
        self.asked = time.monotonic()
        try:
            nodes = [node["Resources"] for node in self.ray.nodes() if node["Alive"]]
            self.gpus = _gpus_wanted(setup.devices[0], nodes)
            self.size, self.cpus = layout(nodes, setup.workers, setup.threads, gpus=self.gpus)
            kind = self.ray.remote(_Actor)
            self.kind = kind.options(
                num_cpus=self.cpus, num_gpus=self.gpus, max_restarts=0, max_task_retries=0, max_concurrency=2
            )
            for number in range(self.size):
                self._start(number)
        except BaseException:
            self.close()
            raise

    def _start(self, number: int) -> None:
        device = "cuda:0" if self.gpus else "cpu"
        actor = self.kind.remote(self.task, device, self.cpus, os.getcwd())
        self.actors[number] = actor
        self.awaited[actor.load.remote()] = number, "load"

    def give(self, worker: int, item: Item | None) -> None:
        """Send the item."""
        self.seen[worker] = None
        self.awaited[self.actors[worker].attempt.remote(item)] = worker, "attempt"

    def poll(self, timeout_s: float) -> list[Event]:
        """Results, deaths, and every few seconds how far each item is."""
        self._ask()
        refs = list(self.awaited)
        found, _ = self.ray.wait(refs, num_returns=1, timeout=timeout_s) if refs else ([], [])
        if found:
            found, _ = self.ray.wait(refs, num_returns=len(refs), timeout=0)
        events: list[Event] = []
        for ref in found:
            # A death drops all that was awaited of that worker.
            if ref in self.awaited:
                worker, what = self.awaited.pop(ref)
                event = self._result(ref, worker, what)
                if event is not None:
                    events.append(event)
        return events

    def _ask(self) -> None:
        if time.monotonic() - self.asked < ASK_EVERY_S:
            return
        self.asked = time.monotonic()
        pending = {worker for worker, what in self.awaited.values() if what == "progress"}
        for worker in [w for w, what in self.awaited.values() if what == "attempt" and w not in pending]:
            self.awaited[self.actors[worker].progress.remote()] = worker, "progress"

    def _result(self, ref: Any, worker: int, what: str) -> Event | None:
        try:
            result = self.ray.get(ref)
        except self.ray.exceptions.RayTaskError as error:  # raised by our code, not by a death
            raise RunError(f"a Ray worker failed ({str(error.cause)[:300]})") from error
        except self.ray.exceptions.RayError as error:
            self._forget(worker)
            return Event(worker, "died", _reason(error))
        if what == "load":
            if isinstance(result, VidtadError):
                raise result
            return Event(worker, "ready")
        if what == "attempt":
            return Event(worker, "records", result)
        if result == self.seen.get(worker):  # standing still is no sign of life
            return None
        self.seen[worker] = result
        return Event(worker, "progress", result)

    def _forget(self, worker: int) -> None:
        actor = self.actors.pop(worker, None)
        self.awaited = {ref: value for ref, value in self.awaited.items() if value[0] != worker}
        if actor is not None:
            with suppress(Exception):
                self.ray.kill(actor, no_restart=True)

    def replace(self, worker: int) -> None:
        """A new actor; it begins when some node has room for it."""
        self._forget(worker)
        self._start(worker)

    def close(self) -> None:
        """End our actors, and Ray where we started or joined it."""
        self.below |= self._below()  # those of Ray that outlive their parent are nobody's any more
        self._end_actors()
        if self.stop_ray:
            self.ray.shutdown()
            self._kill()
        self.forget()

    def _end_at_once(self) -> None:
        """For a process that ends right after: Ray takes a minute to notice that."""
        self.below |= self._below()
        self._end_actors()
        self._kill()

    def _below(self) -> set[int]:
        """Processes of a Ray that we started; none of one that we joined."""
        before = self.below_before
        return set() if before is None else set(descendants(os.getpid())) - before

    def _kill(self) -> None:
        for pid in self.below:
            with suppress(OSError):
                os.kill(pid, signal.SIGKILL)

    def _end_actors(self) -> None:
        for worker in list(self.actors):
            self._forget(worker)


class _Actor:
    """Runs on some node. Two calls at a time: the work, and questions about it."""

    def __init__(self, task: Task, device: str, threads: int, folder: str):
        self.task, self.device, self.threads, self.folder = task, device, threads, folder
        self.at: tuple[int, int | None] = (0, None)
        self.lock = threading.Lock()

    def load(self) -> VidtadError | None:
        """Load the model; an error comes back as a value, with its sentence whole."""
        try:
            os.chdir(self.folder)  # relative paths mean the same everywhere
        except OSError as error:
            return InputError(
                f"{self.folder}: a node of the cluster does not have this folder ({error.strerror}); "
                "run from a folder that all nodes share"
            )
        try:
            use_device(self.device, None)
            self.work = self.task(self.device)
        except VidtadError as error:
            return error
        except (OSError, MemoryError, RuntimeError) as error:
            return RunError(f"a worker cannot load the model ({error})")
        return None

    def attempt(self, item: Item | None) -> list[Record]:
        """Do one item; None ends what is held back."""
        use_device(self.device, self.threads)  # PyTorch keeps both for each thread
        self._note(0, None)
        return records(self.work, item, self._note)

    def _note(self, done: int, total: int | None) -> None:
        with self.lock:
            self.at = done, total

    def progress(self) -> tuple[int, int | None]:
        """How far the item is."""
        with self.lock:
            return self.at


def layout(
    nodes: Sequence[Mapping[str, float]], workers: int | None, threads: int | None, *, gpus: int
) -> tuple[int, int]:
    """(workers, processors of each) that fit the nodes' resources `{"CPU": n, "GPU": m}`.

    Without a number of workers, as many as there is room for; without threads, with GPUs an equal share of their
    nodes' processors, else CPU_SHARE, or less where more workers are asked for. Raises InputError for what no
    state of these nodes can run: Ray itself would wait for ever.
    """

    def room(share: int) -> int:
        return sum(
            int(min(node.get("CPU", 0) // share, node.get("GPU", 0) // gpus if gpus else 10**9)) for node in nodes
        )

    most = int(max((node.get("CPU", 0) for node in nodes), default=0))
    if threads is not None:
        shares = [threads]
    elif gpus:
        with_gpu = [int(node.get("CPU", 0) // node["GPU"]) for node in nodes if node.get("GPU", 0) >= 1]
        shares = list(range(max(1, min(with_gpu, default=1)), 0, -1))
    else:
        shares = list(range(max(1, min(CPU_SHARE, most)), 0, -1))
    for share in shares:
        if room(share) >= (workers or 1):
            return workers or room(share), share
    kind = f"{shares[-1]} processors" + (" and a GPU" if gpus else "")
    there = "; ".join(f"{node.get('CPU', 0):g} CPU, {node.get('GPU', 0):g} GPU" for node in nodes) or "no node"
    raise InputError(
        f"--workers {workers or 1} of {kind} each do not fit the cluster, which has room for {room(shares[-1])} "
        f"({there}); ask for fewer workers or --threads"
    )


def _gpus_wanted(device: str, nodes: Sequence[Mapping[str, float]]) -> int:
    there = any(node.get("GPU", 0) >= 1 for node in nodes)
    if device == "auto":
        return int(there)
    if device == "cpu":
        return 0
    if device != "cuda":
        raise InputError(f"--device {device}: with --engine ray it is auto, cpu or cuda; Ray picks the GPU itself")
    if not there:
        raise InputError("--device cuda: no node of the Ray cluster offers a GPU")
    return 1


def _import_ray() -> Any:
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    try:
        import ray
    except ImportError as error:
        raise InputError("--engine ray needs Ray: pip install 'vidtad[ray]'") from error
    return ray


def _connect(ray: Any, address: str | None) -> bool:
    """Join or start Ray. Returns whether it is ours to leave: not when the caller had joined already."""
    if ray.is_initialized():
        return False
    quiet = {"log_to_driver": False, "logging_level": "ERROR"}
    address = address or os.environ.get("RAY_ADDRESS")
    try:
        if address:
            ray.init(address=address, **quiet)
        else:
            ray.init(num_cpus=usable_cpus(), include_dashboard=False, object_store_memory=STORE_BYTES, **quiet)
    except Exception as error:  # Ray has no common class for these
        where = f"no Ray cluster answers at {address}" if address else "Ray cannot be started here"
        raise RunError(f"{where} ({first_line(error)}); see docs/cluster.md") from error
    return True


def _reason(error: Exception) -> str:
    if "node" in type(error).__name__.lower() or "node" in str(error).lower().split("actor_id")[0]:
        return "its process or node is gone"
    return f"Ray says {type(error).__name__}"
