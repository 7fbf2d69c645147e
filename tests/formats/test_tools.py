"""What files of annotation tools say is taken as they mean it, by labels and timelines alike, or named."""

import json
import unicodedata
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vidtad.errors import InputError
from vidtad.evaluation import evaluate_files
from vidtad.formats.interchange import FORMATS, read_any, render
from vidtad.formats.label_reading import read_labels
from vidtad.formats.shared import frame_of, split_actions
from vidtad.labels import Duration, check, cleaned
from vidtad.timeline import PersonBox, Segment, Timeline
from vidtad.video import VideoInfo

Rows = list[tuple[str, str, float, float]]
HEAD = (
    "Observation id",
    "Source",
    "Time offset (s)",
    "Media duration (s)",
    "Subject",
    "Behavior",
    "who",
    "Behavior type",
)
HEAD = (*HEAD, "Time", "Media file name")


def both(path: Path, frame_rate: float | None = None, videos: Mapping[str, VideoInfo] | None = None) -> Rows:
    """(video, label, start, end) of a file, which both views of it agree on."""
    table = read_labels(path, frame_rate=frame_rate).table
    rows = sorted(
        (table.videos[video], table.labels[label], round(start, 3), round(end, 3))
        for video, label, start, end in zip(
            table.video.tolist(), table.label.tolist(), table.start.tolist(), table.end.tolist(), strict=True
        )
    )
    timeline = read_any(path, videos)
    assert rows == sorted(
        (name, s.label, round(s.start_s, 3), round(s.end_s, 3))
        for name, found in timeline.results.items()
        for s in found
    )
    return rows


def findings(path: Path) -> str:
    """What both views say was found, in one text."""
    said = " | ".join(finding.line() for finding in read_labels(path).table.findings)
    assert said == " | ".join(read_any(path).detector.get("warnings", []))
    return said


def events(
    path: Path,
    rows: Sequence[tuple[float, str, str]],
    source: str = "player #1:/d/v1.mp4",
    offset: str = "0.0",
    durations: str = "4.000",
    media: str = "/d/v1.mp4",
) -> Path:
    """A table of BORIS events (time, START or STOP, modifier) of the behaviour `walk`."""
    lines = [
        ("o1", source, offset, durations, "No focal subject", "walk", who, kind, f"{time:.3f}", media)
        for time, kind, who in rows
    ]
    path.write_text("\n".join("\t".join(row) for row in (HEAD, *lines)) + "\n")
    return path


def project(path: Path, rows: Sequence[tuple[float, str]]) -> Path:
    """A BORIS project of one film: (time, modifier) of the behaviour `walk`."""
    film = "/d/v1.mp4"
    observation = {
        "file": {"1": [film]}, "type": "MEDIA", "time offset": 0.0, "media_info": {"length": {film: 4.0}},
        "events": [[time, "", "walk", who, ""] for time, who in rows],
    }  # fmt: skip
    conf = {"0": {"type": "State event", "code": "walk"}}
    path.write_text(json.dumps({"behaviors_conf": conf, "observations": {"o1": observation}}))
    return path


def test_boris_pairs_by_modifiers(tmp_path: Path) -> None:
    rows = [(0.5, "START", "A"), (1.0, "START", "B"), (2.5, "STOP", "A"), (3.0, "STOP", "B")]
    expected = [("v1", "walk", 0.5, 2.5), ("v1", "walk", 1.0, 3.0)]
    assert both(events(tmp_path / "m.tsv", rows)) == expected
    assert both(project(tmp_path / "m.boris", [(time, who) for time, _, who in rows])) == expected


def test_boris_takes_start_and_stop_as_they_are(tmp_path: Path) -> None:
    kinds = ((0.5, "STOP"), (1, "START"), (2, "STOP"), (3, "START"), (3.5, "STOP"))
    path = events(tmp_path / "m.tsv", [(time, kind, "") for time, kind in kinds])
    assert both(path) == [("v1", "walk", 1.0, 2.0), ("v1", "walk", 3.0, 3.5)]
    assert findings(path) == "1 x state event that stops without a start, e.g. o1: walk at 0.5 s"


