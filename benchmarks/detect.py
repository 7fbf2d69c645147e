"""Detection from features: seconds and memory, one JSON line per case.

    python benchmarks/detect.py                          all cases
    python benchmarks/detect.py --cases growth --minutes 10 60

Heads have their THUMOS14 sizes and seeded weights; features are drawn, written to a file and memory-mapped, as
`vidtad detect` reads them. Each job runs in a process of its own, contenders taking turns `--rounds` times. `extra_mib`
is the largest growth of the process's own memory (pages of the feature file left out) during a first run, sampled every
few milliseconds; `seconds` is processor time, the best of all runs.

growth     both heads at 10 minutes, 1 hour and 3 hours. The last line of a head is the growth of seconds and memory
           from the shortest to the longest as a multiple of the growth in length (1 is linear, 0 is none).
steps      ActionFormer at 2,304 and 20,000 steps against `plain`: the same network as one would write it at first, a
           whole video in one pass, convolutions of PyTorch, and local attention over keys and values gathered by
           `unfold`; and in bf16, with the largest difference of a score that makes.
attention  local attention alone, one layer, against the gathering one.
windows    ReAct over one hour, 16 windows at a time, against window by window.
suppress   Soft-NMS of 2,000 and 20,000 candidates in one pool or in 20 classes, 200 kept, against a compiled loop
           (numba, if it is there): to the end and cut afterwards, as in ActionFormer's extension, or `stopped` at 200.

`ratio` of seconds is baseline / ours (above 1 is faster), of memory ours / baseline (below 1 is less).
"""

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

ROWS_A_MINUTE = {"actionformer": 450, "react": 360}
WIDTH, HEADS, RADIUS = 512, 4, 9
KEPT = 200


def own_memory() -> int:
    """Bytes of this process that belong to no file."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) << 10
    raise SystemExit("this benchmark needs Linux")


def measured(job: Callable[[], Any], repeats: int) -> dict[str, float]:
    """Memory above what was there before, in a first run, and processor seconds of the best of some more."""
    before = peak = own_memory()
    done = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.003):
            peak = max(peak, own_memory())

    watcher = threading.Thread(target=watch)
    watcher.start()
    job()
    done.set()
    watcher.join()
    best = float("inf")
    for _ in range(repeats):
        start = time.process_time()
        job()
        best = min(best, time.process_time() - start)
    return {"seconds": round(best, 3), "extra_mib": round((peak - before) / 2**20, 1)}


def unfolded_attention(query: Any, key: Any, value: Any, valid: Any, heads: int, radius: int, bias: Any = None) -> Any:
    """Local attention with the keys and values of every window gathered in memory."""
    import torch
    from torch.nn import functional as F

    batch, length, width = query.shape
    pad, span = (0, 0, radius, radius), 2 * radius + 1
    split = (batch, length, heads, width // heads)
    keys, values = (F.pad(x, pad).unfold(1, span, 1).reshape(*split, span) for x in (key, value))
    outside = F.pad(valid, pad).unfold(1, span, 1) == 0
    scores = torch.einsum("bthd,bthdw->bthw", query.reshape(split) * split[-1] ** -0.5, keys)
    shares = scores.masked_fill(outside.unsqueeze(2).squeeze(3), -1e4).softmax(-1)
    return torch.einsum("bthw,bthdw->bthd", shares, values).reshape(batch, length, width)


def plain_convolution(self: Any, x: Any, stride: int = 1) -> Any:
    """A convolution of PyTorch over (B, T, C)."""
    from torch.nn import functional as F

    moved = x.transpose(1, 2)
    return F.conv1d(moved, self.weight, self.bias, stride=stride, padding=self.padding, groups=self.groups).transpose(
        1, 2
    )


def detector(head: str, precision: str = "float32") -> Any:
    """A detector of released size with seeded weights."""
    import torch

    from vidtad.heads.registry import load_detector
    from vidtad.hub.bundle import Bundle
    from vidtad.models.actionformer import ActionFormer
    from vidtad.models.react import ReAct

    torch.manual_seed(0)
    network = ActionFormer() if head == "actionformer" else ReAct()
    if head == "actionformer":
        network.set_prior(0.05)
    bundle = Bundle(
        name="seeded",
        head=head,
        head_config={},
        classes=tuple(f"class {number}" for number in range(20)),
        extractor="none",
        sampling={"window": 16, "stride": 4},
        channels=(("rgb", 1024), ("flow", 1024)),
        head_weights=network.state_dict(),
    )
    return load_detector(bundle, "cpu", precision)


def network_job(kind: str, values: np.ndarray) -> Callable[[], Any]:
    """`actionformer`, `react`, or ways to run them: `plain`, `half` (bf16), `single` (window by window)."""
    made = detector("react" if kind in ("react", "single") else "actionformer", "bf16" if kind == "half" else "float32")
    if kind == "single":
        made.batch = 1
    if kind == "plain":
        from vidtad.heads.actionformer import detector as actionformer_head
        from vidtad.models import actionformer

        actionformer.local_attention = unfolded_attention
        actionformer.Convolution.forward = plain_convolution  # type: ignore[method-assign]
        made.piece = actionformer.SLICE = actionformer_head.ROWS = 1 << 40
    made(np.asarray(values[:300]))  # lazy initialisation is no part of the job
    return lambda: made(values)


def attention_job(kind: str, rows: int) -> Callable[[], Any]:
    import torch

    from vidtad.models.local_attention import local_attention

    attend = unfolded_attention if kind == "unfolded" else local_attention
    torch.manual_seed(0)
    parts = [torch.randn(1, rows, WIDTH) for _ in range(3)]
    valid = torch.ones(1, rows, 1)

    def attention() -> None:
        with torch.inference_mode():
            attend(*parts, valid, HEADS, RADIUS)

    return attention


def child(kind: str, rows: str, path: str, threads: int, repeats: int) -> None:
    import torch

    torch.set_num_threads(threads)
    if kind in ("attention", "unfolded"):
        job = attention_job(kind, int(rows))
    else:
        job = network_job(kind, np.load(path, mmap_mode="r")[: int(rows)])
    print(json.dumps(measured(job, repeats)))


def run(kind: str, rows: int, path: Path, arguments: argparse.Namespace) -> dict[str, float]:
    options = [kind, str(rows), str(path), str(arguments.threads), str(arguments.repeats)]
    done = subprocess.run([sys.executable, __file__, "--child", *options], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{kind}: {done.stderr[-2000:]}")
    return json.loads(done.stdout)


def raced(kinds: Sequence[str], rows: int, path: Path, arguments: argparse.Namespace) -> list[dict[str, float]]:
    """Each contender's best, in turns."""
    rounds = [[run(kind, rows, path, arguments) for kind in kinds] for _ in range(arguments.rounds)]
    return [{key: min(turn[n][key] for turn in rounds) for key in rounds[0][n]} for n in range(len(kinds))]


