"""What has to go with this process however it ends: half-written files, and the processes it has started."""

import os
import shutil
import stat
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import IO

from vidtad.errors import RunError
from vidtad.runtime.files import lock_file, machine, remove_temporaries

PATIENCE_S = 1.0
_callbacks: dict[int, Callable[[], object]] = {}
_numbers = count()


def at_end(callback: Callable[[], object]) -> Callable[[], None]:
    """Have `callback` called by `end_all`, in a thread of its own; returns a function that takes that back."""
    number = next(_numbers)
    _callbacks[number] = callback

    def forget() -> None:
        _callbacks.pop(number, None)

    return forget


def end_all() -> None:
    """End what was started, which may take up to PATIENCE_S, and remove what is half-written.

    For a process that ends right after, whatever its other threads are doing.
    """

    def run(callback: Callable[[], object]) -> None:
        with suppress(Exception):
            callback()

    threads = [threading.Thread(target=run, args=(one,), daemon=True) for one in list(_callbacks.values())]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + PATIENCE_S
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    remove_temporaries()


def descendants(pid: int) -> list[int]:
    """Processes that `pid` has started, and those have started, on Linux; elsewhere none."""
    parents: dict[int, int] = {}
    for file in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError, ValueError, IndexError):
            parents[int(file.parent.name)] = int(file.read_text(errors="replace").rpartition(")")[2].split()[1])
    found, more = [], [pid]
    while more:
        more = [child for child, parent in parents.items() if parent in more]
        found += more
    return found


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """An empty folder among the temporary files of this machine while the block runs.

    Those that dead processes left are removed first. Raises RunError when none can be made.
    """
    root = Path(tempfile.gettempdir())
    _remove_dead_folders(root)
    try:
        place, lock = _locked_folder(root)
        inside = place / "files"
        inside.mkdir()
    except OSError as error:
        raise RunError(f"{root}: no temporary folder can be made here ({error.strerror or error})") from error
    forget = at_end(lambda: shutil.rmtree(place, ignore_errors=True))
    try:
        yield inside
    finally:
        forget()
        shutil.rmtree(place, ignore_errors=True)
        lock.close()
        shutil.rmtree(place, ignore_errors=True)  # where open files cannot be removed


def _locked_folder(root: Path) -> tuple[Path, IO[bytes]]:
    while True:
        place = Path(tempfile.mkdtemp(prefix=f"vidtad-{machine()}-", dir=root))
        file = open(place / "lock", "w+b")  # noqa: SIM115 (open as long as the folder is in use)
        if lock_file(file.fileno()) is not False and (place / "lock").exists():
            return place, file
        file.close()  # another process has just taken it for a dead one's


def _remove_dead_folders(root: Path) -> None:
    for place in root.glob(f"vidtad-{machine()}-*"):
        with suppress(OSError):
            found = place.lstat()
            if not stat.S_ISDIR(found.st_mode) or (hasattr(os, "getuid") and found.st_uid != os.getuid()):
                continue
            with open(place / "lock", "r+b") as file:
                dead = lock_file(file.fileno()) is True
                if dead:
                    shutil.rmtree(place, ignore_errors=True)
