"""Locks: one at a time, in and between processes; free as soon as their holder is gone, however it went."""

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from vidtad.errors import InputError, RunError
from vidtad.runtime.locks import Busy, claim, turn

HOLD = """
import sys
from pathlib import Path
from vidtad.runtime.locks import claim
with claim(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def holder(path: Path) -> "subprocess.Popen[str]":
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout and process.stdout.readline() == "held\n"
    return process


def test_one_at_a_time_and_nothing_is_left(tmp_path: Path) -> None:
    path = tmp_path / "new" / ".x.lock"
    with claim(path, "the thing"), pytest.raises(Busy, match="the thing: another process"), claim(path, "the thing"):
        pass
    assert not path.parent.exists(), "a folder made for the lock goes with it"
    with claim(path):
        (path.parent / "result").touch()
    assert [found.name for found in path.parent.iterdir()] == ["result"]


def test_a_lock_goes_with_its_process(tmp_path: Path) -> None:
    path = tmp_path / ".x.lock"
    process = holder(path)
    with pytest.raises(Busy), claim(path):
        pass
    process.kill()
    process.wait()
    with claim(path):
        pass


def test_a_turn_is_waited_for(tmp_path: Path) -> None:
    path, order = tmp_path / ".x.lock", []
    process = holder(path)

    def wait() -> None:
        with turn(path):
            order.append("turn")

    waiting = threading.Thread(target=wait)
    waiting.start()
    waiting.join(0.5)
    assert order == []
    process.communicate()
    waiting.join()
    assert order == ["turn"] and not path.exists()


def test_places_where_no_lock_can_be(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="a file is in the place"), claim(tmp_path / "file" / "x.lock"):
        pass
    with pytest.raises(RunError, match="cannot write here"), turn(tmp_path / ("n" * 300) / "x.lock"):
        pass
