"""Many videos with two workers against one, each with one thread: one JSON line.

    python benchmarks/workers.py
    python benchmarks/workers.py --extractor tsn --videos 4 --seconds 20

`vidtad extract FOLDER --workers N` in processes of its own, by turns, `--rounds` times; the quickest round counts.
`ratio`: elapsed seconds of one worker over those of two (2 at best). Starting the command and its workers is part of
it. Weights are random. It says something only where two cores are idle.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from plain import FPS, write_movie


def seconds(videos: Path, out: Path, extractor: str, workers: int) -> float:
    """Elapsed seconds of one run, one thread a worker."""
    shutil.rmtree(out, ignore_errors=True)
    command = [sys.executable, "-m", "vidtad", "extract", str(videos), "--extractor", extractor, "--weights", "random"]
    began = time.perf_counter()
    subprocess.run(
        [*command, "--out", str(out), "--workers", str(workers), "--device", "cpu", "--quiet"],
        check=True,
        stdout=subprocess.DEVNULL,
        env={**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"},
    )
    return time.perf_counter() - began


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--extractor", default="i3d")
    parser.add_argument("--videos", type=int, default=6)
    parser.add_argument("--seconds", type=int, default=6, help="of each video")
    parser.add_argument("--rounds", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        videos = Path(folder) / "videos"
        videos.mkdir()
        for number in range(options.videos):
            write_movie(videos / f"{number}.mp4", options.seconds * FPS, 256)
        found: dict[int, list[float]] = {1: [], 2: []}
        for _ in range(options.rounds):
            for workers, times in found.items():
                times.append(seconds(videos, Path(folder) / "out", options.extractor, workers))
    one, two = min(found[1]), min(found[2])
    line = {"extractor": options.extractor, "videos": options.videos, "seconds": options.seconds}
    line |= {"one_s": round(one, 1), "two_s": round(two, 1), "ratio": round(one / two, 2)}
    print(json.dumps({**line, "load": round(os.getloadavg()[0], 1)}))


if __name__ == "__main__":
    main()
