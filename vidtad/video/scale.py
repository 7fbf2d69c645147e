"""Decoded pictures to RGB pixels, scaled on the way where wanted."""

import threading
from itertools import pairwise
from typing import Any

import numpy as np

MOST_KEPT = 4
# RGB bytes from which fresh memory for every picture costs more than the conversion (page faults).
LARGE = 1 << 20


class Scaler:
    """Converts the pictures of one video; what it sets up is kept, apart for each thread that converts."""

    def __init__(self) -> None:
        self._local = threading.local()

    def rgb(self, frame: Any, height: int, width: int) -> np.ndarray:
        """Pixels of a PyAV frame as stored (no rotation), (height, width, 3) uint8.

        Shrinking averages over the area each pixel covers, enlarging is bicubic (both FFmpeg's swscale); with
        the frame's own size only the colours are converted, by the colour tags of the stream.
        """
        same = (frame.height, frame.width) == (height, width)
        # Odd sizes, interlaced pictures and other formats come out of a filter graph with other chroma.
        plain = frame.format.name == "yuv420p" and not (height % 2 or width % 2 or frame.interlaced_frame)
        if same and plain and 3 * height * width >= LARGE:
            return self._recycled(frame)
        method = None
        if not same:
            method = "AREA" if height * width < frame.height * frame.width else "BICUBIC"
        scaler = self._kept((frame.width, frame.height, frame.format.name, height, width), _reformatter)
        return scaler.reformat(frame, width, height, "rgb24", interpolation=method).to_ndarray()

    def _recycled(self, frame: Any) -> np.ndarray:
        """The same conversion through a filter graph, whose pool uses the memory of pictures let go again."""
        colour = (int(frame.colorspace), int(frame.color_range))
        graph = self._kept((frame.width, frame.height, *colour), _graph)
        graph.push(frame)
        return graph.pull().to_ndarray()

    def _kept(self, key: tuple[Any, ...], make: Any) -> Any:
        if not hasattr(self._local, "kept"):
            self._local.kept = {}
        kept: dict[tuple[Any, ...], Any] = self._local.kept
        if key not in kept:
            if len(kept) >= MOST_KEPT:
                kept.clear()
            kept[key] = make(key)
        return kept[key]


def _reformatter(_: tuple[Any, ...]) -> Any:
    from av.video.reformatter import VideoReformatter

    return VideoReformatter()


def _graph(key: tuple[Any, ...]) -> Any:
    from av.filter import Graph

    width, height, space, colour_range = key
    graph = Graph()
    source = graph.add(
        "buffer",
        f"video_size={width}x{height}:pix_fmt=yuv420p:time_base=1/1000:pixel_aspect=1/1"
        f":colorspace={space}:range={colour_range}",
    )
    chain = [source, graph.add("scale", "flags=bilinear"), graph.add("format", "rgb24"), graph.add("buffersink")]
    for one, following in pairwise(chain):
        one.link_to(following)
    graph.configure()
    return graph
