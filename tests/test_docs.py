"""Every `vidtad` command on a page of docs/ and in README.md runs, but for those in NOT_RUN, which say why.

What would fetch weights or take long runs with options added behind it (SMALLER): the command is the page's, its size
is not. docs/reproduce.md has a test of its own, tests/test_docs_reproduce.py. Every command line, run or not, is also
parsed by the command it names.
"""

import json
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from vidtad.cli import app
from vidtad.formats.interchange import write_one
from vidtad.synth import write_clips
from vidtad.timeline import PersonBox, Timeline
from vidtad.video import probe

ROOT = Path(__file__).parent.parent
PAGES = sorted((ROOT / "docs").glob("*.md"))
BLOCK = re.compile(r"^```(\w+)[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
SHELLS = ("sh", "console")

BY_HAND = "the weights come from a page that needs a browser"
CLUSTER = "needs SLURM, a Ray cluster or a bucket"
NOT_RUN = {
    "vidtad models add epoch_20.pth": BY_HAND,
    "vidtad detect match.mp4 --model react-thumos14": BY_HAND,
    "vidtad detect features --model react-thumos14": BY_HAND,
    "vidtad detect features/ --model react-thumos14": BY_HAND,
    "vidtad models fetch": "needs a network",
    "vidtad --install-completion": "changes the settings of whoever runs the tests",
    "vidtad train --videos gmdcsa24": "public footage that is no part of this project",
    "vidtad extract /data/videos": CLUSTER,
    "vidtad extract s3://": CLUSTER,
    "vidtad detect s3://": CLUSTER,
}
TINY = "--trunk slowfast/tiny --weights random --epochs 1"
TINY3D = "--extractor tiny3d --weights random --epochs 1 --val-fraction 0.34"
SMALLER = {
    "vidtad demo": "--videos 1 --out demo",
    "vidtad extract match.mp4 --extractor i3d": "--weights random --stride 150",
    "vidtad extract videos/ --extractor i3d": "--weights random --stride 150",
    "vidtad detect party.mp4 --model linear": "--model demo-linear --boxes boxes.csv",
    "vidtad detect party.mp4 --model acar --persons fasterrcnn-fast": "--model demo-acar --persons hog --overwrite",
    "vidtad detect party.mp4 --model acar --boxes boxes.csv": "--model demo-acar --overwrite",
    "vidtad train --videos clips --annotations people.csv --model linear --out mine.safetensors": TINY,
    "vidtad train --videos clips --annotations people.csv --model acar": "--epochs 1",
    "vidtad train --videos clips --annotations people.csv --model acfb": "--epochs 1",
    "vidtad train --videos clips --annotations people.csv --label-map people.ava.pbtxt": f"--videos videos {TINY}",
    "vidtad detect match.mp4 --model mine.safetensors --out who": "--boxes boxes.csv",
    "vidtad train --videos clips --annotations labels.csv": f"{TINY3D} --out labels.safetensors",
    "vidtad train --videos clips --annotations labels.csv --model actionformer": TINY3D,
    "vidtad synth --videos 60 --level 2": "--videos 3",
    "vidtad train --videos training2": TINY3D,
    "vidtad synth --people --videos 40": "--videos 2",
    "vidtad train --videos people40": "--epochs 1",
}
# Files that pages speak of and no command before makes, each a copy of another.
COPIES = {name: "stick" for name in ("linear-val", "acar-val", "linear-test", "acar-test")}


def commands(page: Path) -> list[str]:
    """Lines of a page's shell blocks that begin with `vidtad`, continued lines joined, comments dropped."""
    blocks = [text.replace("\\\n", " ") for kind, text in BLOCK.findall(page.read_text()) if kind in SHELLS]
    lines = [line.strip() for block in blocks for line in block.splitlines() if line.startswith("vidtad ")]
    return [shlex.join(shlex.split(line, comments=True)) for line in lines]


def prefixed(table: dict[str, str], command: str) -> str | None:
    """The entry whose key a command begins with, the longest one."""
    found = [key for key in table if f"{command} ".startswith(f"{key} ") or command.startswith(key)]
    return table[max(found, key=len)] if found else None


@pytest.fixture(scope="session")
def footage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files that pages speak of: match.mp4, its person in people.cvat.xml, clips/ and their truth labels.json
    (segments), labels.csv, people.csv and val.csv (boxes), scores of whole videos in cuhk.json; match.mp4 again as
    party.mp4 and in videos/, with boxes.csv and gt.json."""
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
        PersonBox(float(number / info.fps), 0, tuple(box), 1.0, (("squat", 1.0),)) for number, box in enumerate(boxes)
    )
    write_one(Timeline({"match": ()}, {"match": info}, {}, {"match": people}), folder / "people.cvat.xml", "cvat")
    _more(folder, document["database"])
    return folder


def _more(folder: Path, clips: dict[str, Any]) -> None:
    """What else pages speak of, made of the first clip and of what is known of all."""
    first = min(clips)
    (folder / "videos").mkdir()
    for name in ("party.mp4", "videos/match.mp4"):
        shutil.copy(folder / "match.mp4", folder / name)
    shutil.copy(folder / "people.csv", folder / "val.csv")
    rows = [line.partition(",") for line in (folder / "people.csv").read_text().splitlines()]
    own = [rest for name, _, rest in rows if name == first]
    boxes = "".join(f"{name},{','.join(rest.split(',')[:5])}\n" for name in ("match", "party") for rest in own)
    (folder / "boxes.csv").write_text(boxes)
    truth = {"match": clips[first] | {"subset": "validation"}}
    (folder / "gt.json").write_text(json.dumps({"database": truth}))
    labels = [
        f"{name},{a['segment'][0]},{a['segment'][1]},{a['label']}" for name in clips for a in clips[name]["annotations"]
    ]
    (folder / "labels.csv").write_text("\n".join(["video,start,end,label", *labels, ""]))
    scores = {"class": ["jump", "wave"], "results": {name: [0.9, 0.3] for name in clips}}
    (folder / "cuhk.json").write_text(json.dumps(scores))


def _rows(clips: dict[str, Any], boxes: dict[str, dict[str, list[list[float]]]]) -> Iterator[str]:
    """What each person does, every fourth second."""
    for name, clip in clips.items():
        for track, frames in boxes[name].items():
            for second in range(1, int(clip["duration"]), 4):
                box = ",".join(map(str, frames[min(len(frames) - 1, round(second * len(frames) / clip["duration"]))]))
                own = [a for a in clip["annotations"] if a["track"] == int(track)]
                doing = [a["label"] for a in own if a["segment"][0] <= second < a["segment"][1]]
                yield from (f"{name},{second},{box},{label},{track}\n" for label in doing or [""])


def run(command: str) -> None:
    """A command as a shell would run it, `> file` included, with what SMALLER adds."""
    line, _, target = command.partition(" '>' ")
    for word in shlex.split(line):
        if word in COPIES and not Path(word).exists():
            shutil.copytree(COPIES[word], word)
    words = shlex.split(f"{line} {prefixed(SMALLER, line) or ''}")
    result = CliRunner().invoke(app, words[1:])
    assert result.exit_code == 0, f"{command}\n{result.stderr}"
    if target:
        Path(target).write_text(result.stdout)


@pytest.mark.slow
@pytest.mark.parametrize(
    "page", [page for page in [ROOT / "README.md", *PAGES] if page.stem != "reproduce"], ids=lambda page: page.stem
)
def test_commands_run(page: Path, footage: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(footage, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    for command in commands(page):
        if prefixed(NOT_RUN, command) is None:
            run(command)
    for kind, text in BLOCK.findall(page.read_text()):
        if kind == "python":
            exec(compile(text, page.name, "exec"), {})


def test_exceptions_are_on_a_page() -> None:
    """A command that changed on its page leaves no exception behind, and is run as it is until one is made for it."""
    everything = [command for page in [ROOT / "README.md", *PAGES] for command in commands(page)]
    for key in [*NOT_RUN, *SMALLER]:
        assert any(command.startswith(key) for command in everything), key


def called(page: Path) -> Iterator[list[str]]:
    """Words behind every `vidtad` in a page's blocks of any language but Python."""
    for kind, text in BLOCK.findall(page.read_text()):
        if kind not in ("python", "py"):
            for line in text.replace("\\\n", " ").splitlines():
                found = re.search(r"(?:^|[\s/])vidtad\s+(\w.*)", line)
                if found:
                    words = shlex.split(found[1], comments=True)
                    yield words[: words.index(">")] if ">" in words else words


def command_of(words: list[str]) -> tuple[Any, list[str]]:
    """(command, its arguments) of a command line. Raises KeyError for an unknown command."""
    command: Any = typer.main.get_command(app)
    while hasattr(command, "commands") and words:
        command, words = command.commands[words[0]], words[1:]
    return command, words


@pytest.mark.parametrize("page", [ROOT / "README.md", *PAGES], ids=lambda page: page.stem)
def test_command_lines_parse(page: Path) -> None:
    """Also those that are not run: the command takes all options and arguments, and values of their types."""
    for words in called(page):
        command, arguments = command_of(words)
        try:
            command.make_context(words[0], list(arguments))
        except Exception as error:
            raise AssertionError(f"{page.name}: vidtad {shlex.join(words)}: {error}") from error


@pytest.mark.parametrize(
    "line", ["evaluate a.json", "detect a.mp4 --modle x", "extract a.mp4 --batch many", "detct a.mp4"]
)
def test_command_lines_that_do_not_parse_are_seen(line: str, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"```console\nvidtad {line}\n```\n")
    with pytest.raises((AssertionError, KeyError)):
        test_command_lines_parse(page)


@pytest.mark.parametrize("page", [ROOT / "README.md", *PAGES], ids=lambda page: page.stem)
def test_options_in_the_text_exist(page: Path) -> None:
    """`vidtad command --option` within a sentence."""
    for text in re.findall(r"`vidtad ([a-z][^`]*)`", re.sub(r"^```.*?^```", "", page.read_text(), flags=re.M | re.S)):
        words = text.split()
        command, arguments = command_of(words)
        known = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
        options = {word.partition("=")[0] for word in arguments if word.startswith("--")}
        assert options <= known | {"--help"}, f"{page.name}: vidtad {text}"
