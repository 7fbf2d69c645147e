"""What several commands share: consoles, progress bars, lists of inputs, the outcome of a batch."""

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import typer

from vidtad.errors import InputError, VidtadError
from vidtad.files import VIDEO_SUFFIXES as VIDEO_SUFFIXES

if TYPE_CHECKING:
    from rich.console import Console

FEATURE_SUFFIX = ".npy"

T = TypeVar("T")
ReportProgress = Callable[[int, "int | None"], None]


def note(sentence: str) -> None:
    """One line for the user, beside the results."""
    typer.echo(f"vidtad: {sentence}", err=True)


def print_json(document: Any) -> None:
    """The one JSON document of a `--json` run."""
    typer.echo(json.dumps(document, ensure_ascii=False, allow_nan=False, indent=1))


def console() -> "Console":
    """Where tables go."""
    from rich.console import Console

    return Console() if sys.stdout.isatty() else Console(width=140)


def parse_rate(text: str | None, option: str) -> Fraction | None:
    """A frame rate such as 25, 29.97 or 30000/1001. Raises InputError."""
    if text is None:
        return None
    try:
        rate = Fraction(text)
    except (ValueError, ZeroDivisionError) as error:
        raise InputError(f"{option} {text}: not a frame rate; write it like 25 or 30000/1001") from error
    if not 0 < rate <= 1000:
        raise InputError(f"{option} {text}: a frame rate lies above 0 and at most at 1000")
    return rate


def find_inputs(paths: Iterable[Path], suffixes: frozenset[str], what: str) -> list[Path]:
    """The files themselves, and the files of folders that look right by their suffix, in order.

    Raises InputError for a missing path, an empty folder, or two files whose results would share a name.
    """
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = sorted(p for p in path.iterdir() if p.suffix.lower() in suffixes and not p.name.startswith("."))
            if not inside:
                raise InputError(f"{path}: no {what} in this folder")
            found += inside
        elif path.exists():
            found.append(path)
        else:
            raise InputError(f"{path}: no such file or folder")
    by_stem: dict[str, Path] = {}
    for path in found:
        other = by_stem.setdefault(path.stem, path)
        if other != path:
            raise InputError(f"{other} and {path} would both be written as {path.stem!r}; rename one or run them apart")
    return list(by_stem.values())


@contextmanager
def progress_bar(title: str, *, quiet: bool) -> Iterator[ReportProgress]:
    """A bar with frames, frames a second and time left, on a terminal; silence in a pipe or when `quiet`."""
    if quiet or not sys.stderr.isatty():
        yield lambda done, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn
    from rich.text import Text

    class Speed(ProgressColumn):
        def render(self, task: Any) -> Text:
            return Text("" if task.speed is None else f"{task.speed:.1f}/s")

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), Speed(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=None if total is None else max(done, total))


def run_batch(items: Sequence[T], name: Callable[[T], str], work: Callable[[T], None]) -> dict[str, str]:
    """Do `work` for every item; a bad one never stops the rest. Returns {name: reason} of those that failed.

    A single item raises its own error, so that its kind decides the exit code.
    """
    if len(items) == 1:
        work(items[0])
        return {}
    failed: dict[str, str] = {}
    misuse = 0
    for item in items:
        try:
            work(item)
        except VidtadError as error:
            failed[name(item)] = str(error)
            misuse += isinstance(error, InputError)
            note(str(error))
    if items and misuse == len(items):
        raise InputError(f"none of the {len(items)} inputs could be used; each reason is given above")
    return failed


def finish_batch(total: int, failed: dict[str, str]) -> None:
    """Exit code 1 with a count when some items failed."""
    if failed:
        note(f"{len(failed)} of {total} failed: {', '.join(failed)}; the others are done")
        raise typer.Exit(1)
