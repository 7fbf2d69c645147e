"""Who does what, from a generated clip to a timeline, with small seeded networks of every head."""

import csv
import io
import json
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

from vidtad.errors import InputError, RunError
from vidtad.extractors.person_presets import TRUNKS
from vidtad.formats.ava import read_boxes
from vidtad.formats.interchange import render
from vidtad.heads.person import boxes as persons
from vidtad.heads.person.bundle import (
    convention_of,
    load_network,
    person_bundle,
    random_bundle,
    random_network,
    sampling_of,
)
from vidtad.heads.person.segments import MergeRule, merged
from vidtad.hub.bundle import Bundle, load_bundle, save_bundle
from vidtad.models.acar import AcarConfig, AcarHead
from vidtad.models.action_transformer import ActionTransformerConfig
from vidtad.models.people import PersonNetwork
from vidtad.models.roi import LinearConfig
from vidtad.pipelines.detect import person_detector as detection
from vidtad.pipelines.detect.person_detector import PeopleDetector, PeopleOptions
from vidtad.runtime.files import sha256
from vidtad.synth import write_clips
from vidtad.synth.spec import Level
from vidtad.timeline import PersonBox, Timeline, read_timeline, write_timeline_json

CLASSES = ("jump", "wave", "walk")
SMALL = {"classes": 3, "width": 576}
ACAR = AcarConfig(**SMALL, reduced=16, hidden=8, poses=0, depth=2, mlp_1x1=False)
TRANSFORMER = ActionTransformerConfig(
    classes=3, channels=104, width=16, feedforward=16, reduced=4, embedding=4, shrink=8, proposals=6, rpn_width=8
)
HEADS = {
    "linear": ("slowfast/tiny", LinearConfig(**SMALL)),
    "acar": ("slowfast/tiny", ACAR),
    "acfb": ("slowfast/tiny", replace(ACAR, pool=False)),
    "action-transformer": ("i3d/tiny", TRANSFORMER),
}
SEEN = {"action_score": 0.0, "start": 0.5, "keep": 0.5}


