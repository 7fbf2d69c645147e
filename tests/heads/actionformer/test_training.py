import json
import os
import socket
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.training.test_loop import Killed, kill_at, planted_videos
from vidtad.errors import InputError
from vidtad.heads.actionformer.detector import predict_points
from vidtad.heads.actionformer.training import ActionFormerHead, ActionFormerSequences, Crop
from vidtad.models.actionformer import ActionFormer
from vidtad.models.actionformer_config import ActionFormerConfig
from vidtad.models.actionformer_losses import LossConfig, point_table
from vidtad.postprocess import Nms, point_candidates, soft_nms
from vidtad.training.distributed import Part, join, sum_gradients, sum_values
from vidtad.training.loop import Position, Schedule, moved, train
from vidtad.training.video import TrainingVideo
from vidtad.windows import resized

CONFIG = ActionFormerConfig(
    in_channels=6,
    classes=3,
    width=16,
    heads=2,
    stem_layers=1,
    ranges=((0, 6), (3, 12), (6, 1e4)),
    windows=5,
    max_len=64,
)
SCHEDULE = Schedule(
    epochs=4,
    lr=1e-3,
    weight_decay=0.05,
    decay="cosine",
    warmup_epochs=1,
    warmup_complete=True,
    clip_norm=1.0,
    ema=0.9,
    checkpoint_steps=1,
)


def head(count: int = 6, batch_size: int = 2, losses: LossConfig = LossConfig(), **changes) -> ActionFormerHead:
    torch.manual_seed(5)
    config = replace(CONFIG, **changes)
    data = ActionFormerSequences(planted_videos(count), config)
    return ActionFormerHead(ActionFormer(config), data, losses, batch_size=batch_size)


@pytest.mark.parametrize("step", [0, 4, 7])
def test_resumed_run_follows_the_same_curve(tmp_path: Path, step: int) -> None:
    """With drop path, moving average and running normaliser."""
    whole = train(head(), SCHEDULE, tmp_path / "whole", seed=7)
    with pytest.raises(Killed):
        train(head(), SCHEDULE, tmp_path / "cut", seed=7, progress=kill_at(step))
    resumed = train(head(), SCHEDULE, tmp_path / "cut", seed=7)
    assert resumed.records == whole.records
    assert [json.loads(line) for line in (tmp_path / "cut" / "log.jsonl").read_text().splitlines()] == whole.records
    assert all(torch.equal(resumed.state[key], value) for key, value in whole.state.items())


def test_normaliser_survives_a_restart(tmp_path: Path) -> None:
    trained = head()
    train(trained, SCHEDULE, tmp_path, seed=7)
    assert trained.criterion.normaliser != 100
    again = head()
    train(again, SCHEDULE, tmp_path, seed=7)
    assert again.criterion.normaliser == trained.criterion.normaliser


def test_another_data_set_in_the_folder_is_refused(tmp_path: Path) -> None:
    train(head(), SCHEDULE, tmp_path)
    with pytest.raises(InputError, match="another"):
        train(head(losses=LossConfig(smoothing=0.1)), SCHEDULE, tmp_path)


def test_a_last_incomplete_batch_is_dropped() -> None:
    made = head(count=5, batch_size=2)
    batches = list(made.batches(0, 0))
    assert made.steps(0) == len(batches) == 2 and head(count=1, batch_size=8).steps(0) == 1


def test_targets_are_where_the_actions_are() -> None:
    made = head(count=4, batch_size=4)
    batch = next(iter(made.batches(0, 0)))
    points = point_table(CONFIG, batch.features.shape[1])
    rows, numbers, labels = np.nonzero(batch.classes.numpy())
    assert len(rows) and batch.positives == int(batch.classes.any(-1).sum())
    for video, point, label in zip(rows, numbers, labels, strict=True):
        t, _, _, stride = points[point]
        left, right = batch.offsets[video, point].numpy() * stride
        # A step is the centre of its row; rows inside the action have the channel of its class raised.
        inside = batch.features[video, round(t - left + 1) : round(t + right - 1), label]
        assert inside.mean() > 1.4


