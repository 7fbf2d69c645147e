"""`vidtad extract`: videos to feature files."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vidtad.cli.common import (
    VIDEO_SUFFIXES,
    find_inputs,
    finish_batch,
    note,
    parse_rate,
    print_json,
    progress_bar,
    run_batch,
)

if TYPE_CHECKING:
    from vidtad.pipelines.extraction import Extracted

Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.")]
Batch = Annotated[int, typer.Option(min=1, help="Windows through the network at a time.")]
Decoder = Annotated[str, typer.Option(help="Video reader: pyav, or decord, opencv, torchcodec where installed.")]
Strict = Annotated[bool, typer.Option("--strict", help="Treat a damaged video as an error.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]


def extract(
    videos: Annotated[list[Path], typer.Argument(help="Video files, or folders of them.")],
    extractor: Annotated[str, typer.Option(help="Feature extractor.")] = "i3d",
    weights: Annotated[
        str | None,
        typer.Option(
            help="Checkpoint file or id; `random` or `random:SEED` for a dry run. Default: the published one."
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for the feature files.")] = Path("features"),
    window: Annotated[int | None, typer.Option(min=1, help="Frames a row sees.")] = None,
    stride: Annotated[int | None, typer.Option(min=1, help="Frames between rows.")] = None,
    fps: Annotated[
        str | None,
        typer.Option(help="Resample to this rate, like 25 or 30000/1001; also the rate of files that state none."),
    ] = None,
    device: Device = "auto",
    batch: Batch = 8,
    decoder: Decoder = "pyav",
    strict: Strict = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace feature files made otherwise.")] = False,
    quiet: Quiet = False,
    json: AsJson = False,
) -> None:
    """Turn videos into feature rows: one .npy (rows, channels) and one .json a video.

    Interrupted runs go on where they stopped; finished files are kept.

    Example: vidtad extract match.mp4 --extractor i3d --out features
    """
    rate = parse_rate(fps, "--fps")
    paths = find_inputs(videos, VIDEO_SUFFIXES, "video")
    from vidtad.devices import pick_device
    from vidtad.pipelines.extraction import Decoding, extract_file, load_extractor
    from vidtad.video import probe

    if len(paths) == 1:
        probe(paths[0], fps=rate)  # before weights are fetched for a file that is no video
    loaded = load_extractor(extractor, weights, device=pick_device(device), window=window, stride=stride, fps=rate)
    if loaded.is_random:
        note("random weights: a dry run, the features carry no meaning")
    decoding = Decoding(decoder, rate, strict)
    done: list[dict[str, Any]] = []

    def one(path: Path) -> None:
        with progress_bar(path.name, quiet=quiet) as progress:
            result = extract_file(
                path, loaded, out, decoding=decoding, batch=batch, overwrite=overwrite, progress=progress
            )
        for warning in result.features.provenance.warnings:
            note(warning)
        done.append(summary(path, result))
        if not json:
            typer.echo(line(done[-1]))

    failed = run_batch(paths, str, one)
    if json:
        print_json({"extracted": done, "failed": failed})
    finish_batch(len(paths), failed)


def summary(path: Path, result: "Extracted") -> dict[str, Any]:
    """What `--json` says of one video."""
    features = result.features
    return {
        "video": str(path),
        "features": str(result.path),
        "rows": len(features.grid),
        "channels": features.values.shape[1],
        "first_s": float(features.grid.times_s[0]),
        "last_s": float(features.grid.times_s[-1]),
        "frames": features.video.frames,
        "fps": float(features.grid.fps),
        "duration_s": features.video.duration_s,
        "reused": result.reused,
        "seconds": round(result.seconds, 3),
        "warnings": list(features.provenance.warnings),
    }


def line(entry: dict[str, Any]) -> str:
    """The same in one line."""
    shape = f"{entry['rows']} rows x {entry['channels']}, {entry['first_s']:.2f}-{entry['last_s']:.2f} s"
    if entry["reused"]:
        return f"{entry['features']}: {shape} (already there)"
    speed = f", {entry['frames'] / entry['seconds']:.1f} frames/s" if entry["frames"] and entry["seconds"] else ""
    return f"{entry['features']}: {shape} of {entry['duration_s']:.2f} s{speed}"
