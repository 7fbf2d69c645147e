"""Batches filled across the borders of videos: fewer calls of the network, and all else as without."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.clips import numbered_frames, write_clip
from vidtad.extractors.base import ClipExtractor
from vidtad.features import load_features
from vidtad.pipelines.batches import pooling as together
from vidtad.pipelines.batches.local import Record, Setup
from vidtad.pipelines.batches.run import run
from vidtad.pipelines.batches.tasks import ExtractTask
from vidtad.pipelines.extract.extraction import Decoding, extract_file, load_extractor, provenance_of
from vidtad.pipelines.extract.resume import Scratch
from vidtad.runtime.locks import Busy, claim
from vidtad.video import open_video

BATCH = 8
FRAMES = {"a": 32, "b": 48, "c": 16, "d": 96, "e": 9, "f": 176, "g": 33}
WINDOWS = {"a": 2, "b": 3, "c": 1, "d": 6, "e": 1, "f": 11, "g": 2}
"""Of 16 frames, every 16; that of `e` is padded."""


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("clips")
    # Other pictures in each, so that rows of the wrong video are seen.
    return [
        write_clip(folder / f"{name}.mp4", numbered_frames(frames, first=100 * number), 15)
        for number, (name, frames) in enumerate(FRAMES.items())
    ]


@pytest.fixture(scope="module")
def alone(clips: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What every clip gives by itself."""
    out = tmp_path_factory.mktemp("alone")
    loaded = load_extractor("tiny3d", "random:3", window=16, stride=16)
    for clip in clips:
        extract_file(clip, loaded, out, batch=BATCH)
    return out


def task(out: Path, **changes: object) -> ExtractTask:
    settings = {"window": 16, "stride": 16, "batch": BATCH, "together": True} | changes
    return ExtractTask(out, "tiny3d", "random:3", **settings)  # type: ignore[arg-type]


def records(clips: list[Path], work: ExtractTask, setup: Setup = Setup()) -> dict[str, Record]:
    found = list(run(clips, work, setup))
    assert sorted(record.path for record in found) == sorted(clips), "every item comes out once"
    return {record.path.stem: record for record in found}


