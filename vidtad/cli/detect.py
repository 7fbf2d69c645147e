"""`vidtad detect`: videos or feature files to timelines."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vidtad.cli.common import (
    FEATURE_SUFFIX,
    VIDEO_SUFFIXES,
    check_places,
    console,
    find_inputs,
    finish_batch,
    given,
    make_setup,
    note,
    parse_rate,
    print_json,
    print_whole,
    refuse,
    run_batch,
    say,
    take_shard,
    visible,
)
from vidtad.cli.options import (
    ActionScore,
    Address,
    AsJson,
    Boxes,
    BoxesOffset,
    Decoder,
    Device,
    Engine,
    Every,
    Flip,
    FlowFrom,
    Overwrite,
    Persons,
    PersonScore,
    PersonsWeights,
    Precision,
    Quiet,
    Ranges,
    Scales,
    Shard,
    Strict,
    Stride,
    Threads,
    Window,
    Workers,
)
from vidtad.errors import InputError

if TYPE_CHECKING:
    from vidtad.heads.person.options import PeopleOptions
    from vidtad.hub.bundle import Bundle
    from vidtad.pipelines.batches.tasks import Detected
    from vidtad.timeline import PersonBox, Timeline

FOR_PEOPLE = frozenset(
    {"persons", "persons_weights", "boxes", "boxes_offset", "every", "scales", "flip", "person_score", "action_score"}
)
FOR_FEATURES = frozenset({"stride", "window"})


def detect(
    ctx: typer.Context,
    inputs: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Videos, feature files (.npy, .npz, HDF5, .csv), or folders of either. Default: the folder `features`."
        ),
    ] = None,
    model: Annotated[str, typer.Option(help="Detector: a name of `vidtad models list`, or a bundle file.")] = "react",
    out: Annotated[
        str | None,
        typer.Option(help="Folder for the timelines; `-` prints the JSON alone. Default: timelines/DETECTOR."),
    ] = None,
    weights: Annotated[
        str | None, typer.Option(help="Extractor weights instead of the bundle's: file, id or `random`.")
    ] = None,
    formats: Annotated[
        str | None, typer.Option("--format", help="Also write these, separated by commas: srt, elan, cvat, ava, ...")
    ] = None,
    min_score: Annotated[float, typer.Option(help="Leave out segments under this score.")] = 0.0,
    fps: Annotated[
        str | None, typer.Option(help="Rate of videos that state none, and of feature files without a sidecar.")
    ] = None,
    stride: Stride = None,
    window: Window = None,
    flow_from: FlowFrom = None,
    persons: Persons = None,
    persons_weights: PersonsWeights = None,
    boxes: Boxes = None,
    boxes_offset: BoxesOffset = None,
    every: Every = None,
    scales: Scales = None,
    flip: Flip = False,
    person_score: PersonScore = None,
    action_score: ActionScore = None,
    device: Device = "auto",
    precision: Precision = "auto",
    batch: Annotated[
        int | None,
        typer.Option(min=1, help="Windows (8) or, for people, keyframes (2) through the network at a time."),
    ] = None,
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
    """Find what happens when, and who does it: one timeline (.json and .csv) a video, and a table.

    Feature files without a sidecar are taken for the detector's own kind, unless --fps, --stride and --window say
    otherwise. Options that begin with `People` are for detectors that say who does what: linear, acar, acfb,
    action-transformer.

    Example: vidtad detect match.mp4 --model react --out timelines
    """
    from vidtad.heads.registry import head_of
    from vidtad.pipelines.batches.tasks import DetectTask
    from vidtad.pipelines.detect.dispatch import bundle_for
    from vidtad.pipelines.detect.worker import Job, check_flow
    from vidtad.pipelines.extract.extraction import Decoding

    default = Path("features")
    if inputs is None and not default.is_dir():
        raise InputError("nothing to detect in: name a video, or run `vidtad extract` first (it fills `features`)")
    wanted = check_formats(formats, out)
    rate = parse_rate(fps, "--fps")
    paths = find_inputs(inputs or [default], VIDEO_SUFFIXES | {FEATURE_SUFFIX}, "video or feature file")
    bundle, hint = bundle_for(model, weights)
    if hint:
        note(hint)
    check_people(bundle, wanted)
    earlier = Path("timelines") if out is None else None
    out = str(Path("timelines") / bundle.name) if out is None else out
    people = people_options(
        bundle,
        given(ctx),
        persons=persons,
        persons_weights=persons_weights,
        boxes=boxes,
        boxes_offset_s=boxes_offset,
        every_s=every,
        scales=parse_scales(scales),
        flip=flip,
        person_score=person_score,
        action_score=action_score,
        batch=batch,
    )
    check_sampling(paths, bundle, given(ctx))
    paths = take_shard(paths, shard)
    job = Job(
        out=None if out == "-" else Path(out),
        earlier=earlier,
        weights=weights,
        min_score=min_score,
        stride=stride,
        window=window,
        decoding=Decoding(decoder, rate, strict),
        batch=batch or 8,
        overwrite=overwrite,
        precision=precision,
        flow_from=flow_from,
    )
    if ranges > 1 and head_of(bundle).feeds != "features":
        raise InputError(f"--ranges divides the features of a video; {bundle.name} has none: leave it out")
    results = Results(Path(out), wanted, as_json=json or out == "-", several=len(paths) > 1)
    check_places(Path(out), ranges, flow_from=flow_from)
    check_flow(bundle, job, paths)
    setup = make_setup(engine, workers, threads, address, device, ranges)
    failed = run_batch(paths, DetectTask(model, bundle.sha256, job, people), setup, results, quiet=quiet)
    results.close(paths, failed)
    finish_batch(len(paths), failed)


class Results:
    """What becomes of finished timelines: other formats, and a table each, or one JSON document in the end."""

    def __init__(self, out: Path, formats: Sequence[str], *, as_json: bool, several: bool = False) -> None:
        self.out, self.formats, self.as_json, self.several = out, formats, as_json, several
        self.done: dict[Path, Timeline] = {}
        self.facts: dict[Path, tuple[str, ...]] = {}
        self.said: set[str] = set()

    def __call__(self, path: Path, found: "Detected") -> None:
        """One timeline is there."""
        from vidtad.runtime.remote import folder_for

        timeline = found.timeline
        for warning in timeline.detector["warnings"]:
            if warning not in self.said:  # what holds for all of a batch is said once
                note(warning)
            self.said.add(warning)
        if timeline.detector.get("random_weights"):
            note(f"{path}: random weights, a dry run: the segments carry no meaning")
        if self.formats:
            from vidtad.formats.interchange import write_formats
            from vidtad.pipelines.export import times_for

            with folder_for(self.out) as folder:
                write_formats(timeline, folder, self.formats, times_for(timeline, self.formats))
        if self.as_json:
            self.done[path] = timeline
        elif self.several:
            self.facts[path] = batch_row(timeline, found)
        else:
            show(timeline, found.display_score, self.out)

    def close(self, paths: Sequence[Path], failed: dict[str, str]) -> None:
        """All are over."""
        if not self.as_json:
            if self.several:
                rows = [(str(path), *self.facts.get(path, ("failed", "", "", "", ""))) for path in paths]
                print_batch(rows, self.out)
            return
        from vidtad.timeline import merge

        done = [self.done[path] for path in paths if path in self.done]
        document: dict[str, Any] = merge(done).to_json() if done or failed else {}
        print_json(document | {"failed": failed} if failed else document)


def batch_row(timeline: "Timeline", found: "Detected") -> tuple[str, ...]:
    """What the table of a batch says of one timeline: made or kept, segments, shown, the surest class, seconds."""
    segments = [s for each in timeline.results.values() for s in each]
    shown = [s for each in timeline.at_least(found.display_score).results.values() for s in each]
    best = max(shown, key=lambda s: s.score, default=None)
    surest = "" if best is None else f"{best.label} at {clock(best.start_s)}"
    return "kept" if found.kept else "made", str(len(segments)), str(len(shown)), surest, f"{found.seconds:.1f}"


def print_batch(rows: "Sequence[tuple[str, ...]]", out: Path) -> None:
    """The table that ends a batch: a row an input, in their order."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from vidtad.runtime.remote import shown

    table = Table(box=box.SIMPLE)
    for heading in ("input", "state", "segments", "shown", "surest", "seconds"):
        numeric = heading in ("segments", "shown", "seconds")
        table.add_column(heading, justify="right" if numeric else "left", no_wrap=numeric)
    for row in rows:
        table.add_row(*(Text(visible(cell)) for cell in row), style="bold" if row[1] == "failed" else None)
    print_whole(table)
    say(f"timelines: {shown(out)}")


