"""Labelled people: AVA ground truth rows `video,second,x1,y1,x2,y2,action[,person id]`, one for each box and action.

The action is a number (AVA's, or of a label map) or a name; empty for a person who does nothing labelled. Rows of
`video,second` alone are keyframes without people.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vidtad.errors import InputError
from vidtad.formats.ava import ava_classes
from vidtad.formats.document import csv_rows, numbers, read_text
from vidtad.runtime.names import composed

Box = tuple[float, float, float, float]
Labelled = dict[str, dict[float, dict[Box, set[str]]]]
"""video -> seconds -> box (x1, y1, x2, y2, normalised) -> names of its actions."""


@dataclass(frozen=True)
class PersonLabels:
    """What a file says: `videos`, and the class names in use, AVA's in order of their numbers, others sorted."""

    videos: Labelled
    classes: tuple[str, ...]


def read_person_labels(path: Path, names: Mapping[int, str] | None = None) -> PersonLabels:
    """Read a file of labelled boxes. names: of action numbers, AVA's 80 by default.

    Raises InputError, with the line, for a row that is none, a box outside 0 to 1, or a number without a name.
    """
    path = Path(path)
    known = dict(names) if names is not None else {entry.id: entry.name for entry in ava_classes()}
    videos: Labelled = {}
    used: set[str] = set()
    for line, row in enumerate(csv_rows(read_text(path)), 1):
        if not row:
            continue
        second, *box = numbers((row[1:6] + [""] * 5)[:5]).tolist()
        if len(row) not in (2, 7, 8) or not np.isfinite(second) or second < 0:
            raise InputError(f"{path}:{line}: expected video,second,x1,y1,x2,y2,action, found {','.join(row)[:60]!r}")
        people = videos.setdefault(composed(row[0]), {}).setdefault(second, {})
        if len(row) == 2:
            continue
        x1, y1, x2, y2 = box
        if not (0 <= x1 < x2 <= 1 and 0 <= y1 < y2 <= 1):
            raise InputError(f"{path}:{line}: a box must have 0 <= x1 < x2 <= 1, the same for y; found {row[2:6]}")
        actions = people.setdefault((x1, y1, x2, y2), set())
        name = composed(row[6].strip())
        if name.isascii() and name.isdigit():
            if int(name) not in known:
                raise InputError(f"{path}:{line}: action {name} has no name; give a label map that has it")
            name = known[int(name)]
        if name:
            actions.add(name)
            used.add(name)
    if not used:
        raise InputError(f"{path}: no box has an action")
    order = {name: number for number, name in known.items()}
    return PersonLabels(videos, tuple(sorted(used, key=lambda name: (order.get(name, len(order) + 1), name))))


def targets_of(actions: Sequence[set[str]], classes: Sequence[str]) -> np.ndarray:
    """(n, classes) float32 multi-hot; actions that are no class are left out."""
    return np.array([[float(name in each) for name in classes] for each in actions], np.float32).reshape(
        len(actions), len(classes)
    )
