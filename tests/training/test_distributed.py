"""Two processes over Gloo must train as one."""

import json
import os
import socket
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.training.test_loop import SCHEDULE, head
from vidtad.training.distributed import Part, join, sum_gradients, sum_values
from vidtad.training.loop import Position, moved, train

# Seven windows of a data set in batches of 5 leave one process of two with nothing in the last batch.
BATCH = 5


def learner():
    made = head(batch_size=BATCH)
    made.data.windows = made.data.windows[: 2 * BATCH + 1]
    made.data.by_class = {}
    for number, window in enumerate(made.data.windows):
        for label in np.unique(window.labels).tolist():
            made.data.by_class.setdefault(label, []).append(number)
    return made


def gradients(part: Part) -> dict[str, dict[str, torch.Tensor | None]]:
    """Summed gradients of a contrastive batch, a detection batch and a last batch of a single window."""
    found = {}
    for name, epoch, index in (("contrastive", 0, 0), ("detection", 1, 0), ("rest", 1, 2)):
        made = learner()
        batch = next(iter(made.batches(epoch, 0, index, part)))
        terms = made.loss(moved(batch, torch.device("cpu")), Position(epoch, index, 1000))
        loss = sum(value for value in terms.values() if value.requires_grad)
        loss.backward()
        sum_gradients(made.network.parameters(), part)
        found[name] = {key: p.grad for key, p in made.network.named_parameters()}
        found[name]["loss"] = torch.tensor(sum_values({"loss": loss}, part)["loss"])
    return found


def process(rank: int, port: int, folder: str) -> None:
    os.environ.update(
        MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), RANK=str(rank), WORLD_SIZE="2", LOCAL_RANK=str(rank)
    )
    torch.set_num_threads(1)
    part = join()
    torch.save(gradients(part), Path(folder) / f"gradients{rank}.pt")
    train(learner(), SCHEDULE, Path(folder) / "run", seed=3)
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    made = tmp_path_factory.mktemp("two")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.spawn(process, (port, str(made)), nprocs=2)
    return made


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_gradients_are_those_of_the_joint_batch(folder: Path, rank: int) -> None:
    shared = torch.load(folder / f"gradients{rank}.pt", weights_only=True)
    for name, alone in gradients(Part()).items():
        for key, grad in alone.items():
            if grad is None:
                assert shared[name][key] is None
            else:
                torch.testing.assert_close(shared[name][key], grad, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_loss_curves_agree_and_one_process_writes(folder: Path, tmp_path: Path) -> None:
    alone = train(learner(), SCHEDULE, tmp_path, seed=3).records
    lines = (folder / "run" / "log.jsonl").read_text().splitlines()
    together = [json.loads(line) for line in lines]
    assert len(together) == len(alone)
    for a, b in zip(together, alone, strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-3)


def test_one_process_alone() -> None:
    assert join() == Part(0, 1)
    weight = torch.nn.Parameter(torch.ones(2))
    weight.grad = torch.ones(2)
    sum_gradients([weight], Part())
    assert weight.grad.tolist() == [1, 1]