def people_options(bundle: "Bundle", asked: frozenset[str], **options: Any) -> "PeopleOptions | None":
    """What was asked of a detector of people, None for another. Raises InputError for what the detector does not know.

    asked: names of the parameters that the user gave. options: fields of `PeopleOptions`, None for their defaults.
    """
    from vidtad.heads.registry import head_of

    if not head_of(bundle).tells_who:
        refuse(
            asked & FOR_PEOPLE,
            f"only for detectors that say who does what; {bundle.name} says what happens when",
        )
        return None
    refuse(asked & FOR_FEATURES, f"only for feature files; {bundle.name} looks at people in videos")
    from vidtad.heads.person.options import PeopleOptions

    return PeopleOptions(**{name: value for name, value in options.items() if value is not None})


def check_sampling(paths: Sequence[Path], bundle: "Bundle", asked: frozenset[str]) -> None:
    """Raise InputError for --stride and --window where no features are that could be without a sidecar."""
    from vidtad.arrays import is_array

    if not any(map(is_array, paths)):
        refuse(asked & FOR_FEATURES, f"only for feature files; videos are sampled as {bundle.name} learned from them")


def check_people(bundle: "Bundle", formats: Sequence[str]) -> None:
    """Raise InputError for formats of person boxes that the detector has none for."""
    from vidtad.heads.registry import head_of

    if "ava" in formats and not head_of(bundle).tells_who:
        raise InputError(
            f"--format ava: holds person boxes, and {bundle.name} says what happens when, not who does it; leave it out"
        )


