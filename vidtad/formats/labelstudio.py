"""Label Studio tasks: the timeline as a prediction to be corrected, and corrected tasks read back.

Label Studio counts frames from 1 at the rate its configuration names, and knows time as frame / rate. The
labelling configuration that fits goes into a second file. https://labelstud.io/tags/timelinelabels
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from math import ceil, floor
from pathlib import Path
from typing import Any
from xml.etree import ElementTree
from xml.etree.ElementTree import SubElement

from vidtad.formats.document import refused
from vidtad.formats.people import by_track, segments_of
from vidtad.formats.shared import PERSON, Videos, assemble, labels_of, rate_of, stem_of, xml_safe
from vidtad.runtime.files import fraction_of
from vidtad.timeline import PersonBox, Segment, Timeline

WHY = "Label Studio counts frames"
DEFAULT_RATE = Fraction(24)
"""What Label Studio's Video tag assumes when its configuration names no frame rate."""
TIMELINE, BOX = "timeline", "person"
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
    """What people corrected (`annotations`), else the predictions, of every task. Raises InputError."""
    tasks = json.loads(text)
    segments: dict[str, list[Segment]] = {}
    people: dict[str, list[PersonBox]] = {}
    for task in tasks if isinstance(tasks, list) else [tasks]:
        with refused("not a Label Studio task"):
            addresses = [task["data"][key] for key in ("video", "video_url", "url") if key in task["data"]]
            name = stem_of(str(addresses[0]))
            info = videos.get(name)
            rate = info.fps if info and info.fps > 0 else fraction_of(str(task["data"].get("fps", DEFAULT_RATE)))
            segments[name] = list(_read_ranges(_result(task), rate))
            tracks = [item for item in _result(task) if item.get("type") == "videorectangle"]
            boxes = [box for number, item in enumerate(tracks) for box in _read_boxes(item, rate, number)]
            if boxes:
                people[name] = boxes
    return assemble(segments, videos, source="labelstudio", people=people)


def fits(text: str) -> bool:
    """Whether this is a list of tasks, or one."""
    if text.lstrip()[:1] not in ("[", "{"):
        return False
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        return False
    task = document[0] if isinstance(document, list) and document else document
    if not isinstance(task, dict) or not isinstance(task.get("data"), dict):
        return False
    return "annotations" in task or "predictions" in task


def _ranges(number: int, segment: Segment, rate: Fraction) -> dict[str, Any]:
    first = floor(segment.start_s * rate) + 1
    last = max(ceil(segment.end_s * rate), first)
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
                "frame": round(person.time_s * rate) + 1,
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


def _result(task: Mapping[str, Any]) -> list[dict[str, Any]]:
    kept = [entry for entry in task.get("annotations") or [] if not entry.get("was_cancelled")]
    for entry in [*kept[-1:], *(task.get("predictions") or [])[:1]]:
        return list(entry["result"])
    return []


def _read_ranges(result: Sequence[Mapping[str, Any]], rate: Fraction) -> Iterator[Segment]:
    for item in result:
        if item.get("type") != "timelinelabels":
            continue
        track, score = _person(item), item.get("score")
        for span in item["value"]["ranges"]:
            for label in item["value"]["timelinelabels"]:
                start, end = (span["start"] - 1) / rate, span["end"] / rate
                yield Segment(max(0.0, float(start)), float(end), str(label), 1.0 if score is None else score, track)


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
