"""Timelines as AVA rows and back: person boxes at keyframes with numbered actions.

Classes that are all AVA's own keep AVA's numbers; others are numbered in the order of the detector's classes, where
it states them, else of the alphabet, and a label map is written beside the rows.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from vidtad.errors import InputError
from vidtad.formats.ava import Boxes, ava_classes, boxes_text, image_key, is_rows, read_label_map, rows
from vidtad.formats.people import linked, segments_of
from vidtad.formats.shared import Videos, assemble, labels_of
from vidtad.formats.tables import Findings
from vidtad.timeline import PersonBox, Segment, Timeline

MAP = ".ava.pbtxt"


def write(timeline: Timeline) -> dict[str, str]:
    """Rows `video,second,x1,y1,x2,y2,action_id,score`. Raises InputError for a timeline without persons."""
    if not timeline.people:
        raise InputError("AVA rows hold person boxes, and this timeline has none")
    found, known = labels_of(timeline), list(timeline.detector.get("classes", ()))
    labels = known if set(found) <= set(known) else found
    ids = {entry.name: entry.id for entry in ava_classes()}
    files = {}
    if not ids.keys() >= set(labels):
        ids = {label: number for number, label in enumerate(labels, 1)}
        files[MAP] = "".join(f'item {{\n  name: "{_plain(label)}"\n  id: {ids[label]}\n}}\n' for label in labels)
    images: dict[tuple[str, str], int] = {}
    image, box, label_ids, score = [], [], [], []
    for video, people in timeline.people.items():
        for person in people:
            number = images.setdefault(image_key(video, person.time_s), len(images))
            for label, value in person.actions:
                image.append(number)
                box.append(person.box)
                label_ids.append(ids[label])
                score.append(value)
    table = Boxes(
        tuple(images),
        np.array(image, np.int64),
        np.array(box, np.float64).reshape(-1, 4),
        np.array(label_ids, np.int64),
        np.array(score, np.float64),
    )
    return {".ava.csv": boxes_text(table), **files}


def read(text: str, videos: Videos, path: Path) -> Timeline:
    """Boxes grouped into persons by overlap between keyframes, and their actions as segments.

    Class names come from the label map beside the file (`NAME.ava.pbtxt`), else from AVA. Raises InputError.
    """
    findings = Findings()
    table = rows(text, findings)
    beside = path.with_name(path.name.removesuffix(".csv").removesuffix(".ava") + MAP)
    names: Mapping[int, str] = (
        read_label_map(beside) if beside.exists() else {entry.id: entry.name for entry in ava_classes()}
    )
    found: dict[str, dict[tuple, list[tuple[str, float]]]] = {video: {} for video, _ in table.images}
    for image, box, label, value in zip(
        table.image.tolist(), table.box.tolist(), table.label.tolist(), table.value.tolist(), strict=True
    ):
        video, second = table.images[image]
        actions = found[video].setdefault((float(second), *box), [])
        actions.append((names.get(label, str(label)), value))
    people: dict[str, list[PersonBox]] = {}
    segments: dict[str, list[Segment]] = {}
    for video, boxes in found.items():
        people[video] = linked(
            [PersonBox(key[0], -1, _inside(key[1:]), 1.0, tuple(actions)) for key, actions in boxes.items()]
        )
        segments[video] = segments_of(people[video])
    return assemble(segments, videos, source="ava", people=people)


def fits(text: str) -> bool:
    """Whether this text starts with an AVA row of seven or eight columns."""
    return is_rows(text)


def _inside(box: tuple[float, ...]) -> tuple[float, float, float, float]:
    x1, y1, x2, y2 = (min(1.0, max(0.0, side)) for side in box)
    return x1, y1, x2, y2


def _plain(label: str) -> str:
    return " ".join(label.replace('"', "'").split())