def test_boris_offset_and_a_name_that_it_did_not_find(tmp_path: Path) -> None:
    rows = [(101, "START", ""), (103, "STOP", "")]
    path = events(tmp_path / "o.tsv", rows, "player #1:clip.mp4", "100.0", "60.000", "Not found")
    assert both(path) == [("clip", "walk", 1.0, 3.0)]


def test_boris_queues_films(tmp_path: Path) -> None:
    source, lengths = "player #1:/d/v1.mp4;/d/v2.mp4", "4.000;4.000"
    rows = [(1, "START", ""), (2, "STOP", ""), (5, "START", ""), (7, "STOP", "")]
    assert both(events(tmp_path / "q.tsv", rows, source, durations=lengths)) == [
        ("v1", "walk", 1.0, 2.0), ("v2", "walk", 1.0, 3.0)
    ]  # fmt: skip
    across = events(tmp_path / "a.tsv", [(3, "START", ""), (5, "STOP", "")], source, durations=lengths)
    assert both(across) == [("v1", "walk", 3.0, 5.0)]
    unknown = events(tmp_path / "u.tsv", rows, source, durations="NA")
    for read in (read_labels, read_any):
        with pytest.raises(InputError, match="queues 2 videos"):
            read(unknown)


def test_old_aggregated_tables_of_several_films_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "old.tsv"
    path.write_text(
        "Observation id\tMedia file\tTotal length\tSubject\tBehavior\tModifiers\tBehavior type\tStart (s)\tStop (s)\n"
        "o\ta.mp4\t540\t\ts\t\tSTATE\t1.8\t8.125\no\tb.mp4\t540\t\ts\t\tSTATE\t227.7\t253.4\n"
    )
    with pytest.raises(InputError, match="does not say how long each is"):
        read_labels(path)


EAF = """<?xml version="1.0" encoding="UTF-8"?><ANNOTATION_DOCUMENT FORMAT="3.0"><HEADER TIME_UNITS="milliseconds">
<MEDIA_DESCRIPTOR MEDIA_URL="file:///C:/d/v1.mp4" MIME_TYPE="video/mp4" RELATIVE_MEDIA_URL="./v1.mp4"{origin}/></HEADER>
<TIME_ORDER><TIME_SLOT TIME_SLOT_ID="t1" TIME_VALUE="500"/><TIME_SLOT TIME_SLOT_ID="t2"/><TIME_SLOT TIME_SLOT_ID="t3"/>
<TIME_SLOT TIME_SLOT_ID="t4" TIME_VALUE="2000"/></TIME_ORDER>{tiers}</ANNOTATION_DOCUMENT>"""


def aligned(id: str, start: str, end: str, value: str) -> str:
    return (
        f'<ANNOTATION><ALIGNABLE_ANNOTATION ANNOTATION_ID="{id}" TIME_SLOT_REF1="{start}" TIME_SLOT_REF2="{end}">'
        f"<ANNOTATION_VALUE>{value}</ANNOTATION_VALUE></ALIGNABLE_ANNOTATION></ANNOTATION>"
    )


def referring(id: str, parent: str, value: str, after: str = "") -> str:
    previous = f' PREVIOUS_ANNOTATION="{after}"' if after else ""
    return (
        f'<ANNOTATION><REF_ANNOTATION ANNOTATION_ID="{id}" ANNOTATION_REF="{parent}"{previous}>'
        f"<ANNOTATION_VALUE>{value}</ANNOTATION_VALUE></REF_ANNOTATION></ANNOTATION>"
    )


def tier(name: str, *annotations: str) -> str:
    return f'<TIER LINGUISTIC_TYPE_REF="d" TIER_ID="{name}">{"".join(annotations)}</TIER>'


def test_elan_adds_the_time_origin(tmp_path: Path) -> None:
    path = tmp_path / "o.eaf"
    path.write_text(EAF.format(origin=' TIME_ORIGIN="2000"', tiers=tier("act", aligned("a1", "t1", "t4", "wave"))))
    assert both(path) == [("v1", "wave", 2.5, 4.0)]


PARTS = ("up", "hold", "down")


