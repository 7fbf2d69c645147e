"""Generated clips: the same seed gives the same frames, and the truth is what is drawn."""

import dataclasses
import hashlib
import importlib
import itertools
import json
import subprocess
import sys
from dataclasses import replace
from itertools import islice
from pathlib import Path

import av
import numpy as np
import pytest

from vidtad.errors import InputError
from vidtad.synth import CLASSES, LEVELS, render, write_clips

SHORT = replace(LEVELS[1], seconds=(5.0, 6.0))


def digest(seed: int, count: int = 40) -> str:
    hasher = hashlib.sha256()
    for frame in islice(render(seed)[0], count):
        hasher.update(frame.tobytes())
    return hasher.hexdigest()


def test_same_seed_same_frames_in_another_process():
    code = "import sys; sys.path.insert(0, '.'); from tests.synth.test_synth import digest; print(digest(5))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == digest(5) != digest(6)


@pytest.mark.parametrize("level", sorted(LEVELS))
def test_truth_is_consistent(level):
    settings = LEVELS[level]
    for seed in range(20):
        _, truth = render(seed, level)
        assert settings.seconds[0] - 0.1 <= truth.duration_s <= settings.seconds[1] + 0.1
        assert settings.people[0] <= len(truth.people) <= settings.people[1]
        for person in truth.people:
            assert person.actions
            assert person.boxes.shape == (truth.frames, 4)
            assert (person.boxes >= 0).all() and (person.boxes <= 1).all()
            sides = person.boxes[:, 2:] - person.boxes[:, :2]
            assert (sides > 0.03).all()
            edge = 0.0
            for action in person.actions:
                assert action.label in CLASSES
                assert edge < action.start_s < action.end_s < truth.duration_s
                for second in (action.start_s, action.end_s):
                    assert abs(second * truth.fps - round(second * truth.fps)) < 1e-6
                edge = action.end_s
        starts = [action.start_s for action in truth.actions]
        assert starts == sorted(starts)


def test_frames_match_the_truth():
    """Motion is where the truth says: body parts move far more inside actions than while standing."""
    from vidtad.synth.pose import joints, move

    inside, outside = [], []
    for seed in range(10):
        motion = move(np.random.default_rng(seed), LEVELS[1], 300, (-1.0, 1.0))
        body = joints(motion.angles)
        body[..., 0] += motion.travel[:, None]
        speed = np.abs(np.diff(body, axis=0)).max((1, 2))
        times = (np.arange(299) + 0.5) / 15
        on = np.zeros(299, bool)
        for action in motion.actions:
            on |= (times > action.start_s) & (times < action.end_s)
        inside.append(np.median(speed[on]))
        outside.append(speed[~on].max())
    assert max(outside) < 0.02 < min(inside)


def test_box_holds_the_person():
    """Drawn with and without the person, frames differ inside the box and nowhere else."""
    from vidtad.synth import draw

    level = replace(LEVELS[1], noise=0.0)
    rng = np.random.default_rng(3)
    scene = draw._scene(rng, level, 60)
    figure, _ = draw._figure(rng, level, 60, scene)
    boxes = draw._boxes(figure, level)
    for index in (0, 30, 59):
        with_person = draw._draw(scene, [figure], level, index).astype(int)
        without = draw._draw(scene, [], level, index).astype(int)
        y, x = np.nonzero((with_person != without).any(-1))
        x1, y1, x2, y2 = boxes[index] * np.array([level.width, level.height] * 2)
        assert x1 - 1 <= x.min() <= x1 + 5 and x2 - 5 <= x.max() <= x2 + 1
        assert y1 - 1 <= y.min() <= y1 + 5 and y2 - 5 <= y.max() <= y2 + 1


def test_people_stay_in_the_frame():
    cut = []
    for seed in range(30):
        boxes = render(seed)[1].people[0].boxes
        cut.append(np.mean((boxes <= 0) | (boxes >= 1)))
    assert np.mean(cut) < 0.02


