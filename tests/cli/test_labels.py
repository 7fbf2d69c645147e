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


def test_check_lists_every_problem_with_its_line_and_its_fate(tmp_path: Path) -> None:
    clips, file = tmp_path / "clips", tmp_path / "x.csv"
    clips.mkdir()
    for name in "ab":
        write_clip(clips / f"{name}.mp4", numbered_frames(60), 15)
    rows = ["a,0,1,walk,train", "", "a,2,1,walk,", "b,1,2,walk,holdout", "a,3,1,wave,train", "a,1,x,walk,validation"]
    rows += ["b,1,9,wave,holdout", "gone,0,1,walk,test", "b,0,1,Ambiguous,"]
    file.write_text("\n".join(["video,start,end,label,subset", *rows]))
    listed = run("labels", "check", file, "--videos", clips).stdout
    heads = {
        line.split(" x ")[1].split("; train: ")[0]: line.split("; train: ")[1]
        for line in listed.splitlines()
        if "; train: " in line
    }
    assert heads["reversed segment"].startswith("dropped")
    assert heads["segment end that is no number"].startswith("dropped")
    assert heads["segment that ends after its video (cut)"].startswith("cut")
    assert heads["labelled video that is not there"].startswith("dropped")
    assert heads["value of `subset` that is not understood"].startswith("kept")
    assert heads["video with several values of `subset`, of which the first counts"].startswith("kept")
    assert heads["segment of Ambiguous, which is no class (left out)"].startswith("dropped")
    for line in ("  line 4: a: [2, 1]", "  line 6: a: [3, 1]", "  line 7: a: [1.0, 'x']", "  line 8: b [1, 9] wave"):
        assert line in listed
    assert "  b: holdout" in listed and "line 7: a: validation, before train" in listed
    document = json.loads(run("labels", "check", file, "--videos", clips, "--json").stdout)
    (reversed_,) = [finding for finding in document["findings"] if finding["kind"] == "reversed segment"]
    assert reversed_["train"] == "dropped" and len(reversed_["examples"]) == reversed_["count"] == 2
    assert all(
        finding["train"].split()[0].rstrip(":,") in ("dropped", "cut", "kept") for finding in document["findings"]
    )


def test_check_lists_a_long_row_of_problems_up_to_a_point(tmp_path: Path) -> None:
    file = tmp_path / "x.csv"
    file.write_text("video,start,end,label\na,0,1,walk\n" + "a,3,1,walk\n" * 120)
    listed = run("labels", "check", file).stdout
    assert listed.count("  line ") == 50 and "  and 70 more" in listed


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
