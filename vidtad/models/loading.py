"""Putting a checkpoint into a network so that no tensor is missing and none is left over; random weights."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from vidtad.errors import InputError

# Counts training steps, plays no part in evaluation, and is absent from files written before PyTorch 0.4.1.
STEP_COUNTER = "num_batches_tracked"


def load_exactly(module: nn.Module, state_dict: Mapping[str, Tensor], ignore: tuple[str, ...] = ()) -> nn.Module:
    """Copy `state_dict` into `module` and return it; keys that start with one of `ignore` are dropped.

    Every other key must be used and every tensor of the module filled, with equal shapes (batch-norm step
    counters may be absent or extra). Raises InputError listing what is missing, unused or of another shape.
    """
    given = {key: value for key, value in state_dict.items() if not key.startswith(ignore)}
    own = module.state_dict()
    missing = [key for key in own if key not in given and not key.endswith(STEP_COUNTER)]
    unused = [key for key in given if key not in own and not key.endswith(STEP_COUNTER)]
    shapes = [
        f"{key} {list(given[key].shape)} instead of {list(own[key].shape)}"
        for key in own
        if key in given and given[key].shape != own[key].shape
    ]
    problems = [
        f"{title}: {_abridged(names)}"
        for title, names in (("missing", missing), ("unused", unused), ("of another shape", shapes))
        if names
    ]
    if problems:
        name = type(module).__name__
        raise InputError(
            f"these weights are not those of {name} ({'; '.join(problems)}): use a checkpoint of this network"
        )
    module.load_state_dict({key: given[key] for key in own if key in given}, strict=False)
    return module


def _abridged(names: list[str], most: int = 8) -> str:
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


def random_state(network: nn.Module, seed: int = 0) -> dict[str, Tensor]:
    """Seeded random weights for a network, the same on every machine with the same PyTorch.

    Drawn at fan-in scale (He et al., 2015), norms neutral, so that activations neither vanish nor overflow. What
    comes out carries no meaning: for dry runs and tests.
    """
    generator = torch.Generator().manual_seed(seed)
    weights = network.state_dict()
    for key, tensor in weights.items():
        if key.endswith("weight") and tensor.ndim >= 2:
            weights[key] = torch.randn(tensor.shape, generator=generator) * (2.0 / tensor[0].numel()) ** 0.5
        elif key.endswith("bias"):
            weights[key] = torch.zeros_like(tensor)
    return weights
