"""What the interchange writers and readers share: one video of many, lanes without overlap, text that XML can hold."""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from math import ceil, floor
from xml.etree import ElementTree

from vidtad.errors import InputError
from vidtad.runtime.names import is_device
from vidtad.timeline import PersonBox, Segment, Timeline, VideoInfo

Videos = Mapping[str, VideoInfo]
NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
# The surrogates left out here stand for bytes of file names that are no UTF-8; the others no file can be named by.
NOT_IN_FILE_NAMES = re.compile(r'[\x00-\x1f/\\:*?"<>|\ud800-\udc7f\udd00-\udfff]')
PERSON = re.compile(r"person (\d+)")
NUMBER = r"-?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?"
_SCORED = re.compile(rf"(?P<label>.*?)(?: \((?P<score>{NUMBER})\))?", re.DOTALL)


def one_line(text: str) -> str:
    """The text with every run of white space, line breaks included, as one blank."""
    return " ".join(text.split())


def scored(text: str) -> tuple[str, float]:
    """(label, score) of `walk (0.875)`; brackets that hold no number belong to the label, whose score is then 1."""
    found = _SCORED.fullmatch(text)
    assert found  # every part is optional
    return found["label"], float(found["score"] or 1.0)


def backslashed(found: re.Match[str]) -> str:
    """A separator as part of a label."""
    return "\\" + found[0]


def joined_actions(actions: Iterable[tuple[str, float]]) -> str:
    """`walk (0.9); wave (0.5)`: labels with scores, as `split_actions` takes them apart; separators are escaped."""
    escape = re.compile(r"([;,\\])")
    return "; ".join(f"{escape.sub(backslashed, label)} ({score:.4g})" for label, score in actions)


def split_actions(text: str) -> tuple[tuple[str, float], ...]:
    """(label, score) of a list in one text, score 1 where none is in brackets.

    Semicolons and commas separate, but not within brackets (`talk to (a person, a group)`) nor after a backslash.
    """
    parts, depth, escaped = [""], 0, False
    for letter in text:
        if escaped:
            parts[-1], escaped = parts[-1] + letter, False
        elif letter == "\\":
            escaped = True
        elif letter in ";," and depth <= 0:
            parts.append("")
        else:
            depth += (letter == "(") - (letter == ")")
            parts[-1] += letter
    return tuple(scored(part.strip()) for part in parts if part.strip())


def frame_of(time_s: float, rate: Fraction, *, up: bool = False) -> int:
    """Frames of `rate` a second that have begun before a time, or, `up`, ended at it at the earliest.

    A time within a thousandth of a frame of a border is that border: decimal seconds rarely hit one exactly.
    """
    exact = Fraction(time_s) * rate
    near = round(exact)
    if abs(exact - near) < Fraction(1, 1000):
        return near
    return ceil(exact) if up else floor(exact)


def shifted(timeline: Timeline, by_s: Mapping[str, float]) -> Timeline:
    """The timeline with the times of videos moved by so many seconds; what ends before 0 goes, the rest is cut."""
    if not any(by_s.values()):
        return timeline
    results, people = dict(timeline.results), dict(timeline.people)
    for name, seconds in by_s.items():
        results[name] = tuple(
            replace(s, start_s=max(0.0, s.start_s + seconds), end_s=s.end_s + seconds)
            for s in timeline.results.get(name, ())
            if s.end_s + seconds > 0
        )
        if name in people:
            moved = (replace(p, time_s=max(0.0, round(p.time_s + seconds, 9))) for p in timeline.people[name])
            people[name] = tuple(moved)
    return replace(timeline, results=results, people=people)


def on_player(timeline: Timeline) -> Timeline:
    """The timeline on the clock of players, which counts from the container's start, not from the first frame."""
    return shifted(timeline, {name: info.player_start_s for name, info in timeline.videos.items()})


def from_player(timeline: Timeline) -> Timeline:
    """Inverse of `on_player`, where the videos are known."""
    return shifted(timeline, {name: -info.player_start_s for name, info in timeline.videos.items()})


def xml_safe(text: str) -> str:
    """The text without the control characters that XML 1.0 cannot hold."""
    return NOT_XML.sub("\ufffd", text)


def parse_xml(text: str) -> ElementTree.Element:
    """The root element. Raises InputError for text that is no XML, or defines entities of its own."""
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise InputError("XML with a document type or entities of its own is not read")
    try:
        return ElementTree.fromstring(text)
    except (ElementTree.ParseError, ValueError) as error:
        raise InputError(f"not valid XML ({error})") from error


