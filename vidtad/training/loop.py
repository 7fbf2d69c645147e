"""The training loop of every head.

    train(head, schedule, folder, *, seed=0, device="cpu", progress=..., evaluate=None) -> TrainResult

`head` is anything with the members of `Head`: it owns the network, cuts its own batches, and says what
the loss terms of a batch are. `schedule` is a `Schedule`. `folder` receives `checkpoint.pt` and `log.jsonl`;
a second call with the same arguments continues where the first one was killed and follows the same loss
curve. Heads: `vidtad.heads.react.training.ReActHead`, `vidtad.heads.actionformer.training.ActionFormerHead`.
"""

import dataclasses
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from vidtad.errors import InputError, RunError
from vidtad.extractors.stream import prefetch
from vidtad.runtime.files import atomic_write
from vidtad.training.distributed import Part, join, sum_gradients, sum_values, wait
from vidtad.training.log import Lines, read_lines


class Position(NamedTuple):
    """Where training is: epoch, batch within it, and batches since the start, all from 0."""

    epoch: int
    batch: int
    step: int


class Head(Protocol):
    """What the loop needs of a detector head."""

    @property
    def network(self) -> nn.Module:
        """What learns."""

    def identity(self) -> Any:
        """Plain JSON values: what decides the loss curve besides schedule, seed and network (data, losses)."""

    def parameters(self, lr: float) -> list[dict[str, Any]]:
        """Optimiser groups, each with its own `lr` (and `weight_decay` where it differs)."""

    def steps(self, epoch: int) -> int:
        """Batches in an epoch."""

    def batches(self, epoch: int, seed: int, first: int = 0, part: Part = Part()) -> Iterable[Any]:
        """Batches `first`, `first` + 1, ... of an epoch, as (nested) tuples of CPU tensors; of each, `part`.

        Batch i must depend on (epoch, seed, i) alone: that is what makes a resumed run equal to an unbroken
        one. Its parts together must be the batch of a single process. The loop reads two batches ahead, in a
        thread of its own.
        """

    def loss(self, batch: Any, position: Position) -> dict[str, Tensor]:
        """Named loss terms. Those with a gradient are summed and minimised, the others are only logged.

        Terms of a part are divided by counts of the joint batch, so that they add up over the parts.
        """


@runtime_checkable
class Stateful(Protocol):
    """A head whose later batches depend on more than the network, the optimiser and their position."""

    def state(self) -> dict[str, Any]:
        """What they depend on, as plain values; kept in the checkpoint."""

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take up again what `state` gave."""


Precision = Literal["float32", "bfloat16"]
LEARNING: dict[str, Precision] = {"float32": "float32", "bf16": "bfloat16"}
"""What `--precision` calls the formats a network may learn in."""


def learns_in(precision: str, device: str, preset: str | None = None) -> Precision:
    """What a network computes in while it learns (its weights are float32): `auto`, `float32` or `bf16`.

    `auto` is bf16 on a GPU, and float32 elsewhere and for presets, as they were published. Raises InputError.
    """
    if precision == "auto":
        return "bfloat16" if torch.device(device).type == "cuda" and preset is None else "float32"
    if precision not in LEARNING:
        raise InputError(f"--precision {precision}: training knows auto, {', '.join(LEARNING)}")
    return LEARNING[precision]


@dataclass(frozen=True)
class Schedule:
    """The optimiser and its learning rate over time; the defaults are ReAct on THUMOS14 as released.

    `optimiser` "sgd" is stochastic gradient descent with Nesterov's momentum. `decay` "step" multiplies the
    rate by `drop` from each epoch of `drop_epochs` on; "cosine" lowers it to `floor` (a share of it).
    `warmup_epochs`: linear rise from `warmup_start` (a share too) over so many of the epochs, batch by batch; with
    `warmup_complete` the last of these batches already has the full rate. Epochs may be fractions. `clip_norm`:
    largest norm of all gradients together (None: no limit). `ema`: decay of an exponential moving average of the
    weights, which is then what training returns. `weight_decay` is AdamW's own default, which the released
    trainer used although its configuration says 0. `checkpoint_steps`: batches between checkpoints within an
    epoch (each epoch ends with one). `evaluate_from`: first epoch after which `evaluate` is called.
    """

    epochs: int = 20
    lr: float = 2e-4
    weight_decay: float = 0.01
    decay: Literal["step", "cosine"] = "step"
    drop_epochs: tuple[float, ...] = (13,)
    drop: float = 0.1
    floor: float = 0.0
    warmup_epochs: float = 0
    warmup_start: float = 0.0
    warmup_complete: bool = False
    optimiser: Literal["adamw", "sgd"] = "adamw"
    momentum: float = 0.9
    clip_norm: float | None = None
    ema: float | None = None
    precision: Precision = "float32"
    checkpoint_steps: int = 1000
    evaluate_from: int = 0

    def __post_init__(self) -> None:
        if self.epochs < 1 or not self.lr > 0 or self.checkpoint_steps < 1:
            raise InputError(
                f"schedule: {self.epochs} epochs at learning rate {self.lr} with checkpoints every "
                f"{self.checkpoint_steps} batches; each must be positive"
            )
        if self.optimiser not in ("adamw", "sgd"):
            raise InputError(f"schedule: no optimiser is called {self.optimiser!r}; there are adamw and sgd")

    def optimiser_of(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        """The optimiser over parameter groups, each of which may have its own `lr` and `weight_decay`."""
        if self.optimiser == "adamw":
            return torch.optim.AdamW(groups, lr=self.lr, weight_decay=self.weight_decay)
        return torch.optim.SGD(
            groups, lr=self.lr, weight_decay=self.weight_decay, momentum=self.momentum, nesterov=self.momentum > 0
        )

    def factor(self, progress: float, batch: float = 0.0) -> float:
        """Multiplier of the learning rate after `progress` epochs (fractions count); `batch`: share of an epoch."""
        if progress < self.warmup_epochs:
            rise = self.warmup_epochs - (batch if self.warmup_complete else 0.0)
            return self.warmup_start + (1 - self.warmup_start) * min(progress / max(rise, 1e-9), 1.0)
        if self.decay == "cosine":
            share = (progress - self.warmup_epochs) / max(self.epochs - self.warmup_epochs, 1e-9)
            return self.floor + (1 - self.floor) * 0.5 * (1 + math.cos(math.pi * min(share, 1.0)))
        return self.drop ** sum(progress >= epoch for epoch in self.drop_epochs)


class TrainResult(NamedTuple):
    """Final weights (the moving average where there is one), on the CPU, and the log's records."""

    state: dict[str, Tensor]
    records: list[dict[str, Any]]


