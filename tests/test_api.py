"""The Python calls give what the commands give."""

import importlib
import inspect
import pydoc
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import vidtad
from tests.bundles import seeded_react
from tests.clips import numbered_frames, write_clip
from tests.pipelines.detect.test_person_detector import a_bundle
from tests.pipelines.detect.test_person_detector import clip as people_clip
from tests.pipelines.train.test_person import labelled
from vidtad.cli import app
from vidtad.errors import InputError
from vidtad.features import load_features
from vidtad.hub.bundle import load_bundle, save_bundle
from vidtad.timeline import read_timeline

__all__ = ["labelled", "people_clip"]


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


def test_people_equal_the_command(people_clip: Path, tmp_path: Path) -> None:
    bundle = save_bundle(a_bundle("acar"), tmp_path / "acar.safetensors")
    boxes = people_clip.with_name("boxes.csv")
    command = ["detect", str(people_clip), "--model", str(bundle), "--boxes", str(boxes), "--out", str(tmp_path)]
    assert CliRunner().invoke(app, command).exit_code == 0
    timeline = vidtad.detect(people_clip, bundle, people=vidtad.PeopleOptions(boxes=boxes))
    theirs = read_timeline(tmp_path / f"{people_clip.stem}.json")
    assert timeline.people == theirs.people and timeline.results == theirs.results
    with pytest.raises(InputError, match="leave out options about people"):
        vidtad.detect(people_clip, "motion", people=vidtad.PeopleOptions())


def test_train_both_kinds(labelled: Path, tmp_path: Path) -> None:
    people = vidtad.train(
        labelled / "labels.csv", tmp_path / "people.safetensors", videos=labelled, model="linear",
        weights="random", epochs=1, trunk="slowfast/tiny", val_fraction=0,
    )  # fmt: skip
    assert people.bundle.head == "linear" and load_bundle(people.path).sha256 and people.log.exists()
    labels = tmp_path / "labels.json"
    labels.write_text((labelled / "ground_truth.json").read_text().replace('"test"', '"training"'))
    segments = vidtad.train(
        labels, tmp_path / "segments.safetensors", videos=labelled, model="actionformer",
        weights="random", epochs=1, val_fraction=0, extractor="tiny3d", features=str(tmp_path / "features"),
    )  # fmt: skip
    assert segments.bundle.head == "actionformer" and segments.path.exists() and segments.log.exists()
    assert len(list((tmp_path / "features").glob("*.npy"))) == 4
    with pytest.raises(InputError, match="takes no option 'trunk'"):
        vidtad.train(labelled / "labels.csv", tmp_path / "x.safetensors", videos=labelled, trunk="slowfast/tiny")
    with pytest.raises(InputError, match="name their folder"):
        vidtad.train(labelled / "labels.csv", tmp_path / "x.safetensors", model="acar")


def test_errors_are_sentences(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nope\.mp4"):
        vidtad.extract(tmp_path / "nope.mp4", "tiny3d", weights="random")


def test_importing_the_package_is_light() -> None:
    script = "import sys, vidtad; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "numpy", "av", "cv2"} & set(loaded)
    assert all(callable(getattr(vidtad, name)) for name in ("detect", "train", "extract", "evaluate"))
    with pytest.raises(AttributeError):
        vidtad.nothing  # noqa: B018


def test_names_are_listed_before_anything_is_loaded() -> None:
    script = "import sys, vidtad; print(*dir(vidtad)); print('torch' in sys.modules)"
    names, torch = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert set(vidtad.__all__) <= set(names.split()) and torch == "False"


@pytest.mark.parametrize("name", ["detect", "evaluate", "extract", "train"])
def test_python_helps(name: str) -> None:
    call = getattr(vidtad, name)
    text = pydoc.render_doc(call, renderer=pydoc.plaintext)
    assert f"{name}(" in text and inspect.getdoc(call).partition("\n")[0] in text  # type: ignore[union-attr]
    first = next(iter(inspect.signature(call).parameters))
    assert first in {"detect": "inputs", "evaluate": "truth", "extract": "video", "train": "annotations"}[name]


def test_options_of_training_are_where_the_help_says() -> None:
    for path in re.findall(r"`(vidtad\.[\w.]+)`", vidtad.train.__doc__ or ""):
        module, _, kind = path.rpartition(".")
        assert hasattr(importlib.import_module(module), kind)
