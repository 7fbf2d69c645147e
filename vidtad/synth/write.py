"""Generated clips as files: mp4 videos, ActivityNet ground truth, person boxes."""

from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np

from vidtad.errors import InputError
from vidtad.runtime.files import atomic_write, still_there, write_json
from vidtad.synth.draw import render
from vidtad.synth.spec import Level, Truth, level_of


def encode(path: Path, frames: Iterator[np.ndarray], level: Level) -> None:
    """Write frames (H, W, 3) uint8 RGB as an mp4: H.264 where this PyAV has it, else MPEG-4 part 2."""
    codec = "libx264" if "libx264" in av.codecs_available else "mpeg4"
    # Macroblock trees made x264 write other bytes from run to run.
    options = {"crf": str(level.crf), "preset": "veryfast", "threads": "1", "x264-params": "mbtree=0"}
    if codec == "mpeg4":
        options = {"qscale": str(max(2, round((level.crf - 12) / 3))), "flags": "qscale"}
    with atomic_write(path) as file, av.open(file, "w", format="mp4") as container:
        stream = container.add_stream(codec, rate=level.fps, options=options)
        stream.width, stream.height, stream.pix_fmt = level.width, level.height, "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


def video_id(seed: int, level: int | str | Level) -> str:
    """Name of a clip, without suffix. level: "people" for those of `synth.people`."""
    if isinstance(level, str):
        return f"{level}_{seed:06d}"
    return f"synth{level if isinstance(level, int) else ''}_{seed:06d}"


def write_clips(
    folder: Path,
    seeds: Collection[int],
    level: int | Level = 1,
    subset: str = "test",
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Render and encode clips: `<id>.mp4`, `ground_truth.json` (ActivityNet) and `boxes.json` in `folder`.

    Returns the ActivityNet document: `database: {id: {subset, duration, fps, frames, seed, annotations:
    [{label, segment: [start_s, end_s], track}]}}`. `boxes.json`: id -> track -> one [x1, y1, x2, y2] (0-1) a
    frame. `progress` is called with the clips written so far and their number.
    Raises RunError when a file cannot be written, InputError for an unknown level.
    """
    folder, settings = Path(folder), level_of(level)
    database, boxes = {}, {}
    for count, seed in enumerate(seeds, start=1):
        frames, truth = render(seed, settings)
        name = video_id(seed, level)
        encode(folder / f"{name}.mp4", frames, settings)
        database[name] = entry(truth, subset)
        boxes[name] = {str(track): np.round(person.boxes.astype(float), 4).tolist()
                       for track, person in enumerate(truth.people)}  # fmt: skip
        if progress is not None:
            progress(count, len(seeds))
    document = {"version": "vidtad synth 1", "database": database}
    write_json(folder / "boxes.json", boxes)
    write_json(folder / "ground_truth.json", document)
    still_there([folder / "boxes.json", *(folder / f"{name}.mp4" for name in database)])
    return document


def refuse_other_clips(folder: Path, seeds: Collection[int], level: int | str | Level = 1) -> None:
    """Raise InputError when `folder` holds videos other than those that `write_clips`, or `write_people_clips` for
    the level "people", would make there.

    The same seeds and level give the same clips again, so an interrupted or repeated run is no trouble.
    """
    ours = {video_id(seed, level) for seed in seeds}
    others = sorted(path.name for path in Path(folder).glob("*.mp4") if path.stem not in ours)
    if others:
        raise InputError(
            f"{folder}: holds {others[0]}, which is none of the clips asked for; choose an empty folder with --out, "
            "or pass --overwrite to leave it and replace the truth"
        )


def entry(truth: Truth, subset: str) -> dict[str, Any]:
    """What ActivityNet ground truth says of a clip."""
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
