"""Tasks for batches in tests: what an item does stands in its file. Importable by worker processes."""

import ctypes
import errno
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from vidtad.errors import InputError, RunError
from vidtad.pipelines.batches.local import Item, Part
from vidtad.pipelines.claims import forget
from vidtad.runtime.files import write_text
from vidtad.runtime.locks import claim


@dataclass(frozen=True)
class Toy:
    """Writes `<out>/<stem>.txt`, or fails as the item's text says; notes every start in `<out>/log`.

    Of the parts of an item, noted in `<out>/parts`, the second does what the text says.
    """

    out: Path
    refuses: bool = False
    dies_at_birth: bool = False

    def left_out(self, path: Path) -> None:
        forget(self.out, path)

    def __call__(self, device: str):
        if self.refuses:
            raise InputError("no such model")
        if self.dies_at_birth:
            os.kill(os.getpid(), signal.SIGKILL)

        def work(item: Item, progress) -> str:
            if isinstance(item, Part):
                with open(self.out / "parts", "a") as log:
                    log.write(f"{item.path.name} {item.number}\n")
                if item.number == 1:
                    obey(item.path.read_text().strip(), self.out / f"{item.path.stem}.died", progress)
                return "a part"
            path = item
            with open(self.out / "log", "a") as log:
                log.write(f"{path.name} {os.getpid()}\n")
            with claim(self.out / f".{path.stem}.lock"):
                obey(path.read_text().strip(), self.out / f"{path.stem}.died", progress)
                write_text(self.out / f"{path.stem}.txt", f"{path.stem} done")
            return f"{path.stem} on {device}"

        return work


def obey(order: str, marker: Path, progress) -> None:
    if order == "bad":
        raise InputError("a bad item")
    if order == "bug":
        raise ZeroDivisionError("in our code")
    if order == "full":
        raise RunError("no room") from OSError(errno.ENOSPC, "No space left on device")
    if order == "die" or (order == "die once" and not marker.exists()):
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    if order == "deaf":  # in native code that keeps the interpreter's lock
        marker.touch()
        ctypes.PyDLL(None).sleep(3600)
    if order == "hang":
        time.sleep(3600)
    if order.startswith("slow"):
        for step in range(int(order.split()[1])):
            time.sleep(0.1)
            progress(step, None)


def items(folder: Path, orders: dict[str, str]) -> list[Path]:
    """A file for each name with its order in it, one byte longer than the next, so that they run in this order."""
    folder.mkdir(exist_ok=True)
    for number, (name, order) in enumerate(orders.items()):
        (folder / name).write_text(order + " " * (100 - number - len(order)))
    return [folder / name for name in orders]


def starts(out: Path) -> list[str]:
    """Names of the items in the order they were begun."""
    return [line.split()[0] for line in (out / "log").read_text().splitlines()]
