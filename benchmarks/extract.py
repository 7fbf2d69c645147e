"""Features and people: what `vidtad extract` and `vidtad detect` run against a plain loop, one JSON line a case.

    python benchmarks/extract.py --threads 1                        every case
    python benchmarks/extract.py --threads 1 --cases i3d-stride-4 tsn --height 720
    python benchmarks/extract.py --threads 1 --out benchmarks/results/extract-cpu.json

`ours` is `extract_file` on a whole video, files written and hashed included, or `PeopleDetector` on it. `plain_loop`
is what one would write with PyAV and PyTorch: for every window seek to the keyframe before it, decode up to its end,
resize, and run the published network in float32, norms not folded, batch 1; TV-L1 by OpenCV for each pair of the
window. Of its windows `--windows`, evenly spread, are run: the others cost the same. `unshared` (the `prefix` cases) is
ours without the layers that neighbouring windows share; ours shares them there at any stride, as it else does up to 6.

Both run in processes of their own, turn by turn, `--rounds` times; the quickest round of each counts. Weights are
seeded and random. The video is made for the run: a camera over a texture, 30 frames a second, H.264, a keyframe every
250.

`ratio` compares processor seconds a window, all threads together; on a machine that others use, `ratio_wall`, of
elapsed seconds, says little. `difference`: the largest one between rows (or scores), relative to the largest value.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from machine import machine
from plain import FPS, PEOPLE, PlainExtraction, PlainPeople, acar_bundle, write_boxes, write_movie


@dataclass(frozen=True)
class Case:
    """An extractor, or "acar", on `frames` frames; `stride` None is the preset's own."""

    extractor: str
    frames: int
    stride: int | None = None
    precision: str = "float32"
    baseline: str = "plain_loop"


CASES = {
    "i3d-stride-4": Case("i3d", 140, 4),
    "i3d-stride-16": Case("i3d", 400, 16),
    "i3d-stride-4-bf16": Case("i3d", 140, 4, "bf16"),
    "i3d-stride-16-bf16": Case("i3d", 400, 16, "bf16"),
    "tsn": Case("tsn", 1024),
    "tsn-thumos14": Case("tsn/thumos14", 400),
    "slowfast": Case("slowfast/epic", 176),
    "slowfast-bf16": Case("slowfast/epic", 176, None, "bf16"),
    "r2plus1d": Case("r2plus1d/tsp", 256),
    "two-stream-stride-4": Case("i3d+i3d/flow", 61, 4),
    "two-stream-stride-16": Case("i3d+i3d/flow", 97, 16),
    "acar": Case("acar", 1800),
    "acar-bf16": Case("acar", 1800, None, "bf16"),
    "tiny3d": Case("tiny3d", 96),
    "prefix-stride-4": Case("i3d", 140, 4, baseline="unshared"),
    "prefix-stride-8": Case("i3d", 200, 8, baseline="unshared"),
}


class Extraction:
    """Ours: the whole video to a feature file. `shared` False leaves the shared prefix of I3D out."""

    def __init__(self, case: Case, path: Path, options: argparse.Namespace, shared: bool = True):
        from vidtad.models import i3d_windows
        from vidtad.models.i3d import InceptionI3d
        from vidtad.pipelines.extract.load import load_extractor
        from vidtad.runtime.malloc import keep_freed_memory

        keep_freed_memory()
        if case.baseline == "unshared":
            i3d_windows.WIDEST_STRIDE = case.stride or i3d_windows.WIDEST_STRIDE
        if not shared:
            InceptionI3d.window_features = lambda *_: None  # type: ignore[method-assign, assignment]
        self.path, self.batch = path, options.batch
        self.loaded = load_extractor(
            case.extractor, "random:0", stride=case.stride, fps=Fraction(FPS), precision=case.precision
        )
        self.folder = path.parent / f"{os.getpid()}"
        settings = self.loaded.extractor.convention
        pictures = np.zeros((settings.window + 1, settings.crop, settings.crop, 5), np.uint8)
        depth = 5 if "+" in case.extractor else len(settings.mean)
        self.loaded.extractor.rows(pictures[..., :depth], np.array([settings.shown]))

    def __call__(self) -> tuple[np.ndarray, np.ndarray]:
        """(numbers of the windows, their rows)."""
        from vidtad.pipelines.extract.extraction import extract_file

        made = extract_file(self.path, self.loaded, self.folder, batch=self.batch, overwrite=True)
        return np.arange(len(made.features.values)), made.features.values


