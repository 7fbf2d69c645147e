"""Detection from features: seconds and memory by length of the video, one JSON line per case.

    python benchmarks/detect.py                          both heads at 10 minutes, 1 hour and 3 hours
    python benchmarks/detect.py --minutes 10 --heads actionformer

Heads have their THUMOS14 sizes and seeded weights; features are drawn, written to a file and memory-mapped, as
`vidtad detect` reads them. Each job runs in a process of its own. `extra_mib` is the largest growth of the process's
own memory (pages of the feature file left out) during a first run, sampled every few milliseconds; `seconds` is
processor time, the best of `--repeats` more.

Baselines, in the same run:
`attention`  local attention alone, one layer over the whole video, against the usual way to write it: keys and
             values of every window gathered by `unfold`.
`network`    ActionFormer over the whole video in one pass with that attention and nothing computed in pieces, up
             to `--baseline-minutes`.
`linear`     3 hours against 10 minutes: growth of seconds and memory as a multiple of growth in length (1 is linear).

`ratio` of seconds is baseline / ours (above 1 is faster), of memory ours / baseline (below 1 is less).
"""

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

ROWS_A_MINUTE = {"actionformer": 450, "react": 360, "attention": 450}
WIDTH, HEADS, RADIUS = 512, 4, 9


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


def detector(head: str) -> Any:
    """A detector of released size with seeded weights."""
    import torch

    from vidtad.bundle import Bundle
    from vidtad.models.actionformer import ActionFormer
    from vidtad.models.react import ReAct
    from vidtad.pipelines.temporal import load_detector

    torch.manual_seed(0)
    network = ActionFormer() if head == "actionformer" else ReAct()
    if head == "actionformer":
        network.set_prior(0.05)
    return load_detector(
        Bundle(
            name="seeded",
            head=head,
            head_config={},
            classes=tuple(f"class {number}" for number in range(20)),
            extractor="none",
            sampling={"window": 16, "stride": 4},
            channels=(("rgb", 1024), ("flow", 1024)),
            head_weights=network.state_dict(),
        )
    )


def job_of(kind: str, baseline: bool, path: str) -> Callable[[], Any]:
    """What is measured; everything that is loaded once is loaded here."""
    import torch

    values = np.load(path, mmap_mode="r")
    if kind == "attention":
        from vidtad.models.local_attention import local_attention

        attend = unfolded_attention if baseline else local_attention
        torch.manual_seed(0)
        parts = [torch.randn(1, len(values), WIDTH) for _ in range(3)]
        valid = torch.ones(1, len(values), 1)

        def attention() -> None:
            with torch.inference_mode():
                attend(*parts, valid, HEADS, RADIUS)

        return attention
    made = detector(kind)
    if baseline:
        from vidtad.models import actionformer
        from vidtad.pipelines import actionformer_head

        actionformer.local_attention = unfolded_attention
        made.piece = actionformer.SLICE = actionformer_head.ROWS = 1 << 40
    made(np.asarray(values[:300]))  # lazy initialisation is no part of the job
    return lambda: made(values)


def child(kind: str, baseline: bool, path: str, threads: int, repeats: int) -> None:
    import torch

    torch.set_num_threads(threads)
    print(json.dumps(measured(job_of(kind, baseline, path), repeats)))


def run(kind: str, baseline: bool, path: Path, arguments: argparse.Namespace) -> dict[str, float]:
    options = [kind, str(int(baseline)), str(path), str(arguments.threads), str(arguments.repeats)]
    command = [sys.executable, __file__, "--child", *options]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{kind}: {done.stderr[-2000:]}")
    return json.loads(done.stdout)


def written(folder: Path, rows: int, width: int) -> Path:
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


def cases(arguments: argparse.Namespace, folder: Path) -> None:
    """Every case, printed as soon as it is known."""
    for head in arguments.heads:
        found: dict[int, dict[str, float]] = {}
        for minutes in arguments.minutes:
            path = written(folder, minutes * ROWS_A_MINUTE[head], 1 if head == "attention" else 2048)
            case = {"head": head, "minutes": minutes, "rows": minutes * ROWS_A_MINUTE[head]}
            found[minutes] = run(head, False, path, arguments)
            if head != "react" and minutes <= arguments.baseline_minutes:
                print(json.dumps({**case, **compared(found[minutes], run(head, True, path, arguments))}), flush=True)
            else:
                print(json.dumps({**case, "ours": found[minutes]}), flush=True)
            path.unlink()
        if len(found) > 1:
            short, long = min(found), max(found)
            growth = {key: round(found[long][key] / found[short][key] / (long / short), 3) for key in found[short]}
            print(json.dumps({"head": head, "linear": f"{long} min / {short} min", "ratio": growth}), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=int, nargs="+", default=[10, 60, 180])
    parser.add_argument("--heads", nargs="+", choices=list(ROWS_A_MINUTE), default=list(ROWS_A_MINUTE))
    parser.add_argument("--baseline-minutes", type=int, default=60, help="longest video the baseline is given")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--child", nargs=5, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        kind, baseline, path, threads, repeats = arguments.child
        child(kind, bool(int(baseline)), path, int(threads), int(repeats))
        return
    with tempfile.TemporaryDirectory() as folder:
        cases(arguments, Path(folder))


if __name__ == "__main__":
    main()