def video(rows: int, segments: list[tuple[float, float]], width: int = 6) -> TrainingVideo:
    values = np.repeat(np.arange(rows, dtype=np.float32)[:, None], width, axis=1)
    return TrainingVideo(f"v{rows}", values, np.array(segments), np.zeros(len(segments), int))


def test_long_videos_are_cropped_to_the_training_length() -> None:
    data = ActionFormerSequences([video(200, [(50.5, 60.5)])], CONFIG)
    seen = set()
    for seed in range(30):
        crop = data.draw(0, np.random.default_rng(seed))
        assert crop.length == 64 and len(crop.labels) == 1
        whole = crop.segments + crop.start
        assert whole[0, 0] >= 50 and whole[0, 1] <= 60 and whole[0, 1] - whole[0, 0] >= 5
        assert data.rows(0, crop)[0, 0] == crop.start
        seen.add(crop.start)
    assert len(seen) > 10


def test_short_videos_lose_a_random_share() -> None:
    data = ActionFormerSequences([video(40, [(3.0, 9.0)])], CONFIG, crop=(0.5, 1.0))
    lengths = {data.draw(0, np.random.default_rng(seed)).length for seed in range(200)}
    assert min(lengths) == 20 and max(lengths) == 40
    whole = ActionFormerSequences([video(40, [(3.0, 9.0)])], CONFIG, crop=None)
    crop = whole.draw(0, np.random.default_rng(0))
    assert (crop.start, crop.length) == (0, 40) and crop.segments.tolist() == [[2.5, 8.5]]


def test_edge_of_a_crop_counts_half_a_window() -> None:
    plain, wide = (ActionFormerSequences([video(70, [(63.5, 66.5)])], CONFIG, edge=edge) for edge in (0.0, 2.0))
    kept = [{data.draw(0, np.random.default_rng(seed)).start for seed in range(300)} for data in (plain, wide)]
    # The action lies at 63 to 66; half of it is inside from a crop that ends at 64.5.
    assert min(kept[0]) == 1 and min(kept[1]) == 0


def test_resized_videos_fill_the_training_length() -> None:
    config = replace(CONFIG, resize=True)
    data = ActionFormerSequences([video(16, [(4.0, 8.0), (15.9, 40.0)])], config, crop=None)
    crop = data.draw(0, np.random.default_rng(0))
    # A step is a quarter row: the row's edges 4 and 8 are steps 16 and 32, half a step off their centres.
    assert crop.length == 64 and crop.segments.tolist() == [[15.5, 31.5]]
    np.testing.assert_array_equal(data.rows(0, crop), resized(data.videos[0][0].values, 64))


def test_unusable_data_is_said() -> None:
    with pytest.raises(InputError, match="no training video"):
        ActionFormerSequences([video(20, [(30.0, 40.0)])], CONFIG)
    with pytest.raises(InputError, match="wide"):
        ActionFormerSequences([video(20, [(3.0, 9.0)], width=4)], CONFIG)


def test_absent_classes_start_near_zero() -> None:
    config = replace(CONFIG, classes=5)
    made = ActionFormerHead(ActionFormer(config), ActionFormerSequences(planted_videos(6), config))
    start = made.network.cls_head.get_parameter("cls_head.conv.bias").sigmoid()
    assert start.tolist() == pytest.approx([0.01, 0.01, 0.01, 1e-6, 1e-6], rel=1e-3)


