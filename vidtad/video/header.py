"""Look before decoding: refuse what is no video, and read what the header says."""

import os
import stat
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from vidtad.errors import InputError
from vidtad.video.clock import plausible
from vidtad.video.types import VideoInfo

# 8192 x 8192: a 16000 x 16000 H.264 picture takes gigabytes and minutes although its file is under 1 MB.
MOST_PIXELS = 8192 * 8192
PICTURE_MAGIC = (b"\xff\xd8\xff", b"\x89PNG", b"BM", b"II*\0", b"MM\0*")
PLAYLISTS = {"hls", "concat", "dash", "imf"}
PACKETS_BEFORE_FIRST_FRAME = 2000
PACKETS_MEASURED = 250


@dataclass(frozen=True)
class Promise:
    """What a header claims: the stored facts, and how far the claim of a duration can be trusted.

    `duration_s` is None when nothing is promised; `solid` when it is the video stream's own sample table
    rather than the container's longest stream. `by_index`: no usable times, frames lie at k / fps.
    `first_ticks`: container time of the first decodable frame, in units of `time_base` seconds.
    """

    info: VideoInfo
    frames: int | None
    duration_s: float | None
    solid: bool
    by_index: bool
    warnings: tuple[str, ...]
    time_base: Fraction
    first_ticks: int | None
    interlaced: bool
    container: str


def check_file(path: str | Path) -> None:
    """Raise InputError unless `path` is a readable regular file with something in it."""
    try:
        found = os.stat(path)
    except (OSError, ValueError) as error:
        if isinstance(error, FileNotFoundError):
            raise InputError(f"{path}: no such file; check the path") from error
        raise InputError(f"{path}: cannot be opened ({getattr(error, 'strerror', error)})") from error
    if stat.S_ISDIR(found.st_mode):
        raise InputError(f"{path}: is a directory; give a video file")
    if not stat.S_ISREG(found.st_mode):
        raise InputError(f"{path}: is a pipe or device, not a regular file; save the video to a file first")
    if found.st_size == 0:
        raise InputError(f"{path}: empty file (0 bytes); copy or download it again")
    try:
        with open(path, "rb") as file:
            head = file.read(4096)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from error
    # Before FFmpeg sees it: a live playlist would make it wait for ever, a list would make it open other files.
    if head.startswith((b"#EXTM3U", b"ffconcat")):
        raise InputError(f"{path}: a playlist, not a video; give the video file itself")
    if _is_text(head):
        raise InputError(f"{path}: not a video (it is text); give a video file")


def open_container(path: str | Path) -> Any:
    """Open with PyAV for reading. Raises InputError saying what the file is instead of a video."""
    import av
    import av.logging

    check_file(path)
    # torchvision switches PyAV's log to Python on: a decoding thread that has something to say then waits for the
    # interpreter, while the interpreter, closing the file, waits for that thread.
    av.logging.set_level(None)
    try:
        # An absolute path cannot be taken for a protocol or an option; nothing but files may be opened by it.
        container = av.open(os.path.abspath(path), metadata_errors="replace", options={"protocol_whitelist": "file"})
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise InputError(f"{path}: {_why_unreadable(path)}") from error
    if not container.streams.video and not container.streams.audio:
        container.close()
        raise InputError(f"{path}: {_why_unreadable(path)}")
    return container


def _why_unreadable(path: str | Path) -> str:
    with open(path, "rb") as file:
        head = file.read(4096)
    if head.startswith(PICTURE_MAGIC):
        return "a picture, not a video; give a video file"
    if head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip") and not _has_moov(path):
        return "incomplete file: its index (moov box) is missing, as after an aborted recording or download"
    return "not a video, or damaged beyond reading; give a file that a player opens"


def _is_text(head: bytes) -> bool:
    try:
        # A cut in the middle of a character at the end of what was read is no fault.
        text = head.decode() if len(head) < 4096 else head[:-3].decode(errors="ignore")
    except UnicodeDecodeError:
        return False
    return len(text.encode()) >= len(head) - 6 and all(c.isprintable() or c in "\t\n\r\f\ufeff" for c in text)


