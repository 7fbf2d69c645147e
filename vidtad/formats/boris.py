"""BORIS tabular events (.tsv): a START and a STOP row per segment, as BORIS exports them.

A subject can do one behaviour once at a time, so segments of a class that overlap go to further subjects.
BORIS has no place for scores; they are kept in the comment of the START row.
"""

import csv
import io
import re
from pathlib import Path

from vidtad.errors import InputError
from vidtad.formats.document import refused
from vidtad.formats.shared import NUMBER, PERSON, Videos, assemble, one_line, stem_of, tiers
from vidtad.timeline import Segment, Timeline

COLUMNS = (
    "Observation id",
    "Observation date",
    "Description",
    "Observation duration",
    "Observation type",
    "Source",
    "Time offset (s)",
    "Media duration (s)",
    "FPS",
    "Subject",
    "Behavior",
    "Behavioral category",
    "Behavior type",
    "Time",
    "Media file name",
    "Image index",
    "Image file path",
    "Comment",
)
NOBODY = "No focal subject"
SCORE = re.compile(rf"score ({NUMBER})")


def write(timeline: Timeline) -> dict[str, str]:
    """Events of every video, in order of time."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, delimiter="\t", lineterminator="\n", restval="")
    writer.writeheader()
    for name, found in timeline.results.items():
        info = timeline.videos[name]
        media = one_line(info.path or name)
        fixed = {
            "Observation id": one_line(name),
            "Observation type": "Media file(s)",
            "Source": f"player #1:{media}",
            "Time offset (s)": "0.0",
            "Observation duration": f"{info.duration_s:.3f}",
            "Media duration (s)": f"{info.duration_s:.3f}",
            "FPS": f"{float(info.fps):.3f}" if info.fps else "NA",
            "Media file name": media,
            "Image file path": "NA",
        }
        events = []
        for (label, track), rows in tiers(found).items():
            for depth, row in enumerate(rows, 1):
                subject = NOBODY if track is None else f"person {track}"
                subject += f" ({depth})" if depth > 1 else ""
                for s in row:
                    events.append((s.start_s, 1, label, subject, f"score {s.score:.6g}"))
                    events.append((s.end_s, 0, label, subject, ""))
        for time_s, starts, label, subject, comment in sorted(events):
            event = {
                "Subject": subject,
                "Behavior": one_line(label),
                "Behavior type": "START" if starts else "STOP",
                "Time": f"{time_s:.3f}",
                "Image index": str(round(time_s * info.fps)) if info.fps else "NA",
                "Comment": comment,
            }
            writer.writerow(fixed | event)
    return {".boris.tsv": text.getvalue()}


def read(text: str, videos: Videos, path: Path) -> Timeline:
    """START and STOP rows as segments; POINT rows have no length and are left out. Raises InputError."""
    segments: dict[str, list[Segment]] = {}
    started: dict[tuple[str, str, str], tuple[float, float]] = {}
    with refused("not readable as BORIS events"):
        events = list(csv.DictReader(io.StringIO(text), delimiter=_delimiter(text)))
    for number, row in enumerate(events, 2):
        with refused(f"line {number}: not a BORIS event"):
            media = row.get("Media file name") or row["Observation id"]
            name = stem_of(media.removeprefix("player #1:"))
            subject, behaviour, kind = (row[column] or "" for column in ("Subject", "Behavior", "Behavior type"))
            time_s = float(row["Time"])
        found = segments.setdefault(name, [])
        key = (name, subject, behaviour)
        if kind == "START":
            if key in started:
                raise InputError(f"line {number}: {behaviour!r} of {subject!r} starts again without having stopped")
            noted = SCORE.search(row.get("Comment") or "")
            started[key] = (time_s, float(noted[1]) if noted else 1.0)
        elif kind == "STOP":
            if key not in started:
                raise InputError(f"line {number}: {behaviour!r} of {subject!r} stops without having started")
            start_s, score = started.pop(key)
            person = PERSON.match(subject)
            if start_s < time_s:
                found.append(Segment(start_s, time_s, behaviour, score, int(person[1]) if person else None))
    if started:
        raise InputError(f"{min(started)[2]!r} of {min(started)[1]!r} starts without stopping")
    return assemble(segments, videos, source="boris")


def fits(text: str) -> bool:
    """Whether the header is that of tabular events."""
    header = text[:2000].split("\n", 1)[0]
    return "Behavior type" in header and "Subject" in header and "Time" in header


def _delimiter(text: str) -> str:
    return "\t" if "\t" in text[:2000].split("\n", 1)[0] else ","
