"""AVA files: person boxes with actions at keyframes.

Rows without a header: `video,second,x1,y1,x2,y2,action_id,person_id` for ground truth, with the score in
the last column for detections; a row `video,second` alone is an annotated image without boxes. Boxes are 0
to 1. Also read as detections: timelines with `people`. Label maps are text protocol buffers with `item` or
`label` blocks.
"""

import csv
import functools
import io
import math
import re
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from vidtad.errors import InputError
from vidtad.formats.document import csv_rows, is_decimal, named, numbers, parse_json, read_text
from vidtad.formats.tables import Finding, Findings

Key = tuple[str, str]
LARGEST_ID = 2**31
LABEL_MAP_LINE = re.compile(r'^\s*(?:(name)\s*:\s*"(.*)"|(?:id|label_id)\s*:\s*(\d+))\s*$')


@dataclass(frozen=True)
class Boxes:
    """Boxes of one file, in file order.

    images: keys (video, second with six decimals), in order of first appearance. image: int64 (N,),
    position in `images`. box: float64 (N, 4), x1, y1, x2, y2. label: int64 (N,), action id. value: float64
    (N,), the last column: score, or person id, 0 where there is none.
    """

    images: tuple[Key, ...]
    image: np.ndarray
    box: np.ndarray
    label: np.ndarray
    value: np.ndarray
    findings: tuple[Finding, ...] = field(default=())

    def select(self, keep: np.ndarray) -> "Boxes":
        """The rows that the boolean or index array `keep` picks; the images stay."""
        return Boxes(self.images, self.image[keep], self.box[keep], self.label[keep], self.value[keep], self.findings)


@dataclass(frozen=True)
class AvaClass:
    """One of AVA's 80 actions. kind: PERSON_MOVEMENT, OBJECT_MANIPULATION or PERSON_INTERACTION."""

    id: int
    name: str
    kind: str
    evaluated: bool


@functools.cache
def ava_classes() -> tuple[AvaClass, ...]:
    """The 80 classes of AVA v2.2; `evaluated` marks the 60 of the challenge."""
    text = resources.files("vidtad.formats").joinpath("ava_classes.csv").read_text(encoding="utf-8")
    return tuple(
        AvaClass(int(row["id"]), row["name"], row["kind"], row["evaluated"] == "1")
        for row in csv.DictReader(io.StringIO(text))
    )


def is_rows(text: str) -> bool:
    """Whether the first row with more than `video,second` (an image without boxes) is an AVA row of 7 or 8 cells."""
    try:
        for row in csv_rows(text):
            if row and (len(row) != 2 or not is_decimal(row[1])):
                return len(row) in (7, 8) and not np.isnan(numbers(row[1:6])).any()
    except InputError:
        pass
    return False


def read_boxes(path: Path, ids: Mapping[str, int] | None = None) -> Boxes:
    """Read AVA rows (none, in an empty file), a timeline with `people`, or a folder of such timelines.

    ids: numbers of the class names of a timeline, AVA's own by default, and of rows whose action is a name; rows with
    an empty action are then people who do nothing. Raises InputError for anything else.
    """
    with named(path):
        return _read(Path(path), ids)


def rows(text: str, findings: Findings, ids: Mapping[str, int] | None = None) -> Boxes:
    """Read AVA rows; a malformed one is dropped with a finding. ids: see `read_boxes`."""
    return _boxes(csv_rows(text), findings, ids)


def action_names(path: Path) -> list[str]:
    """Names, sorted, in the action column of AVA rows; none for a file of numbers, or one that is no such rows."""
    path = Path(path)
    text = "" if path.is_dir() else read_text(path)
    if not is_rows(text):
        return []
    found = {row[6].strip() for row in csv_rows(text) if len(row) in (7, 8)}
    return sorted(name for name in found if name and not _is_number(name))


def _is_number(cell: str) -> bool:
    try:
        int(cell)
    except ValueError:
        return False
    return True


def _read(path: Path, ids: Mapping[str, int] | None) -> Boxes:
    findings = Findings()
    files = sorted(path.glob("*.json")) if path.is_dir() else [path]
    if not files:
        raise InputError(f"{path}: no timeline (*.json) in this folder")
    texts = {file: read_text(file) for file in files}
    if len(files) == 1 and (is_rows(texts[files[0]]) or not texts[files[0]].strip()):
        return rows(texts[files[0]], findings, ids)
    people: list[list[Any]] = []
    names = ids if ids is not None else {entry.name: entry.id for entry in ava_classes()}
    for file, text in texts.items():
        document = parse_json(text, file, findings) if text[:1].strip() in ("", "{") else None
        if not isinstance(document, dict) or not isinstance(document.get("people"), dict):
            if len(files) == 1:
                raise InputError(
                    f"{file}: neither AVA rows (video,second,x1,y1,x2,y2,id,score) nor a timeline with person boxes"
                )
            findings.add("file without person boxes", file.name)
            continue
        people += _people_rows(document["people"], names, findings)
    return _boxes(people, findings)


