import errno
import json
import os
import shutil
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from vidtad.errors import InputError, RunError
from vidtad.heads.react.decoding import react_detections
from vidtad.heads.react.training import ReActHead, ReActWindows
from vidtad.models.react import ReAct, ReActConfig
from vidtad.models.react_losses import LossConfig
from vidtad.runtime import files
from vidtad.training.loop import Schedule, learns_in, train
from vidtad.training.video import TrainingVideo

CONFIG = ReActConfig(
    in_channels=6,
    classes=3,
    width=16,
    heads=4,
    encoder_layers=1,
    decoder_layers=2,
    feed_forward=32,
    queries=6,
    clip_len=32,
)


def planted_videos(count: int, seed: int = 0, rows: int = 48) -> list[TrainingVideo]:
    """Videos of noise in which channel c is raised while action c happens."""
    random = np.random.default_rng(seed)
    videos = []
    for number in range(count):
        values = random.normal(0, 0.3, (rows, 6)).astype(np.float32)
        segments, labels = [], []
        for start in (4.0, 20.0, 34.0):
            length, label = random.uniform(6, 11), int(random.integers(3))
            values[int(start) : int(start + length), label] += 2
            segments.append((start, start + length))
            labels.append(label)
        videos.append(TrainingVideo(f"v{number}", values, np.array(segments), np.array(labels)))
    return videos


def head(**options) -> ReActHead:
    torch.manual_seed(5)
    data = ReActWindows(planted_videos(6), CONFIG.clip_len, CONFIG.stride_rate)
    return ReActHead(ReAct(CONFIG), data, **{"batch_size": 4, "contrastive_epochs": 1, **options})


SCHEDULE = Schedule(epochs=3, lr=1e-3, drop_epochs=(2,), checkpoint_steps=2)


class Killed(Exception):
    pass


def kill_at(step: int):
    def report(record) -> None:
        if record["step"] == step and "loss" in record:
            raise Killed

    return report


