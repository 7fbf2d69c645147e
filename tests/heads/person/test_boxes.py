"""Person boxes from detectors and files, and persons over time."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vidtad.errors import InputError
from vidtad.formats.person_boxes import read_person_boxes
from vidtad.heads.person import boxes as persons
from vidtad.hub.registry import CHECKPOINTS


def grid_boxes(count: int) -> np.ndarray:
    """Boxes that do not touch."""
    x = np.arange(count) / count
    return np.stack([x, np.full(count, 0.2), x + 0.6 / count, np.full(count, 0.8)], axis=1)


@given(st.integers(1, 6), st.lists(st.booleans(), min_size=1, max_size=12), st.randoms(use_true_random=False))
def test_people_who_stay_keep_their_id_across_gaps(count: int, seen: list[bool], random) -> None:
    tracker, boxes = persons.Tracker(max_gap_s=20), grid_boxes(count)
    first = tracker(0, boxes)
    assert sorted(first) == list(range(count))
    for second, visible in enumerate(seen, 1):
        order = list(range(count))
        random.shuffle(order)
        shown = order if visible else []
        assert tracker(second, boxes[shown]).tolist() == first[shown].tolist()


@given(st.lists(st.integers(0, 5), min_size=1, max_size=8), st.integers(0, 2**32 - 1))
def test_ids_are_distinct_and_new_ones_count_up(sizes: list[int], seed: int) -> None:
    tracker, rng, known = persons.Tracker(), np.random.default_rng(seed), 0
    for second, size in enumerate(sizes):
        corner = rng.uniform(0, 0.7, (size, 2))
        ids = tracker(second, np.concatenate([corner, corner + rng.uniform(0.05, 0.3, (size, 2))], axis=1))
        assert len(set(ids)) == size and all(ids >= 0)
        new = sorted(id for id in ids if id >= known)
        assert new == list(range(known, known + len(new)))
        known += len(new)


def test_who_is_gone_too_long_comes_back_as_somebody_new() -> None:
    tracker, boxes = persons.Tracker(max_gap_s=3), grid_boxes(1)
    assert [tracker(at, boxes)[0] for at in (0, 3, 6.5)] == [0, 0, 1]


def test_someone_on_the_move_is_found_where_they_were_going() -> None:
    tracker = persons.Tracker(min_iou=0.3, max_gap_s=5)
    steps = np.array([[0.0, 0.2, 0.2, 0.8]]) + np.array([1, 0, 1, 0]) * np.array([0, 0.05, 0.25])[:, None]
    assert [tracker(at, box[None])[0] for at, box in zip((0, 1, 5), steps, strict=True)] == [0, 0, 0]
    assert persons.box_iou(steps[1:2], steps[2:])[0, 0] < 0.3, "the last place alone would not do"


def test_assignment_is_the_best_in_all_not_one_by_one() -> None:
    tracker = persons.Tracker(min_iou=0.1)
    tracker(0, np.array([[0.0, 0, 0.4, 1], [0.2, 0, 0.6, 1]]))
    # The first box overlaps both; greedily it would take the second person and leave nobody for the other.
    assert tracker(1, np.array([[0.15, 0, 0.55, 1], [0.35, 0, 0.75, 1]])).tolist() == [0, 1]


def test_wrong_order_of_keyframes_is_refused() -> None:
    tracker = persons.Tracker()
    tracker(1.0, grid_boxes(1))
    with pytest.raises(InputError, match="order of time"):
        tracker(1.0, grid_boxes(1))


@settings(max_examples=30)
@given(st.integers(0, 12), st.integers(0, 2**32 - 1))
def test_suppression_leaves_no_pair_above_the_limit_and_drops_none_without_cause(count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    corner = rng.uniform(0, 0.6, (count, 2))
    boxes, scores = np.concatenate([corner, corner + 0.3], axis=1), rng.uniform(size=count)
    kept = persons.suppressed(boxes, scores, 0.4)
    overlap = persons.box_iou(boxes, boxes)
    assert not any(overlap[i, j] > 0.4 for i in kept for j in kept if i != j)
    for lost in set(range(count)) - set(kept.tolist()):
        assert any(overlap[lost, i] > 0.4 and scores[i] >= scores[lost] for i in kept)


def test_boxes_are_tidied() -> None:
    found = persons.tidy(np.array([[-0.2, 0, 0.5, 1.3], [0.5, 0.5, 0.5, 0.9], [0, 0, 1, 1]]), np.array([0.4, 0.9, 0.8]))
    np.testing.assert_allclose(found.boxes, [[0, 0, 1, 1], [0, 0, 0.5, 1]])
    np.testing.assert_allclose(found.scores, [0.8, 0.4])


def test_a_detector_of_torchvision_in_a_dry_run() -> None:
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 255, (120, 160, 3), np.uint8) for _ in range(2)]
    detector = persons.load_persons("fasterrcnn-fast", "random")
    first, again = detector(pictures), persons.load_persons("fasterrcnn-fast", "random")(pictures)
    assert len(first) == 2 and detector([]) == [] and "dry run" in detector.notes[0]
    for one, other in zip(first, again, strict=True):
        assert one.boxes.shape == (len(one.scores), 4) and len(one.scores) <= 3
        np.testing.assert_array_equal(one.boxes, other.boxes)
    assert detector.identity["weights"] == "random"


def test_people_alone_are_kept_from_the_threshold_on() -> None:
    import torch

    detector = persons.load_persons("fasterrcnn-fast", "random")
    detector.threshold = 0.7
    boxes = torch.tensor([[0.0, 0, 80, 120], [80, 0, 160, 60], [80, 60, 160, 120]])
    found = {"boxes": boxes, "labels": torch.tensor([1, 18, 1]), "scores": torch.tensor([0.7, 0.99, 0.69])}
    detector.network = lambda batch: [found]
    (people,) = detector([np.zeros((120, 160, 3), np.uint8)])
    np.testing.assert_allclose(people.boxes, [[0, 0, 0.5, 1]])


def test_pictures_go_in_parts_where_the_device_has_no_room() -> None:
    import torch

    detector = persons.load_persons("fasterrcnn-fast", "random")
    tried = []

    def network(batch: list[torch.Tensor]) -> list[dict[str, torch.Tensor]]:
        tried.append(len(batch))
        if len(batch) > 2:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB")
        box = torch.tensor([[0.0, 0, 80, 120]])
        return [{"boxes": box, "labels": torch.tensor([1]), "scores": picture.mean()[None]} for picture in batch]

    detector.network, detector.threshold = network, 0.0
    pictures = [np.full((120, 160, 3), level, np.uint8) for level in (51, 102, 153, 204, 255)]
    found = detector(pictures)
    assert tried == [5, 2, 2, 1]
    np.testing.assert_allclose([people.scores[0] for people in found], [0.2, 0.4, 0.6, 0.8, 1.0], rtol=1e-5)
    assert any("memory ran out on cpu: went on with 2 at a time" in note for note in detector.notes)


def test_default_detectors_have_published_weights() -> None:
    assert persons.DEFAULT == "fasterrcnn"
    for entry in persons.TORCHVISION.values():
        assert CHECKPOINTS[entry.checkpoint].url and CHECKPOINTS[entry.checkpoint].sha256


def test_hog_finds_an_upright_figure_and_says_what_it_is() -> None:
    import cv2

    detector = persons.load_persons("hog")
    assert "fallback" in detector.notes[0]
    picture = np.random.default_rng(0).integers(140, 160, (256, 340, 3)).astype(np.uint8)
    cv2.circle(picture, (170, 72), 11, (60, 50, 50), -1)
    for corner, opposite in (
        ((153, 84), (187, 135)),
        ((144, 86), (152, 132)),
        ((188, 86), (196, 132)),
        ((155, 135), (168, 200)),
        ((172, 135), (185, 200)),
    ):
        cv2.rectangle(picture, corner, opposite, (40, 40, 50), -1)
    (found,) = detector([picture])
    true = np.array([[144 / 340, 61 / 256, 196 / 340, 200 / 256]], np.float32)
    assert len(found.boxes) == 1 and persons.box_iou(found.boxes, true)[0, 0] > 0.5
    assert len(detector([np.full((200, 300, 3), 127, np.uint8)])[0].boxes) == 0


def test_hog_boxes_are_fractions_of_the_frame_without_the_border() -> None:
    detector = persons.HogPersons()

    class Fixed:
        def detectMultiScale(self, picture: np.ndarray, **_: object) -> tuple[np.ndarray, np.ndarray]:
            assert picture.shape[:2] == (256, 512)
            return np.array([[128, 0, 128, 256], [130, 0, 128, 256]]), np.array([[2.0], [1.0]])

    detector.hog = Fixed()
    people = detector([np.zeros((96, 192, 3), np.uint8)])[0]
    np.testing.assert_allclose(people.boxes, [[0.2875, 0.05, 0.4625, 0.95]])
    assert people.scores[0] == pytest.approx(1 / (1 + np.exp(-2)))


def test_unknown_names_are_answered_with_near_ones() -> None:
    with pytest.raises(InputError, match="did you mean fasterrcnn"):
        persons.load_persons("fasterrcn")


AVA = """vid,0902,0.1,0.2,0.5,0.9,12,0.9
vid,0902,0.1,0.2,0.5,0.9,80,0.95
vid,0902,0.6,0.2,0.9,0.9,,0.5
vid,903,0.6,0.2,0.9,0.9,,0.99
other,0902
"""


def test_ava_rows_give_each_box_once(tmp_path: Path) -> None:
    path = tmp_path / "boxes.csv"
    path.write_text(AVA)
    found = read_person_boxes(path)
    assert list(found) == ["vid", "other"] and list(found["vid"]) == [902.0, 903.0]
    boxes, scores = found["vid"][902.0]
    np.testing.assert_allclose(boxes, [[0.1, 0.2, 0.5, 0.9], [0.6, 0.2, 0.9, 0.9]])
    np.testing.assert_allclose(scores, [0.95, 0.5])
    assert len(found["other"][902.0][0]) == 0
    strict = read_person_boxes(path, threshold=0.9, offset_s=900)
    assert list(strict["vid"]) == [2.0, 3.0] and len(strict["vid"][2.0][0]) == 1


def test_person_ids_of_ground_truth_are_no_scores(tmp_path: Path) -> None:
    path = tmp_path / "truth.csv"
    path.write_text("vid,2,0.1,0.2,0.5,0.9,12,0\nvid,2,0.6,0.2,0.9,0.9,12,7\n")
    assert read_person_boxes(path, threshold=0.9)["vid"][2.0][1].tolist() == [1.0, 1.0]


def test_coco_json(tmp_path: Path) -> None:
    path = tmp_path / "boxes.json"
    document = {
        "images": [
            {"id": 1, "width": 200, "height": 100, "video": "a", "time_s": 1.5},
            {"id": 2, "width": 200, "height": 100, "file_name": "clips/b/0003.jpg"},
        ],
        "annotations": [
            {"image_id": 1, "bbox": [20, 10, 100, 50], "category_id": 7, "score": 0.8},
            {"image_id": 1, "bbox": [0, 0, 9, 9], "category_id": 3, "score": 0.8},
            {"image_id": 2, "bbox": [0, 0, 200, 100], "category_id": 7},
        ],
        "categories": [{"id": 7, "name": "person"}, {"id": 3, "name": "dog"}],
    }
    path.write_text(json.dumps(document))
    found = read_person_boxes(path)
    np.testing.assert_allclose(found["a"][1.5][0], [[0.1, 0.1, 0.6, 0.6]])
    assert found["clips/b"][3.0][1].tolist() == [1.0]


def test_boxes_of_a_timeline(tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    person = {"time_s": 1.0, "track": 0, "box": [0.1, 0.1, 0.2, 0.3], "box_score": 0.7, "actions": []}
    path.write_text(json.dumps({"version": "x", "results": {}, "people": {"v": [person]}}))
    assert read_person_boxes(path)["v"][1.0][1].tolist() == pytest.approx([0.7])


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "vid,2,0.1,0.2,0.5,0.9,12,0.9\nvid,2,0.1,0.2\n", r"a\.csv:2"),
        ("a.csv", "vid,2,10,20,50,90,12,0.9\n", "fractions of the frame"),
        ("a.csv", "vid,2,0.1,x,0.5,0.9\n", "no number"),
        ("a.csv", "", "no person boxes"),
        ("a.json", "{}", "neither COCO JSON"),
        ("a.json", '{"images": [{"id": 1, "width": 2, "height": 2}], "annotations": []}', "neither `video`"),
        ("a.json", '{"images": [], "annotations": [{"image_id": 4, "bbox": [0, 0, 1, 1]}]}', "not listed"),
        ("a.json", '{"images": 3, "annotations": []}', "not a file of person boxes"),
    ],
)
def test_bad_files_are_refused_with_the_place(tmp_path: Path, name: str, text: str, message: str) -> None:
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        read_person_boxes(path)
