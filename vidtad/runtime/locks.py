"""One process at a time: a lock that goes with its process, however that ends."""

import errno
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO

from vidtad.errors import RunError
from vidtad.runtime.files import make_folder, passing

_TAKEN = {errno.EACCES, errno.EAGAIN, errno.EDEADLK, getattr(errno, "EWOULDBLOCK", errno.EAGAIN)}
PAUSE_S = 0.1


class Busy(RunError):
    """Another process is at work on the same thing: try again later."""


@contextmanager
def claim(path: Path, what: str = "") -> Iterator[None]:
    """Hold the lock file `path` while the block runs; the file, and a folder made for it, are gone afterwards.

    The operating system holds the lock, so one left by a killed process is free at once. Two claims exclude each
    other within a process too. Raises Busy at once when it is taken (`what` names the thing), RunError where files
    cannot be made or locked, InputError where a file is in the place of the folder.
    """
    made = not os.path.exists(path.parent)
    file = _locked(path, what)
    with passing(str(path)):
        try:
            yield
        finally:
            if os.name != "nt":
                with suppress(OSError):
                    path.unlink()
            file.close()
            if os.name == "nt":  # an open file cannot be removed there, and one that others wait for stays
                with suppress(OSError):
                    path.unlink()
            if made:
                with suppress(OSError):
                    path.parent.rmdir()


@contextmanager
def turn(path: Path) -> Iterator[None]:
    """As `claim`, but waits, however long, until nobody else holds the lock."""
    with ExitStack() as held:
        while True:
            try:
                held.enter_context(claim(path))
                break
            except Busy:
                time.sleep(PAUSE_S)
        yield


def _locked(path: Path, what: str) -> IO[bytes]:
    for _ in range(100):
        file = _opened(path)
        try:
            _lock(file)
            # The holder before may have removed the file between our opening and our locking it.
            if os.path.samestat(os.fstat(file.fileno()), os.stat(path)):
                return file
        except FileNotFoundError:
            pass
        except OSError as error:
            file.close()
            if error.errno in _TAKEN:
                raise Busy(f"{what or path}: another process is at work on it; try again when it is done") from error
            raise RunError(
                f"{path}: cannot be locked ({error.strerror or error}); choose a folder on another file system"
            ) from error
        file.close()
    raise Busy(f"{what or path}: other processes are at work on it; try again when they are done")


def _opened(path: Path) -> IO[bytes]:
    for attempt in range(20):
        try:
            make_folder(path.parent)
            return open(path, "a+b")
        except (FileNotFoundError, PermissionError) as error:
            # A neighbour removed the empty folder in between; Windows refuses files that are being removed.
            if attempt == 19 or (isinstance(error, PermissionError) and os.name != "nt"):
                raise RunError(f"{path.parent}: cannot write here ({error.strerror or error})") from error
            time.sleep(0.01)
        except OSError as error:
            raise RunError(f"{path.parent}: cannot write here ({error.strerror or error})") from error
    raise AssertionError("unreachable")


def _lock(file: IO[bytes]) -> None:
    if os.name == "nt":
        import msvcrt

        file.seek(0)
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
        return
    import fcntl

    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
