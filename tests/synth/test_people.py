"""Generated clips of people who act on each other: repeatable, and the truth is what is drawn."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from vidtad.formats.ava import read_boxes, read_label_map
from vidtad.formats.person_boxes import read_person_boxes
from vidtad.formats.person_labels import read_person_labels
from vidtad.formats.reading import read_annotations
from vidtad.synth import PEOPLE_CLASSES, render_people, write_people_clips
from vidtad.video import open_video


def digest(seed: int) -> str:
    hasher = hashlib.sha256()
    for frame in render_people(seed, 1)[0]:
        hasher.update(frame.tobytes())
    return hasher.hexdigest()


def test_the_same_seed_draws_the_same_frames() -> None:
    assert digest(5) == digest(5) != digest(6)


def test_who_hands_over_has_someone_to_hand_over_to() -> None:
    seen: dict[str, int] = dict.fromkeys(PEOPLE_CLASSES, 0)
    for seed in range(20):
        _, truth = render_people(seed)
        for scene in zip(*(person.actions for person in truth.people), strict=True):
            doing = [action.label for action in scene]
            assert doing.count("hand over") in (0, 2) and doing.count("reach out") <= 1
            assert "reach out" not in doing or "hand over" not in doing
            assert doing[1] in ("squat", "stand")
            for label in doing:
                seen[label] += 1
    assert min(seen.values()) > 10


@pytest.mark.parametrize("seed", [1, 2])
def test_people_are_where_their_boxes_say(seed: int) -> None:
    """Inside a box a frame differs from the background far more than outside all of them."""
    frames, truth = render_people(seed, 2)
    pictures = np.stack(list(frames)).astype(float)
    assert pictures.shape == (truth.frames, truth.height, truth.width, 3)
    background = np.median(pictures[:, :, :, :], axis=0)
    moving = np.abs(pictures - background).mean(axis=-1) > 25
    inside = np.zeros_like(moving)
    for person in truth.people:
        assert person.boxes.shape == (truth.frames, 4)
        assert (person.boxes >= 0).all() and (person.boxes[:, 2:] > person.boxes[:, :2] + 0.02).all()
        scaled = person.boxes * np.array([truth.width, truth.height] * 2)
        for frame, (x1, y1, x2, y2) in enumerate(scaled.round().astype(int)):
            inside[frame, y1 : y2 + 1, x1 : x2 + 1] = True
    assert moving[inside].mean() > 20 * moving[~inside].mean()


def test_the_files_fit_the_readers(tmp_path: Path) -> None:
    document = write_people_clips(tmp_path, [3, 4], scenes=2)
    names = sorted(document["database"])
    assert names == ["people_000003", "people_000004"]
    classes = read_label_map(tmp_path / "classes.pbtxt")
    assert tuple(classes.values()) == PEOPLE_CLASSES
    rows = read_boxes(tmp_path / "people.csv")
    assert len(rows.images) == 2 * 4 and len(rows.label) == 3 * len(rows.images)
    labels = read_person_labels(tmp_path / "people.csv", classes)
    assert sorted(labels.videos) == names and set(labels.classes) <= set(PEOPLE_CLASSES)
    # The numbers of people are no scores: nobody is left out.
    given = read_person_boxes(tmp_path / "people.csv", threshold=0.7)
    assert all(len(boxes) == 3 for times in given.values() for boxes, _ in times.values())
    truth = read_annotations(tmp_path / "ground_truth.json")
    assert len(truth.videos) == 2 and len(truth.label) == 2 * 2 * 3
    boxes = json.loads((tmp_path / "boxes.json").read_text())
    with open_video(tmp_path / "people_000003.mp4") as video:
        assert sum(1 for _ in video) == len(boxes["people_000003"]["0"]) == 90
    for second, people in labels.videos["people_000003"].items():
        drawn = [tuple(track[round(second * 15)]) for track in boxes["people_000003"].values()]
        assert sorted(people) == sorted(drawn)
