"""What is written for other programs opens in their readers, and comes back as it was."""

import csv
import io
import json
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import pympi
import pysubs2
import pytest
import webvtt
from hypothesis import given
from hypothesis import strategies as st

from tests.formats.timelines import HOSTILE, overlapping, two_persons, video
from vidtad.errors import InputError
from vidtad.formats import subtitles
from vidtad.formats.interchange import FORMATS, parse_names, read_any, render, write_formats, write_one
from vidtad.formats.people import linked, sampled, segments_of
from vidtad.formats.shared import packed, scored
from vidtad.timeline import PersonBox, Segment, Timeline, write_timeline_json

SCORED = {"activitynet", "csv", "srt", "vtt", "labelstudio", "cvat", "via", "boris", "thumos"}
TRACKED = {"csv", "srt", "vtt", "elan", "labelstudio", "via", "boris"}


def written(timeline: Timeline, name: str, folder: Path) -> Path:
    suffix = next(iter(render(timeline, name)))
    return write_one(timeline, folder / f"match{suffix}", name)[0]


@pytest.mark.parametrize("name", sorted(FORMATS.keys() - {"ava"}))
@pytest.mark.parametrize("fps", [Fraction(25), Fraction(30000, 1001)])
def test_segments_come_back(name: str, fps: Fraction, tmp_path: Path) -> None:
    timeline = overlapping(fps)
    if name == "thumos":  # separates by blanks
        plain = tuple(replace(s, label="spin") if s.label == HOSTILE else s for s in timeline.results["match"])
        timeline = replace(timeline, results={"match": plain})
    back = read_any(written(timeline, name, tmp_path), timeline.videos)
    assert back.videos == timeline.videos
    slack = float(1 / fps) if name in ("labelstudio", "cvat") else 0.0005

    def order(s: Segment) -> tuple[float, float]:
        return round(s.start_s, 1), round(s.end_s, 1)

    wanted, found = (sorted(t.results["match"], key=order) for t in (timeline, back))
    assert [s.label for s in found] == [" ".join(s.label.split()) for s in wanted]
    for ours, theirs in zip(wanted, found, strict=True):
        assert theirs.start_s == pytest.approx(ours.start_s, abs=slack)
        assert theirs.end_s == pytest.approx(ours.end_s, abs=slack)
        assert theirs.score == (pytest.approx(ours.score) if name in SCORED else 1.0)
        assert theirs.track == (ours.track if name in TRACKED else None)


@pytest.mark.parametrize("name", ["csv", "via", "srt", "vtt", "elan", "thumos", "activitynet", "annotations"])
def test_segments_under_a_millisecond_come_back(name: str, tmp_path: Path) -> None:
    short = (Segment(3.0, 3.0004, "hop", 0.5), Segment(0.00049, 0.0005, "hop", 0.5))
    videos = {"match": video("match")}
    back = read_any(written(Timeline({"match": short}, videos, {}), name, tmp_path), videos)
    times = sorted((s.start_s, s.end_s) for s in back.results["match"])
    assert times == [(pytest.approx(0, abs=0.001), pytest.approx(0.001, abs=0.001)), pytest.approx((3, 3), abs=0.0011)]


@pytest.mark.parametrize("name", ["ava", "cvat", "via", "labelstudio"])
def test_persons_come_back(name: str, tmp_path: Path) -> None:
    timeline = two_persons()
    back = read_any(written(timeline, name, tmp_path), timeline.videos)
    wanted = timeline.people["match"]
    found = sorted(back.people["match"], key=lambda p: (p.time_s, p.box))
    assert [p.time_s for p in found] == [p.time_s for p in wanted]
    for ours, theirs in zip(wanted, found, strict=True):
        assert theirs.box == pytest.approx(ours.box, abs=1e-4)
        assert theirs.track % 1_000_000 == ours.track
        if name != "labelstudio":
            assert dict(theirs.actions) == pytest.approx(dict(ours.actions))
    walks = [s for s in back.results["match"] if s.label == "walk"]
    assert [(s.start_s, s.end_s) for s in walks] == [pytest.approx((9.5, 14.5), abs=0.05)]


