"""One video in time ranges: the bytes of a run over the whole of it, whatever its coding, whoever dies."""

import json
import os
import signal
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from tests.bundles import seeded_react
from tests.cli.test_batches import SMALL, start, wait_until
from tests.clips import X264_OPEN_GOP, numbered_frames, write_clip
from vidtad.cli import app
from vidtad.pipelines.batches.local import Part
from vidtad.pipelines.batches.tasks import ExtractTask
from vidtad.pipelines.extract import ranges
from vidtad.pipelines.extract.extraction import Decoding, extract_file, load_extractor, provenance_of
from vidtad.pipelines.extract.ranges import extract_range, part_of_file
from vidtad.pipelines.extract.resume import Scratch

TINY = ("--extractor", "tiny3d", "--weights", "random:3")
FRAMES = 150
KINDS = {
    "constant rate": ("a.mp4", {}),
    "B-frames, open groups": ("b.mp4", {"options": X264_OPEN_GOP}),
    "one group": ("c.mp4", {"options": {"g": "1000", "bf": "3"}}),
    "variable rate": (
        "d.mp4",
        {"pts": [600 * (k // 10) + (k % 10) * 33 + (k % 3) * 5 for k in range(FRAMES)], "time_base": Fraction(1, 1000)},
    ),
    "transport stream": ("e.ts", {"options": {"g": "12", "bf": "2"}}),
    "damaged": ("f.mp4", {}),
    "raw": ("g.h264", {"container_format": "h264"}),
}  # fmt: skip


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def clip_of(kind: str, folder: Path) -> Path:
    name, settings = KINDS[kind]
    path = write_clip(folder / name, numbered_frames(FRAMES), 25, **settings)
    if kind == "damaged":
        data = bytearray(path.read_bytes())
        data[5000:5400] = b"\xff" * 400
        path.write_bytes(bytes(data))
    return path


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """What each range said: whether its rows are there."""
    said: list[bool] = []
    original = ranges.extract_range

    def counting(*arguments: object, **options: object) -> bool:
        said.append(original(*arguments, **options))  # type: ignore[arg-type]
        return said[-1]

    monkeypatch.setattr(ranges, "extract_range", counting)
    return said


@pytest.mark.parametrize("kind", KINDS)
def test_three_ranges_give_the_bytes_of_one(kind: str, tmp_path: Path, counted: list[bool]) -> None:
    rate = ("--fps", 25) if kind == "raw" else ()
    command = ("extract", clip_of(kind, tmp_path), *TINY, *rate, "--json")
    one = run(*command, "--out", tmp_path / "one")
    three = run(*command, "--out", tmp_path / "three", "--ranges", 3)
    assert one.exit_code == three.exit_code == 0, three.stderr
    assert contents(tmp_path / "one") == contents(tmp_path / "three")
    assert len(contents(tmp_path / "one")) == 2, "nothing is left behind"
    expected = {"damaged": False, "raw": False}.get(kind, True)
    assert len(counted) == 3 and all(counted) == expected
    assert json.loads(three.stdout)["extracted"][0]["rows"] == len(np.load(next((tmp_path / "one").glob("*.npy"))))


@pytest.mark.parametrize(
    "settings",
    [
        ("--fps", 12), ("--fps", 40), ("--stride", 20, "--batch", 2), ("--stride", 1), ("--batch", 3), ("--batch", 1),
        ("--stream", "rgb,flow", "--flow", "dis"),
    ],
    ids=lambda settings: " ".join(map(str, settings)),
)  # fmt: skip
def test_whatever_is_asked(settings: tuple[object, ...], tmp_path: Path, counted: list[bool]) -> None:
    name = "variable rate" if "--fps" in settings else "B-frames, open groups"
    extractor = ("i3d", "--window", 9, "--stride", 35, "--batch", 1) if "--flow" in settings else ("tiny3d",)
    command = ("extract", clip_of(name, tmp_path), "--weights", "random:3", "--extractor", *extractor, *settings)
    assert run(*command, "--out", tmp_path / "one").exit_code == 0
    assert run(*command, "--out", tmp_path / "two", "--ranges", 2).exit_code == 0
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    assert counted == [True, True]


@pytest.mark.slow
def test_workers_share_one_video(tmp_path: Path) -> None:
    clip, bundle = clip_of("constant rate", tmp_path), seeded_react(tmp_path / "b.safetensors", **SMALL)
    command = ("detect", clip, "--model", bundle, "--json")
    one = run(*command, "--out", tmp_path / "one")
    shared = run(*command, "--out", tmp_path / "two", "--workers", 2, "--threads", 1, "--ranges", 4)
    assert one.exit_code == shared.exit_code == 0, shared.stderr
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    again = run(*command, "--out", tmp_path / "two", "--ranges", 4)
    assert json.loads(again.stdout) == json.loads(shared.stdout)


@pytest.fixture(scope="module")
def extractor():
    return load_extractor("tiny3d", "random:3")


def test_ranges_that_are_done_are_never_done_again(tmp_path: Path, extractor, monkeypatch: pytest.MonkeyPatch) -> None:
    clip, out = clip_of("constant rate", tmp_path), tmp_path / "out"
    whole = extract_file(clip, extractor, tmp_path / "whole")
    for number in (2, 0):
        part_of_file(clip, extractor, out, (number, 3))
    made = {path.name: path.stat().st_mtime_ns for path in out.iterdir()}
    assert sorted(name.rpartition(".")[2] for name in made) == ["last", "rows"]
    for number in (0, 2):
        part_of_file(clip, extractor, out, (number, 3))
    assert {path.name: path.stat().st_mtime_ns for path in out.iterdir()} == made
    part_of_file(clip, extractor, out, (1, 3))
    monkeypatch.setattr(type(extractor.extractor), "rows", None)  # nothing is computed any more
    joined = extract_file(clip, extractor, out)
    assert np.array_equal(joined.features.values, whole.features.values)
    assert sorted(path.name for path in out.iterdir()) == ["a.json", "a.npy"]


def test_a_range_goes_on_where_it_ended(tmp_path: Path, extractor) -> None:
    clip, out = clip_of("B-frames, open groups", tmp_path), tmp_path / "out"
    identity = provenance_of(clip, extractor, Decoding())
    assert extract_range(clip, extractor, tmp_path / "whole", (1, 3), identity=identity, batch=2)
    (whole,) = (tmp_path / "whole").iterdir()
    span = tuple(int(row) for row in whole.name.split(".")[3].split("-"))
    cut = Scratch(out, "b", identity, (span[0], span[1]))
    out.mkdir()
    cut.path.write_bytes(whole.read_bytes()[: 4 * cut.record.itemsize + 5])
    assert not cut.complete()
    assert extract_range(clip, extractor, out, (1, 3), identity=identity, batch=2)
    assert contents(out) == contents(tmp_path / "whole")


def test_without_all_ranges_the_whole_is_done(tmp_path: Path, extractor) -> None:
    clip, out = clip_of("constant rate", tmp_path), tmp_path / "out"
    part_of_file(clip, extractor, out, (1, 3))
    found = extract_file(clip, extractor, out).features
    assert np.array_equal(found.values, extract_file(clip, extractor, tmp_path / "whole").features.values)
    assert sorted(path.name for path in out.iterdir()) == ["a.json", "a.npy"]


def test_too_short_to_divide(tmp_path: Path, counted: list[bool]) -> None:
    clip = write_clip(tmp_path / "short.mp4", numbered_frames(20), 25)
    joined = run("extract", clip, *TINY, "--out", tmp_path / "out", "--ranges", 5)
    assert joined.exit_code == 0 and "frames/s" not in joined.stdout
    assert not any(counted) and len(contents(tmp_path / "out")) == 2


def test_a_bad_video_is_said_once(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "bad.mp4").write_bytes(b"\0" * 1000)
    write_clip(tmp_path / "in" / "good.mp4", numbered_frames(60), 25)
    result = run("extract", tmp_path / "in", *TINY, "--out", tmp_path / "out", "--ranges", 3, "--json")
    assert result.exit_code == 1
    document = json.loads(result.stdout)
    assert list(document["failed"]) == [str(tmp_path / "in" / "bad.mp4")] and len(document["extracted"]) == 1


def test_not_for_what_has_no_features(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "x.mp4", numbered_frames(20), 25)
    result = run("detect", clip, "--model", "motion", "--ranges", 2)
    assert result.exit_code == 2 and "--ranges" in result.stderr
    result = run("extract", clip, *TINY, "--keep-flow", tmp_path / "flow", "--ranges", 2)
    assert result.exit_code == 2 and "--ranges" in result.stderr


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_a_killed_worker_costs_its_range_only(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "long.mp4", (frame for _ in range(4) for frame in numbered_frames(300)), 25)
    out = tmp_path / "out"
    command = ("extract", clip, *TINY, "--batch", 1, "--ranges", 4)
    process = start(*command, "--out", out, "--workers", 2, "--threads", 1)
    wait_until(lambda: len(list(out.glob(".*.rows"))) > 1, process)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    if not children.exists():
        process.kill()
        pytest.skip("no way to see the workers")
    pids = children.read_text().split()
    worker = next(pid for pid in pids if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes())
    os.kill(int(worker), signal.SIGKILL)
    _, said = process.communicate()
    assert process.returncode == 0, said
    assert run(*command, "--out", tmp_path / "one").exit_code == 0
    assert contents(out) == contents(tmp_path / "one")


def test_parts_travel() -> None:
    import pickle

    part = Part(Path("a/b.mp4"), 1, 3)
    assert pickle.loads(pickle.dumps(part)) == part and str(part) == str(part.path) and part.name == "b.mp4 2/3"
    assert pickle.loads(pickle.dumps(ExtractTask(Path("out"), "tiny3d"))).out == Path("out")