def test_padding_of_a_batch_changes_no_loss() -> None:
    """The batch is padded less than the released code pads."""
    made = head(count=2, batch_size=2)
    made.network.eval()
    crops = [Crop(0, 40, *made.data.videos[n][1:]) for n in range(2)]
    short = made.batch([0, 1], crops)
    assert short.features.shape[1] == 44
    losses = []
    for batch in (short, wider(made, short, crops)):
        made.criterion.normaliser = 100.0
        losses.append(sum(made.loss(batch, Position(0, 0, 0)).values()).item())
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def wider(made: ActionFormerHead, short, crops):
    features = torch.zeros(2, 64, 6)
    features[:, : short.features.shape[1]] = short.features
    points = point_table(CONFIG, 64)
    targets = [made._targets(points, crop) for crop in crops]
    return short._replace(
        features=features,
        mask=torch.arange(64).expand(2, -1) >= 40,
        classes=torch.from_numpy(np.stack([t.classes for t in targets])),
        offsets=torch.from_numpy(np.stack([t.offsets for t in targets])),
    )


def gradients(part: Part) -> dict[str, torch.Tensor]:
    """Summed gradients of a batch of three, drop path off."""
    made = head(count=3, batch_size=3, drop_path=1e-12)
    batch = next(iter(made.batches(0, 0, 0, part)))
    terms = made.loss(moved(batch, torch.device("cpu")), Position(0, 0, 0))
    sum(terms.values()).backward()
    sum_gradients(made.network.parameters(), part)
    found = {key: p.grad for key, p in made.network.named_parameters()}
    return {**found, "loss": torch.tensor(sum_values(terms, part)["cls_loss"])}


def process(rank: int, port: int, folder: str) -> None:
    numbers = {"MASTER_PORT": str(port), "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
    os.environ.update(MASTER_ADDR="127.0.0.1", **numbers)
    torch.set_num_threads(1)
    torch.save(gradients(join()), Path(folder) / f"{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_two_processes_train_as_one(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.spawn(process, (port, str(tmp_path)), nprocs=2)
    alone = gradients(Part())
    for rank in (0, 1):
        shared = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        for key, grad in alone.items():
            torch.testing.assert_close(shared[key], grad, rtol=1e-3, atol=1e-6)


def test_more_processes_than_videos() -> None:
    made = head(count=1, batch_size=1)
    batch = next(iter(made.batches(0, 0, 0, Part(1, 2))))
    terms = made.loss(batch, Position(0, 0, 0))
    assert not len(batch.features) and sum(terms.values()).item() == 0
    sum(terms.values()).backward()
    assert all(p.grad is not None and not p.grad.any() for p in made.network.parameters())
    assert made.criterion.normaliser == pytest.approx(90 + 0.1 * batch.positives)


def test_balanced_losses_need_one_process() -> None:
    made = head(losses=LossConfig(regression=0))
    next(iter(made.batches(0, 0)))
    with pytest.raises(InputError, match="one process"):
        next(iter(made.batches(0, 0, 0, Part(0, 2))))


@pytest.mark.slow
def test_actionformer_learns_planted_actions(tmp_path: Path) -> None:
    torch.manual_seed(1)
    config = replace(CONFIG, width=32)
    learner = ActionFormerHead(ActionFormer(config), ActionFormerSequences(planted_videos(32), config), batch_size=8)
    train(learner, replace(SCHEDULE, epochs=16, lr=3e-3, warmup_epochs=2, checkpoint_steps=1000), tmp_path)
    network = learner.network.eval()
    tests, found = planted_videos(10, seed=99), 0
    for seen in tests:
        kept = soft_nms(*point_candidates(*predict_points(network, seen.values)), Nms())
        for (start, end), label in zip(seen.segments, seen.labels, strict=True):
            near = kept.segments[:6] + 0.5
            inside = np.minimum(near[:, 1], end) - np.maximum(near[:, 0], start)
            iou = inside / (np.maximum(near[:, 1], end) - np.minimum(near[:, 0], start))
            found += bool(((iou > 0.5) & (kept.labels[:6] == label)).any())
    assert found >= 0.9 * 3 * len(tests)
