"""Extractors that see optical flow: alone, or beside the pictures it is computed from, every frame decoded once."""

import dataclasses
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from vidtad.errors import InputError
from vidtad.extractors.base import ClipConvention, ClipExtractor, TimedFrame
from vidtad.extractors.preprocess import resized, target_size
from vidtad.flow import BOUND, flow_of, grey, pairwise_flow, quantise

T = TypeVar("T")
CHUNK = 16
"""Pairs whose flow is computed together."""


@dataclass(frozen=True)
class Picture:
    """A frame made from decoded ones: `picture` (H, W, C) uint8 at `time_s` seconds."""

    time_s: float
    picture: np.ndarray

    def rgb(self) -> np.ndarray:
        """(H, W, C) uint8; C is what the extractor that asked for it wants."""
        return self.picture


class FlowExtractor(ClipExtractor):
    """Clips of flow pictures (levels of x and y displacement, 128 is rest) to feature rows.

    Frames are resized as the convention says before their flow is computed: its length scales with the picture.
    N frames give N - 1 pictures.
    """

    def frames(self, frames: Iterable[TimedFrame]) -> Iterator[Picture]:
        """The flow from each frame to the next, as a picture of levels (h, w, 2) uint8 at the first one's time."""
        return (Picture(time_s, levels) for time_s, _, levels in flow_levels(frames, self.convention, lambda rgb: None))


def flow_levels(
    frames: Iterable[TimedFrame], convention: ClipConvention, keep: Callable[[np.ndarray], T]
) -> Iterator[tuple[float, T, np.ndarray]]:
    """Of every frame but the last: its time, what `keep` made of its RGB picture, and its flow to the next frame.

    The flow is in levels, (h, w, 2) uint8, by the convention's method. At most CHUNK frames are waited for.
    """
    waiting: deque[tuple[float, T]] = deque()

    def greys() -> Iterator[np.ndarray]:
        for frame in frames:
            rgb = frame.rgb()
            waiting.append((frame.time_s, keep(rgb)))
            size = target_size(rgb.shape[0], rgb.shape[1], convention.resize, convention.interpolation)
            yield grey(resized(rgb, size, convention.interpolation))

    for flow in pairwise_flow(greys(), flow_of(convention.flow or "tvl1"), CHUNK):
        yield *waiting.popleft(), quantise(flow, BOUND)


class TwoStream:
    """An RGB and a flow extractor side by side on the same windows: rows are the RGB channels, then the flow ones.

    Frame i goes with the flow from it to frame i + 1, so the last frame is shown to neither stream: both are as long
    as the shorter one, as in the published two-stream features. Raises InputError when the two differ in window,
    stride, rate or crop.
    """

    def __init__(self, rgb: ClipExtractor, flow: FlowExtractor):
        same = ("window", "stride", "fps", "resize", "crop", "interpolation")
        differing = [key for key in same if getattr(rgb.convention, key) != getattr(flow.convention, key)]
        if differing:
            raise InputError(f"{rgb.name} and {flow.name} differ in {', '.join(differing)}: they cannot share windows")
        self.name, self.streams = f"{rgb.name}+{flow.name}", (rgb, flow)
        self.device = rgb.device
        channels = (*rgb.convention.channels, *flow.convention.channels)
        self.convention = dataclasses.replace(rgb.convention, channels=channels, picks=None, flow=flow.convention.flow)

    def frames(self, frames: Iterable[TimedFrame]) -> Iterator[Picture]:
        """Every frame but the last, prepared, with the flow to the next one: (crop, crop, 5) uint8."""
        rgb, flow = self.streams
        for time_s, picture, levels in flow_levels(frames, flow.convention, rgb.prepare):
            yield Picture(time_s, np.concatenate([picture, flow.prepare(levels)], axis=2))

    def prepare(self, picture: np.ndarray) -> np.ndarray:
        """The same picture: `frames` has prepared it."""
        return picture

    def __call__(self, clips: np.ndarray) -> np.ndarray:
        """clips (B, window, crop, crop, 5) -> (B, C) float32."""
        rgb, flow = self.streams
        return np.concatenate([rgb(clips[..., :3]), flow(clips[..., 3:])], axis=1)
