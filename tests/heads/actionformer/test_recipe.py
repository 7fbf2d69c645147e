"""`vidtad train --model actionformer` end to end, and its settings."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.pipelines.train.test_temporal import SHORT, TINY, run
from vidtad.heads.actionformer.presets import PRESETS
from vidtad.heads.actionformer.recipe import ActionFormerRecipe, schedule_of
from vidtad.hub.bundle import load_bundle
from vidtad.models.actionformer_config import THUMOS14_I3D
from vidtad.synth import write_clips
from vidtad.training.plan import Facts, planned
from vidtad.training.video import TrainingVideo


def facts(actions: list[float], rows: int = 400, channels: int = 2048, classes: int = 20) -> Facts:
    starts = np.linspace(0, rows - max(actions), len(actions))
    segments = np.stack([starts, starts + np.array(actions)], axis=1)
    video = TrainingVideo("v", np.zeros((rows, channels), np.float32), segments, np.zeros(len(actions), int))
    return Facts.of([video], classes, 0.13)


def test_preset_is_the_released_one() -> None:
    plan = ActionFormerRecipe().plan(facts([20.0]), "thumos14")
    assert plan.config == THUMOS14_I3D
    assert plan.options["batch"] == 2 and plan.decoding["sigma"] == 0.5 and plan.decoding["top_k"] == 200
    schedule = plan.schedule
    assert (schedule.epochs, schedule.lr, schedule.weight_decay, schedule.ema) == (35, 1e-4, 0.05, 0.999)
    # 100 batches an epoch: lr 0 at first, the full rate at the end of the warm-up, 1e-8 at the end.
    rates = [schedule.lr * schedule.factor(step / 100, 1 / 100) for step in (0, 499, 500, 3500)]
    assert rates == pytest.approx([0, 1e-4, 1e-4, 1e-8])


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_has_a_schedule(name: str) -> None:
    assert schedule_of(PRESETS[name].training).epochs == PRESETS[name].training.epochs


def test_fewer_epochs_shorten_the_warm_up_too() -> None:
    plan = planned(ActionFormerRecipe(), facts([20.0]), "thumos14", 7, "cpu")
    assert plan.schedule.warmup_epochs == pytest.approx(1.0)


@pytest.mark.parametrize(("longest", "levels"), [(3.0, 3), (30.0, 4), (200.0, 6), (2000.0, 6)])
def test_longer_actions_ask_for_more_levels(longest: float, levels: int) -> None:
    plan = ActionFormerRecipe().scaled(facts([longest] * 5, rows=4000))
    config = plan.config
    assert config.levels == levels and config.ranges[-1][1] == 10000
    assert config.max_len % config.strides[-1] == 0
    assert [low for low, _ in config.ranges[1:]] == [high for _, high in config.ranges[:-1]]
    json.dumps(plan.to_json())


def test_one_command_from_videos_to_a_bundle_that_detects(tmp_path: Path) -> None:
    clips = tmp_path / "clips"
    write_clips(clips, range(6), replace(SHORT, seconds=(3.0, 4.0)), subset="")
    out = tmp_path / "mine.safetensors"
    result = run("train", "--videos", clips, "--annotations", clips / "ground_truth.json", *TINY, "--epochs", 2,
                 "--model", "actionformer", "--out", out)  # fmt: skip
    assert result.exit_code == 0, result.stderr
    bundle = load_bundle(out)
    assert bundle.head == "actionformer" and bundle.extractor_weights is not None
    video = next(clips.glob("*.mp4"))
    detected = run("detect", video, "--model", out, "--out", tmp_path / "t")
    assert detected.exit_code == 0, detected.stderr
    assert (tmp_path / "t" / f"{video.stem}.json").exists()
