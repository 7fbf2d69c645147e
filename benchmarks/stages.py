"""What an hour of video costs in each stage on this machine, one JSON line per stage; docs/cluster.md does the sums.

    python benchmarks/stages.py                         decode, prepare, i3d on the CPU, ReAct
    python benchmarks/stages.py --device cuda           the network on the GPU
    python benchmarks/stages.py --extractor tiny3d --size 1080

`core_s_per_hour` is processor seconds for an hour of 25 fps video, `wall_s_per_hour` elapsed ones (on a busy machine
only the former means something; for a network on a GPU only the latter). Stages are run one after another on a clip
of `--seconds` seconds made for it; weights are random, which costs the same as trained ones. Baseline: `real_time`,
a stage that takes as long as the video plays; `ratio` is how many times faster than that one core (or the GPU) is.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

FPS = 25


def measured(work: Callable[[], object]) -> tuple[float, float]:
    """(processor seconds of all threads, elapsed seconds)."""
    wall, core = time.perf_counter(), time.process_time()
    work()
    return time.process_time() - core, time.perf_counter() - wall


def make_clip(path: Path, height: int, seconds: int) -> None:
    """Moving noise over a gradient: motion and detail for the decoder, in H.264."""
    import av

    width = height * 16 // 9 // 2 * 2
    noise = np.random.default_rng(0).integers(0, 60, (height + 64, width + 64, 3), dtype=np.uint8)
    rows = np.linspace(0, 180, height, dtype=np.uint8)[:, None, None]
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=FPS, options={"preset": "veryfast", "crf": "23"})
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        for number in range(seconds * FPS):
            shift = number * 2 % 64
            picture = noise[shift : shift + height, shift : shift + width] // 3 + rows
            out.mux(stream.encode(av.VideoFrame.from_ndarray(picture.astype(np.uint8), format="rgb24")))
        out.mux(stream.encode(None))


def line_of(stage: str, cost: tuple[float, float], video_s: float, device: str) -> dict[str, Any]:
    """What is printed of a stage that cost (processor, elapsed) seconds for so many seconds of video."""
    import torch

    core, wall = (value / video_s * 3600 for value in cost)
    used = wall if stage == "network" and device != "cpu" else core
    return {
        "stage": stage,
        "core_s_per_hour": round(core, 1),
        "wall_s_per_hour": round(wall, 1),
        "baseline": "real_time",
        "ratio": round(3600 / used, 3),
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None,
    }


def main() -> None:
    """Print the lines."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--extractor", default="i3d")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--size", type=int, default=720, help="height of the pictures")
    parser.add_argument("--seconds", type=int, default=20)
    parser.add_argument("--windows", type=int, default=16, help="windows through the network")
    parser.add_argument("--batch", type=int, default=8)
    options = parser.parse_args()

    import torch

    from vidtad.models.react import ReAct, ReActConfig
    from vidtad.pipelines.extract.extraction import load_extractor
    from vidtad.runtime.malloc import keep_freed_memory
    from vidtad.video import open_video

    keep_freed_memory()  # as every command does

    def show(stage: str, cost: tuple[float, float], video_s: float) -> None:
        print(json.dumps(line_of(stage, cost, video_s, options.device)), flush=True)

    with tempfile.TemporaryDirectory() as folder:
        clip = Path(folder) / "clip.mp4"
        make_clip(clip, options.size, options.seconds)
        with open_video(clip) as video:
            show("decode", measured(lambda: sum(1 for _ in video)), options.seconds)
        loaded = load_extractor(options.extractor, "random:0", device=options.device)
        extractor, convention = loaded.extractor, loaded.extractor.convention
        with open_video(clip) as video:
            frames = [frame for frame, _ in zip(video, range(64), strict=False)]
        show("prepare", measured(lambda: [extractor.prepare(frame.rgb()) for frame in frames]), len(frames) / FPS)

    fps = float(convention.fps or FPS)
    # Overlapping windows as a video gives them: networks may share work between them.
    starts = np.arange(options.batch)[:, None] * convention.stride
    index = starts + (np.arange(convention.window) if convention.picks is None else np.array(convention.picks))
    shape = (int(index.max()) + 1, convention.crop, convention.crop, len(convention.mean))
    pictures = np.random.default_rng(0).integers(0, 255, shape, dtype=np.uint8)
    extractor.rows(pictures, index).cpu()
    rounds = max(1, options.windows // options.batch)
    video_s = rounds * options.batch * convention.stride / fps
    show("network", measured(lambda: [extractor.rows(pictures, index).cpu() for _ in range(rounds)]), video_s)

    torch.manual_seed(0)
    head = ReAct(ReActConfig()).eval()
    config = head.config
    values, mask = (
        torch.randn(4, config.clip_len, config.in_channels),
        torch.zeros(4, config.clip_len, dtype=torch.bool),
    )
    with torch.inference_mode():
        head(values, mask)
        covered = 4 * config.clip_len * config.stride_rate * convention.stride / fps
        show("detect", measured(lambda: head(values, mask)), covered)


if __name__ == "__main__":
    main()