def _has_moov(path: str | Path) -> bool:
    size = os.path.getsize(path)
    with open(path, "rb") as file:
        at = 0
        for _ in range(10_000):
            file.seek(at)
            box = file.read(16)
            if len(box) < 8:
                return False
            length, kind = int.from_bytes(box[:4], "big"), box[4:8]
            if kind in (b"moov", b"moof"):
                return True
            if length == 1:
                length = int.from_bytes(box[8:16], "big")
            if length < 8 or at + length >= size:
                return False
            at += length
    return False


def video_stream(container: Any, path: str | Path) -> Any:
    """The first real video stream (cover pictures are skipped). Raises InputError when there is none."""
    kind = container.format.name
    if kind in PLAYLISTS:
        raise InputError(f"{path}: a playlist, not a video; give the video file itself")
    if kind == "tty":
        raise InputError(f"{path}: not a video (it is text); give a video file")
    if kind.endswith("_pipe") or kind in ("image2", "ico"):
        raise InputError(f"{path}: a picture, not a video; give a video file")
    attached = 0x400
    streams = [s for s in container.streams.video if not int(s.disposition) & attached]
    if not streams:
        what = "only a cover picture" if container.streams.video else "only sound"
        raise InputError(f"{path}: no video stream ({what}); give a file with moving pictures")
    stream = streams[0]
    if stream.codec_context is None:
        raise InputError(f"{path}: no decoder for this kind of video; convert it, for example to H.264")
    width, height = stream.codec_context.width, stream.codec_context.height
    if width * height > MOST_PIXELS:
        raise InputError(
            f"{path}: pictures of {width} x {height} pixels are more than this program opens "
            f"({MOST_PIXELS // 10**6} million); scale the video down first"
        )
    return stream


def _rate(stream: Any, path: str | Path, fps: Fraction | None) -> Fraction:
    """Average frames per second: claimed, else measured. Raises InputError when absurd and no `fps` is given."""
    if rate_is_absurd(stream):
        if fps is not None:
            return fps
        said = f"{float(stream.average_rate):.6g} frames per second"
        raise InputError(f"{path}: the header claims an impossible frame rate ({said}); give it with --fps")
    for claimed in (stream.average_rate, stream.guessed_rate, stream.base_rate):
        if plausible(claimed):
            return Fraction(claimed)
    measured = _measured_rate(path) or fps
    if measured is None:
        raise InputError(f"{path}: the header says no frame rate; give it with --fps")
    return measured


def _measured_rate(path: str | Path) -> Fraction | None:
    """Average rate of the first packets, where no field of the header can be true."""
    with open_container(path) as container:
        stream = video_stream(container, path)
        times = []
        for packet in packets_of(container, stream):
            if packet.pts is not None:
                times.append(packet.pts)
            if len(times) == PACKETS_MEASURED:
                break
        span = (max(times) - min(times)) * Fraction(stream.time_base) if times else Fraction(0)
        rate = Fraction((len(times) - 1) / span).limit_denominator(1001) if span else None
        return rate if plausible(rate) else None


def rate_is_absurd(stream: Any) -> bool:
    """Whether the header's rate is a number no camera has, so that its times are worthless too.

    The average alone may be one (DV: the ticks of its clock); the base rate is what the frames' times are spaced by.
    """
    return stream.average_rate is not None and not (plausible(stream.average_rate) or plausible(stream.base_rate))


def _promised(container: Any, stream: Any, rate: Fraction) -> tuple[float | None, bool]:
    """(seconds, solid) the header promises for the video."""
    if stream.duration:
        own = float(stream.duration * stream.time_base)
        counted = float(stream.frames / rate) if stream.frames else own
        # A sample table that contradicts the duration field wins: the field is the one that tools get wrong.
        return (own if abs(own - counted) <= 0.1 * counted + 0.5 else counted), bool(stream.frames)
    tag = stream.metadata.get("DURATION", "")
    try:
        hours, minutes, seconds = tag.split(":")
        tagged = int(hours) * 3600 + int(minutes) * 60 + float(seconds)
        start = float((stream.start_time or 0) * stream.time_base)
        if 0 < tagged - start < 10**7:
            return tagged - start, True
    except ValueError:
        pass
    if container.duration:
        return container.duration / 1_000_000, False
    return None, False


