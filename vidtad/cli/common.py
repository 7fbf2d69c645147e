"""What several commands share: consoles, progress bars, lists of inputs, the outcome of a batch."""

import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from vidtad.errors import InputError, RunError, VidtadError
from vidtad.runtime.files import VIDEO_SUFFIXES as VIDEO_SUFFIXES
from vidtad.runtime.files import fraction_of
from vidtad.secrecy import masked

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as Bars
    from rich.table import Table as RichTable

    from vidtad.evaluation.tables import Table
    from vidtad.pipelines.batches.local import Item, Setup, Task, Watch

_BREAK = re.compile(r"\s*[\r\n\v\f\x1c-\x1e\x85\u2028\u2029]\s*")
_CONTROL = re.compile("[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")
FEATURE_SUFFIX = ".npy"

MOST_NAMED = 5
"""Files, and folders, that a sentence names before it counts the rest."""
ReportProgress = Callable[[int, "int | None"], None]


def visible(text: object) -> str:
    """One line of text for a terminal: what in names and labels could rewrite what it shows, as `\\x1b`.

    That is control characters, breaks of lines, and turns of the direction of writing. Passwords and signatures in
    addresses are masked.
    """
    return _CONTROL.sub(_escape, masked(str(text)))


def _escape(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"


def say(text: object, *, err: bool = False) -> None:
    """A line of results, or on standard error."""
    typer.echo(visible(text), err=err)


def note(sentence: str) -> None:
    """One line for the user, beside the results."""
    say(f"vidtad: {_BREAK.sub(' ', sentence)}", err=True)


def print_json(document: Any) -> None:
    """The one JSON document of a `--json` run."""
    plain = "utf" not in (sys.stdout.encoding or "").lower()
    typer.echo(masked(json.dumps(document, ensure_ascii=plain, allow_nan=False, indent=1)))


def console() -> "Console":
    """Where tables go."""
    from rich.console import Console

    return Console() if sys.stdout.isatty() else Console(width=140)


def print_table(content: "Table", *, bold: str | None = None) -> None:
    """A table of text, its line below; the row whose first cell is `bold` stands out."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE, title=Text(visible(content.title)), title_justify="left")
    for number, heading in enumerate(content.header):
        table.add_column(Text(heading), justify="right" if number else "left", no_wrap=number > 0)
    for row in content.rows:
        table.add_row(*(Text(visible(cell)) for cell in row), style="bold" if row[0] == bold else None)
    print_whole(table)
    if content.note:
        for line in content.note.split("\n"):
            say(line)


def print_whole(table: "RichTable") -> None:
    """Print with no number cut: on a terminal that is too narrow the columns move together, then lines run on.

    Columns that are not to be wrapped keep their width; the others take what is left, and their longest word.
    """
    where = console()
    endless = where.options.update(width=10_000)
    for column in table.columns:
        if column.no_wrap:
            cells = (column.header, *column.cells)
            column.min_width = max(where.measure(cell, options=endless).maximum for cell in cells)
    if where.measure(table, options=endless).minimum > where.width:
        table.padding = (0, 0)
        where.width = max(where.width, where.measure(table, options=endless).minimum)
    where.print(table)


def given(ctx: typer.Context) -> frozenset[str]:
    """Names of the options that the user wrote, as opposed to those that stand at their default."""
    sources = {name: ctx.get_parameter_source(name) for name in ctx.params}
    return frozenset(name for name, source in sources.items() if source is not None and source.name == "COMMANDLINE")


def refuse(options: Iterable[str], why: str) -> None:
    """Raise InputError for options that do not apply, by their parameters' names; none is fine."""
    named = sorted(f"--{option.replace('_', '-')}" for option in options)
    if named:
        raise InputError(f"{', '.join(named)}: {why}")


def parse_rate(text: str | None, option: str) -> Fraction | None:
    """A frame rate such as 25, 29.97 or 30000/1001. Raises InputError."""
    if text is None:
        return None
    from vidtad.video.clock import possible

    try:
        rate = fraction_of(text)
    except (ValueError, ZeroDivisionError) as error:
        raise InputError(f"{option} {text[:40]}: not a frame rate; write it like 25 or 30000/1001") from error
    if not possible(rate):
        raise InputError(f"{option} {text}: a frame rate lies from 0.00001 to 100000")
    return rate


def find_inputs(paths: Iterable[Path], suffixes: frozenset[str], what: str) -> list[Path]:
    """The files themselves, and the files of folders that look right by their suffix, in order; elsewhere too.

    Where feature files are among `suffixes`, a folder with none of these may hold features of other formats.
    Raises InputError for a missing path, an empty folder, or two files whose results would share a name.
    """
    from vidtad.arrays import arrays_among, arrays_in, file_of, video_of
    from vidtad.runtime import remote

    found: list[Path] = []
    for path in paths:
        if remote.url_of(path) is not None:
            found += remote.find(path, suffixes)
        elif path.is_dir():
            files = sorted(p for p in path.iterdir() if not p.name.startswith("."))
            inside = [p for p in files if p.suffix.lower() in suffixes and p.is_file()]
            if not inside and FEATURE_SUFFIX in suffixes:
                inside = arrays_among(files)
            passed = passed_over(files, inside)
            if not inside:
                raise InputError(f"{path}: no {what} in this folder{f' ({passed} there)' if passed else ''}")
            if passed:
                note(f"{path}: passed over {passed}; name what is to be taken too")
            found += inside
        elif file_of(path).exists():
            found += arrays_in(path) if FEATURE_SUFFIX in suffixes else [path]
        else:
            raise InputError(f"{path}: no such file or folder")
    by_name: dict[str, Path] = {}
    for path in found:
        name = video_of(path)
        other = by_name.setdefault(name, path)
        if other != path:
            raise InputError(f"{other} and {path} would both be written as {name!r}; rename one or run them apart")
    return list(by_name.values())


def passed_over(files: Sequence[Path], taken: Sequence[Path]) -> str:
    """Files and folders inside a folder that were not taken, in words; what belongs to one that was is no news."""
    from vidtad.arrays import file_of

    used = {file_of(path) for path in taken}
    stems = {path.stem for path in used}
    others = [path for path in files if path not in used and not (path.is_file() and path.stem in stems)]
    folders = [f"{path.name}/" for path in others if path.is_dir()]
    names = [path.name for path in others if not path.is_dir()]
    listed = [*names[:MOST_NAMED], *folders[:MOST_NAMED]]
    more = len(names) + len(folders) - len(listed)
    return ", ".join(listed) + (f" and {more} more" if more else "")


def check_places(out: Path, ranges: int, keep_flow: Path | None = None, flow_from: Path | None = None) -> None:
    """Raise InputError for folders elsewhere that have to be on this machine, or shared by all; for flow of ranges."""
    from vidtad.runtime.remote import shown, url_of

    for option, verb, folder in (("--keep-flow", "keeps", keep_flow), ("--flow-from", "reads", flow_from)):
        if folder is None:
            continue
        if url_of(folder) is not None:
            raise InputError(f"{option} {shown(folder)}: name a folder on this machine")
        if ranges > 1:
            raise InputError(f"{option} {verb} the flow of whole videos: leave out --ranges")
    if ranges > 1 and url_of(out) is not None:
        raise InputError(f"--out {shown(out)}: with --ranges, name a folder that all workers share")


@contextmanager
def progress_bar(title: str, *, quiet: bool) -> Iterator[ReportProgress]:
    """A bar with frames, frames a second and time left on a terminal, a line a minute elsewhere; `quiet`: silence."""
    if quiet or not sys.stderr.isatty():
        from vidtad.cli.ticker import Ticker, watched

        tick = Ticker()
        yield (lambda done, total: tick(visible(title), done, total)) if watched(quiet=quiet) else _silent
        return
    with _bars() as bar:
        task = bar.add_task(visible(title), total=None)
        yield lambda done, total: bar.update(task, completed=done, total=None if total is None else max(done, total))


def _silent(done: int, total: int | None) -> None:
    """Progress that nobody watches."""


def _bars() -> "Bars":
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn
    from rich.text import Text

    class Speed(ProgressColumn):
        def render(self, task: Any) -> Text:
            return Text("" if task.speed is None else f"{task.speed:.1f}/s")

    name = TextColumn("{task.description}", markup=False)
    # Results printed meanwhile go above the bars, but a pipe or file gets them as they are.
    return Progress(
        *(name, BarColumn(), MofNCompleteColumn(), Speed(), TimeRemainingColumn()),
        console=Console(stderr=True),
        transient=True,
        redirect_stdout=sys.stdout.isatty(),
    )


def run_batch(
    paths: Sequence[Path], task: "Task", setup: "Setup", done: Callable[[Path, Any], None], *, quiet: bool
) -> dict[str, str]:
    """Do `task` for every path; `done(path, value)` is called as each ends. Returns {path: reason} of what failed.

    A bad item never stops the rest, nor does one that `done` raises a VidtadError for; when nothing more can be
    written, those after it have failed too. A single one raises its own error, so that its kind decides the exit code.
    """
    from vidtad.pipelines.batches.local import unwritable
    from vidtad.pipelines.batches.run import run

    failed: dict[str, str] = {}
    left = dict.fromkeys(paths)

    def over(path: Path, sentence: str) -> None:
        failed[str(path)] = sentence
        note(sentence if str(path) in sentence else f"{path}: {sentence}")

    with batch_bars(len(paths), quiet=quiet) as (watch, advance), closing(run(paths, task, setup, watch)) as records:
        for record in records:
            advance(record.path)
            left.pop(record.path, None)
            if record.status != "done":
                if len(paths) == 1:
                    raise (InputError if record.misuse else RunError)(record.error)
                over(record.path, record.error)
                continue
            try:
                done(record.path, record.value)
            except VidtadError as error:
                if len(paths) == 1:
                    raise
                over(record.path, str(error))
                if unwritable(error):
                    for path in left:
                        over(path, f"{path}: not begun, because nothing more can be written")
                    break
    return {str(path): failed[str(path)] for path in paths if str(path) in failed}


@contextmanager
def batch_bars(total: int, *, quiet: bool) -> Iterator[tuple["Watch", Callable[[Path], None]]]:
    """How many items are over, and a bar of frames for each worker's current one; elsewhere a line a minute."""
    if quiet or not sys.stderr.isatty():
        from vidtad.cli.ticker import Ticker, watched

        tick, over = Ticker(), set[Path]()

        def watch_lines(worker: int, path: "Item", done: int, expected: int | None) -> None:
            if watched(quiet=quiet):
                tick(visible(path.name), done, expected, f"{len(over)} of {total} done" if total > 1 else "")

        yield watch_lines, over.add
        return
    with _bars() as bar:
        overall = bar.add_task("all", total=total) if total > 1 else None
        rows: dict[int, Any] = {}
        current: dict[int, Item] = {}

        def watch(worker: int, path: "Item", done: int, expected: int | None) -> None:
            if worker not in rows:
                rows[worker] = bar.add_task("", total=None)
            if current.get(worker) != path:  # speed and time left are those of one item
                current[worker] = path
                bar.reset(rows[worker], total=None)
            most = None if expected is None else max(done, expected)
            name = path.name if len(path.name) <= 40 else f"{path.name[:39]}…"
            bar.update(rows[worker], description=visible(name), completed=done, total=most)

        def advance(path: Path) -> None:
            if overall is not None:
                bar.advance(overall)

        yield watch, advance


def make_setup(
    engine: str, workers: int | None, threads: int | None, address: str | None, device: str, ranges: int = 1
) -> "Setup":
    """Who does the work, from the command line's options. Raises InputError for what cannot be."""
    from vidtad.pipelines.batches.local import Setup

    if engine not in ("local", "ray"):
        raise InputError(f"--engine {engine}: no such engine; there are local and ray")
    if engine == "ray":
        where = address or os.environ.get("RAY_ADDRESS")
        note(f"joining the Ray cluster at {where}" if where else "starting a Ray of its own on this machine")
        return Setup("ray", workers, (device,), threads, address, ranges=ranges)
    if address is not None:
        raise InputError("--address names a Ray cluster: say --engine ray too")
    from vidtad.runtime.devices import all_devices, pick_device

    devices = (pick_device(device),) if workers is None else all_devices(device)
    return Setup("local", workers, devices, threads, ranges=ranges)


def take_shard(paths: list[Path], shard: str | None) -> list[Path]:
    """The part of the inputs that `--shard i/n` names; all without it. Raises InputError."""
    if shard is None:
        return paths
    from vidtad.pipelines.batches.run import parse_shard, shard_of

    part, parts = parse_shard(shard)
    mine = [path for path in paths if shard_of(path, parts) == part]
    note(f"shard {shard}: {len(mine)} of {len(paths)} inputs")
    return mine


def finish_batch(total: int, failed: dict[str, str]) -> None:
    """Exit code 1 with a count when some items failed."""
    if failed:
        rest = "; the others are done" if len(failed) < total else ""
        note(f"{len(failed)} of {total} failed: {', '.join(failed)}{rest}")
        raise typer.Exit(1)
