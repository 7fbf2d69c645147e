"""Timelines survive the round trip, are readable as ActivityNet results, and refuse nonsense."""

import csv
import io
import json
import math
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vidtad.errors import InputError
from vidtad.timeline import (
    PersonBox,
    Segment,
    Timeline,
    merge,
    read_timeline,
    timeline_csv,
    write_timeline_json,
)
from vidtad.video import VideoInfo

VIDEO = VideoInfo(path="a.mp4", width=64, height=48, fps=Fraction(25), duration_s=60.0, frames=1500)
seconds = st.floats(0, 1e5, allow_nan=False)


@st.composite
def segments(draw: st.DrawFn) -> Segment:
    start = draw(seconds)
    length = draw(st.floats(1e-3, 1e4))
    return Segment(
        start,
        start + length,
        draw(st.text(min_size=1)),
        draw(st.floats(-1e6, 1e6)),
        draw(st.none() | st.integers(0, 9)),
    )


@given(st.lists(segments()))
def test_json_round_trip(tmp_path_factory: pytest.TempPathFactory, found: list[Segment]) -> None:
    path = tmp_path_factory.mktemp("t") / "a.json"
    person = PersonBox(1.0, 3, (0.1, 0.2, 0.5, 1.0), 0.9, (("stand", 0.8),))
    timeline = Timeline({"a": tuple(found)}, {"a": VIDEO}, {"name": "x", "demonstration": True}, {"a": (person,)})
    write_timeline_json(timeline, path)
    assert read_timeline(path) == timeline


def test_json_is_an_activitynet_result_file(tmp_path: Path) -> None:
    timeline = Timeline({"a": (Segment(1.5, 2.25, "jump", 0.123456789012),)}, {"a": VIDEO}, {"demonstration": True})
    write_timeline_json(timeline, tmp_path / "a.json")
    document = json.loads((tmp_path / "a.json").read_text())
    assert {"version", "results", "external_data"} <= document.keys()
    assert document["results"] == {"a": [{"label": "jump", "score": 0.123456789012, "segment": [1.5, 2.25]}]}
    assert document["demonstration"] is True
    assert document["videos"]["a"]["duration_s"] == 60.0


def test_csv_quotes_what_must_be_quoted() -> None:
    timeline = Timeline({"a,b": (Segment(0, 1, 'say "hi"\n', 0.5, 2),)}, {"a,b": VIDEO})
    rows = list(csv.reader(io.StringIO(timeline_csv(timeline))))
    assert rows == [
        ["video", "start_s", "end_s", "label", "score", "track", "shown"],
        ["a,b", "0.000", "1.000", 'say "hi"\n', "0.5", "2", "yes"],
    ]


def test_csv_is_in_order_of_time_and_says_what_is_shown() -> None:
    segments = (Segment(4, 5, "walk", 0.87654321), Segment(1, 2, "run", 0.00012345), Segment(1, 3, "run", 0.3))
    timeline = Timeline({"a": segments}, {"a": VIDEO}, {"display_score": 0.3})
    rows = list(csv.DictReader(io.StringIO(timeline_csv(timeline))))
    assert [(row["start_s"], row["score"], row["shown"]) for row in rows] == [
        ("1.000", "0.0001234", "no"), ("1.000", "0.3", "yes"), ("4.000", "0.8765", "yes")
    ]  # fmt: skip
    assert [s.score for s in timeline.at_least(timeline.display_score).results["a"]] == [0.87654321, 0.3]
    assert Timeline({}, {}, {"decoding": {"display_score": 0.2}}).display_score == 0.2
    assert Timeline({}, {}).display_score is None


@pytest.mark.parametrize(
    ("start", "end", "score"), [(-1, 1, 0), (1, 1, 0), (2, 1, 0), (math.nan, 1, 0), (0, math.inf, 0), (0, 1, math.nan)]
)
def test_impossible_segments_are_refused(start: float, end: float, score: float) -> None:
    with pytest.raises(InputError, match="segment"):
        Segment(start, end, "x", score)


@pytest.mark.parametrize("box", [(0, 0, 0, 1), (0.5, 0, 0.4, 1), (0, 0, 1.1, 1), (math.nan, 0, 1, 1)])
def test_impossible_boxes_are_refused(box: tuple[float, float, float, float]) -> None:
    with pytest.raises(InputError, match="box"):
        PersonBox(0.0, 1, box, 1.0)


def test_results_of_an_unknown_video_are_refused() -> None:
    with pytest.raises(InputError, match="'b'"):
        Timeline({"b": ()}, {"a": VIDEO})


def test_merge_refuses_the_same_video_twice() -> None:
    one = Timeline({"a": ()}, {"a": VIDEO})
    with pytest.raises(InputError, match="two timelines"):
        merge([one, one])


@pytest.mark.parametrize(
    "document",
    [
        [],
        {},
        {"version": "VERSION 1.3", "results": {}},
        {"version": "vidtad timeline 1", "results": {"a": [{"label": "x"}]}, "videos": {}, "detector": {}},
        {
            "version": "vidtad timeline 1",
            "results": {"a": [{"label": "x", "score": 1, "segment": [2, 1]}]},
            "videos": {},
        },
    ],
)
def test_other_documents_are_refused_by_name(tmp_path: Path, document: object) -> None:
    path = tmp_path / "x.json"
    path.write_text(json.dumps(document))
    with pytest.raises(InputError, match=r"x\.json"):
        read_timeline(path)
