"""Burning a timeline into a video: labels, boxes of persons and a strip of time; same duration, sound copied."""

import unicodedata
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from vidtad.errors import InputError, RunError
from vidtad.formats.people import by_track, keyframe_step
from vidtad.runtime.files import atomic_write
from vidtad.timeline import PersonBox, Segment, Timeline
from vidtad.video import Frame, Video, open_video
from vidtad.video.encoder import H264, TICKS
from vidtad.video.header import open_container, video_stream

if TYPE_CHECKING:
    from collections.abc import Callable

MOST_LABELS = 6
DEMONSTRATION = "demonstration detector: generated classes only"
CONTAINERS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska"}


@dataclass(frozen=True)
class Look:
    """How large things are drawn: `text` is the height of a line relative to the picture's height."""

    text: float = 0.045
    strip: float = 0.012
    quality: int = 20


@dataclass(frozen=True)
class Shown:
    """What is to be seen at one time: labels with scores, and boxes of persons with theirs."""

    labels: tuple[tuple[str, float], ...]
    persons: tuple[tuple[int, tuple[float, float, float, float], tuple[tuple[str, float], ...]], ...]


class Script:
    """What to draw when: looks a time up in a timeline of one video."""

    def __init__(self, timeline: Timeline, name: str, min_score: float = 0.0) -> None:
        found = timeline.at_least(min_score).results.get(name, ())
        self.remark = DEMONSTRATION if timeline.detector.get("demonstration") else ""
        people = timeline.people.get(name, ())
        self.min_score = min_score
        self.tracks = by_track(people)
        self.times = {track: [box.time_s for box in boxes] for track, boxes in self.tracks.items()}
        self.step = keyframe_step(p.time_s for p in people)
        # A person's actions are drawn at the box, so the segments of followed persons need no label of their own.
        self.segments: list[Segment] = sorted((s for s in found if s.track not in self.tracks), key=lambda s: s.start_s)
        self.longest = max((s.end_s - s.start_s for s in self.segments), default=0.0)
        self.starts = [s.start_s for s in self.segments]

    def at(self, time_s: float) -> Shown:
        """Segments under way, the surest first and each class once, and persons, between keyframes interpolated."""
        best: dict[str, float] = {}
        last = bisect_right(self.starts, time_s)
        first = bisect_right(self.starts, time_s - self.longest - 1e-9)
        for segment in self.segments[first:last]:
            if time_s < segment.end_s:
                best[segment.label] = max(segment.score, best.get(segment.label, -np.inf))
        labels = sorted(best.items(), key=lambda item: -item[1])[:MOST_LABELS]
        return Shown(tuple(labels), tuple(self._persons(time_s)))

    def _persons(self, time_s: float) -> Iterator[tuple[int, Any, Any]]:
        for track, boxes in self.tracks.items():
            after = bisect_right(self.times[track], time_s)
            before = boxes[after - 1] if after else None
            coming = boxes[after] if after < len(boxes) else None
            box, person = _between(before, coming, time_s, self.step)
            if person is not None:
                actions = [action for action in person.actions if action[1] >= self.min_score]
                yield track, box, tuple(sorted(actions, key=lambda action: -action[1])[:3])


def _between(
    before: PersonBox | None, coming: PersonBox | None, time_s: float, step: float
) -> tuple[tuple[float, ...], PersonBox | None]:
    if before and coming and coming.time_s - before.time_s <= 1.5 * step:
        part = (time_s - before.time_s) / (coming.time_s - before.time_s)
        box = tuple(a + (b - a) * part for a, b in zip(before.box, coming.box, strict=True))
        return box, before if part < 0.5 else coming
    if before and time_s - before.time_s <= step / 2:
        return before.box, before
    if coming and coming.time_s - time_s <= step / 2:
        return coming.box, coming
    return (), None


