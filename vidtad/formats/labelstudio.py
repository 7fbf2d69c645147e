"""Label Studio tasks: the timeline as a prediction to be corrected, and corrected tasks read back.

Label Studio counts frames from 1 at the rate its configuration names, and knows time as frame / rate. The
labelling configuration that fits goes into a second file. https://labelstud.io/tags/timelinelabels
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any
from xml.etree import ElementTree
from xml.etree.ElementTree import SubElement

from vidtad.formats.document import refused
from vidtad.formats.label_types import Gather
from vidtad.formats.people import by_track, segments_of
from vidtad.formats.shared import PERSON, Videos, frame_of, labels_of, rate_of, xml_safe
from vidtad.runtime.files import fraction_of
from vidtad.timeline import PersonBox, Segment, Timeline

WHY = "Label Studio counts frames"
DEFAULT_RATE = Fraction(24)
"""What Label Studio's Video tag assumes when its configuration names no frame rate."""
TIMELINE, BOX = "timeline", "person"
RATES = ("fps", "framerate", "frame_rate", "frameRate")
"""Where a task's data state its frames a second: the configuration reads it from there ($fps)."""
LABELS = ("timelinelabels", "labels", "videolabels")
MOST_FRAMES = 1e15
"""Frames that no video has."""
NEW_TRACKS = 1_000_000
"""Numbers of persons that were drawn by hand start here."""


def write(timeline: Timeline) -> dict[str, str]:
    """One task per video, and the labelling configuration."""
    tasks = []
    for name in timeline.videos:
        info = timeline.videos[name]
        rate = rate_of(info, WHY)
        result = [_ranges(number, s, rate) for number, s in enumerate(timeline.results.get(name, ()))]
        for track, boxes in by_track(timeline.people.get(name, ())).items():
            result.append(_track(track, boxes, rate, info.frames))
        prediction = {"model_version": str(timeline.detector.get("name", "vidtad")), "result": result}
        tasks.append({"data": {"video": info.path or name, "fps": float(rate)}, "predictions": [prediction]})
    return {
        ".labelstudio.json": json.dumps(tasks, ensure_ascii=False, allow_nan=False, indent=1) + "\n",
        ".labelstudio.xml": configuration(timeline),
    }


def configuration(timeline: Timeline) -> str:
    """Labelling configuration with every class of the timeline. One frame rate serves a whole project."""
    rates = {info.fps for info in timeline.videos.values()}
    rate = max(rates) if rates else DEFAULT_RATE
    view = ElementTree.Element("View")
    timeline_labels = SubElement(view, "TimelineLabels", name=TIMELINE, toName="video")
    for label in labels_of(timeline):
        SubElement(timeline_labels, "Label", value=xml_safe(label))
    SubElement(view, "Video", name="video", value="$video", framerate=f"{float(rate):.8g}", timelineHeight="160")
    if timeline.people:
        SubElement(view, "VideoRectangle", name=BOX, toName="video")
        persons = SubElement(view, "Labels", name="persons", toName="video")
        SubElement(persons, "Label", value="person")
    ElementTree.indent(view)
    return ElementTree.tostring(view, "unicode") + "\n"


def read(text: str, videos: Videos, path: Path) -> Timeline:
    """Ranges and boxes of every task as a timeline; findings are its warnings. Raises InputError."""
    into = Gather()
    read_labels(json.loads(text), into, boxes=True)
    return into.timeline(videos, "labelstudio")


def read_labels(document: Any, into: Gather, frame_rate: float | None = None, *, boxes: bool = False) -> None:
    """Add the segments of every task, and its person boxes where they are wanted.

    What people did (`annotations`) counts, else a task's first prediction; of several annotations the one marked as
    ground truth, else the last. Frames are counted at `frame_rate`, else at the rate that the task states, else at the
    24 a second that Label Studio's Video tag assumes.
    """
    into.on_player = True
    for task in document if isinstance(document, list) else [document]:
        if not isinstance(task, dict):
            into.findings.add("task that is no object", str(task)[:40])
            continue
        inner = task.get("data")
        data: Mapping[str, Any] = inner if isinstance(inner, dict) else task
        stated = _media(data) or _without_prefix(str(task.get("file_upload") or ""))
        if not stated:
            into.findings.add("task without a video", f"id {task.get('id')}")
            continue
        video = into.video(stated)
        rate = _rate(data, frame_rate)
        if rate is None:
            into.findings.add("frame rate that is no number", f"{into.columns.names[video]}: {_stated_rate(data)!r}")
            continue
        results = _results(task, into.columns.names[video], into)
        for number, result in enumerate(results):
            _take(result, number, video, rate, into, boxes)
        if frame_rate is None and _stated_rate(data) is None and any("ranges" in _value(r) for r in results):
            into.findings.add(
                f"task without a frame rate, taken at Label Studio's {DEFAULT_RATE} a second",
                f"{into.columns.names[video]}; give the rate otherwise",
                serious=False,
                fate="kept, at that rate",
            )


