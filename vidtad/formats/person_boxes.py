"""Files of person boxes that replace a detector: AVA-style rows, COCO-style JSON, and timelines with
`people`.

AVA rows are `video,second,x1,y1,x2,y2[,action[,score or person id]]`, boxes 0 to 1, the action possibly
empty; rows that repeat a box for several actions count once. COCO JSON needs `images` with `id`, `width`,
`height`, `video` and `time_s` (or a `file_name` such as `VIDEO/0902.jpg` or `VIDEO_0902.jpg`, the number
being seconds), and `annotations` with `image_id`, `bbox` (x, y, width, height in pixels) and perhaps
`score` and `category_id`.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from vidtad.errors import InputError
from vidtad.formats.document import csv_rows, numbers, parse_json, read_text, refused
from vidtad.formats.tables import Findings

Rows = dict[str, dict[float, list[tuple[tuple[float, ...], float]]]]
BoxFile = dict[str, dict[float, tuple[np.ndarray, np.ndarray]]]
"""video -> seconds -> (boxes (n, 4) float32 normalised, scores (n,) float32), times ascending, surest
first.
"""
_NAME = re.compile(r"(.+)[/_,](\d+(?:\.\d+)?)(?:\.\w+)?")


def read_person_boxes(path: Path, *, threshold: float = 0.0, offset_s: float = 0.0) -> BoxFile:
    """Boxes scored `threshold` or more; a keyframe may have none of them. Times are the file's less
    `offset_s`.

    Raises InputError for a file that is none of the formats, naming the first thing wrong in it.
    """
    path = Path(path)
    text = read_text(path)
    found: Rows = _from_json(text, path) if text.lstrip()[:1] in ("{", "[") else _from_rows(text, path)
    if not any(found.values()):
        raise InputError(f"{path}: holds no person boxes")
    result: BoxFile = {}
    for video, keyframes in found.items():
        times = {}
        for second in sorted(keyframes):
            kept = sorted((entry for entry in keyframes[second] if entry[1] >= threshold), key=lambda entry: -entry[1])
            boxes = np.array([box for box, _ in kept], np.float32).reshape(-1, 4)
            if second - offset_s >= 0:
                times[second - offset_s] = (boxes, np.array([score for _, score in kept], np.float32))
        result[video] = times
    return result


def _add(found: Rows, video: str, second: float, box: tuple[float, ...] | None, score: float) -> None:
    entries = found.setdefault(video, {}).setdefault(second, [])
    if box is None:
        return
    x1, y1, x2, y2 = box = tuple(min(max(side, 0.0), 1.0) for side in box)
    if not (x1 < x2 and y1 < y2):
        return
    for place, (other, best) in enumerate(entries):
        if other == box:
            entries[place] = (box, max(best, score))
            return
    entries.append((box, score))


def _from_rows(text: str, path: Path) -> Rows:
    found: Rows = {}
    rows = [(line, row) for line, row in enumerate(csv_rows(text), 1) if row]
    values = numbers([row[7] for _, row in rows if len(row) > 7])
    # The last column of ground truth is a number of the person, from 0 on, that of detections a score.
    scored = bool(len(values)) and bool(np.nanmax(values, initial=0) <= 1) and not bool(np.all(values % 1 == 0))
    for line, row in rows:
        second, *box = numbers((row[1:6] + [""] * 5)[:5]).tolist()
        if len(row) not in (2, 6, 7, 8) or not np.isfinite(second) or second < 0:
            if line == 1 and not found:
                continue  # a header
            raise InputError(
                f"{path}:{line}: expected video,second,x1,y1,x2,y2, found {','.join(map(str, row))[:60]!r}"
            )
        if len(row) == 2:
            _add(found, row[0], second, None, 0.0)
            continue
        if not np.isfinite(box).all():
            raise InputError(f"{path}:{line}: a box side is no number, or is missing")
        if max(box) > 1.5:
            raise InputError(f"{path}:{line}: boxes must be 0 to 1, fractions of the frame; found {max(box):g}")
        score = float(numbers([row[7]])[0]) if scored and len(row) > 7 else 1.0
        _add(found, row[0], second, tuple(box), score)
    return found


def _from_json(text: str, path: Path) -> Rows:
    document = parse_json(text, path, Findings())
    with refused(f"{path}: not a file of person boxes"):
        if isinstance(document, Mapping) and isinstance(document.get("people"), Mapping):
            return _from_people(document["people"])
        if isinstance(document, Mapping) and {"images", "annotations"} <= document.keys():
            return _from_coco(document, path)
    raise InputError(f"{path}: neither COCO JSON with `images` and `annotations` nor a timeline with `people`")


def _from_people(people: Mapping[str, Any]) -> Rows:
    found: Rows = {}
    for video, entries in people.items():
        for entry in entries:
            box = tuple(float(side) for side in entry["box"])
            _add(found, str(video), float(entry["time_s"]), box, float(entry["box_score"]))
    return found


def _from_coco(document: Mapping[str, Any], path: Path) -> Rows:
    names = {entry["id"]: str(entry.get("name", "")) for entry in document.get("categories", ())}
    people = {id for id, name in names.items() if name.lower() in ("person", "people", "human")}
    if names and not people:
        raise InputError(f"{path}: no category is called `person` (there is {', '.join(names.values())[:100]})")
    found: Rows = {}
    images = {}
    for image in document["images"]:
        video, second = _place(image, path)
        images[image["id"]] = video, second, float(image["width"]), float(image["height"])
        _add(found, video, second, None, 0.0)
    for entry in document["annotations"]:
        if people and entry.get("category_id") not in people:
            continue
        if entry["image_id"] not in images:
            raise InputError(f"{path}: an annotation names image {entry['image_id']!r}, which is not listed")
        video, second, width, height = images[entry["image_id"]]
        x, y, w, h = (float(side) for side in entry["bbox"])
        box = (x / width, y / height, (x + w) / width, (y + h) / height)
        _add(found, video, second, box, float(entry.get("score", 1.0)))
    return found


def _place(image: Mapping[str, Any], path: Path) -> tuple[str, float]:
    if "video" in image and "time_s" in image:
        return str(image["video"]), float(image["time_s"])
    named = _NAME.fullmatch(str(image.get("file_name", "")))
    if named is None:
        raise InputError(
            f"{path}: image {image.get('id')!r} has neither `video` and `time_s` nor VIDEO/SECOND in its name"
        )
    return named[1], float(named[2])
