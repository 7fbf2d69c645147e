"""Pictures to an H.264 stream that shows them as the video they come from was shown."""

from fractions import Fraction
from typing import Any

import numpy as np

from vidtad.video.types import VideoInfo

TICKS = 90_000
"""Ticks a second of the pictures written; every usual rate divides it, and variable times round to 0.011 ms."""
# What FFmpeg makes of RGB unless told otherwise; a player that is not told guesses from the size of the picture.
BT601, LIMITED = 5, 1


class H264:
    """A video stream in `container` (PyAV, open for writing) for upright RGB pictures of the size of `info`.

    like: the video stream (PyAV) they come from, whose pixels may not be square. crf: x264's quality, lower is better.
    """

    def __init__(self, container: Any, info: VideoInfo, like: Any, crf: int) -> None:
        rate = info.fps if 1 <= info.fps <= 240 else Fraction(25)
        self.stream: Any = container.add_stream("libx264", rate=rate, options={"crf": str(crf)})
        context = self.stream.codec_context
        # H.264 in 4:2:0 wants even sides; the picture is padded, not scaled, so that no pixel moves.
        self.width, self.height = info.width + info.width % 2, info.height + info.height % 2
        self.stream.width, self.stream.height, self.stream.pix_fmt = self.width, self.height, "yuv420p"
        context.time_base = Fraction(1, TICKS)
        context.colorspace, context.color_range = BT601, LIMITED
        aspect = like.sample_aspect_ratio
        if aspect:
            context.sample_aspect_ratio = 1 / Fraction(aspect) if info.rotation % 180 else Fraction(aspect)
        # The encoder keeps no lengths, and the last picture of a file would be shown for as long as any other.
        self.lengths: dict[int, int] = {}

    def packets(self, rgb: np.ndarray, ticks: int, duration_s: float) -> list[Any]:
        """Packets that are ready after one more picture, (H, W, 3) uint8, shown at `ticks` for `duration_s` seconds."""
        import av

        if rgb.shape[:2] != (self.height, self.width):
            edges = ((0, self.height - rgb.shape[0]), (0, self.width - rgb.shape[1]), (0, 0))
            rgb = np.pad(rgb, edges, mode="edge")
        frame = av.VideoFrame.from_ndarray(rgb, format="rgb24")
        frame.pts, frame.time_base = ticks, Fraction(1, TICKS)
        self.lengths[ticks] = round(duration_s * TICKS)
        return self._timed(self.stream.encode(frame))

    def rest(self) -> list[Any]:
        """The packets that the encoder still holds, after the last picture."""
        return self._timed(self.stream.encode(None))

    def _timed(self, packets: list[Any]) -> list[Any]:
        for packet in packets:
            packet.duration = self.lengths.pop(packet.pts, packet.duration)
        return packets
