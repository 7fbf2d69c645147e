"""What runs on a GPU, on one that is pretended (see pretended_gpu.py): no device is mixed up, results are a CPU's.

Each command is a process of its own, since pretending is for good.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.pretended_gpu import OLDEST

ROOT = Path(__file__).parent.parent
PRETENDED = str(ROOT / "tests" / "pretended_gpu.py")
VERSION = tuple(int(part) for part in torch.__version__.split(".")[:2])
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(VERSION < OLDEST, reason="this torch takes no backend written in Python"),
]


def run(*arguments: object, gpu: bool = True) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, *([PRETENDED] if gpu else ["-m", "vidtad"]), *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "VIDTAD_TRACEBACK": "1"}
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment)


def vidtad(*arguments: object, gpu: bool) -> str:
    done = run(*arguments, "--device", "cuda" if gpu else "cpu", "-q", gpu=gpu)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clip")
    assert run("synth", "--videos", 1, "--out", folder, "-q", gpu=False).returncode == 0
    return next(folder.glob("*.mp4"))


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("people")
    assert run("synth", "--videos", 1, "--people", "--out", folder, "-q", gpu=False).returncode == 0
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


def losses(folder: Path) -> list[float]:
    (log,) = folder.rglob("log.jsonl")
    return [json.loads(line)["loss"] for line in log.read_text().splitlines() if '"loss"' in line]


@pytest.fixture(scope="module")
def features(clip: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Labels and features of three videos."""
    folder = tmp_path_factory.mktemp("features")
    generator = np.random.default_rng(0)
    rows = ["video,start,end,label"]
    for number in range(3):
        np.save(folder / f"v{number}.npy", generator.standard_normal((130, 24), dtype=np.float32))
        rows += [f"v{number},{start},{start + 4},{'ab'[start // 5 % 2]}" for start in range(2, 18, 5)]
    labels = folder / "labels.csv"
    labels.write_text("\n".join(rows) + "\n")
    return labels, folder


def test_learning(features: tuple[Path, Path], tmp_path: Path) -> None:
    labels, folder = features
    given = ("--annotations", labels, "--features", folder, "--fps", 25, "--stride", 4, "--window", 16, "--epochs", 1)
    learned = {}
    for name, model, gpu in (("exact", "react", False), ("short", "react", True), ("other", "actionformer", True)):
        out = tmp_path / name / "made.safetensors"
        out.parent.mkdir()
        vidtad("train", *given, "--model", model, "--out", out, gpu=gpu)
        learned[name] = np.array(losses(out.parent))
    # Half precision is what a GPU learns in unless told otherwise.
    assert 1e-5 < np.abs(learned["short"] / learned["exact"] - 1).max() < 0.1
    assert len(learned["other"]) > 10 and learned["other"][-1] < learned["other"][0]


def test_people_are_learned(people: Path, tmp_path: Path) -> None:
    given = ("--videos", people, "--annotations", people / "people.csv", "--label-map", people / "classes.pbtxt")
    model = ("--model", "acar", "--trunk", "slowfast/tiny", "--weights", "random")
    settings = (*model, "--epochs", 1, "--val-fraction", 0)
    learned = {}
    for gpu in (False, True):
        out = tmp_path / str(gpu) / "made.safetensors"
        out.parent.mkdir()
        vidtad("train", *given, *settings, "--out", out, gpu=gpu)
        learned[gpu] = losses(out.parent)
    assert len(learned[True]) > 0 and np.allclose(learned[True], learned[False], rtol=1e-3)


def test_the_benchmark_of_a_gpu(tmp_path: Path) -> None:
    cases = ("network", "extraction", "shrinking", "react", "actionformer", "acar")
    done = run("benchmarks/gpu.py", "--tiny", "--out", tmp_path / "gpu.json", "--cases", *cases)
    assert done.returncode == 0, done.stderr[-3000:]
    lines = json.loads((tmp_path / "gpu.json").read_text())["measurements"]
    assert {line["device"] for line in lines} == {"pretended"}
    assert {line["case"].split("-")[0] for line in lines} == set(cases)
    assert all(line["equal"] and line["ours"]["on_the_device"] for line in lines if "equal" in line)
