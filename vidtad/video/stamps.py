"""Which of a container's two times of a frame to believe: when it is shown, or when it is decoded.

Some writers number packets in the order of decoding and call that the presentation time (H.264 in AVI, tools that
copy streams without their times). Presentation times then run back and forth once frames are put in order, while the
decoding times, which the decoder hands on with each frame, increase steadily. FFmpeg's best-effort time decides the
same way, by counting faults of both.
"""

from collections.abc import Callable, Sequence
from typing import Any

PRESENTATION, DECODING = "presentation", "decoding"
FRAMES_COMPARED = 250


def suspicious(stream: Any, sent: Sequence[int | None]) -> bool:
    """Whether frames change places in decoding while the packets' presentation times do not show it.

    `sent`: presentation times in ticks of the first packets, in the order of decoding.
    """
    times = [ticks for ticks in sent if ticks is not None]
    return bool(stream.codec_context.has_b_frames) and times == sorted(times)


def less_faulty(opened: Callable[[], Any], stream_of: Callable[[Any], Any]) -> str:
    """PRESENTATION or DECODING: the times with fewer faults among the first frames. Ties go to presentation."""
    import av

    faults, last = {PRESENTATION: 0, DECODING: 0}, dict[str, int]()
    with opened() as container:
        stream = stream_of(container)
        stream.thread_type = "AUTO"
        count = 0
        try:
            for frame in container.decode(stream):
                for kind, ticks in ((PRESENTATION, frame.pts), (DECODING, frame.dts)):
                    if ticks is None:
                        continue
                    faults[kind] += kind in last and ticks <= last[kind]
                    last[kind] = ticks
                count += 1
                if count == FRAMES_COMPARED:
                    break
        except (av.error.FFmpegError, ValueError, EOFError):
            pass
    return DECODING if DECODING in last and faults[DECODING] < faults[PRESENTATION] else PRESENTATION
