"""Benchmarks run: in sizes of seconds, whose figures mean nothing."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.render.report.browser import executable

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def run(script: str, *options: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, str(BENCHMARKS / script), *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=600)


def test_everything_that_waits_for_a_gpu_runs(tmp_path: Path) -> None:
    out = tmp_path / "gpu.json"
    done = run("gpu.py", "--device", "cpu", "--tiny", "--out", str(out))
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    kept = json.loads(out.read_text())
    assert kept["measurements"] == lines
    assert kept["tiny"] and kept["machine"]["torch"] == torch.__version__
    kinds = {line["case"].partition("-")[0] for line in lines}
    assert kinds == {"network", "extraction", "tvl1", "shrinking", "react", "actionformer", "acar"}
    assert all(isinstance(line.get("ratio", line.get("fraction")), float) for line in lines)
    assert all(line["mean_difference_px"] < 0.05 for line in lines if line["case"].startswith("tvl1"))
    assert all(line["equal"] for line in lines if line["case"].startswith("shrinking"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is one")
def test_without_a_gpu_it_says_so(tmp_path: Path) -> None:
    done = run("gpu.py", "--out", str(tmp_path / "gpu.json"))
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1 and "no GPU" in done.stderr
    assert not done.stdout and not (tmp_path / "gpu.json").exists()


def test_extraction_against_the_plain_loop_gives_the_same_rows(tmp_path: Path) -> None:
    out = tmp_path / "cpu.json"
    done = run(
        "extract.py", "--cases", "tiny3d", "--threads", "1", "--rounds", "1", "--height", "96", "--out", str(out)
    )
    assert done.returncode == 0, done.stderr
    line = json.loads(done.stdout)
    assert line["difference"] < 1e-5
    assert json.loads(out.read_text())["cases"] == [line]


@pytest.mark.skipif(executable() is None, reason="no Chromium on this machine")
def test_the_report_page_is_measured(tmp_path: Path) -> None:
    out = tmp_path / "report.json"
    done = run("report.py", "--segments", "300", "--hours", "0.2", "--shots", str(tmp_path), "--out", str(out))
    assert done.returncode == 0, done.stderr
    line = json.loads(done.stdout)
    assert json.loads(out.read_text()) == line and line["segments"] == 300
    for part in ("threshold", "view"):
        assert 0 <= line[part]["call"]["median_ms"] <= line[part]["two_frames"]["median_ms"]
    assert line["moving"]["median_ms"] > 0
    assert len(list(tmp_path.glob("*.png"))) == 3


def test_reading_is_measured_against_the_steps_it_feeds() -> None:
    done = run("reading.py", "--tiny")
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(line["files"], line["case"]) for line in lines] == [
        (files, case) for files in (".npy", ".npz") for case in ("actionformer", "react", "react-contrastive")
    ]
    assert all(line["read_s"] > 0 and line["share"] > 0 for line in lines)
