"""`vidtad adopt`: feature files as data sets publish them, made files that say what their rows are."""

from pathlib import Path
from typing import Annotated

import typer

from vidtad.cli.common import note, print_json, progress_bar, say
from vidtad.cli.options import AsJson, Overwrite, Quiet


def adopt(
    sources: Annotated[
        list[Path],
        typer.Argument(help="Folders, HDF5 files or quoted patterns like 'rgb_*.h5'; several are put side by side."),
    ],
    annotations: Annotated[Path, typer.Option(help="The annotation file that comes with the features.")],
    preset: Annotated[str, typer.Option(help="Whose features they are: thumos14, activitynet-tsp, ...")],
    model: Annotated[str, typer.Option(help="Whose preset: of react or actionformer.")] = "actionformer",
    out: Annotated[Path, typer.Option(help="Folder for the feature files.")] = Path("features"),
    every: Annotated[
        int, typer.Option(min=1, help="Keep one row of so many (5 for ReAct's, which hold a row a frame).")
    ] = 1,
    fit: Annotated[
        bool | None,
        typer.Option(
            "--fit/--no-fit", help="Spread rows evenly over each video, or not. Default: as the preset's authors do."
        ),
    ] = None,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    json: AsJson = False,
) -> None:
    """Write published features with sidecars that say what each row is and when: one .npy and one .json a video.

    What train, detect and evaluate need to know is then in the files. Videos without annotations are left out.

    Example: vidtad adopt 'rgb_*.h5' 'flow_*.h5' --annotations thumos14.json --model react --preset thumos14 --every 5
    """
    from vidtad.pipelines.train.third_party_features import adopt_features

    with progress_bar("videos", quiet=quiet or json) as progress:
        found = adopt_features(
            model, preset, annotations, sources, out, every=every, fit=fit, overwrite=overwrite, progress=progress
        )
    if found.missing:
        some = ", ".join(found.missing[:3]) + (", ..." if len(found.missing) > 3 else "")
        note(f"{len(found.missing)} annotated videos are not in all sources: {some}")
    if json:
        print_json({"out": str(out), "written": list(found.written), "missing": list(found.missing)})
        return
    say(f"{len(found.written)} videos: {out}")
    say(f"next: vidtad train --features {out} --annotations {annotations} --model {model} --preset {preset}")
