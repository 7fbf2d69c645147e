"""What runs on a GPU, on one that is pretended (see pretended_gpu.py): no device is mixed up, results are a CPU's.

Each command with a GPU is a process of its own, since pretending is for good.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from tests.pretended_gpu import POSSIBLE
from tests.pretended_training import losses
from vidtad.cli import app
from vidtad.synth import write_clips

ROOT = Path(__file__).parent.parent
PRETENDED = str(ROOT / "tests" / "pretended_gpu.py")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not POSSIBLE, reason="this torch takes no backend written in Python"),
]


def run(*arguments: object) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, PRETENDED, *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "VIDTAD_TRACEBACK": "1"}
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment)


def vidtad(*arguments: object, gpu: bool) -> None:
    if gpu:
        done = run(*arguments, "--device", "cuda", "-q")
        assert done.returncode == 0, done.stderr[-3000:]
    else:
        result = CliRunner().invoke(app, [*map(str, arguments), "--device", "cpu", "-q"])
        assert result.exit_code == 0, result.stderr


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clip")
    write_clips(folder, [1])
    return next(folder.glob("*.mp4"))


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("people")
    assert CliRunner().invoke(app, ["synth", "--videos", "1", "--people", "--out", str(folder), "-q"]).exit_code == 0
    return folder


def numbers(document: Any) -> list[float]:
    """All of a JSON document, in the order of its names."""
    if isinstance(document, dict):
        return [number for name in sorted(document) for number in numbers(document[name])]
    if isinstance(document, list):
        return [number for value in document for number in numbers(value)]
    return [document] if isinstance(document, float) else []


def test_a_tensor_left_on_the_processor_is_found(tmp_path: Path) -> None:
    script = tmp_path / "mixed.py"
    lines = ["import torch"]
    lines += ["there = torch.ones(2, device='cuda')", "print((there + there).sum().item(), there.device)"]
    script.write_text("\n".join([*lines, "there + torch.ones(2)"]))
    done = run(script)
    assert done.stdout.split() == ["4.0", "cuda:0"]
    assert done.returncode == 1 and "all tensors to be on the same device" in done.stderr


def test_features(clip: Path, tmp_path: Path) -> None:
    rows = {}
    for name, gpu, precision in (("cpu", False, "float32"), ("gpu", True, "float32"), ("short", True, "auto")):
        options = ("--extractor", "tiny3d", "--weights", "random", "--stride", 48, "--batch", 3)
        vidtad("extract", clip, *options, "--precision", precision, "--out", tmp_path / name, gpu=gpu)
        rows[name] = np.load(tmp_path / name / f"{clip.stem}.npy")
    largest = np.abs(rows["cpu"]).max()
    assert np.abs(rows["gpu"] - rows["cpu"]).max() < 1e-6 * largest
    # Half precision is what a GPU computes in unless told otherwise.
    assert 1e-4 * largest < np.abs(rows["short"] - rows["cpu"]).max() < 2e-2 * largest


@pytest.mark.parametrize("model", ["react", "actionformer"])
def test_timelines(model: str, tmp_path: Path) -> None:
    rows = tmp_path / "rows.npy"
    np.save(rows, np.random.default_rng(0).standard_normal((90, 128), dtype=np.float32))
    found = {}
    for gpu in (False, True):
        out = tmp_path / str(gpu)
        vidtad("detect", rows, "--model", model, "--out", out, gpu=gpu)
        found[gpu] = numbers(json.loads((out / "rows.json").read_text())["results"])
    assert len(found[True]) == len(found[False]) > 10
    assert np.allclose(found[True], found[False], atol=1e-4)


@pytest.mark.parametrize("model", ["demo-acfb", "demo-action-transformer"])
def test_people(model: str, people: Path, tmp_path: Path) -> None:
    (video,) = people.glob("*.mp4")
    asked = ("--persons", "own") if model == "demo-action-transformer" else ("--boxes", people / "people.csv")
    found = {}
    for gpu in (False, True):
        out = tmp_path / str(gpu)
        vidtad("detect", video, "--model", model, *asked, "--every", 4, "--precision", "float32", "--out", out, gpu=gpu)
        found[gpu] = numbers(json.loads((out / f"{video.stem}.json").read_text())["people"])
    assert len(found[True]) == len(found[False]) > 10
    assert np.allclose(found[True], found[False], atol=1e-4)


def test_learning(tmp_path: Path) -> None:
    (tmp_path / "gpu").mkdir()
    done = run("tests/pretended_training.py", "cuda", tmp_path / "gpu")
    assert done.returncode == 0, done.stderr[-3000:]
    found, expected = json.loads(done.stdout), losses("cpu", tmp_path / "cpu")
    assert found.keys() == expected.keys()
    for name, curve in expected.items():
        short = name.endswith("bfloat16")
        assert len(curve) >= 2
        assert np.allclose(found[name], curve, rtol=0.05 if short else 1e-3), name
        assert not short or found[name] != found[name.replace("bfloat16", "float32")]


def test_the_benchmark_of_a_gpu(tmp_path: Path) -> None:
    cases = ("network", "extraction", "shrinking", "react", "actionformer", "acar")
    done = run("benchmarks/gpu.py", "--tiny", "--out", tmp_path / "gpu.json", "--cases", *cases)
    assert done.returncode == 0, done.stderr[-3000:]
    lines = json.loads((tmp_path / "gpu.json").read_text())["measurements"]
    assert {line["device"] for line in lines} == {"pretended"}
    assert {line["case"].split("-")[0] for line in lines} == set(cases)
    assert all(line["equal"] and line["ours"]["on_the_device"] for line in lines if "equal" in line)
