"""VIA 3 projects (VGG Image Annotator, video edition): segments and person boxes as JSON.

Layout: https://gitlab.com/vgg/via, `via-3.x.y`, "project data structure".
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vidtad.errors import InputError
from vidtad.formats.document import refused
from vidtad.formats.people import linked, segments_of
from vidtad.formats.shared import PERSON, Videos, assemble, labels_of, scored, size_of, stem_of
from vidtad.timeline import PersonBox, Segment, Timeline

# Numbers of VIA's own enumerations.
TEXT, SELECT, VIDEO, RECTANGLE = 1, 4, 4, 2
LOCAL, ADDRESS, ON_DISK = 1, 2, 3
ACTION, SCORE, WHO, DOING = "1", "2", "3", "4"
SPAN, REGION = "FILE1_Z2_XY0", "FILE1_Z1_XY1"


def write(timeline: Timeline) -> dict[str, str]:
    """Project of a timeline of one video. Raises InputError when boxes are to be placed in an unknown size."""
    ((name, found),) = timeline.results.items()
    info = timeline.videos[name]
    labels = labels_of(timeline)
    option = {label: str(number) for number, label in enumerate(labels)}
    metadata: dict[str, Any] = {}
    for number, segment in enumerate(found):
        values = {ACTION: option[segment.label], SCORE: repr(segment.score)}
        if segment.track is not None:
            values[WHO] = f"person {segment.track}"
        span = list(segment.rounded())
        metadata[f"1_s{number}"] = {"vid": "1", "flg": 0, "z": span, "xy": [], "av": values}
    for number, person in enumerate(timeline.people.get(name, ())):
        width, height = size_of(info, "VIA counts pixels")
        x1, y1, x2, y2 = person.box
        corners = [x1 * width, y1 * height, (x2 - x1) * width, (y2 - y1) * height]
        shape = [RECTANGLE, *(round(value, 3) for value in corners)]
        actions = "; ".join(f"{label} ({score:.4g})" for label, score in person.actions)
        values = {WHO: f"person {person.track}", DOING: actions}
        metadata[f"1_p{number}"] = {"vid": "1", "flg": 0, "z": [round(person.time_s, 3)], "xy": shape, "av": values}
    path = Path(info.path)
    project = {
        "project": {
            "pid": "__VIA_PROJECT_ID__",
            "rev": "__VIA_PROJECT_REV_ID__",
            "rev_timestamp": "__VIA_PROJECT_REV_TIMESTAMP__",
            "pname": name,
            "creator": "VGG Image Annotator (http://www.robots.ox.ac.uk/~vgg/software/via)",
            "created": 0,
            "vid_list": ["1"],
        },
        "config": {"file": {"loc_prefix": {"1": "", "2": "", "3": "", "4": ""}}, "ui": _UI},
        "attribute": _attributes(labels),
        "file": {
            "1": {"fid": "1", "fname": path.name or name, "type": VIDEO, "loc": ON_DISK, "src": path.name or name}
        },
        "metadata": metadata,
        "view": {"1": {"fid_list": ["1"]}},
    }
    return {".via.json": json.dumps(project, ensure_ascii=False, allow_nan=False, indent=1) + "\n"}


def read(text: str, videos: Videos, path: Path) -> Timeline:
    """Temporal segments of every video, and rectangles as persons where the picture size is known from `videos`.

    The label of a segment is its first attribute with a choice, else its first text. Raises InputError.
    """
    segments: dict[str, list[Segment]] = {}
    people: dict[str, list[PersonBox]] = {}
    with refused("not a VIA 3 project"):
        document = json.loads(text)
        names = {}
        for view, entry in document["view"].items():
            file = document["file"][entry["fid_list"][0]]
            names[view] = stem_of(str(file["fname"] or file["src"]))
            segments[names[view]] = []
        for entry in document["metadata"].values():
            name = names[entry["vid"]]
            if len(entry["z"]) == 2 and not entry["xy"]:
                segments[name].append(_segment(entry, document["attribute"]))
            elif len(entry["z"]) == 1 and entry["xy"][:1] == [RECTANGLE]:
                size = size_of(videos[name], "VIA counts pixels") if name in videos else None
                if size is None:
                    raise InputError(f"VIA counts pixels; give the video {name!r} with --video")
                people.setdefault(name, []).append(_box(entry, size))
    for name, boxes in people.items():
        if any(box.track < 0 for box in boxes):
            people[name] = linked(boxes)
        if not segments[name]:
            segments[name] = segments_of(people[name])
    return assemble(segments, videos, source="via", people=people)


def fits(text: str) -> bool:
    """Whether this is a VIA 3 project."""
    return text.lstrip()[:1] == "{" and '"metadata"' in text and '"vid_list"' in text


_UI = {
    "file_content_align": "center",
    "file_metadata_editor_visible": True,
    "spatial_metadata_editor_visible": True,
    "temporal_segment_metadata_editor_visible": True,
    "spatial_region_label_attribute_id": "",
    "gtimeline_visible_row_count": "4",
}


def _attributes(labels: list[str]) -> dict[str, Any]:
    options = {str(number): label for number, label in enumerate(labels)}

    def attribute(name: str, anchor: str, kind: int, options: Mapping[str, str]) -> dict[str, Any]:
        return {
            "aname": name,
            "anchor_id": anchor,
            "type": kind,
            "desc": "",
            "options": dict(options),
            "default_option_id": "",
        }

    return {
        ACTION: attribute("action", SPAN, SELECT, options),
        SCORE: attribute("score", SPAN, TEXT, {}),
        WHO: attribute("person", REGION, TEXT, {}),
        DOING: attribute("actions", REGION, TEXT, {}),
    }


def _segment(entry: Mapping[str, Any], attributes: Mapping[str, Any]) -> Segment:
    values = {
        attributes[number]["aname"]: attributes[number]["options"].get(value, value)
        for number, value in entry["av"].items()
        if number in attributes
    }
    score = values.pop("score", "1")
    person = PERSON.fullmatch(values.pop("person", ""))
    label = values.get("action", next(iter(values.values()), ""))
    start_s, end_s = map(float, entry["z"])
    return Segment(start_s, end_s, str(label), float(score), int(person[1]) if person else None)


def _box(entry: Mapping[str, Any], size: tuple[int, int]) -> PersonBox:
    width, height = size
    x, y, w, h = map(float, entry["xy"][1:5])
    person = PERSON.fullmatch(str(entry["av"].get(WHO, "")))
    actions = tuple(map(scored, filter(None, str(entry["av"].get(DOING, "")).split("; "))))
    box = (max(0.0, x / width), max(0.0, y / height), min(1.0, (x + w) / width), min(1.0, (y + h) / height))
    return PersonBox(float(entry["z"][0]), int(person[1]) if person else -1, box, 1.0, actions)