def test_subtitles_open_in_pysubs2(tmp_path: Path) -> None:
    subs = pysubs2.load(str(written(overlapping(), "srt", tmp_path)))
    spans = [(event.start, event.end) for event in subs]
    assert spans == [
        (10000, 15000), (15000, 18500), (18500, 19250), (19250, 20000), (20000, 30000), (40000, 60000)
    ]  # fmt: skip
    assert subs[1].plaintext.split("\n") == ["walk (0.9)", "walk (0.8)"]
    assert len(subs[2].plaintext.split("\n")) == 3 and subs[2].plaintext.endswith("--> ünï 漢字 (0.7)")


def test_webvtt_opens_in_webvtt_py(tmp_path: Path) -> None:
    import html

    captions = webvtt.read(str(written(overlapping(), "vtt", tmp_path))).captions
    assert [(c.start, c.end) for c in captions][:2] == [
        ("00:00:10.000", "00:00:15.000"),
        ("00:00:15.000", "00:00:18.500"),
    ]
    assert captions[1].text == "walk (0.9)\nwalk (0.8)"
    assert html.unescape(captions[2].raw_text).split("\n")[2] == f"{HOSTILE} (0.7)"
    assert "<script" not in captions[2].raw_text


def test_elan_opens_in_pympi(tmp_path: Path) -> None:
    document = pympi.Elan.Eaf(str(written(overlapping(), "elan", tmp_path)))
    tiers = {name: document.get_annotation_data_for_tier(name) for name in document.get_tier_names()}
    assert tiers["walk"] == [(10000, 20000, "walk")]
    assert tiers["walk (2)"] == [(15000, 30000, "walk")]
    assert tiers["run person 3"] == [(40000, 60000, "run")]
    assert tiers[HOSTILE] == [(18500, 19250, HOSTILE)]
    assert document.get_linked_files()[0]["RELATIVE_MEDIA_URL"] == "./match.mp4"
    assert (
        pympi.Elan.Eaf(str(written(two_persons(), "elan", tmp_path))).get_parameters_for_tier("walk person 0")[
            "PARTICIPANT"
        ]
        == "person 0"
    )


def test_elan_written_by_pympi_is_read(tmp_path: Path) -> None:
    document = pympi.Elan.Eaf(author="someone")
    document.add_tier("gesture")
    document.add_annotation("gesture", 1500, 2750, "point")
    document.add_annotation("gesture", 4000, 5000, "")
    path = tmp_path / "talk.eaf"
    document.to_file(str(path))
    found = read_any(path).results["talk"]
    assert [(s.start_s, s.end_s, s.label) for s in found] == [(1.5, 2.75, "point"), (4.0, 5.0, "gesture")]


def test_subtitles_written_by_pysubs2_are_read(tmp_path: Path) -> None:
    subs = pysubs2.SSAFile()
    subs.append(pysubs2.SSAEvent(start=1000, end=2000, text="jump"))
    subs.append(pysubs2.SSAEvent(start=2000, end=3500, text="jump\\Nwave"))
    for name in ("film.srt", "film.vtt"):
        subs.save(str(tmp_path / name))
        found = read_any(tmp_path / name).results["film"]
        assert {(s.start_s, s.end_s, s.label, s.score) for s in found} == {(1, 3.5, "jump", 1), (2, 3.5, "wave", 1)}


def test_cvat_tracks_open_in_datumaro(tmp_path: Path) -> None:
    datumaro = pytest.importorskip("datumaro", reason="datumaro is heavy: extra `readers`, not `test`")
    write_one(two_persons(), tmp_path / "annotations.xml", "cvat")
    items = {item.id: item.annotations for item in datumaro.Dataset.import_from(str(tmp_path), "cvat")}
    box = items["frame_000250"][0]
    assert box.get_bbox() == pytest.approx([64, 72, 128, 252]) and box.attributes["actions"] == "walk (0.9)"


def test_label_studio_accepts_the_predictions() -> None:
    interface = pytest.importorskip(
        "label_studio_sdk.label_interface", reason="label-studio-sdk is heavy: extra `readers`, not `test`"
    )
    for timeline in (overlapping(), two_persons()):
        files = render(timeline, "labelstudio")
        project = interface.LabelInterface(files[".labelstudio.xml"])
        project.validate()
        task = json.loads(files[".labelstudio.json"])[0]
        assert project.validate_prediction(task["predictions"][0], return_errors=True) == []


