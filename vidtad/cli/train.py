"""`vidtad train`: labels and videos to a detector of the user's own classes."""

import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vidtad.cli.common import check_places, given, note, parse_rate, print_json, print_table, refuse, say
from vidtad.cli.evaluate import show as show_scores
from vidtad.cli.options import AsJson, Batch, Decoder, Device, FlowFrom, Quiet, Stride, Window
from vidtad.errors import InputError, VidtadError, unknown

if TYPE_CHECKING:
    from vidtad.pipelines.train.person import PeopleTrained
    from vidtad.pipelines.train.temporal import Trained

Show = Callable[[str, int, int, str], None]
FOR_SEGMENTS = frozenset(
    (
        "features",
        "extractor",
        "protocol",
        "fps",
        "stride",
        "window",
        "frame_rate",
        "decoder",
        "strict",
        "video_scores",
        "tensorboard",
        "flow_from",
    )
)
FOR_PEOPLE = frozenset({"start", "label_map", "trunk", "freeze_trunk"})


def train(
    ctx: typer.Context,
    annotations: Annotated[
        Path,
        typer.Option(
            help="Labels: ActivityNet JSON, CSV, ELAN, BORIS, VIA, Label Studio; a file or a folder. "
            "People: rows video,second,x1,y1,x2,y2,action."
        ),
    ],
    out: Annotated[Path, typer.Option(help="The bundle to write, such as mine.safetensors.")],
    videos: Annotated[Path | None, typer.Option(help="Folder of the labelled videos.")] = None,
    features: Annotated[
        Path | None, typer.Option(help="Folder (or HDF5 file) of features, instead of videos or to keep theirs in.")
    ] = None,
    model: Annotated[
        str,
        typer.Option(
            help="Kind of detector: react or actionformer (what happens when); linear, acar, acfb or "
            "action-transformer (people: who does it)."
        ),
    ] = "react",
    preset: Annotated[
        str | None,
        typer.Option(
            help="A published recipe: thumos14, ...; people: acar-r50, acar-r101 or action-transformer. Default: "
            "scaled to the data."
        ),
    ] = None,
    extractor: Annotated[str | None, typer.Option(help="Feature extractor for videos. Default: i3d.")] = None,
    weights: Annotated[
        str | None,
        typer.Option(
            help="Weights of the extractor (people: of the trunk): file, id, a bundle that holds them, `random`. "
            "Default: published ones."
        ),
    ] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Default: by the size of the data.")] = None,
    seed: Annotated[int, typer.Option(help="Of the split, the weights and the order of the data.")] = 0,
    val_fraction: Annotated[
        float | None,
        typer.Option(help="Share of videos to hold out. Default: the file's subsets, else 0.2; 0 holds out none."),
    ] = None,
    protocol: Annotated[str | None, typer.Option(help="Rules to score by. Default: thumos14.")] = None,
    video_scores: Annotated[
        Path | None,
        typer.Option(help="Class scores of whole videos (JSON) that name what a head of one class finds, in scoring."),
    ] = None,
    fps: Annotated[str | None, typer.Option(help="Resample videos; rate of features without a sidecar.")] = None,
    stride: Stride = None,
    window: Window = None,
    flow_from: FlowFrom = None,
    frame_rate: Annotated[
        float | None, typer.Option(min=0.1, help="Frames a second of labels that count frames (Label Studio).")
    ] = None,
    start: Annotated[
        str | None, typer.Option(help="People: a bundle to go on from; for acfb, an acar bundle that fills its bank.")
    ] = None,
    label_map: Annotated[
        Path | None, typer.Option(help="People: names of numbered actions (.pbtxt). Default: AVA's.")
    ] = None,
    trunk: Annotated[
        str | None, typer.Option(help="People: the network under the head, such as slowfast/ava or i3d/ava.")
    ] = None,
    freeze_trunk: Annotated[bool, typer.Option("--freeze-trunk", help="People: the head alone learns.")] = False,
    device: Device = "auto",
    precision: Annotated[
        str, typer.Option(help="Of learning: float32 or bf16; auto is bf16 on a GPU, float32 for presets and people.")
    ] = "auto",
    batch: Batch = 8,
    decoder: Decoder = "pyav",
    strict: Annotated[bool, typer.Option("--strict", help="Stop when the labels are not clean.")] = False,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Also write the curves for TensorBoard, beside the log.")
    ] = False,
    quiet: Quiet = False,
    json: AsJson = False,
) -> None:
    """Train a detector of your own classes: check labels, extract features, train, score, write one bundle.

    Features, checkpoints and the log are kept beside OUT, in OUT.work: run the same command again and it goes on
    where it stopped. Videos of one `group` stay on one side of the split. Options that begin with `People` are for
    detectors that say who does what.

    Example: vidtad train --videos clips --annotations labels.csv --out mine.safetensors
    """
    from vidtad.pipelines.extract.extraction import Decoding
    from vidtad.pipelines.train.temporal import Sampling, TrainingJob, Watcher, run_training
    from vidtad.runtime.devices import pick_device

    if preset is not None and "model" not in given(ctx):
        model = model_of(preset) or model
    people = is_for_people(model)
    refuse(given(ctx) & (FOR_SEGMENTS if people else FOR_PEOPLE), f"not for --model {model}")
    if out.suffix != ".safetensors":
        raise InputError(f"--out {out}: name the bundle with .safetensors at its end, as in {out.stem}.safetensors")
    check_places(out, 1, flow_from=flow_from)
    # Of the processes that torchrun starts, the first one alone talks.
    first = os.environ.get("RANK", "0") == "0"
    shared: dict[str, Any] = {
        "annotations": annotations,
        "out": out,
        "model": model,
        "weights": weights,
        "epochs": epochs,
        "seed": seed,
        "device": pick_device(device),
        "precision": precision,
        "batch": batch,
        "preset": preset,
    }
    with training_bar(quiet=quiet or json or not first) as progress, other_labels_told(annotations, model, people):
        if people:
            options = {"trunk": trunk, "label_map": label_map, "freeze_trunk": freeze_trunk}
            found = train_people(shared | options, videos, start, val_fraction, progress)
        else:
            job = TrainingJob(
                **shared,
                videos=videos,
                features=features,
                extractor=extractor,
                sampling=Sampling(parse_rate(fps, "--fps"), stride, window),
                val_fraction=val_fraction,
                protocol=protocol,
                frame_rate=frame_rate,
                decoding=Decoding(decoder),
                strict=strict,
                video_scores=video_scores,
                tensorboard=tensorboard,
                flow_from=flow_from,
            )
            result = run_training(job, Watcher(note if first else lambda sentence: None, progress))
    if not first:
        return
    if json:
        print_json(found.to_json() if people else result.to_json())
    elif people:
        show_people(found)
    else:
        show(result)


