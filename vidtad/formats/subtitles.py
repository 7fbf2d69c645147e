"""Cues of subtitles: at every moment one line for each action under way, the surest first."""

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence

from vidtad.formats.shared import one_line, scored
from vidtad.timeline import Segment

Cue = tuple[int, int, tuple[str, ...]]
WHO = re.compile(r"person (\d+): ")
CLOCK = re.compile(r"(?:(\d+):)?(\d{1,2}):(\d{2})[.,](\d{3})")


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


def segments(found: Iterable[tuple[int, int, Sequence[str]]]) -> list[Segment]:
    """Inverse of `cues`, to the millisecond: a line that goes on in the next cue is one segment.

    Lines without a score in brackets, as people write them, get score 1.
    """
    running: dict[str, tuple[int, int]] = {}
    done: list[tuple[int, int, str]] = []
    for start, end, lines in sorted(found, key=lambda cue: cue[:2]):
        going_on = {}
        for text in dict.fromkeys(lines):
            since, until = running.get(text, (start, start))
            going_on[text] = (since, end) if until == start else (start, end)
        done += [(*span, text) for text, span in running.items() if going_on.get(text, (None,))[0] != span[0]]
        running = going_on
    done += [(*span, text) for text, span in running.items()]
    return [_segment(start, end, text) for start, end, text in sorted(done)]


def line(segment: Segment) -> str:
    """`person 3: walk (0.875)`, the person only where one is known."""
    who = "" if segment.track is None else f"person {segment.track}: "
    return f"{who}{one_line(segment.label)} ({segment.score:.4g})"


def clock(milliseconds: int, point: str) -> str:
    """hh:mm:ss and the milliseconds after `point`."""
    seconds, rest = divmod(milliseconds, 1000)
    return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}{point}{rest:03d}"


def parse_clock(text: str) -> int | None:
    """Milliseconds of `hh:mm:ss,mmm` or `mm:ss.mmm`; None for anything else."""
    found = CLOCK.fullmatch(text.strip())
    if not found:
        return None
    hours, minutes, seconds, rest = (int(part or 0) for part in found.groups())
    return ((hours * 60 + minutes) * 60 + seconds) * 1000 + rest


def blocks(text: str) -> list[tuple[int, int, list[str]]]:
    """The cues of SRT or WebVTT text; whatever is no cue (numbers, headers, notes) is passed over."""
    found = []
    for block in re.split(r"\n\s*\n", text.replace("\r\n", "\n").replace("\r", "\n")):
        lines = block.strip().split("\n")
        for number, candidate in enumerate(lines):
            before, arrow, after = candidate.partition("-->")
            start, end = parse_clock(before), parse_clock(after.strip().split(" ")[0])
            if arrow and start is not None and end is not None:
                if end > start:
                    found.append((start, end, lines[number + 1 :]))
                break
    return found


def _segment(start: int, end: int, text: str) -> Segment:
    who = WHO.match(text)
    label, score = scored(text[who.end() :] if who else text)
    return Segment(start / 1000, end / 1000, label, score, int(who[1]) if who else None)
