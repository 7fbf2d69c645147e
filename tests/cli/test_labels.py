"""`vidtad labels`: what is wrong with label files, and the same labels as ActivityNet JSON."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from tests.clips import numbered_frames, write_clip
from vidtad.cli import app


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_check_reports_and_strict_fails(tmp_path: Path) -> None:
    clips, file = tmp_path / "clips", tmp_path / "x.csv"
    clips.mkdir()
    write_clip(clips / "a.mp4", numbered_frames(60), 15)
    head = "video,start,end,label\na,1,2,walk\n"
    file.write_text(head)
    clean = run("labels", "check", file, "--videos", clips, "--strict")
    assert clean.exit_code == 0 and "problem" not in clean.stdout and "walk" in clean.stdout
    file.write_text(f"{head}a,2,90,walk\na,3,1,walk\ngone,0,1,walk\n")
    report = run("labels", "check", file, "--videos", clips)
    assert report.exit_code == 0 and report.stdout.count("problem:") == 3
    assert run("labels", "check", file, "--videos", clips, "--strict").exit_code == 2
    document = json.loads(run("labels", "check", file, "--videos", clips, "--json").stdout)
    assert document["videos"] == 2 and document["videos_found"] == 1


def test_convert_writes_activitynet(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("video,start,end,label\na,1,2,walk\n")
    result = run("labels", "convert", tmp_path / "x.csv", "--out", tmp_path / "x.json")
    assert result.exit_code == 0
    document = json.loads((tmp_path / "x.json").read_text())
    assert document["database"]["a"]["annotations"] == [{"label": "walk", "segment": [1.0, 2.0]}]


@pytest.mark.parametrize("command", ["check", "convert"])
def test_help_has_an_example(command: str) -> None:
    result = run("labels", command, "--help")
    assert result.exit_code == 0 and "Example: vidtad" in " ".join(result.stdout.split())
