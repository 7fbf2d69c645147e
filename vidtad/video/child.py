"""The decoding child process: `python -m vidtad.video.child DECODER PATH FPS`, frames to standard output.

Each message is one line of JSON; for a frame its pixels follow as height x width x 3 bytes.
"""

import json
import os
import sys
from fractions import Fraction
from typing import Any, BinaryIO

from vidtad.errors import VidtadError


def _say(out: BinaryIO, document: dict[str, Any]) -> None:
    out.write(json.dumps(document).encode() + b"\n")


def serve(decoder: str, path: str, fps: Fraction | None, out: BinaryIO) -> None:
    """Decode `path` into `out`; the last message is {"end": ...} or {"error": sentence}."""
    from vidtad.video.backends import decoder_class
    from vidtad.video.header import examine

    try:
        source: Any = decoder_class(decoder)
        source = source(path, examine(path, fps=fps))
        for frame in source.decode():
            pixels = frame.picture.rgb(frame.height, frame.width)
            facts = {
                "ticks": frame.ticks,
                "duration": frame.duration,
                "height": frame.height,
                "width": frame.width,
                "damaged": frame.damaged,
                "failures": source.damage.failures,
                "first_lost": source.damage.first_lost,
            }
            _say(out, facts)
            out.write(pixels.tobytes())
            out.flush()
        _say(out, {"end": True, "failures": source.damage.failures, "first_lost": source.damage.first_lost})
    except VidtadError as error:
        _say(out, {"error": str(error)})
    out.flush()


def main() -> None:
    """Entry point; libraries that print are kept away from the messages."""
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    decoder, path, fps = sys.argv[1:4]
    try:
        serve(decoder, path, Fraction(fps) if fps else None, out)
    except BrokenPipeError:
        os._exit(0)


if __name__ == "__main__":
    main()
