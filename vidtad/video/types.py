"""The nouns of decoding: what is known of a video, one frame of it, and what a full pass found."""

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from types import NoneType
from typing import Any, Protocol

import numpy as np

from vidtad.runtime.files import fraction_of


@dataclass(frozen=True)
class VideoInfo:
    """What is known of a video: sizes in pixels as shown (after rotation), times in seconds from frame 0.

    `frames` is the number of frames found where the file was decoded to its end, else what the header
    promises (None when it promises nothing). `fps` is the average rate; `constant_rate` says whether it is
    the truth for every frame. `start_s` is what the container's clock shows at the first frame (time 0 here).
    `player_start_s` is what a player's clock, which counts from the start of the container, shows at it.
    `rotation` is the number of degrees, counter-clockwise, by which stored pictures are turned for display, after which
    `mirrored` ones have left and right exchanged. `dynamic_range` is `sdr`, `pq`, `hlg`, or `bt2020` (wide colours
    alone); the last three are shown without tone mapping.
    """

    path: str
    width: int
    height: int
    fps: Fraction
    duration_s: float
    frames: int | None
    codec: str = ""
    rotation: int = 0
    constant_rate: bool = True
    start_s: float = 0.0
    decoder: str = "pyav"
    mirrored: bool = False
    dynamic_range: str = "sdr"
    player_start_s: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """JSON form; `fps` as a number, its exact value as the string `fps_exact`."""
        return asdict(self) | {"fps": float(self.fps), "fps_exact": str(self.fps)}

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> "VideoInfo":
        """Inverse of `to_json`; unknown keys are ignored. Raises KeyError, TypeError, ValueError or ArithmeticError."""
        known = {name: document[name] for name in cls.__dataclass_fields__ if name in document}
        exact = "fps_exact" if "fps_exact" in document else "fps"
        info = cls(**known | {"fps": fraction_of(document[exact])})
        for name, kinds in _KINDS.items():
            value = getattr(info, name)
            if not isinstance(value, kinds) or (isinstance(value, bool) and kinds is not bool):
                raise TypeError(f"{name} of a video cannot be {value!r}"[:200])
        if not (
            info.fps > 0
            and 0 <= info.duration_s < math.inf
            and math.isfinite(info.start_s)
            and math.isfinite(info.player_start_s)
        ):
            raise ValueError("a video needs a rate above 0 and times that are finite numbers")
        if info.width < 0 or info.height < 0 or (info.frames or 0) < 0:
            raise ValueError("a video cannot have a size or a number of frames below 0")
        return info


_KINDS: dict[str, Any] = {
    "path": str,
    "width": int,
    "height": int,
    "duration_s": (int, float),
    "frames": (int, NoneType),
    "codec": str,
    "rotation": int,
    "constant_rate": bool,
    "start_s": (int, float),
    "decoder": str,
    "mirrored": bool,
    "dynamic_range": str,
    "player_start_s": (int, float),
}


class Picture(Protocol):
    """A decoded picture that knows how to become pixels, upright."""

    def rgb(self, height: int, width: int) -> np.ndarray:
        """Pixels scaled to (height, width, 3) uint8, after rotation."""
        ...


@dataclass(frozen=True)
class Frame:
    """One frame: its place, its own time and length in seconds from frame 0, and its pixels on demand.

    `damaged` is true where the decoder had to invent parts of the picture, and after any loss until the next
    keyframe. A frame stays valid after its successor was decoded and after the video was closed; it holds the
    memory of one decoded picture.
    """

    index: int
    time_s: float
    duration_s: float
    height: int
    width: int
    picture: Picture = field(repr=False, compare=False)
    damaged: bool = False

    def rgb(self, size: tuple[int, int] | None = None) -> np.ndarray:
        """Upright pixels, (H, W, 3) uint8; with `size` = (height, width) scaled by the decoder on the way.

        Scaling here (area average when shrinking, bicubic when enlarging) is FFmpeg's, which differs from
        OpenCV's and torch's: do not mix them within one set of features. Each call converts anew.
        """
        height, width = size or (self.height, self.width)
        return self.picture.rgb(height, width)


@dataclass(frozen=True)
class Decoded:
    """What a decoder hands over for each frame, in presentation order: container time in ticks, or None."""

    ticks: int | None
    duration: int
    height: int
    width: int
    picture: Picture
    damaged: bool = False


@dataclass
class Damage:
    """What a decoder could not decode: failures counted, and the earliest lost frame in container ticks."""

    failures: int = 0
    first_lost: int | None = None

    def lose(self, ticks: int | None) -> None:
        """Note that the frame at `ticks` never came out."""
        if ticks is not None and (self.first_lost is None or ticks < self.first_lost):
            self.first_lost = ticks


class Decoder(Protocol):
    """One open file in one backend. `decode` may be called once; `damage` is complete when it has ended."""

    name: str
    time_base: Fraction
    damage: Damage

    def decode(self) -> Iterator[Decoded]:
        """Every frame once, in presentation order, upright."""
        ...

    def close(self) -> None:
        """Free the file."""
        ...


@dataclass(frozen=True)
class DecodeReport:
    """What a pass over the whole file found. Times in seconds from the first frame.

    `duration_s` is the last frame's time plus its length. `damaged_frames` came out smeared; `lost_packets`
    did not come out at all. `broke_at_s` is where the first damage shows (None: no damage), `missing_s` how
    much of the promised duration is absent at the end.
    """

    frames: int
    duration_s: float
    constant_rate: bool
    fps: Fraction
    damaged_frames: int = 0
    lost_packets: int = 0
    broke_at_s: float | None = None
    missing_s: float = 0.0
    warnings: tuple[str, ...] = ()