def burn(
    timeline: Timeline,
    name: str,
    source: Path,
    out: Path,
    *,
    min_score: float = 0.0,
    look: Look = Look(),
    progress: "Callable[[int, int | None], None] | None" = None,
) -> int:
    """Write `source` with the timeline of video `name` drawn into it; returns the number of frames.

    Every frame keeps its own time, sound is copied as it is. The container follows `out`: .mp4, .mov or .mkv.
    Appears under `out` only when complete. Raises InputError for an unusable source, or sound that the container
    cannot hold; RunError for a failed write.
    """
    source, out = Path(source), Path(out)
    container = container_of(out)
    if out.resolve() == source.resolve():
        raise InputError(f"{out}: is the video itself; name another file to write")
    script = Script(timeline, name, min_score)
    with open_video(source) as video, atomic_write(out) as file:
        with _Writer(file, container, video, out, look.quality) as writer:
            canvas = Canvas(video.info.width, video.info.height, script, video.info.duration_s, look)
            for frame in video:
                writer.write(frame, canvas.draw(frame.rgb(), frame.time_s))
                if progress is not None:
                    progress(writer.frames, video.info.frames)
        if not writer.frames:
            raise InputError(f"{source}: not one frame could be decoded")
    return writer.frames


def container_of(path: Path) -> str:
    """FFmpeg's name of the container a file name asks for. Raises InputError."""
    if path.suffix.lower() not in CONTAINERS:
        raise InputError(f"{path}: a video is written as {', '.join(CONTAINERS)}; choose one of these endings")
    return CONTAINERS[path.suffix.lower()]


