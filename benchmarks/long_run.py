"""Two hours of video through `vidtad detect`: memory by minute of video, and time at 30, 60 and 120 minutes.

    python benchmarks/long_run.py                        both heads, about a quarter of an hour
    python benchmarks/long_run.py --minutes 10 --heads actionformer --out short.json

The video is drawn while it is encoded (160 x 120 pixels, 15 frames a second). `actionformer` is the built-in
demonstration bundle; `people` is an Action Transformer of a few thousand weights, drawn from a seed, that proposes
two boxes at each keyframe. Every run is a process of its own on one thread. While it runs, its resident memory
(VmRSS), its processor seconds and how far it has read the video (the offset of its open file) are noted every
`--every` seconds; none of that is known to the program itself.

One JSON line per head. Baseline: `straight_line`, processor time in proportion to the minutes, from the first quarter;
`ratio` is the whole run's processor time over it (1 is linear). `growth_mib` is the memory of the last tenth of the
video less that of the second tenth.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

FPS, WIDTH, HEIGHT = 15, 160, 120
POINTS = 24
Sample = tuple[float, float, float]
"""Minutes of video read, MiB resident, processor seconds."""


def make_video(path: Path, minutes: float) -> None:
    """Three discs on their ways over a gradient, in H.264."""
    import av

    rows, columns = np.mgrid[0:HEIGHT, 0:WIDTH]
    ground = np.stack([rows, columns, np.full_like(rows, 80)], axis=-1).astype(np.uint8)
    with av.open(str(path), "w") as out:
        stream: Any = out.add_stream("libx264", rate=FPS, options={"preset": "ultrafast", "crf": "23"})
        stream.width, stream.height, stream.pix_fmt, stream.thread_count = WIDTH, HEIGHT, "yuv420p", 1
        stream.codec_context.time_base = Fraction(1, FPS)
        for number in range(round(minutes * 60 * FPS)):
            picture = ground.copy()
            for disc in range(3):
                turn = number / FPS * (0.3 + 0.2 * disc) + disc
                x, y = round(WIDTH / 2 + 60 * np.cos(turn)), round(HEIGHT / 2 + 40 * np.sin(1.7 * turn))
                picture[max(0, y - 9) : y + 9, max(0, x - 9) : x + 9] = (230, 60 + 60 * disc, 20)
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts = number
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))


def people_bundle(path: Path) -> Path:
    """A tiny seeded network of a person head that proposes its boxes itself."""
    from vidtad.extractors.person_presets import TRUNKS
    from vidtad.heads.person.bundle import person_bundle, random_network, sampling_of
    from vidtad.hub.bundle import save_bundle
    from vidtad.models.action_transformer import ActionTransformerConfig

    config = ActionTransformerConfig(
        classes=3, channels=104, width=16, feedforward=16, reduced=4, embedding=4, shrink=8, proposals=2, rpn_width=8
    )
    trunk = "i3d/tiny"
    bundle = person_bundle(
        "tiny-people",
        "action-transformer",
        random_network("action-transformer", trunk, config),
        trunk=trunk,
        classes=("jump", "wave", "walk"),
        sampling=sampling_of(TRUNKS[trunk].convention),
        decoding={"persons": "own", "person_score": 0.0, "action_score": 0.0},
        training={"random_weights": True},
    )
    return Path(save_bundle(bundle, path))


def read_offset(process: int, video: Path) -> int | None:
    """How far the process has read the video, in bytes; None while it does not have it open."""
    offsets = []
    for link in Path(f"/proc/{process}/fd").iterdir():
        try:
            if os.readlink(link) == str(video):
                said = Path(f"/proc/{process}/fdinfo/{link.name}").read_text()
                offsets.append(int(said.split()[1]))
        except OSError:  # closed meanwhile
            continue
    return min(offsets, default=None)


def resident_mib(process: int) -> float:
    """VmRSS."""
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    return 0.0


def processor_s(process: int) -> float:
    """User and system time so far."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def watched(command: list[str], video: Path, minutes: float, every_s: float) -> tuple[list[Sample], float, float]:
    """(samples, MiB at the most, processor seconds in all) of a command that reads `video`."""
    settings = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENCV_FOR_THREADS_NUM": "1"}
    size, samples = video.stat().st_size, []
    process = subprocess.Popen(command, env=os.environ | settings, stdout=subprocess.DEVNULL)
    most = used = 0.0
    while process.poll() is None:
        try:
            offset = read_offset(process.pid, video)
            memory, used = resident_mib(process.pid), max(used, processor_s(process.pid))
        except (OSError, IndexError):  # it ended in between
            break
        most = max(most, memory)
        if offset is not None:
            samples.append((offset / size * minutes, memory, used))
        time.sleep(every_s)
    if process.wait() != 0:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
    return samples, most, used


def at_minute(samples: list[Sample], minute: float) -> Sample:
    """The first sample at or after a minute of video, else the last one."""
    return next((sample for sample in samples if sample[0] >= minute), samples[-1])


def summary(head: str, minutes: float, samples: list[Sample], most: float, used: float) -> dict[str, Any]:
    """The line of one head."""
    # Hashing reads the whole file before the first frame: what counts begins after it.
    starts = (i for i in range(1, len(samples)) if samples[i][0] < min(samples[i - 1][0], 0.05 * minutes))
    begin = max(starts, default=0)
    samples = samples[begin:]
    start_s = samples[0][2]
    curve = [at_minute(samples, minutes * (i + 1) / POINTS) for i in range(POINTS)]
    marks = {f"{share * minutes:g}": at_minute(samples, share * minutes)[2] - start_s for share in (0.25, 0.5, 1.0)}
    early = [memory for minute, memory, _ in samples if minutes * 0.1 <= minute < minutes * 0.2]
    late = [memory for minute, memory, _ in samples if minute >= minutes * 0.9]
    straight = marks[f"{0.25 * minutes:g}"] * 4
    return {
        "head": head,
        "minutes": minutes,
        "frames": round(minutes * 60 * FPS),
        "memory_mib": [[round(minute, 1), round(memory, 1)] for minute, memory, _ in curve],
        "peak_mib": round(most, 1),
        "growth_mib": round(float(np.median(late) - np.median(early)), 1),
        "core_s_at_minute": {name: round(value, 1) for name, value in marks.items()},
        "core_s": round(used, 1),
        "samples": len(samples),
        "baseline": "straight_line",
        "ratio": round(marks[f"{minutes:g}"] / straight, 3),
        "threads": 1,
    }


def main() -> None:
    """Print the lines and write them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=120.0)
    parser.add_argument("--heads", default="actionformer,people")
    parser.add_argument("--every", type=float, default=2.0, help="seconds between samples")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "long_run.json")
    options = parser.parse_args()
    lines = []
    with tempfile.TemporaryDirectory() as folder:
        video = Path(os.path.realpath(folder)) / "long.mkv"
        make_video(video, options.minutes)
        for head in options.heads.split(","):
            model = head if head != "people" else str(people_bundle(video.with_name("people.safetensors")))
            command = [sys.executable, "-m", "vidtad", "detect", str(video), "--model", model, "--device", "cpu"]
            command += ["--out", str(video.with_name(head)), "--quiet"]
            lines.append(summary(head, options.minutes, *watched(command, video, options.minutes, options.every)))
            print(json.dumps(lines[-1]), flush=True)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(lines, indent=1) + "\n")


if __name__ == "__main__":
    main()