def written(folder: Path, rows: int, width: int = 2048) -> Path:
    """A feature file of drawn rows, written piece by piece."""
    path = folder / f"{rows}.npy"
    random = np.random.default_rng(0)
    file = np.lib.format.open_memmap(path, "w+", np.float32, (rows, width))
    for start in range(0, rows, 4096):
        count = min(4096, rows - start)
        file[start : start + count] = random.standard_normal((count, width), dtype=np.float32)
    del file
    return path


def compared(ours: dict[str, float], baseline: dict[str, float]) -> dict[str, Any]:
    ratio = {
        "seconds": round(baseline["seconds"] / ours["seconds"], 3),
        "extra_mib": round(ours["extra_mib"] / max(baseline["extra_mib"], 1), 3),
    }
    return {"ours": ours, "baseline": baseline, "ratio": ratio}


def tell(**case: Any) -> None:
    print(json.dumps(case), flush=True)


def growth(arguments: argparse.Namespace, folder: Path) -> None:
    for head, rate in ROWS_A_MINUTE.items():
        path = written(folder, max(arguments.minutes) * rate)
        found = {minutes: raced([head], minutes * rate, path, arguments)[0] for minutes in arguments.minutes}
        for minutes, ours in found.items():
            tell(case="growth", head=head, minutes=minutes, rows=minutes * rate, ours=ours)
        short, long = min(found), max(found)
        times = {key: round(found[long][key] / found[short][key] / (long / short), 3) for key in found[short]}
        tell(case="growth", head=head, linear=f"{long} min / {short} min", ratio=times)
        path.unlink()


def steps(arguments: argparse.Namespace, folder: Path) -> None:
    path = written(folder, max(arguments.steps))
    for rows in arguments.steps:
        ours, plain, half = raced(["actionformer", "plain", "half"], rows, path, arguments)
        tell(case="steps", steps=rows, **compared(ours, plain))
        tell(case="steps", steps=rows, precision="bf16", error=half_error(path, rows), **compared(half, plain))


def half_error(path: Path, rows: int) -> float:
    """Largest difference of a score in bf16, at up to 2,304 steps."""
    import torch

    from vidtad.heads.actionformer.detector import predict_points

    torch.set_num_threads(1)
    values = np.load(path, mmap_mode="r")[: min(rows, 2304)]
    single, half = (predict_points(detector("actionformer", p).network, values) for p in ("float32", "bf16"))
    return round(max(float(np.abs(a - b).max()) for a, b in zip(single.scores, half.scores, strict=True)), 5)


def attention(arguments: argparse.Namespace, folder: Path) -> None:
    for rows in arguments.steps:
        tell(case="attention", steps=rows, **compared(*raced(["attention", "unfolded"], rows, folder, arguments)))


