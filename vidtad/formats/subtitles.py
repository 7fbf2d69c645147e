"""Cues of subtitles: at every moment one line for each action under way, the surest first."""

import html
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from vidtad.formats.label_types import Gather
from vidtad.formats.shared import one_line, scored
from vidtad.formats.tables import Findings
from vidtad.timeline import Segment

Cue = tuple[int, int, tuple[str, ...]]
WHO = re.compile(r"person (\d+): ")
CLOCK = re.compile(r"(?:(\d+):)?(\d{1,2}):(\d{2})(?:[.,](\d{1,3}))?")
TIMES = re.compile(r"\s*[\d:.,]+\s*-->")
"""A line that gives a cue its times, rightly or not; text may hold an arrow too."""
MARKUP = re.compile(r"</?(?:[bius]|font)(?: [^<>]*)?>|\{\\[^{}]*\}")
CUE_MARKUP = re.compile(r"</?(?:[bicuv]|lang|ruby|rt)(?:[ .][^<>]*)?>|<\d[\d:.]*>")
"""What SubRip's players and WebVTT take for formatting; the latter writes other angle brackets as `&lt;`."""


def cues(segments: Iterable[Segment]) -> list[Cue]:
    """(start, end, lines) in whole milliseconds, in order, without overlap.

    Players disagree on what to do with cues that overlap, so time is cut at every start and end.
    """
    spans = []
    for segment in sorted(segments, key=lambda s: -s.score):
        start = round(segment.start_s * 1000)
        spans.append((start, max(round(segment.end_s * 1000), start + 1), line(segment)))
    opening, closing = defaultdict(list), defaultdict(list)
    for rank, (start, end, _) in enumerate(spans):
        opening[start].append(rank)
        closing[end].append(rank)
    found: list[Cue] = []
    active: set[int] = set()
    since = 0
    for moment in sorted(opening.keys() | closing.keys()):
        if active:
            found.append((since, moment, tuple(spans[rank][2] for rank in sorted(active))))
        active = (active | set(opening[moment])) - set(closing[moment])
        since = moment
    return found


def line(segment: Segment) -> str:
    """`person 3: walk (0.875)`, the person only where one is known."""
    who = "" if segment.track is None else f"person {segment.track}: "
    return f"{who}{one_line(segment.label)} ({segment.score:.4g})"


def clock(milliseconds: int, point: str) -> str:
    """hh:mm:ss and the milliseconds after `point`."""
    seconds, rest = divmod(milliseconds, 1000)
    return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}{point}{rest:03d}"


def parse_clock(text: str) -> int | None:
    """Milliseconds of `hh:mm:ss,mmm`, `mm:ss.mmm`, and of one or two digits of a fraction; None for anything else."""
    found = CLOCK.fullmatch(text.strip())
    if not found:
        return None
    hours, minutes, seconds = (int(part or 0) for part in found.groups()[:3])
    return ((hours * 60 + minutes) * 60 + seconds) * 1000 + int((found[4] or "").ljust(3, "0"))


def read_labels(text: str, path: Path, into: Gather, *, escaped: bool = False) -> None:
    """Add one segment for each line of text, over all the cues it goes on in; the video is named after the file.

    `escaped`: whether characters are written as in HTML (WebVTT). Markup (`<i>`, `{\\an8}`) is no part of a label.
    What has times that cannot be read, or no length, is a finding with its line.
    """
    into.on_player = True
    video = into.video(path.stem)
    cues = [
        (start, end, [_plain(line, escaped) for line in lines]) for start, end, lines in blocks(text, into.findings)
    ]
    for start, end, line in _joined(cues):
        who = WHO.match(line)
        label, score = scored(line[who.end() :] if who else line)
        into.add(video, label, start / 1000, end / 1000, score=score, track=int(who[1]) if who else None)


def blocks(text: str, findings: Findings) -> list[tuple[int, int, list[str]]]:
    """The cues of SRT or WebVTT text. Headers, notes and styles are passed over; a cue that is none is a finding."""
    found = []
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    number = 0
    while number < len(lines):
        before, _, after = lines[number].partition("-->")
        number += 1
        if not TIMES.match(lines[number - 1]):
            continue
        start, end = parse_clock(before), parse_clock(after.strip().split(" ")[0])
        shown, first = [], number
        while number < len(lines) and lines[number].strip() and not TIMES.match(lines[number]):
            shown.append(lines[number].strip())
            number += 1
        if number < len(lines) and TIMES.match(lines[number]) and shown and shown[-1].isdecimal():
            shown.pop()  # the number of the next cue, where the blank line before it is missing
        if start is None or end is None:
            findings.add("cue whose times cannot be read", f"line {first}: {lines[first - 1][:60]!r}")
        elif end <= start:
            findings.add("cue without length left out", f"line {first}: {lines[first - 1][:60]!r}")
        elif not shown:
            findings.add("cue without text left out", f"line {first}")
        else:
            found.append((start, end, shown))
    return found


def _plain(line: str, escaped: bool) -> str:
    if escaped:
        return html.unescape(CUE_MARKUP.sub("", line)).strip()
    return MARKUP.sub("", line).strip()


def _joined(found: Iterable[tuple[int, int, Sequence[str]]]) -> list[tuple[int, int, str]]:
    """(start, end, line): a line that goes on in the next cue is one. Inverse of `cues`, to the millisecond."""
    running: dict[str, tuple[int, int]] = {}
    done: list[tuple[int, int, str]] = []
    for start, end, lines in sorted(found, key=lambda cue: cue[:2]):
        going_on = {}
        for text in dict.fromkeys(line for line in lines if line):
            since, until = running.get(text, (start, start))
            going_on[text] = (since, end) if until == start else (start, end)
        done += [(*span, text) for text, span in running.items() if going_on.get(text, (None,))[0] != span[0]]
        running = going_on
    return sorted([*done, *((*span, text) for text, span in running.items())])
