"""WebVTT subtitles (.vtt): the timeline in a browser's own player. https://www.w3.org/TR/webvtt1/"""

import html
from pathlib import Path

from vidtad.formats import subtitles
from vidtad.formats.shared import Videos, assemble
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
    """One segment for each line of text, over all the cues it goes on in; the video is named after the file."""
    found = [(start, end, [html.unescape(line) for line in lines]) for start, end, lines in subtitles.blocks(text)]
    return assemble({path.stem: subtitles.segments(found)}, videos, source="vtt")


def fits(text: str) -> bool:
    """Whether the text has WebVTT's first line."""
    return text.lstrip("\ufeff")[:6] == "WEBVTT"