def test_elan_gives_dependent_annotations_their_parents_times(tmp_path: Path) -> None:
    path = tmp_path / "d.eaf"
    tiers = (
        tier("act", aligned("a1", "t1", "t4", "wave")),
        tier(
            "parts",
            aligned("b1", "t1", "t2", "up"),
            aligned("b2", "t2", "t3", "hold"),
            aligned("b3", "t3", "t4", "down"),
        ),
        tier("gloss", referring("c1", "a1", "hello")),
        tier("words", referring("d1", "c1", "good"), referring("d2", "c1", "day", "d1")),
    )
    path.write_text(EAF.format(origin="", tiers="".join(tiers)))
    assert both(path) == [
        ("v1", "day", 1.25, 2.0), ("v1", "down", 1.5, 2.0), ("v1", "good", 0.5, 1.25), ("v1", "hello", 0.5, 2.0),
        ("v1", "hold", 1.0, 1.5), ("v1", "up", 0.5, 1.0), ("v1", "wave", 0.5, 2.0),
    ]  # fmt: skip


def test_elan_without_a_usable_annotation_is_refused_by_both(tmp_path: Path) -> None:
    path = tmp_path / "e.eaf"
    path.write_text(EAF.format(origin="", tiers=tier("act", aligned("a1", "t2", "t3", "wave"))))
    for read in (read_labels, read_any):
        with pytest.raises(InputError, match=r"no usable segment .*without times"):
            read(path)


def studio(path: Path, data: dict, *entries: dict, key: str = "annotations") -> Path:
    path.write_text(json.dumps([{"id": 1, "data": data, key: list(entries)}]))
    return path


def ranges(start: int, end: int, label: str = "walk") -> dict:
    return {"type": "timelinelabels", "value": {"ranges": [{"start": start, "end": end}], "timelinelabels": [label]}}


def test_label_studio_counts_at_the_rate_of_the_task(tmp_path: Path) -> None:
    data = {"video": "/data/upload/1/0a1b2c3d-v1.mp4", "fps": 50}
    path = studio(tmp_path / "t.json", data, {"was_cancelled": False, "result": [ranges(51, 100)]})
    assert both(path) == [("v1", "walk", 1.0, 2.0)]
    silent = studio(tmp_path / "s.json", {"video": "v1.mp4"}, {"result": [ranges(25, 48)]})
    assert both(silent) == [("v1", "walk", 1.0, 2.0)]
    assert "without a frame rate, taken at Label Studio's 24 a second" in findings(silent)


def test_label_studio_predictions_count_where_nobody_annotated(tmp_path: Path) -> None:
    data = {"video": "v1.mp4", "fps": 25}
    path = studio(tmp_path / "p.json", data, {"result": [ranges(1, 25)]}, key="predictions")
    assert both(path) == [("v1", "walk", 0.0, 1.0)]
    assert findings(path) == "1 x prediction taken where nobody annotated, e.g. v1"
    several = studio(tmp_path / "s.json", data, {"result": [ranges(1, 25)]}, {"result": [ranges(26, 50, "run")]})
    assert both(several) == [("v1", "run", 1.0, 2.0)]
    assert "task with several annotations, one is taken" in findings(several)


def via(path: Path, attributes: dict, segments: list[tuple[list[float], dict]]) -> Path:
    document = {
        "project": {"vid_list": ["1"]}, "attribute": attributes,
        "file": {"1": {"fid": "1", "fname": "clip.mp4"}}, "view": {"1": {"fid_list": ["1"]}},
        "metadata": {f"1_{k}": {"vid": "1", "z": z, "xy": [], "av": av} for k, (z, av) in enumerate(segments)},
    }  # fmt: skip
    path.write_text(json.dumps(document))
    return path


def test_via_check_boxes_and_our_own_scores(tmp_path: Path) -> None:
    boxes = {"1": {"aname": "acts", "type": 2, "options": {"0": "walk", "1": "talk"}}}
    path = via(tmp_path / "c.json", boxes, [([1.0, 2.5], {"1": "0,1"}), ([3.0, 4.0], {"1": "0"})])
    assert both(path) == [("clip", "talk", 1.0, 2.5), ("clip", "walk", 1.0, 2.5), ("clip", "walk", 3.0, 4.0)]
    (text,) = render(timeline([Segment(1.0, 2.0, "walk", 0.8139952197720014, 3)]), "via").values()
    own = tmp_path / "own.via.json"
    own.write_text(text)
    assert both(own) == [("m", "walk", 1.0, 2.0)]
    (segment,) = read_any(own).results["m"]
    assert (segment.score, segment.track) == (0.8139952197720014, 3)


