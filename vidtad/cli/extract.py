"""`vidtad extract`: videos to feature files."""

from pathlib import Path
from typing import Annotated, Any

import typer

from vidtad.cli.common import (
    VIDEO_SUFFIXES,
    check_places,
    find_inputs,
    finish_batch,
    make_setup,
    note,
    parse_rate,
    print_json,
    refuse,
    run_batch,
    say,
    take_shard,
)
from vidtad.cli.options import (
    Address,
    AsJson,
    Batch,
    Decoder,
    Device,
    Engine,
    FlowFrom,
    Overwrite,
    Precision,
    Quiet,
    Ranges,
    Shard,
    Strict,
    Stride,
    Threads,
    Window,
    Workers,
)


def extract(
    videos: Annotated[list[Path], typer.Argument(help="Video files, or folders of them.")],
    extractor: Annotated[
        str | None, typer.Option(help="Feature extractor. Default: that of a bundle given as --weights, else i3d.")
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(
            help="Checkpoint file or id (FILE,FILE for two streams); a bundle that holds them; `random` or "
            "`random:SEED` for a dry run. Default: the published one."
        ),
    ] = None,
    stream: Annotated[
        str | None, typer.Option(help="rgb, flow, or both in the order the channels shall have: rgb,flow.")
    ] = None,
    flow: Annotated[
        str | None,
        typer.Option(help="Optical flow by tvl1 (what networks were trained on), tvl1-torch, dis, farneback or raft."),
    ] = None,
    keep_flow: Annotated[Path | None, typer.Option(help="Folder to keep the flow in, as JPEG pictures.")] = None,
    flow_from: FlowFrom = None,
    out: Annotated[Path, typer.Option(help="Folder for the feature files.")] = Path("features"),
    window: Window = None,
    stride: Stride = None,
    fps: Annotated[
        str | None,
        typer.Option(help="Resample to this rate, like 25 or 30000/1001; also the rate of files that state none."),
    ] = None,
    device: Device = "auto",
    precision: Precision = "auto",
    batch: Batch = 8,
    decoder: Decoder = "pyav",
    strict: Strict = False,
    overwrite: Overwrite = False,
    workers: Workers = None,
    threads: Threads = None,
    ranges: Ranges = 1,
    shard: Shard = None,
    engine: Engine = "local",
    address: Address = None,
    quiet: Quiet = False,
    json: AsJson = False,
) -> None:
    """Turn videos into feature rows: one .npy (rows, channels) and one .json a video.

    Interrupted runs go on where they stopped; finished files are kept. With --workers, largest files go first.

    Example: vidtad extract match.mp4 --extractor i3d --stream rgb,flow --out features
    """
    rate = parse_rate(fps, "--fps")
    if flow_from is not None:
        computed = {name for name, value in (("keep_flow", keep_flow), ("flow", flow)) if value is not None}
        refuse(computed, "not with --flow-from, for which no flow is computed")
    check_places(out, ranges, keep_flow, flow_from)
    paths = find_inputs(videos, VIDEO_SUFFIXES, "video")
    from vidtad.pipelines.batches.tasks import ExtractTask
    from vidtad.pipelines.extract.extraction import Decoding
    from vidtad.pipelines.extract.load import DEMONSTRATION, DEMONSTRATION_NOTE, extractor_name
    from vidtad.runtime.remote import url_of
    from vidtad.video import probe

    if len(paths) == 1 and url_of(paths[0]) is None:
        probe(paths[0], fps=rate)  # before weights are fetched for a file that is no video
    paths = take_shard(paths, shard)
    if weights is None and extractor == DEMONSTRATION:
        note(DEMONSTRATION_NOTE)
    if (weights or "").partition(":")[0] == "random":
        note("random weights: a dry run, the features carry no meaning")
    decoding = Decoding(decoder, rate, strict)
    task = ExtractTask(
        out,
        extractor_name(extractor, weights),
        weights,
        window,
        stride,
        rate,
        decoding,
        batch,
        overwrite,
        stream=stream,
        flow=flow,
        keep_flow=keep_flow,
        flow_from=flow_from,
        precision=precision,
    )
    task.check(paths)
    done: dict[Path, dict[str, Any]] = {}

    def finished(path: Path, entry: dict[str, Any]) -> None:
        for warning in entry["warnings"]:
            note(warning)
        if json:
            done[path] = entry
        else:
            say(line(entry, timed=ranges == 1))

    setup = make_setup(engine, workers, threads, address, device, ranges)
    failed = run_batch(paths, task, setup, finished, quiet=quiet)
    if json:
        print_json({"extracted": [done[path] for path in paths if path in done], "failed": failed})
    finish_batch(len(paths), failed)


def line(entry: dict[str, Any], *, timed: bool = True) -> str:
    """The same in one line; untimed where ranges were only put together."""
    shape = f"{entry['rows']} rows x {entry['channels']}, {entry['first_s']:.2f}-{entry['last_s']:.2f} s"
    if entry["reused"]:
        return f"{entry['features']}: {shape} (already there)"
    known = timed and entry["frames"] and entry["seconds"]
    speed = f", {entry['frames'] / entry['seconds']:.1f} frames/s" if known else ""
    return f"{entry['features']}: {shape} of {entry['duration_s']:.2f} s{speed}"