def fits(text: str) -> bool:
    """Whether this is a list of tasks, or one."""
    if text.lstrip()[:1] not in ("[", "{"):
        return False
    try:
        return is_export(json.loads(text))
    except (ValueError, RecursionError):
        return False


def is_export(document: Any) -> bool:
    """Whether this JSON document is a list of tasks, in the full or the small form, or one task."""
    tasks = document if isinstance(document, list) else [document]
    if not tasks or not all(isinstance(task, dict) for task in tasks):
        return False
    full = any("data" in task and ("annotations" in task or "predictions" in task) for task in tasks[:50])
    return full or (isinstance(document, list) and any("id" in task and _media(task) for task in tasks[:50]))


def _ranges(number: int, segment: Segment, rate: Fraction) -> dict[str, Any]:
    first = frame_of(segment.start_s, rate) + 1
    last = max(frame_of(segment.end_s, rate, up=True), first)
    entry: dict[str, Any] = {
        "id": f"s{number}",
        "type": "timelinelabels",
        "from_name": TIMELINE,
        "to_name": "video",
        "origin": "prediction",
        "score": segment.score,
        "value": {"ranges": [{"start": first, "end": last}], "timelinelabels": [segment.label]},
    }
    return entry if segment.track is None else entry | {"meta": {"text": [f"person {segment.track}"]}}


def _track(track: int, boxes: Sequence[PersonBox], rate: Fraction, frames: int | None) -> dict[str, Any]:
    sequence = []
    for number, person in enumerate(boxes):
        x1, y1, x2, y2 = person.box
        sequence.append(
            {
                "frame": frame_of(person.time_s, rate) + 1,
                "time": person.time_s,
                "enabled": number + 1 < len(boxes),
                "rotation": 0,
                "x": x1 * 100,
                "y": y1 * 100,
                "width": (x2 - x1) * 100,
                "height": (y2 - y1) * 100,
            }
        )
    actions = [f"{s.label} {s.start_s:g}-{s.end_s:g} s" for s in segments_of(boxes)]
    return {
        "id": f"person{track}",
        "type": "videorectangle",
        "from_name": BOX,
        "to_name": "video",
        "origin": "prediction",
        "value": {
            "framesCount": frames or sequence[-1]["frame"],
            "duration": float((frames or sequence[-1]["frame"]) / rate),
            "sequence": sequence,
            "labels": ["person"],
        },
        "meta": {"text": [f"person {track}", *actions]},
    }


def _rate(data: Mapping[str, Any], given: float | None) -> Fraction | None:
    """Frames a second of a task; None where what is stated is no rate."""
    stated = given if given is not None else _stated_rate(data)
    if stated is None:
        return DEFAULT_RATE
    try:
        rate = fraction_of(str(stated))
    except (ValueError, ArithmeticError):
        return None
    return rate if rate > 0 else None


def _stated_rate(data: Mapping[str, Any]) -> Any:
    return next((data[key] for key in RATES if data.get(key) not in (None, "")), None)


def _media(data: Mapping[str, Any]) -> str:
    """The stated video, without the prefix of an upload and the parts of an address that are no path."""
    for key in ("video", "video_url", "video_path", "url", "audio"):
        text = data.get(key)
        if isinstance(text, str) and text.strip():
            text = text.partition("?")[0]
            folder, slash, name = text.rpartition("/")
            name = _without_prefix(name) if "upload" in folder else name
            return (folder.partition("://")[2] if "://" in folder else folder) + slash + name
    return ""


def _without_prefix(name: str) -> str:
    """An upload's name without the 8 hexadecimal digits that Label Studio puts before it."""
    head, dash, rest = name.partition("-")
    uploaded = dash and len(head) == 8 and all(letter in "0123456789abcdef" for letter in head)
    return rest if uploaded else name


