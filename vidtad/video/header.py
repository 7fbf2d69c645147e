"""Look before decoding: refuse what is no video, and read what the header says."""

import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from vidtad.errors import InputError
from vidtad.video.clock import check_rate, plausible, possible
from vidtad.video.rates import average_rate, base_rate, guessed_rate, time_base
from vidtad.video.shown import SDR, dynamic_range, orientation_of
from vidtad.video.stamps import DECODING, PRESENTATION, less_faulty, suspicious
from vidtad.video.types import VideoInfo

# 8192 x 8192: a 16000 x 16000 H.264 picture takes gigabytes and minutes although its file is under 1 MB.
MOST_PIXELS = 8192 * 8192
PICTURE_MAGIC = (b"\xff\xd8\xff", b"\x89PNG", b"BM", b"II*\0", b"MM\0*")
PLAYLISTS = {"hls", "concat", "dash", "imf"}
PACKETS_BEFORE_FIRST_FRAME = 2000
PACKETS_MEASURED = 250
# FFmpeg's AV_DISPOSITION_DEFAULT and AV_DISPOSITION_ATTACHED_PIC.
DEFAULT, ATTACHED_PICTURE = 0x1, 0x400


@dataclass(frozen=True)
class Promise:
    """What a header claims: the stored facts, and how far the claim of a duration can be trusted.

    `duration_s` is None when nothing is promised; `solid` when it is the video stream's own sample table
    rather than the container's longest stream. `by_index`: no usable times, frames lie at k / fps.
    `first_ticks`: container time of the first decodable frame, in units of `time_base` seconds. `stamps`: whether
    frames are placed by their presentation or by their decoding times. `several`: the file holds further films.
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
    stamps: str = PRESENTATION
    several: bool = False


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
        container = av.open(os.path.abspath(path), options={"protocol_whitelist": "file"}, **_tolerant_metadata())
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise InputError(f"{path}: {_why_unreadable(path)}") from error
    if not container.streams.video and not container.streams.audio:
        container.close()
        raise InputError(f"{path}: {_why_unreadable(path)}")
    return container


def _tolerant_metadata() -> dict[str, Any]:
    """PyAV from 19 on reads tags of any bytes; before, it has to be told."""
    import av

    return {} if int(av.__version__.partition(".")[0]) >= 19 else {"metadata_errors": "replace"}


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
    """The stream that is the film. Raises InputError when there is none.

    Cover pictures are skipped. Of several, the one marked as default is taken, else the one FFmpeg thinks best.
    """
    kind = container.format.name
    if kind in PLAYLISTS:
        raise InputError(f"{path}: a playlist, not a video; give the video file itself")
    if kind == "tty":
        raise InputError(f"{path}: not a video (it is text); give a video file")
    if kind in ("image2", "ico") or (kind.endswith("_pipe") and not _several_pictures(path)):
        raise InputError(f"{path}: a picture, not a video; give a video file")
    streams = films(container)
    if not streams:
        what = "only a cover picture" if container.streams.video else "only sound"
        raise InputError(f"{path}: no video stream ({what}); give a file with moving pictures")
    marked = [stream for stream in streams if int(stream.disposition) & DEFAULT]
    stream = marked[0] if len(marked) == 1 else _best(container, marked or streams)
    if stream.codec_context is None:
        raise InputError(f"{path}: no decoder for this kind of video; convert it, for example to H.264")
    width, height = stream.codec_context.width, stream.codec_context.height
    if width * height > MOST_PIXELS:
        raise InputError(
            f"{path}: pictures of {width} x {height} pixels are more than this program opens "
            f"({MOST_PIXELS // 10**6} million); scale the video down first"
        )
    return stream


def _several_pictures(path: str | Path) -> bool:
    """Whether a file of pictures in a row holds more than two: a film of JPEGs, not a photograph and its preview."""
    import av

    with av.open(os.path.abspath(path), options={"protocol_whitelist": "file"}) as container:
        try:
            return sum(1 for _, packet in zip(range(4), container.demux(video=0), strict=False) if packet.size) > 2
        except av.error.FFmpegError:
            return False


def films(container: Any) -> list[Any]:
    """Video streams that are no cover pictures."""
    return [stream for stream in container.streams.video if not int(stream.disposition) & ATTACHED_PICTURE]


def _best(container: Any, streams: Sequence[Any]) -> Any:
    best = container.streams.best("video")
    numbers = [stream.index for stream in streams]
    return streams[numbers.index(best.index)] if best is not None and best.index in numbers else streams[0]


def _rate(stream: Any, path: str | Path, fps: Fraction | None) -> Fraction:
    """Average frames per second: claimed, else measured. Raises InputError when absurd and no `fps` is given."""
    average = average_rate(stream)
    if rate_is_absurd(stream, path):
        if fps is not None:
            return fps
        said = f"{float(average or 0):.6g} frames per second"
        raise InputError(f"{path}: the header claims an impossible frame rate ({said}); give it with --fps")
    for claimed in (average, guessed_rate(stream), base_rate(stream)):
        if claimed is not None and plausible(claimed):
            return claimed
    if average is not None and _borne_out(average, path):
        return average
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
        span = (max(times) - min(times)) * time_base(stream) if times else Fraction(0)
        rate = Fraction((len(times) - 1) / span).limit_denominator(100_000) if span else None
        return rate if possible(rate) else None


def rate_is_absurd(stream: Any, path: str | Path) -> bool:
    """Whether the header's rate is a number no camera has, so that its times are worthless too.

    The average alone may be one (DV: the ticks of its clock); the base rate is what the frames' times are spaced by.
    A rate beyond the usual ones (high-speed recordings, a picture an hour) holds where the packets' times bear it out.
    """
    average = average_rate(stream)
    if average is None or plausible(average) or plausible(base_rate(stream)):
        return False
    return not _borne_out(average, path)


def _borne_out(rate: Fraction, path: str | Path) -> bool:
    measured = _measured_rate(path) if possible(rate) else None
    return measured is not None and abs(measured - rate) <= rate / 10


def _promised(container: Any, stream: Any, rate: Fraction) -> tuple[float | None, bool]:
    """(seconds, solid) the header promises for the video."""
    if stream.duration:
        own = float(stream.duration * time_base(stream))
        counted = float(stream.frames / rate) if stream.frames else own
        # A sample table that contradicts the duration field wins: the field is the one that tools get wrong.
        return (own if abs(own - counted) <= 0.1 * counted + 0.5 else counted), bool(stream.frames)
    tag = stream.metadata.get("DURATION", "")
    try:
        hours, minutes, seconds = tag.split(":")
        tagged = int(hours) * 3600 + int(minutes) * 60 + float(seconds)
        start = float((stream.start_time or 0) * time_base(stream))
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
        sent: list[int | None] = []
        return judge(path, container, stream, first_frame(container, stream, sent), fps, sent)


def judge(
    path: str | Path,
    container: Any,
    stream: Any,
    first: Any,
    fps: Fraction | None,
    sent: Sequence[int | None] = (),
) -> Promise:
    """What header and first decoded frame (PyAV; None: there is none) promise. Raises InputError.

    `sent`: presentation times of the packets that the decoder was given until then, in their order.
    """
    if fps is not None:
        check_rate(fps)
    if first is None:
        raise InputError(f"{path}: no frame of it can be decoded; the file is damaged or not a video")
    if first.width * first.height > MOST_PIXELS:
        raise InputError(f"{path}: pictures of {first.width} x {first.height} pixels are too large")
    absurd = rate_is_absurd(stream, path)
    pictures = container.format.name.endswith("_pipe") or container.format.name == "mjpeg"  # their rate is made up
    by_index = absurd or pictures or first.pts is None
    # A raw stream's average rate is the demuxer's default; the guess comes from the pictures themselves.
    guess = guessed_rate(stream)
    untimed = guess if by_index and not absurd and plausible(guess) else None
    rate = (fps or untimed if by_index else None) or _rate(stream, path, fps)
    frames = stream.frames or None
    promised, solid = _promised(container, stream, rate)
    if by_index:
        promised, solid = (float(frames / rate), True) if frames else (None, False)
    stamps = PRESENTATION
    if not by_index and suspicious(stream, sent):
        stamps = less_faulty(lambda: open_container(path), lambda opened: video_stream(opened, path))
    shown = orientation_of(first)
    info = VideoInfo(
        path=str(path),
        width=first.height if shown.swaps else first.width,
        height=first.width if shown.swaps else first.height,
        fps=rate,
        duration_s=_length(path, rate) if promised is None else promised,
        frames=frames,
        codec=stream.codec.canonical_name if hasattr(stream.codec, "canonical_name") else stream.name,
        rotation=shown.turns * 90,
        mirrored=shown.mirrored,
        dynamic_range=dynamic_range(first),
        constant_rate=by_index or _looks_constant(stream),
        start_s=0.0 if by_index else float(first.pts * time_base(first)),
        player_start_s=0.0 if by_index else _on_player(container, first),
    )
    return Promise(
        info=info,
        frames=frames,
        duration_s=promised,
        solid=solid,
        by_index=by_index,
        warnings=(*_choice(path, container, stream), *_warnings(path, info, first, by_index, fps, stamps)),
        time_base=time_base(stream),
        first_ticks=first.dts if stamps == DECODING else first.pts,
        stamps=stamps,
        interlaced=bool(first.interlaced_frame),
        several=len(films(container)) > 1,
        container=container.format.name,
    )


def _on_player(container: Any, first: Any) -> float:
    """What a player's clock shows at the first frame, in seconds: the container's own start is its 0."""
    start = Fraction(container.start_time or 0, 1_000_000)
    seconds = round(float(first.pts * time_base(first) - start), 6)
    return seconds if seconds > 0.001 else 0.0


def _choice(path: str | Path, container: Any, stream: Any) -> tuple[str, ...]:
    """One line that names the film taken, where a file has several."""
    there = films(container)
    if len(there) < 2:
        return ()
    context = stream.codec_context
    why = "marked as default" if int(stream.disposition) & DEFAULT else "the one a player takes"
    return (
        f"{path}: holds {len(there)} films; stream {stream.index} is taken ({context.name}, {context.width} x "
        f"{context.height}, {why})",
    )


def _warnings(
    path: str | Path, info: VideoInfo, first: Any, by_index: bool, fps: Fraction | None, stamps: str
) -> tuple[str, ...]:
    warnings = []
    if stamps == DECODING:
        warnings.append(
            f"{path}: its presentation times are out of order; frames are placed by the decoding times, which are sound"
        )
    if by_index:
        source = "as given with --fps" if fps else "a guess; give the true one with --fps"
        warnings.append(
            f"{path}: no usable frame times in the file; times are counted at {float(info.fps):g} "
            f"frames per second ({source})"
        )
    if first.rotation % 90:
        warnings.append(f"{path}: rotated by {first.rotation} degrees; shown turned by {info.rotation}")
    if info.dynamic_range != SDR:
        warnings.append(
            f"{path}: {info.dynamic_range.upper()} footage, read without tone mapping: flatter than a player shows it"
        )
    return tuple(warnings)


def _looks_constant(stream: Any) -> bool:
    average, base = average_rate(stream), base_rate(stream)
    return not (average and base and plausible(average) and abs(average - base) > average / 100)


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


def first_frame(container: Any, stream: Any, sent: list[int | None] | None = None) -> Any:
    """The first frame that decodes (PyAV), or None after a bounded number of packets.

    `sent` is filled with the presentation times of the packets given to the decoder.
    """
    import av

    for number, packet in enumerate(packets_of(container, stream)):
        if sent is not None and packet.size:
            sent.append(packet.pts)
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