Report = Callable[[Mapping[str, Any]], None]


def train(
    head: Head,
    schedule: Schedule,
    folder: Path,
    *,
    seed: int = 0,
    device: str = "cpu",
    progress: Report = lambda record: None,
    evaluate: Callable[[nn.Module], Mapping[str, float]] | None = None,
) -> TrainResult:
    """Train `head.network` in place, on `device`, and return its final weights.

    Started by torchrun, processes share every batch, and the first one alone writes, evaluates and reports;
    all must see `folder`. After each batch `progress` receives the record that also goes to `log.jsonl`:
    epoch, step, steps (all), lr, loss, and every term. `evaluate` is called with the network in eval mode
    after each epoch from `schedule.evaluate_from` on; what it returns is logged in a record of its own.
    Raises InputError when `folder` holds a run with another seed, schedule or network, RunError when the loss
    is no longer finite.
    """
    run = _Run(head, schedule, Path(folder), seed, torch.device(device))
    run.resume()
    for epoch in range(run.position.epoch, schedule.epochs):
        run.epoch(epoch, progress)
        if evaluate is not None and epoch >= schedule.evaluate_from:
            run.evaluate(epoch, evaluate, progress)
        run.position = Position(epoch + 1, 0, run.position.step)
        run.save()
    run.finish()
    return TrainResult({key: value.cpu() for key, value in run.weights().items()}, run.records)


