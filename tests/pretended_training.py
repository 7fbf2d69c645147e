"""Losses of a few steps of training on a device, by head and precision, as JSON.

python tests/pretended_gpu.py tests/pretended_training.py cuda FOLDER
"""

import json
import sys
from pathlib import Path

import torch

from tests.heads.actionformer import test_training as test_actionformer
from tests.heads.person import test_training as test_people
from tests.training import test_loop
from vidtad.training.loop import Schedule, train

PEOPLE = ("acar", "acfb", "action-transformer")


def losses(device: str, folder: Path) -> dict[str, list[float]]:
    """By "react float32", "react bfloat16", ...; videos and checkpoints are left in `folder`."""
    data = test_people.keyframes(folder)
    makers = {"react": test_loop.head, "actionformer": test_actionformer.head}
    makers |= {name: lambda name=name: test_people.head(name, data) for name in PEOPLE}
    found = {}
    for name, make in makers.items():
        for precision in ("float32",) if name in PEOPLE else ("float32", "bfloat16"):
            torch.manual_seed(0)
            schedule = Schedule(epochs=2 if name == "react" else 1, lr=1e-3, precision=precision)
            run = train(make(), schedule, folder / name / precision, device=device)
            found[f"{name} {precision}"] = [record["loss"] for record in run.records]
    return found


if __name__ == "__main__":
    print(json.dumps(losses(sys.argv[1], Path(sys.argv[2]))))
