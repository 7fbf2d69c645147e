"""CVAT for video 1.1 (XML): a track per person, and per segment without a person a track as large as the picture.

CVAT knows frame numbers only. They are k / fps where the rate is constant; of other videos the time of every
frame is needed. https://docs.cvat.ai/docs/manual/advanced/formats/format-cvat/
"""

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

from vidtad.errors import InputError
from vidtad.formats.document import refused
from vidtad.formats.label_types import Gather, video_id
from vidtad.formats.people import by_track, segments_of
from vidtad.formats.shared import Videos, joined_actions, parse_xml, rate_of, size_of, split_actions, xml_safe
from vidtad.timeline import PersonBox, Segment, Timeline, VideoInfo

FrameTimes = Mapping[str, Sequence[float]]
WHY = "CVAT counts frames"
PERSON = "person"


class _Clock:
    """Frame numbers and times of one video; raises InputError where they cannot be known."""

    def __init__(self, info: VideoInfo, times: Sequence[float] | None) -> None:
        self.rate, self.times = rate_of(info, WHY), times
        if times is None and not info.constant_rate:
            raise InputError(f"{WHY}, and those of {info.path!r} come at a varying rate; give the file with --video")
        self.frames = len(times) if times is not None else info.frames or max(1, round(info.duration_s * self.rate))

    def frame(self, time_s: float) -> int:
        """The frame nearest to a time; of two, the earlier."""
        if self.times is None:
            return min(max(0, round(time_s * self.rate)), self.frames - 1)
        after = bisect_left(self.times, time_s)
        if after == len(self.times) or (after and time_s - self.times[after - 1] <= self.times[after] - time_s):
            after -= 1
        return after

    def time(self, frame: int) -> float:
        """When a frame is shown; the one after the last marks the end of the video. Raises ValueError below 0."""
        if frame < 0:
            raise ValueError(f"there is no frame {frame}")
        if self.times is None:
            return float(frame / self.rate)
        if frame < len(self.times):
            return self.times[frame]
        return self.times[-1] + float(1 / self.rate)


def write(timeline: Timeline, frame_times: FrameTimes | None = None) -> dict[str, str]:
    """Document of a timeline of one video. frame_times: {video: seconds of every frame}. Raises InputError
    when frames or pixels cannot be counted.
    """
    ((name, found),) = timeline.results.items()
    info = timeline.videos[name]
    clock, size = _Clock(info, (frame_times or {}).get(name)), size_of(info, "CVAT counts pixels")
    tracks = by_track(timeline.people.get(name, ()))
    free = [s for s in found if s.track not in tracks]
    root = Element("annotations")
    SubElement(root, "version").text = "1.1"
    labels = ([PERSON] if tracks else []) + sorted({s.label for s in free} - {PERSON})
    _meta(root, name, info, clock.frames, labels, size)
    for track, boxes in tracks.items():
        _person(root, track, boxes, clock, size)
    for number, segment in enumerate(sorted(free, key=lambda s: s.start_s), max(tracks, default=-1) + 1):
        _whole(root, number, segment, clock, size)
    ElementTree.indent(root)
    return {".cvat.xml": '<?xml version="1.0" encoding="utf-8"?>\n' + ElementTree.tostring(root, "unicode") + "\n"}


def read(
    text: str, videos: Videos, path: Path, frame_times: FrameTimes | None = None, *, between: bool = False
) -> Timeline:
    """Persons and whole-picture tracks as segments. The document does not say the frame rate: `videos` must.

    between: boxes that CVAT drew between those of a person, too. Findings are warnings of the timeline.
    Raises InputError for a broken document, an unknown rate, or the export of several tasks.
    """
    root, name = _document(text, path)
    first = path.name.split(".")[0]
    name = name if name in videos else first if first in videos else name
    if name not in videos:
        raise InputError(f"{WHY} and this file does not say their rate; give the video {name!r} with --video")
    info = videos[name]
    clock, size = _Clock(info, (frame_times or {}).get(name)), size_of(info, "CVAT counts pixels")
    into = Gather()
    _gather(root, name, clock, into, size, between)
    for s in segments_of(into.people.get(name, ())):
        into.add(into.video(name), s.label, s.start_s, s.end_s, score=s.score, track=s.track)
    return into.timeline(videos, "cvat")


def read_labels(text: str, path: Path, into: Gather, frame_rate: float | None = None) -> None:
    """Add the tracks that are no persons, as segments; persons are a finding. Frames are counted at `frame_rate`.

    Raises InputError without a rate, which the document does not say.
    """
    root, name = _document(text, path)
    if frame_rate is None:
        raise InputError(f"{WHY} and this file does not say their rate; give it with --frame-rate")
    rate = Fraction(frame_rate).limit_denominator(100_000)
    size = root.findtext(".//meta//size") or ""
    frames = int(size) if size.isascii() and size.isdecimal() else 10**9
    info = VideoInfo(name, 0, 0, rate, float(frames / rate), frames)
    _gather(root, name, _Clock(info, None), into, None, False)


def _document(text: str, path: Path) -> tuple[Element, str]:
    """(root, name of the video). Raises InputError for the export of several tasks, whose frames are counted on."""
    root = parse_xml(text)
    tasks = root.findall(".//meta//task")
    if len(tasks) > 1:
        raise InputError(
            f"{path}: holds {len(tasks)} tasks of a project, whose frames are counted on; export each task by itself"
        )
    if root.find("image") is not None and root.find("track") is None:
        raise InputError(f"{path}: CVAT for images; export the task as CVAT for video 1.1")
    return root, video_id(root.findtext(".//meta//source") or root.findtext(".//meta//name") or path.stem)


