"""Open, probe and decode videos: RGB uint8 frames with each frame's own time."""

from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import Any


@dataclass(frozen=True)
class VideoInfo:
    """What is known of a video: sizes in pixels as shown (after rotation), times in seconds from the first frame.

    `frames` is the number of frames found where the file was decoded to its end, else what the header promises
    (None when it promises nothing). `fps` is the average rate; `constant_rate` says whether it is the truth for
    every frame.
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

    def to_json(self) -> dict[str, Any]:
        """JSON form; `fps` as a number, its exact value as the string `fps_exact`."""
        return asdict(self) | {"fps": float(self.fps), "fps_exact": str(self.fps)}

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> "VideoInfo":
        """Inverse of `to_json`; unknown keys are ignored. Raises KeyError, TypeError or ValueError."""
        known = {name: document[name] for name in cls.__dataclass_fields__ if name in document}
        return cls(**known | {"fps": Fraction(document.get("fps_exact", document["fps"]))})
