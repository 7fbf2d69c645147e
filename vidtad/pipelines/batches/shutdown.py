"""How a worker process ends before its time: soon, with what it started, and leaving no half-written file."""

import multiprocessing
import os
import signal
import socket
import sys
import threading
import time
from multiprocessing.connection import wait

from vidtad.runtime.files import remove_temporaries

GRACE_S = 0.2


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
    remove_temporaries()
    if hasattr(os, "killpg"):
        os.killpg(0, signal.SIGKILL)
    os._exit(1)
