"""`vidtad synth`: generated clips with their exact truth."""

from pathlib import Path
from typing import Annotated

import typer

from vidtad.cli.common import print_json, progress_bar, say
from vidtad.cli.options import AsJson, Quiet
from vidtad.errors import InputError

TRAINING_SEED = 100_000
"""Clips of this seed and above say `training` in their truth, those below `test`."""


def synth(
    out: Annotated[Path, typer.Option(help="Folder for the clips and their truth.")],
    videos: Annotated[int, typer.Option(min=1, max=100_000, help="How many clips.")] = 50,
    level: Annotated[int, typer.Option(help="How hard: 1, 2 or 3.")] = 1,
    seed: Annotated[
        int, typer.Option(min=0, help="Seed of the first clip; the others follow. From 100000 on: training clips.")
    ] = 1,
    people: Annotated[
        bool, typer.Option("--people", help="Several people who act on each other, for detectors of people.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Write beside clips made otherwise.")] = False,
    quiet: Quiet = False,
    json: AsJson = False,
) -> None:
    """Make a benchmark of acting stick people: videos, ground_truth.json (segments) and boxes.json (people).

    The same seed and level give the same clips. Three levels: see docs/synth.md. With --people also people.csv (AVA
    rows) and classes.pbtxt (names of their numbers), and one level.

    Example: vidtad synth --videos 50 --level 2 --out clips
    """
    from vidtad.synth import refuse_other_clips, write_clips, write_people_clips

    if people and level != 1:
        raise InputError(f"--level {level}: clips of people have one level; leave out --level, or --people")
    seeds, what = range(seed, seed + videos), "people" if people else level
    if not overwrite:
        refuse_other_clips(out, seeds, what)
    subset = "training" if seed >= TRAINING_SEED else "test"
    with progress_bar("clips", quiet=quiet or json) as progress:
        if people:
            document = write_people_clips(out, seeds, subset, progress=progress)
        else:
            document = write_clips(out, seeds, level, subset, progress=progress)
    if json:
        print_json(document)
        return
    clips = document["database"].values()
    seconds, actions = sum(clip["duration"] for clip in clips), sum(len(clip["annotations"]) for clip in clips)
    if people:
        say(f"{videos} clips of people, {seconds:.0f} s, {actions} actions: {out}")
        say(f"next: vidtad detect {out} --model demo-acar --boxes {out / 'people.csv'}")
        return
    say(f"{videos} clips of level {level}, {seconds:.0f} s, {actions} actions: {out}")
    say(f"next: vidtad detect {out} --model react, then vidtad evaluate {out / 'ground_truth.json'} timelines")
