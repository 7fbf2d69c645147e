"""`vidtad overlay` and `vidtad clips`: a timeline back into the video."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vidtad.cli.common import (
    VIDEO_SUFFIXES,
    find_inputs,
    finish_batch,
    note,
    print_json,
    progress_bar,
    say,
)
from vidtad.cli.options import AsJson, Quiet

if TYPE_CHECKING:
    from vidtad.timeline import Timeline

Source = Annotated[Path, typer.Argument(help="A timeline, other predictions, or a folder of timelines.")]
Videos = Annotated[
    list[Path] | None,
    typer.Option(help="The video, or a folder of videos. Default: where the timeline says they are."),
]


MinScore = Annotated[
    float | None, typer.Option(help="Leave out what scores less. Default: what the detector would not show.")
]
All = Annotated[bool, typer.Option("--all", help="Leave nothing out, however little it scores.")]


def overlay(
    timeline: Source,
    video: Videos = None,
    out: Annotated[
        Path | None,
        typer.Option(help="File to write (.mp4, .mov, .mkv), or a folder. Default: NAME.annotated.mp4 beside it."),
    ] = None,
    min_score: MinScore = None,
    everything: All = False,
    quiet: Quiet = False,
    json: AsJson = False,
) -> None:
    """Burn labels, person boxes and a strip of time into the video; its length and sound stay as they are.

    Example: vidtad overlay timelines/match.json --video match.mp4 --out annotated.mp4
    """
    from vidtad.render.overlay import burn

    _check(min_score, everything)
    whole, files = _located(timeline, video)
    least = _least(whole, min_score, everything)
    done: list[dict[str, object]] = []

    def one(name: str) -> None:
        target = _target(timeline, out, name, len(files))
        with progress_bar(name, quiet=quiet or json) as progress:
            frames = burn(whole, name, files[name], target, min_score=least, progress=progress)
        done.append({"video": name, "written": str(target), "frames": frames})
        if not json:
            say(str(target))

    failed = _each(list(files), one)
    if json:
        print_json({"overlays": done, "failed": failed})
    finish_batch(len(files), failed)


def clips(
    timeline: Source,
    video: Videos = None,
    out: Annotated[Path, typer.Option(help="Folder for the clips.")] = Path("clips"),
    min_score: MinScore = None,
    everything: All = False,
    exact: Annotated[
        bool, typer.Option("--exact", help="Encode anew, so that each clip ends at the very frame in any player.")
    ] = False,
    json: AsJson = False,
) -> None:
    """Cut every segment into a file of its own, without encoding anew where that is possible.

    Example: vidtad clips timelines/match.json --video match.mp4 --min-score 0.5 --out clips
    """
    from vidtad.render.cut import cut

    _check(min_score, everything)
    whole, files = _located(timeline, video)
    least = _least(whole, min_score, everything)
    done: list[dict[str, object]] = []
    chosen = {name: len(found) for name, found in whole.at_least(least).results.items() if name in files}

    def one(name: str) -> None:
        found = cut(whole, name, files[name], out, min_score=least, exact=exact)
        if late := chosen.get(name, 0) - len(found):
            note(f"{name}: {late} segment{'s' * (late > 1)} without a frame in the video: no clip")
        for clip in found:
            s = clip.segment
            entry = {"start_s": s.start_s, "end_s": s.end_s, "label": s.label, "score": s.score}
            done.append({"video": name, "clip": str(clip.path), **entry, "copied": clip.copied})
            if not json:
                say(str(clip.path))

    failed = _each(list(files), one)
    if json:
        print_json({"clips": done, "failed": failed})
    elif not any(chosen.values()) and not failed:
        note(f"no segment scores {least:g} or more: no clip was cut; try --all, or a lower --min-score")
    finish_batch(len(files), failed)


def _check(min_score: float | None, everything: bool) -> None:
    """Raise InputError for a score that is none, and for options that do not go together."""
    from vidtad.errors import InputError
    from vidtad.timeline import check_min_score

    check_min_score(min_score)
    if everything and min_score is not None:
        raise InputError("--all leaves nothing out: drop it, or --min-score")


def _least(timeline: "Timeline", min_score: float | None, everything: bool) -> float:
    """Score from which segments count."""
    if timeline.detector.get("demonstration"):
        note("this is a demonstration detector's timeline: it knows generated classes only")
    usual = 0.0 if everything or timeline.display_score is None else timeline.display_score
    return usual if min_score is None else min_score


def _each(names: list[str], work: Callable[[str], None]) -> dict[str, str]:
    """{video: why it failed}; a lone video raises its own error, so that its kind decides the exit code."""
    from vidtad.errors import VidtadError

    if len(names) == 1:
        work(names[0])
        return {}
    failed = {}
    for name in names:
        try:
            work(name)
        except VidtadError as error:
            failed[name] = str(error)
            note(str(error))
    return failed


def _located(source: Path, video: list[Path] | None) -> tuple["Timeline", dict[str, Path]]:
    from vidtad.errors import InputError
    from vidtad.pipelines.export import known_videos, locate, read_all

    if not source.exists():
        raise InputError(f"{source}: no such file or folder")
    given = find_inputs(video or [], VIDEO_SUFFIXES, "video")
    whole = read_all(source, known_videos(given) if not source.is_dir() else None)
    files = locate(whole, given, source)
    if not files:
        raise InputError(f"{source}: the video of this timeline is not where it was; name it with --video")
    for name in whole.videos.keys() - files.keys():
        note(f"{name}: no video file found, left out; name it with --video")
    return whole, files


def _target(source: Path, out: Path | None, name: str, count: int) -> Path:
    from vidtad.errors import InputError
    from vidtad.formats.shared import file_stems

    stem = file_stems([name])[name]
    folder = source if source.is_dir() else source.parent
    if out is None:
        return folder / f"{stem}.annotated.mp4"
    if not out.suffix or out.is_dir():
        return out / f"{stem}.annotated.mp4"
    if count > 1:
        raise InputError(f"--out {out}: {count} videos need a folder")
    return out
