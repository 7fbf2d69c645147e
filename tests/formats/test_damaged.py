"""Documents cut off, or holding what no program writes: an InputError that names the file, never another error."""

import io
import json
import pickle
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vidtad.errors import InputError
from vidtad.formats.ava import read_boxes
from vidtad.formats.interchange import read_any
from vidtad.formats.person_boxes import read_person_boxes
from vidtad.formats.reading import read_annotations, read_predictions
from vidtad.timeline import PersonBox
from vidtad.video import VideoInfo

VIDEOS = {"m": VideoInfo("m.mp4", 64, 48, Fraction(25), 9.0, 225)}
HUGE = 10**400
SPAN = {"vid": "1", "z": [1, 2], "xy": [], "av": {"1": "run"}}
BORIS = "Observation id\tMedia file name\tSubject\tBehavior\tBehavior type\tTime\tComment\n"
EAF = (
    '<?xml version="1.0" encoding="{encoding}"?><ANNOTATION_DOCUMENT><TIME_ORDER>'
    '<TIME_SLOT TIME_SLOT_ID="a" TIME_VALUE="0"/><TIME_SLOT TIME_SLOT_ID="b" TIME_VALUE="{end}"/></TIME_ORDER>'
    '<TIER TIER_ID="t"><ANNOTATION><ALIGNABLE_ANNOTATION TIME_SLOT_REF1="a" TIME_SLOT_REF2="b">'
    "<ANNOTATION_VALUE>{label}</ANNOTATION_VALUE></ALIGNABLE_ANNOTATION></ANNOTATION></TIER></ANNOTATION_DOCUMENT>"
)


def via(entry: dict[str, Any]) -> str:
    return json.dumps(
        {
            "project": {"vid_list": ["1"]},
            "attribute": {"1": {"aname": "action", "options": {}}},
            "file": {"1": {"fname": "m.mp4", "src": ""}},
            "view": {"1": {"fid_list": ["1"]}},
            "metadata": {"a": entry},
        }
    )


def cvat(frame: object, actions: str = "walk") -> str:
    return (
        "<annotations><version>1.1</version><meta><task><name>m</name></task></meta>"
        f'<track id="0" label="person"><box frame="{frame}" outside="0" xtl="1" ytl="1" xbr="20" ybr="20">'
        f'<attribute name="actions">{actions}</attribute></box></track></annotations>'
    )


@pytest.mark.parametrize(
    "text",
    [
        via(SPAN)[:-40],
        via(SPAN | {"z": [1, HUGE]}),
        BORIS + "m\tm.mp4\ts\twalk\tSTART\t1.0\t" + '"' + "x" * 200_000 + '"\n',
        EAF.format(encoding="UTF-8", end="9" * 400, label="x"),
        cvat(-1),
        cvat("9" * 400),
    ],
)
def test_what_cannot_be_read_is_refused_with_the_files_name(text: str, tmp_path: Path) -> None:
    path = tmp_path / "broken.txt"
    path.write_text(text)
    with pytest.raises(InputError, match=r"broken\.txt"):
        read_any(path, VIDEOS)


def test_a_frame_before_the_first_is_none_of_the_last(tmp_path: Path) -> None:
    """Also where the time of every frame is known, and a list would count -1 from its end."""
    path = tmp_path / "m.xml"
    path.write_text(cvat(-1))
    with pytest.raises(InputError, match="no frame -1"):
        read_any(path, VIDEOS, {"m": [0.0, 0.1, 0.3]})


@pytest.mark.parametrize("label", ["waits (...)", "step (1.2.3)", "turn (left)", "(.)"])
def test_brackets_without_a_number_belong_to_the_label(label: str, tmp_path: Path) -> None:
    path = tmp_path / "m.srt"
    path.write_text(f"1\n00:00:01,000 --> 00:00:02,000\n{label}\n")
    assert [(s.label, s.score) for s in read_any(path).results["m"]] == [(label, 1.0)]
    box = SPAN | {"z": [1], "xy": [2, 1, 1, 10, 10], "av": {"3": "person 1", "4": f"{label}; walk (0.5)"}}
    for text in (cvat(1, f"{label}; walk (0.5)"), via(box)):
        path.write_text(text)
        assert read_any(path, VIDEOS).people["m"][0].actions == ((label, 1.0), ("walk", 0.5))


def test_a_comment_that_speaks_of_scores_is_none(tmp_path: Path) -> None:
    path = tmp_path / "m.tsv"
    path.write_text(BORIS + "m\tm.mp4\ts\twalk\tSTART\t1.0\tno score ...\nm\tm.mp4\ts\twalk\tSTOP\t2.0\t\n")
    assert [s.score for s in read_any(path).results["m"]] == [1.0]


def test_a_boris_row_that_ends_early_has_no_subject(tmp_path: Path) -> None:
    path = tmp_path / "m.tsv"
    path.write_text("Time\tBehavior type\tBehavior\tObservation id\tSubject\n1\tSTART\tw\tm\n2\tSTOP\tw\tm\n")
    assert [(s.start_s, s.end_s, s.track) for s in read_any(path).results["m"]] == [(1.0, 2.0, None)]


