"""Inputs and outputs elsewhere, through the command line: the files of a local run, and nothing comes twice."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from tests.bundles import seeded_react
from tests.clips import numbered_frames, write_clip
from vidtad.cli import app
from vidtad.pipelines.batches import staging as away
from vidtad.runtime.remote import url_of

fsspec = pytest.importorskip("fsspec")

TINY = ("--extractor", "tiny3d", "--weights", "random:3")
SMALL = {"width": 32, "heads": 4, "queries": 8, "clip_len": 16, "feed_forward": 64}


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VIDTAD_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    for name, frames in {"a": 60, "b": 90}.items():
        write_clip(folder / f"{name}.mp4", numbered_frames(frames), 25)
    return folder


@pytest.fixture
def memory(clips: Path) -> Iterator[Any]:
    """Storage that lives in this process, with the clips in `/in`."""
    system = fsspec.filesystem("memory")
    for clip in clips.iterdir():
        system.pipe_file(f"/in/{clip.name}", clip.read_bytes())
    yield system
    system.store.clear()
    system.pseudo_dirs[:] = [""]


@pytest.fixture
def fetched(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that were fetched."""
    names: list[str] = []
    fetch = away.fetch

    def noted(path: Path, folder: Path) -> Path:
        names.append(path.name)
        return fetch(path, folder)

    monkeypatch.setattr(away, "fetch", noted)
    return names


def left_in(cache: Path) -> list[Path]:
    return [path for path in cache.rglob("*") if path.is_file()] if cache.exists() else []


@pytest.mark.parametrize(
    ("path", "url"),
    [
        ("s3://bucket/a b.mp4", "s3://bucket/a b.mp4"),
        ("file:///data/x.mp4", "file:///data/x.mp4"),
        ("memory://in/x.mp4", "memory://in/x.mp4"),
        ("gs://b", "gs://b"),
        ("/data/x.mp4", None),
        ("x.mp4", None),
        ("C:/x.mp4", None),
        ("a:b", None),
        ("12:30.mp4", None),
    ],
)
def test_what_is_elsewhere(path: str, url: str | None) -> None:
    assert url_of(Path(path)) == url_of(path) == url


@pytest.mark.slow
def test_workers_give_the_files_of_a_local_run(clips: Path, tmp_path: Path, cache: Path) -> None:
    assert run("extract", clips, *TINY, "--out", tmp_path / "here").exit_code == 0
    there = (f"file://{clips}", *TINY, "--out", f"file://{tmp_path}/there", "--workers", 2, "--threads", 1, "--json")
    result = run("extract", *there)
    assert result.exit_code == 0, result.stderr
    for name in "ab":
        assert (tmp_path / "here" / f"{name}.npy").read_bytes() == (tmp_path / "there" / f"{name}.npy").read_bytes()
        ours, theirs = (json.loads((tmp_path / place / f"{name}.json").read_text()) for place in ("here", "there"))
        assert theirs.pop("remote")["source"] == theirs["video"].pop("path") == f"file://{clips}/{name}.mp4"
        del ours["video"]["path"]
        assert ours == theirs
    assert sorted(path.name for path in (tmp_path / "there").iterdir()) == ["a.json", "a.npy", "b.json", "b.npy"]
    assert not left_in(cache)
    (entry, _) = json.loads(result.stdout)["extracted"]
    assert entry["features"] == f"file://{tmp_path}/there/a.npy" and entry["video"] == f"file://{clips}/a.mp4"
    again = json.loads(run("extract", *there).stdout)["extracted"][0]
    assert again["reused"] and {**again, "reused": 0, "seconds": 0} == {**entry, "reused": 0, "seconds": 0}


@pytest.mark.parametrize("out", ["memory://out", "local"])
def test_what_is_finished_is_not_fetched_again(
    out: str, memory: Any, fetched: list[str], tmp_path: Path, cache: Path
) -> None:
    out = str(tmp_path / "out") if out == "local" else out
    command = ("extract", "memory://in", *TINY, "--out", out, "--json")
    assert run(*command).exit_code == 0 and sorted(fetched) == ["a.mp4", "b.mp4"]
    again = json.loads(run(*command).stdout)["extracted"]
    assert [entry["reused"] for entry in again] == [True, True] and len(fetched) == 2
    assert not left_in(cache)

    fetched.clear()  # another file under the old name
    memory.pipe_file("/in/a.mp4", memory.cat_file("/in/b.mp4"))
    result = run(*command)
    assert result.exit_code == 1 and "pass --overwrite" in result.stderr and "/cache/" not in result.stderr
    assert "a.mp4" in fetched and "b.mp4" not in fetched
    assert run(*command, "--overwrite").exit_code == 0
    assert [entry["rows"] for entry in json.loads(run(*command).stdout)["extracted"]] == [again[1]["rows"]] * 2
    other = run(*command[:5], "random:4", *command[6:])
    assert other.exit_code == 1 and "pass --overwrite" in other.stderr


def test_outputs_that_are_not_whole_are_made_again(memory: Any, fetched: list[str]) -> None:
    command = ("extract", "memory://in/a.mp4", *TINY, "--out", "memory://out")
    assert run(*command).exit_code == 0
    whole = memory.cat_file("/out/a.npy")
    memory.rm("/out/a.npy")
    assert run(*command).exit_code == 0
    assert memory.cat_file("/out/a.npy") == whole and fetched.count("a.mp4") == 2


