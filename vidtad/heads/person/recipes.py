"""Published recipes of person-box heads: trunk, head, schedule and augmentation of each."""

import difflib
from dataclasses import dataclass, replace
from typing import Any

from vidtad.errors import InputError
from vidtad.heads.person.training import Augmentation
from vidtad.models.acar import AcarConfig
from vidtad.models.action_transformer import ActionTransformerConfig
from vidtad.training.loop import Schedule


@dataclass(frozen=True)
class PeoplePreset:
    """A recipe: the head `model` of `config` on `trunk`, learning by `schedule` from clips changed by `augmentation`.

    Number of classes, and the width of the maps, are those of the data and of the trunk in use.
    """

    model: str
    trunk: str
    config: Any
    schedule: Schedule
    augmentation: Augmentation


_ACAR = Schedule(
    epochs=5, lr=0.064, weight_decay=1e-7, optimiser="sgd", warmup_epochs=1, warmup_start=0.125, drop_epochs=(4.6, 4.8)
)
ACAR_R50 = PeoplePreset(
    "acar",
    "slowfast/acar-r50",
    AcarConfig(depth=2, mlp_1x1=False),
    replace(_ACAR, epochs=6, drop_epochs=(5.6, 5.8)),
    Augmentation(),
)
"""ACAR R50 as released for AVA; rates are for 32 clips a batch (Chen et al., 2020, the AVA-Kinetics report)."""
ACAR_R101 = PeoplePreset("acar", "slowfast/acar-r101", AcarConfig(), _ACAR, Augmentation())
"""ACAR R101 as released for AVA; rates are for 32 clips a batch."""
ACTION_TRANSFORMER = PeoplePreset(
    "action-transformer",
    "i3d/ava",
    ActionTransformerConfig(),
    Schedule(
        epochs=60, lr=0.1, weight_decay=1e-7, optimiser="sgd", decay="cosine", warmup_epochs=0.12, warmup_start=0.1
    ),
    Augmentation(jitter=0.0, crop=(0.5, 1.0)),
)
"""Girdhar et al., 2019, section 4; rates are for 30 clips a batch, 500 000 iterations are about 60 epochs of AVA."""

PEOPLE_PRESETS = {"acar-r50": ACAR_R50, "acar-r101": ACAR_R101, "action-transformer": ACTION_TRANSFORMER}


def find_preset(name: str) -> PeoplePreset:
    """The preset called `name`. Raises InputError naming the nearest ones."""
    if name in PEOPLE_PRESETS:
        return PEOPLE_PRESETS[name]
    near = difflib.get_close_matches(name, PEOPLE_PRESETS, n=1, cutoff=0.5) or list(PEOPLE_PRESETS)
    raise InputError(f"no preset of people is called {name!r}; did you mean {', '.join(near)}?")


def shortened(schedule: Schedule, epochs: int) -> Schedule:
    """`schedule` over so many epochs instead: its warm-up and drops lie at the same shares of it."""
    share = epochs / schedule.epochs
    drops = tuple(share * epoch for epoch in schedule.drop_epochs)
    return replace(schedule, epochs=epochs, warmup_epochs=share * schedule.warmup_epochs, drop_epochs=drops)
