"""Optical flow by RAFT (Teed and Deng, ECCV 2020) as torchvision builds it."""

from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vidtad.errors import InputError
from vidtad.models.loading import load_exactly

CHECKPOINTS = {"raft": "raft-large", "raft-small": "raft-small"}
"""Method -> id of its published checkpoint."""
SMALLEST = 128


def network(name: str) -> nn.Module:
    """RAFT without weights: `raft` is torchvision's large network, `raft-small` its small one."""
    from torchvision.models import optical_flow

    build = {"raft": optical_flow.raft_large, "raft-small": optical_flow.raft_small}
    if name not in build:
        raise InputError(f"no RAFT is called {name!r}; there are {' and '.join(build)}")
    return build[name]()


def random_weights(name: str, seed: int = 0) -> dict[str, Tensor]:
    """Seeded weights as torchvision initialises them, for dry runs: the flow carries no meaning."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return network(name).state_dict()


class Raft:
    """A `FlowMethod` on colour pictures, 12 refinements (torchvision's default), in float32.

    Sides are padded to multiples of 8 and to 128 by repeating the border, as evenly on both sides as possible.
    Raises InputError when `weights` are not those of the network.
    """

    colour = True

    def __init__(self, name: str, weights: Mapping[str, Tensor], device: str = "cpu"):
        self.name, self.device = name, torch.device(device)
        self.network = load_exactly(network(name), weights).eval().to(self.device)

    @torch.inference_mode()
    def __call__(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """RGB uint8 (B, H, W, 3) twice -> (B, H, W, 2) float32, x then y, in pixels."""
        height, width = first.shape[1:3]
        top, bottom = _margins(height)
        left, right = _margins(width)
        flows = []
        for a, b in zip(first, second, strict=True):  # one at a time: all-pairs correlation is large
            pair = torch.from_numpy(np.stack([a, b])).to(self.device).permute(0, 3, 1, 2).float()
            pair = F.pad(pair / 127.5 - 1, (left, right, top, bottom), mode="replicate")
            flow = self.network(pair[:1], pair[1:])[-1]
            flows.append(flow[0, :, top : top + height, left : left + width].permute(1, 2, 0).cpu().numpy())
        return np.stack(flows)


def _margins(side: int) -> tuple[int, int]:
    missing = max(SMALLEST, -(-side // 8) * 8) - side
    return missing // 2, missing - missing // 2
