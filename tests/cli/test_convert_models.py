"""`vidtad models convert`: a checkpoint of the authors' code to a bundle."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner, Result

from tests.heads.actionformer.test_convert import as_opentad, published
from vidtad.cli import app
from vidtad.hub.bundle import load_bundle
from vidtad.models.actionformer_config import EPIC_VERB
from vidtad.models.react import THUMOS14, ReAct


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["models", "convert", *map(str, arguments)])


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two verbs, as someone might have trained with the authors' code."""
    path = tmp_path_factory.mktemp("checkpoint") / "epoch_020.pth.tar"
    torch.save(published(replace(EPIC_VERB, classes=2)), path)
    return path


def test_own_classes_of_the_authors_code(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("take\nput\n")
    out = tmp_path / "mine.safetensors"
    options = ("--from", "actionformer", "--preset", "epic100-verb", "--classes", tmp_path / "names.txt")
    result = run(checkpoint, *options, "--out", out, "--json")
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["classes"] == ["take", "put"]
    bundle = load_bundle(out)
    assert bundle.name == "mine" and bundle.classes == ("take", "put") and bundle.width == 2304


def test_opentads(tmp_path: Path) -> None:
    contents = published(replace(EPIC_VERB, classes=2))
    torch.save({"state_dict_ema": as_opentad(contents["state_dict_ema"])}, tmp_path / "e.pth")
    options = ("--from", "opentad", "--preset", "epic100-verb", "--out", tmp_path / "o.safetensors")
    result = run(tmp_path / "e.pth", *options)
    assert result.exit_code == 0, result.stderr
    assert load_bundle(tmp_path / "o.safetensors").head_config["layout"] == "opentad"


def test_react(tmp_path: Path) -> None:
    torch.save({"state_dict": ReAct(THUMOS14).state_dict()}, tmp_path / "r.pth")
    result = run(tmp_path / "r.pth", "--from", "react", "--out", tmp_path / "r.safetensors")
    assert result.exit_code == 0, result.stderr
    assert load_bundle(tmp_path / "r.safetensors").head == "react"


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (("--from", "resnet"), "no layout is called"),
        (("--from", "actionformer", "--preset", "kinetics"), "no ActionFormer preset"),
        (("--from", "actionformer", "--preset", "thumos14"), "another shape"),
        (("--from", "react"), "missing"),
    ],
)
def test_what_does_not_fit_is_said(checkpoint: Path, tmp_path: Path, options: tuple[str, ...], word: str) -> None:
    result = run(checkpoint, *options, "--out", tmp_path / "x.safetensors")
    assert result.exit_code == 2 and word in " ".join(result.stderr.split())
    assert not (tmp_path / "x.safetensors").exists()


def test_class_names_must_be_as_many(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("take\n")
    options = ("--from", "actionformer", "--preset", "epic100-verb", "--classes", tmp_path / "names.txt")
    result = run(checkpoint, *options, "--out", tmp_path / "x.safetensors")
    assert result.exit_code == 2 and "1 class names for the 2" in " ".join(result.stderr.split())
