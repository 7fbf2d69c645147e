"""Reading of training batches against the training step they feed, one JSON line per case.

    python benchmarks/reading.py                 24 videos of THUMOS14's size, 2,048 channels
    python benchmarks/reading.py --tiny          a few rows, to see that it runs

Features are drawn (half of them zero, as after a ReLU) and written as .npy and as compressed .npz. `read_s` and
`step_s` are processor seconds a batch, one thread: of making it, as the thread beside the network does, and of the loss
with its gradients. `share` is read_s / step_s: above 1 the network waits. `.npz` is what is read when nothing unpacks
the files beforehand, as `vidtad train` does.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vidtad.features import StoredRows
from vidtad.heads.actionformer.presets import THUMOS14_I3D
from vidtad.heads.actionformer.training import ActionFormerHead, ActionFormerSequences
from vidtad.heads.react.training import ReActHead, ReActWindows
from vidtad.models.actionformer import ActionFormer
from vidtad.models.react import THUMOS14, ReAct
from vidtad.training.loop import Position
from vidtad.training.video import TrainingVideo

CLASSES = 20


def written(folder: Path, suffix: str, rows: range, count: int, width: int) -> list[TrainingVideo]:
    """Videos of a data set, in files of one format."""
    folder.mkdir()
    videos = []
    for number in range(count):
        random = np.random.default_rng(number)
        values = random.normal(size=(int(random.integers(rows.start, rows.stop)), width)).clip(0).astype(np.float32)
        path = folder / f"{number}{suffix}"
        if suffix == ".npy":
            np.save(path, values)
        else:
            np.savez_compressed(path, feats=values)
        segments = np.sort(random.uniform(0, len(values), (10, 2)), axis=1)
        stored: Any = StoredRows(path)
        videos.append(TrainingVideo(path.stem, stored, segments, random.integers(0, CLASSES, 10)))
    return videos


def heads(videos: list[TrainingVideo], tiny: bool) -> dict[str, Callable[[], Any]]:
    """What is trained, by case."""
    width = videos[0].values.shape[1]
    network = replace(THUMOS14_I3D.network, in_channels=width)
    react = replace(THUMOS14, in_channels=width)
    if tiny:
        network = replace(network, width=16, heads=2, windows=3, max_len=64, ranges=((0, 4), (4, 8), (8, 1e4)))
        react = replace(react, width=16, heads=4, feed_forward=32, queries=6)

    def reacting(epochs: int) -> ReActHead:
        return ReActHead(ReAct(react), ReActWindows(videos, 256, 0.25), contrastive_epochs=epochs)

    return {
        "actionformer": lambda: ActionFormerHead(ActionFormer(network), ActionFormerSequences(videos, network)),
        "react": lambda: reacting(0),
        "react-contrastive": lambda: reacting(1),
    }


def measured(head: Any, batches: int) -> tuple[float, float]:
    """Processor seconds of reading a batch, and of a step."""
    begun, count = time.process_time(), 0
    for batch in islice(head.batches(0, 0), batches):
        count, last = count + 1, batch
    read = (time.process_time() - begun) / count
    begun = time.process_time()
    terms = head.loss(last, Position(0, 0, 1000))
    torch.stack([value for value in terms.values() if value.requires_grad]).sum().backward()
    return read, time.process_time() - begun


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true")
    tiny = parser.parse_args().tiny
    torch.set_num_threads(1)
    rows, count, width = (range(80, 90), 4, 32) if tiny else (range(900, 2300), 24, 2048)
    with tempfile.TemporaryDirectory() as folder:
        for suffix in (".npy", ".npz"):
            videos = written(Path(folder) / suffix[1:], suffix, rows, count, width)
            for case, make in heads(videos, tiny).items():
                read, step = measured(make(), 8)
                line = {"case": case, "files": suffix, "read_s": round(read, 4), "step_s": round(step, 4)}
                print(json.dumps(line | {"share": round(read / step, 4)}), flush=True)


if __name__ == "__main__":
    main()