class _Run:
    """One training run and its files."""

    def __init__(self, head: Head, schedule: Schedule, folder: Path, seed: int, device: torch.device):
        self.head, self.schedule, self.folder, self.seed, self.device = head, schedule, folder, seed, device
        self.part = join()
        torch.manual_seed(seed)
        head.network.to(device)
        groups = head.parameters(schedule.lr)
        self.optimiser = schedule.optimiser_of(groups)
        self.base_lrs = [group["lr"] for group in self.optimiser.param_groups]
        self.average = _copy(head.network.state_dict()) if schedule.ema else None
        self.position = Position(0, 0, 0)
        self.records: list[dict[str, Any]] = []
        self.log_file = Lines(self.folder / "log.jsonl", self.records)
        self.total = sum(head.steps(epoch) for epoch in range(schedule.epochs))

    def weights(self) -> dict[str, Tensor]:
        return self.average if self.average is not None else _copy(self.head.network.state_dict())

    def identity(self) -> str:
        """What must be equal for a checkpoint to continue this run."""
        shapes = {key: list(value.shape) for key, value in self.head.network.state_dict().items()}
        parts = (dataclasses.asdict(self.schedule), self.seed, self.total, shapes, self.head.identity())
        return json.dumps(parts, sort_keys=True)

    def epoch(self, epoch: int, progress: Report) -> None:
        self.head.network.train()
        first = self.position.batch
        for index, batch in enumerate(prefetch(self.batches(epoch, first), depth=2), first):
            record = self.step(batch, Position(epoch, index, self.position.step))
            self.position = Position(epoch, index + 1, self.position.step + 1)
            self.log(record, progress)
            if (index + 1) % self.schedule.checkpoint_steps == 0:
                self.save()

    def batches(self, epoch: int, first: int) -> Iterator[Any]:
        """Batches as they will be wanted, in memory that a GPU copies from by itself; read beside the network."""
        for batch in self.head.batches(epoch, self.seed, first, self.part):
            yield changed(batch, Tensor.pin_memory) if self.device.type == "cuda" else batch

    def step(self, batch: Any, position: Position) -> dict[str, Any]:
        """One update of the weights; the log record of it."""
        batch_share = 1 / self.head.steps(position.epoch)
        factor = self.schedule.factor(position.epoch + position.batch * batch_share, batch_share)
        for group, lr in zip(self.optimiser.param_groups, self.base_lrs, strict=True):
            group["lr"] = lr * factor
        lower = self.schedule.precision == "bfloat16"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=lower):
            terms = self.head.loss(moved(batch, self.device), position)
        loss = torch.stack([value.float() for value in terms.values() if value.requires_grad]).sum()
        values = sum_values({"loss": loss, **terms}, self.part)
        if not math.isfinite(values["loss"]):
            raise RunError(
                f"training diverged: the loss is {values['loss']} in epoch {position.epoch}, batch {position.batch}; "
                "try a lower learning rate or a gradient norm limit"
            )
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        sum_gradients(self.head.network.parameters(), self.part)
        if self.schedule.clip_norm:
            norm = nn.utils.clip_grad_norm_(self.head.network.parameters(), self.schedule.clip_norm)
            values["grad_norm"] = float(norm)
        self.optimiser.step()
        self.update_average()
        place = {"epoch": position.epoch, "step": position.step, "steps": self.total}
        return {**place, "lr": self.schedule.lr * factor, **values}

    def update_average(self) -> None:
        if self.average is None or self.schedule.ema is None:
            return
        for key, value in self.head.network.state_dict().items():
            if value.is_floating_point():
                self.average[key].lerp_(value, 1 - self.schedule.ema)
            else:
                self.average[key].copy_(value)

    def evaluate(self, epoch: int, evaluate: Callable[[nn.Module], Mapping[str, float]], progress: Report) -> None:
        """Score the weights that would be returned now, then put the trained ones back."""
        network = self.head.network
        trained = _copy(network.state_dict())
        network.load_state_dict(self.weights())
        network.eval()
        with torch.no_grad():
            found = dict(evaluate(network)) if not self.part.rank else {}
        wait(self.part)
        network.load_state_dict(trained)
        record = {"epoch": epoch, "step": self.position.step, "steps": self.total, "evaluation": found}
        self.log(record, progress)

    def log(self, record: dict[str, Any], progress: Report) -> None:
        self.records.append(record)
        if self.part.rank:
            return
        self.log_file.add()
        progress(record)

    def save(self) -> None:
        """Write the checkpoint: everything the next batch depends on."""
        if self.part.rank:
            return
        checkpoint = {
            "identity": self.identity(),
            "position": list(self.position),
            "records": len(self.records),
            "network": self.head.network.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "average": self.average,
            "head": self.head.state() if isinstance(self.head, Stateful) else {},
            "random": torch.get_rng_state(),
            "random_cuda": torch.cuda.get_rng_state_all() if self.device.type == "cuda" else [],
        }
        with atomic_write(self.folder / "checkpoint.pt") as file:
            torch.save(checkpoint, file)

    def finish(self) -> None:
        """See that log and checkpoint are whole: the folder may have been removed meanwhile."""
        if self.part.rank:
            return
        self.log_file.check()
        if not (self.folder / "checkpoint.pt").exists():
            self.save()

    def resume(self) -> None:
        """Continue from the checkpoint of the folder, if there is one."""
        path = self.folder / "checkpoint.pt"
        if not path.exists():
            wait(self.part)
            if not self.part.rank:
                self.log_file.write()
            return
        try:
            saved = torch.load(path, map_location="cpu", weights_only=True)
            identity = saved["identity"]
        except Exception as error:
            raise InputError(f"{path}: not a checkpoint of vidtad; remove it to start again") from error
        if identity != self.identity():
            raise InputError(
                f"{self.folder}: holds a run with another seed, schedule, data set or network; "
                "choose another folder or remove it"
            )
        self.head.network.load_state_dict(saved["network"])
        self.optimiser.load_state_dict(saved["optimiser"])
        if self.average is not None:
            self.average = {key: value.to(self.device) for key, value in saved["average"].items()}
        if isinstance(self.head, Stateful):
            self.head.load_state(saved["head"])
        self.position = Position(*saved["position"])
        torch.set_rng_state(saved["random"])
        if self.device.type == "cuda" and saved["random_cuda"]:
            torch.cuda.set_rng_state_all(saved["random_cuda"])
        # Batches after the checkpoint are done again: their lines would appear twice.
        self.records[:] = read_lines(self.log_file.path)[: saved["records"]]
        wait(self.part)
        if not self.part.rank:
            self.log_file.write()


def moved(batch: Any, device: torch.device) -> Any:
    """A nested (named) tuple with every tensor on `device`."""
    return changed(batch, lambda tensor: tensor.to(device, non_blocking=True))


def changed(batch: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """A nested (named) tuple with every tensor changed."""
    if isinstance(batch, Tensor):
        return change(batch)
    if isinstance(batch, tuple):
        parts = [changed(part, change) for part in batch]
        return type(batch)(*parts) if hasattr(batch, "_fields") else tuple(parts)
    return batch


def _copy(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key: value.detach().clone() for key, value in state.items()}
