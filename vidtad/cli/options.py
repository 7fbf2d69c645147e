"""Options that several commands have: one wording, one meaning."""

from pathlib import Path
from typing import Annotated

import typer

Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.")]
Precision = Annotated[
    str,
    typer.Option(
        help="Of the extractor: float32, bf16 or fp16; auto is bf16 on a GPU that has it, else float32. The head is "
        "float32 unless bf16 is asked for."
    ),
]
Batch = Annotated[int, typer.Option(min=1, help="Windows through the network at a time.")]
Decoder = Annotated[str, typer.Option(help="Video reader: pyav, or decord, opencv, torchcodec where installed.")]
Strict = Annotated[bool, typer.Option("--strict", help="Treat a damaged video as an error.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what was made with other settings.")]
Window = Annotated[int | None, typer.Option(min=1, help="Frames a feature row sees.")]
Stride = Annotated[int | None, typer.Option(min=1, help="Frames between feature rows.")]
FlowFrom = Annotated[
    Path | None,
    typer.Option(
        help="Folder of optical flow to read instead of computing it: `vidtad extract --keep-flow`'s, or denseflow's."
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]

# Many inputs, many workers.
Workers = Annotated[
    int | None,
    typer.Option(min=1, help="Worker processes, each with its own model; GPUs are shared out in turn."),
]
Threads = Annotated[
    int | None,
    typer.Option(min=1, help="CPU threads of each worker, without workers of this process. Default: an equal share."),
]
Shard = Annotated[str | None, typer.Option(help="Only part I of N of the inputs, as 1/8 to 8/8, for job arrays.")]
Ranges = Annotated[
    int, typer.Option(min=1, max=10000, help="Time ranges each video is divided into, for several workers at once.")
]
Engine = Annotated[str, typer.Option(help="Where workers run: local, or ray (many machines).")]
Address = Annotated[str | None, typer.Option(help="Ray cluster to join, `auto` for the one of this machine.")]

# Detectors that say who does what.
Persons = Annotated[
    str | None,
    typer.Option(
        help="People: found by fasterrcnn, fasterrcnn-fast, hog, or own (boxes an action-transformer proposes). "
        "Default: the detector's choice, else hog where that cannot be fetched."
    ),
]
PersonsWeights = Annotated[
    str | None, typer.Option(help="People: weights of that person detector: a file, or `random`.")
]
Boxes = Annotated[
    Path | None,
    typer.Option(help="People: a file of their boxes (AVA rows, COCO JSON, a timeline); its times are the keyframes."),
]
BoxesOffset = Annotated[float | None, typer.Option(help="People: seconds to subtract from the times of --boxes.")]
Every = Annotated[float | None, typer.Option(help="People: seconds between keyframes. Default: 1.")]
Scales = Annotated[str | None, typer.Option(help="People: short sides in pixels to average over, such as 256,288,320.")]
PersonScore = Annotated[
    float | None, typer.Option(help="People: boxes from this score on are people. Default: the detector's, mostly 0.7.")
]
ActionScore = Annotated[
    float | None,
    typer.Option(help="People: actions under this score are left out at a keyframe. Default: the detector's."),
]
Flip = Annotated[bool, typer.Option("--flip", help="People: average with the mirrored picture too.")]