CVAT = "<annotations><version>1.1</version><meta>{meta}</meta>{body}</annotations>"
TASK = "<task><name>v1</name><size>100</size><source>v1.mp4</source></task>"
SHAPE = '<box frame="{0}" keyframe="1" outside="{1}" xtl="0" ytl="0" xbr="9" ybr="9">{2}</box>'


def test_cvat_projects_of_several_tasks_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "p.xml"
    path.write_text(CVAT.format(meta=f"<project><tasks>{TASK}{TASK}</tasks></project>", body=""))
    for read in (lambda: read_any(path), lambda: read_labels(path, frame_rate=25)):
        with pytest.raises(InputError, match=r"holds 2 tasks of a project.*export each task by itself"):
            read()


def test_cvat_segments_train_and_what_is_left_out_is_named(tmp_path: Path) -> None:
    path = tmp_path / "c.xml"
    walk = f'<track id="0" label="walk">{SHAPE.format(25, 0, "")}{SHAPE.format(50, 1, "")}</track>'
    path.write_text(CVAT.format(meta=TASK, body=f'{walk}<track id="1" label="person"/><tag label="x"/>'))
    labels = read_labels(path, frame_rate=25)
    assert (labels.table.start.tolist(), labels.table.end.tolist()) == ([1.0], [2.0])
    kinds = {finding.kind for finding in labels.table.findings}
    assert kinds == {"track of a person left out", "element 'tag' left out"}
    with pytest.raises(InputError, match="give it with --frame-rate"):
        read_labels(path)


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("walk;wave", ["walk", "wave"]),
        ("walk,wave", ["walk", "wave"]),
        ("walk (0.9); wave", ["walk", "wave"]),
        ("talk to (e.g., self, a person); wave", ["talk to (e.g., self, a person)", "wave"]),
        (r"left\, then right (0.5)", ["left, then right"]),
    ],
)
def test_actions_in_one_text(text: str, labels: list[str]) -> None:
    assert [label for label, _ in split_actions(text)] == labels


