"""WebVTT subtitles (.vtt): the timeline in a browser's own player. https://www.w3.org/TR/webvtt1/"""

import html
from pathlib import Path

from vidtad.formats import subtitles
from vidtad.formats.label_types import Gather
from vidtad.formats.shared import Videos
from vidtad.timeline import Timeline


def write(timeline: Timeline) -> dict[str, str]:
    """Subtitles of a timeline of one video."""
    (found,) = timeline.results.values()
    blocks = ["WEBVTT\n"]
    for start, end, lines in subtitles.cues(found):
        shown = "\n".join(html.escape(line, quote=False) for line in lines)
        blocks.append(f"{subtitles.clock(start, '.')} --> {subtitles.clock(end, '.')}\n{shown}\n")
    return {".vtt": "\n".join(blocks)}


def read(text: str, videos: Videos, path: Path) -> Timeline:
    """The cues as a timeline, see `subtitles.read_labels`. Raises InputError."""
    into = Gather()
    subtitles.read_labels(text, path, into, escaped=True)
    return into.timeline(videos, "vtt")


def fits(text: str) -> bool:
    """Whether the text has WebVTT's first line."""
    return text.lstrip("\ufeff")[:6] == "WEBVTT"
