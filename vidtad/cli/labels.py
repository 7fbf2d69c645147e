"""`vidtad labels`: look at label files before anything is trained on them."""

from pathlib import Path
from typing import Annotated

import typer

from vidtad.cli.common import note, print_json, print_table, say
from vidtad.cli.options import AsJson
from vidtad.errors import InputError

MOST_PLACES = 50
"""Places that are listed of each kind of problem; --json has more."""

labels = typer.Typer(help="Check and convert label files.", no_args_is_help=True, rich_markup_mode=None)

File = Annotated[
    Path, typer.Argument(help="Labels: JSON, CSV, ELAN, BORIS, VIA, CVAT, Label Studio, SRT, VTT; or a folder.")
]
FrameRate = Annotated[
    float | None, typer.Option(min=0.1, help="Frames a second of labels that count frames (Label Studio).")
]


@labels.command("check")
def check_(
    file: File,
    videos: Annotated[Path | None, typer.Option(help="Folder of the videos, to compare with.")] = None,
    features: Annotated[Path | None, typer.Option(help="Folder of feature files, to compare with.")] = None,
    frame_rate: FrameRate = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 2 when there is a problem.")] = False,
    json: AsJson = False,
) -> None:
    """What labels hold, what is wrong with them, where, and what `train` does with it: dropped, cut or kept.

    Example: vidtad labels check labels.csv --videos clips
    """
    from vidtad.pipelines.train.check import check_files

    found, broken = check_files(file, videos, features, frame_rate=frame_rate)
    if json:
        print_json(found.to_json() | {"unreadable": broken})
    else:
        from vidtad.pipelines.train.report import class_table

        print_table(class_table(found))
        for line in found.listing(MOST_PLACES):
            say(line)
        for name, reason in broken.items():
            say(f"problem: {name}: {reason}; train: dropped")
    if strict and (found.serious or broken):
        note(f"{file}: {len(found.serious) + len(broken)} problems (--strict)")
        raise typer.Exit(2)


@labels.command()
def convert(
    file: File,
    out: Annotated[Path, typer.Option(help="ActivityNet JSON to write.")],
    frame_rate: FrameRate = None,
    videos: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the videos: times of tools that play sound first count from the first frame then."
        ),
    ] = None,
) -> None:
    """Labels of any supported tool as ActivityNet JSON, for `vidtad evaluate` and other programs.

    Example: vidtad labels convert project.boris --out labels.json
    """
    from vidtad.formats.activitynet import annotations_json
    from vidtad.formats.label_reading import read_labels
    from vidtad.runtime.files import write_json

    labels = read_labels(file, frame_rate=frame_rate)
    if videos is not None:
        from vidtad.labels import from_first_frame
        from vidtad.pipelines.train.data import find_material

        labels = from_first_frame(labels, find_material(labels, videos, None).durations)
    table = labels.table
    if out.resolve() == file.resolve():
        raise InputError(f"--out {out}: is what is read here; name another file")
    for finding in table.findings:
        note(finding.line())
    write_json(out, annotations_json(table))
    say(f"{out}: {len(table)} segments of {len(table.videos)} videos")