def parse_scales(text: str | None) -> tuple[int, ...] | None:
    """`256,288,320` as numbers. Raises InputError."""
    if text is None:
        return None
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdigit() for part in parts):
        raise InputError(f"--scales {text}: write short sides in pixels, such as 256,288,320")
    return tuple(map(int, parts))


def check_formats(text: str | None, out: str | None) -> tuple[str, ...]:
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
    from vidtad.runtime.remote import shown

    for name, above in timeline.at_least(threshold).results.items():
        segments = timeline.results[name]
        chosen = sorted(sorted(above, key=lambda s: -s.score)[:most], key=lambda s: s.start_s)
        people = timeline.people.get(name)
        table = Table(box=box.SIMPLE, title=Text(visible(name)), title_justify="left")
        for heading in (*(("person",) if people is not None else ()), "start", "end", "action", "score"):
            table.add_column(heading, justify="left" if heading == "action" else "right")
        for s in chosen:
            who = () if people is None else ("" if s.track is None else str(s.track),)
            table.add_row(*who, clock(s.start_s), clock(s.end_s), Text(visible(s.label)), f"{s.score:.2f}")
        if chosen:
            console().print(table)
            if console().is_terminal:
                ascii_only = console().options.ascii_only
                for line in render(timeline, console().width, threshold, ascii_only=ascii_only):
                    console().print(line)
        where = "" if out is None else f"; all in {shown(out / name)}.json and .csv"
        seen = "" if people is None else f"; {counted(people)}"
        say(f"{name}: {len(chosen)} of {len(segments)} segments shown (score >= {threshold:g}){seen}{where}")


def counted(people: "Sequence[PersonBox]") -> str:
    """How many people were seen how often, in words."""
    if not people:
        return "nobody was found"
    tracks, moments = {person.track for person in people}, {person.time_s for person in people}
    return (
        f"{len(tracks)} {'person' if len(tracks) == 1 else 'people'} at "
        f"{len(moments)} keyframe{'' if len(moments) == 1 else 's'}"
    )


def clock(seconds: float) -> str:
    """h:mm:ss.s, hours only where there are any."""
    minutes, rest = divmod(round(seconds, 1), 60)
    hours, minutes = divmod(int(minutes), 60)
    return f"{hours}:{minutes:02d}:{rest:04.1f}" if hours else f"{minutes}:{rest:04.1f}"
