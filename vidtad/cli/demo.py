"""`vidtad demo`: the whole path on clips made here, scored against their exact truth."""

from pathlib import Path
from typing import Annotated

import typer

from vidtad.cli.common import print_json, progress_bar, say
from vidtad.cli.detect import show as show_timeline
from vidtad.cli.evaluate import show as show_scores
from vidtad.cli.options import AsJson, Device, Quiet


def demo(
    out: Annotated[Path, typer.Option(help="Folder for the clips, their truth and the timelines.")] = Path(
        "vidtad-demo"
    ),
    videos: Annotated[int, typer.Option(min=1, max=1000, help="How many unseen clips.")] = 20,
    model: Annotated[
        str,
        typer.Option(help="Built-in detector: react, actionformer, motion, linear, acar, acfb, action-transformer."),
    ] = "react",
    level: Annotated[int, typer.Option(help="How hard the clips are: 1, 2 or 3.")] = 1,
    device: Device = "auto",
    quiet: Quiet = False,
    json: AsJson = False,
) -> None:
    """Render unseen clips of acting stick people, detect in them, and score the result.

    Nothing is precomputed: clips are encoded, decoded, turned into features, windowed, detected in and evaluated.
    Detectors of people (linear, acar, acfb, action-transformer) get clips of several people and are scored by frame
    mAP; all but the last, which finds people itself, are given the annotated boxes.

    Example: vidtad demo --out vidtad-demo
    """
    from vidtad.pipelines.demo import run_demo
    from vidtad.runtime.devices import pick_device

    with progress_bar("clips", quiet=quiet or json) as progress:
        result = run_demo(out, videos=videos, model=model, level=level, device=pick_device(device), progress=progress)
    if json:
        print_json(result.to_json())
        return
    first = min(result.timeline.results)
    show_timeline(result.one(first), result.display_score, out / "timelines")
    show_scores(result.evaluation, scores_only=True)
    if result.boxes is not None:
        say(f"frame mAP {100 * result.evaluation.average_mAP:.1f} at box IoU 0.5, boxes: {result.boxes}")
    say(f"{videos} clips of level {level} in {result.seconds:.0f} s; clips, truth and timelines are in {out}")
    say("next: vidtad detect YOUR_VIDEO --model NAME (vidtad models list shows the detectors)")