def examine(path: str | Path, *, fps: Fraction | None = None) -> Promise:
    """Read the header and the first decodable frame. Raises InputError as `probe` does."""
    with open_container(path) as container:
        stream = video_stream(container, path)
        return judge(path, container, stream, first_frame(container, stream), fps)


def judge(path: str | Path, container: Any, stream: Any, first: Any, fps: Fraction | None) -> Promise:
    """What header and first decoded frame (PyAV; None: there is none) promise. Raises InputError."""
    if fps is not None and not plausible(fps):
        raise InputError(f"A frame rate of {fps} per second is out of range: give one from 0.01 to 1000")
    if first is None:
        raise InputError(f"{path}: no frame of it can be decoded; the file is damaged or not a video")
    if first.width * first.height > MOST_PIXELS:
        raise InputError(f"{path}: pictures of {first.width} x {first.height} pixels are too large")
    absurd = rate_is_absurd(stream)
    by_index = absurd or first.pts is None
    # A raw stream's average rate is the demuxer's default; the guess comes from the pictures themselves.
    untimed = stream.guessed_rate if by_index and not absurd and plausible(stream.guessed_rate) else None
    rate = (fps or untimed if by_index else None) or _rate(stream, path, fps)
    frames = stream.frames or None
    promised, solid = _promised(container, stream, rate)
    if by_index:
        promised, solid = (float(frames / rate), True) if frames else (None, False)
    turns = quarter_turns(first)
    info = VideoInfo(
        path=str(path),
        width=first.height if turns % 2 else first.width,
        height=first.width if turns % 2 else first.height,
        fps=rate,
        duration_s=_length(path, rate) if promised is None else promised,
        frames=frames,
        codec=stream.codec.canonical_name if hasattr(stream.codec, "canonical_name") else stream.name,
        rotation=turns * 90,
        constant_rate=by_index or _looks_constant(stream),
        start_s=0.0 if by_index else float(first.pts * first.time_base),
    )
    return Promise(
        info=info,
        frames=frames,
        duration_s=promised,
        solid=solid,
        by_index=by_index,
        warnings=_warnings(path, info, first, by_index, fps),
        time_base=Fraction(stream.time_base),
        first_ticks=first.pts,
        interlaced=bool(first.interlaced_frame),
        container=container.format.name,
    )


def _warnings(path: str | Path, info: VideoInfo, first: Any, by_index: bool, fps: Fraction | None) -> tuple[str, ...]:
    warnings = []
    if by_index:
        source = "as given with --fps" if fps else "a guess; give the true one with --fps"
        warnings.append(
            f"{path}: no usable frame times in the file; times are counted at {float(info.fps):g} "
            f"frames per second ({source})"
        )
    if first.rotation % 90:
        warnings.append(f"{path}: rotated by {first.rotation} degrees; shown turned by {info.rotation}")
    return tuple(warnings)


def _looks_constant(stream: Any) -> bool:
    average, base = stream.average_rate, stream.base_rate
    return not (plausible(average) and base and abs(average - base) > average / 100)


def _length(path: str | Path, rate: Fraction) -> float:
    """Seconds of a file whose header promises none: packets counted, not decoded."""
    import av

    with open_container(path) as container:
        packets = 0
        try:
            for packet in container.demux(video_stream(container, path)):
                packets += packet.size > 0
        except av.error.FFmpegError:
            pass
    return float(packets / rate)


def first_frame(container: Any, stream: Any) -> Any:
    """The first frame that decodes (PyAV), or None after a bounded number of packets."""
    import av

    for number, packet in enumerate(packets_of(container, stream)):
        try:
            for frame in packet.decode():
                return frame
        except (av.error.FFmpegError, ValueError, EOFError):
            pass
        if number > PACKETS_BEFORE_FIRST_FRAME:
            break
    return None


def packets_of(container: Any, stream: Any) -> Any:
    """Packets of one stream; a reading error ends them as if the file ended there."""
    import av

    packets = container.demux(stream)
    while True:
        try:
            yield next(packets)
        except StopIteration:
            return
        except (av.error.FFmpegError, OSError, ValueError):
            return


def quarter_turns(frame: Any) -> int:
    """Quarter turns counter-clockwise, 0 to 3, that show a decoded frame (PyAV) upright."""
    return round((frame.rotation or 0) / 90) % 4
