"""What a detector of people may be told: by its bundle, and by the user. Imports no network."""

import math
from dataclasses import dataclass
from pathlib import Path

from vidtad.errors import InputError
from vidtad.heads.person.boxes import DEFAULT
from vidtad.heads.person.segments import MergeRule

OWN = "own"
"""Instead of a person detector's name: the boxes an Action Transformer proposes itself."""


@dataclass(frozen=True)
class PeopleDecoding:
    """From scores to a timeline; the `decoding` entry of a bundle may set any of these.

    `person_score`: boxes from this score on are people (the report: 0.7 for AVA, 0.65 for Kinetics). `action_score`:
    actions of a person from this score on are kept at a keyframe (0: all, as published evaluations have it). `start`,
    `keep`, `bridge_s`: hysteresis, see `merge`. `same_iou`, `gone_s`: see `persons.Tracker`. `bank_reach_s`,
    `bank_per_second`: see `acfb.BankOptions`. `display_score`: segments a table shows. `persons`: who finds the people
    unless the user says otherwise.
    """

    person_score: float = 0.7
    action_score: float = 0.01
    start: float = 0.5
    keep: float = 0.3
    bridge_s: float = 2.0
    same_iou: float = 0.2
    gone_s: float = 3.0
    bank_reach_s: float = 10.0
    bank_per_second: int = 5
    display_score: float = 0.5
    persons: str = DEFAULT

    def rule(self) -> MergeRule:
        """How keyframes become segments."""
        return MergeRule(self.start, self.keep, self.bridge_s)


@dataclass(frozen=True)
class PeopleOptions:
    """What a user may ask for. `persons`: a name of `persons.DETECTORS`, or `own` (Action Transformer only); None for
    the bundle's choice, and OpenCV's HOG detector where that cannot be had.

    `boxes`: a file of boxes instead, whose times are the keyframes; `boxes_offset_s` is subtracted from them.
    `persons_weights`: a file or `random`, which a run with random `weights` is content with. `every_s`: seconds between
    keyframes (None: the bundle's). `scales`: short sides in pixels (none: the bundle's size), `flip`: mirrored too;
    logits are averaged. `batch`: keyframes at once. `person_score`, `action_score`: see `PeopleDecoding` (None: the
    bundle's); `PeopleWorker` heeds them. Raises InputError for what does not go together.
    """

    persons: str | None = None
    persons_weights: str | None = None
    boxes: Path | None = None
    boxes_offset_s: float = 0.0
    every_s: float | None = None
    scales: tuple[int, ...] = ()
    flip: bool = False
    batch: int = 2
    weights: str | None = None
    person_score: float | None = None
    action_score: float | None = None

    def __post_init__(self) -> None:
        if self.every_s is not None and not 0 < self.every_s < math.inf:
            raise InputError(f"keyframes every {self.every_s:g} s cannot be: give a time above 0")
        if any(side < 32 for side in self.scales):
            raise InputError(f"a short side of {min(self.scales)} pixels is too small: 32 at least")
        for name, score in self.thresholds().items():
            if not 0 <= score <= 1:
                raise InputError(f"--{name.replace('_', '-')} {score:g}: scores lie between 0 and 1")
        if self.batch < 1:
            raise InputError(f"{self.batch} keyframes at once: 1 at least")
        if self.boxes is None and self.boxes_offset_s:
            raise InputError("an offset is for the times of a file of boxes: name it with --boxes")
        if self.boxes is not None and (self.persons or self.persons_weights):
            raise InputError(f"boxes of {self.boxes} leave nobody to be found: leave out --boxes, or --persons")
        if self.boxes is not None and not Path(self.boxes).is_file():
            raise InputError(f"{self.boxes}: no such file of boxes")

    def thresholds(self) -> dict[str, float]:
        """Entries of a bundle's `decoding` that the user sets."""
        asked = {"person_score": self.person_score, "action_score": self.action_score}
        return {name: score for name, score in asked.items() if score is not None}

    @property
    def dry_run(self) -> bool:
        """Whether the network's weights were asked to be random."""
        return random_seed(self.weights) is not None


def random_seed(weights: str | None, default: int = 0) -> int | None:
    """The seed of `random` (`default`) or `random:SEED`; None for other weights. Raises InputError for no number."""
    kind, _, seed = (weights or "").partition(":")
    if kind != "random":
        return None
    if not seed:
        return default
    if not (seed.isascii() and seed.isdecimal() and len(seed) <= 18):
        raise InputError(f"--weights {weights}: the seed must be a number of at most 18 digits, as in random:0")
    return int(seed)
