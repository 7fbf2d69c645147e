"""`vidtad info`: what a video file really is, or what this installation is."""

from pathlib import Path
from typing import Annotated, Any

import typer

from vidtad.cli.common import note, parse_rate, print_json, say
from vidtad.cli.options import AsJson, Decoder


def info(
    video: Annotated[Path | None, typer.Argument(help="Video file; without one, this installation.")] = None,
    frames: Annotated[bool, typer.Option("--frames", help="Also the time of every frame.")] = False,
    fps: Annotated[str | None, typer.Option(help="Frame rate of a file that states none.")] = None,
    decoder: Decoder = "pyav",
    json: AsJson = False,
) -> None:
    """Codec, size, rotation, rates, frames promised and found, damage; or versions, devices and folders.

    Example: vidtad info match.mp4 --json
    """
    if video is None:
        from vidtad.cli.environment import describe_installation

        document = describe_installation()
    else:
        from vidtad.video import describe

        document = describe(video, frames=frames, decoder=decoder, fps=parse_rate(fps, "--fps"))
    if json:
        print_json(document)
        return
    for warning in document.get("warnings", ()):
        note(warning)
    for key, value in document.items():
        if key == "frame_times_s":
            for time_s in value:
                say(f"{time_s:.6f}")
        elif key != "warnings":
            say(f"{key}: {plain(value)}")


def plain(value: Any) -> str:
    """Lists and documents on one line."""
    if isinstance(value, dict):
        return ", ".join(f"{key}={plain(inner)}" for key, inner in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(plain, value))
    return str(value)