def a_bundle(head: str, seed: int = 0, **more: object) -> Bundle:
    trunk, config = HEADS[head]
    network = random_network(head, trunk, config, seed)
    for name in {"projection", "fc2"} & dict(network.head.named_children()).keys():
        getattr(network.head, name).weight.data.mul_(0.1)  # else nearly all scores are 0 or 1
    sampling = sampling_of(TRUNKS[trunk].convention)
    return person_bundle(
        f"tiny-{head}",
        head,
        network,
        trunk=trunk,
        classes=CLASSES,
        **{"sampling": sampling, "decoding": SEEN, "training": {"random_weights": True}} | more,
    )


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two people for 3.4 s; beside the clip `boxes.csv` says where they are each second."""
    folder = tmp_path_factory.mktemp("people")
    level = Level(seconds=(3.4, 3.4), people=(2, 2), width=128, height=96)
    document = write_clips(folder, [5], level)
    (name,) = document["database"]
    boxes = json.loads((folder / "boxes.json").read_text())[name]
    with open(folder / "boxes.csv", "w", newline="") as file:
        writer = csv.writer(file)
        for second in range(4):
            for frames in boxes.values():
                writer.writerow([name, f"{second:04d}", *frames[second * 15], "", 0.9])
    return folder / f"{name}.mp4"


def options(clip: Path, **changes: object) -> PeopleOptions:
    return PeopleOptions(**{"boxes": clip.with_name("boxes.csv")} | changes)


@pytest.mark.parametrize("head", HEADS)
def test_every_head_from_video_to_timeline(head: str, clip: Path, tmp_path: Path) -> None:
    bundle = load_bundle(save_bundle(a_bundle(head), tmp_path / "b.safetensors"))
    timeline = PeopleDetector(bundle, options(clip))(clip)
    people = timeline.people[clip.stem]
    assert [person.time_s for person in people] == [0, 0, 1, 1, 2, 2, 3, 3]
    assert {person.track for person in people} == {0, 1}
    assert all(len(person.actions) == 3 for person in people)
    assert all(0 < score < 1 for person in people for _, score in person.actions)
    assert len({person.actions for person in people}) == 8, "people and times must tell"
    assert timeline.detector["random_weights"] and timeline.detector["persons"]["boxes"] == "boxes.csv"
    write_timeline_json(timeline, tmp_path / "t.json")
    assert read_timeline(tmp_path / "t.json").people == timeline.people
    for segment in timeline.results[clip.stem]:
        assert segment.track in (0, 1) and segment.score >= 0.5
        assert 0 <= segment.start_s < segment.end_s <= timeline.videos[clip.stem].duration_s


def test_boxes_of_the_file_are_those_of_the_timeline(clip: Path) -> None:
    timeline = PeopleDetector(a_bundle("linear"), options(clip))(clip)
    with open(clip.with_name("boxes.csv")) as file:
        rows = [list(map(float, row[1:6])) for row in csv.reader(file)]
    stored = sorted([person.time_s, *person.box] for person in timeline.people[clip.stem])
    np.testing.assert_allclose(stored, sorted(rows), atol=1e-6)


def test_batches_do_not_change_scores(clip: Path) -> None:
    one, three = (
        PeopleDetector(a_bundle("acfb"), options(clip, batch=batch))(clip).people[clip.stem] for batch in (1, 3)
    )
    for a, b in zip(one, three, strict=True):
        assert a.box == b.box
        np.testing.assert_allclose([s for _, s in sorted(a.actions)], [s for _, s in sorted(b.actions)], atol=2e-4)


def test_a_bank_of_no_reach_sees_its_own_second_alone(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    far = PeopleDetector(a_bundle("acfb"), options(clip))(clip).people[clip.stem]
    near_bundle = a_bundle("acfb", decoding={**SEEN, "bank_reach_s": 0.0})
    near = PeopleDetector(near_bundle, options(clip))(clip).people[clip.stem]
    assert [p.box for p in near] == [p.box for p in far] and near != far
    own = PeopleDetector(near_bundle, options(clip))
    monkeypatch.setattr(
        own.network.head, "relate_to", lambda maps, bank: own.network.head.relate(maps, maps.half().to(maps))
    )
    for a, b in zip(near, own(clip).people[clip.stem], strict=True):
        np.testing.assert_allclose([s for _, s in sorted(a.actions)], [s for _, s in sorted(b.actions)], atol=1e-4)


def test_a_bank_may_be_filled_by_another_head(clip: Path, tmp_path: Path) -> None:
    network = random_network("acfb", "slowfast/tiny", HEADS["acfb"][1])
    torch.manual_seed(9)
    filled = PersonNetwork(network.trunk, network.head, AcarHead(replace(ACAR, pool=False)))
    bundle = person_bundle("filled", "acfb", filled, trunk="slowfast/tiny", classes=CLASSES, decoding=SEEN)
    again = load_bundle(save_bundle(bundle, tmp_path / "b.safetensors"))
    loaded = load_network(again)
    torch.testing.assert_close(loaded.bank.conv1.weight, filled.bank.conv1.weight)
    plain = PeopleDetector(a_bundle("acfb"), options(clip))(clip).people[clip.stem]
    assert PeopleDetector(again, options(clip))(clip).people[clip.stem] != plain


def test_scales_and_flips_average_logits(clip: Path) -> None:
    bundle = a_bundle("linear")
    variants = [{"scales": (96,)}, {"scales": (128,)}, {"scales": (96, 128)}]
    found = [PeopleDetector(bundle, options(clip, **changes))(clip).people[clip.stem] for changes in variants]

    def logits(people: tuple[PersonBox, ...]) -> np.ndarray:
        scores = np.array([[dict(p.actions)[name] for name in CLASSES] for p in people])
        return np.log(scores / (1 - scores))

    np.testing.assert_allclose(logits(found[2]), (logits(found[0]) + logits(found[1])) / 2, atol=1e-3)
    flipped = PeopleDetector(bundle, options(clip, flip=True))(clip).people[clip.stem]
    assert flipped != found[0] and [p.box for p in flipped] == [p.box for p in found[0]]


def test_people_of_a_detector_and_keyframes_every_half_second(clip: Path) -> None:
    detector = PeopleDetector(
        a_bundle("linear"), PeopleOptions(persons="fasterrcnn-fast", persons_weights="random", every_s=0.5, batch=4)
    )
    timeline = detector(clip)
    assert {p.time_s for p in timeline.people[clip.stem]} <= {k / 2 for k in range(7)}
    assert any("dry run" in warning for warning in timeline.detector["warnings"])


def test_proposals_of_the_network_itself(clip: Path) -> None:
    bundle = a_bundle("action-transformer", decoding={**SEEN, "person_score": 0.0})
    people = PeopleDetector(bundle, PeopleOptions(persons="own"))(clip).people[clip.stem]
    assert people and all(len(p.actions) == 3 for p in people)
    with pytest.raises(InputError, match="proposes no boxes"):
        PeopleDetector(a_bundle("linear"), PeopleOptions(persons="own"))


def test_without_a_download_hog_stands_in_and_it_is_said(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(name: str, *args: object, **settings: object) -> object:
        if name == "hog":
            return persons.HogPersons()
        raise RunError("no connection")

    monkeypatch.setattr(detection, "load_persons", offline)
    timeline = PeopleDetector(a_bundle("linear"))(clip)
    assert timeline.detector["persons"] == {"detector": "hog"}
    said = " ".join(timeline.detector["warnings"])
    assert "a fallback" in said and "fasterrcnn could not be had: no connection" in said
    with pytest.raises(RunError):
        PeopleDetector(a_bundle("linear"), PeopleOptions(persons="fasterrcnn"))(clip)


def test_a_bundle_may_say_who_finds_the_people(clip: Path) -> None:
    bundle = a_bundle("action-transformer", decoding={**SEEN, "person_score": 0.0, "persons": "own"})
    timeline = PeopleDetector(bundle)(clip)
    assert timeline.detector["persons"] == {"detector": "own"} and timeline.people[clip.stem]


def test_thresholds_of_the_user_stand_above_the_bundles() -> None:
    bundle = a_bundle("linear", decoding={**SEEN, "person_score": 0.3})
    chosen = PeopleDetector(bundle, PeopleOptions(person_score=0.65)).decoding
    assert (chosen.person_score, chosen.action_score, chosen.start) == (0.65, 0.0, 0.5)


def test_bundles_of_random_weights_have_the_published_sizes() -> None:
    bundle = random_bundle("linear")
    assert bundle.training["random_weights"] and len(bundle.classes) == 80
    weights = sum(t.numel() for t in bundle.extractor_weights.values() if t.is_floating_point()) / 1e6
    assert weights == pytest.approx(33.64, abs=0.1)
    with pytest.raises(InputError, match="did you mean linear"):
        random_bundle("liner")


def test_a_video_missing_in_the_boxes_file_is_refused(clip: Path, tmp_path: Path) -> None:
    other = tmp_path / "boxes.csv"
    other.write_text("another,0001,0.1,0.1,0.5,0.9,,0.9\n")
    with pytest.raises(InputError, match="it has those of another"):
        PeopleDetector(a_bundle("linear"), PeopleOptions(boxes=other))(clip)


def test_keyframes_after_the_end_are_left_out_and_said(clip: Path, tmp_path: Path) -> None:
    late = tmp_path / "boxes.csv"
    late.write_text("".join(f"{clip.stem},{second},0.1,0.1,0.5,0.9,,0.9\n" for second in (1, 50, 60)))
    timeline = PeopleDetector(a_bundle("linear"), PeopleOptions(boxes=late))(clip)
    assert [p.time_s for p in timeline.people[clip.stem]] == [1.0]
    assert any(warning.startswith("2 keyframes") for warning in timeline.detector["warnings"])


def test_reading_stops_after_the_last_keyframe(clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    early = tmp_path / "boxes.csv"
    early.write_text(f"{clip.stem},0,0.1,0.1,0.5,0.9,,0.9\n")
    seen = []
    resample = detection.resample
    monkeypatch.setattr(
        detection, "resample", lambda *args: (seen.append(frame.index) or frame for frame in resample(*args))
    )
    timeline = PeopleDetector(a_bundle("linear"), PeopleOptions(boxes=early))(clip)
    assert len(timeline.people[clip.stem]) == 1 and max(seen) < 32 < timeline.videos[clip.stem].duration_s * 15


def test_bundles_that_do_not_fit_are_refused() -> None:
    with pytest.raises(InputError, match="class names"):
        person_bundle(
            "x", "linear", random_network("linear", *HEADS["linear"]), trunk="slowfast/tiny", classes=("a", "b")
        )
    bundle = a_bundle("linear")
    with pytest.raises(InputError, match="no person head is called"):
        load_network(replace(bundle, head="reakt"))
    with pytest.raises(InputError, match="holds no trunk weights"):
        load_network(replace(bundle, extractor_weights=None))
    with pytest.raises(InputError, match="unknown entry 'colour'"):
        load_network(replace(bundle, head_config={**bundle.head_config, "colour": 1}))
    assert convention_of(bundle) == (TRUNKS["slowfast/tiny"].convention, 1.0)
    changed = replace(bundle, sampling={**bundle.sampling, "resize": 128, "fps": "30", "stride": 15})
    convention, every_s = convention_of(changed)
    assert (convention.resize, convention.fps, every_s) == (128, Fraction(30), 0.5)


def test_random_trunk_weights_are_seeded() -> None:
    bundle = a_bundle("linear")
    weights = [load_network(bundle, f"random:{seed}").trunk.state_dict() for seed in (3, 3, 4)]
    key = "s2.pathway0_res0.branch2.a.weight"
    assert torch.equal(weights[0][key], weights[1][key]) and not torch.equal(weights[0][key], weights[2][key])


def person(time_s: float, track: int = 0, **scores: float) -> PersonBox:
    return PersonBox(time_s, track, (0.1, 0.1, 0.5, 0.9), 0.9, tuple(scores.items()))


def test_hysteresis() -> None:
    rule = MergeRule(start=0.6, keep=0.3, bridge_s=2.0)
    people = [
        person(0, walk=0.4), person(1, walk=0.7, wave=0.59), person(2, walk=0.3), person(3, walk=0.1),
        person(4, walk=0.9), person(6, walk=0.5), person(9, walk=0.8), person(1, 1, walk=0.65),
    ]  # fmt: skip
    found = merged(people, rule, step_s=1.0, duration_s=9.2)
    spans = [(s.track, s.start_s, s.end_s, pytest.approx(s.score)) for s in sorted(found, key=lambda s: s.start_s)]
    assert spans == [
        (0, 0.0, 2.5, (0.4 + 0.7 + 0.3) / 3),
        (1, 0.5, 1.5, 0.65),
        (0, 3.5, 6.5, 0.7),
        (0, 8.5, 9.2, 0.8),
    ]
    assert [s.score for s in found] == sorted((s.score for s in found), reverse=True)
    with pytest.raises(InputError, match="keep <= start"):
        MergeRule(start=0.3, keep=0.5)


def test_ava_rows_of_people_read_back(clip: Path, tmp_path: Path) -> None:
    timeline = PeopleDetector(a_bundle("linear"), options(clip))(clip)
    text = render(timeline, "ava")[".ava.csv"]
    (tmp_path / "a.csv").write_text(text)
    boxes = read_boxes(tmp_path / "a.csv")
    assert len(boxes.box) == 8 * 3 and set(boxes.label.tolist()) == {1, 2, 3}
    assert boxes.images[0] == (clip.stem, "0.000000")
    assert next(csv.reader(io.StringIO(text)))[1] == "0000"
    known = Timeline({}, timeline.videos, {"classes": ["walk"]}, {clip.stem: (person(1.5, walk=0.25),)})
    assert render(known, "ava")[".ava.csv"] == f"{clip.stem},1.500000,0.1,0.1,0.5,0.9,14,0.25\n"


def test_a_boxes_file_that_changes_is_read_and_hashed_once(tmp_path: Path) -> None:
    boxes = tmp_path / "boxes.csv"
    boxes.write_text("clip,1,0.1,0.1,0.5,0.9\n")
    digest = sha256(boxes)
    detector = PeopleDetector(a_bundle("linear", 0), PeopleOptions(boxes=boxes))
    assert detector._persons_identity()["sha256"] == digest
    boxes.write_text("other,1,0.1,0.1,0.5,0.9\n")
    times, _ = detector._times("clip")
    assert list(times) == [1.0] and detector._persons_identity()["sha256"] == digest
