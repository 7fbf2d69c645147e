"""`vidtad ensemble`: segments of several detectors, people with the same boxes, class scores of whole videos."""

import csv
import json
from fractions import Fraction
from pathlib import Path

import pytest

from tests.cli.test_detect import run
from vidtad.timeline import PersonBox, Segment, Timeline, read_timeline, write_timeline_json
from vidtad.video import VideoInfo

INFO = VideoInfo("a.mp4", 100, 100, Fraction(25), 60.0, 1500)
BOX = (0.1, 0.1, 0.4, 0.9)


def segments(path: Path, *found: tuple[float, float, str, float], video: str = "a") -> Path:
    timeline = Timeline({video: tuple(Segment(*s) for s in found)}, {video: INFO}, {"name": path.stem, "warnings": []})
    write_timeline_json(timeline, path)
    return path


def people(path: Path, run_score: float, sit_score: float, box: tuple[float, ...] = BOX) -> Path:
    actions = (("run", run_score), ("sit", sit_score))
    rows = tuple(PersonBox(float(second), 0, box, 0.9, actions) for second in range(3))  # type: ignore[arg-type]
    detector = {"name": path.stem, "classes": ["run", "sit"], "keyframes": {"every_s": 1.0}, "warnings": []}
    write_timeline_json(Timeline({"a": ()}, {"a": INFO}, detector, {"a": rows}), path)
    return path


def test_segments_by_weight(tmp_path: Path) -> None:
    one = segments(tmp_path / "one.json", (1, 5, "run", 0.9), (10, 12, "sit", 0.5))
    two = segments(tmp_path / "two.json", (1, 5, "run", 0.6), (20, 22, "run", 0.4))
    result = run("ensemble", one, two, "--weight", 1, "--weight", 0.5, "--out", tmp_path / "both")
    assert result.exit_code == 0, result.stderr
    assert result.stdout.startswith("1 video, 4 segments: ")
    joint = read_timeline(tmp_path / "both" / "a.json")
    assert [(s.start_s, s.label, round(s.score, 3)) for s in joint.results["a"]][:3] == [
        (1, "run", 0.9), (10, "sit", 0.5), (20, "run", 0.2),
    ]  # fmt: skip
    assert [d["name"] for d in joint.detector["ensemble"]] == ["one", "two"]
    assert len(list(csv.DictReader((tmp_path / "both" / "a.csv").open()))) == 4


def test_folders_of_many_videos_into_one_file(tmp_path: Path) -> None:
    for folder, score in (("one", 0.8), ("two", 0.4)):
        for video in "ab":
            segments(tmp_path / folder / f"{video}.json", (1, 5, "run", score), video=video)
    command = ("ensemble", tmp_path / "one", tmp_path / "two", "--out", tmp_path / "joint.json", "--json")
    result = run(*command)
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["results"] == json.loads((tmp_path / "joint.json").read_text())["results"]
    assert set(read_timeline(tmp_path / "joint.json").results) == {"a", "b"}


def ap_file(path: Path, **ap: float | None) -> Path:
    path.write_text(json.dumps({"protocol": "ava", "ap": {name.replace("_", " "): [v] for name, v in ap.items()}}))
    return path


def test_people_by_their_ap(tmp_path: Path) -> None:
    one, two = people(tmp_path / "one.json", 0.8, 0.2), people(tmp_path / "two.json", 0.4, 0.9)
    ap = ap_file(tmp_path / "1.json", run=0.3, sit=0.1), ap_file(tmp_path / "2.json", **{"1_run": 0.1, "2": 0.3})
    result = run("ensemble", one, two, "--ap", ap[0], "--ap", ap[1], "--out", tmp_path / "both")
    assert result.exit_code == 0, result.stderr
    joint = read_timeline(tmp_path / "both" / "a.json")
    assert dict(joint.people["a"][0].actions) == pytest.approx({"run": 0.7, "sit": 0.725})
    assert {(s.label, s.start_s, s.end_s, s.track) for s in joint.results["a"]} == {
        ("run", 0, 2.5, 0), ("sit", 0, 2.5, 0),
    }  # fmt: skip
    alike = run("ensemble", one, two, "--out", "x", "--weight", 3, "--weight", 1, "--out", tmp_path / "fixed")
    assert alike.exit_code == 0, alike.stderr
    weighted = dict(read_timeline(tmp_path / "fixed" / "a.json").people["a"][0].actions)
    assert weighted == pytest.approx({"run": 0.7, "sit": 0.375})


@pytest.mark.parametrize("named", [False, True])
def test_segments_meet_the_classes_of_their_video(named: bool, tmp_path: Path) -> None:
    source = segments(tmp_path / "a.json", (1, 2, "action", 0.8))
    scores: dict[str, object] = {"a": [0.1, 0.6, 0.3]}
    names = ["run", "jump", "sit"]
    (tmp_path / "scores.json").write_text(json.dumps(scores if named else {"class": names, "results": scores}))
    (tmp_path / "names.txt").write_text("\n".join(names) + "\n")
    more = ("--class-names", tmp_path / "names.txt") if named else ()
    result = run("ensemble", source, "--video-scores", tmp_path / "scores.json", *more, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.stderr
    found = read_timeline(tmp_path / "out" / "a.json").results["a"]
    assert [(s.label, s.score**2) for s in found] == [("jump", pytest.approx(0.48)), ("sit", pytest.approx(0.24))]


def test_misuse_is_one_sentence(tmp_path: Path) -> None:
    one, two = segments(tmp_path / "one.json", (1, 2, "run", 0.5)), segments(tmp_path / "two.json", (1, 2, "run", 0.5))
    who = people(tmp_path / "who.json", 0.5, 0.5)
    moved = people(tmp_path / "moved.json", 0.5, 0.5, box=(0.5, 0.1, 0.9, 0.9))
    ap = ap_file(tmp_path / "ap.json", jump=0.5)
    for arguments, said in (
        ((one,), "at least two"),
        ((one, tmp_path / "nope.json"), "nope.json: no such file"),
        ((one, who), "some have none"),
        ((one, two, "--weight", 1), "give one for each"),
        ((one, two, "--weight", 0, "--weight", 0), "one of them above"),
        ((who, who, "--weight", -1, "--weight", 2), "at least 0"),
        ((one, two, "--ap", ap, "--ap", ap), "give weights for these"),
        ((who, who, "--ap", ap, "--ap", ap), "none of the detector's classes (run, sit)"),
        ((who, who, "--ap", one, "--ap", one), "expected what `vidtad evaluate --json` prints"),
        ((who, moved), "run all models with the same --boxes file"),
        ((one, two, "--class-names", ap), "give these too"),
        ((one, two, "--out", tmp_path / "one.json"), "choose another place"),
    ):
        result = run("ensemble", *arguments, *(() if "--out" in arguments else ("--out", tmp_path / "out")))
        assert (result.exit_code, result.stdout) == (2, ""), (arguments, result.output)
        assert said in result.stderr and len(result.stderr.splitlines()) == 1, result.stderr
    assert not (tmp_path / "out").exists() and read_timeline(one).detector["name"] == "one"
