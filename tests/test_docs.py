"""Every command on a page of docs/ and in README.md runs: lines that start with `vidtad` in ```sh blocks.

Blocks marked ```console hold what needs a network, a cluster or a GPU and are not run.
"""

import json
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from vidtad.cli import app
from vidtad.formats.interchange import write_one
from vidtad.synth import write_clips
from vidtad.timeline import PersonBox, Timeline
from vidtad.video import probe

ROOT = Path(__file__).parent.parent
PAGES = sorted((ROOT / "docs").glob("*.md"))
BLOCK = re.compile(r"^```(\w+)[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)


def commands(page: Path, language: str = "sh") -> list[str]:
    """Commands of a page, continued lines joined, comments dropped."""
    blocks = [text.replace("\\\n", " ") for kind, text in BLOCK.findall(page.read_text()) if kind == language]
    return [line.strip() for block in blocks for line in block.splitlines() if line.startswith("vidtad ")]


@pytest.fixture(scope="session")
def footage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files that pages speak of: match.mp4, its person in people.cvat.xml, clips/ and their truth labels.json
    (segments) and people.csv (boxes)."""
    folder = tmp_path_factory.mktemp("footage")
    document = write_clips(folder / "clips", range(11, 17), subset="training")
    tracks = json.loads((folder / "clips" / "boxes.json").read_text())
    (folder / "people.csv").write_text("".join(_rows(document["database"], tracks)))
    boxes = tracks[min(document["database"])]["0"]
    (folder / "clips" / "boxes.json").unlink()
    (folder / "clips" / "ground_truth.json").rename(folder / "labels.json")
    shutil.copy(folder / "clips" / f"{min(document['database'])}.mp4", folder / "match.mp4")
    info = probe(folder / "match.mp4")
    people = tuple(
        PersonBox(float(number / info.fps), 0, tuple(box), 1.0, (("walk", 1.0),)) for number, box in enumerate(boxes)
    )
    write_one(Timeline({"match": ()}, {"match": info}, {}, {"match": people}), folder / "people.cvat.xml", "cvat")
    return folder


def _rows(clips: dict[str, Any], boxes: dict[str, dict[str, list[list[float]]]]) -> Iterator[str]:
    """What each person does at whole seconds."""
    for name, clip in clips.items():
        for track, frames in boxes[name].items():
            for second in range(1, int(clip["duration"])):
                box = ",".join(map(str, frames[min(len(frames) - 1, round(second * len(frames) / clip["duration"]))]))
                own = [a for a in clip["annotations"] if a["track"] == int(track)]
                doing = [a["label"] for a in own if a["segment"][0] <= second < a["segment"][1]]
                yield from (f"{name},{second},{box},{label},{track}\n" for label in doing or [""])


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_commands_run(page: Path, footage: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(footage, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    for command in commands(page):
        result = CliRunner().invoke(app, shlex.split(command, comments=True)[1:])
        assert result.exit_code == 0, f"{page.name}: {command}\n{result.stderr}"
    for kind, text in BLOCK.findall(page.read_text()):
        if kind == "python":
            exec(compile(text, page.name, "exec"), {})


@pytest.mark.parametrize("page", [ROOT / "README.md", *PAGES], ids=lambda page: page.stem)
def test_commands_and_options_exist(page: Path) -> None:
    """Also those that are not run: every option a page mentions is one the command has."""
    for language in ("sh", "console"):
        for command in commands(page, language):
            words = shlex.split(command, comments=True)[1:]
            path = [words[0]]
            if words[0] in ("models", "labels"):
                path.append(words[1])
            help_text = CliRunner().invoke(app, [*path, "--help"]).stdout
            assert "Usage" in help_text, f"{page.name}: {command}"
            for word in words:
                if word.startswith("--"):
                    assert word.partition("=")[0] in help_text, f"{page.name}: {word} in {command}"
