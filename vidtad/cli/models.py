"""`vidtad models`: the registry of detectors and extractor checkpoints."""

from pathlib import Path
from typing import Annotated, Any

import typer

from vidtad.cli.common import note, print_json, print_whole, progress_bar, say, visible
from vidtad.cli.options import AsJson, Quiet

models = typer.Typer(
    help="List, inspect, fetch and add detectors and checkpoints.", no_args_is_help=True, rich_markup_mode=None
)


@models.command("list")
def list_(
    cached: Annotated[bool, typer.Option("--cached", help="Only what is on this machine.")] = False,
    json: AsJson = False,
) -> None:
    """Every detector and checkpoint: task, size, licence, whether it is here.

    Example: vidtad models list --cached
    """
    from vidtad.heads.catalogue import list_models

    rows = [row for row in list_models() if row["cached"] or not cached]
    if json:
        print_json({"models": rows})
        return
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE)
    for heading in ("name", "task", "classes", "size", "licence", "here"):
        table.add_column(heading, justify="right" if heading in ("classes", "size") else "left", no_wrap=True)
    for row in rows:
        size = "" if row["size"] is None else f"{row['size'] / 1e6:.1f} MB"
        here = "built in" if row.get("builtin") else "yes" if row["cached"] else ""
        cells = (row["name"], row["task"], row["classes"] or "", size, row["licence"] or "", here)
        table.add_row(*(Text(visible(cell)) for cell in cells))
    print_whole(table)


@models.command()
def show(
    name: Annotated[str, typer.Argument(help="Name from `vidtad models list`, or a file.")], json: AsJson = False
) -> None:
    """Everything known of one model: source, licence, hash, layout, how to get it.

    Example: vidtad models show i3d-rgb-kinetics400
    """
    from vidtad.heads.catalogue import show as describe

    document = describe(name)
    if json:
        print_json(document)
        return
    for key, value in document.items():
        if value not in (None, "", [], {}):
            say(f"{key}: {plain(value)}")


@models.command()
def fetch(
    names: Annotated[list[str], typer.Argument(help="Names from `vidtad models list`.")],
    quiet: Quiet = False,
    json: AsJson = False,
) -> None:
    """Download checkpoints into the cache and verify them.

    Example: vidtad models fetch i3d-rgb-kinetics400
    """
    from vidtad.heads.catalogue import fetch_detector
    from vidtad.heads.registry import converters
    from vidtad.hub.download import fetch as fetch_file

    fetched = {}
    for name in names:
        with progress_bar(name, quiet=quiet) as progress:
            get = fetch_detector if name in converters() else fetch_file
            fetched[name] = str(get(name, progress=progress))
        if not json:
            say(fetched[name])
    if json:
        print_json({"fetched": fetched})


@models.command()
def add(
    file: Annotated[Path, typer.Argument(help="A bundle, or a checkpoint file in its authors' layout.")],
    name: Annotated[
        str | None, typer.Option("--as", help="Name to keep it under; a checkpoint's id for authors' files.")
    ] = None,
    json: AsJson = False,
) -> None:
    """Put a local file into the cache: a detector bundle, or a checkpoint you downloaded by hand.

    Example: vidtad models add epoch_20.pth --as react-thumos14
    """
    from vidtad.heads.catalogue import add as register

    added = register(file, name=name)
    for sentence in added.notes:
        note(sentence)
    if json:
        print_json({"name": added.name, "path": str(added.path), "notes": list(added.notes)})
    else:
        say(f"{added.name}: {added.path}")


@models.command()
def convert(
    file: Annotated[Path, typer.Argument(help="A checkpoint written by the authors' code, or by OpenTAD's.")],
    kind: Annotated[str, typer.Option("--from", help="react, actionformer or opentad.")],
    out: Annotated[Path, typer.Option(help="Bundle to write (.safetensors).")],
    preset: Annotated[str, typer.Option(help="What it was trained on: thumos14, epic100-verb, ...")] = "thumos14",
    classes: Annotated[
        Path | None, typer.Option(help="Text file of class names, one a line, in the order of the outputs.")
    ] = None,
    json: AsJson = False,
) -> None:
    """Turn a checkpoint into a detector bundle, also one you trained with the authors' code.

    Example: vidtad models convert epoch_034.pth.tar --from actionformer --preset thumos14 --out mine.safetensors
    """
    from dataclasses import replace

    from vidtad.formats.document import read_text
    from vidtad.heads.convert import convert_checkpoint
    from vidtad.hub.bundle import bundle_name, save_bundle

    names = None if classes is None else read_text(classes).split("\n")
    names = None if names is None else [name.strip() for name in names if name.strip()]
    bundle = replace(convert_checkpoint(file, kind, preset, names), name=bundle_name(out.stem))
    save_bundle(bundle, out)
    if json:
        print_json({"name": bundle.name, "path": str(out), "head": bundle.head, "classes": list(bundle.classes)})
    else:
        say(f"{out}: {bundle.head}, {len(bundle.classes)} classes")


def plain(value: Any) -> str:
    """Lists and documents on one line."""
    if isinstance(value, dict):
        return ", ".join(f"{key}={plain(inner)}" for key, inner in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(plain, value))
    return str(value)
