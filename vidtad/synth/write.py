"""Generated clips as files: mp4 videos, ActivityNet ground truth, person boxes."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np

from vidtad.files import atomic_write, write_json
from vidtad.synth.draw import render
from vidtad.synth.spec import Level, Truth, level_of


def encode(path: Path, frames: Iterator[np.ndarray], level: Level) -> None:
    """Write frames (H, W, 3) uint8 RGB as an mp4: H.264 where this PyAV has it, else MPEG-4 part 2."""
    codec = "libx264" if "libx264" in av.codecs_available else "mpeg4"
    options = {"crf": str(level.crf), "preset": "veryfast", "threads": "1"}
    if codec == "mpeg4":
        options = {"qscale": str(max(2, round((level.crf - 12) / 3))), "flags": "qscale"}
    with atomic_write(path) as file, av.open(file, "w", format="mp4") as container:
        stream = container.add_stream(codec, rate=level.fps, options=options)
        stream.width, stream.height, stream.pix_fmt = level.width, level.height, "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


def video_id(seed: int, level: int | Level) -> str:
    """Name of a clip, without suffix."""
    return f"synth{level if isinstance(level, int) else ''}_{seed:06d}"


def write_clips(
    folder: Path, seeds: Iterable[int], level: int | Level = 1, subset: str = "test"
) -> dict[str, Any]:
    """Render and encode clips: `<id>.mp4`, `ground_truth.json` (ActivityNet) and `boxes.json` in `folder`.

    Returns the ActivityNet document: `database: {id: {subset, duration, fps, frames, seed, annotations:
    [{label, segment: [start_s, end_s], track}]}}`. `boxes.json`: id -> track -> one [x1, y1, x2, y2] (0-1) a
    frame.
    Raises RunError when a file cannot be written, InputError for an unknown level.
    """
    folder, settings = Path(folder), level_of(level)
    database, boxes = {}, {}
    for seed in seeds:
        frames, truth = render(seed, settings)
        name = video_id(seed, level)
        encode(folder / f"{name}.mp4", frames, settings)
        database[name] = _entry(truth, subset)
        boxes[name] = {str(track): np.round(person.boxes.astype(float), 4).tolist()
                       for track, person in enumerate(truth.people)}  # fmt: skip
    document = {"version": "vidtad synth 1", "database": database}
    write_json(folder / "boxes.json", boxes)
    write_json(folder / "ground_truth.json", document)
    return document


def _entry(truth: Truth, subset: str) -> dict[str, Any]:
    annotations = [
        {"label": action.label, "segment": [action.start_s, action.end_s], "track": track}
        for track, person in enumerate(truth.people)
        for action in person.actions
    ]
    return {
        "subset": subset,
        "duration": truth.duration_s,
        "fps": float(truth.fps),
        "frames": truth.frames,
        "seed": truth.seed,
        "annotations": annotations,
    }