@pytest.mark.parametrize("schedule", [SCHEDULE, replace(SCHEDULE, ema=0.9, clip_norm=0.5, decay="cosine")])
@pytest.mark.parametrize("step", [1, 5, 8])
def test_resumed_run_follows_the_same_curve(tmp_path: Path, schedule: Schedule, step: int) -> None:
    whole = train(head(), schedule, tmp_path / "whole", seed=7)
    with pytest.raises(Killed):
        train(head(), schedule, tmp_path / "cut", seed=7, progress=kill_at(step))
    resumed = train(head(), schedule, tmp_path / "cut", seed=7)
    assert resumed.records == whole.records
    lines = (tmp_path / "cut" / "log.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == whole.records
    assert all(torch.equal(resumed.state[key], value) for key, value in whole.state.items())


def test_finished_run_is_returned_as_it_is(tmp_path: Path) -> None:
    first = train(head(), SCHEDULE, tmp_path)
    seen: list = []
    again = train(head(), SCHEDULE, tmp_path, progress=seen.append)
    assert not seen and again.records == first.records


@pytest.mark.parametrize("change", [{"seed": 8}, {"schedule": replace(SCHEDULE, lr=2e-3)}])
def test_another_run_in_the_folder_is_refused(tmp_path: Path, change: dict) -> None:
    train(head(), SCHEDULE, tmp_path, seed=7)
    with pytest.raises(InputError, match="another"):
        train(head(), change.get("schedule", SCHEDULE), tmp_path, seed=change.get("seed", 7))
    with pytest.raises(InputError, match="another"):
        train(head(losses=LossConfig(iou_decay=1.0)), SCHEDULE, tmp_path, seed=7)


def test_damaged_checkpoint_is_named(tmp_path: Path) -> None:
    (tmp_path / "checkpoint.pt").write_bytes(b"not a checkpoint")
    with pytest.raises(InputError, match=r"checkpoint\.pt"):
        train(head(), SCHEDULE, tmp_path)


def test_divergence_is_said(tmp_path: Path) -> None:
    broken = head(contrastive_epochs=0)
    torch.nn.init.constant_(broken.network.input_proj.layers[0].bias, float("nan"))
    with pytest.raises(RunError, match="diverged"):
        train(broken, SCHEDULE, tmp_path)


def test_first_phase_moves_the_projection_alone(tmp_path: Path) -> None:
    trained = head()
    before = {key: value.clone() for key, value in trained.network.state_dict().items()}
    train(trained, replace(SCHEDULE, epochs=1), tmp_path)
    after = trained.network.state_dict()
    changed = {key for key in before if not torch.equal(before[key], after[key])}
    assert changed == {"input_proj.layers.0.weight", "input_proj.layers.0.bias"}


def test_class_warm_up_starts_with_detection(tmp_path: Path) -> None:
    trained = head(losses=LossConfig(warmup_steps=2))
    records = train(trained, SCHEDULE, tmp_path).records
    contrastive = trained.steps(0)
    assert set(records[0]) >= {"aceenc_loss"} and "ce_loss" not in records[contrastive - 1]
    weights = [record["ce_loss"] > 0 for record in records[contrastive:]]
    assert weights == [False, False] + [True] * (len(weights) - 2)
    assert all(record["gt_loss"] > 0 for record in records[contrastive:])


def test_evaluation_sees_the_averaged_weights_and_leaves_training_alone(tmp_path: Path) -> None:
    schedule = replace(SCHEDULE, ema=0.5, evaluate_from=1)
    seen = []

    def evaluate(network) -> dict[str, float]:
        assert not network.training
        seen.append(network.input_proj.layers[0].weight.detach().clone())
        return {"average_mAP": 0.25}

    result = train(head(), schedule, tmp_path / "a", evaluate=evaluate)
    assert [r["evaluation"] for r in result.records if "evaluation" in r] == [{"average_mAP": 0.25}] * 2
    assert torch.equal(seen[-1], result.state["input_proj.layers.0.weight"])
    plain = train(head(), schedule, tmp_path / "b")
    assert all(torch.equal(plain.state[key], value) for key, value in result.state.items())


def test_batches_are_read_ahead_in_a_thread_of_their_own(tmp_path: Path) -> None:
    made, threads, ahead = head(), set(), []
    original = made.batches

    def watched(*arguments):
        for number, batch in enumerate(original(*arguments)):
            threads.add(threading.get_ident())
            ahead.append(number)
            yield batch

    made.batches = watched  # type: ignore[method-assign]
    result = train(made, SCHEDULE, tmp_path / "a")
    assert threading.get_ident() not in threads and len(ahead) == len(result.records)
    assert threading.active_count() < 20
    broken = head()
    broken.data.windows[0].video.values.resize(0, 6, refcheck=False)
    with pytest.raises(ValueError):
        train(broken, SCHEDULE, tmp_path / "b")


def test_learning_rates() -> None:
    steps = Schedule()
    assert [steps.factor(e) for e in (0, 12.9, 13, 19)] == pytest.approx([1, 1, 0.1, 0.1])
    cosine = Schedule(epochs=10, decay="cosine", warmup_epochs=2)
    assert [cosine.factor(e) for e in (0, 1, 2, 6, 10)] == pytest.approx([0, 0.5, 1, 0.5, 0])
    floored = replace(cosine, floor=0.1)
    assert [floored.factor(e) for e in (0, 2, 6, 10)] == pytest.approx([0, 1, 0.55, 0.1])
    complete = replace(cosine, warmup_complete=True)
    assert [complete.factor(b / 4, 1 / 4) for b in (0, 1, 7, 8)] == pytest.approx([0, 1 / 7, 1, 1])


def test_windows_of_single_class_skip_the_contrastive_phase() -> None:
    videos = [replace_labels(video) for video in planted_videos(2)]
    lonely = ReActHead(ReAct(CONFIG), ReActWindows(videos, 32), contrastive_epochs=4)
    assert lonely.contrastive_epochs == 0


def replace_labels(video: TrainingVideo) -> TrainingVideo:
    return TrainingVideo(video.name, video.values, video.segments, np.zeros(3, int))


def test_window_targets_are_where_the_actions_are() -> None:
    data = ReActWindows(planted_videos(4), 32)
    batch = data.batch(range(len(data)))
    start_end = batch.targets.bounds().numpy()
    lengths = (~batch.mask).sum(1).numpy()
    for (start, end), label, window in zip(
        start_end, batch.targets.labels.tolist(), batch.targets.window.tolist(), strict=True
    ):
        rows = batch.features[window, : lengths[window], label].numpy()
        first, last = round(float(start) * lengths[window]) + 1, round(float(end) * lengths[window]) - 1
        assert rows[first:last].mean() > 1.5


def test_contrastive_draws() -> None:
    data = ReActWindows(planted_videos(5), 32, inner=3)
    random = np.random.default_rng(0)
    for number in range(len(data)):
        (own, positive, negative), _, inner = data.draw(number, random)
        assert own == number and inner.shape == (3, 2)
        scale = data.windows[own].length / 32
        kept = data.windows[own].segments
        inside = [
            ((inner >= (m - s / 2) * scale - 1e-9) & (inner <= (m + s / 2) * scale + 1e-9)).all() for m, s in kept
        ]
        short = [((inner[:, 1] - inner[:, 0]) <= 0.5 * s * scale + 1e-9).all() for _, s in kept]
        assert any(a and b for a, b in zip(inside, short, strict=True))
        assert set(data.windows[own].labels) & set(data.windows[positive].labels)
        assert len(data.windows[negative].labels)
    pairs = data.pairs([data.draw(n, random) for n in (0, 1)])
    assert pairs.features.shape == (6, 32, 6) and pairs.inner.shape == (2, 3, 2)


def test_nothing_to_learn_from_is_said() -> None:
    empty = TrainingVideo("v", np.zeros((40, 6), np.float32), np.zeros((0, 2)), np.zeros(0))
    with pytest.raises(InputError, match="no training window"):
        ReActWindows([empty])
    wide = TrainingVideo("w", np.zeros((40, 7), np.float32), np.array([[1.0, 9.0]]), np.array([0]))
    with pytest.raises(InputError, match="widths"):
        ReActWindows([*planted_videos(1), wide])


@pytest.mark.parametrize(
    ("asked", "device", "preset", "expected"),
    [
        ("auto", "cpu", None, "float32"),
        ("auto", "cuda", None, "bfloat16"),
        ("auto", "cuda:1", "thumos14", "float32"),
        ("bf16", "cuda", "thumos14", "bfloat16"),
        ("float32", "cuda", None, "float32"),
    ],
)
def test_what_a_network_learns_in(asked: str, device: str, preset: str | None, expected: str) -> None:
    assert learns_in(asked, device, preset) == expected


def test_an_unknown_precision_is_refused() -> None:
    with pytest.raises(InputError, match="--precision fp16: training knows auto, float32, bf16"):
        learns_in("fp16", "cuda")


def test_mixed_precision_follows_the_same_path(tmp_path: Path) -> None:
    schedule = replace(SCHEDULE, epochs=2)
    full = train(head(), schedule, tmp_path / "a").records
    mixed = train(head(), replace(schedule, precision="bfloat16"), tmp_path / "b").records
    for a, b in zip(full, mixed, strict=True):
        assert b["loss"] == pytest.approx(a["loss"], rel=0.05)


@pytest.mark.slow
def test_react_learns_planted_actions(tmp_path: Path) -> None:
    config = replace(CONFIG, width=32, queries=10)
    torch.manual_seed(1)
    data = ReActWindows(planted_videos(40), config.clip_len, config.stride_rate)
    learner = ReActHead(ReAct(config), data, batch_size=16, contrastive_epochs=1)
    train(learner, Schedule(epochs=25, lr=2e-3, drop_epochs=(20,)), tmp_path)
    network = learner.network.eval()
    found = 0
    tests = planted_videos(10, seed=99)
    for video in tests:
        windows = [slice(0, 32), slice(8, 40), slice(16, 48)]
        features = torch.from_numpy(np.stack([video.values[w] for w in windows]))
        with torch.inference_mode():
            output = network(features, torch.zeros(3, 32, dtype=torch.bool))
        detections = react_detections(output.segments[-1].numpy(), output.scores().numpy(), windows)
        for (start, end), label in zip(video.segments, video.labels, strict=True):
            near = detections.segments[:6]
            inside = np.minimum(near[:, 1], end) - np.maximum(near[:, 0], start)
            iou = inside / (np.maximum(near[:, 1], end) - np.minimum(near[:, 0], start))
            found += bool(((iou > 0.5) & (detections.labels[:6] == label)).any())
    assert found >= 0.8 * 3 * len(tests)


def test_a_log_that_goes_on_the_way_is_whole_in_the_end(tmp_path: Path) -> None:
    whole = train(head(), SCHEDULE, tmp_path / "whole", seed=7)

    def harm(record) -> None:
        if record["step"] == 3:
            shutil.rmtree(tmp_path / "cut")
        if record["step"] == 5:
            os.truncate(tmp_path / "cut" / "log.jsonl", 10)

    cut = train(head(), SCHEDULE, tmp_path / "cut", seed=7, progress=harm)
    assert cut.records == whole.records
    assert (tmp_path / "cut" / "log.jsonl").read_bytes() == (tmp_path / "whole" / "log.jsonl").read_bytes()
    assert train(head(), SCHEDULE, tmp_path / "cut", seed=7).records == whole.records


def test_a_full_disk_is_one_sentence_and_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = train(head(), SCHEDULE, tmp_path / "whole", seed=7)
    room = (tmp_path / "whole" / "checkpoint.pt").stat().st_size * 3 // 2
    write, written = files._Writing.write, []

    def limited(self: files._Writing, data: bytes) -> int:
        written.append(len(data))
        if sum(written) > room:
            self.error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            raise self.error
        return write(self, data)

    with monkeypatch.context() as patch, pytest.raises(RunError, match=r"checkpoint\.pt: writing failed \(No space"):
        patch.setattr(files._Writing, "write", limited)
        train(head(), SCHEDULE, tmp_path / "cut", seed=7)
    assert not list((tmp_path / "cut").glob(".*")) and (tmp_path / "cut" / "checkpoint.pt").exists()
    assert train(head(), SCHEDULE, tmp_path / "cut", seed=7).records == whole.records
