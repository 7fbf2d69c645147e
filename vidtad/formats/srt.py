"""SubRip subtitles (.srt): the timeline in any player."""

import re
from pathlib import Path

from vidtad.formats import subtitles
from vidtad.formats.label_types import Gather
from vidtad.formats.shared import Videos
from vidtad.timeline import Timeline

START = re.compile(r"\s*\d+\s*\r?\n\s*(?:\d+:)?\d{1,2}:\d{2}(?:[,.]\d{1,3})?\s*-->")


def write(timeline: Timeline) -> dict[str, str]:
    """Subtitles of a timeline of one video."""
    (found,) = timeline.results.values()
    text = "".join(
        f"{number}\n{subtitles.clock(start, ',')} --> {subtitles.clock(end, ',')}\n" + "\n".join(lines) + "\n\n"
        for number, (start, end, lines) in enumerate(subtitles.cues(found), 1)
    )
    return {".srt": text}


def read(text: str, videos: Videos, path: Path) -> Timeline:
    """The cues as a timeline, see `subtitles.read_labels`. Raises InputError."""
    into = Gather()
    subtitles.read_labels(text, path, into)
    return into.timeline(videos, "srt")


def fits(text: str) -> bool:
    """Whether the text starts with a numbered cue."""
    return bool(START.match(text[:300]))
