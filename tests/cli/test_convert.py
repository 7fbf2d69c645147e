"""`vidtad convert` and the text timeline."""

import json
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest
from rich.cells import cell_len
from typer.testing import CliRunner, Result

from tests.clips import VFR_PTS, numbered_frames, write_clip
from tests.formats.timelines import overlapping, video
from vidtad.cli import app
from vidtad.cli.terminal_timeline import render
from vidtad.timeline import Segment, Timeline, write_timeline_json


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def source(tmp_path: Path) -> Path:
    write_timeline_json(overlapping(), tmp_path / "match.json")
    return tmp_path / "match.json"


def test_several_formats_at_once(source: Path, tmp_path: Path) -> None:
    result = run("convert", source, "--to", "srt,eaf", "--to", "boris", "--out", tmp_path / "o", "--min-score", 0.75)
    assert result.exit_code == 0, result.stderr
    assert sorted(path.name for path in (tmp_path / "o").iterdir()) == ["match.boris.tsv", "match.eaf", "match.srt"]
    assert "run" not in (tmp_path / "o/match.srt").read_text() and len(result.stdout.splitlines()) == 3


def test_one_file_by_name_and_back(source: Path, tmp_path: Path) -> None:
    result = run("convert", source, "--to", "elan", "--out", tmp_path / "x.eaf", "--json")
    assert json.loads(result.stdout) == {"written": [str(tmp_path / "x.eaf")]}
    assert run("convert", tmp_path / "x.eaf", "--to", "annotations", "--out", tmp_path / "gt.json").exit_code == 0
    truth = json.loads((tmp_path / "gt.json").read_text())["database"]["match"]["annotations"]
    assert sorted(row["label"] for row in truth) == sorted(s.label for s in overlapping().results["match"])


def test_a_folder_of_timelines_becomes_one_file(source: Path, tmp_path: Path) -> None:
    other = Timeline({"b": (Segment(1, 2, "hop", 0.5),)}, {"b": video("b")}, {"name": "test"})
    write_timeline_json(other, tmp_path / "b.json")
    (tmp_path / "summary.json").write_text("{}")
    assert run("convert", tmp_path, "--to", "csv", "--out", tmp_path / "all.csv").exit_code == 0
    assert len((tmp_path / "all.csv").read_text().splitlines()) == 1 + 5


def test_a_varying_rate_is_read_from_the_video(tmp_path: Path) -> None:
    """Frame k of the clip is shown at VFR_PTS[k] ms, and CVAT gets that k."""
    clip = write_clip(tmp_path / "vfr.mp4", numbered_frames(60), 30, pts=VFR_PTS, time_base=Fraction(1, 1000))
    found = (Segment(VFR_PTS[31] / 1000, VFR_PTS[44] / 1000, "jump", 0.5),)
    info = replace(video("vfr"), path=str(tmp_path / "moved.mp4"), constant_rate=False)
    write_timeline_json(Timeline({"vfr": found}, {"vfr": info}, {}), tmp_path / "vfr.json")
    refused = run("convert", tmp_path / "vfr.json", "--to", "cvat")
    assert refused.exit_code == 2 and "--video" in refused.stderr
    result = run("convert", tmp_path / "vfr.json", "--to", "cvat", "--video", clip)
    assert result.exit_code == 0, result.stderr
    text = (tmp_path / "vfr.cvat.xml").read_text()
    assert 'frame="31" outside="0"' in text and 'frame="44" outside="1"' in text
    back = run("convert", tmp_path / "vfr.cvat.xml", "--to", "csv", "--video", clip, "--out", tmp_path / "back.csv")
    assert back.exit_code == 0, back.stderr
    start, end = (tmp_path / "back.csv").read_text().splitlines()[1].split(",")[1:3]
    assert (float(start), float(end)) == (VFR_PTS[31] / 1000, VFR_PTS[44] / 1000)


def test_mistakes_are_one_sentence(source: Path, tmp_path: Path) -> None:
    for arguments, said in (
        ((source, "--to", "elann"), "did you mean elan"),
        ((source, "--to", "ava"), "person boxes"),
        ((source, "--to", "srt,vtt", "--out", tmp_path / "a.srt"), "one format"),
        ((tmp_path / "none.json", "--to", "srt"), "no such file"),
    ):
        result = run("convert", *arguments)
        assert result.exit_code == 2 and said in result.stderr and len(result.stderr.splitlines()) == 1


def test_what_is_read_is_never_written_over(source: Path, tmp_path: Path) -> None:
    run("convert", source, "--to", "csv,srt", "--out", tmp_path / "made")
    rows, labels = next((tmp_path / "made").glob("*.csv")), tmp_path / "gt.json"
    truth = {"database": {"v": {"subset": "train", "annotations": [{"label": "a", "segment": [0, 1], "by": "me"}]}}}
    labels.write_text(json.dumps(truth))
    for arguments, file in (
        (("convert", source, "--to", "srt", "--out", source), source),
        (("convert", rows, "--to", "csv", "--min-score", 0.9), rows),
        (("convert", source.parent, "--to", "csv", "--out", source), source),
        (("labels", "convert", labels, "--out", labels), labels),
    ):
        before = file.read_bytes()
        result = run(*arguments)
        assert result.exit_code == 2 and "is what is read here" in result.stderr, result.output
        assert file.read_bytes() == before


@pytest.mark.parametrize("command", [("convert", "--to", "srt"), ("overlay",), ("clips",), ("report",)])
def test_a_score_that_is_no_number(command: tuple[str, ...], source: Path) -> None:
    result = run(command[0], source, *command[1:], "--min-score", "nan")
    assert result.exit_code == 2 and "--min-score nan: not a finite number" in result.stderr


@pytest.mark.parametrize("width", [40, 80, 200])
@pytest.mark.parametrize("ascii_only", [False, True])
def test_text_timeline_fits_and_shows_where(width: int, ascii_only: bool) -> None:
    lines = [line.plain for line in render(overlapping(), width, 0.0, ascii_only=ascii_only)]
    assert max(map(cell_len, lines)) <= width
    assert all(line.isascii() for line in lines) or not ascii_only
    walk = next(line for line in lines if line.lstrip().startswith("walk"))
    bar = walk[len(walk) - (width - walk.index("|" if ascii_only else "▕") - 2) :]
    filled = [number / len(bar) * 60 for number, cell in enumerate(bar) if cell != " "]
    assert abs(min(filled) - 10) < 3 and abs(max(filled) - 30) < 3
    assert sum("walk" in line for line in lines) == 1, "one lane a class, overlaps joined"


def test_text_timeline_threshold_and_short_segments() -> None:
    nothing = render(overlapping(), 80, 0.95)
    assert len(nothing) == 1 and "nothing scores" in nothing[0].plain
    long = Timeline({"v": (Segment(5000, 5000.1, "hop", 0.9),)}, {"v": video("v", duration_s=10800.0)}, {})
    assert any(cell in "▏▎▍▌▋▊▉█" for cell in render(long, 80, 0.5)[1].plain)
