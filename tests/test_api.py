"""The Python calls give what the commands give."""

from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import vidtad
from tests.bundles import seeded_react
from tests.clips import numbered_frames, write_clip
from vidtad.cli import app
from vidtad.errors import InputError
from vidtad.features import load_features
from vidtad.timeline import read_timeline


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clips") / "clip.mp4", numbered_frames(90), 25)


def test_extract_equals_the_command(clip: Path, tmp_path: Path) -> None:
    ours = vidtad.extract(clip, "tiny3d", weights="random:1", out=tmp_path / "api", device="cpu")
    command = ["extract", str(clip), "--extractor", "tiny3d", "--weights", "random:1", "--batch", "3"]
    assert CliRunner().invoke(app, [*command, "--out", str(tmp_path / "cli")]).exit_code == 0
    theirs = load_features(tmp_path / "cli" / "clip.npy")
    np.testing.assert_allclose(ours.values, theirs.values, rtol=0, atol=1e-5 * np.abs(theirs.values).max())
    assert ours.provenance.fingerprint() == theirs.provenance.fingerprint()


def test_detect_equals_the_command(clip: Path, tmp_path: Path) -> None:
    bundle = seeded_react(tmp_path / "seeded.safetensors", width=32, heads=4, queries=8, clip_len=16)
    assert CliRunner().invoke(app, ["detect", str(clip), "--model", str(bundle), "--out", str(tmp_path)]).exit_code == 0
    assert vidtad.detect(clip, bundle).results == read_timeline(tmp_path / "clip.json").results


def test_errors_are_sentences(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nope\.mp4"):
        vidtad.extract(tmp_path / "nope.mp4", "tiny3d", weights="random")


def test_importing_the_package_is_light() -> None:
    assert "detect" in dir(vidtad) or "detect" in vidtad.__all__
    with pytest.raises(AttributeError):
        vidtad.nothing  # noqa: B018
