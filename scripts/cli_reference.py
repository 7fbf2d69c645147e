"""Write the reference of the command line: `python scripts/cli_reference.py OUT.md`, from the application itself."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from vidtad.cli import app


def commands(command: Any, name: str) -> Iterator[tuple[str, Any]]:
    """(full name, command) of every command, groups opened."""
    inner = getattr(command, "commands", None)
    if inner is None:
        yield name, command
        return
    for word in sorted(inner):
        yield from commands(inner[word], f"{name} {word}")


def section(name: str, command: Any) -> str:
    """The Markdown of one command."""
    lines = [f"## {name}", "", plain(command.help), "", "| option | what it does |", "|---|---|"]
    for parameter in command.params:
        if getattr(parameter, "hidden", False) or parameter.name == "help":
            continue
        said = plain(getattr(parameter, "help", None)).replace("\n\n", " ").replace("|", "\\|")
        lines.append(f"| {names(parameter)} | {said} |")
    return "\n".join([*lines, ""])


def names(parameter: Any) -> str:
    """How a parameter is written."""
    if parameter.param_type_name == "argument":
        return f"`{(parameter.metavar or parameter.name).upper()}`"
    given = ", ".join([*parameter.opts, *parameter.secondary_opts])
    return f"`{given}`{' (required)' if parameter.required else ''}"


def plain(text: str | None) -> str:
    """Paragraphs of a help text, each on one line; an example as code, words in angle brackets as they are."""
    paragraphs = [" ".join(part.split()) for part in (text or "").replace("\b", "").split("\n\n")]
    shown = []
    for paragraph in filter(None, paragraphs):
        head, colon, example = paragraph.partition("Example: ")
        shown.append(f"{head}Example: `{example}`" if colon else paragraph.replace("<", "&lt;"))
    return "\n\n".join(shown)


def reference() -> str:
    """The whole page."""
    group = typer.main.get_command(app)
    head = "# All commands and options\n\nWritten by `scripts/cli_reference.py` from the program itself.\n"
    return "\n".join([head, *(section(*entry) for entry in commands(group, "vidtad"))]).rstrip() + "\n"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(reference())
