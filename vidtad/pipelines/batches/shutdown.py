"""How a worker process begins, and how it ends before its time: soon, with what it started, nothing half-written."""

import multiprocessing
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import wait

from vidtad.runtime.endings import end_all

GRACE_S = 0.2


@contextmanager
def environment(settings: dict[str, str]) -> Iterator[None]:
    """A process that is started meanwhile finds these settings in its environment."""
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def deaf() -> Iterator[None]:
    """A process that is started meanwhile never hears Ctrl-C: it is for this one, which tells its workers."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def ends_when_told() -> None:
    """From now on this worker ends after SIGTERM, or with the process that started it; Ctrl-C is for the latter.

    Blocks are left as they should be where Python gets to run within GRACE_S: a call into a network takes longer.
    """
    if hasattr(os, "setpgid"):
        os.setpgid(0, 0)  # the decoders it may start end with it
    told, tell = socket.socketpair()
    tell.setblocking(False)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    signal.set_wakeup_fd(tell.detach(), warn_on_full_buffer=False)
    threading.Thread(target=_end, args=(told,), daemon=True).start()


def _end(told: socket.socket) -> None:
    parent = multiprocessing.parent_process()
    if told in wait([told] if parent is None else [told, parent.sentinel]):
        time.sleep(GRACE_S)
    end_all()
    if hasattr(os, "killpg"):
        os.killpg(0, signal.SIGKILL)
    os._exit(1)
