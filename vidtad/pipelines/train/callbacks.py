"""Who is told how training goes: the terminal, and TensorBoard."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vidtad.errors import InputError
from vidtad.pipelines.train.scoring import Scorer
from vidtad.training.distributed import join


@dataclass(frozen=True)
class Watcher:
    """Who is told: `say` gets sentences; `progress` (stage, done, total, detail) several times a second at most."""

    say: Callable[[str], None] = lambda sentence: None
    progress: Callable[[str, int, int, str], None] = lambda stage, done, total, detail: None


def recorded(watcher: Watcher) -> tuple[Watcher, list[str]]:
    """The watcher, and a list that every sentence it is told goes to, for the report."""
    told: list[str] = []

    def say(sentence: str) -> None:
        told.append(sentence)
        watcher.say(sentence)

    return replace(watcher, say=say), told


class Board:
    """The numbers of every record as TensorBoard scalars; steps that a resumed run does again replace the old ones.

    Raises InputError when the package is not installed.
    """

    def __init__(self, folder: Path):
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise InputError("--tensorboard needs a package: pip install 'vidtad[tensorboard]'") from error
        self._open = lambda step: SummaryWriter(str(folder), purge_step=step)
        self._writer: SummaryWriter | None = None

    def __call__(self, record: Mapping[str, Any]) -> None:
        if self._writer is None:
            self._writer = self._open(record["step"])
        numbers = {name: value for name, value in record.items() if name not in ("epoch", "step", "steps")}
        for name, value in (numbers | numbers.get("evaluation", {})).items():
            if isinstance(value, int | float):
                self._writer.add_scalar(name, value, record["step"])

    def close(self) -> None:
        """Write what is left."""
        if self._writer is not None:
            self._writer.close()


def board_of(folder: Path, wanted: bool) -> Board | None:
    """The board of a run in `folder`; of several processes the first one has it."""
    return Board(folder / "tensorboard") if wanted and not join().rank else None


def reporter(watcher: Watcher, scorer: Scorer, epochs: int, board: Board | None) -> Callable[[Mapping[str, Any]], None]:
    """What the training loop calls with each record."""

    def report(record: Mapping[str, Any]) -> None:
        scorer.epoch = record["epoch"]
        if "loss" in record:
            detail = f"epoch {record['epoch'] + 1}/{epochs}, loss {record['loss']:.3f}"
            watcher.progress("training", record["step"] + 1, record["steps"], detail)
        if board is not None:
            board(record)

    return report
