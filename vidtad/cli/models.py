"""`vidtad models`: the registry of detectors and extractor checkpoints."""

from pathlib import Path
from typing import Annotated

import typer

from vidtad.cli.common import note, print_json, progress_bar, say
from vidtad.cli.model_cards import show_card, show_list
from vidtad.cli.options import AsJson, Quiet
from vidtad.errors import InputError

models = typer.Typer(
    help="List, inspect, fetch and add detectors and checkpoints.", no_args_is_help=True, rich_markup_mode=None
)


@models.command("list")
def list_(
    cached: Annotated[bool, typer.Option("--cached", help="Only what is on this machine.")] = False,
    fetchable: Annotated[bool, typer.Option("--fetchable", help="Only what `models fetch` can download.")] = False,
    task: Annotated[str | None, typer.Option(help="Only one task, by its name or the beginning of it.")] = None,
    json: AsJson = False,
) -> None:
    """Every detector and checkpoint, by task: classes, size, licence, how to get it, by what it is verified.

    Example: vidtad models list --task temporal --fetchable
    """
    from vidtad.heads.catalogue import list_models

    rows = [row for row in list_models() if (row["cached"] or not cached) and (row["fetchable"] or not fetchable)]
    if task is not None:
        tasks = sorted({row["task"] for row in list_models() if row["task"]})
        wanted = [known for known in tasks if known.startswith(task.strip().lower())]
        if not task.strip() or not wanted:
            raise InputError(f"--task {task}: no such task; there are {', '.join(tasks)}")
        rows = [row for row in rows if row["task"] in wanted]
    if json:
        print_json({"models": rows})
    elif rows:
        show_list(rows)
    else:
        say("no model is like that; leave out --task, --cached or --fetchable")


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
    else:
        show_card(document)


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