def test_detection(memory: Any, fetched: list[str], tmp_path: Path, clips: Path, cache: Path) -> None:
    bundle = seeded_react(tmp_path / "b.safetensors", **SMALL)
    command = ("detect", "memory://in/b.mp4", "--model", bundle, "--out", "memory://out")
    result = run(*command, "--format", "srt")
    assert result.exit_code == 0, result.stderr
    assert sorted(memory.ls("/out", detail=False)) == ["/out/b.csv", "/out/b.json", "/out/b.srt"]
    document = json.loads(memory.cat_file("/out/b.json"))
    assert document["videos"]["b"]["path"] == "memory://in/b.mp4" and "memory://out/b.json" in result.stdout
    local = run("detect", clips / "b.mp4", "--model", bundle, "--out", tmp_path / "here", "--json")
    assert json.loads(local.stdout)["results"] == document["results"]
    assert run(*command, "--json").exit_code == 0 and fetched == ["b.mp4"]
    printed = run("detect", "memory://in/b.mp4", "--model", bundle, "--out", "-")
    assert json.loads(printed.stdout)["results"] == document["results"]
    assert not left_in(cache)


def test_detection_in_features(memory: Any, tmp_path: Path) -> None:
    bundle = seeded_react(tmp_path / "b.safetensors", **SMALL)
    assert run("extract", "memory://in", *TINY, "--out", "memory://features").exit_code == 0
    result = run("detect", "memory://features", "--model", bundle, "--out", tmp_path / "out", "--json")
    assert result.exit_code == 0, result.stderr
    assert sorted(json.loads(result.stdout)["results"]) == ["a", "b"]


def test_ranges_of_a_video_elsewhere(memory: Any, tmp_path: Path, cache: Path) -> None:
    command = ("extract", "memory://in/b.mp4", *TINY, "--batch", 1)
    assert run(*command, "--out", tmp_path / "one").exit_code == 0
    assert run(*command, "--out", tmp_path / "three", "--ranges", 3).exit_code == 0
    assert np.array_equal(*(np.load(tmp_path / name / "b.npy") for name in ("one", "three")))
    assert len(list((tmp_path / "three").iterdir())) == 2 and not left_in(cache)
    refused = run(*command, "--out", "memory://out", "--ranges", 3)
    assert refused.exit_code == 2 and "all workers share" in refused.stderr


def test_a_copy_cut_off_is_one_sentence(memory: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def cut(name: str, local: str) -> None:
        Path(local).write_bytes(memory.cat_file(name)[:1000])

    monkeypatch.setattr(memory, "get_file", cut)
    result = run("extract", "memory://in/a.mp4", *TINY, "--out", tmp_path / "out")
    assert result.exit_code == 1 and "1000 of " in result.stderr and "Traceback" not in result.stderr
    assert not (tmp_path / "out").exists()


def test_copies_of_killed_processes_are_removed(memory: Any, tmp_path: Path, cache: Path) -> None:
    left = cache / "remote" / "in-0"
    left.mkdir(parents=True)
    (left / "huge.mp4").write_bytes(b"x" * 1000)
    assert run("extract", "memory://in/a.mp4", *TINY, "--out", tmp_path / "out").exit_code == 0
    assert not left.exists()


@pytest.mark.parametrize(
    ("place", "sentence"),
    [
        ("memory://in/none.mp4", "no such file"),
        ("memory://nowhere", "no such file"),
        ("warp://x/y.mp4", "is no protocol"),
        (f"file://{Path(__file__).parent}", "no file of the right kind"),
    ],
)
def test_what_is_not_there(memory: Any, place: str, sentence: str) -> None:
    result = run("extract", place, *TINY)
    lines = [line for line in result.stderr.splitlines() if "random weights" not in line]
    assert result.exit_code == 2 and len(lines) == 1 and sentence in lines[0] and place in lines[0]


def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)
    result = run("extract", "s3://bucket/x.mp4", *TINY)
    assert result.exit_code == 2 and "needs one more package" in result.stderr and "s3fs" in result.stderr
    monkeypatch.setitem(sys.modules, "fsspec", None)
    result = run("extract", "s3://bucket/x.mp4", *TINY)
    assert result.exit_code == 2 and "pip install 'vidtad[remote]'" in result.stderr


def test_a_bad_video_elsewhere_is_named_as_given(memory: Any, tmp_path: Path) -> None:
    memory.pipe_file("/in/c.mp4", b"\0" * 2000)
    result = run("extract", "memory://in", *TINY, "--out", "memory://out", "--json")
    assert result.exit_code == 1
    (reason,) = json.loads(result.stdout)["failed"].values()
    assert reason.startswith("memory://in/c.mp4: not a video")


def test_a_file_replaced_while_it_is_fetched_is_said(memory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    fetch = away.fetch

    def late(path: Path, folder: Path) -> Path:
        local = fetch(path, folder)
        memory.pipe_file("/in/a.mp4", memory.cat_file("/in/b.mp4"))
        return local

    monkeypatch.setattr(away, "fetch", late)
    result = run("extract", "memory://in/a.mp4", *TINY, "--out", "memory://out")
    assert result.exit_code == 1 and "memory://in/a.mp4: was changed or replaced while it was fetched" in result.stderr
    assert not memory.exists("/out/a.json")
