"""Cutting the segments of a timeline into files of their own, by copying packets where that is exact."""

import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from vidtad.errors import RunError
from vidtad.formats.shared import NOT_IN_FILE_NAMES, file_name_part
from vidtad.runtime.files import atomic_write, still_there
from vidtad.timeline import Segment, Timeline
from vidtad.video import Frame, open_video
from vidtad.video.encoder import H264, TICKS
from vidtad.video.header import Promise, examine, open_container, packets_of, video_stream
from vidtad.video.plan import PacketPlan, read_plan

# What players expect to find in .mp4, and what it can hold without being changed.
MP4_VIDEO = {"h264", "hevc", "av1", "mpeg4", "vp9"}
MP4_SOUND = {"aac", "mp3", "ac3", "eac3", "opus", "flac", "alac"}
# Sound may lie this much behind the pictures in the file.
MOST_LAG_S = 2


@dataclass(frozen=True)
class Cut:
    """One file: its path, the segment in it, and whether its pictures were copied rather than encoded anew."""

    path: Path
    segment: Segment
    copied: bool


def cut(
    timeline: Timeline, name: str, source: Path, folder: Path, *, min_score: float = 0.0, exact: bool = False
) -> list[Cut]:
    """Write every segment of video `name` that scores at least `min_score` to `folder`, in order of time.

    Copied clips hold the packets from the keyframe before the start, hidden by an edit list, so that players begin
    at the start; at the end, up to a few frames more may show where later frames were needed to decode earlier
    ones. Files that cannot be cut so (no usable times, codecs that .mp4 does not hold) are encoded anew, as is
    everything with `exact`. Sound is always copied. Raises InputError for an unusable source, RunError for a failed
    write.
    """
    source = Path(source)
    found = sorted(timeline.at_least(min_score).results.get(name, ()), key=lambda s: s.start_s)
    promise = examine(source)
    plan = read_plan(source, promise)
    scissors = _Scissors(source, promise, plan, exact)
    done = []
    for number, segment in enumerate(found, 1):
        path = Path(folder) / f"{_stem(name, number, segment)}{scissors.suffix}"
        frames = scissors.cut(segment, path)
        if not frames:
            continue
        done.append(Cut(path, segment, scissors.copies))
    still_there(cut.path for cut in done)
    return done


def _stem(name: str, number: int, segment: Segment) -> str:
    words = file_name_part(re.sub(r"[\s_]+", "-", NOT_IN_FILE_NAMES.sub("", segment.label)).strip("-."), 60, 80)
    plain = file_name_part(name, 80, 120).lstrip(".")
    return f"{plain}_{number:04d}_{words or 'segment'}_{segment.start_s:.2f}-{segment.end_s:.2f}"


class _Scissors:
    """Cuts one file; decides once how."""

    def __init__(self, source: Path, promise: Promise, plan: PacketPlan, exact: bool) -> None:
        self.source, self.promise, self.plan = source, promise, plan
        with open_container(source) as container:
            codec = video_stream(container, source).codec_context.name
            sounds = {stream.codec_context.name for stream in container.streams.audio}
        fits = sounds <= MP4_SOUND
        self.copies = not exact and not plan.doubt and bool(plan.keyframes) and _usual(codec) in MP4_VIDEO and fits
        self.suffix, self.container = (".mp4", "mp4") if fits else (".mkv", "matroska")

    def cut(self, segment: Segment, path: Path) -> int:
        """Write one segment; returns the number of pictures, 0 (and no file) when the video ends before it."""
        frames = 0
        first = self._ticks(segment.start_s)
        if not self.plan.doubt and self.plan.times and first > self.plan.times[-1]:
            return 0
        try:
            with atomic_write(path) as file:
                frames = self._copy(segment, file) if self.copies else self._encode(segment, file)
                if not frames:
                    raise _Empty
        except _Empty:
            return 0
        return frames

    def _ticks(self, time_s: float) -> int:
        return (self.promise.first_ticks or 0) + round(Fraction(time_s) / self.promise.time_base)

    def _copy(self, segment: Segment, file: Any) -> int:
        import av

        base = self.promise.time_base
        # The frame on display at the start; its time becomes zero.
        start = self.plan.times[self.plan.nearest(self._ticks(segment.start_s))]
        end = self._ticks(segment.end_s)
        key = self.plan.keyframe_for(start)
        if key is None:
            key = self.plan.times[0]
        zero_s, end_s = start * base, end * base
        with open_container(self.source) as old, _writing(path=self.source, work="copying"):
            video = video_stream(old, self.source)
            with av.open(file, "w", format=self.container) as new:
                copies = {stream.index: new.add_stream_from_template(stream) for stream in (video, *old.streams.audio)}
                count = 0
                for packet in _needed(_from(old, video, key), video.index, (start, end), (zero_s, end_s)):
                    count += packet.stream.index == video.index and start <= packet.pts < end
                    shift = round(zero_s / packet.time_base)
                    packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
                    packet.stream = copies[packet.stream.index]
                    new.mux(packet)
        return count

    def _encode(self, segment: Segment, file: Any) -> int:
        import av

        with (
            _writing(path=self.source, work="encoding"),
            open_video(self.source) as video,
            open_container(self.source) as old,
            av.open(file, "w", format=self.container) as new,
        ):
            info = video.info
            pictures = H264(new, info, video_stream(old, self.source), crf=18)
            copies = {sound.index: new.add_stream_from_template(sound) for sound in old.streams.audio}
            count, zero_s = 0, 0.0
            for frame in _between(video, segment):
                zero_s = zero_s if count else frame.time_s
                ticks = round((frame.time_s - zero_s) * TICKS)
                new.mux(pictures.packets(frame.rgb(), ticks, frame.duration_s))
                count += 1
            new.mux(pictures.rest())
            zero = Fraction(info.start_s) + Fraction(zero_s)
            for packet in _sound(old, zero, Fraction(info.start_s) + Fraction(segment.end_s)):
                packet.stream = copies[packet.stream.index]
                new.mux(packet)
        return count