def windows(arguments: argparse.Namespace, folder: Path) -> None:
    rows = 60 * ROWS_A_MINUTE["react"]
    path = written(folder, rows)
    tell(case="windows", rows=rows, **compared(*raced(["react", "single"], rows, path, arguments)))


def compiled_loop() -> Callable[..., Any] | None:
    """Gaussian Soft-NMS over one pool, as in ActionFormer's extension; `limit` 0 runs to the end."""
    try:
        from numba import njit
    except ImportError:
        return None

    @njit
    def loop(segments, scores, sigma, minimum, limit):  # type: ignore[no-untyped-def]
        count, bounds, score = len(scores), segments.copy(), scores.copy()
        first = 0
        while first < count and (limit == 0 or first < limit):
            best = first
            for other in range(first + 1, count):
                if score[other] > score[best]:
                    best = other
            start, end, top = bounds[best, 0], bounds[best, 1], score[best]
            bounds[best, 0], bounds[best, 1], score[best] = bounds[first, 0], bounds[first, 1], score[first]
            bounds[first, 0], bounds[first, 1], score[first] = start, end, top
            length = end - start + np.float32(1e-6)
            other = first + 1
            while other < count:
                inside = max(min(end, bounds[other, 1]) - max(start, bounds[other, 0]), np.float32(0))
                iou = inside / (length + bounds[other, 1] - bounds[other, 0] + np.float32(1e-6) - inside)
                score[other] *= np.exp(-(iou * iou) / sigma)
                if score[other] < minimum:
                    count -= 1
                    bounds[other, 0], bounds[other, 1] = bounds[count, 0], bounds[count, 1]
                    score[other] = score[count]
                else:
                    other += 1
            first += 1
        return score[:first]

    return loop


def suppress(arguments: argparse.Namespace, folder: Path) -> None:
    from vidtad.postprocess import Nms, soft_nms

    loop = compiled_loop()
    for count in (2000, 20000):
        random = np.random.default_rng(0)
        middle, half = random.uniform(0, 2304, count), np.exp(random.uniform(0, 5, count)) / 2
        segments = np.stack([middle - half, middle + half], 1).astype(np.float32)
        scores, labels = random.uniform(0, 1, count).astype(np.float32) ** 3, random.integers(0, 20, count)
        for agnostic in (True, False):
            rule = Nms(class_agnostic=agnostic, top_k=KEPT)
            pools = [np.arange(count)] if agnostic else [np.flatnonzero(labels == label) for label in range(20)]

            def theirs(limit: int, pools: Any = pools, segments: Any = segments, scores: Any = scores) -> np.ndarray:
                found = [loop(segments[p], scores[p], np.float32(0.5), np.float32(0.001), limit) for p in pools]  # type: ignore[misc]
                return np.sort(np.concatenate(found))[::-1][:KEPT]

            def ours(rule: Any = rule, segments: Any = segments, scores: Any = scores, labels: Any = labels) -> Any:
                return soft_nms(segments, scores, labels, rule).scores

            jobs: dict[str, Callable[[], Any]] = {"ours": ours}
            if loop is not None:
                jobs |= {"loop": lambda theirs=theirs: theirs(0), "stopped": lambda theirs=theirs: theirs(KEPT)}
            best = best_of(jobs)
            case = {"case": "suppress", "candidates": count, "classes": 1 if agnostic else 20, "milliseconds": best}
            if loop is not None:
                difference = float(np.abs(theirs(0) - ours()).max())
                case |= {"ratio": {name: round(best[name] / best["ours"], 2) for name in ("loop", "stopped")}}
                case |= {"largest_difference": round(difference, 8)}
            tell(**case)


def best_of(jobs: dict[str, Callable[[], Any]], times: int = 7) -> dict[str, float]:
    """Milliseconds of processor time, in turns, compilation left out."""
    best = dict.fromkeys(jobs, float("inf"))
    for turn in range(times + 1):
        for name, job in jobs.items():
            start = time.process_time()
            job()
            if turn:
                best[name] = min(best[name], round(1000 * (time.process_time() - start), 2))
    return best


CASES = {"suppress": suppress, "attention": attention, "steps": steps, "windows": windows, "growth": growth}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", choices=list(CASES), default=list(CASES))
    parser.add_argument("--minutes", type=int, nargs="+", default=[10, 60, 180])
    parser.add_argument("--steps", type=int, nargs="+", default=[2304, 20000])
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=1, help="timed runs in a process, after the one for memory")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--child", nargs=5, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        kind, rows, path, threads, repeats = arguments.child
        child(kind, rows, path, int(threads), int(repeats))
        return
    with tempfile.TemporaryDirectory() as folder:
        for name in arguments.cases:
            CASES[name](arguments, Path(folder))


if __name__ == "__main__":
    main()
