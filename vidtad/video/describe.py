"""What a file really is, as one JSON document: what `vidtad info VIDEO` shows."""

from fractions import Fraction
from pathlib import Path
from typing import Any

from vidtad.video.reader import open_video


def describe(
    path: str | Path, *, frames: bool = False, decoder: str = "pyav", fps: Fraction | None = None
) -> dict[str, Any]:
    """Decode the file to its end (pictures are not converted) and say what it is.

    Keys: path, bytes, decoder, container, codec, width, height (pixels as shown), rotation (degrees
    counter-clockwise), mirrored, dynamic_range, fps, fps_exact, constant_rate, duration_s, frames,
    start_s, player_start_s; promised: {frames, duration_s} as the header has them or null; damage: {damaged_frames,
    lost_packets, broke_at_s, missing_s} or null; warnings. With `frames` also
    frame_times_s, the time in seconds of every frame from 0, increasing. `fps` and the errors raised are those of
    `vidtad.video.open_video`.
    """
    times = []
    with open_video(path, decoder=decoder, fps=fps) as video:
        for frame in video:
            if frames:
                times.append(frame.time_s)
    found, report, promise = video.final_info, video.report, video.promise
    harmed = report.broke_at_s is not None
    document = {
        "path": str(path),
        "bytes": Path(path).stat().st_size,
        "decoder": found.decoder,
        "container": promise.container,
        "codec": found.codec,
        "width": found.width,
        "height": found.height,
        "rotation": found.rotation,
        "mirrored": found.mirrored,
        "dynamic_range": found.dynamic_range,
        "fps": float(found.fps),
        "fps_exact": str(found.fps),
        "constant_rate": found.constant_rate,
        "duration_s": found.duration_s,
        "frames": found.frames,
        "start_s": found.start_s,
        "player_start_s": found.player_start_s,
        "promised": {"frames": promise.frames, "duration_s": promise.duration_s},
        "damage": None,
        "warnings": list(report.warnings),
    }
    if harmed:
        names = ("damaged_frames", "lost_packets", "broke_at_s", "missing_s")
        document["damage"] = {name: getattr(report, name) for name in names}
    if frames:
        document["frame_times_s"] = times
    return document
