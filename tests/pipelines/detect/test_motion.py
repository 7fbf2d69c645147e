"""`--model motion` on clips whose truth is known: a square that moves under a panning camera."""

import json
import subprocess
import sys
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from tests.clips import write_clip
from vidtad.cli import app
from vidtad.errors import InputError
from vidtad.heads.catalogue import BUILTIN_FOLDER, list_models, resolve_model
from vidtad.hub.bundle import load_bundle
from vidtad.pipelines.detect.dispatch import worker_for
from vidtad.pipelines.detect.motion import steps
from vidtad.pipelines.detect.worker import Job
from vidtad.timeline import Timeline
from vidtad.video import Frame


def pictures(
    seconds: float, fps: int, *, pan: float = 0.0, noise: float = 0.0, moving: tuple[float, float] | None = None
) -> Iterator[np.ndarray]:
    """A cloudy scene (144, 192, 3): the camera pans `pan` pixels a second, a square moves 40 within `moving`."""
    rng = np.random.default_rng(4)
    grid = rng.uniform(40, 200, (40, 80, 3)).astype(np.float32)
    scene = np.clip(cv2.resize(grid, (480, 240), interpolation=cv2.INTER_CUBIC), 0, 255)
    patch = cv2.resize(rng.uniform(0, 255, (4, 4, 3)).astype(np.float32), (28, 28), interpolation=cv2.INTER_NEAREST)
    start, end = moving or (seconds, seconds)
    for number in range(round(seconds * fps)):
        time = number / fps
        image = scene.copy()
        x = 90 + 40 * (np.clip(time, start, end) - start)
        shift = np.float32([[1, 0, x], [0, 1, 70]])
        image[70:98, :] = _pasted(image, patch, shift)[70:98, :]
        camera = np.float32([[1, 0, -pan * time], [0, 1, -4]])
        view = cv2.warpAffine(image, camera, (192, 144), flags=cv2.INTER_LINEAR)
        yield np.clip(view + rng.normal(0, noise, view.shape), 0, 255).astype(np.uint8)


def _pasted(image: np.ndarray, patch: np.ndarray, shift: np.ndarray) -> np.ndarray:
    size = image.shape[1::-1]
    mask = cv2.warpAffine(np.ones(patch.shape[:2], np.float32), shift, size)[..., None]
    return image * (1 - mask) + cv2.warpAffine(patch, shift, size) * mask


def detected(path: Path, **job: object) -> Timeline:
    return worker_for(resolve_model("motion")[0], Job(out=None, **job))(path)  # type: ignore[arg-type]


@pytest.mark.parametrize("fps", [12, 25, 60])
def test_a_moving_square_under_a_panning_camera(tmp_path, fps):
    clip = write_clip(tmp_path / "pan.mp4", pictures(6, fps, pan=25, noise=2, moving=(2.0, 4.0)), fps)
    (segment,) = detected(clip).results["pan"]
    assert segment.label == "motion" and 0.5 < segment.score < 1
    assert abs(segment.start_s - 2.0) < 0.3 and abs(segment.end_s - 4.0) < 0.3


@pytest.mark.parametrize("noise", [0.0, 4.0])
@pytest.mark.parametrize("pan", [0.0, 25.0])
def test_nothing_moves(tmp_path, pan, noise):
    clip = write_clip(tmp_path / "still.mp4", pictures(5, 20, pan=pan, noise=noise), 20)
    assert detected(clip).results["still"] == ()


@pytest.mark.parametrize(("width", "height"), [(128, 16), (500, 30), (2000, 20), (16, 400)])
def test_long_pictures(tmp_path, width, height):
    """OpenCV's solver ends the process on some of them."""
    rng = np.random.default_rng(0)
    clip = write_clip(tmp_path / "long.mp4", [rng.integers(0, 255, (height, width, 3), np.uint8) for _ in range(6)], 10)
    command = [sys.executable, "-m", "vidtad", "detect", str(clip), "--model", "motion", "--out", "-"]
    assert subprocess.run(command, capture_output=True).returncode == 0


def test_times_are_those_of_the_frames(tmp_path):
    """Frames shown at uneven moments: the square moves between pictures 20 and 40, wherever those lie."""
    gaps = np.where(np.arange(79) % 2, 40, 80)
    pts = np.concatenate([[0], np.cumsum(gaps)]).tolist()
    drawn = list(pictures(8, 10, moving=(2.0, 4.0)))
    clip = write_clip(tmp_path / "vfr.mkv", drawn, 20, pts=pts, time_base=Fraction(1, 1000))
    (segment,) = detected(clip).results["vfr"]
    assert abs(segment.start_s - pts[20] / 1000) < 0.2 and abs(segment.end_s - pts[40] / 1000) < 0.2


class Counted:
    """A picture that knows how many of its kind are alive."""

    alive = most = 0

    def __init__(self, pixels: np.ndarray):
        self.pixels = pixels
        Counted.alive += 1
        Counted.most = max(Counted.most, Counted.alive)

    def __del__(self) -> None:
        Counted.alive -= 1

    def rgb(self, height: int, width: int) -> np.ndarray:
        return cv2.resize(self.pixels, (width, height), interpolation=cv2.INTER_AREA)


def test_pictures_are_let_go():
    frames = (Frame(i, i / 10, 0.1, 144, 192, Counted(p)) for i, p in enumerate(pictures(4, 10)))
    found = list(steps(frames))
    assert [step.frames for step in found] == list(range(2, 41))
    assert found[0].start_s == 0 and found[-1].end_s == pytest.approx(3.9)
    assert Counted.most <= 3


def test_the_command_line(tmp_path):
    clip = write_clip(tmp_path / "pan.mp4", pictures(6, 12, pan=10, moving=(2.0, 4.0)), 12)
    run = CliRunner().invoke(app, ["detect", str(clip), "--model", "motion", "--out", str(tmp_path / "tl")])
    assert run.exit_code == 0 and "motion" in run.stdout and run.stderr == ""
    document = json.loads((tmp_path / "tl" / "pan.json").read_text())
    assert document["detector"]["name"] == "motion" and "demonstration" not in document
    again = CliRunner().invoke(app, ["detect", str(clip), "--model", "motion", "--out", str(tmp_path / "tl"), "--json"])
    assert json.loads(again.stdout) == document
    everything = len(document["results"]["pan"])
    assert everything == 1
    assert detected(clip, min_score=0.99).results["pan"] == ()


def test_what_it_does_not_take(tmp_path):
    np.save(tmp_path / "rows.npy", np.zeros((5, 8), np.float32))
    with pytest.raises(InputError, match="looks at pictures, not at features"):
        detected(tmp_path / "rows.npy")
    with pytest.raises(InputError, match="leave out --weights"):
        detected(tmp_path / "rows.npy", weights="random")
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(InputError, match=r"text\.mp4"):
        detected(tmp_path / "text.mp4")


def test_the_shipped_file_says_what_it_is():
    shipped = load_bundle(BUILTIN_FOLDER / "motion.safetensors")
    assert (shipped.head, shipped.classes, shipped.channels) == ("motion", ("motion",), ())
    (row,) = [row for row in list_models() if row["name"] == "motion"]
    assert row["builtin"] and row["classes"] == 1 and row["task"] == "temporal detection"