def test_nobody_hides_another():
    """Level 3: the boxes of two people share at most a hundredth of the width of the narrower one."""
    shared, sizes = [], set()
    for seed in range(60):
        people = render(seed, 3)[1].people
        sizes.add(len(people))
        for a, b in itertools.combinations(people, 2):
            left, right = np.maximum(a.boxes[:, 0], b.boxes[:, 0]), np.minimum(a.boxes[:, 2], b.boxes[:, 2])
            width = np.minimum(a.boxes[:, 2] - a.boxes[:, 0], b.boxes[:, 2] - b.boxes[:, 0])
            shared.append(((right - left) / width).max())
    assert sizes == {1, 2, 3}
    assert max(shared) < 0.01


def test_written_clips(tmp_path):
    document = write_clips(tmp_path, [1, 2], SHORT)
    assert json.loads((tmp_path / "ground_truth.json").read_text()) == document
    boxes = json.loads((tmp_path / "boxes.json").read_text())
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "boxes.json", "ground_truth.json", "synth_000001.mp4", "synth_000002.mp4",
    ]  # fmt: skip
    for name, entry in document["database"].items():
        with av.open(str(tmp_path / f"{name}.mp4")) as container:
            assert container.streams.video[0].average_rate == 15
            decoded = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        drawn = list(render(entry["seed"], SHORT)[0])
        assert len(decoded) == len(drawn) == entry["frames"] == len(boxes[name]["0"])
        assert entry["duration"] == pytest.approx(entry["frames"] / 15)
        error = np.mean([np.abs(a.astype(int) - b).mean() for a, b in zip(decoded, drawn, strict=True)])
        assert error < 8


def test_unknown_level():
    with pytest.raises(InputError, match="level 9 does not exist"):
        render(1, 9)


@pytest.mark.parametrize("head", ["react", "actionformer"])
def test_shipped_bundle_knows_the_generated_classes(head):
    from vidtad.heads.catalogue import BUILTIN_FOLDER, builtin_bundle
    from vidtad.heads.registry import load_detector
    from vidtad.pipelines.demo import FIRST_UNSEEN_SEED
    from vidtad.pipelines.extract.extraction import bundle_extractor

    bundle = builtin_bundle(head)
    assert bundle.name == f"demo-{head}" and bundle.classes == CLASSES and bundle.demonstration
    assert (BUILTIN_FOLDER / f"{bundle.name}.safetensors").stat().st_size < 5_000_000
    demo = set(range(FIRST_UNSEEN_SEED, FIRST_UNSEEN_SEED + 1000))
    for split in ("train", "validation"):
        assert not demo & set(range(*bundle.training["seeds"][split]))
    detector = load_detector(bundle)
    assert bundle_extractor(bundle).extractor.convention.width == bundle.width
    assert 0 < detector.display_score < 1


@pytest.mark.parametrize("head", ["linear", "acar", "acfb", "action-transformer"])
def test_shipped_bundle_of_people_knows_the_generated_classes(head):
    from vidtad.heads.catalogue import BUILTIN_FOLDER, builtin_bundle
    from vidtad.heads.person.bundle import load_network
    from vidtad.pipelines.demo import FIRST_UNSEEN_SEED
    from vidtad.synth import PEOPLE_CLASSES

    bundle = builtin_bundle(head)
    assert bundle.name == f"demo-{head}" and bundle.classes == PEOPLE_CLASSES and bundle.demonstration
    assert (BUILTIN_FOLDER / f"{bundle.name}.safetensors").stat().st_size < 5_000_000
    assert not set(range(FIRST_UNSEEN_SEED, FIRST_UNSEEN_SEED + 1000)) & set(range(*bundle.training["seeds"]))
    assert load_network(bundle).head.config.classes == len(PEOPLE_CLASSES)


def test_shipped_bundles_of_people_are_what_their_script_writes(monkeypatch):
    from vidtad.heads.catalogue import builtin_bundle

    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "scripts"))
    script = importlib.import_module("train_people_demo")
    for head in script.SHIPPED:
        bundle, job = builtin_bundle(head), script.recipes()[head].job
        assert bundle.decoding == script.decoding(head)
        assert bundle.training["seeds"] == [script.CLIPS.start, script.CLIPS.stop]
        assert bundle.training["script"] == "scripts/train_people_demo.py"
        made = json.loads(json.dumps(dataclasses.asdict(job.schedule)))
        found = [bundle.training[key] for key in ("seed", "batch", "schedule")]
        assert found == [job.seed, job.batch, made]
