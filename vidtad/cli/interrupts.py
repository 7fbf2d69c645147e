"""Ctrl-C ends the program within a second, whatever native code it is in."""

import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from vidtad.runtime.files import remove_temporaries

GRACE_S = 0.5
INTERRUPTED = 130


@contextmanager
def ends_on_interrupt() -> Iterator[None]:
    """While the block runs, a Ctrl-C that Python cannot act on within GRACE_S ends the process with exit code 130.

    Python hears of signals between its own instructions only, and one call into a network takes seconds. Everything
    written is whole at any moment, so stopping there loses no more than that call; worker processes notice.
    """
    ours, theirs = socket.socketpair()
    ours.setblocking(True)
    theirs.setblocking(False)
    over = threading.Event()

    def watch() -> None:
        while number := ours.recv(1):
            if number[0] == signal.SIGINT and not over.wait(GRACE_S):
                if sys.stderr.isatty():
                    sys.stderr.write("\r\x1b[K\x1b[?25h")  # progress bars hide the cursor
                sys.stderr.write("vidtad: interrupted; run the same command again to go on where it stopped\n")
                sys.stderr.flush()
                remove_temporaries()
                os._exit(INTERRUPTED)

    before = signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
    threading.Thread(target=watch, name="vidtad-interrupt", daemon=True).start()
    try:
        yield
    except SystemExit as end:
        if end.code == INTERRUPTED:
            # A decoding thread may be in native code, from under which Python's own way out would pull the floor.
            sys.stdout.flush()
            sys.stderr.flush()
            remove_temporaries()
            os._exit(INTERRUPTED)
        raise
    finally:
        over.set()
        signal.set_wakeup_fd(before)
        theirs.close()
