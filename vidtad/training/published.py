"""What was published with a head: the features it reads, and the score it reached. Imports no torch."""

from dataclasses import dataclass


@dataclass(frozen=True)
class FeatureKind:
    """What a network reads: frames of a window and between windows, `fps` (None: the video's own), channel blocks.

    `spread`: rows of downloaded files cover their video evenly, whatever its rate and however many they are.
    """

    extractor: str
    window: int
    stride: int
    fps: int | None
    channels: tuple[tuple[str, int], ...]
    spread: bool = False


@dataclass(frozen=True)
class Published:
    """A published result: mAP (0-1) at each tIoU, the average as printed, and where it is printed."""

    source: str
    protocol: str
    tiou: tuple[float, ...]
    mAP: tuple[float, ...]
    average: float
