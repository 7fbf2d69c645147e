"""`vidtad train` of a temporal head by two processes, as torchrun starts them."""

import json
from pathlib import Path

import pytest

from tests.pipelines.train.test_temporal import run, write_planted
from tests.torchrun import by_two
from vidtad.hub.bundle import load_bundle


@pytest.mark.slow
def test_two_processes_train_one_actionformer_and_one_writes(tmp_path: Path) -> None:
    truth = write_planted(tmp_path, 10)
    more = ("--annotations", truth, "--features", tmp_path, "--model", "actionformer", "--stride", 5, "--window", 5,
            "--epochs", 1, "--val-fraction", 0.2, "--device", "cpu")  # fmt: skip
    out, alone = tmp_path / "two.safetensors", tmp_path / "one.safetensors"
    by_two("train", *more, "--out", out)
    assert run("train", *more, "--out", alone).exit_code == 0
    logs = []
    for path in (out, alone):
        (log,) = path.with_name(f"{path.name}.work").glob("training-*/log.jsonl")
        logs.append([json.loads(line) for line in log.open()])
    assert [record["step"] for record in logs[0]] == [record["step"] for record in logs[1]]
    assert logs[0][0]["loss"] == pytest.approx(logs[1][0]["loss"], rel=0.05)
    assert load_bundle(out).classes == load_bundle(alone).classes
