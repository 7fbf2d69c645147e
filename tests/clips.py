"""Clips made for tests with PyAV: every frame carries its own number, so a wrong frame is seen exactly."""

import os
from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

BITS = 10
# The AV1 encoder writes a page about itself to the error output otherwise.
os.environ.setdefault("SVT_LOG", "1")


def numbered_frames(n: int, height: int = 96, width: int = 160, first: int = 0) -> list[np.ndarray]:
    """`n` RGB pictures, (height, width, 3) uint8: number in `BITS` blocks of 16 pixels along the top.

    Below them a gradient moves, so that compression has motion to predict.
    """
    assert width >= 16 * BITS and height >= 32
    rows, columns = np.mgrid[0:height, 0:width]
    pictures = []
    for number in range(first, first + n):
        planes = [(columns + 3 * number) % 200 + 20, (rows + 2 * number) % 200 + 20, np.full_like(rows, 90)]
        picture = np.stack(planes, axis=-1).astype(np.uint8)
        for bit in range(BITS):
            picture[:16, 16 * bit : 16 * bit + 16] = 235 if number >> bit & 1 else 16
        pictures.append(picture)
    return pictures


def number_of(rgb: np.ndarray, rotation: int = 0) -> int:
    """The number in a picture; `rotation` counter-clockwise degrees it was turned by are undone first."""
    stored = np.rot90(rgb, -(rotation // 90))
    return sum(1 << bit for bit in range(BITS) if stored[3:13, 16 * bit + 3 : 16 * bit + 13].mean() > 128)


def write_clip(
    path: Path,
    frames: Sequence[np.ndarray] | Iterable[np.ndarray],
    fps: Fraction | int = 30,
    *,
    codec: str = "libx264",
    options: dict[str, str] | None = None,
    pts: Sequence[int] | None = None,
    time_base: Fraction | None = None,
    rotation: int = 0,
    container_format: str | None = None,
    container_options: dict[str, str] | None = None,
    pix_fmt: str = "yuv420p",
    sound_s: float = 0.0,
    colour: dict[str, int] | None = None,
    aspect: Fraction | None = None,
) -> Path:
    """Encode RGB pictures (H, W, 3) uint8 into `path`; the container follows the name or `container_format`.

    Frame k is shown at k / fps, or at `pts[k]` ticks of `time_base` seconds. `rotation`: degrees
    counter-clockwise by which a player has to turn the stored pictures. `sound_s` adds a tone that long.
    `colour` sets the stream's tags: color_range, colorspace (FFmpeg's numbers). `aspect`: width of a pixel
    divided by its height.
    """
    import av

    fps = Fraction(fps)
    options = {"g": "12", "preset": "ultrafast"} if options is None and codec == "libx264" else options or {}
    with av.open(str(path), "w", format=container_format, container_options=container_options or {}) as out:
        stream: Any = None
        for number, picture in enumerate(frames):
            if stream is None:
                stream = out.add_stream(codec, rate=fps, options=options)
                stream.height, stream.width = picture.shape[:2]
                stream.pix_fmt = pix_fmt
                stream.codec_context.time_base = time_base or 1 / fps
                for tag, value in (colour or {}).items():
                    setattr(stream.codec_context, tag, value)
                if aspect:
                    stream.codec_context.sample_aspect_ratio = aspect
                if rotation:
                    stream.set_display_rotation(rotation)
                tone = out.add_stream("aac", rate=16000, layout="mono") if sound_s else None
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts = pts[number] if pts is not None else number
            frame.time_base = time_base or 1 / fps
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
        if sound_s:
            _write_tone(out, tone, sound_s)
    return path


def write_sound(path: Path, seconds: float = 1.0, cover: bytes | None = None) -> Path:
    """A file with a tone and no moving pictures; `cover` is a JPEG kept as its attached picture (.m4a)."""
    import av

    with av.open(str(path), "w", format="mp4") as out:
        tone = out.add_stream("aac", rate=16000, layout="mono")
        if cover:
            picture: Any = out.add_stream("mjpeg")
            picture.width, picture.height, picture.pix_fmt = 64, 64, "yuvj420p"
            picture.disposition = av.stream.Disposition.attached_pic
            packet = av.Packet(cover)
            packet.stream, packet.pts, packet.dts = picture, 0, 0
            out.mux(packet)
        _write_tone(out, tone, seconds)
    return path


def _write_tone(out: Any, stream: Any, seconds: float) -> None:
    import av

    for start in range(0, int(16000 * seconds), 1024):
        wave = np.sin(np.arange(start, start + 1024) * 0.17).astype(np.float32)[None] * 0.2
        frame = av.AudioFrame.from_ndarray(wave, format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = 16000, start, Fraction(1, 16000)
        out.mux(stream.encode(frame))
    out.mux(stream.encode(None))


# Kinds a user may have, each with what must come out: see `Kind`.
X264_OPEN_GOP = {"preset": "fast", "bf": "3", "g": "12", "x264-params": "open-gop=1:keyint=12:scenecut=0"}
VFR_PTS = [100 * (k // 10) * 6 + (k % 10) * 33 + (k % 3) * 5 for k in range(60)]


def clip_of_kind(kind: str, folder: Path) -> Path:
    """Write a clip of 60 frames of one kind (a key of `KINDS`) into `folder`."""
    name, fps, settings = KINDS[kind]
    size = settings.get("size", (96, 160))
    rest = {key: value for key, value in settings.items() if key not in ("size", "cut")}
    path = write_clip(folder / name, numbered_frames(60, *size), fps, **rest)
    if "cut" in settings:
        return cut_by_edit_list(path, folder / f"cut_{name}", settings["cut"])
    return path


KINDS: dict[str, tuple[str, Fraction, dict[str, Any]]] = {
    "plain": ("plain.mp4", Fraction(30), {}),
    "ntsc open GOP": ("bframes.mp4", Fraction(30000, 1001), {"options": X264_OPEN_GOP}),
    "variable rate": ("vfr.mp4", Fraction(30), {"pts": VFR_PTS, "time_base": Fraction(1, 1000)}),
    "rotated 90": ("r90.mp4", Fraction(30), {"rotation": 90}),
    "rotated 180": ("r180.mp4", Fraction(30), {"rotation": 180}),
    "rotated 270": ("r270.mp4", Fraction(30), {"rotation": 270}),
    "webm": (
        "vp9.webm",
        Fraction(30),
        {"codec": "libvpx-vp9", "options": {"deadline": "realtime", "cpu-used": "8"}},
    ),
    "wrong extension": (
        "really_webm.avi",
        Fraction(30),
        {
            "codec": "libvpx-vp9",
            "container_format": "webm",
            "options": {"deadline": "realtime", "cpu-used": "8"},
        },
    ),
    "avi B-frames": ("bframes.avi", Fraction(25), {"codec": "mpeg4", "options": {"bf": "2", "g": "12"}}),
    "odd size": ("odd.mp4", Fraction(30), {"codec": "mpeg4", "size": (97, 163)}),
    "10 bit": (
        "ten.mp4",
        Fraction(30),
        {"codec": "libx265", "pix_fmt": "yuv420p10le", "options": {"x265-params": "log-level=none"}},
    ),
    "av1": (
        "av1.mp4",
        Fraction(30),
        {"codec": "libsvtav1", "options": {"preset": "10", "svtav1-params": "lp=1"}},
    ),
    "mjpeg": ("mjpeg.avi", Fraction(30), {"codec": "mjpeg", "pix_fmt": "yuvj420p"}),
    "fragmented": (
        "fragmented.mp4",
        Fraction(30),
        {"container_options": {"movflags": "frag_keyframe+empty_moov+default_base_moof"}},
    ),
    "transport stream": (
        "offset.ts",
        Fraction(30),
        {"options": {"g": "12", "bf": "2"}, "pts": [45 + k for k in range(60)]},
    ),
    "matroska with sound": ("sound.mkv", Fraction(30), {"sound_s": 2.0}),
    "interlaced": (
        "interlaced.mp4",
        Fraction(25),
        {"options": {"g": "12", "x264-params": "tff=1"}, "size": (96, 160)},
    ),
    "edit list": ("whole.mp4", Fraction(30), {"options": {"g": "12", "bf": "2"}, "cut": 17}),
}


def cut_by_edit_list(source: Path, path: Path, first: int) -> Path:
    """Copy `source` from the keyframe before frame `first`, hidden up to it by an edit list."""
    import av

    with av.open(str(source)) as old, av.open(str(path), "w") as new:
        stream = old.streams.video[0]
        copy = new.add_stream_from_template(stream)
        packets = [packet for packet in old.demux(stream) if packet.size]
        keys = sorted(packet.pts for packet in packets if packet.is_keyframe)
        cut = sorted(packet.pts for packet in packets)[first]
        start = max(key for key in keys if key <= cut)
        for packet in packets:
            if packet.pts >= start:
                packet.pts, packet.dts, packet.stream = packet.pts - cut, packet.dts - cut, copy
                new.mux(packet)
    return path
