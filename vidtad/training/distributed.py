"""Several processes training as one: each takes a part of every batch, gradients are summed.

Losses must be sums over a process's part divided by counts of the joint batch; then the summed gradient is
that of one process holding the whole batch, up to rounding.
"""

import os
from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import NamedTuple

import torch
from torch import Tensor, distributed, nn

PATIENCE = timedelta(days=7)
"""How long processes wait for the first one, which extracts features and evaluates alone; minutes by default."""


class Part(NamedTuple):
    """This process's place among `world` of them, counted from 0."""

    rank: int = 0
    world: int = 1


def join() -> Part:
    """Connect to the other processes that torchrun started (none without it) and say which part is ours.

    Uses NCCL where every process has its own GPU, else Gloo. Connecting twice does nothing.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1 or not distributed.is_available():
        return Part()
    if not distributed.is_initialized():
        local = int(os.environ.get("LOCAL_RANK", "0"))
        own_gpu = torch.cuda.device_count() > local
        if own_gpu:
            torch.cuda.set_device(local)
        distributed.init_process_group("nccl" if own_gpu else "gloo", timeout=PATIENCE)
    return Part(distributed.get_rank(), distributed.get_world_size())


def wait(part: Part) -> None:
    """Return once all processes are here."""
    if part.world > 1:
        distributed.barrier()


def sum_gradients(parameters: Iterable[nn.Parameter], part: Part) -> None:
    """Replace every gradient by its sum over all processes.

    A parameter without a gradient in some processes counts as zero there; one without any keeps none, so that
    the optimiser skips it everywhere alike.
    """
    if part.world == 1:
        return
    everything = [p for p in parameters if p.requires_grad]
    if not everything:
        return
    device = everything[0].device
    used = torch.tensor([p.grad is not None for p in everything], dtype=torch.int32, device=device)
    distributed.all_reduce(used, op=distributed.ReduceOp.MAX)
    chosen = [p for p, flag in zip(everything, used.tolist(), strict=True) if flag]
    if not chosen:
        return
    flat = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in chosen])
    distributed.all_reduce(flat)
    for p, grad in zip(chosen, flat.split([p.numel() for p in chosen]), strict=True):
        p.grad = grad.view_as(p)


def sum_values(values: Mapping[str, Tensor], part: Part) -> dict[str, float]:
    """Numbers by name, summed over all processes, which must hold the same names."""
    # Apple's GPUs have no doubles.
    kept = (value.detach().cpu() if value.device.type == "mps" else value.detach() for value in values.values())
    table = torch.stack([value.double() for value in kept])
    if part.world > 1:
        distributed.all_reduce(table)
    return dict(zip(values, table.tolist(), strict=True))
