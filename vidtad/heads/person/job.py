"""What training of a person head was asked."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vidtad.errors import InputError
from vidtad.extractors.keyframes import KeyframeConvention
from vidtad.heads.person.training import Augmentation
from vidtad.models.people_losses import TransformerLosses
from vidtad.training.loop import Schedule, learns_in


@dataclass(frozen=True)
class PeopleJob:
    """What training was asked.

    `annotations`: AVA rows, see `formats.person_labels`; `label_map`: names of their numbers. `trunk`: a name of
    `person_presets.TRUNKS` (None: that of `start`, else SlowFast, for the Action Transformer I3D). `start`: a
    bundle to go on from (its trunk, and its head where that is of the same kind and size); for `acfb` also a
    trained `acar` bundle, which then fills the bank (trunk and bank stay as they are while the head learns).
    `weights`: of the trunk instead: a file, a checkpoint id, `random` or `random:SEED`; None without a `start`: that
    of `starting.PRETRAINED`. `config`: the head's, for other sizes than the published or those of `start`.
    `schedule`: None for one scaled to the data. `convention`: None for the trunk's. `freeze_trunk`: only the head
    learns. `preset`: a name of `recipes.PEOPLE_PRESETS`, for what is None of schedule, augmentation and, without a
    `start`, trunk and config. `losses`: sampling and weights, of the Action Transformer (None: published ones).
    `val_fraction`: share of the videos to hold out. `precision`: see `learns_in`; `auto` is float32. Raises InputError
    for an unknown one, for bf16 on a CPU, and for a share outside 0 to 1.
    """

    annotations: Path
    videos: Path
    out: Path
    model: str = "linear"
    trunk: str | None = None
    start: Path | None = None
    weights: str | None = None
    label_map: Path | None = None
    config: Any = None
    convention: KeyframeConvention | None = None
    schedule: Schedule | None = None
    augmentation: Augmentation | None = None
    preset: str | None = None
    losses: TransformerLosses | None = None
    epochs: int | None = None
    batch: int = 8
    val_fraction: float = 0.2
    freeze_trunk: bool = False
    seed: int = 0
    device: str = "cpu"
    precision: str = "auto"

    def __post_init__(self) -> None:
        if not 0 <= self.val_fraction < 1:
            raise InputError(f"--val-fraction {self.val_fraction:g}: a share of the videos lies between 0 and 1")
        lower = learns_in(self.precision, self.device) != "float32"
        if lower and self.device == "cpu":
            raise InputError("people learn in bf16 on a GPU alone: on a CPU, PyTorch's gradients of 3D maps may be NaN")

    @property
    def work(self) -> Path:
        """Folder of checkpoints, the log and banks: a second run goes on where the first one stopped."""
        return self.out.with_name(self.out.name + ".work")
