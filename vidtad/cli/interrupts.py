"""Ctrl-C and SIGTERM end the program within a second or so, whatever native code it is in, and its workers with it."""

import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import NoReturn

from vidtad.runtime.endings import end_all

GRACE_S = 0.5
SAID = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}
if hasattr(signal, "SIGHUP"):
    SAID[signal.SIGHUP] = "its terminal was closed"


class Ended(KeyboardInterrupt):
    """A signal other than Ctrl-C asks the program to end."""

    def __init__(self, number: int):
        super().__init__(number)
        self.number = number


def code_of(number: int) -> int:
    """The exit code after a signal, as shells count."""
    return 128 + number


CODES = {code_of(number) for number in SAID}


def sentence_of(number: int) -> str:
    """What the user is told."""
    return f"{SAID[signal.Signals(number)]}; run the same command again to go on where it stopped"


def number_of(error: KeyboardInterrupt) -> int:
    """The signal behind an interrupt."""
    return error.number if isinstance(error, Ended) else int(signal.SIGINT)


_said = threading.Lock()


def first_to_say() -> bool:
    """Whether the user has not been told yet: the main thread and the one that watches may both be about to."""
    return _said.acquire(blocking=False)


def _asked(number: int, frame: FrameType | None) -> NoReturn:
    raise Ended(number)


@contextmanager
def ends_on_interrupt() -> Iterator[None]:
    """While the block runs, a Ctrl-C that Python cannot act on within GRACE_S ends the process with exit code 130.

    So does SIGTERM with 143, and SIGHUP with 129 unless it is ignored, as under nohup. Python hears of signals between
    its own instructions only, and one call into a network takes seconds. Everything written is whole at any moment, so
    stopping there loses no more than that call; worker processes are ended first.
    """
    ours, theirs = socket.socketpair()
    ours.setblocking(True)
    theirs.setblocking(False)
    over = threading.Event()
    with suppress(RuntimeError):
        _said.release()

    def watch() -> None:
        while number := ours.recv(1):
            if number[0] in SAID and not over.wait(GRACE_S):
                if first_to_say():
                    if sys.stderr.isatty():
                        sys.stderr.write("\r\x1b[K\x1b[?25h")  # progress bars hide the cursor
                    sys.stderr.write(f"vidtad: {sentence_of(number[0])}\n")
                    sys.stderr.flush()
                end_all()
                os._exit(code_of(number[0]))

    before = signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
    others = [number for number in SAID if number != signal.SIGINT and signal.getsignal(number) is signal.SIG_DFL]
    for number in others:
        signal.signal(number, _asked)
    threading.Thread(target=watch, name="vidtad-interrupt", daemon=True).start()
    try:
        yield
    except SystemExit as end:
        if end.code in CODES:
            # A decoding thread may be in native code, from under which Python's own way out would pull the floor.
            sys.stdout.flush()
            sys.stderr.flush()
            end_all()
            os._exit(int(end.code or 0))
        raise
    finally:
        over.set()
        for number in others:
            signal.signal(number, signal.SIG_DFL)
        signal.set_wakeup_fd(before)
        theirs.close()
