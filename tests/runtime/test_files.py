"""Nothing half-written is ever seen under its final name."""

import os
from fractions import Fraction
from pathlib import Path

import pytest

from vidtad.errors import InputError, RunError
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
