"""From labelled boxes to a bundle that detects: each head, its scores, and going on after a stop."""

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.pipelines.detect.test_person_detector import ACAR, HEADS
from vidtad.errors import InputError
from vidtad.extractors.person_presets import TRUNKS
from vidtad.formats.person_labels import read_person_labels
from vidtad.heads.person.bundle import load_network
from vidtad.heads.person.initial_weights import starting_network
from vidtad.heads.person.job import PeopleJob
from vidtad.heads.person.recipes import ACAR_R50, PEOPLE_PRESETS
from vidtad.heads.person.training import Augmentation
from vidtad.hub.bundle import load_bundle
from vidtad.models.acfb import REPORTED
from vidtad.models.action_transformer import ActionTransformer, I3dTrunk
from vidtad.models.people_losses import TransformerLosses
from vidtad.pipelines.detect.person_detector import PeopleDetector, PeopleOptions
from vidtad.pipelines.train import person as training
from vidtad.pipelines.train.person import run_people_training, with_preset
from vidtad.synth import write_clips
from vidtad.synth.spec import Level
from vidtad.training.loop import Schedule

SHORT = Schedule(epochs=1, lr=1e-3, drop_epochs=())


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four clips with `labels.csv`: what each person does at whole seconds, by name."""
    folder = tmp_path_factory.mktemp("labelled")
    level = Level(seconds=(3.2, 3.2), people=(2, 2), width=128, height=96, idle_seconds=(0.1, 0.3))
    document = write_clips(folder, range(4), level)
    boxes = json.loads((folder / "boxes.json").read_text())
    with open(folder / "labels.csv", "w", newline="") as file:
        writer = csv.writer(file)
        for name, entry in document["database"].items():
            for second in (1, 2):
                for track, frames in boxes[name].items():
                    doing = [
                        a["label"]
                        for a in entry["annotations"]
                        if a["track"] == int(track) and a["segment"][0] <= second < a["segment"][1]
                    ]
                    for label in doing or [""]:
                        writer.writerow([name, second, *frames[second * 15], label, track])
    return folder


def job(labelled: Path, out: Path, model: str = "linear", **more: object) -> PeopleJob:
    trunk, config = HEADS[model]
    convention = replace(TRUNKS[trunk].convention, window=16)
    settings = {"trunk": trunk, "weights": "random", "config": config, "convention": convention, "schedule": SHORT}
    return PeopleJob(
        labelled / "labels.csv", labelled, out, model, **{**settings, "val_fraction": 0.25, "batch": 4, **more}
    )


@pytest.mark.parametrize("model", HEADS)
def test_every_head_becomes_a_bundle_that_detects(model: str, labelled: Path, tmp_path: Path) -> None:
    trained = run_people_training(job(labelled, tmp_path / "mine.safetensors", model))
    bundle = load_bundle(trained.path)
    assert bundle.head == model and set(bundle.classes) <= {"jump", "kick", "spin", "squat", "walk", "wave"}
    assert bundle.sampling["window"] == 16 and bundle.head_config.get("poses", 0) == 0
    assert 0 <= bundle.scores["validation"]["frame_mAP"] <= 1 and trained.scores.videos == 1
    video = next(labelled.glob("*.mp4"))
    options = PeopleOptions(boxes=labelled / "labels.csv")
    timeline = PeopleDetector(replace(bundle, decoding={"action_score": 0.0}), options)(video)
    assert {len(person.actions) for person in timeline.people[video.stem]} == {len(bundle.classes)}


def test_learning_in_bf16_needs_a_gpu(labelled: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="people learn in bf16 on a GPU alone"):
        job(labelled, tmp_path / "mine.safetensors", precision="bf16")
    with pytest.raises(InputError, match="--precision half"):
        job(labelled, tmp_path / "mine.safetensors", precision="half")
    asked = job(labelled, tmp_path / "mine.safetensors", precision="bf16", device="cuda")
    assert training._schedule(asked, None).precision == "bfloat16"
    assert training._schedule(replace(asked, precision="auto"), None).precision == "float32"


def test_two_videos_of_one_name_are_refused_but_not_what_is_hidden(labelled: Path, tmp_path: Path) -> None:
    videos = tmp_path / "videos"
    shutil.copytree(labelled, videos)
    clip = next(videos.glob("*.mp4"))
    for place in (".trash", "old.safetensors.work"):
        (videos / place).mkdir()
        shutil.copy(clip, videos / place / clip.name)
    asked = replace(job(labelled, tmp_path / "a.safetensors"), videos=videos)
    labels = read_person_labels(asked.annotations)
    parts = training._split(labels, labels.classes, asked)
    assert {key.video.parent for part in parts for key in part} == {videos}
    (videos / "sub").mkdir()
    shutil.copy(clip, videos / "sub" / clip.name)
    with pytest.raises(InputError, match="have one name"):
        run_people_training(asked)


def test_a_share_to_hold_out_is_one(labelled: Path, tmp_path: Path) -> None:
    for wrong in (-0.5, 1.0, 3.0, float("nan")):
        with pytest.raises(InputError, match="between 0 and 1"):
            job(labelled, tmp_path / "a.safetensors", val_fraction=wrong)


def test_a_second_call_goes_on_and_ends_alike(labelled: Path, tmp_path: Path) -> None:
    whole = run_people_training(job(labelled, tmp_path / "a.safetensors"))

    def stop(record: dict) -> None:
        if record.get("step") == 0:
            raise KeyboardInterrupt

    for_b = job(labelled, tmp_path / "b.safetensors")
    with pytest.raises(KeyboardInterrupt):
        run_people_training(for_b, stop)
    again = run_people_training(for_b)
    assert all(torch.equal(again.bundle.head_weights[key], value) for key, value in whole.bundle.head_weights.items())


def test_a_bank_head_goes_on_from_acar_and_keeps_its_trunk(labelled: Path, tmp_path: Path) -> None:
    first = run_people_training(job(labelled, tmp_path / "acar.safetensors", "acar"))
    second = replace(
        job(labelled, tmp_path / "acfb.safetensors", "acfb", weights=None, trunk=None, convention=None),
        start=first.path,
        config=replace(REPORTED, reduced=ACAR.reduced, hidden=ACAR.hidden),
        augmentation=Augmentation(jitter=0.0),
    )
    trained = run_people_training(second)
    network, source = load_network(trained.bundle), load_network(first.bundle)
    for key, value in source.trunk.state_dict().items():
        assert torch.equal(network.trunk.state_dict()[key], value), key
    for key, value in source.head.state_dict().items():
        assert torch.equal(network.bank.state_dict()[key], value), key
    assert not torch.equal(network.head.conv1.weight, source.head.conv1.weight)
    files = sorted((second.work / "banks").iterdir())
    assert len(files) == 3  # none of the held-out video
    files[0].write_bytes(b"x")
    with pytest.raises(InputError, match="damaged bank"):
        run_people_training(second)


def test_a_frozen_trunk_stays_as_it_was(labelled: Path, tmp_path: Path) -> None:
    first = run_people_training(job(labelled, tmp_path / "linear.safetensors"))
    more = job(labelled, tmp_path / "acar.safetensors", "acar", weights=None, convention=None, trunk=None)
    trained = run_people_training(replace(more, start=first.path, freeze_trunk=True))
    for key, value in first.bundle.extractor_weights.items():
        assert torch.equal(trained.bundle.extractor_weights[key], value), key


def test_going_on_from_a_bundle_of_the_same_head(labelled: Path, tmp_path: Path) -> None:
    first = run_people_training(job(labelled, tmp_path / "a.safetensors"))
    idle = Schedule(epochs=1, lr=1e-12, drop_epochs=())
    more = job(labelled, tmp_path / "b.safetensors", weights=None, convention=None, trunk=None, schedule=idle)
    again = run_people_training(replace(more, start=first.path))
    torch.testing.assert_close(again.bundle.head_weights, dict(first.bundle.head_weights), rtol=1e-4, atol=1e-6)
    assert again.bundle.sampling == first.bundle.sampling and again.bundle.training["started_from"] == "a.safetensors"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "acra"}, "did you mean acar"),
        ({"weights": None}, "starts from trained weights"),
        ({"videos": Path("nowhere")}, "no such folder"),
        ({"trunk": "slowfast/huge"}, "did you mean"),
    ],
)
def test_unusable_jobs_are_refused(changes: dict, message: str, labelled: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        run_people_training(replace(job(labelled, tmp_path / "x.safetensors"), **changes))


def test_labels_of_other_videos_are_refused(labelled: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="none of the 4 labelled videos"):
        run_people_training(replace(job(labelled, tmp_path / "x.safetensors"), videos=tmp_path))


@pytest.mark.parametrize("name", sorted(PEOPLE_PRESETS))
def test_a_preset_fills_what_the_job_leaves_open(name: str, tmp_path: Path) -> None:
    preset = PEOPLE_PRESETS[name]
    asked = PeopleJob(tmp_path, tmp_path, tmp_path / "x.safetensors", preset.model, preset=name)
    full = with_preset(asked)
    assert (full.trunk, full.config, full.schedule) == (preset.trunk, preset.config, preset.schedule)
    assert full.augmentation == preset.augmentation
    own = with_preset(replace(asked, schedule=SHORT, augmentation=Augmentation(flip=0.0), trunk="slowfast/tiny"))
    assert (own.schedule, own.augmentation, own.trunk) == (SHORT, Augmentation(flip=0.0), "slowfast/tiny")
    half = with_preset(replace(asked, epochs=preset.schedule.epochs * 2)).schedule
    assert half.epochs == 2 * preset.schedule.epochs and half.warmup_epochs == 2 * preset.schedule.warmup_epochs
    with pytest.raises(InputError, match="is for --model"):
        with_preset(replace(asked, model="linear"))


def test_released_schedules_and_heads_are_the_presets() -> None:
    r50, r101 = PEOPLE_PRESETS["acar-r50"], PEOPLE_PRESETS["acar-r101"]
    assert (r50.schedule.epochs, r50.schedule.drop_epochs) == (6, (5.6, 5.8))
    assert (r101.schedule.epochs, r101.schedule.drop_epochs) == (5, (4.6, 4.8))
    assert (r50.config.depth, r50.config.mlp_1x1) == (2, False)
    assert (r101.config.depth, r101.config.mlp_1x1) == (1, True)


def test_an_action_transformer_takes_the_last_blocks_of_i3d(tmp_path: Path) -> None:
    torch.manual_seed(3)
    whole = ActionTransformer(HEADS["action-transformer"][1]).i3d.state_dict()
    blocks = {key: value for key, value in whole.items() if key.startswith("Mixed_5")}
    for value in blocks.values():
        value.copy_(torch.rand(value.shape))
    torch.save({**I3dTrunk(8).state_dict(), **blocks, "logits.conv3d.bias": torch.zeros(2)}, tmp_path / "i3d.pt")
    asked = job(tmp_path, tmp_path / "x", "action-transformer", weights=str(tmp_path / "i3d.pt"))
    found = starting_network(asked, 3, 0)[0].head.i3d.state_dict()
    assert blocks and all(torch.equal(found[key], value) for key, value in blocks.items())


def test_losses_of_the_job_reach_training(labelled: Path, tmp_path: Path) -> None:
    def first_loss(name: str, **more: object) -> dict:
        asked = job(labelled, tmp_path / f"{name}.safetensors", "action-transformer", val_fraction=0, **more)
        records = run_people_training(asked).records
        return next(record for record in records if "loss" in record)

    silent = TransformerLosses(class_weight=0.0, box_weight=0.0, objectness_weight=0.0, proposal_weight=0.0)
    assert first_loss("a", losses=silent)["loss"] == 0 < first_loss("b")["loss"]


def test_an_acar_head_fits_its_trunk(tmp_path: Path) -> None:
    small = PeopleJob(tmp_path, tmp_path, tmp_path / "x", "acar", trunk="slowfast/tiny", weights="random")
    network, trunk, _ = starting_network(small, 3, 0)
    assert trunk == "slowfast/tiny" and network.head.config == replace(ACAR_R50.config, classes=3, width=576, poses=0)