def model_of(preset: str) -> str | None:
    """The head of a recipe for people; None for another recipe."""
    from vidtad.heads.person.recipes import PEOPLE_PRESETS

    return PEOPLE_PRESETS[preset].model if preset in PEOPLE_PRESETS else None


def is_for_people(model: str) -> bool:
    """Whether the head says who does what. Raises InputError, with the near ones, for a name that no head has."""
    from vidtad.heads.registry import HEADS, trainable

    names = trainable()
    if model not in names:
        raise InputError(f"--model {model}: cannot be trained; {unknown('trainable head', model, names)}")
    return HEADS[model].tells_who


def bundle_file(name: str) -> Path:
    """The file behind `--start`: itself, or that of a bundle by its name, fetched where need be. Raises InputError."""
    from vidtad.heads.catalogue import bundle_path, resolve_model

    if bundle_path(name) is None:
        resolve_model(name)
    path = bundle_path(name)
    if path is None:
        raise InputError(f"--start {name}: no such bundle file")
    return path


def train_people(
    options: Mapping[str, Any], videos: Path | None, start: str | None, val_fraction: float | None, progress: Show
) -> "PeopleTrained":
    """Train a detector of people; `options` are further fields of `PeopleJob`. Raises InputError, RunError."""
    from vidtad.heads.person.job import PeopleJob
    from vidtad.pipelines.train.person import run_people_training

    if videos is None:
        raise InputError(f"--model {options['model']} learns from videos: pass --videos DIR")
    if start is not None and options["weights"] is not None:
        raise InputError("--start brings its weights: leave out --weights, or --start")
    if val_fraction is not None and not 0 <= val_fraction < 1:
        raise InputError(f"--val-fraction {val_fraction:g}: a share of the videos lies between 0 and 1")
    job = PeopleJob(
        **options,
        videos=videos,
        start=None if start is None else bundle_file(start),
        val_fraction=0.2 if val_fraction is None else val_fraction,
    )

    def update(record: Mapping[str, Any]) -> None:
        if "loss" in record:
            detail = f"epoch {record['epoch'] + 1}, loss {record['loss']:.3f}"
            progress("training", record["step"] + 1, record["steps"], detail)

    return run_people_training(job, update)