def check(out: Path, alone: Path, names: "list[str] | str") -> None:
    """The files are those of every clip by itself, rows to 1e-5 of the largest, and nothing else is there."""
    assert sorted(path.name for path in out.iterdir()) == sorted(
        f"{n}.{kind}" for n in names for kind in ("json", "npy")
    )
    for name in names:
        found, expected = (load_features(folder / f"{name}.npy", check_hash=True) for folder in (out, alone))
        largest = np.abs(expected.values).max()
        np.testing.assert_allclose(found.values, expected.values, rtol=0, atol=1e-5 * largest)
        sidecars = [json.loads((folder / f"{name}.json").read_text()) for folder in (out, alone)]
        for sidecar in sidecars:
            del sidecar["values_sha256"]  # of the rows, whose last bits may differ
        assert sidecars[0] == sidecars[1]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many windows the network is shown each time."""
    sizes: list[int] = []
    watch_rows(monkeypatch, sizes.append)
    return sizes


def watch_rows(monkeypatch: pytest.MonkeyPatch, before: Callable[[int], None]) -> None:
    original = ClipExtractor.rows

    def rows(self: ClipExtractor, pictures: np.ndarray, index: np.ndarray) -> torch.Tensor:
        before(len(index))
        return original(self, pictures, index)

    monkeypatch.setattr(ClipExtractor, "rows", rows)


def test_the_network_sees_full_batches(clips: list[Path], alone: Path, tmp_path: Path, calls: list[int]) -> None:
    found = records(clips, task(tmp_path))
    assert all(record.status == "done" for record in found.values())
    assert {name: record.value["rows"] for name, record in found.items()} == WINDOWS
    assert calls == [8, 8, 8, 2] and sum(WINDOWS.values()) == 26
    assert any("shorter than one window" in warning for warning in found["e"].value["warnings"])
    check(tmp_path, alone, list(FRAMES))
    assert all(record.value["reused"] for record in records(clips, task(tmp_path)).values())
    assert len(calls) == 4, "what is done is not done again"


def test_by_default_not_on_a_cpu(clips: list[Path], alone: Path, tmp_path: Path, calls: list[int]) -> None:
    records(clips, task(tmp_path, together=None))
    assert calls == [2, 3, 1, 6, 1, 8, 3, 2]
    for name in FRAMES:
        for kind in ("npy", "json"):
            assert (tmp_path / f"{name}.{kind}").read_bytes() == (alone / f"{name}.{kind}").read_bytes()


def test_records_come_as_videos_end(clips: list[Path], tmp_path: Path) -> None:
    order = [record.path.stem for record in run(clips, task(tmp_path), Setup())]
    assert order == ["a", "b", "c", "d", "e", "f", "g"]
    with closing(run(clips, task(tmp_path / "again"), Setup())) as found:
        next(found)
        assert not (tmp_path / "again" / "e.npy").exists(), "the first is over before the last is begun"


def test_workers(clips: list[Path], alone: Path, tmp_path: Path) -> None:
    found = records(clips, task(tmp_path), Setup(workers=2, threads=1))
    assert {record.status for record in found.values()} == {"done"}
    check(tmp_path, alone, list(FRAMES))


def test_ranges_are_joined(clips: list[Path], alone: Path, tmp_path: Path) -> None:
    found = records(clips, task(tmp_path, batch=2), Setup(ranges=2))
    assert {record.status for record in found.values()} == {"done"}
    check(tmp_path, alone, list(FRAMES))


def test_a_bad_video_fails_alone(clips: list[Path], alone: Path, tmp_path: Path, calls: list[int]) -> None:
    broken, out = tmp_path / "broken.mp4", tmp_path / "out"
    broken.write_text("no video")
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(clips[3].read_bytes()[:-200])
    found = records([clips[0], broken, clips[1], cut, *clips[2:]], task(out))
    assert {name for name, record in found.items() if record.status == "failed"} == {"broken", "cut"}
    assert found["broken"].misuse and "broken.mp4" in found["broken"].error
    check(out, alone, list(FRAMES))
    assert calls == [8, 8, 8, 2]


def test_an_error_between_frames_takes_no_other_along(
    clips: list[Path], alone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = ClipExtractor.prepare
    prepared = 0

    def prepare(self: ClipExtractor, rgb: np.ndarray) -> np.ndarray:
        nonlocal prepared
        prepared += 1
        if prepared == 60:  # in the middle of the second clip
            raise ValueError("a damaged picture")
        return original(self, rgb)

    monkeypatch.setattr(ClipExtractor, "prepare", prepare)
    found = records(clips, task(tmp_path))
    assert {name for name, record in found.items() if record.status == "failed"} == {"b"}
    assert "a damaged picture" in found["b"].error
    check(tmp_path, alone, [name for name in FRAMES if name != "b"])


@pytest.mark.parametrize("room", [1, 3, 5])
def test_out_of_memory_halves(
    room: int, clips: list[Path], alone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []

    def cramped(windows: int) -> None:
        sizes.append(windows)
        if windows > room:
            raise torch.cuda.OutOfMemoryError("tried to allocate")

    watch_rows(monkeypatch, cramped)
    found = records(clips, task(tmp_path))
    assert {record.status for record in found.values()} == {"done"}
    fits = {1: 1, 3: 2, 5: 4}[room]
    assert sum(size for size in sizes if size <= room) == 26, "every window once"
    warnings = found["a"].value["warnings"]
    assert any(f"batches of 8 windows: went on with {fits}" in warning for warning in warnings)
    for name in FRAMES:
        rows, expected = (load_features(folder / f"{name}.npy").values for folder in (tmp_path, alone))
        np.testing.assert_allclose(rows, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_a_single_window_too_much_is_said_of_every_video(
    clips: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(windows: int) -> None:
        raise torch.cuda.OutOfMemoryError("tried to allocate")

    watch_rows(monkeypatch, full)
    found = records(clips, task(tmp_path))
    assert all(record.status == "failed" and "a single window of" in record.error for record in found.values())
    assert not list(tmp_path.glob("*.npy")) and not list(tmp_path.glob(".*.lock"))


def test_whose_windows_break_the_network_is_found_out(
    clips: list[Path], alone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = ClipExtractor.rows
    culprit: list[np.ndarray] = []

    def rows(self: ClipExtractor, pictures: np.ndarray, index: np.ndarray) -> torch.Tensor:
        if any(np.array_equal(picture, culprit[0]) for picture in pictures):
            raise RuntimeError("not these pixels")
        return original(self, pictures, index)

    loaded = load_extractor("tiny3d", "random:3", window=16, stride=16)
    with open_video(clips[1]) as video:
        culprit.append(loaded.extractor.prepare(next(iter(video)).rgb()))
    monkeypatch.setattr(ClipExtractor, "rows", rows)
    found = records(clips, task(tmp_path))
    assert {name for name, record in found.items() if record.status == "failed"} == {"b"}
    assert "not these pixels" in found["b"].error
    check(tmp_path, alone, [name for name in FRAMES if name != "b"])


def test_rows_on_the_disk_are_not_computed_again(
    clips: list[Path], alone: Path, tmp_path: Path, calls: list[int]
) -> None:
    loaded = load_extractor("tiny3d", "random:3", window=16, stride=16)
    for clip, rows in ((clips[3], 5), (clips[5], 8)):  # as a kill leaves them
        whole = load_features(alone / f"{clip.stem}.npy")
        scratch = Scratch(tmp_path, clip.stem, provenance_of(clip, loaded, Decoding()))
        scratch.append(whole.grid.times_s[:rows], whole.values[:rows])
    found = records(clips, task(tmp_path))
    assert {record.status for record in found.values()} == {"done"}
    assert calls == [8, 5]
    check(tmp_path, alone, list(FRAMES))


def test_closing_lets_go(clips: list[Path], alone: Path, tmp_path: Path) -> None:
    work = task(tmp_path)("cpu")
    assert isinstance(work, together.Together)
    assert work.records(clips[0], lambda done, total: None) == []
    with pytest.raises(Busy), claim(tmp_path / ".a.lock"):
        pass
    work.close()
    assert not list(tmp_path.iterdir()), "neither lock nor half a file"
    assert records(clips, task(tmp_path))["a"].status == "done"
    check(tmp_path, alone, list(FRAMES))


def test_an_interrupt_on_the_way(
    clips: list[Path], alone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        left = [8]

        def interrupted(windows: int) -> None:
            if not left:
                raise KeyboardInterrupt
            left.pop()

        watch_rows(patch, interrupted)
        with pytest.raises(KeyboardInterrupt):
            list(run(clips, task(tmp_path), Setup()))
    assert not list(tmp_path.glob(".*.lock")) and not list(tmp_path.glob(".*.tmp"))
    whole = {path.stem for path in tmp_path.glob("*.npy")}
    assert {"a", "b", "c"} <= whole and "g" not in whole
    for name in whole:
        load_features(tmp_path / f"{name}.npy", check_hash=True)
    records(clips, task(tmp_path))
    check(tmp_path, alone, list(FRAMES))


def test_a_kill_on_the_way(clips: list[Path], alone: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    script = "import os, signal, sys; from pathlib import Path\n"
    script += "from tests.pipelines.batches.test_pooling import task\n"
    script += "work = task(Path(sys.argv[1]))('cpu')\n"
    script += "for path in sys.argv[2:]:\n print(len(work.records(Path(path), lambda done, total: None)), flush=True)\n"
    script += "os.kill(os.getpid(), signal.SIGKILL)\n"
    command = [sys.executable, "-c", script, str(out), *map(str, clips[:6])]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[3])}
    ended = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True)
    assert ended.returncode == -signal.SIGKILL and ended.stdout.split() == ["0", "0", "0", "3", "0", "3"]
    records(clips, task(out))
    check(out, alone, list(FRAMES))


def test_a_long_video_keeps_none_waiting(clips: list[Path], tmp_path: Path, calls: list[int]) -> None:
    long = write_clip(tmp_path / "long.mp4", numbered_frames(200), 15)
    work = task(tmp_path / "out", batch=4, stride=4)("cpu")
    assert isinstance(work, together.Together)
    seen: list[bool] = []

    def progress(done: int, total: int | None) -> None:
        seen.append((tmp_path / "out" / "c.npy").exists())

    assert work.records(clips[2], lambda done, total: None) == []
    over = work.records(long, progress)
    assert [record.path.stem for record in over][:1] == ["c"]
    assert seen.index(True) == together.LONG - 1
    work.close()


def test_what_was_held_back_is_not_blamed_for_a_death(clips: list[Path], alone: Path, tmp_path: Path) -> None:
    killer = tmp_path / "killer.mp4"
    killer.write_bytes(b"no video")
    found = records([*clips, killer], Dying(tmp_path / "out"), Setup(workers=1, threads=1))  # type: ignore[arg-type]
    assert {name for name, record in found.items() if record.status == "failed"} == {"killer"}
    assert "died 2 times (signal 9)" in found["killer"].error
    check(tmp_path / "out", alone, list(FRAMES))


class Dying:
    """Extraction in a worker that dies of the item `killer`."""

    def __init__(self, out: Path):
        self.out = out

    def __call__(self, device: str) -> together.Together:
        work = task(self.out)(device)
        assert isinstance(work, together.Together)
        start = work.start

        def deadly(item, progress):
            if item.stem == "killer":
                os.kill(os.getpid(), signal.SIGKILL)
            return start(item, progress)

        work.start = deadly
        return work
