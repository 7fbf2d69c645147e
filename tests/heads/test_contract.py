"""What every head promises, whichever it is: each test runs over all of `HEADS`."""

from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tests.bundles import seeded_actionformer, seeded_react
from tests.heads.actionformer import test_training as actionformer_training
from tests.heads.person import test_training as person_training
from tests.training import test_loop
from tests.training.test_loop import Killed, kill_at
from vidtad.errors import InputError, RunError
from vidtad.extractors.keyframe_stream import KeyClip
from vidtad.extractors.person_presets import TRUNKS
from vidtad.heads.person.boxes import People
from vidtad.heads.person.bundle import load_network, person_bundle, random_network
from vidtad.heads.person.scoring import Scorer
from vidtad.heads.registry import HEADS, converters, head_of, layouts, load_detector, trainable
from vidtad.hub.bundle import Bundle, load_bundle, save_bundle
from vidtad.models.people import PersonNetwork
from vidtad.training.loop import Head, Schedule, train

SMALL_REACT = {"width": 16, "heads": 4, "feed_forward": 32, "queries": 6, "decoder_layers": 2, "encoder_layers": 1}
SEEDED = {
    "react": lambda path: seeded_react(path, clip_len=16, **SMALL_REACT),
    "actionformer": seeded_actionformer,
}
BACKBONES = {
    "linear": "slowfast/tiny",
    "acar": "slowfast/tiny",
    "acfb": "slowfast/tiny",
    "action-transformer": "i3d/tiny",
}
LEARNERS = {"react": test_loop.head, "actionformer": actionformer_training.head}
ON_FEATURES = [name for name, spec in HEADS.items() if spec.feeds == "features"]
ON_PERSONS = [name for name, spec in HEADS.items() if spec.feeds == "person clips"]
TRAINED = [name for name in trainable() if name != "linear"]
"""The linear head learns as every other person head does, and has no configuration of a test's size."""


def person_network(name: str) -> PersonNetwork:
    return random_network(name, BACKBONES[name])


def saved(name: str, folder: Path) -> Path:
    """A bundle of a head with seeded weights."""
    path = folder / f"{name}.safetensors"
    if name in SEEDED:
        return SEEDED[name](path)
    network = person_network(name)
    classes = [f"class{number}" for number in range(network.head.config.classes)]
    return save_bundle(person_bundle(name, name, network, trunk=BACKBONES[name], classes=classes), path)


def steps(count: int, width: int) -> np.ndarray:
    return np.random.default_rng(count).normal(size=(count, width)).astype(np.float32)


def keyframes(*shown: int) -> tuple[list[KeyClip], list[People]]:
    """Keyframes with so many persons each, too far apart for a feature bank to join them."""
    random = np.random.default_rng(3)
    boxes = np.array([[0.1, 0.1, 0.6, 0.9], [0.3, 0.2, 0.9, 1.0]], np.float32)
    keys, persons = [], []
    for at, count in enumerate(shown):
        clip = random.integers(0, 255, (16, 64, 64, 3), np.uint8)
        keys.append(KeyClip(100.0 * at, clip[8], (clip,)))
        persons.append(People(boxes[:count], np.full(count, 0.9, np.float32)))
    return keys, persons


def scores(name: str, network: PersonNetwork, *shown: int) -> list[np.ndarray]:
    with torch.inference_mode():
        return [found.scores for found in Scorer(network, TRUNKS[BACKBONES[name]].convention)([keyframes(*shown)])]


def test_every_head_is_under_test() -> None:
    assert set(ON_FEATURES) == SEEDED.keys() == LEARNERS.keys() and set(ON_PERSONS) == BACKBONES.keys()
    assert {name for name, spec in HEADS.items() if spec.feeds == "frames"} == {"motion"}


@pytest.mark.parametrize("name", HEADS)
def test_a_head_says_what_the_program_asks(name: str) -> None:
    spec = HEADS[name]
    assert spec.name == name and spec.says and "\n" not in spec.says
    decoding = spec.decoding()
    assert is_dataclass(decoding) and "display_score" in {field.name for field in fields(decoding)}
    assert 0 <= decoding().display_score <= 1
    assert (spec.load is not None) == (name in ON_FEATURES) and (spec.parts is not None) == (name in ON_PERSONS)
    assert spec.converters.keys() <= converters().keys() and spec.layouts.keys() <= layouts().keys()
    assert set(spec.preferred) <= spec.converters.keys()


@pytest.mark.parametrize("name", [*ON_FEATURES, *ON_PERSONS])
def test_seeded_weights_come_back_from_their_bundle(name: str, tmp_path: Path) -> None:
    bundle = load_bundle(saved(name, tmp_path))
    assert head_of(bundle) is HEADS[name]
    network = _network(bundle)
    stored, state = bundle.head_weights, network.state_dict()
    assert state and all(torch.equal(state[key], stored[key]) for key in state.keys() & stored.keys())
    assert state.keys() <= stored.keys()