class Canvas:
    """Draws on RGB pictures of one size."""

    def __init__(self, width: int, height: int, script: Script, duration_s: float, look: Look) -> None:
        self.size, self.script, self.duration_s = (width, height), script, max(duration_s, 1e-9)
        self.line = max(12, round(height * look.text))
        self.bar = min(height, max(4, round(height * look.strip)))
        self.colours = {label: _colour(k) for k, label in enumerate(sorted({s.label for s in script.segments}))}
        self.strip = self._strip()

    def draw(self, picture: np.ndarray, time_s: float) -> np.ndarray:
        """The picture, (H, W, 3) uint8 RGB, drawn into in place and returned."""
        import cv2

        picture = np.ascontiguousarray(picture)
        shown = self.script.at(time_s)
        width, height = self.size
        for track, box, actions in shown.persons:
            x1, y1, x2, y2 = (round(v * s) for v, s in zip(box, (width, height, width, height), strict=True))
            colour = _colour(track + 3)
            cv2.rectangle(picture, (x1, y1), (x2, y2), colour, max(1, self.line // 10))
            lines = [f"person {track}", *(f"{label} {score:.2f}" for label, score in actions)]
            top = max(0, y1 - self.line * len(lines))
            for number, text in enumerate(lines):
                self._text(picture, text, (x1, top + number * self.line), colour)
        for number, (label, score) in enumerate(shown.labels):
            self._text(picture, f"{label} {score:.2f}", (self.line // 3, (number + 1) * self.line), self.colours[label])
        if self.script.segments:
            picture[height - self.bar :] = self.strip
            x = max(0, min(width - 2, int(time_s / self.duration_s * width)))
            picture[height - self.bar :, x : x + 2] = 255
        if self.script.remark:
            self._text(picture, self.script.remark, (self.line // 3, height - self.bar - self.line), (200, 200, 200))
        return picture

    def _text(self, picture: np.ndarray, text: str, corner: tuple[int, int], colour: tuple[int, int, int]) -> None:
        import cv2

        text = drawable(text)
        font, scale = cv2.FONT_HERSHEY_SIMPLEX, self.line / 36
        thickness = max(1, round(self.line / 18))
        (wide, tall), _ = cv2.getTextSize(text, font, scale, thickness)
        width, height = self.size
        whole = wide + 8 + self.line // 3
        x, y = max(0, min(corner[0], width - whole)), corner[1]  # a person at the edge is told about in the picture
        y1, y2, x1, x2 = max(0, y), min(height, y + self.line), x, min(width, x + whole)
        picture[y1:y2, x1:x2] //= 4
        picture[y1:y2, x1 : min(x2, x1 + self.line // 4)] = colour
        place = (x + self.line // 3 + 2, y + (self.line + tall) // 2)
        cv2.putText(picture, text, place, font, scale, (255, 255, 255), thickness, cv2.LINE_AA)

    def _strip(self) -> np.ndarray:
        width, _ = self.size
        strip = np.full((self.bar, width, 3), 40, np.uint8)
        for segment in sorted(self.script.segments, key=lambda s: s.score):
            first = int(segment.start_s / self.duration_s * width)
            last = max(first + 1, int(segment.end_s / self.duration_s * width))
            strip[:, first:last] = self.colours[segment.label]
        return strip


def drawable(text: str) -> str:
    """The text in the signs OpenCV's line font has: accents dropped, others as `?`."""
    plain = unicodedata.normalize("NFKD", " ".join(text.split()))
    return "".join(c for c in plain if not unicodedata.combining(c)).encode("ascii", "replace").decode()


class _Writer:
    """The output file: pictures encoded as H.264, the other streams' packets copied beside them."""

    def __init__(self, file: BinaryIO, container: str, video: Video, out: Path, quality: int) -> None:
        import av

        self.video, self.out, self.frames = video, out, 0
        self.file = av.open(file, "w", format=container)
        self.source = open_container(video.path)
        like = video_stream(self.source, video.path)
        self.pictures = H264(self.file, video.info, like, quality)
        self.sounds = {s.index: self._copied(s) for s in self.source.streams.audio}
        # A file may begin at any time on its clock (transport streams do): what comes first here begins at 0.
        self.zero_s = max(Fraction(0), min([Fraction(video.info.start_s), *map(_start_s, self.source.streams.audio)]))
        self.start_s = Fraction(video.info.start_s) - self.zero_s
        self.waiting = self._sound_packets()
        self.next: Any = next(self.waiting, None)

    def __enter__(self) -> "_Writer":
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        try:
            if kind is None and self.frames:
                self._mux(self.pictures.rest())
                self._sound_until(None)
                self._guard(self.file.close)
        finally:
            self.source.close()
            with suppress(Exception):  # after an error the half file is thrown away; its own complaints do not matter
                self.file.close()

    def write(self, frame: Frame, picture: np.ndarray) -> None:
        ticks = round((self.start_s + Fraction(frame.time_s)) * TICKS)
        self._mux(self.pictures.packets(picture, ticks, frame.duration_s))
        self._sound_until(float(self.start_s) + frame.time_s)
        self.frames += 1

    def _copied(self, stream: Any) -> Any:
        try:
            return self.file.add_stream_from_template(stream)
        except (ValueError, OSError) as error:
            raise InputError(
                f"{self.out}: this kind of file cannot hold the video's {stream.codec_context.name} sound; "
                "write an .mkv"
            ) from error

    def _sound_packets(self) -> Iterator[Any]:
        if self.sounds:
            for packet in self.source.demux([self.source.streams[index] for index in self.sounds]):
                if packet.size and packet.dts is not None and packet.pts is not None:
                    shift = round(self.zero_s / packet.time_base)
                    packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
                    yield packet

    def _sound_until(self, time_s: float | None) -> None:
        while self.next is not None and (time_s is None or float(self.next.dts * self.next.time_base) <= time_s):
            self.next.stream = self.sounds[self.next.stream.index]
            self._mux([self.next])
            self.next = next(self.waiting, None)

    def _mux(self, packets: Sequence[Any]) -> None:
        self._guard(lambda: self.file.mux(packets))

    def _guard(self, work: "Callable[[], object]") -> None:
        import av

        try:
            work()
        except (av.error.FFmpegError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            if self.sounds:
                reason = f"{reason}; if its sound does not fit this kind of file, write an .mkv"
            raise RunError(f"{self.out}: writing failed ({reason})") from error


def _start_s(sound: Any) -> Fraction:
    return Fraction(0) if sound.start_time is None else sound.start_time * sound.time_base


def _colour(number: int) -> tuple[int, int, int]:
    import colorsys

    red, green, blue = colorsys.hsv_to_rgb((number * 0.381966 + 0.58) % 1, 0.65, 0.95)
    return round(red * 255), round(green * 255), round(blue * 255)
