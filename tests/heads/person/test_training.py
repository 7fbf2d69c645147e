"""Training of person-box heads on generated clips: batches, parts, resuming, learning."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.pipelines.detect.test_person_detector import HEADS, SMALL
from vidtad.errors import InputError
from vidtad.extractors.keyframe_stream import KeyframeClips
from vidtad.extractors.person_presets import TRUNKS
from vidtad.formats.person_labels import read_person_labels, targets_of
from vidtad.heads.person.bundle import random_network
from vidtad.heads.person.training import (
    Augmentation,
    Clips,
    Keyframe,
    PeopleHead,
    Shown,
    collate,
    fill_banks,
    normalised,
)
from vidtad.models.people import PersonNetwork
from vidtad.models.roi import LinearConfig, LinearHead
from vidtad.synth import write_clips
from vidtad.synth.spec import Level
from vidtad.training.distributed import Part
from vidtad.training.loop import Schedule, train
from vidtad.video import open_video, resample

CONVENTION = replace(TRUNKS["slowfast/tiny"].convention, window=16)
LEVEL = Level(seconds=(3.2, 3.2), people=(2, 2), width=128, height=96)
PLAIN = Augmentation(flip=0.0, jitter=0.0)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> list[Keyframe]:
    return keyframes(tmp_path_factory.mktemp("train"))


def keyframes(folder: Path) -> list[Keyframe]:
    document = write_clips(folder, [5, 6], LEVEL)
    boxes = json.loads((folder / "boxes.json").read_text())
    keys = []
    for name in document["database"]:
        for second in (1, 2):
            where = np.array([frames[second * 15] for frames in boxes[name].values()])
            targets = np.eye(3, dtype=np.float32)[[second, (second + len(keys)) % 3]]
            keys.append(Keyframe(folder / f"{name}.mp4", float(second), where, targets))
    return keys


def head(name: str, data: list[Keyframe], **more: object) -> PeopleHead:
    trunk, config = HEADS[name]
    network = random_network(name, trunk, config)
    network.freeze_norm = bool(more.pop("freeze", True))
    convention = replace(TRUNKS[trunk].convention, window=16)
    if name == "acfb":
        more["banks"] = fill_banks(network, data, convention)
    return PeopleHead(network, data, convention, **{"batch_size": 2, "augmentation": PLAIN} | more)


def test_clips_by_random_access_are_those_of_the_stream(data: list[Keyframe]) -> None:
    clips = Clips(CONVENTION)
    for key in data[:2]:
        with open_video(key.video) as video:
            (streamed,) = KeyframeClips(resample(video, CONVENTION.fps), [key.time_s], CONVENTION)
        pictures, size = clips(key)
        np.testing.assert_array_equal(pictures, streamed.clips[0])
        assert size == (96, 128)
    clips.close()


def test_padding_is_zero_after_normalisation_and_boxes_follow() -> None:
    pictures = [np.full((2, 32, 48, 3), 200, np.uint8), np.full((2, 48, 32, 3), 100, np.uint8)]
    whole = np.array([[0.0, 0, 1, 1]])
    shown = [Shown(p, whole, np.ones((1, 3), np.float32), (p.shape[1] * 2, p.shape[2] * 2), None) for p in pictures]
    batch = collate(shown, 3, 2, 2)
    clips = normalised(batch, CONVENTION)
    assert clips.shape == (2, 3, 2, 48, 48)
    assert (clips[0, :, :, 32:] == 0).all() and (clips[0, :, :, :32] == (200 - 127.5) / 63.75).all()
    assert (clips[1, :, :, :, 32:] == 0).all() and (clips[1, :, :, :, :32] != 0).all()
    np.testing.assert_allclose(batch.boxes, [[0, 0, 1, 32 / 48], [0, 0, 32 / 48, 1]], rtol=1e-6)
    np.testing.assert_allclose(batch.pixels, [[0, 0, 47, 31], [0, 0, 31, 47]])
    np.testing.assert_allclose(batch.valid, [[1, 32 / 48], [32 / 48, 1]])


@pytest.mark.parametrize("name", HEADS)
def test_parts_of_a_batch_add_up_to_its_gradient(name: str, data: list[Keyframe]) -> None:
    def gradient(parts: list[Part]) -> tuple[float, torch.Tensor]:
        torch.manual_seed(0)
        learner = head(name, data)
        if name == "action-transformer":
            # Proposals are drawn from the generator of each process: only given boxes can add up exactly.
            learner.network.head.rpn = None
        learner.network.train()
        for module in learner.network.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        total = 0.0
        for part in parts:
            batch = next(iter(learner.batches(0, 1, 0, part)))
            loss = sum(learner.loss(batch, None).values())
            loss.backward()
            total += loss.item()
        return total, torch.cat([p.grad.flatten() for p in learner.network.parameters() if p.grad is not None])

    whole, sliced = gradient([Part()]), gradient([Part(0, 2), Part(1, 2)])
    assert sliced[0] == pytest.approx(whole[0], rel=1e-4)
    torch.testing.assert_close(sliced[1], whole[1], rtol=1e-2, atol=1e-4 * whole[1].abs().max().item())


def test_augmentation_mirrors_picture_and_boxes_together(data: list[Keyframe]) -> None:
    plain, mirrored = head("linear", data), head("linear", data, augmentation=Augmentation(flip=1.0, jitter=0.0))
    for one, other in zip(plain.batches(0, 3), mirrored.batches(0, 3), strict=True):
        torch.testing.assert_close(other.clips, one.clips.flip(3))
        torch.testing.assert_close(other.boxes[:, [0, 2]], 1 - one.boxes[:, [2, 0]])
        assert torch.equal(other.targets, one.targets)
    jittered = head("linear", data, augmentation=Augmentation(flip=0.0, jitter=0.075, short_sides=(64, 64)))
    batch = next(iter(jittered.batches(0, 3)))
    again = next(iter(jittered.batches(0, 3)))
    assert batch.clips.shape[2] == 64 and torch.equal(batch.boxes, again.boxes)
    assert not torch.equal(batch.boxes, next(iter(plain.batches(0, 3))).boxes)


def test_boxes_follow_a_random_crop(data: list[Keyframe]) -> None:
    change = Augmentation(flip=0.0, jitter=0.0, crop=(0.5, 0.9))
    learner, clips = head("linear", data, augmentation=change), Clips(CONVENTION)
    for seed in range(3):
        key = learner.data[seed]
        crop, remain = change.drawn(key.boxes, np.random.default_rng(seed))
        assert 0.5 <= (crop[2] - crop[0]) * (crop[3] - crop[1]) <= 0.9 and remain.any()
        left, top, right, bottom = crop = clips.on_pixels(key, crop)
        size = clips(key, (96, 128), crop)[1]
        whole_picture = clips(key, (96, 128))[0]
        cut = whole_picture[:, round(top * 96) : round(bottom * 96), round(left * 128) : round(right * 128)]
        np.testing.assert_array_equal(clips(key, size, crop)[0], cut)
        assert size == (round((bottom - top) * 96), round((right - left) * 128))
        shown = learner._shown(seed, None, (seed,), crop, remain)
        back = shown.boxes * np.tile([right - left, bottom - top], 2) + np.array([left, top, left, top])
        inside = np.clip(key.boxes[remain], [left, top] * 2, [right, bottom] * 2)
        np.testing.assert_allclose(back, inside, atol=1e-9)
        assert len(shown.targets) == remain.sum() and shown.original == size
    whole = next(iter(learner.batches(0, 1)))
    parts = [next(iter(learner.batches(0, 1, 0, Part(rank, 2)))) for rank in range(2)]
    assert whole.joint_boxes == len(whole.boxes) == sum(len(part.boxes) for part in parts)
    assert all(part.joint_boxes == whole.joint_boxes for part in parts)
    off, everyone = Augmentation(crop=(0.01, 0.01)).drawn(np.array([[0.0, 0, 1, 1]]), np.random.default_rng(0))
    assert off == (0, 0, 1, 1) and everyone.all()
    clips.close()


def test_frozen_norms_keep_their_statistics(data: list[Keyframe]) -> None:
    for freeze in (True, False):
        learner = head("linear", data, freeze=freeze)
        before = learner.network.trunk.s1["pathway0_stem"].bn.running_mean.clone()
        learner.network.train()
        learner.loss(next(iter(learner.batches(0, 0))), None)
        after = learner.network.trunk.s1["pathway0_stem"].bn.running_mean
        assert torch.equal(before, after) == freeze


def test_a_bank_head_needs_banks_and_leaves_the_filling_head_alone(data: list[Keyframe]) -> None:
    network = random_network("acfb", *HEADS["acfb"])
    with pytest.raises(InputError, match="fill them first"):
        PeopleHead(network, data, CONVENTION)
    from vidtad.models.acar import AcarHead

    filled = PersonNetwork(network.trunk, network.head, AcarHead(HEADS["acfb"][1]))
    banks = fill_banks(filled, data, CONVENTION)
    assert len(banks) == 4 and all(len(bank) == 4 for bank in banks.values())
    learner = PeopleHead(filled, data, CONVENTION, banks=banks)
    held = {id(p) for group in learner.parameters(1.0) for p in group["params"]}
    assert not held & {id(p) for p in filled.bank.parameters()}


@pytest.mark.parametrize("name", HEADS)
def test_every_head_trains_and_a_resumed_run_ends_alike(name: str, data: list[Keyframe], tmp_path: Path) -> None:
    schedule = Schedule(epochs=2, lr=1e-3, optimiser="sgd", checkpoint_steps=1, drop_epochs=(1.5,), clip_norm=1.0)
    change = Augmentation()

    def run(folder: Path, stop: int | None = None) -> dict[str, torch.Tensor]:
        torch.manual_seed(0)

        def watch(record: dict) -> None:
            if stop is not None and record.get("step") == stop:
                raise KeyboardInterrupt

        return train(head(name, data, augmentation=change), schedule, folder, progress=watch).state

    whole = run(tmp_path / "a")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "b", stop=1)
    resumed = run(tmp_path / "b")
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)


def test_a_network_learns_what_people_do(data: list[Keyframe], tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = random_network("linear", "slowfast/tiny", LinearConfig(**SMALL, dropout=0.0), seed=1)
    network.head = LinearHead(LinearConfig(**SMALL, dropout=0.0))
    learner = PeopleHead(network, data, CONVENTION, batch_size=4, augmentation=PLAIN)
    result = train(learner, Schedule(epochs=25, lr=1e-3, drop_epochs=(20,)), tmp_path)
    losses = [record["loss"] for record in result.records]
    assert losses[-1] < 0.35 * losses[0]


LABELS = """b,1,0.1,0.1,0.5,0.9,12,0
b,1,0.1,0.1,0.5,0.9,80,0
b,1,0.6,0.1,0.9,0.9,,1
a,2,0.1,0.1,0.5,0.9,juggle,0
a,3
"""


def test_labelled_people_are_read(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text(LABELS)
    found = read_person_labels(path)
    assert found.classes == ("stand", "watch (a person)", "juggle")
    people = found.videos["b"][1.0]
    assert list(people.values()) == [{"stand", "watch (a person)"}, set()] and found.videos["a"][3.0] == {}
    assert targets_of(list(people.values()), found.classes).tolist() == [[1, 1, 0], [0, 0, 0]]
    assert targets_of([], found.classes).shape == (0, 3)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,1,0.1,0.1,0.5,0.9,99,0\n", r":1: action 99"),
        ("a,1,0.5,0.1,0.1,0.9,12,0\n", r":1: a box must"),
        ("a,1,0.5,0.1\n", r":1: expected video"),
        ("a,1\n", "no box has an action"),
    ],
)
def test_unusable_labels_are_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "labels.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        read_person_labels(path)
