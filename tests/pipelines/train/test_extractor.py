import json
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner, Result

from tests.bundles import seeded_react
from tests.clips import numbered_frames, write_clip
from vidtad.cli import app
from vidtad.errors import InputError
from vidtad.extractors import PRESETS, random_weights
from vidtad.features import Features, Grid, Provenance
from vidtad.hub.bundle import load_bundle, save_bundle
from vidtad.pipelines.extract.extraction import bundle_extractor, digest
from vidtad.pipelines.train import extractor
from vidtad.pipelines.train.extractor import Sampling, bundled_extractor, choose_extractor, extractor_of_features
from vidtad.video import VideoInfo


def features_by(weights: str, digest: str) -> Features:
    convention = PRESETS["tiny3d"].convention
    grid = Grid.regular(Fraction(15), convention.stride, convention.window, 9)
    video = VideoInfo("v.mp4", 64, 48, Fraction(15), 4.0, 60)
    made = Provenance("tiny3d", convention.channels, weights, digest, settings={"fps": "15"})
    return Features(np.zeros((9, convention.width), np.float32), grid, video, made)


def test_small_weights_travel_inside() -> None:
    chosen = choose_extractor("tiny3d", "random:4")
    fields = bundled_extractor(features_by("random:4", chosen.loaded.weights_sha256), chosen).fields
    assert fields["extractor"] == "tiny3d" and fields["sampling"] == {"window": 16, "stride": 4, "fps": "15"}
    state = random_weights("tiny3d", 4)
    assert all(torch.equal(fields["extractor_weights"][key], state[key]) for key in state)


def test_large_weights_stay_outside_and_the_user_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extractor, "SMALL", 1000)
    file = tmp_path / "w.pt"
    torch.save(random_weights("tiny3d", 4), file)
    chosen = choose_extractor("tiny3d", str(file))
    made = bundled_extractor(features_by("w.pt", chosen.loaded.weights_sha256), chosen)
    assert "extractor_weights" not in made.fields and "too large to embed" in made.notes[0]
    assert made.fields["extractor_sha256"] == chosen.loaded.weights_sha256
    random = choose_extractor("tiny3d", "random:4")
    made = bundled_extractor(features_by("random:4", random.loaded.weights_sha256), random)
    assert made.fields["extractor_checkpoint"] == "random:4" and not made.notes


def test_published_weights_are_named() -> None:
    made = bundled_extractor(features_by("i3d-rgb-kinetics400", "0" * 64), None)
    assert made.fields["extractor_checkpoint"] == "i3d-rgb-kinetics400" and not made.notes


def test_features_of_other_weights_are_refused() -> None:
    with pytest.raises(InputError, match="made with weights random:4"):
        bundled_extractor(features_by("random:4", "1" * 64), choose_extractor("tiny3d", "random:5"))


def test_random_features_find_their_extractor_again_and_files_do_not() -> None:
    found = extractor_of_features(features_by("random:4", "1" * 64), None)
    assert found is not None and found.loaded.weights == "random:4"
    assert extractor_of_features(features_by("w.pt", "1" * 64), None) is None


def test_a_bundle_gives_its_extractor(tmp_path: Path) -> None:
    path = seeded_react(tmp_path / "b.safetensors", seed=3)
    chosen = choose_extractor(None, str(path), Sampling(stride=8))
    assert chosen.loaded.extractor.convention.stride == 8 and chosen.loaded.weights == "bundle:b"
    with pytest.raises(InputError, match="does not hold weights of extractor i3d"):
        choose_extractor("i3d", str(path))
    with pytest.raises(InputError, match="does not hold weights"):
        choose_extractor(None, str(seeded_react(tmp_path / "c.safetensors", embed=False)))


def test_the_demonstration_lends_its_extractor() -> None:
    chosen = choose_extractor("tiny3d", None)
    assert "generated clips" in chosen.notes[0] and chosen.state is not None and not chosen.loaded.is_random


def test_detection_refuses_weights_other_than_those_of_training(tmp_path: Path) -> None:
    bundle = load_bundle(seeded_react(tmp_path / "b.safetensors", embed=False))
    right = choose_extractor("tiny3d", "random:7").loaded.weights_sha256
    asked = replace(bundle, extractor_checkpoint="random:7", extractor_sha256=right)
    assert bundle_extractor(asked).weights == "random:7"
    save_bundle(asked, tmp_path / "d.safetensors")
    with pytest.raises(InputError, match="pass --weights FILE"):
        bundle_extractor(replace(asked, extractor_checkpoint="random:8"))


def test_extract_takes_the_extractor_of_a_bundle(tmp_path: Path) -> None:
    bundle = seeded_react(tmp_path / "b.safetensors", seed=3)
    clip = write_clip(tmp_path / "clip.mp4", numbered_frames(40), 25)

    def extract(*arguments: object) -> Result:
        return CliRunner().invoke(app, ["extract", str(clip), *map(str, arguments)])

    made = extract("--weights", bundle, "--out", tmp_path / "f")
    assert made.exit_code == 0, made.stderr
    sidecar = json.loads((tmp_path / "f" / "clip.json").read_text())
    state = load_bundle(bundle).extractor_weights
    assert state is not None and sidecar["extractor"] == "tiny3d"
    assert sidecar["weights"] == "bundle:b" and sidecar["weights_sha256"] == digest(state)
    wrong = extract("--weights", bundle, "--extractor", "i3d", "--out", tmp_path / "g")
    assert wrong.exit_code == 2 and "does not hold weights of extractor i3d" in wrong.stderr
    built_in = extract("--extractor", "tiny3d", "--out", tmp_path / "h")
    assert built_in.exit_code == 0 and "generated clips" in built_in.stderr