def _gather(root: Element, name: str, clock: _Clock, into: Gather, size: tuple[int, int] | None, between: bool) -> None:
    """Add every track; person boxes where the size of pictures is given. What else there is, is a finding."""
    video = into.video(name)
    for element in root:
        if element.tag in ("version", "meta"):
            continue
        where = f"{name}: track {element.get('id', '?')} ({element.get('label', 'no label')})"
        if element.tag != "track":
            into.findings.add(f"element {element.tag!r} left out", name)
        elif element.get("label") != PERSON:
            with refused("not a CVAT track"):
                for s in _read_whole(element, clock):
                    into.add(video, s.label, s.start_s, s.end_s, score=s.score)
        elif size is None:
            into.findings.add("track of a person left out", where, serious=False)
        else:
            shapes = {shape.tag for shape in element} - {"box"}
            if shapes:
                into.findings.add("shape of a person that is no box left out", f"{where}: {', '.join(sorted(shapes))}")
            with refused("not a CVAT track"):
                boxes = _read_person(element, int(element.get("id", "0")), clock, size, between)
                into.people.setdefault(name, []).extend(boxes)


def fits(text: str) -> bool:
    """Whether this is a CVAT document."""
    return "<annotations>" in text[:2000] and "<version>" in text[:2000]


def _meta(root: Element, name: str, info: VideoInfo, frames: int, labels: Sequence[str], size: tuple[int, int]) -> None:
    task = SubElement(SubElement(root, "meta"), "task")
    for tag, value in (
        ("name", name),
        ("size", frames),
        ("mode", "interpolation"),
        ("overlap", 0),
        ("start_frame", 0),
        ("stop_frame", frames - 1),
        ("frame_filter", ""),
    ):
        SubElement(task, tag).text = xml_safe(str(value))
    listed = SubElement(task, "labels")
    for label in labels:
        entry = SubElement(listed, "label")
        SubElement(entry, "name").text = xml_safe(label)
        attribute = SubElement(SubElement(entry, "attributes"), "attribute")
        for tag, value in (
            ("name", "actions" if label == PERSON else "score"),
            ("mutable", str(label == PERSON)),
            ("input_type", "text"),
            ("default_value", ""),
            ("values", ""),
        ):
            SubElement(attribute, tag).text = value
    shown = SubElement(task, "original_size")
    SubElement(shown, "width").text, SubElement(shown, "height").text = str(size[0]), str(size[1])
    SubElement(task, "source").text = xml_safe(Path(info.path).name or name)


def _box(
    track: Element, frame: int, box: Sequence[float], size: tuple[int, int], outside: bool, actions: tuple[str, str]
) -> None:
    width, height = size
    corners = zip(("xtl", "ytl", "xbr", "ybr"), box, (width, height, width, height), strict=True)
    places = {name: f"{place * side:.2f}" for name, place, side in corners}
    state = {"frame": str(frame), "outside": str(int(outside)), "occluded": "0", "keyframe": "1"}
    shape = SubElement(track, "box", state | places | {"z_order": "0"})
    SubElement(shape, "attribute", name=actions[0]).text = xml_safe(actions[1])


def _person(root: Element, number: int, boxes: Sequence[PersonBox], clock: _Clock, size: tuple[int, int]) -> None:
    track = SubElement(root, "track", id=str(number), label=PERSON, source="auto")
    frame, actions = -1, ("actions", "")
    for person in boxes:
        at = clock.frame(person.time_s)
        if at == frame:  # two keyframes within half a frame
            continue
        frame = at
        actions = ("actions", joined_actions(person.actions))
        _box(track, frame, person.box, size, False, actions)
    if frame + 1 < clock.frames:
        _box(track, frame + 1, boxes[-1].box, size, True, actions)


def _whole(root: Element, number: int, segment: Segment, clock: _Clock, size: tuple[int, int]) -> None:
    track = SubElement(root, "track", id=str(number), label=xml_safe(segment.label), source="auto")
    first = clock.frame(segment.start_s)
    after = max(first + 1, clock.frame(segment.end_s) if segment.end_s < clock.time(clock.frames - 1) else clock.frames)
    score = ("score", repr(segment.score))
    _box(track, first, (0, 0, 1, 1), size, False, score)
    if after < clock.frames:
        _box(track, after, (0, 0, 1, 1), size, True, score)


def _read_person(
    track: Element, number: int, clock: _Clock, size: tuple[int, int], between: bool
) -> Iterator[PersonBox]:
    width, height = size
    for shape in track.iter("box"):
        if shape.get("outside") == "1" or (shape.get("keyframe") == "0" and not between):
            continue
        x1, y1, x2, y2 = (float(shape.attrib[side]) for side in ("xtl", "ytl", "xbr", "ybr"))
        box = (max(0.0, x1 / width), max(0.0, y1 / height), min(1.0, x2 / width), min(1.0, y2 / height))
        actions = split_actions(_attribute(shape, "actions"))
        yield PersonBox(clock.time(int(shape.attrib["frame"])), number, box, 1.0, actions)


def _read_whole(track: Element, clock: _Clock) -> Iterator[Segment]:
    label, start, score = track.attrib["label"], None, 1.0
    for shape in sorted(track, key=lambda shape: int(shape.attrib["frame"])):
        frame = int(shape.attrib["frame"])
        if shape.get("outside") == "1":
            if start is not None:
                yield Segment(clock.time(start), clock.time(frame), label, score)
            start = None
        elif start is None:
            start, score = frame, float(_attribute(shape, "score") or 1.0)
    if start is not None:
        yield Segment(clock.time(start), clock.time(clock.frames), label, score)


def _attribute(shape: Element, name: str) -> str:
    return next((entry.text or "" for entry in shape.iter("attribute") if entry.get("name") == name), "")