def test_cvat_counts_frames_as_the_video_has_them() -> None:
    """Person boxes lie at the frame shown at their time; the track ends one frame after its last box."""
    root = ElementTree.fromstring(render(two_persons(), "cvat")[".cvat.xml"])
    tracks = {track.get("id"): track for track in root.iter("track")}
    assert [box.get("frame") for box in tracks["0"]] == ["250", "275", "300", "325", "350", "351"]
    assert [box.get("outside") for box in tracks["0"]] == ["0"] * 5 + ["1"]
    first = tracks["0"][0]
    assert [float(first.get(side)) for side in ("xtl", "ytl", "xbr", "ybr")] == [64.0, 72.0, 192.0, 324.0]
    assert root.findtext(".//task/size") == "1500" and root.findtext(".//task/stop_frame") == "1499"
    assert [name.text for name in root.iterfind(".//label/name")] == ["person"]


def test_cvat_of_a_varying_rate_wants_the_times_of_the_frames(tmp_path: Path) -> None:
    times = [0.0, 0.1, 0.5, 0.6, 2.0]
    found = (Segment(0.45, 0.62, "jump", 0.5),)
    info = video(constant_rate=False, frames=5, duration_s=2.4)
    timeline = Timeline({"match": found}, {"match": info}, {})
    with pytest.raises(InputError, match="varying rate"):
        render(timeline, "cvat")
    text = render(timeline, "cvat", {"match": times})[".cvat.xml"]
    boxes = [(box.get("frame"), box.get("outside")) for box in ElementTree.fromstring(text).iter("box")]
    assert boxes == [("2", "0"), ("3", "1")]
    path = tmp_path / "match.cvat.xml"
    path.write_text(text)
    assert read_any(path, {"match": info}, {"match": times}).results["match"] == (Segment(0.5, 0.6, "jump", 0.5),)


def test_cvat_boxes_between_keyframes_are_sampled(tmp_path: Path) -> None:
    """CVAT exports a box for every frame and marks those it drew itself; AVA wants one a second."""
    timeline = two_persons()
    boxes = "".join(
        f'<box frame="{k}" outside="{int(k > 110)}" occluded="0" keyframe="{int(k in (20, 111))}" xtl="{k}" ytl="36" '
        'xbr="320" ybr="180" z_order="0"><attribute name="actions">walk; wave</attribute></box>'
        for k in range(20, 112)
    )
    source = "<annotations><version>1.1</version><meta><task><source>match.mp4</source></task></meta>"
    source += f'<track id="3" label="person">{boxes}</track></annotations>'
    (tmp_path / "people.xml").write_text(source)
    (few,) = read_any(tmp_path / "people.xml", timeline.videos).people["match"]
    assert few.time_s == 0.8 and few.track == 3
    all_of_it = read_any(tmp_path / "people.xml", timeline.videos, between=True).people["match"]
    assert len(all_of_it) == 91
    found = sampled(all_of_it, 1.0)
    assert [(p.time_s, round(p.box[0] * 640)) for p in found] == [(1, 25), (2, 50), (3, 75), (4, 100)]
    assert {p.actions for p in found} == {(("walk", 1.0), ("wave", 1.0))}


def test_cvat_without_a_rate_or_size_says_what_to_give(tmp_path: Path) -> None:
    path = written(overlapping(), "cvat", tmp_path)
    with pytest.raises(InputError, match="--video"):
        read_any(path)
    unknown = Timeline({"a": ()}, {"a": video(width=0, height=0)}, {})
    with pytest.raises(InputError, match="picture size"):
        render(unknown, "cvat")


def test_boris_events_pair_up() -> None:
    rows = list(csv.DictReader(io.StringIO(render(overlapping(), "boris")[".boris.tsv"]), delimiter="\t"))
    assert [float(row["Time"]) for row in rows] == sorted(float(row["Time"]) for row in rows)
    open_states: dict[tuple[str, str], int] = {}
    for row in rows:
        key = (row["Subject"], row["Behavior"])
        open_states[key] = open_states.get(key, 0) + (1 if row["Behavior type"] == "START" else -1)
        assert open_states[key] in (0, 1), "a subject does one behaviour once at a time"
    assert set(open_states.values()) == {0}
    assert {row["Media duration (s)"] for row in rows} == {"60.000"} and {row["FPS"] for row in rows} == {"25.000"}


