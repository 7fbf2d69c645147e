"""`vidtad ensemble`: timelines of several detectors, or class scores of whole videos, made one timeline."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vidtad.cli.common import print_json, say
from vidtad.cli.options import AsJson
from vidtad.errors import InputError

if TYPE_CHECKING:
    from vidtad.timeline import Timeline


def ensemble(
    timelines: Annotated[
        list[Path], typer.Argument(help="A timeline of each detector, or a folder of each one's timelines.")
    ],
    out: Annotated[
        Path, typer.Option(help="Folder for the timelines, or one file (.json) for all videos together.")
    ] = Path("ensemble"),
    weight: Annotated[
        list[float] | None, typer.Option(help="Of each detector, in their order; repeat it. Default: all alike.")
    ] = None,
    ap: Annotated[
        list[Path] | None,
        typer.Option(
            help="For people, each detector's AP per class as weights: what `vidtad evaluate --json` prints, a file "
            "for each; repeat it."
        ),
    ] = None,
    video_scores: Annotated[
        Path | None,
        typer.Option(
            help="Class scores of whole videos, for segments without classes: JSON with `class` (names) and "
            "`results` (video: [scores]), or video: [scores]."
        ),
    ] = None,
    class_names: Annotated[
        Path | None, typer.Option(help="Names of those scores, one a line, where the file has none.")
    ] = None,
    json: AsJson = False,
) -> None:
    """Combine what several detectors found in the same videos; or give segments the classes of their video.

    Segments of all detectors suppress one another within their class (across classes where every detector does
    without them). People must have the same boxes (--boxes) in all timelines: their scores are averaged. With
    --video-scores a single timeline is enough.

    Example: vidtad ensemble react/match.json actionformer/match.json --weight 0.4 --weight 0.6 --out both
    """
    from vidtad.pipelines.export import read_all
    from vidtad.pipelines.fuse.segments import combine, read_video_scores

    if class_names is not None and video_scores is None:
        raise InputError("--class-names are those of --video-scores: give these too")
    for path in timelines:
        if not path.exists():
            raise InputError(f"{path}: no such file or folder")
    names = None if class_names is None else read_names(class_names)
    scores = None if video_scores is None else read_video_scores(video_scores, names)
    joint = combine([read_all(path) for path in timelines], weights=weight, ap=ap, video_scores=scores)
    written = save(joint, out, timelines)
    if json:
        print_json(joint.to_json())
        return
    segments = sum(map(len, joint.results.values()))
    say(f"{len(joint.results)} video{'s' * (len(joint.results) != 1)}, {segments} segments: {out}")
    say(f"next: vidtad report {written[0] if len(written) == 1 else out}, or vidtad evaluate TRUTH {out}")


def read_names(path: Path) -> list[str]:
    """The lines of a file that are not empty. Raises InputError."""
    from vidtad.formats.document import read_text

    return [line.strip() for line in read_text(path).splitlines() if line.strip()]


def save(joint: "Timeline", out: Path, sources: list[Path]) -> list[Path]:
    """Write one file, or one timeline (.json, .csv) a video into a folder. Raises InputError if a source were lost."""
    from vidtad.formats.shared import file_stems, only
    from vidtad.timeline import write_timeline_csv, write_timeline_json

    if out.suffix == ".json":
        targets = {out: joint}
    else:
        stems = file_stems(joint.videos)
        targets = {out / f"{stems[name]}.json": only(joint, name) for name in joint.videos}
    taken = {path.resolve() for path in sources} | {file.resolve() for path in sources for file in path.glob("*.json")}
    for target in targets:
        if target.resolve() in taken:
            raise InputError(f"--out {out}: {target} is what the ensemble is made of; choose another place")
    for target, timeline in targets.items():
        write_timeline_json(timeline, target)
        write_timeline_csv(timeline, target.with_suffix(".csv"))
    return list(targets)
