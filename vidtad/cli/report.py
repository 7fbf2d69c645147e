"""`vidtad report`: a timeline as a web page."""

from pathlib import Path
from typing import Annotated

import typer

from vidtad.cli.common import VIDEO_SUFFIXES, find_inputs, note, print_json, say
from vidtad.cli.options import AsJson


def report(
    timeline: Annotated[Path, typer.Argument(help="A timeline, other predictions, or a folder of timelines.")],
    video: Annotated[
        list[Path] | None,
        typer.Option(help="The video, or a folder of videos. Default: where the timeline says they are."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="The .html file, or a folder for several videos. Default: beside the timeline.")
    ] = None,
    truth: Annotated[
        Path | None, typer.Option(help="Ground truth to show beside the predictions; of people, AVA rows.")
    ] = None,
    label_map: Annotated[
        Path | None, typer.Option(help="Names of the numbers in AVA rows (.pbtxt). Default: AVA's own.")
    ] = None,
    min_score: Annotated[float | None, typer.Option(help="Score from which segments show at first.")] = None,
    embed: Annotated[bool, typer.Option("--embed", help="Put the video into the page instead of linking it.")] = False,
    json: AsJson = False,
) -> None:
    """Make one HTML file: player, zoomable timeline, boxes over the video, score filter, export.

    The video is linked, or put into the page with --embed. A folder of timelines gives a page each and an index. The
    pages open from disk without a network. Segments show from the detector's display threshold on; the page's filter
    shows the others.

    Example: vidtad report timelines/match.json --video match.mp4 --out report.html
    """
    from vidtad.errors import InputError
    from vidtad.pipelines.export import report as run
    from vidtad.timeline import check_min_score

    check_min_score(min_score)
    if not timeline.exists():
        raise InputError(f"{timeline}: no such file or folder")
    files = find_inputs(video or [], VIDEO_SUFFIXES, "video")
    if label_map is not None and truth is None:
        raise InputError("--label-map names the numbers of ground truth: say --truth too")
    written, missing = run(
        timeline, out, videos=files, truth=truth, label_map=label_map, threshold=min_score, embed=embed
    )
    if missing:
        note(f"no video file found for {', '.join(missing[:5])}: the pages work without; name it with --video")
    if json:
        print_json({"written": [str(path) for path in written], "without_video": missing})
    else:
        say(str(written[0]))
