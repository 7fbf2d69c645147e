"""AVA rows, label maps, exclusions, and timelines with persons."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vidtad.errors import InputError
from vidtad.formats.ava import (
    ava_classes,
    boxes_text,
    is_rows,
    read_boxes,
    read_excluded,
    read_label_map,
    rows,
)
from vidtad.formats.tables import Findings

unit = st.floats(0, 1)


def test_the_class_table():
    classes = ava_classes()
    assert [entry.id for entry in classes] == list(range(1, 81))
    assert sum(entry.evaluated for entry in classes) == 60
    assert {entry.kind for entry in classes} == {"PERSON_MOVEMENT", "OBJECT_MANIPULATION", "PERSON_INTERACTION"}


def test_rows_keys_and_empty_images(tmp_path):
    path = tmp_path / "gt.csv"
    path.write_text("v,902,0.1,0.2,0.3,0.4,12,0\nv,0902,0.1,0.2,0.3,0.4,17,\nw,0903\nbroken\nv,904,a,0,1,1,2,3\n")
    assert is_rows(path.read_text())
    read = read_boxes(path)
    assert [key[0] for key in read.images] == ["v", "w", "v"] and read.image.tolist() == [0, 0]
    assert read.label.tolist() == [12, 17]
    assert [finding.count for finding in read.findings] == [1, 1]


def test_a_file_may_begin_with_an_empty_image_or_hold_nothing(tmp_path):
    path = tmp_path / "gt.csv"
    path.write_text("v,0902\nv,0903\nv,0904,0.1,0.2,0.3,0.4,12,0\n")
    read = read_boxes(path)
    assert len(read.images) == 3 and read.image.tolist() == [2]
    path.write_text("")
    assert read_boxes(path).images == ()
    assert not is_rows("v,0902\n") and not is_rows("video,start\nv,0902,0.1,0.2,0.3,0.4,12,0\n")


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.tuples(st.sampled_from("vw"), st.integers(0, 2000), unit, unit, unit, unit, st.integers(1, 80), unit))
)
def test_rows_survive_writing(table):
    text = "".join(",".join(map(str, row)) + "\n" for row in table)
    first = rows(text, Findings())
    again = rows(boxes_text(first), Findings())
    assert again.images == first.images
    for name in ("image", "box", "label", "value"):
        np.testing.assert_array_equal(getattr(again, name), getattr(first, name))


def test_people_of_a_timeline(tmp_path):
    person = {
        "time_s": 1.0,
        "track": 3,
        "box": [0.1, 0.2, 0.5, 0.9],
        "box_score": 0.9,
        "actions": [
            {"label": "stand", "score": 0.75},
            {"label": "nonsense", "score": 0.5},
        ],
    }
    path = tmp_path / "t.json"
    path.write_text(json.dumps({"results": {}, "people": {"v": [person]}}))
    read = read_boxes(path)
    assert read.images == (("v", "1.000000"),) and read.value.tolist() == [0.75]
    assert read.label.tolist() == [next(entry.id for entry in ava_classes() if entry.name == "stand")]
    assert read.findings[0].example == "'nonsense'"
    assert rows(read_boxes_text(tmp_path), Findings()).label.tolist() == read.label.tolist()


def read_boxes_text(folder):
    return boxes_text(read_boxes(folder))


@pytest.mark.parametrize("key", ["id", "label_id"])
def test_label_map_and_exclusions(tmp_path, key):
    path = tmp_path / "map.pbtxt"
    path.write_text(
        f'item {{\n  name: "bend/bow (at the waist)"\n  {key}: 1\n}}\nitem {{\n\tname: "x"\n\t{key}: 3\n}}\n'
    )
    assert read_label_map(path) == {1: "bend/bow (at the waist)", 3: "x"}
    excluded = tmp_path / "excluded.csv"
    excluded.write_text("v,0903\nw,904\n")
    assert read_excluded(excluded) == {("v", "903.000000"), ("w", "904.000000")}
    with pytest.raises(InputError, match=r"map\.pbtxt:1"):
        read_excluded(path)
    with pytest.raises(InputError, match="label map"):
        read_label_map(excluded)


def test_other_text_is_refused(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("video,start\n")
    with pytest.raises(InputError, match="AVA rows"):
        read_boxes(path)
