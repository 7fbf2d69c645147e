"""`vidtad synth`: what it writes, that it can be repeated, and what it refuses."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from vidtad.cli import app
from vidtad.formats.reading import read_annotations


def run(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["synth", *arguments])
    return result.exit_code, result.stdout, result.stderr


def test_clips_truth_and_boxes(tmp_path: Path) -> None:
    code, said, _ = run("--videos", "2", "--level", "3", "--seed", "40", "--out", str(tmp_path))
    assert code == 0 and said.startswith("2 clips of level 3")
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "boxes.json", "ground_truth.json", "synth3_000040.mp4", "synth3_000041.mp4",
    ]  # fmt: skip
    truth = read_annotations(tmp_path / "ground_truth.json")
    assert len(truth.videos) == 2
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    code, printed, _ = run("--videos", "2", "--level", "3", "--seed", "40", "--out", str(tmp_path), "--json")
    assert code == 0 and json.loads(printed) == json.loads(before["ground_truth.json"])
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_other_clips_are_not_mixed_in(tmp_path: Path) -> None:
    assert run("--videos", "1", "--out", str(tmp_path))[0] == 0
    code, _, said = run("--videos", "1", "--level", "2", "--out", str(tmp_path))
    assert code == 2 and "synth1_000001.mp4" in said and "--overwrite" in said
    assert run("--videos", "1", "--level", "2", "--out", str(tmp_path), "--overwrite")[0] == 0
    assert "synth2_000001" in json.loads((tmp_path / "ground_truth.json").read_text())["database"]


def test_clips_of_people(tmp_path: Path) -> None:
    code, said, _ = run("--people", "--videos", "1", "--seed", "9", "--out", str(tmp_path))
    assert code == 0 and said.startswith("1 clips of people, 18 s, 18 actions")
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "boxes.json", "classes.pbtxt", "ground_truth.json", "people.csv", "people_000009.mp4",
    ]  # fmt: skip
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    code, printed, _ = run("--people", "--videos", "1", "--seed", "9", "--out", str(tmp_path), "--json")
    assert code == 0 and json.loads(printed) == json.loads(before["ground_truth.json"])
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    code, _, said = run("--videos", "1", "--out", str(tmp_path))
    assert code == 2 and "people_000009.mp4" in said


@pytest.mark.parametrize("wrong", [["--level", "7"], ["--videos", "0"], ["--seed", "-1"], ["--people", "--level", "2"]])
def test_misuse(tmp_path: Path, wrong: list[str]) -> None:
    code, _, said = run(*wrong, "--out", str(tmp_path / "clips"))
    assert code == 2 and said and not (tmp_path / "clips").exists()


def test_seeds_of_training_clips_may_be_trained_on(tmp_path: Path) -> None:
    """Nothing is trained on a subset called test, so clips to train on must not say so."""
    for options, seed, wanted in (
        ("", "99999", "test"),
        ("", "100000", "training"),
        ("--people", "100000", "training"),
    ):
        folder = tmp_path / f"{seed}{options}"
        result = CliRunner().invoke(
            app, ["synth", "--out", str(folder), "--videos", "1", "--seed", seed, *options.split()]
        )
        assert result.exit_code == 0, result.stderr
        (clip,) = json.loads((folder / "ground_truth.json").read_text())["database"].values()
        assert clip["subset"] == wanted
