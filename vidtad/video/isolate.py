"""Decoding in a process of its own, so that a hang or crash inside a decoder costs one video, not the batch."""

import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from vidtad.errors import InputError, RunError
from vidtad.runtime.endings import at_end
from vidtad.video.backends import ArrayPicture
from vidtad.video.header import Promise
from vidtad.video.types import Damage, Decoded

# Seconds without a new frame after which the child is taken for hung.
PATIENCE_S = 60.0
FRAMES_WAITING = 2


class IsolatedDecoder:
    """A decoder run in a child process. Raises RunError when the child dies or stands still for `patience_s`."""

    def __init__(
        self,
        path: str | Path,
        promise: Promise,
        *,
        name: str,
        fps: Fraction | None = None,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self.path, self.name, self.patience_s = path, name, patience_s
        self.time_base = promise.time_base
        self.damage = Damage()
        command = [sys.executable, "-m", "vidtad.video.child", name, str(path), str(fps or "")]
        # The child must find this very package, installed or not.
        paths = [str(Path(__file__).parents[2]), *filter(None, sys.path)]
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
        )
        self._forget = at_end(self.process.kill)
        self._messages: queue.Queue[tuple[dict[str, Any], bytes] | None] = queue.Queue(FRAMES_WAITING)
        self._closed = threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        pipe = self.process.stdout
        assert pipe is not None
        while not self._closed.is_set():
            line = pipe.readline()
            message = json.loads(line) if line.endswith(b"\n") else None
            pixels = b""
            if message and "ticks" in message:
                size = message["height"] * message["width"] * 3
                pixels = pipe.read(size)
                message = message if len(pixels) == size else None
            if not self._put(None if message is None else (message, pixels)) or message is None:
                return

    def _put(self, item: tuple[dict[str, Any], bytes] | None) -> bool:
        while not self._closed.is_set():
            with suppress(queue.Full):
                self._messages.put(item, timeout=0.2)
                return True
        return False

    def decode(self) -> Iterator[Decoded]:
        """Every frame once, in presentation order, upright."""
        count = 0
        while True:
            try:
                item = self._messages.get(timeout=self.patience_s)
            except queue.Empty:
                self.close()
                raise RunError(
                    f"{self.path}: decoder {self.name} gave no frame for {self.patience_s:g} s after "
                    f"frame {count} and was stopped; try another --decoder"
                ) from None
            if item is None:
                code = self.process.wait()
                raise RunError(
                    f"{self.path}: the process of decoder {self.name} died after frame {count} "
                    f"({'signal' if code < 0 else 'exit code'} {abs(code)}); try another --decoder"
                )
            message, pixels = item
            if "error" in message:
                raise InputError(message["error"])
            self.damage.failures, self.damage.first_lost = message["failures"], message["first_lost"]
            if "end" in message:
                return
            height, width = message["height"], message["width"]
            picture = ArrayPicture(np.frombuffer(pixels, np.uint8).reshape(height, width, 3))
            count += 1
            yield Decoded(message["ticks"], message["duration"], height, width, picture, message["damaged"])

    def close(self) -> None:
        """End the child."""
        self._closed.set()
        self._forget()
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._reader.join(timeout=5)
        if self.process.stdout is not None and not self._reader.is_alive():
            self.process.stdout.close()