class People:
    """Ours: who does what at every second of the video, boxes given."""

    def __init__(self, case: Case, path: Path):
        from vidtad.heads.person.options import PeopleOptions
        from vidtad.pipelines.detect.person_detector import PeopleDetector
        from vidtad.runtime.malloc import keep_freed_memory

        keep_freed_memory()
        boxes = path.parent / f"{path.stem}.csv"
        write_boxes(boxes, path, case.frames // FPS)
        bundle = acar_bundle()
        self.classes = list(bundle.classes)
        self.detector = PeopleDetector(bundle, PeopleOptions(boxes=boxes), "cpu", case.precision)
        self.path = path

    def __call__(self) -> tuple[np.ndarray, np.ndarray]:
        """(numbers of the keyframes, scores of the first person at each, 0 where too low to be listed)."""
        people = self.detector(self.path).people[self.path.stem]
        first = [entry for entry in people if abs(entry.box[0] - PEOPLE[0][0]) < 1e-6]
        rows = np.zeros((len(first), len(self.classes)))
        for row, entry in zip(rows, first, strict=True):
            for label, score in entry.actions:
                row[self.classes.index(label)] = score
        return np.array([round(entry.time_s) for entry in first]), rows


def contender(name: str, options: argparse.Namespace, path: Path) -> Callable[[], tuple[np.ndarray, np.ndarray]]:
    """The one of two that this process is."""
    case = case_of(options.cases[0], options)
    if case.extractor == "acar":
        return People(case, path) if name == "ours" else PlainPeople(path, case.frames, options.windows)
    if name == "plain_loop":
        return PlainExtraction(path, case.extractor, case.frames, options.windows, case.stride)
    return Extraction(case, path, options, shared=name == "ours")


def serve(name: str, options: argparse.Namespace) -> None:
    """Be a contender: a line in, a round run, its cost out."""
    import cv2
    import torch

    if options.threads:
        torch.set_num_threads(options.threads)
        cv2.setNumThreads(options.threads)
    path = Path(options.video)
    work = contender(name, options, path)
    print("ready", flush=True)
    for _ in sys.stdin:
        wall, used = time.perf_counter(), time.process_time()
        numbers, rows = work()
        cost = time.process_time() - used, time.perf_counter() - wall
        np.savez(path.parent / f"{name}.npz", numbers=numbers, rows=rows)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps({"cpu": cost[0] / len(rows), "wall": cost[1] / len(rows), "peak_mib": peak}), flush=True)


def best(rounds: list[dict[str, float]], stride: float) -> dict[str, float]:
    """The quickest round in plain words; `stride` frames a window."""
    used, wall = min(found["cpu"] for found in rounds), min(found["wall"] for found in rounds)
    return {
        "cpu_s_per_window": round(used, 4),
        "frames_per_cpu_s": round(stride / used, 2),
        "windows_per_s": round(1 / wall, 3),
        "frames_per_s": round(stride / wall, 2),
        "peak_mib": round(max(found["peak_mib"] for found in rounds)),
    }


def case_of(name: str, options: argparse.Namespace) -> Case:
    """The case, as long as asked for."""
    return replace(CASES[name], frames=options.frames or CASES[name].frames)


def stride_of(case: Case) -> int:
    """Frames from one window to the next."""
    if case.extractor == "acar":
        return FPS
    from vidtad.extractors import find

    return case.stride or find(case.extractor).convention.stride


def compare(name: str, options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Run one case both ways, turn by turn."""
    case, path = case_of(name, options), folder / f"{name}.mp4"
    write_movie(path, case.frames, options.height)
    command = [sys.executable, __file__, "--cases", name, "--video", str(path)]
    for key in ("threads", "batch", "windows", "frames"):
        if getattr(options, key) is not None:
            command += [f"--{key}", str(getattr(options, key))]
    rounds: dict[str, list[dict[str, float]]] = {"ours": [], case.baseline: []}
    processes = {}
    for side in rounds:
        asked: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        processes[side] = subprocess.Popen([*command, "--be", side], **asked)
        if processes[side].stdout.readline() != "ready\n":
            raise SystemExit(f"{name}: {side} did not start")
    for _ in range(options.rounds):
        for side, process in processes.items():
            process.stdin.write("go\n")
            process.stdin.flush()
            rounds[side].append(json.loads(process.stdout.readline()))
    for process in processes.values():
        process.stdin.close()
        process.wait()
    ours, base = (best(found, stride_of(case)) for found in rounds.values())
    return {
        "case": name,
        **{key: value for key, value in vars(case).items() if key != "baseline"},
        "height": options.height,
        "ours": ours,
        "baseline_name": case.baseline,
        "baseline": base,
        "ratio": round(base["cpu_s_per_window"] / ours["cpu_s_per_window"], 2),
        "ratio_wall": round(ours["windows_per_s"] / base["windows_per_s"], 2),
        "difference": float(f"{difference(folder, case.baseline):.1e}"),
        "threads": options.threads,
        "load": round(os.getloadavg()[0], 1),
    }


def difference(folder: Path, baseline: str) -> float:
    """Between the windows that both have run, relative to the largest value."""
    with np.load(folder / "ours.npz") as ours, np.load(folder / f"{baseline}.npz") as base:
        shared, mine, theirs = np.intersect1d(ours["numbers"], base["numbers"], return_indices=True)
        if not len(shared):
            raise SystemExit("the two have no window in common")
        left, right = ours["rows"][mine], base["rows"][theirs]
    return float(np.abs(left - right).max() / np.abs(right).max())


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="*", default=list(CASES), choices=list(CASES), metavar="CASE")
    parser.add_argument("--threads", type=int, help="of PyTorch and OpenCV in each process")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--windows", type=int, default=8, help="that the plain loop runs in a round")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--frames", type=int, help="of the video, instead of each case's own")
    parser.add_argument("--height", type=int, default=256, help="of the video in pixels")
    parser.add_argument("--out", type=Path, help="JSON file for all lines and the machine's kind")
    parser.add_argument("--be", help=argparse.SUPPRESS)
    parser.add_argument("--video", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.be:
        serve(options.be, options)
        return
    command = "python benchmarks/extract.py " + " ".join(sys.argv[1:])
    lines = []
    with tempfile.TemporaryDirectory() as folder:
        for name in options.cases:
            lines.append(compare(name, options, Path(folder)))
            print(json.dumps(lines[-1]), flush=True)
            if options.out:
                kept = {"command": command, "machine": machine(), "cases": lines}
                options.out.write_text(json.dumps(kept, indent=1) + "\n")


if __name__ == "__main__":
    main()
