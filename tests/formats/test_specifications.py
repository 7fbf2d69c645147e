"""Files for evaluation programs, read by what their specifications say, with `json`, `csv` and `str.split` alone.

No small package reads these formats. The readers here know nothing of vidtad and are as strict as the programs the
formats come from: they refuse what those would, or would misread in silence.
"""

import csv
import json
import math
import re
from dataclasses import replace
from pathlib import Path

import pytest

from tests.formats.timelines import overlapping, two_persons, video
from vidtad.formats.interchange import write_formats
from vidtad.timeline import PersonBox, Timeline

Row = tuple[str, float, float, str, float]


def number(value: object) -> float:
    """A finite JSON number, which a truth value and a text are not."""
    assert type(value) in (int, float) and math.isfinite(value)  # type: ignore[arg-type]
    return float(value)  # type: ignore[arg-type]


def activitynet_results(path: Path) -> list[Row]:
    """The challenge's document: three keys and no more; per video a list of {score, segment: [start, end], label}."""
    document = json.loads(path.read_text(encoding="utf-8"), parse_constant=pytest.fail)
    assert document.keys() == {"version", "results", "external_data"}
    assert isinstance(document["version"], str) and isinstance(document["external_data"], dict)
    rows = []
    for name, found in document["results"].items():
        assert isinstance(found, list)
        for entry in found:
            assert entry.keys() == {"score", "segment", "label"} and isinstance(entry["label"], str)
            start, end = map(number, entry["segment"])
            assert 0 <= start < end
            rows.append((name, start, end, entry["label"], number(entry["score"])))
    return rows


def thumos_detections(path: Path, classes: dict[int, str]) -> list[Row]:
    """THUMOS Challenge 2014, section on temporal detection: `video start end class confidence`, blanks between, the
    class as a whole number, times in seconds."""
    rows = []
    for line in path.read_text(encoding="ascii").splitlines():
        video, start, end, label, score = line.split(" ")
        assert re.fullmatch(r"[1-9][0-9]*", label) and 0 <= float(start) < float(end)
        rows.append((video, float(start), float(end), classes[int(label)], float(score)))
    return rows


def thumos_classes(path: Path) -> dict[int, str]:
    """The kit's list of classes: `number name`, neither with a blank in it."""
    pairs = [line.split(" ") for line in path.read_text(encoding="ascii").splitlines()]
    found = {int(label): name for label, name in pairs}
    assert len(found) == len(pairs)
    return found


def ava_detections(path: Path, classes: dict[int, str]) -> set[tuple[str, float, tuple[float, ...], str, float]]:
    """AVA's submissions: `video,second,x1,y1,x2,y2,action,score` without a header; boxes are fractions of the picture
    from its upper left corner, actions are numbers from 1 on."""
    rows = []
    with path.open(newline="", encoding="utf-8") as file:
        for video, second, x1, y1, x2, y2, action, score in csv.reader(file):
            box = tuple(map(float, (x1, y1, x2, y2)))
            assert 0 <= box[0] < box[2] <= 1 and 0 <= box[1] < box[3] <= 1 and 0 <= float(score) <= 1
            assert re.fullmatch(r"[1-9][0-9]*", action) and float(second) >= 0
            rows.append((video, float(second), box, classes[int(action)], float(score)))
    assert len(set(rows)) == len(rows)
    return set(rows)


def label_map(path: Path) -> dict[int, str]:
    """A label map in text form: `item { name: "..." id: N }`, in any order within the braces."""
    found = {}
    for item in re.findall(r"item\s*\{(.*?)\}", path.read_text(encoding="utf-8"), re.DOTALL):
        (name,), (label,) = re.findall(r'name:\s*"([^"\\]*)"', item), re.findall(r"\bid:\s*(\d+)", item)
        assert int(label) not in found
        found[int(label)] = name
    return found


def plain(labels: dict[str, str]) -> Timeline:
    """The overlapping segments with other labels."""
    timeline = overlapping()
    found = tuple(replace(s, label=labels.get(s.label, "Billiards")) for s in timeline.results["match"])
    return replace(timeline, results={"match": found})


def rows_of(timeline: Timeline) -> list[Row]:
    return [(name, s.start_s, s.end_s, s.label, s.score) for name, found in timeline.results.items() for s in found]


def test_activitynet_results_are_what_the_challenge_takes(tmp_path: Path) -> None:
    found = {"match": overlapping().results["match"], "empty": ()}
    timeline = replace(overlapping(), results=found, videos={name: video(name) for name in found})
    paths = write_formats(timeline, tmp_path, "activitynet")
    rows = [row for path in paths for row in activitynet_results(path)]
    assert rows == rows_of(timeline) and len(rows) == 4


def test_thumos_text_is_what_the_kit_reads(tmp_path: Path) -> None:
    """The kit's own classes keep its numbers, which are those of UCF101."""
    timeline = plain({"walk": "CliffDiving", "run": "Diving"})
    (path,) = write_formats(timeline, tmp_path, "thumos")
    assert thumos_detections(path, {12: "Billiards", 22: "CliffDiving", 26: "Diving"}) == rows_of(timeline)


def test_thumos_text_of_other_classes_comes_with_their_list(tmp_path: Path) -> None:
    timeline = plain({"walk": "walk the dog", "run": "run"})
    detections, classes = sorted(write_formats(timeline, tmp_path, "thumos"), key=lambda path: "classes" in path.name)
    wanted = [
        (video, start, end, "_".join(label.split()), score) for video, start, end, label, score in rows_of(timeline)
    ]
    assert thumos_detections(detections, thumos_classes(classes)) == wanted


def people_of(timeline: Timeline) -> set[tuple[str, float, tuple[float, ...], str, float]]:
    return {
        ("match", p.time_s, tuple(p.box), label, score) for p in timeline.people["match"] for label, score in p.actions
    }


def rounded(rows: set[tuple[str, float, tuple[float, ...], str, float]]) -> set[object]:
    return {(video, time, tuple(round(x, 4) for x in box), label, score) for video, time, box, label, score in rows}


def test_ava_rows_are_what_the_challenge_takes(tmp_path: Path) -> None:
    timeline = two_persons()
    rows, names = sorted(write_formats(timeline, tmp_path, "ava"), key=lambda path: path.suffix == ".pbtxt")
    assert rounded(ava_detections(rows, label_map(names))) == rounded(people_of(timeline))


def test_ava_numbers_of_its_own_actions(tmp_path: Path) -> None:
    """From the published list: stand 12, walk 14."""
    people = tuple(
        PersonBox(p.time_s, p.track, p.box, p.box_score, tuple(act for act in p.actions if act[0] != "wave"))
        for p in two_persons().people["match"]
    )
    timeline = replace(two_persons(), people={"match": people})
    (rows,) = write_formats(timeline, tmp_path, "ava")
    assert rounded(ava_detections(rows, {12: "stand", 14: "walk"})) == rounded(people_of(timeline))
