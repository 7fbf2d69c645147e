"""What a generated clip may look like (`Level`) and what is true about one (`Truth`)."""

from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from vidtad.errors import InputError

CLASSES = ("jump", "kick", "spin", "squat", "walk", "wave")


@dataclass(frozen=True)
class Level:
    """How hard the clips are. Pairs are (lowest, highest) of a uniform draw.

    `person_height` and `camera_pan` are fractions of the frame height, `camera_shake` pixels (standard
    deviation), `contrast` the least difference of brightness (0-255) between a person and what is behind on
    average, `noise` the standard deviation of the pixel noise (0-255), `flicker` that of the light (factor),
    `speed` a factor on the tempo of every action, `clutter` the number of things drifting behind the people,
    `decoys` the chance that a person fidgets while idle (a half-raised arm, a slight bend: unlabelled), `crf`
    the quality setting of the encoder (higher is worse).
    """

    width: int = 160
    height: int = 120
    fps: Fraction = Fraction(15)
    seconds: tuple[float, float] = (15.0, 25.0)
    action_seconds: tuple[float, float] = (1.6, 4.2)
    idle_seconds: tuple[float, float] = (0.7, 2.8)
    people: tuple[int, int] = (1, 1)
    person_height: tuple[float, float] = (0.48, 0.74)
    speed: tuple[float, float] = (0.8, 1.25)
    contrast: float = 60.0
    camera_pan: float = 0.06
    camera_shake: float = 0.35
    clutter: tuple[int, int] = (0, 2)
    decoys: float = 0.0
    flicker: float = 0.06
    noise: float = 3.0
    crf: int = 20


LEVELS = {
    1: Level(),
    2: Level(
        speed=(0.6, 1.6), contrast=40.0, camera_pan=0.12, camera_shake=0.8, clutter=(1, 4), decoys=0.35,
        person_height=(0.4, 0.74), noise=6.0, crf=26,
    ),
    3: Level(
        people=(1, 3), speed=(0.5, 1.8), contrast=30.0, camera_pan=0.16, camera_shake=1.2, clutter=(3, 7),
        decoys=0.6, person_height=(0.34, 0.7), flicker=0.12, noise=9.0, crf=32,
    ),
}  # fmt: skip


def level_of(level: int | Level) -> Level:
    """A level by its number, or as given. Raises InputError when there is no such number."""
    if isinstance(level, Level):
        return level
    if level not in LEVELS:
        raise InputError(f"level {level} does not exist: choose one of {', '.join(map(str, LEVELS))}")
    return LEVELS[level]


@dataclass(frozen=True)
class Action:
    """One labelled stretch of one person, [start_s, end_s) in seconds from the first frame."""

    label: str
    start_s: float
    end_s: float


@dataclass(frozen=True, eq=False)
class PersonTruth:
    """What one person does and where: `boxes` (frames, 4) float32, x1 y1 x2 y2 as fractions of the frame."""

    actions: tuple[Action, ...]
    boxes: np.ndarray


@dataclass(frozen=True, eq=False)
class Truth:
    """Everything known about a clip before it is drawn."""

    seed: int
    fps: Fraction
    frames: int
    width: int
    height: int
    people: tuple[PersonTruth, ...]

    @property
    def duration_s(self) -> float:
        """Length in seconds: frames / fps."""
        return float(self.frames / self.fps)

    @property
    def actions(self) -> tuple[Action, ...]:
        """The actions of all people, by start."""
        every = [action for person in self.people for action in person.actions]
        return tuple(sorted(every, key=lambda action: (action.start_s, action.end_s, action.label)))
