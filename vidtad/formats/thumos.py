"""THUMOS'14 text files: a folder with one annotation file per class, and detections one per line.

Annotations: `CLASS_test.txt` or `CLASS_val.txt`, lines `video start end`; `detclasslist.txt`, lines `id
name`. Detections: lines `video start end class_id score`. Times are seconds.
"""

import re
from pathlib import Path

from vidtad.errors import InputError
from vidtad.formats.document import SegmentColumns, is_decimal, is_number, read_text
from vidtad.formats.tables import Annotations, Findings, Predictions

CLASS_FILE = re.compile(r"(?P<label>.+)_(?P<subset>test|val)\.txt")
CLASS_LIST = "detclasslist.txt"
# The kit's numbers of the 20 classes, which are those of UCF101.
CLASS_IDS = {
    "BaseballPitch": 7,
    "BasketballDunk": 9,
    "Billiards": 12,
    "CleanAndJerk": 21,
    "CliffDiving": 22,
    "CricketBowling": 23,
    "CricketShot": 24,
    "Diving": 26,
    "FrisbeeCatch": 31,
    "GolfSwing": 33,
    "HammerThrow": 36,
    "HighJump": 40,
    "JavelinThrow": 45,
    "LongJump": 51,
    "PoleVault": 68,
    "Shotput": 79,
    "SoccerPenalty": 85,
    "TennisSwing": 92,
    "ThrowDiscus": 93,
    "VolleyballSpiking": 97,
}


def is_folder(path: Path) -> bool:
    """Whether this folder holds the kit's annotation files."""
    return path.is_dir() and any(CLASS_FILE.fullmatch(file.name) for file in path.iterdir())


def annotations(folder: Path, findings: Findings) -> Annotations:
    """Read every class file, in the order of the class list (alphabetical without one), then `Ambiguous`."""
    files = {file.name: file for file in sorted(folder.iterdir()) if CLASS_FILE.fullmatch(file.name)}
    ids = class_list(folder / CLASS_LIST) if (folder / CLASS_LIST).exists() else {}
    order = {label: position for position, label in enumerate(ids)}
    columns, subsets, positions = SegmentColumns(findings), [], {}

    def place(name: str) -> tuple[int, str]:
        label = CLASS_FILE.fullmatch(name)["label"]  # type: ignore[index]
        return order.get(label, len(order)), name

    for name in sorted(files, key=place):
        parts = CLASS_FILE.fullmatch(name)
        assert parts
        for number, line in enumerate(read_text(files[name]).splitlines(), 1):
            words = line.split()
            if not words:
                continue
            if len(words) != 3:
                findings.add("line without video, start and end", f"{name}:{number}")
                continue
            video = video_name(words[0])
            if video not in positions:
                positions[video] = columns.add_video(video)
                subsets.append(parts["subset"])
            columns.add(positions[video], parts["label"], words[1:])
    table = columns.columns()
    del table["score"], table["kept"]
    return Annotations(**table, subset=tuple(subsets), label_ids=ids, source="thumos-kit", findings=findings.result())


def class_list(path: Path) -> dict[str, int]:
    """`id name` lines as {name: id}. Raises InputError for anything else."""
    ids = {}
    for line in read_text(path).splitlines():
        words = line.split()
        if words:
            if len(words) != 2 or not is_number(words[0]):
                raise InputError(f"{path}: line {line!r} is not 'id name'")
            ids[words[1]] = int(words[0])
    return ids


def is_detections(text: str) -> bool:
    """Whether the first line is `video start end class_id score`."""
    words = text[:1000].lstrip().split("\n", 1)[0].split()
    return len(words) == 5 and not is_decimal(words[0]) and all(map(is_decimal, words[1:]))


def predictions(text: str, findings: Findings) -> Predictions:
    """Read detection lines; labels are the kit's class numbers."""
    columns, positions = SegmentColumns(findings), {}
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split()
        if not words:
            continue
        if len(words) != 5:
            findings.add("line without video, start, end, class and score", f"line {number}")
            continue
        video = video_name(words[0])
        if video not in positions:
            positions[video] = columns.add_video(video)
        columns.add(positions[video], words[3], words[1:3], words[4])
    table = columns.columns()
    del table["kept"]
    return Predictions(**table, numbered=True, source="thumos-text", findings=findings.result())


def video_name(text: str) -> str:
    """The name without `.mp4` or `.mpeg`, as the kits compare it."""
    return text.removesuffix(".mp4").removesuffix(".mpeg")
