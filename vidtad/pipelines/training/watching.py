"""Who is told how training goes: the terminal, and TensorBoard."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vidtad.errors import InputError
from vidtad.pipelines.training.scoring import Scorer
from vidtad.training.distributed import join


@dataclass(frozen=True)
class Watcher:
    """Who is told: `say` gets sentences; `progress` (stage, done, total, detail) several times a second at most."""

    say: Callable[[str], None] = lambda sentence: None
    progress: Callable[[str, int, int, str], None] = lambda stage, done, total, detail: None


class Board:
    """The numbers of every record as TensorBoard scalars; steps that a resumed run does again replace the old ones.

    Raises InputError when the package is not installed.
    """

    def __init__(self, folder: Path, first: int):
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise InputError("--tensorboard needs a package: pip install 'vidtad[tensorboard]'") from error
        self.writer = SummaryWriter(str(folder), purge_step=first)

    def __call__(self, record: Mapping[str, Any]) -> None:
        numbers = record.get("evaluation") or {k: v for k, v in record.items() if k not in ("epoch", "step", "steps")}
        for name, value in numbers.items():
            if isinstance(value, int | float):
                self.writer.add_scalar(name, value, record["step"])
        if "evaluation" in record:  # an epoch is done
            self.writer.flush()

    def close(self) -> None:
        """Write what is left."""
        self.writer.close()


def board_of(folder: Path, wanted: bool) -> Board | None:
    """The board of a run in `folder`, from the step on which it goes on; of several processes the first has it."""
    if not wanted or join().rank:
        return None
    log = folder / "log.jsonl"
    return Board(folder / "tensorboard", len(log.read_text(encoding="utf-8").splitlines()) if log.exists() else 0)


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
