"""Which network and schedule a data set asks for: the published recipe, or one scaled to it."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Protocol

import numpy as np

from vidtad.errors import InputError
from vidtad.training.loop import Head, Schedule, learns_in
from vidtad.training.published import FeatureKind, Published
from vidtad.training.video import TrainingVideo


@dataclass(frozen=True)
class Facts:
    """What settings are scaled by. Lengths in feature rows.

    `actions` (n,) and `rows` (videos,) are the lengths of training segments and videos; `step_s` seconds a row;
    `overlap` the window of a row over the step to the next.
    """

    channels: int
    classes: int
    actions: np.ndarray
    rows: np.ndarray
    starts: tuple[np.ndarray, ...]
    step_s: float
    overlap: float = 1.0

    @classmethod
    def of(cls, videos: Sequence[TrainingVideo], classes: int, step_s: float, overlap: float = 1.0) -> "Facts":
        """Facts of training videos."""
        lengths = np.concatenate([video.segments[:, 1] - video.segments[:, 0] for video in videos])
        rows = np.array([len(video.values) for video in videos])
        starts = tuple(np.sort(video.segments[:, 0]) for video in videos)
        return cls(videos[0].values.shape[1], classes, lengths, rows, starts, step_s, overlap)

    def most_within(self, rows: int) -> int:
        """Most segments that begin within so many rows of one another."""
        counts = [np.searchsorted(s, s + rows, "right") - np.arange(len(s)) for s in self.starts if len(s)]
        return max(int(count.max()) for count in counts)


@dataclass(frozen=True)
class Plan:
    """How a head is trained: its network's configuration, schedule, further options, decoding, and why.

    `published`: what the authors report for these settings, where there is such a report.
    """

    config: Any
    schedule: Schedule
    options: dict[str, Any]
    decoding: dict[str, Any] = field(default_factory=dict)
    reasons: tuple[str, ...] = ()
    published: Published | None = None

    def to_json(self) -> dict[str, Any]:
        """Everything that decides the result, as JSON values."""
        return {"network": asdict(self.config), "schedule": asdict(self.schedule), "options": self.options}


class Recipe(Protocol):
    """What `vidtad train` needs of a head that reads features."""

    presets: Mapping[str, FeatureKind]
    """Names of published settings, and the features they read."""
    fuses_geometric: bool
    """Whether scores of whole videos meet its own as the square root of the product; else as the product."""
    one_class_note: str
    """What training leaves out when there is a single class; empty where it is nothing."""

    def kinds(self, preset: str) -> Sequence[FeatureKind]:
        """Features that the released models of a preset read, where several were released."""

    def agnostic(self, preset: str | None) -> bool:
        """Whether all classes are one, which one being left to a classifier of whole videos."""

    def plan(self, facts: Facts, preset: str | None) -> Plan:
        """Settings of a preset, or scaled to `facts`."""

    def head(self, plan: Plan, videos: Sequence[TrainingVideo]) -> Head:
        """The head over its training data; draws its weights from torch's global generator."""


def with_options(plan: Plan, asked: Mapping[str, Any]) -> Plan:
    """The plan with some of its options as asked; of `losses` single entries may be given. Raises InputError."""
    unknown = sorted(asked.keys() - plan.options.keys())
    losses = asked.get("losses", {})
    own = plan.options.get("losses", {})
    known = own.keys()
    wrong = unknown or (sorted(losses.keys() - known) if isinstance(losses, Mapping) else ["losses"])
    if wrong:
        raise InputError(
            f"training options {', '.join(wrong)}: this model takes {', '.join(plan.options) or 'none'}"
            f"{', and of losses ' + ', '.join(own) if own else ''}"
        )
    if not asked:
        return plan
    merged = {**plan.options, **asked, **({"losses": {**own, **losses}} if own else {})}
    return replace(plan, options=merged, reasons=(*plan.reasons, f"as asked: {', '.join(sorted(asked))}"))


def planned(
    recipe: Recipe, facts: Facts, preset: str | None, epochs: int | None, device: str, precision: str = "auto"
) -> Plan:
    """The recipe's plan with the user's number of epochs and `precision` (see `learns_in`).

    Raises InputError for an unknown preset or precision.
    """
    if preset is not None and preset not in recipe.presets:
        known = ", ".join(recipe.presets)
        raise InputError(f"--preset {preset}: there is no such recipe for this model; there is {known}")
    plan = recipe.plan(facts, preset)
    schedule = plan.schedule
    if epochs is not None:
        scale = epochs / schedule.epochs
        drops = tuple(max(1, round(epoch * scale)) for epoch in schedule.drop_epochs)
        warmup = schedule.warmup_epochs * scale
        schedule = replace(schedule, epochs=epochs, drop_epochs=drops, warmup_epochs=warmup)
        options = dict(plan.options)
        if options.get("contrastive_epochs"):
            options["contrastive_epochs"] = min(round(options["contrastive_epochs"] * scale), epochs - 1)
        plan = replace(plan, options=options)
    schedule = replace(schedule, precision=learns_in(precision, device, preset))
    how = f"{schedule.epochs} epochs{', as asked' if epochs is not None else ''}, learning rate {schedule.lr:g}"
    return replace(plan, schedule=schedule, reasons=(*plan.reasons, how))