def test_subtitles_as_people_write_them(tmp_path: Path) -> None:
    path = tmp_path / "v1.srt"
    path.write_text(
        "1\n00:00:01,5 --> 00:00:02,000\n{\\an8}<i>walk</i>\n\n2\n00:00:03,000 --> 00:00:04,000\nrun --> stop\n3\n"
        "00:00:05,000 --> 00:00:06,000\nsit\n\n4\n0:99:99:99 --> 00:00:08,000\nlost\n"
    )
    expected = [("v1", "run --> stop", 3.0, 4.0), ("v1", "sit", 5.0, 6.0), ("v1", "walk", 1.5, 2.0)]
    assert both(path) == expected
    assert "cue whose times cannot be read" in findings(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("video,strat,end,label\na,1,2,x\n", "no column `start`; did you mean `strat`?"),
        ("video,frame,xmin,ymin,xmax,ymax,class\nv1,0,10,20,50,60,x\n", "are boxes, not times"),
        ("video,start,end,label,label\na,1,2,x,y\n", "two columns are called 'label'"),
    ],
)
def test_headers_that_cannot_be_taken(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text(text)
    for read in (read_labels, read_any):
        with pytest.raises(InputError) as error:
            read(path)
        assert message in str(error.value)


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("first", ["", "sep"])
def test_tables_of_spreadsheets(separator: str, encoding: str, first: str, tmp_path: Path) -> None:
    rows = (("Video", "Start", "End", "Label"), ("v1", "0:01", "0:02.5", "wäve"), ("", "", "", ""))
    text = (f"sep={separator}\n" if first else "") + "".join(separator.join(row) + "\n" for row in rows)
    path = tmp_path / "t.csv"
    path.write_bytes(text.encode(encoding))
    assert both(path) == [("v1", "wäve", 1.0, 2.5)]


def test_clock_times_are_evaluated_as_they_are_trained_on(tmp_path: Path) -> None:
    (tmp_path / "gt.csv").write_text("video,start,end,label\na,0:01,0:03,run\nb,0:02,0:05,walk\n")
    (tmp_path / "pr.csv").write_text("video,start,end,label,score\na,1,3,run,0.9\nb,2,5,walk,0.8\n")
    assert evaluate_files(tmp_path / "gt.csv", tmp_path / "pr.csv", "thumos14").average_mAP == 1.0


def test_a_list_of_labels_is_a_segment_each(tmp_path: Path) -> None:
    rows = [{"segment": [0, 1], "label": ["a", "b"]}, {"segment": [0, 1], "label": {"c": 1}}]
    path = tmp_path / "l.json"
    path.write_text(json.dumps({"database": {"v1": {"duration": 4.0, "subset": "training", "annotations": rows}}}))
    assert both(path) == [("v1", "a", 0.0, 1.0), ("v1", "b", 0.0, 1.0)]
    assert "label that is no text" in findings(path)


def test_names_compare_in_composed_form(tmp_path: Path) -> None:
    one, other = (unicodedata.normalize(form, "Café_1") for form in ("NFC", "NFD"))
    assert one != other
    (tmp_path / "gt.csv").write_text(f"video,start,end,label\n{one},1,3,{other}\n")
    (tmp_path / "pr.csv").write_text(f"video,start,end,label,score\n{other},1,3,{one},0.9\n")
    assert evaluate_files(tmp_path / "gt.csv", tmp_path / "pr.csv", "thumos14").average_mAP == 1.0
    assert read_labels(tmp_path / "gt.csv").videos == (one,)
    (tmp_path / "two.csv").write_text(f"video,start,end,label,score\n{one},1,3,a,1\n{other},1,3,a,1\n")
    with pytest.raises(InputError, match="two spellings that look the same"):
        evaluate_files(tmp_path / "gt.csv", tmp_path / "two.csv", "thumos14")


# What formats cannot carry: labels are one line in some, and only some have a place for scores and tracks.
FPS = (Fraction(25), Fraction(30000, 1001), Fraction(24000, 1001))
NO_SCORE = {"elan", "annotations"}
NO_TRACK = {"activitynet", "annotations", "thumos", "cvat"}
ROUNDED_SCORE = {"csv": 4, "srt": 4, "vtt": 4, "boris": 6}
ONE_WORD = {"thumos"}
IN_FRAMES = {"labelstudio", "cvat"}
OWN_TEST = {"ava"}
"""AVA rows hold boxes at keyframes, no segments: tests/formats/test_ava.py."""
NO_LABELS = {"activitynet", "thumos", "cvat", "ava"}
"""Not read by `labels`: predictions, and CVAT without a rate."""


def timeline(segments: Sequence[Segment], fps: Fraction = Fraction(25), late_s: float = 0.0) -> Timeline:
    info = VideoInfo("m.mp4", 64, 48, fps, 4000.0, int(4000 * fps), player_start_s=late_s)
    return Timeline({"m": tuple(segments)}, {"m": info}, {"name": "test"})


words = st.sampled_from(
    ["walk", "run, then stop", "sit; stand", 'say "hi"', "wäve", "talk (to a person)", "漢字", "a&b<c>", "x_1"]
)
times = st.one_of(st.integers(0, 3_990_000), st.integers(3_600_000, 3_600_500))
segments_ = st.lists(
    st.builds(
        lambda start, length, *rest: Segment(start / 1000, (start + length) / 1000, *rest),
        times,
        st.integers(1, 9_000),
        words,
        st.integers(1, 1000).map(lambda score: score / 1000),
        st.one_of(st.none(), st.integers(0, 9)),
    ),
    min_size=1,
    max_size=8,
    unique_by=lambda s: (s.label, s.track, s.start_s),
)


@pytest.mark.parametrize("name", sorted(set(FORMATS) - OWN_TEST))
@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(drawn=segments_, fps=st.sampled_from(FPS), late_s=st.sampled_from([0.0, 1.543]))
def test_what_we_write_comes_back_as_what_it_was(
    name: str, drawn: list[Segment], fps: Fraction, late_s: float, tmp_path: Path
) -> None:
    if name in NO_TRACK:
        drawn = [Segment(s.start_s, s.end_s, s.label, s.score) for s in drawn]
    # A label cannot overlap itself for one person in a tool of lanes; as a cue it goes on in the next.
    free: dict[tuple[str, int | None], float] = {}
    kept = []
    for s in sorted(drawn, key=lambda s: s.start_s):
        if s.start_s > free.get((s.label, s.track), -1.0) + (0.2 if name in IN_FRAMES else 0.0):
            free[s.label, s.track] = s.end_s
            kept.append(s)
    if name in IN_FRAMES:
        kept = [s for s in kept if s.end_s - s.start_s > 1 / fps]
    if name in ONE_WORD:
        kept = [Segment(s.start_s, s.end_s, s.label.replace(" ", "_"), s.score, s.track) for s in kept]
    if not kept:
        return
    made = timeline(kept, fps, late_s)
    files = render(made, name)
    for suffix, content in files.items():
        (tmp_path / f"m{suffix}").write_text(content, encoding="utf-8")
    path = tmp_path / f"m{next(iter(files))}"
    back = sorted(read_any(path, made.videos).results["m"], key=place)
    expected = sorted(kept, key=place)
    slack = float(1 / fps) + 1e-3 if name in IN_FRAMES else 0.00051
    assert [(s.label, s.track) for s in back] == [(s.label, s.track) for s in expected]
    for one, other in zip(expected, back, strict=True):
        assert abs(one.start_s - other.start_s) <= slack and abs(one.end_s - other.end_s) <= slack
        score = 1.0 if name in NO_SCORE else one.score
        assert other.score == pytest.approx(score, abs=10.0 ** -ROUNDED_SCORE.get(name, 12))
    if name in NO_LABELS:
        return
    table = cleaned(read_labels(path), {"m": Duration(4000.0, None, late_s)}).table
    again = sorted(zip((table.labels[label] for label in table.label.tolist()), table.start.tolist(), strict=True))
    # Two persons who do one thing at one time are one label, as exactly as the format tells times.
    wanted = sorted({(s.label, round(s.start_s, 3), round(s.end_s, 3)) for s in back})
    assert [label for label, _ in again] == [label for label, _, _ in wanted]
    assert all(abs(a[1] - b[1]) <= slack for a, b in zip(again, wanted, strict=True))


def place(s: Segment) -> tuple[str, int, float]:
    """What segments are told apart by."""
    return s.label, -1 if s.track is None else s.track, s.start_s


def test_exact_frames() -> None:
    rate = Fraction(981, 50)
    assert frame_of(10.39755, rate) == 204 and frame_of(10.39755, rate, up=True) == 204
    assert frame_of(10.41, rate, up=True) == 205 and frame_of(0.0, rate) == 0


def test_players_begin_where_the_container_does(tmp_path: Path) -> None:
    made = timeline([Segment(1.0, 2.0, "walk", 0.9)], late_s=1.543)
    assert "00:00:02,543 --> 00:00:03,543" in render(made, "srt")[".srt"]
    path = tmp_path / "m.srt"
    path.write_text(render(made, "srt")[".srt"])
    labels = read_labels(path)
    durations = {"m": Duration(10.0, None, 1.543)}
    assert cleaned(labels, durations).table.start.tolist() == pytest.approx([1.0])
    report = check(labels, durations)
    assert any("moved to its first frame" in line for line in report.lines())


def test_boxes_of_persons_come_back_with_awkward_actions(tmp_path: Path) -> None:
    actions = (("left, then; right", 0.5), ("talk (to a person, a dog)", 0.25))
    box = PersonBox(1.0, 4, (0.25, 0.25, 0.5, 0.75), 1.0, actions)
    made = timeline([])
    made = Timeline({"m": ()}, made.videos, {}, {"m": (box, PersonBox(2.0, 4, (0.25, 0.25, 0.5, 0.75), 1.0, actions))})
    for name in ("via", "cvat"):
        ((suffix, text),) = render(made, name).items()
        (tmp_path / f"m{suffix}").write_text(text)
        found = read_any(tmp_path / f"m{suffix}", made.videos).people["m"]
        assert [p.actions for p in found] == [actions, actions] and {p.track for p in found} == {4}