def _results(task: Mapping[str, Any], name: str, into: Gather) -> list[Mapping[str, Any]]:
    """Results of a task: of what counts, see `read_labels`; of the small form (JSON-MIN), what its columns hold."""
    there = task.get("annotations", task.get("completions"))
    if not isinstance(there, list) and "predictions" not in task:
        values = [value for column in task.values() if isinstance(column, list) for value in column]
        return [{"value": value} for value in values if isinstance(value, dict)]
    entries = [entry for entry in there if isinstance(entry, dict)] if isinstance(there, list) else []
    kept = [entry for entry in entries if not entry.get("was_cancelled")]
    if len(kept) < len(entries):
        into.findings.add("skipped annotation left out", name, len(entries) - len(kept), serious=False)
    if len(kept) > 1:
        into.findings.add("task with several annotations, one is taken", name, serious=False, fate="kept: that one")
    chosen = next((entry for entry in kept if entry.get("ground_truth")), kept[-1] if kept else None)
    if chosen is None:
        predicted = [entry for entry in task.get("predictions") or [] if isinstance(entry, dict)]
        chosen = predicted[0] if predicted else {"result": []}
        if predicted:
            into.findings.add("prediction taken where nobody annotated", name, serious=False, fate="kept")
    results = chosen.get("result")
    if not isinstance(results, list):
        into.findings.add("annotation without a list of results", name)
        return []
    return [result for result in results if isinstance(result, dict)]


def _value(result: Mapping[str, Any]) -> Mapping[str, Any]:
    value = result.get("value")
    return value if isinstance(value, dict) else {}


def _take(result: Mapping[str, Any], number: int, video: int, rate: Fraction, into: Gather, boxes: bool) -> None:
    """Add what one result says: ranges in frames, a range of the sound in seconds, or a person's boxes."""
    value, name = _value(result), into.columns.names[video]
    if isinstance(value.get("sequence"), list):
        if not boxes:
            into.findings.add("boxes of a person left out", name, serious=False)
            return
        with refused(f"{name}: not a track of Label Studio"):
            into.people.setdefault(name, []).extend(_read_boxes(result, rate, number))
        return
    labels = [label for key in LABELS if isinstance(value.get(key), list) for label in value[key]]
    ranges = value.get("ranges")
    if not isinstance(ranges, list) and not ("start" in value and "end" in value):
        kind = str(result.get("type", "no type"))[:30]
        into.findings.add(f"result of another kind left out ({kind})", name, serious=False)
        return
    track, score = _person(result), result.get("score")
    spans = [_frames(span) for span in ranges] if isinstance(ranges, list) else [(value["start"], value["end"])]
    if not labels:
        into.findings.add("segment without a label", name, len(spans))
    for start, end in spans:
        if isinstance(ranges, list) and start is not None and end is not None:
            start, end = float((start - 1) / rate), float(end / rate)
        for label in labels:
            into.add(video, label, start, end, score=1.0 if score is None else score, track=track)


def _frames(entry: Any) -> tuple[Any, Any]:
    """(first frame, last frame), counted from 1; None for what is no number."""
    ends = [entry.get(key) if isinstance(entry, dict) else None for key in ("start", "end")]
    sound = [isinstance(v, int | float) and not isinstance(v, bool) and abs(v) < MOST_FRAMES for v in ends]
    exact = [Fraction(value) if good and value is not None else None for value, good in zip(ends, sound, strict=True)]
    return exact[0], exact[1]


def _person(item: Mapping[str, Any]) -> int | None:
    notes = (item.get("meta") or {}).get("text") or []
    found = [PERSON.fullmatch(str(note)) for note in ([notes] if isinstance(notes, str) else notes)]
    return next((int(match[1]) for match in found if match), None)


def _read_boxes(item: Mapping[str, Any], rate: Fraction, number: int) -> Iterator[PersonBox]:
    known = _person(item)
    track = NEW_TRACKS + number if known is None else known
    for key in item["value"]["sequence"]:
        x1, y1 = max(0.0, key["x"] / 100), max(0.0, key["y"] / 100)
        x2, y2 = min(1.0, (key["x"] + key["width"]) / 100), min(1.0, (key["y"] + key["height"]) / 100)
        time_s = key.get("time", float((key["frame"] - 1) / rate))
        yield PersonBox(float(time_s), track, (x1, y1, x2, y2), 1.0)
