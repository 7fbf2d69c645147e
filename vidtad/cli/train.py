"""`vidtad train`: labels and videos to a detector of the user's own classes."""

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vidtad.cli.common import console, note, parse_rate, print_json
from vidtad.cli.evaluate import show as show_scores
from vidtad.cli.options import AsJson, Batch, Decoder, Device, Quiet
from vidtad.errors import InputError

if TYPE_CHECKING:
    from vidtad.evaluation.tables import Table
    from vidtad.pipelines.training.run import Trained

Show = Callable[[str, int, int, str], None]


def train(
    annotations: Annotated[
        Path, typer.Option(help="Labels: ActivityNet JSON, CSV, ELAN, BORIS, VIA, Label Studio; a file or a folder.")
    ],
    out: Annotated[Path, typer.Option(help="The bundle to write, such as mine.safetensors.")],
    videos: Annotated[Path | None, typer.Option(help="Folder of the labelled videos.")] = None,
    features: Annotated[
        Path | None, typer.Option(help="Folder of feature files, instead of videos or to keep theirs in.")
    ] = None,
    model: Annotated[str, typer.Option(help="Kind of detector: react or actionformer.")] = "react",
    preset: Annotated[
        str | None, typer.Option(help="A published recipe, such as thumos14. Default: scaled to the data.")
    ] = None,
    extractor: Annotated[str | None, typer.Option(help="Feature extractor for videos. Default: i3d.")] = None,
    weights: Annotated[
        str | None,
        typer.Option(help="Extractor weights: file, id, a bundle that holds them, `random`. Default: published ones."),
    ] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Default: by the size of the data.")] = None,
    seed: Annotated[int, typer.Option(help="Of the split, the weights and the order of the data.")] = 0,
    val_fraction: Annotated[
        float | None,
        typer.Option(help="Share of videos to hold out. Default: the file's subsets, else 0.2; 0 holds out none."),
    ] = None,
    protocol: Annotated[str | None, typer.Option(help="Rules to score by. Default: thumos14.")] = None,
    fps: Annotated[str | None, typer.Option(help="Resample videos; rate of features without a sidecar.")] = None,
    stride: Annotated[int | None, typer.Option(min=1, help="Frames between rows.")] = None,
    window: Annotated[int | None, typer.Option(min=1, help="Frames a row sees.")] = None,
    frame_rate: Annotated[
        float | None, typer.Option(min=0.1, help="Frames a second of labels that count frames (Label Studio).")
    ] = None,
    device: Device = "auto",
    batch: Batch = 8,
    decoder: Decoder = "pyav",
    strict: Annotated[bool, typer.Option("--strict", help="Stop when the labels are not clean.")] = False,
    quiet: Quiet = False,
    json: AsJson = False,
) -> None:
    """Train a detector of your own classes: check labels, extract features, train, score, write one bundle.

    Features, checkpoints and the log are kept beside OUT, in OUT.work: run the same command again and it goes on
    where it stopped. Videos of one `group` stay on one side of the split.

    Example: vidtad train --videos clips --annotations labels.csv --out mine.safetensors
    """
    from vidtad.devices import pick_device
    from vidtad.pipelines.extraction import Decoding
    from vidtad.pipelines.training.run import Sampling, TrainingJob, Watcher, run_training

    if out.suffix != ".safetensors":
        raise InputError(f"--out {out}: name the bundle with .safetensors at its end, as in {out.stem}.safetensors")
    rate = parse_rate(fps, "--fps")
    job = TrainingJob(
        annotations=annotations,
        out=out,
        videos=videos,
        features=features,
        model=model,
        preset=preset,
        extractor=extractor,
        weights=weights,
        sampling=Sampling(rate, stride, window),
        epochs=epochs,
        seed=seed,
        val_fraction=val_fraction,
        protocol=protocol,
        frame_rate=frame_rate,
        device=pick_device(device),
        decoding=Decoding(decoder),
        batch=batch,
        strict=strict,
    )
    # Of the processes that torchrun starts, the first one alone talks.
    first = os.environ.get("RANK", "0") == "0"
    with training_bar(quiet=quiet or json or not first) as progress:
        result = run_training(job, Watcher(note if first else lambda sentence: None, progress))
    if not first:
        return
    if json:
        print_json(result.to_json())
    else:
        show(result)


@contextmanager
def training_bar(*, quiet: bool) -> Iterator[Show]:
    """A bar with the stage, the loss and the time left on a terminal; silence in a pipe or when `quiet`."""
    if quiet or not sys.stderr.isatty():
        yield lambda stage, done, total, detail: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[detail]}", markup=False),
    )
    tasks: dict[str, Any] = {}
    shown = 0.0
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:

        def update(stage: str, done: int, total: int, detail: str) -> None:
            nonlocal shown
            if stage not in tasks:
                for task in tasks.values():
                    bar.remove_task(task)
                tasks.clear()
                tasks[stage] = bar.add_task(stage, total=total, detail=detail)
            elif time.monotonic() - shown < 0.1 and done < total:
                return
            shown = time.monotonic()
            bar.update(tasks[stage], completed=done, total=total, detail=detail)

        yield update


def show(result: "Trained") -> None:
    """The scores, beside the published row where there is one, and what to do next."""
    from vidtad.pipelines.training.report import blind_line, operating_line, published_table, trust

    for part, evaluation in result.scores.items():
        for finding in evaluation.findings:
            note(f"{part}: {finding.line()}")
        show_scores(evaluation)
        typer.echo(f"{part}: {trust(evaluation)}")
        typer.echo(f"{part}: {blind_line(evaluation, result.blind[part])}")
    if result.published is not None and result.scores:
        print_table(published_table(result.published, result.scores))
    if not result.scores:
        typer.echo("no video was held out: nothing is known of how well it does")
    if result.operating is not None:
        typer.echo(operating_line(result.operating))
    elif "validation" in result.scores:
        typer.echo("no segment on validation is right at tIoU 0.5: do not expect useful detections")
    typer.echo(f"report: {result.report}; log: {result.log}")
    typer.echo(f"next: vidtad detect VIDEO --model {result.path}")


def print_table(content: "Table") -> None:
    """A table of text."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE, title=Text(content.title), title_justify="left")
    for number, heading in enumerate(content.header):
        table.add_column(Text(heading), justify="right" if number else "left")
    for row in content.rows:
        table.add_row(*map(Text, row))
    console().print(table)
    if content.note:
        typer.echo(content.note)