def test_via_project_has_every_part_and_no_dangling_reference() -> None:
    project = json.loads(render(two_persons(), "via")[".via.json"])
    assert project["project"]["vid_list"] == list(project["view"])
    assert project["view"]["1"]["fid_list"] == list(project["file"])
    for entry in project["metadata"].values():
        assert entry["vid"] in project["view"] and entry["av"].keys() <= project["attribute"].keys()
    spans = [entry for entry in project["metadata"].values() if len(entry["z"]) == 2]
    options = project["attribute"]["1"]["options"]
    assert [options[entry["av"]["1"]] for entry in spans] == ["walk", "stand"]
    boxes = [entry["xy"] for entry in project["metadata"].values() if len(entry["z"]) == 1]
    assert boxes[0] == [2, 64.0, 72.0, 128.0, 252.0]


def test_what_people_corrected_wins_over_the_prediction(tmp_path: Path) -> None:
    (task,) = json.loads(render(overlapping(), "labelstudio")[".labelstudio.json"])
    item = {"type": "timelinelabels", "value": {"ranges": [{"start": 26, "end": 50}], "timelinelabels": ["hop"]}}
    task["annotations"] = [{"result": [item]}]
    path = tmp_path / "export.json"
    path.write_text(json.dumps([task]))
    assert read_any(path).results["match"] == (Segment(1.0, 2.0, "hop", 1.0),)
    truth = json.loads(render(read_any(path), "annotations")[".annotations.json"])
    assert truth["database"]["match"]["annotations"] == [{"label": "hop", "segment": [1.0, 2.0]}]


def test_annotations_claim_no_duration_that_nobody_stated(tmp_path: Path) -> None:
    path = tmp_path / "a.srt"
    path.write_text("1\n00:00:01,000 --> 00:00:02,000\nhop\n")
    truth = json.loads(render(read_any(path), "annotations")[".annotations.json"])
    assert [list(video) for video in truth["database"].values()] == [["subset", "annotations"]]


def test_ava_numbers_are_avas_own_where_the_names_are(tmp_path: Path) -> None:
    def ids(labels: list[str]) -> tuple[set[str], bool]:
        people = tuple(PersonBox(1.0, k, (0.1, 0.1, 0.5, 0.5), 1.0, ((label, 0.5),)) for k, label in enumerate(labels))
        files = render(Timeline({"match": ()}, {"match": video()}, {}, {"match": people}), "ava")
        return {row.split(",")[6] for row in files[".ava.csv"].splitlines()}, ".ava.pbtxt" in files

    from vidtad.formats.ava import ava_classes

    own = ava_classes()[13]
    assert ids([own.name]) == ({str(own.id)}, False)
    assert ids(["wave", "juggle"]) == ({"1", "2"}, True)
    with pytest.raises(InputError, match="person boxes"):
        render(overlapping(), "ava")


def test_unknown_formats_are_answered_with_near_ones() -> None:
    with pytest.raises(InputError, match="did you mean elan"):
        parse_names("srt,elam")
    assert parse_names("eaf,srt,SRT") == ["elan", "srt"]


def test_formats_beside_the_timelines_leave_the_folder_readable(tmp_path: Path) -> None:
    from vidtad.formats.reading import read_predictions

    timeline = replace(overlapping(), results={"match": overlapping().results["match"][:2]})
    write_timeline_json(timeline, tmp_path / "match.json")
    paths = write_formats(timeline, tmp_path, "csv,srt,vtt,elan,labelstudio,cvat,via,boris,thumos,activitynet")
    assert all(path.exists() for path in paths)
    assert (tmp_path / "match.eaf").exists() and (tmp_path / "labelstudio/match.labelstudio.json").exists()
    assert len(read_predictions(tmp_path)) == 2, "evaluation of the folder counts every segment once"


def test_no_id_leads_out_of_the_folder(tmp_path: Path) -> None:
    names = ("../../up", "/etc/x", "a:b", "A_b", ".")
    timeline = Timeline({name: (Segment(0, 1, "hop", 0.5),) for name in names}, {n: video(n) for n in names}, {})
    paths = write_formats(timeline, tmp_path / "out", "srt")
    assert len(set(paths)) == 5 and {path.parent for path in paths} == {tmp_path / "out"}
    assert all(path.resolve().parent == (tmp_path / "out").resolve() and path.exists() for path in paths)


