"""VIA 3 projects: temporal segments of videos, named by the option an annotator chose or the text they typed."""

from collections.abc import Iterator, Mapping
from typing import Any

from vidtad.formats.label_types import Gather

CHOICES = {2, 3, 4}
"""Attribute types whose value is option keys (check boxes, radio buttons, a list); the others hold text."""


def is_project(document: Any) -> bool:
    """Whether this JSON document is a VIA 3 project."""
    return isinstance(document, dict) and all(
        isinstance(document.get(key), dict) for key in ("file", "metadata", "attribute")
    )


def gather(document: Mapping[str, Any], into: Gather) -> None:
    """Add every file and every temporal segment; spatial regions and file-wide notes are no segments."""
    views = document.get("view") if isinstance(document.get("view"), dict) else {}
    videos = {
        str(key): into.video(str(entry.get("fname") or entry.get("src") or key))
        for key, entry in document["file"].items()
        if isinstance(entry, dict)
    }
    used: set[str] = set()
    for key, entry in document["metadata"].items():
        times = entry.get("z") if isinstance(entry, dict) else None
        if not isinstance(times, list) or len(times) < 2 or entry.get("xy"):
            continue
        file = _file_of(str(entry.get("vid")), views, videos)
        if file is None:
            into.findings.add("segment of no known file", str(key)[:60])
            continue
        values = entry.get("av")
        found = [(name, label) for name, label in _labels(values, document["attribute"]) if label]
        for name, label in found:
            used.add(name)
            into.add(videos[file], label, times[0], times[-1])
        if not found:
            into.findings.add("segment without a label", f"{into.columns.names[videos[file]]}: {times[:2]}")
    if len(used) > 1:
        into.findings.add("several attributes give labels", " and ".join(sorted(used)), len(used), serious=False)


def _file_of(view: str, views: Any, videos: Mapping[str, int]) -> str | None:
    """Key of the (first) file of a view; older projects refer to the file itself."""
    entry = views.get(view)
    files = entry.get("fid_list") if isinstance(entry, dict) else None
    key = str(files[0]) if isinstance(files, list) and files else view
    return key if key in videos else None


def _labels(values: Any, attributes: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """(attribute name, label) of each attribute value of a segment."""
    for key, value in values.items() if isinstance(values, dict) else ():
        attribute = attributes.get(key)
        if not isinstance(attribute, dict) or not isinstance(value, (str, int)):
            continue
        name, options = str(attribute.get("aname") or key), attribute.get("options")
        if str(attribute.get("type")) in map(str, CHOICES) and isinstance(options, dict):
            for choice in str(value).split(","):
                yield name, str(options.get(choice.strip(), "")).strip()
        else:
            yield name, str(value).strip()
