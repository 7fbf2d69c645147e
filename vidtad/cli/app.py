"""The Typer application: global behaviour, and the commands of each module."""

import io
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from vidtad import __version__
from vidtad.cli.adopt import adopt
from vidtad.cli.common import note
from vidtad.cli.completion import with_completion
from vidtad.cli.convert import convert
from vidtad.cli.demo import demo
from vidtad.cli.detect import detect
from vidtad.cli.ensemble import ensemble
from vidtad.cli.evaluate import evaluate
from vidtad.cli.extract import extract
from vidtad.cli.info import info
from vidtad.cli.interrupts import code_of, ends_on_interrupt, first_to_say, number_of, sentence_of
from vidtad.cli.labels import labels
from vidtad.cli.models import models
from vidtad.cli.overlay import clips, overlay
from vidtad.cli.report import report
from vidtad.cli.synth import synth
from vidtad.cli.train import train
from vidtad.errors import InputError, VidtadError, out_of_memory
from vidtad.plugins import PluginWarning


class _Group(TyperGroup):
    """Turns what commands raise into one sentence on stderr and an exit code; never a traceback."""

    def invoke(self, ctx: Any) -> Any:
        if isinstance(sys.stdout, io.TextIOWrapper):  # a character that the terminal does not know ends no run
            sys.stdout.reconfigure(errors="backslashreplace")
        try:
            with _plugin_warnings():
                return super().invoke(ctx)
        except VidtadError as error:
            _fail(str(error), 2 if isinstance(error, InputError) else 1)
        except KeyboardInterrupt as error:
            number = number_of(error)
            if first_to_say():
                note(sentence_of(number))
            raise typer.Exit(code_of(number)) from None
        except BrokenPipeError:  # the reader of our output went away, as `head` does
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(1) from None
        except OSError as error:
            _fail(f"{error.filename or 'file system'}: {error.strerror or error}", 1)
        except Exception as error:
            if os.environ.get("VIDTAD_TRACEBACK") or isinstance(error, typer.Exit | typer.Abort):
                raise
            if type(error).__module__.partition(".")[0] in ("typer", "click"):  # usage errors print themselves
                raise
            if out_of_memory(error):
                _fail("out of memory; try a smaller --batch, or --device cpu where it was a GPU's", 1)
            _fail(f"internal error ({type(error).__name__}: {error}); set VIDTAD_TRACEBACK=1 to see where", 1)


@contextmanager
def _plugin_warnings() -> Iterator[None]:
    """What is said of plug-ins that were left out goes to the user as one line; other warnings as before."""
    with warnings.catch_warnings():
        warnings.simplefilter("always", PluginWarning)
        before = warnings.showwarning

        def show(message: Any, category: type[Warning], *where: Any, **more: Any) -> None:
            if issubclass(category, PluginWarning):
                note(" ".join(str(message).split()))
            else:
                before(message, category, *where, **more)

        warnings.showwarning = show
        yield


def _fail(sentence: str, code: int) -> None:
    note(" ".join(sentence.split()))
    raise typer.Exit(code)


app = typer.Typer(
    name="vidtad",
    cls=_Group,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"vidtad {__version__}")
        raise typer.Exit()


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    """From a raw video to a timeline of what happens, when, and who does it."""


for command in (extract, detect, train, evaluate, report, overlay, clips, convert, adopt, ensemble, demo, synth, info):
    app.command()(with_completion(command))
for group, name in ((labels, "labels"), (models, "models")):
    for entry in group.registered_commands:
        if entry.callback is not None:
            with_completion(entry.callback, f"{name}.{entry.name or entry.callback.__name__}")
    app.add_typer(group, name=name)


def main() -> None:
    """Entry point of the `vidtad` command."""
    with ends_on_interrupt():
        app(prog_name="vidtad")  # also for `python -m vidtad`, whose completion is that of `vidtad`
