"""Every command that writes, on a full disk: one sentence with the reason, exit code 1, nothing half-written."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.cli.test_batches import POSIX, TINY, bundle, clips, long_timeline, run
from vidtad.synth import Level, write_clips

__all__ = ["bundle", "clips"]
pytestmark = POSIX
SHORT = Level(seconds=(5.0, 6.0), action_seconds=(0.8, 1.4), idle_seconds=(0.5, 0.9), width=96, height=80)


@pytest.fixture(params=[4, 16, 40])
def disk(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A folder with room for so many KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    small = ["mount", "-t", "tmpfs", "-o", f"size={request.param}k", "tmpfs", str(folder)]
    if subprocess.run(small, capture_output=True).returncode:
        pytest.skip("no right to mount a small disk here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def refused(folder: Path, *arguments: object) -> None:
    result = run(*arguments)
    assert result.exit_code == 1 and "No space left on device" in result.stderr, result.output
    assert "internal error" not in result.output and "Traceback" not in result.output
    assert not list(folder.rglob(".*.tmp")), "half a file is left"


def test_extract(disk: Path, clips: Path) -> None:
    refused(disk, "extract", clips, *TINY, "--out", disk / "out")


def test_kept_flow(disk: Path, clips: Path) -> None:
    flow = ("--extractor", "i3d", "--stream", "flow", "--flow", "dis", "--weights", "random:3")
    refused(disk, "extract", clips / "d.mp4", *flow, "--out", disk.parent / "out", "--keep-flow", disk / "flow")


@pytest.mark.parametrize("command", [("overlay", "annotated.mp4"), ("clips", "")])
def test_films(disk: Path, tmp_path: Path, command: tuple[str, str]) -> None:
    refused(disk, command[0], long_timeline(tmp_path), "--out", disk / command[1])


def test_report(disk: Path, tmp_path: Path) -> None:
    refused(disk, "report", long_timeline(tmp_path), "--embed", "--out", disk / "page.html")


def test_synth(disk: Path) -> None:
    refused(disk, "synth", "--out", disk / "clips")


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("labelled")
    write_clips(folder, range(6), SHORT, subset="")
    assert run("extract", folder, *TINY, "--out", folder / "features").exit_code == 0
    return folder


def test_train(disk: Path, labelled: Path) -> None:
    command = ("train", "--annotations", labelled / "ground_truth.json", "--epochs", 1, "--out", disk / "m.safetensors")
    refused(disk, *command, "--features", labelled / "features")


def test_timelines_and_conversions(tmp_path: Path, bundle: Path, clips: Path) -> None:
    folder = tmp_path / "disk"
    folder.mkdir()
    small = ["mount", "-t", "tmpfs", "-o", "nr_blocks=1", "tmpfs", str(folder)]
    if subprocess.run(small, capture_output=True).returncode:
        pytest.skip("no right to mount a small disk here")
    try:
        (folder / "filler").write_bytes(np.zeros(4096, np.uint8).tobytes())
        refused(folder, "convert", long_timeline(tmp_path), "--to", "csv", "--out", folder / "out")
        refused(folder, "detect", clips / "d.mp4", "--model", bundle, "--out", folder / "timelines")
    finally:
        subprocess.run(["umount", str(folder)], check=True)