def read_excluded(path: Path) -> set[Key]:
    """Keys of an exclusions file, `video,second` a row."""
    keys = set()
    for number, row in enumerate(csv_rows(read_text(path)), 1):
        if row:
            if len(row) != 2 or np.isnan(numbers(row[1:])).any():
                raise InputError(f"{path}:{number}: expected 'video,second', found {','.join(row)[:60]!r}")
            keys.add(image_key(row[0], float(row[1])))
    return keys


def read_label_map(path: Path) -> dict[int, str]:
    """{id: name} of a label map. Raises InputError when it holds none."""
    classes, name = {}, ""
    for line in read_text(path).splitlines():
        found = LABEL_MAP_LINE.match(line)
        if found and found[1]:
            name = found[2]
        elif found:
            classes[int(found[3])] = name
    if not classes:
        raise InputError(f"{path}: no 'name' and 'id' lines; expected a label map (.pbtxt)")
    return classes


def image_key(video: str, second: float) -> Key:
    """Key of a keyframe; 902, 0902 and 902.000000 are the same."""
    return video, f"{second:.6f}"


def boxes_text(boxes: Boxes) -> str:
    """AVA rows of detections, nothing rounded; whole seconds are padded to four digits as in AVA."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    for image, box, label, value in zip(
        boxes.image.tolist(), boxes.box.tolist(), boxes.label.tolist(), boxes.value.tolist(), strict=True
    ):
        video, second = boxes.images[image]
        stamp = f"{int(float(second)):04d}" if float(second).is_integer() else second
        writer.writerow((video, stamp, *map(repr, box), label, repr(value)))
    return text.getvalue()


def _boxes(table: Iterable[Sequence[Any]], findings: Findings, ids: Mapping[str, int] | None = None) -> Boxes:
    images: dict[Key, int] = {}
    stamps: dict[tuple[Any, Any], int] = {}
    image, cells = array("q"), array("d")
    for row in table:
        if not row:
            continue
        if len(row) not in (2, 7, 8):
            findings.add("row that is not an AVA row", _short(row))
            continue
        try:
            number = stamps.get((row[0], row[1]), -1)
            if number < 0:
                number = images.setdefault(image_key(row[0], _finite(row[1])), len(images))
                stamps[row[0], row[1]] = number
            action = row[6] if len(row) > 2 else ""
            if ids is not None and isinstance(action, str):
                action = ids.get(action.strip(), action)
            if len(row) > 2 and (action != "" or ids is None):
                value = row[7] if len(row) == 8 and row[7] != "" else 0.0
                cells.extend([*map(_finite, row[2:6]), float(_whole(action)), _finite(value)])
                image.append(number)
        except (ValueError, TypeError, OverflowError):
            findings.add("row with a time, box, id or score that is no number", _short(row))
    values = np.frombuffer(cells, np.float64).reshape(-1, 6) if len(cells) else np.zeros((0, 6))
    return Boxes(
        tuple(images),
        np.array(image, np.int64),
        values[:, :4].copy(),
        values[:, 4].astype(np.int64),
        values[:, 5].copy(),
        findings.result(),
    )


def _finite(cell: Any) -> float:
    number = float(cell)
    if not math.isfinite(number):
        raise ValueError
    return number


def _whole(cell: Any) -> int:
    number = int(cell)
    if abs(number) > LARGEST_ID:
        raise ValueError
    return number


def _short(row: Sequence[Any]) -> str:
    return ",".join(map(str, row))[:80]


def _people_rows(people: Mapping[str, Any], ids: Mapping[str, int], findings: Findings) -> list[list[Any]]:
    out = []
    for video, entries in people.items():
        for person in entries if isinstance(entries, list) else ():
            box = person.get("box") if isinstance(person, dict) else None
            if not isinstance(box, list) or len(box) != 4:
                findings.add("person without a box", video)
                continue
            actions = person.get("actions")
            for action in actions if isinstance(actions, list) else ():
                label = action.get("label") if isinstance(action, dict) else None
                if not isinstance(label, str) or label not in ids:
                    findings.add("action label without a number", repr(label)[:60])
                    continue
                out.append([video, person.get("time_s"), *box, ids[label], action.get("score")])
    return out