@contextmanager
def other_labels_told(annotations: Path, model: str, people: bool) -> Iterator[None]:
    """Where the block fails over labels of the other kind (what happens, or who does it), say so instead."""
    try:
        yield
    except InputError as error:
        from vidtad.formats.label_reading import read_labels
        from vidtad.formats.person_labels import read_person_labels

        try:
            if people:
                read_labels(annotations)
            else:
                read_person_labels(annotations)
        except VidtadError:
            raise error from None
        from vidtad.heads.registry import HEADS, trainable

        others = " or ".join(name for name in trainable() if HEADS[name].tells_who != people)
        raise InputError(
            f"{annotations}: labels of what happens when, not of who does it: train --model {others} on them; {model} "
            "learns from rows video,second,x1,y1,x2,y2,action"
            if people
            else f"{annotations}: rows of people and what each does: train --model {others} on them; {model} learns "
            "from segments"
        ) from error


@contextmanager
def training_bar(*, quiet: bool) -> Iterator[Show]:
    """A bar with the stage, the loss and the time left on a terminal; a line a minute elsewhere."""
    if quiet or not sys.stderr.isatty():
        from vidtad.cli.ticker import Ticker, watched

        tick = Ticker()
        yield tick if watched(quiet=quiet) else (lambda stage, done, total, detail: None)
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
    from vidtad.pipelines.train.report import NOTHING_RIGHT, blind_line, operating_line, published_table, trust

    for part, evaluation in result.scores.items():
        for finding in evaluation.findings:
            note(f"{part}: {finding.line()}")
        show_scores(evaluation)
        say(f"{part}: {trust(evaluation)}")
        say(f"{part}: {blind_line(evaluation, result.blind[part])}")
    if result.published is not None and result.scores:
        print_table(published_table(result.published, result.scores))
    if not result.scores:
        say("no video was held out: nothing is known of how well it does")
    if result.operating is not None:
        say(operating_line(result.operating))
    elif "validation" in result.scores:
        say(NOTHING_RIGHT)
    say(f"report: {result.report}; log: {result.log}")
    bundle = result.bundle
    videos = bundle.extractor_weights is not None or bundle.extractor_checkpoint is not None
    say(f"next: vidtad detect {'VIDEO' if videos else 'FEATURES'} --model {result.path}")


def show_people(result: "PeopleTrained") -> None:
    """The scores, and what to do next."""
    if result.scores is None:
        say("no video was held out: nothing is known of how well it does")
    else:
        show_scores(result.scores)
        held = ", ".join(result.held[:5]) + (f" and {len(result.held) - 5} more" if len(result.held) > 5 else "")
        say(f"validation: frame mAP at box IoU 0.5, given the labelled boxes, of {held}")
    say(f"log: {result.log}")
    say(f"next: vidtad detect VIDEO --model {result.path}")