@pytest.mark.parametrize("name", [*ON_FEATURES, *ON_PERSONS])
@pytest.mark.parametrize("change", ["missing", "unused"])
def test_weights_that_do_not_fit_are_refused(name: str, change: str, tmp_path: Path) -> None:
    bundle = load_bundle(saved(name, tmp_path))
    weights = dict(bundle.head_weights)
    if change == "missing":
        weights.pop(next(iter(weights)))
    else:
        weights["nobody.knows"] = torch.zeros(1)
    with pytest.raises(InputError):
        _network(replace(bundle, head_weights=weights))


def _network(bundle: Bundle) -> nn.Module:
    if bundle.head in ON_PERSONS:
        return load_network(bundle).head
    detector: Any = load_detector(bundle)
    return detector.network


@pytest.mark.parametrize("name", ON_FEATURES)
def test_padding_changes_no_detection(name: str, tmp_path: Path) -> None:
    """A batch or piece that is longer than the video is filled up; so is one that it shares with nothing else."""
    bundle = load_bundle(saved(name, tmp_path))
    values, found = steps(37, bundle.width), []
    for size in (1, 64):
        detector: Any = load_detector(bundle)
        setattr(detector, _size_of(detector), size)
        found.append(detector(values))
    assert len(found[0].scores)
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", ON_PERSONS)
def test_who_else_is_in_a_batch_changes_no_score(name: str) -> None:
    network = person_network(name).eval()
    together, alone = scores(name, network, 1, 2, 0), scores(name, network, 1)
    np.testing.assert_allclose(together[0], alone[0], rtol=1e-3, atol=1e-5)
    assert [len(found) for found in together] == [1, 2, 0]


def _size_of(detector: Any) -> str:
    """The attribute that says how much is computed together."""
    return next(name for name in ("batch", "piece") if hasattr(detector, name))


@pytest.mark.parametrize("name", ON_FEATURES)
def test_memory_that_runs_out_halves_what_is_computed_together(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = load_bundle(saved(name, tmp_path))
    values = steps(3000, bundle.width)
    detector: Any = load_detector(bundle)
    whole = detector(values)
    size = _size_of(detector)
    method = {"batch": "overlapping", "piece": "detect"}[size]
    compute, fails = getattr(detector.network, method), [True]

    def full(*arguments: Any) -> Any:
        if fails.pop() if fails else False:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB")
        return compute(*arguments)

    before = min(getattr(detector, size), len(values))
    monkeypatch.setattr(detector.network, method, full)
    found = detector(values)
    assert getattr(detector, size) == before // 2 and "memory ran out" in detector.warnings[0]
    np.testing.assert_allclose(found.scores, whole.scores, atol=1e-4)

    def never(*arguments: Any) -> Any:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB")

    monkeypatch.setattr(detector.network, method, never)
    with pytest.raises(RunError, match="out of memory on cpu"):
        detector(values)


class _Full(nn.Module):
    """A backbone on a device without room for more than one clip."""

    def __init__(self, backbone: nn.Module):
        super().__init__()
        self.backbone = backbone

    def forward(self, clips: torch.Tensor) -> Any:
        if len(clips) > 1:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB")
        return tuple(self.backbone(clips))


@pytest.mark.parametrize("name", ON_PERSONS)
def test_memory_that_runs_out_parts_a_batch_of_keyframes(name: str) -> None:
    network = person_network(name)
    full = PersonNetwork(_Full(network.trunk), network.head, network.bank).eval()
    for one, other in zip(scores(name, full, 1, 2, 1), scores(name, network, 1, 2, 1), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("id", converters())
def test_another_checkpoint_is_not_converted(id: str) -> None:
    with pytest.raises(InputError):
        converters()[id]({"nobody.knows": torch.zeros(1)}, "ab" * 32)


@pytest.mark.parametrize("name", layouts())
def test_a_file_of_another_layout_is_not_converted(name: str) -> None:
    for preset in ("thumos14", "none-such"):
        with pytest.raises(InputError):
            layouts()[name]({"state_dict": {"nobody.knows": torch.zeros(1)}}, preset, None, "ab" * 32)


def _learner(name: str, folder: Path) -> Head:
    if name in LEARNERS:
        return LEARNERS[name]()
    folder.mkdir(exist_ok=True)
    return person_training.head(name, person_training.keyframes(folder))


@pytest.mark.parametrize("name", TRAINED)
def test_two_steps_of_training_are_the_same_after_an_interruption(name: str, tmp_path: Path) -> None:
    schedule = Schedule(epochs=1, lr=1e-3, checkpoint_steps=1)
    clips = tmp_path / "clips"
    whole = train(_learner(name, clips), schedule, tmp_path / "whole", seed=7)
    assert len([record for record in whole.records if "loss" in record]) >= 2
    with pytest.raises(Killed):
        train(_learner(name, clips), schedule, tmp_path / "cut", seed=7, progress=kill_at(0))
    resumed = train(_learner(name, clips), schedule, tmp_path / "cut", seed=7)
    assert resumed.records == whole.records
    assert all(torch.equal(resumed.state[key], value) for key, value in whole.state.items())
