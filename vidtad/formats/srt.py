"""SubRip subtitles (.srt): the timeline in any player."""

import re
from pathlib import Path

from vidtad.formats import subtitles
from vidtad.formats.shared import Videos, assemble
from vidtad.timeline import Timeline

START = re.compile(r"\s*\d+\s*\r?\n\s*\d+:\d{2}:\d{2}[,.]\d{3}\s*-->")


def write(timeline: Timeline) -> dict[str, str]:
    """Subtitles of a timeline of one video."""
    (found,) = timeline.results.values()
    text = "".join(
        f"{number}\n{subtitles.clock(start, ',')} --> {subtitles.clock(end, ',')}\n" + "\n".join(lines) + "\n\n"
        for number, (start, end, lines) in enumerate(subtitles.cues(found), 1)
    )
    return {".srt": text}


def read(text: str, videos: Videos, path: Path) -> Timeline:
    """One segment for each line of text, over all the cues it goes on in; the video is named after the file."""
    return assemble({path.stem: subtitles.segments(subtitles.blocks(text))}, videos, source="srt")


def fits(text: str) -> bool:
    """Whether the text starts with a numbered cue."""
    return bool(START.match(text[:300]))