class _Empty(Exception):
    """Nothing of the segment lies inside the video."""


class _writing:
    """Turns what FFmpeg says into one sentence."""

    def __init__(self, path: Path, work: str) -> None:
        self.path, self.work = path, work

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        import av

        if isinstance(error, av.error.FFmpegError):
            hint = "; try --exact" if self.work == "copying" else ""
            raise RunError(f"{self.path}: {self.work} a clip failed ({error.strerror or error}){hint}") from error


def _usual(codec: str) -> str:
    """Codec behind the name of a decoder: `libdav1d` decodes av1."""
    return {"libdav1d": "av1", "libaom-av1": "av1", "libvpx-vp9": "vp9"}.get(codec, codec)


def _from(container: Any, video: Any, key: int) -> Iterator[Any]:
    """Packets of pictures and sound from the keyframe at `key` on."""
    with suppress(Exception):
        container.seek(key, stream=video)
    began = False
    for packet in _decoding_times(packets_of(container, [video, *container.streams.audio]), video.index):
        if packet.stream.index == video.index:
            began = began or packet.pts == key
            # Before the keyframe nothing can be decoded; nor can leading pictures that refer to what lies before it.
            if not began or packet.pts < key:
                continue
        yield packet


def _decoding_times(packets: Iterable[Any], video: int) -> Iterator[Any]:
    """Usable packets, each with a decoding time: Matroska keeps none, and FFmpeg does not know the first ones."""
    early: list[Any] = []
    for packet in packets:
        if not packet.size or packet.pts is None or packet.is_discard:
            continue
        if packet.stream.index != video:
            packet.dts = packet.pts if packet.dts is None else packet.dts
        elif packet.dts is None:
            early.append(packet)
            continue
        else:
            yield from _before(packet.dts, early)
            early = []
        yield packet
    yield from _before(min((packet.pts for packet in early), default=0), early)


def _before(ticks: int, packets: list[Any]) -> Iterator[Any]:
    for number, packet in enumerate(packets):
        packet.dts = ticks - len(packets) + number
        yield packet


def _needed(
    packets: Iterable[Any], video: int, span: tuple[int, int], span_s: tuple[Fraction, Fraction]
) -> Iterator[Any]:
    """Sound inside the span, and pictures up to the last packet, in order of decoding, shown inside it."""
    later: list[Any] = []
    over = False
    for packet in packets:
        time_s = packet.pts * packet.time_base
        if packet.stream.index != video:
            if span_s[0] <= time_s < span_s[1]:
                yield packet
            elif over and time_s >= span_s[1]:
                return
        elif packet.pts < span[1]:
            yield from later
            later.clear()
            yield packet
        else:
            later.append(packet)
            # A picture is never decoded after it is shown, so none of the span can still come.
            over = over or packet.dts >= span[1]
            if packet.dts * packet.time_base >= span_s[1] + MOST_LAG_S:
                return


def _between(video: Iterable[Frame], segment: Segment) -> Iterator[Frame]:
    """The frames on display in a segment: from the one shown at its start."""
    held = None
    for frame in video:
        if frame.time_s >= segment.end_s:
            break
        if frame.time_s > segment.start_s:
            if held is not None:
                yield held
                held = None
            yield frame
        else:
            held = frame
    if held is not None and held.time_s + held.duration_s > segment.start_s:
        yield held


def _sound(container: Any, zero_s: Fraction, end_s: Fraction) -> Iterator[Any]:
    sounds = list(container.streams.audio)
    for packet in container.demux(sounds) if sounds else ():
        if packet.size and packet.pts is not None and zero_s <= packet.pts * packet.time_base < end_s:
            shift = round(zero_s / packet.time_base)
            dts = packet.pts if packet.dts is None else packet.dts
            packet.pts, packet.dts = packet.pts - shift, dts - shift
            yield packet