def test_ids_that_no_file_can_be_named_by(tmp_path: Path) -> None:
    names = ("lone \ud800", "漢" * 300, "漢" * 301, "\U0001f600" * 100)
    timeline = Timeline({name: (Segment(0, 1, "\ud801", 0.5),) for name in names}, {n: video(n) for n in names}, {})
    for format_name in ("srt", "vtt", "elan", "via", "boris", "csv", "activitynet", "annotations"):
        assert all(path.exists() for path in write_formats(timeline, tmp_path / format_name, format_name))


def test_nothing_is_written_when_one_format_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(InputError):
        write_formats(overlapping(), tmp_path / "out", "srt,ava")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "text",
    [
        "<annotations><version>1.1</version>",
        '<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b "c">]><ANNOTATION_DOCUMENT>&b;</ANNOTATION_DOCUMENT>',
        '[{"data": {"video": "a.mp4"}, "predictions": [{"result": [{"type": "timelinelabels"}]}]}]',
        '{"metadata": {"1": {"vid": "7"}}, "vid_list": [], "view": {}, "attribute": {}}',
        "Subject\tBehavior\tBehavior type\tTime\tObservation id\na\tb\tSTOP\t1\tv\n",
        "Subject\tBehavior\tBehavior type\tTime\tObservation id\na\tb\tSTART\tsoon\tv\n",
        '{"results": {"a": [{"label": "x", "score": 1, "segment": [3, 1]}]}}',
        "video,start_s,end_s,label,score,track\na,0,x,b,1,\n",
        "hello\n",
    ],
)
def test_broken_files_are_refused_with_their_name(text: str, tmp_path: Path) -> None:
    path = tmp_path / "broken.txt"
    path.write_text(text)
    with pytest.raises(InputError, match=r"broken\.txt"):
        read_any(path)


spans = st.lists(
    st.tuples(st.integers(0, 50), st.integers(1, 30), st.sampled_from("abc"), st.integers(1, 9)), max_size=12
)


@given(spans)
def test_cues_never_overlap_and_join_again(drawn: list[tuple[int, int, str, int]]) -> None:
    found = [Segment(start, start + length, label, score / 10) for start, length, label, score in drawn]
    cues = subtitles.cues(found)
    assert all(before[1] <= after[0] for before, after in pairwise(cues))
    assert all(start < end for start, end, _ in cues)
    seconds = {(s.label, s.score, t) for s in found for t in range(int(s.start_s), int(s.end_s))}
    again = set()
    for start, end, text in subtitles._joined(cues):
        label, score = scored(text)
        again |= {(label, score, t) for t in range(start // 1000, end // 1000)}
    assert again == seconds


@given(spans)
def test_packed_rows_do_not_overlap(drawn: list[tuple[int, int, str, int]]) -> None:
    found = [Segment(start, start + length, label, score / 10) for start, length, label, score in drawn]
    rows = packed(found)
    assert sorted(map(str, found)) == sorted(str(s) for row in rows for s in row)
    assert all(a.end_s <= b.start_s for row in rows for a, b in pairwise(row))
    busiest = max((sum(s.start_s <= t < s.end_s for s in found) for t in range(90)), default=0)
    assert len(rows) == busiest, "no more rows than segments at the busiest moment"


def test_boxes_are_linked_by_overlap_and_runs_end_at_gaps() -> None:
    boxes = [
        PersonBox(t, -1, (x, 0.1, x + 0.2, 0.9), 1.0, (("walk", 0.5),))
        for t in (1.0, 2.0, 3.0, 7.0)
        for x in (0.1 + 0.02 * t, 0.7)
    ]
    tracks = linked(boxes)
    assert [p.track for p in tracks] == [0, 1, 0, 1, 0, 1, 2, 3], "after four seconds nobody knows who it is"
    assert [(s.start_s, s.end_s, s.track) for s in segments_of(tracks)][:2] == [(0.5, 3.5, 0), (0.5, 3.5, 1)]


def test_a_threshold_leaves_the_boxes() -> None:
    kept = two_persons().at_least(0.7)
    assert [s.label for s in kept.results["match"]] == ["walk"]
    assert len(kept.people["match"]) == 10
    assert {label for p in kept.people["match"] for label, _ in p.actions} == {"walk", "wave"}
