"""Decoding speed and memory: ours against the plain loops a user would write, one JSON line per case.

    python benchmarks/decode.py                       speed: 1080p and 256p, with and without resizing
    python benchmarks/decode.py --memory 1 10 120     peak memory over videos of so many minutes

Each job runs in a process of its own; jobs of a case take turns, the fastest of `--repeats` runs counts.
The job: decode every frame, convert to RGB, bring the short side to 256 where the case says so, hand each
frame over as a (H, W, 3) uint8 tensor. Plain loops resize with OpenCV's bilinear (which skips pixels when
shrinking; ours averages them), decord with its own decode-side scaling. A backend that is not installed or
does not load is left out. `ratio` is ours / baseline in frames per second: above 1 is faster.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

Size = tuple[int, int] | None
FRAMES = {"1080p": 240, "256p": 900}
SIZES = {"1080p": (1080, 1920), "256p": (256, 456)}
THREADS = 2


def ours(path: str, size: Size) -> Iterator[np.ndarray]:
    """vidtad."""
    from vidtad.video import open_video

    with open_video(path) as video:
        for frame in video:
            yield frame.rgb(size)


def pyav(path: str, size: Size) -> Iterator[np.ndarray]:
    """Plain PyAV loop with threads on."""
    import av
    import cv2

    with av.open(path) as container:
        container.streams.video[0].thread_type = "AUTO"
        for frame in container.decode(video=0):
            picture = frame.to_ndarray(format="rgb24")
            yield cv2.resize(picture, size[::-1]) if size else picture


def opencv(path: str, size: Size) -> Iterator[np.ndarray]:
    """Plain OpenCV loop; resized before the colours are converted, the cheaper order."""
    import cv2

    capture = cv2.VideoCapture(path, cv2.CAP_FFMPEG)
    while True:
        found, picture = capture.read()
        if not found:
            return
        yield cv2.cvtColor(cv2.resize(picture, size[::-1]) if size else picture, cv2.COLOR_BGR2RGB)


def decord(path: str, size: Size) -> Iterator[np.ndarray]:
    """Plain decord loop, scaled by decord where asked."""
    import decord as library

    scaled = {"height": size[0], "width": size[1]} if size else {}
    for frame in library.VideoReader(path, num_threads=THREADS, **scaled):
        yield frame.asnumpy()


def torchcodec(path: str, size: Size) -> Iterator[np.ndarray]:
    """Plain torchcodec loop."""
    import cv2
    from torchcodec.decoders import VideoDecoder

    for frame in VideoDecoder(path, dimension_order="NHWC", num_ffmpeg_threads=THREADS):
        picture = frame.numpy()
        yield cv2.resize(picture, size[::-1]) if size else picture


JOBS: dict[str, Callable[[str, Size], Iterator[np.ndarray]]] = {
    "ours": ours,
    "pyav": pyav,
    "opencv": opencv,
    "decord": decord,
    "torchcodec": torchcodec,
}


def run_job(name: str, path: str, size: Size) -> dict[str, float]:
    """Frames, wall seconds, processor seconds and peak memory of one pass, in this process.

    "memory" is ours without torch, whose import alone is some 500 MB and would hide growth.
    """
    hand_over: Callable[[np.ndarray], Any] = np.asarray
    if name == "memory":
        name = "ours"
    else:
        import torch

        hand_over = torch.from_numpy
    next(iter(JOBS[name](path, size)))
    began, used = time.perf_counter(), time.process_time()
    frames = 0
    for picture in JOBS[name](path, size):
        hand_over(picture)
        frames += 1
    seconds, used = time.perf_counter() - began, time.process_time() - used
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"frames": frames, "seconds": seconds, "cpu_s": used, "peak_mb": peak}


def in_child(name: str, path: Path, size: Size) -> dict[str, Any] | None:
    """`run_job` in a fresh process; None when the backend is not there."""
    wanted = "x".join(map(str, size)) if size else "-"
    command = [sys.executable, __file__, "--job", name, str(path), wanted]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or ["no message"]
        print(f"{name}: left out ({last[0]})", file=sys.stderr)
        return None
    return json.loads(done.stdout)


def write_movie(path: Path, height: int, width: int, frames: int) -> None:
    """A texture that a camera pans over, H.264 at 30 frames per second with a keyframe every two seconds."""
    import av
    import cv2

    grain = np.random.default_rng(0).integers(0, 256, (height // 8 + 40, width // 8 + 40, 3), np.uint8)
    scene = cv2.resize(grain, None, fx=8, fy=8, interpolation=cv2.INTER_CUBIC)
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=30, options={"preset": "veryfast", "g": "60"})
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        for k in range(frames):
            y, x = int(100 + 90 * np.sin(k / 20)), int(100 + 90 * np.cos(k / 23))
            picture = np.ascontiguousarray(scene[y : y + height, x : x + width])
            out.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        out.mux(stream.encode(None))


def write_loop(source: Path, path: Path, minutes: int) -> None:
    """Repeat `source` without encoding again until `minutes` are full."""
    import av

    with av.open(str(source)) as old, av.open(str(path), "w") as new:
        stream = old.streams.video[0]
        copy = new.add_stream_from_template(stream)
        length = round(stream.frames / 30 / stream.time_base)
        for turn in range(round(minutes * 60 / (length * stream.time_base))):
            old.seek(0)
            for packet in old.demux(stream):
                if packet.size:
                    packet.pts += turn * length
                    packet.dts += turn * length
                    packet.stream = copy
                    new.mux(packet)


def speed(folder: Path, repeats: int, only: list[str]) -> None:
    """Print a line for each case and baseline."""
    for clip in ("1080p", "256p"):
        path = folder / f"{clip}.mp4"
        height, width = SIZES[clip]
        write_movie(path, height, width, FRAMES[clip])
        sizes: dict[str, Size] = {"as decoded": None}
        if height != 256:
            sizes["short side 256"] = (256, round(256 * width / height))
        for job, size in sizes.items():
            compare(f"{clip}, {job}", path, size, repeats, only)


def compare(case: str, path: Path, size: Size, repeats: int, only: list[str]) -> None:
    """Run all jobs of one case in turns and print ours against each baseline."""
    runs: dict[str, list[dict[str, Any]]] = {}
    names = [name for name in JOBS if name == "ours" or not only or name in only]
    for turn in range(repeats):
        start = turn % len(names)
        for name in names[start:] + names[:start]:
            result = in_child(name, path, size)
            if result is None:
                names.remove(name)
            else:
                runs.setdefault(name, []).append(result)
    facts = {name: summary(results) for name, results in runs.items()}
    for name, baseline in facts.items():
        if name != "ours":
            ratio = facts["ours"]["frames_per_s"] / baseline["frames_per_s"]
            line = {"case": case, "baseline_name": name, "ours": facts["ours"], "baseline": baseline}
            print(json.dumps(line | {"ratio": round(ratio, 3)}), flush=True)


def summary(results: list[dict[str, Any]]) -> dict[str, float]:
    """The fastest of repeated runs: on a shared machine the slower ones measure the neighbours."""
    rate = max(r["frames"] / r["seconds"] for r in results)
    used = min(1000 * r["cpu_s"] / r["frames"] for r in results)
    peak = max(r["peak_mb"] for r in results)
    return {
        "frames": results[0]["frames"],
        "frames_per_s": round(rate, 1),
        "cpu_ms_per_frame": round(used, 3),
        "peak_mb": round(peak, 1),
    }


def memory(folder: Path, minutes: list[int]) -> None:
    """Print our peak memory for each length; the baseline is the shortest of them."""
    source = folder / "source.mp4"
    write_movie(source, 180, 320, 600)
    first = None
    for length in minutes:
        path = folder / f"loop_{length}.mp4"
        write_loop(source, path, length)
        found = in_child("memory", path, None)
        path.unlink()
        if found is None:
            raise SystemExit(1)
        facts = summary([found])
        first = first or facts
        case = f"{length} min of 320x180 at 30 frames per second"
        line = {"case": case, "baseline_name": f"{minutes[0]} min", "ours": facts, "baseline": first}
        print(json.dumps(line | {"ratio": round(facts["peak_mb"] / first["peak_mb"], 3)}), flush=True)


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--memory", type=int, nargs="+", metavar="MINUTES")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", nargs="+", default=[], choices=list(JOBS)[1:], metavar="BASELINE")
    parser.add_argument("--job", nargs=3, metavar=("NAME", "PATH", "SIZE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.job:
        name, path, wanted = options.job
        height, _, width = wanted.partition("x")
        size = (int(height), int(width)) if width else None
        print(json.dumps(run_job(name, path, size)))
        return
    with tempfile.TemporaryDirectory() as folder:
        if options.memory:
            memory(Path(folder), options.memory)
        else:
            speed(Path(folder), options.repeats, options.only)


if __name__ == "__main__":
    main()