def test_a_boris_behaviour_that_starts_twice_loses_no_start(tmp_path: Path) -> None:
    path = tmp_path / "m.tsv"
    path.write_text(
        BORIS + "".join(f"m\tm.mp4\ts\twalk\t{k}\t{t}\t\n" for t, k in enumerate(("START", "START", "STOP")))
    )
    timeline = read_any(path)
    assert [(s.start_s, s.end_s) for s in timeline.results["m"]] == [(1.0, 2.0)]
    assert timeline.detector["warnings"] == ["1 x state event that never stops, e.g. m: walk at 0 s"]


def test_a_count_under_both_its_spellings_is_one_count(tmp_path: Path) -> None:
    both = {"label": "walk", "segment": [0, 1], "num-instances": 4, "num_instances": 4}
    rows = [both, both | {"num-instances": 5, "num_instances": 5}]
    path = tmp_path / "truth.json"
    path.write_text(json.dumps({"database": {"m": {"subset": "test", "duration": 9, "annotations": rows}}}))
    assert read_annotations(path).extra["num-instances"].tolist() == [4.0, 5.0]


def test_classes_beside_thumos_text_that_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "k.thumos.txt").write_text("v 1.0 2.0 1 0.5\n")
    (tmp_path / "k.thumos.classes.txt").write_bytes(b"\xff\xff")
    with pytest.raises(InputError, match=r"classes\.txt"):
        read_any(tmp_path / "k.thumos.txt")


def test_a_class_list_with_a_digit_that_is_no_number(tmp_path: Path) -> None:
    (tmp_path / "Run_test.txt").write_text("v 1 2\n")
    (tmp_path / "detclasslist.txt").write_text("² Run\n")
    with pytest.raises(InputError, match="id name"):
        read_annotations(tmp_path)


def test_a_compressed_archive_with_any_byte_changed_is_read_or_refused(tmp_path: Path) -> None:
    held = io.BytesIO()
    rows = np.arange(50.0)
    np.savez_compressed(held, video=np.arange(50), start=rows, end=rows + 1, label=np.arange(50), score=rows)
    whole, path, refused = held.getvalue(), tmp_path / "p.npz", 0
    for place in range(30, len(whole) // 2, 5):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        try:
            read_predictions(path)
        except InputError:
            refused += 1
    assert refused > 20


def test_columns_of_names_or_of_lists_are_no_predictions(tmp_path: Path) -> None:
    columns: dict[str, list[Any]] = {"video": [0], "start": [1.0], "end": [2.0], "label": [0], "score": [0.5]}
    path = tmp_path / "p.pkl"
    for wrong in ({"start": [[1], [2, 3]]}, {"video": ["m"], "videos": ["m"]}):
        path.write_bytes(pickle.dumps(columns | wrong))
        with pytest.raises(InputError, match=r"p\.pkl"):
            read_predictions(path)


@pytest.mark.parametrize(
    "person",
    [
        "x",
        {"box": [0, 0, 1, 1], "time_s": 1, "actions": None},
        {"box": [0, 0, 1, 1], "time_s": 1, "actions": ["x"]},
        {"box": [0, 0, 1, 1], "time_s": 1, "actions": [{"label": [], "score": 1}]},
        {"box": [0, 0, HUGE, 1], "time_s": 1, "actions": [{"label": "stand", "score": 1}]},
    ],
)
def test_people_that_are_none_are_left_out(person: object, tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    sound = {"box": [0, 0, 1, 1], "time_s": 1, "actions": [{"label": "stand", "score": 1}]}
    path.write_text(json.dumps({"people": {"m": [person, sound]}}))
    assert len(read_boxes(path, {"stand": 1}).label) == 1


def test_an_action_number_beyond_all_is_no_other_number(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(f"m,1,0,0,1,1,{10**30},0.5\nm,1,0,0,1,1,3,0.5\n")
    found = read_boxes(path)
    assert found.label.tolist() == [3] and found.findings[0].count == 1


def test_a_picture_of_a_size_beyond_all(tmp_path: Path) -> None:
    path = tmp_path / "coco.json"
    image = {"id": 1, "width": HUGE, "height": 1, "video": "m", "time_s": 1}
    path.write_text(json.dumps({"images": [image], "annotations": []}))
    with pytest.raises(InputError, match="person boxes"):
        read_person_boxes(path)


@pytest.mark.parametrize("track", [[1], "x", {}])
def test_a_person_is_a_number(track: object, tmp_path: Path) -> None:
    segment = {"label": "a", "score": 1, "segment": [1, 2], "track": track}
    document = {"version": "vidtad timeline 1", "results": {"m": [segment]}, "detector": {}}
    path = tmp_path / "t.json"
    path.write_text(json.dumps(document | {"videos": {"m": VIDEOS["m"].to_json()}}))
    with pytest.raises(InputError, match="not a vidtad timeline"):
        read_any(path)


@pytest.mark.parametrize("wrong", [{"time_s": float("nan")}, {"time_s": -1.0}, {"box_score": float("inf")}])
def test_a_person_has_a_time_and_a_score(wrong: dict[str, float]) -> None:
    sound: dict[str, Any] = {"time_s": 0.0, "track": 0, "box": (0.0, 0.0, 1.0, 1.0), "box_score": 1.0}
    PersonBox(**sound)
    with pytest.raises(InputError):
        PersonBox(**sound | wrong)
    with pytest.raises(InputError, match="score"):
        PersonBox(**sound, actions=(("walk", float("nan")),))
