"""VIA 3 projects (VGG Image Annotator, video edition): segments and person boxes as JSON.

Layout: https://gitlab.com/vgg/via, `via-3.x.y`, "project data structure".
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from vidtad.errors import InputError
from vidtad.formats.document import is_decimal, refused
from vidtad.formats.label_types import Gather
from vidtad.formats.people import linked, segments_of
from vidtad.formats.shared import PERSON, Videos, joined_actions, labels_of, size_of, split_actions
from vidtad.timeline import PersonBox, Timeline

# Numbers of VIA's own enumerations.
TEXT, SELECT, VIDEO, RECTANGLE = 1, 4, 4, 2
LOCAL, ADDRESS, ON_DISK = 1, 2, 3
ACTION, SCORE, WHO, DOING = "1", "2", "3", "4"
CHOICES = (2, 3, 4)
"""Attribute types whose value is option keys (check boxes, radio buttons, a list); the others hold text."""
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
        actions = joined_actions(person.actions)
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
    """Segments of every video, and rectangles as persons where the picture size is known from `videos`.

    Findings are warnings of the timeline. Raises InputError.
    """
    into = Gather()
    with refused("not a VIA 3 project"):
        read_labels(json.loads(text), into, videos)
    for name, boxes in into.people.items():
        if any(box.track < 0 for box in boxes):
            into.people[name] = linked(boxes)
        if name not in {into.columns.names[video] for video in into.columns.video}:
            for s in segments_of(into.people[name]):
                into.add(into.video(name), s.label, s.start_s, s.end_s, score=s.score, track=s.track)
    return into.timeline(videos, "via")


def is_project(document: Any) -> bool:
    """Whether this JSON document is a VIA 3 project."""
    return isinstance(document, dict) and all(
        isinstance(document.get(key), dict) for key in ("file", "metadata", "attribute")
    )


def read_labels(document: Mapping[str, Any], into: Gather, videos: Videos | None = None) -> None:
    """Add every file and every temporal segment; rectangles as persons where `videos` are given, else as findings."""
    if not is_project(document):
        raise InputError("not a VIA 3 project")
    into.on_player = True
    views = document["view"] if isinstance(document.get("view"), dict) else {}
    known = {
        str(key): into.video(str(entry.get("fname") or entry.get("src") or key))
        for key, entry in document["file"].items()
        if isinstance(entry, dict)
    }
    used: set[str] = set()
    for key, entry in document["metadata"].items():
        if not isinstance(entry, dict) or not isinstance(entry.get("z"), list):
            into.findings.add("entry without a list of times", str(key)[:60])
            continue
        file = _file_of(str(entry.get("vid")), views, known)
        if file is None:
            into.findings.add("segment of no known file", str(key)[:60])
        elif entry.get("xy"):
            _take_box(entry, known[file], into, videos)
        elif len(entry["z"]) == 2:
            _take_segment(entry, known[file], document["attribute"], into, used)
        else:
            kind = "instant left out: it has no length" if len(entry["z"]) == 1 else "note on a whole file left out"
            into.findings.add(kind, f"{into.columns.names[known[file]]}: {str(key)[:40]}", serious=False)
    if len(used) > 1:
        into.findings.add(
            "several attributes give labels", " and ".join(sorted(used)), len(used), serious=False, fate="kept"
        )


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


def _file_of(view: str, views: Any, files: Mapping[str, int]) -> str | None:
    """Key of the (first) file of a view; older projects refer to the file itself."""
    entry = views.get(view)
    listed = entry.get("fid_list") if isinstance(entry, dict) else None
    key = str(listed[0]) if isinstance(listed, list) and listed else view
    return key if key in files else None


def _take_segment(
    entry: Mapping[str, Any], video: int, attributes: Mapping[str, Any], into: Gather, used: set[str]
) -> None:
    values = [(name, label) for name, label in _values(entry.get("av"), attributes, into) if label]
    score, track, labels = 1.0, None, []
    for name, text in values:
        person = PERSON.fullmatch(text) if name == "person" else None
        if name == "score" and is_decimal(text) and len(values) > 1:
            score = float(text)
        elif person:
            track = int(person[1])
        else:
            labels.append((name, text))
    for name, label in labels:
        used.add(name)
        into.add(video, label, *entry["z"], score=score, track=track)
    if not labels:
        into.findings.add("segment without a label", f"{into.columns.names[video]}: {entry['z']}")


def _values(values: Any, attributes: Mapping[str, Any], into: Gather) -> Iterator[tuple[str, str]]:
    """(attribute name, text) of each value of an entry; of check boxes one for each that is ticked."""
    for key, value in values.items() if isinstance(values, dict) else ():
        attribute = attributes.get(key)
        if not isinstance(attribute, dict) or not isinstance(value, str | int):
            into.findings.add("value of no known attribute", f"{str(key)[:20]}: {str(value)[:40]}")
            continue
        name, options = str(attribute.get("aname") or key), attribute.get("options")
        if str(attribute.get("type")) in map(str, CHOICES) and isinstance(options, dict):
            for choice in str(value).split(","):
                if choice.strip() and choice.strip() not in options:
                    into.findings.add("choice that the attribute does not have", f"{name}: {choice.strip()[:40]}")
                yield name, str(options.get(choice.strip(), "")).strip()
        else:
            yield name, str(value).strip()


def _take_box(entry: Mapping[str, Any], video: int, into: Gather, videos: Videos | None) -> None:
    name, shape = into.columns.names[video], entry["xy"]
    if shape[:1] != [RECTANGLE]:
        into.findings.add("shape that is no rectangle left out", f"{name}: {str(shape)[:40]}")
    elif videos is None:
        into.findings.add("box left out", name, serious=False)
    elif name not in videos:
        raise InputError(f"VIA counts pixels; give the video {name!r} with --video")
    else:
        into.people.setdefault(name, []).append(_box(entry, size_of(videos[name], "VIA counts pixels")))


def _box(entry: Mapping[str, Any], size: tuple[int, int]) -> PersonBox:
    width, height = size
    x, y, w, h = map(float, entry["xy"][1:5])
    person = PERSON.fullmatch(str(entry["av"].get(WHO, "")))
    actions = split_actions(str(entry["av"].get(DOING, "")))
    box = (max(0.0, x / width), max(0.0, y / height), min(1.0, (x + w) / width), min(1.0, (y + h) / height))
    return PersonBox(float(entry["z"][0]), int(person[1]) if person else -1, box, 1.0, actions)
