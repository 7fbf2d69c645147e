"""`vidtad detect` with an ActionFormer bundle, from a clip to a timeline on disk."""

from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from tests.bundles import seeded_actionformer
from tests.clips import numbered_frames, write_clip
from vidtad.cli import app
from vidtad.timeline import read_timeline


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clips") / "clip.mp4", numbered_frames(150), 25)


def test_video_to_timeline(clip: Path, tmp_path: Path) -> None:
    bundle = seeded_actionformer(tmp_path / "seeded.safetensors")
    result = run("detect", clip, "--model", bundle, "--out", tmp_path / "t")
    assert result.exit_code == 0, result.stderr
    timeline = read_timeline(tmp_path / "t" / "clip.json")
    segments = timeline.results["clip"]
    assert segments and all(0 <= s.start_s < s.end_s <= 6.0 for s in segments)
    assert {s.label for s in segments} <= {"jump", "wave", "walk"}
    assert [s.score for s in segments] == sorted((s.score for s in segments), reverse=True)
    assert timeline.detector["head"] == "actionformer" and timeline.detector["random_weights"] is True


def test_two_steps_give_the_same_timeline_as_one(clip: Path, tmp_path: Path) -> None:
    bundle = seeded_actionformer(tmp_path / "b.safetensors", embed=False)
    weights = ("--weights", "random:7")
    assert run("extract", clip, "--extractor", "tiny3d", *weights, "--out", tmp_path / "f").exit_code == 0
    assert run("detect", tmp_path / "f", "--model", bundle, "--out", tmp_path / "two").exit_code == 0
    assert run("detect", clip, "--model", bundle, *weights, "--out", tmp_path / "one").exit_code == 0
    one, two = (read_timeline(tmp_path / folder / "clip.json") for folder in ("one", "two"))
    assert one.results == two.results and one.results["clip"]
