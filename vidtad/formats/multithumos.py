"""MultiTHUMOS and Charades as the dense-detection papers pass them on: `{id: {"subset", "duration",
"actions"}}`.

An action is `[class number, start, end]` in seconds.
"""

from collections.abc import Mapping
from typing import Any

from vidtad.formats.document import SegmentColumns, is_number, numbers
from vidtad.formats.tables import Annotations, Findings


def is_annotations(document: Any) -> bool:
    """Whether this is a dictionary of videos with `actions` lists."""
    if not isinstance(document, dict) or "database" in document:
        return False
    first = next(iter(document.values()), None)
    return isinstance(first, dict) and isinstance(first.get("actions"), list)


def annotations(document: Mapping[str, Any], findings: Findings) -> Annotations:
    """Read the table; labels are the class numbers as text."""
    columns, subsets, durations = SegmentColumns(findings), [], []
    for name, video in document.items():
        if not isinstance(video, dict) or not isinstance(video.get("actions"), list):
            findings.add("video without a list of actions", name)
            continue
        position = columns.add_video(name)
        subsets.append(str(video.get("subset") or ""))
        durations.append(video.get("duration"))
        for action in video["actions"]:
            if not isinstance(action, list) or len(action) != 3:
                findings.add("action that is not [class, start, end]", f"{name}: {action!r}")
                continue
            columns.add(position, action[0], action[1:])
    table = columns.columns()
    del table["score"], table["kept"]
    ids = {label: int(label) for label in table["labels"] if is_number(label)}
    return Annotations(
        **table,
        subset=tuple(subsets),
        duration=numbers(durations),
        label_ids=ids,
        source="multithumos",
        findings=findings.result(),
    )
