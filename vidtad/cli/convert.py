"""`vidtad convert`: timelines to the formats of other programs, and back."""

from pathlib import Path
from typing import Annotated

import typer

from vidtad.cli.common import VIDEO_SUFFIXES, find_inputs, note, print_json, say
from vidtad.cli.options import AsJson

FormatNames = Annotated[
    list[str],
    typer.Option(
        "--to",
        help="activitynet, annotations, csv, ava, srt, vtt, elan, labelstudio, cvat, via, boris, thumos; "
        "repeat it, or separate by commas.",
    ),
]
VideoFiles = Annotated[
    list[Path] | None, typer.Option(help="The video, or a folder of videos, where the file does not say enough.")
]


def convert(
    source: Annotated[Path, typer.Argument(help="A timeline or a file of another format; or a folder of timelines.")],
    to: FormatNames,
    out: Annotated[Path | None, typer.Option(help="Folder or file to write. Default: beside the source.")] = None,
    video: VideoFiles = None,
    min_score: Annotated[
        float | None, typer.Option(help="Leave out what scores less. Default: what the detector would not show.")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Leave nothing out, however little it scores.")] = False,
    every: Annotated[
        float | None, typer.Option(min=0.01, help="Of people, only their boxes every so many seconds (AVA: 1).")
    ] = None,
    json: AsJson = False,
) -> None:
    """Write a timeline as subtitles, for ELAN, Label Studio, CVAT, VIA or BORIS, or as data; or read one of these.

    The format of the source is recognised by its content. `--to annotations` makes corrected segments training data.

    Example: vidtad convert timelines/match.json --to srt,elan --min-score 0.3
    """
    from vidtad.errors import InputError
    from vidtad.pipelines.export import convert as run
    from vidtad.timeline import check_min_score

    check_min_score(min_score)
    if everything and min_score is not None:
        raise InputError("--all leaves nothing out: drop it, or --min-score")
    if not source.exists():
        raise InputError(f"{source}: no such file or folder")
    files = find_inputs(video or [], VIDEO_SUFFIXES, "video")
    written = run(source, to, out, videos=files, min_score=min_score, everything=everything, every_s=every, warn=note)
    if json:
        print_json({"written": [str(path) for path in written]})
    else:
        for path in written:
            say(str(path))