def only(timeline: Timeline, video: str) -> Timeline:
    """The part of a timeline that belongs to one video."""
    people = {video: timeline.people[video]} if video in timeline.people else {}
    return Timeline(
        {video: timeline.results.get(video, ())}, {video: timeline.videos[video]}, timeline.detector, people
    )


def packed(segments: Iterable[Segment]) -> list[list[Segment]]:
    """The segments in as few rows as possible without overlap inside a row, each row in order of time."""
    rows: list[list[Segment]] = []
    for segment in sorted(segments, key=lambda s: (s.start_s, s.end_s)):
        for row in rows:
            if row[-1].end_s <= segment.start_s:
                row.append(segment)
                break
        else:
            rows.append([segment])
    return rows


def tiers(segments: Iterable[Segment]) -> dict[tuple[str, int | None], list[list[Segment]]]:
    """{(label, track): rows without overlap}, in order of label, then track."""
    groups: dict[tuple[str, int | None], list[Segment]] = defaultdict(list)
    for segment in segments:
        groups[segment.label, segment.track].append(segment)
    order = sorted(groups, key=lambda key: (key[0], -1 if key[1] is None else key[1]))
    return {key: packed(groups[key]) for key in order}


def file_name_part(text: str, letters: int, most: int) -> str:
    """Text that may stand in a file's name, cut to so many letters and at most so many bytes."""
    plain = NOT_IN_FILE_NAMES.sub("_", text)[:letters]
    raw = plain.encode(errors="surrogateescape")
    return plain if len(raw) <= most else raw[:most].decode(errors="ignore")


def file_stems(names: Iterable[str], taken: Iterable[str] = ()) -> dict[str, str]:
    """{video: a file name without suffix}: distinct, and one on every system whatever the id holds."""
    used, found = {name.lower() for name in taken}, {}
    for name in names:
        plain = file_name_part(name, 120, 200).lstrip(".").strip() or "video"
        plain = f"_{plain}" if is_device(plain) else plain
        stem, count = plain, 1
        while stem.lower() in used:
            count += 1
            stem = f"{plain}_{count}"
        used.add(stem.lower())
        found[name] = stem
    return found


def labels_of(timeline: Timeline) -> list[str]:
    """Every class name that occurs, sorted."""
    found = {s.label for segments in timeline.results.values() for s in segments}
    found |= {label for people in timeline.people.values() for p in people for label, _ in p.actions}
    return sorted(found)


def video_named(name: str, videos: Videos, end_s: float = 0.0) -> VideoInfo:
    """What is known of a video: from `videos`, else a stand-in that lasts `end_s` and has no rate or size."""
    if name in videos:
        return videos[name]
    return VideoInfo(path=name, width=0, height=0, fps=Fraction(0), duration_s=end_s, frames=None)


def assemble(
    segments: Mapping[str, Sequence[Segment]],
    videos: Videos,
    *,
    source: str,
    people: Mapping[str, Sequence[PersonBox]] | None = None,
) -> Timeline:
    """A timeline of what a reader found, best segment first; `source` names the format it came from."""
    people = people or {}
    ends = {
        name: max([s.end_s for s in segments.get(name, ())] + [p.time_s for p in people.get(name, ())], default=0.0)
        for name in dict.fromkeys([*segments, *people])
    }
    return Timeline(
        {name: tuple(sorted(segments.get(name, ()), key=lambda s: -s.score)) for name in ends},
        {name: video_named(name, videos, end) for name, end in ends.items()},
        {"name": source, "converted_from": source},
        {name: tuple(found) for name, found in people.items() if found},
    )


def rate_of(info: VideoInfo, why: str) -> Fraction:
    """Frames a second. Raises InputError, saying `why` they are needed, when they are not known."""
    if info.fps <= 0:
        raise InputError(f"{why}, and the frame rate of {info.path!r} is not known; give the file with --video")
    return info.fps


def size_of(info: VideoInfo, why: str) -> tuple[int, int]:
    """(width, height) in pixels. Raises InputError, saying `why` they are needed, when they are not known."""
    if info.width <= 0 or info.height <= 0:
        raise InputError(f"{why}, and the picture size of {info.path!r} is not known; give the file with --video")
    return info.width, info.height
