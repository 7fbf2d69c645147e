"""Nothing half-written is ever seen under its final name."""

import errno
import gc
import os
import subprocess
import sys
import time
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import BinaryIO

import numpy as np
import pytest

from vidtad.errors import InputError, RunError
from vidtad.runtime import files
from vidtad.runtime.files import atomic_write, brief, fraction_of, read_json, sha256, write_json


def test_an_error_leaves_the_old_file_and_no_temporary(tmp_path: Path) -> None:
    path = tmp_path / "out.json"
    write_json(path, {"a": 1})
    with pytest.raises(KeyError), atomic_write(path) as file:
        file.write(b"half")
        raise KeyError
    assert read_json(path) == {"a": 1}
    assert os.listdir(tmp_path) == ["out.json"]


@pytest.mark.parametrize("letter", ["n", "é", "漢", "\U0001f600", "\udcff"])
def test_any_name_the_file_system_takes_can_be_written(tmp_path: Path, letter: str) -> None:
    path = tmp_path / (letter * (250 // len(os.fsencode(letter))) + ".json")
    path.touch()
    write_json(path, 1)
    assert os.listdir(tmp_path) == [path.name] and read_json(path) == 1


def test_brief_names_are_short_and_distinct() -> None:
    names = ["a" * 200, "漢" * 70 + "1", "漢" * 70 + "2", "\ud800" * 99]
    short = [brief(name) for name in names]
    assert short[0] == names[0] and len(set(short)) == 4
    assert all(len(name.encode()) <= 200 for name in short)


def test_rates_are_exact_and_cost_nothing() -> None:
    assert [fraction_of(text) for text in ("25", "29.97", "30000/1001", 25, 0.5)] == [
        25, Fraction(2997, 100), Fraction(30000, 1001), 25, Fraction(1, 2),
    ]  # fmt: skip
    for text in ("1e999999999", "1E-999999999", "9" * 100_000, "x", "1/0", None, "", float("inf")):
        with pytest.raises((ValueError, TypeError, ArithmeticError)):
            fraction_of(text)


def test_nan_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError):
        write_json(tmp_path / "x.json", {"score": float("nan")})
    assert not list(tmp_path.iterdir())


def test_new_files_have_the_usual_mode(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    write_json(tmp_path / "ours", 1)
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_file_in_the_way_of_a_folder_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for folder in ("file", "file/below"):
        with pytest.raises(InputError, match=f"{folder}: a file is in the place"):
            write_json(tmp_path / folder / "x.json", 1)


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="cannot write here"):
        write_json(tmp_path / ("n" * 300) / "x.json", 1)


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe\x00", b"", b"[" * 100_000])
def test_broken_json_is_an_input_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"x\.json: not"):
        read_json(path)


def test_sha256_of_known_bytes(tmp_path: Path) -> None:
    (tmp_path / "abc").write_bytes(b"abc")
    assert sha256(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_text_that_is_no_text_is_written_as_json_would(tmp_path: Path) -> None:
    name = b"caf\xe9 \xf0".decode(errors="surrogateescape")  # a file name of another encoding, as Python reads it
    write_json(tmp_path / "x.json", {"path": name, "label": "\ud800 ä"})
    assert read_json(tmp_path / "x.json") == {"path": name, "label": "\ud800 ä"}
    assert "ä".encode() in (tmp_path / "x.json").read_bytes()


HALF = """
import sys
from pathlib import Path
from vidtad.runtime.files import atomic_write
with atomic_write(Path(sys.argv[1])) as file:
    file.write(b"half")
    file.flush()
    print("begun", flush=True)
    sys.stdin.read()
"""
POSIX = pytest.mark.skipif(os.name == "nt", reason="files are locked by being open there")


def writer(path: Path) -> "subprocess.Popen[str]":
    process = subprocess.Popen(
        [sys.executable, "-c", HALF, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout and process.stdout.readline() == "begun\n"
    return process


@POSIX
def test_the_next_write_removes_what_a_dead_one_left_and_never_a_live_ones(tmp_path: Path) -> None:
    dead, live = writer(tmp_path / "a.json"), writer(tmp_path / "b.json")
    dead.kill()
    dead.wait()
    assert len(list(tmp_path.glob(".*.tmp"))) == 2
    write_json(tmp_path / "c.json", 1)
    (left,) = tmp_path.glob(".*.tmp")
    assert left.name.startswith(".b.json.") and left.read_bytes() == b"half"
    live.communicate()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b.json", "c.json"]


@POSIX
def test_another_machines_are_left_for_a_day(tmp_path: Path) -> None:
    def temporary(name: str, hours: float) -> Path:
        path = tmp_path / name
        path.write_bytes(b"half")
        os.utime(path, (time.time() - 3600 * hours,) * 2)
        return path

    ours = temporary(f".x.json.{files.machine()}-abcdefgh.tmp", 0)
    young = temporary(".x.json.00000000-abcdefgh.tmp", 2)
    old = temporary(".y.json.00000000-abcdefgh.tmp", 30)
    foreign = temporary(".z.json.abcdefgh.tmp", 1000)
    files.remove_dead(tmp_path)
    assert [path.exists() for path in (ours, young, old, foreign)] == [False, True, False, True]
    files.remove_dead(tmp_path, ["x.json"])
    assert not young.exists(), "who alone writes a file may remove what is left of it"


@POSIX
def test_a_file_that_is_taken_for_dead_before_it_is_locked_costs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock, stolen = files.lock_file, []

    def late(descriptor: int) -> bool | None:
        if not stolen:
            stolen.extend(tmp_path.glob(".*.tmp"))
            stolen[0].unlink()
        return lock(descriptor)

    monkeypatch.setattr(files, "lock_file", late)
    write_json(tmp_path / "x.json", 1)
    assert stolen and os.listdir(tmp_path) == ["x.json"]


def full(*arguments: object) -> int:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def write_torch(file: BinaryIO) -> None:
    import torch

    torch.save({"x": torch.zeros(10)}, file)


def write_numpy(file: BinaryIO) -> None:
    np.save(file, np.zeros(10))


def write_film(file: BinaryIO) -> None:
    import av

    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width = stream.height = 64
        for packet in stream.encode(av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8))):
            container.mux(packet)
        container.mux(stream.encode(None))


def swallow(file: BinaryIO) -> None:
    with suppress(OSError):
        file.write(b"x")


@pytest.mark.parametrize("write", [write_torch, write_numpy, write_film, swallow])
def test_a_full_disk_is_one_sentence_whatever_a_library_makes_of_it(
    tmp_path: Path, write, monkeypatch: pytest.MonkeyPatch
) -> None:
    with atomic_write(tmp_path / "x") as file:
        write(file)
    whole = (tmp_path / "x").read_bytes()
    assert whole
    own = files._Writing.__init__

    def filled(self: files._Writing, raw: BinaryIO) -> None:
        names = ("seek", "tell", "flush", "closed", "fileno", "read")
        own(self, SimpleNamespace(write=full, **{name: getattr(raw, name) for name in names}))

    monkeypatch.setattr(files._Writing, "__init__", filled)
    sentence = r"x: writing failed \(No space left on device\)"
    with pytest.raises(RunError, match=sentence) as caught, atomic_write(tmp_path / "x") as file:
        write(file)
    assert isinstance(caught.value.__cause__, OSError) and caught.value.__cause__.errno == errno.ENOSPC
    assert os.listdir(tmp_path) == ["x"] and (tmp_path / "x").read_bytes() == whole


def test_what_is_gone_is_said(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", 1)
    files.still_there([tmp_path / "a.json"])
    with pytest.raises(RunError, match=r"b\.json: was written and is gone"):
        files.still_there([tmp_path / "a.json", tmp_path / "b.json"])


def test_a_failed_write_leaves_nothing_to_say_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python 3.13 says what fails when an object is dropped; earlier versions keep silent."""
    heard: list[object] = []
    monkeypatch.setattr("sys.unraisablehook", heard.append)
    with pytest.raises(ZeroDivisionError), files.atomic_write(tmp_path / "a") as file:
        file.write(b"x")
        raise ZeroDivisionError
    del file
    gc.collect()
    assert not heard
