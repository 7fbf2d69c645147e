"""`vidtad detect`: videos or feature files to timelines."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vidtad.cli.common import (
    FEATURE_SUFFIX,
    VIDEO_SUFFIXES,
    console,
    find_inputs,
    finish_batch,
    make_setup,
    note,
    parse_rate,
    print_json,
    run_batch,
    take_shard,
)
from vidtad.cli.extract import (
    Address,
    AsJson,
    Batch,
    Decoder,
    Device,
    Engine,
    Precision,
    Quiet,
    Shard,
    Strict,
    Threads,
    Workers,
)
from vidtad.errors import InputError

if TYPE_CHECKING:
    from vidtad.timeline import Timeline


def detect(
    inputs: Annotated[
        list[Path] | None,
        typer.Argument(help="Videos, feature files (.npy), or folders of either. Default: the folder `features`."),
    ] = None,
    model: Annotated[str, typer.Option(help="Detector: a name of `vidtad models list`, or a bundle file.")] = "react",
    out: Annotated[str, typer.Option(help="Folder for the timelines; `-` prints the JSON alone.")] = "timelines",
    weights: Annotated[
        str | None, typer.Option(help="Extractor weights instead of the bundle's: file, id or `random`.")
    ] = None,
    formats: Annotated[
        str | None, typer.Option("--format", help="Also write these, separated by commas: srt, vtt, elan, cvat, ...")
    ] = None,
    min_score: Annotated[float, typer.Option(help="Leave out segments under this score.")] = 0.0,
    fps: Annotated[
        str | None, typer.Option(help="Rate of videos that state none, and of feature files without a sidecar.")
    ] = None,
    stride: Annotated[
        int | None, typer.Option(min=1, help="For feature files without a sidecar: frames between rows.")
    ] = None,
    window: Annotated[int | None, typer.Option(min=1, help="The same: frames a row sees.")] = None,
    device: Device = "auto",
    precision: Precision = "auto",
    batch: Batch = 8,
    decoder: Decoder = "pyav",
    strict: Strict = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace timelines made otherwise.")] = False,
    workers: Workers = None,
    threads: Threads = None,
    shard: Shard = None,
    engine: Engine = "local",
    address: Address = None,
    quiet: Quiet = False,
    json: AsJson = False,
) -> None:
    """Find what happens when: one timeline (.json and .csv) a video, and a table.

    Example: vidtad detect match.mp4 --model react --out timelines
    """
    from vidtad.checkpoints import resolve_model
    from vidtad.pipelines.batches.tasks import Detected, DetectTask
    from vidtad.pipelines.extraction import Decoding
    from vidtad.pipelines.timelines import Job, foreign_grid

    default = Path("features")
    if inputs is None and not default.is_dir():
        raise InputError("nothing to detect in: name a video, or run `vidtad extract` first (it fills `features`)")
    also = check_formats(formats, out)
    rate = parse_rate(fps, "--fps")
    paths = find_inputs(inputs or [default], VIDEO_SUFFIXES | {FEATURE_SUFFIX}, "video or feature file")
    bundle, hint = resolve_model(model)
    if hint:
        note(hint)
    paths = take_shard(paths, shard)
    job = Job(
        out=None if out == "-" else Path(out),
        weights=weights,
        min_score=min_score,
        foreign=foreign_grid(rate, stride, window),
        decoding=Decoding(decoder, rate, strict),
        batch=batch,
        overwrite=overwrite,
        precision=precision,
    )
    done: dict[Path, Timeline] = {}

    def finished(path: Path, found: Detected) -> None:
        timeline = found.timeline
        for warning in timeline.detector["warnings"]:
            note(warning)
        if timeline.detector.get("random_weights"):
            note(f"{path}: random weights, a dry run: the segments carry no meaning")
        if also:
            from vidtad.formats.interchange import write_formats

            write_formats(timeline, Path(out), also)
        if json or out == "-":
            done[path] = timeline
        else:
            show(timeline, found.display_score, Path(out))

    setup = make_setup(engine, workers, threads, address, device)
    failed = run_batch(paths, DetectTask(model, bundle.sha256, job), setup, finished, quiet=quiet)
    if json or out == "-":
        from vidtad.timeline import merge

        document: dict[str, Any] = merge(done[path] for path in paths if path in done).to_json() if done else {}
        print_json(document | {"failed": failed} if failed else document)
    finish_batch(len(paths), failed)


def check_formats(text: str | None, out: str) -> tuple[str, ...]:
    """The formats of `--format`. Raises InputError for one that does not exist, or when nothing is written at all."""
    if text is None:
        return ()
    from vidtad.formats.interchange import parse_names

    if out == "-":
        raise InputError("--format writes files, which --out - does not; name a folder with --out")
    return tuple(parse_names(text.split(",")))


def show(timeline: "Timeline", threshold: float, out: Path | None = None, most: int = 25) -> None:
    """A table of the surest segments of each video in order of time; the files hold all of them."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from vidtad.cli.terminal_timeline import render

    for name, segments in timeline.results.items():
        chosen = sorted(sorted(segments, key=lambda s: -s.score)[:most], key=lambda s: s.start_s)
        chosen = [s for s in chosen if s.score >= threshold]
        table = Table(box=box.SIMPLE, title=Text(name), title_justify="left")
        for heading in ("start", "end", "action", "score"):
            table.add_column(heading, justify="left" if heading == "action" else "right")
        for s in chosen:
            table.add_row(clock(s.start_s), clock(s.end_s), Text(s.label), f"{s.score:.2f}")
        if chosen:
            console().print(table)
            if console().is_terminal:
                for line in render(timeline, console().width, threshold):
                    console().print(line)
        where = "" if out is None else f"; all in {out / name}.json and .csv"
        typer.echo(f"{name}: {len(chosen)} of {len(segments)} segments shown (score >= {threshold:g}){where}")


def clock(seconds: float) -> str:
    """h:mm:ss.s, hours only where there are any."""
    minutes, rest = divmod(round(seconds, 1), 60)
    hours, minutes = divmod(int(minutes), 60)
    return f"{hours}:{minutes:02d}:{rest:04.1f}" if hours else f"{minutes}:{rest:04.1f}"
