"""`vidtad evaluate`: predictions against ground truth."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vidtad.cli.common import note, print_json, print_table
from vidtad.cli.options import AsJson

if TYPE_CHECKING:
    from vidtad.evaluation import Evaluation


def evaluate(
    truth: Annotated[Path, typer.Argument(help="Ground truth: ActivityNet JSON and others, by content.")],
    predictions: Annotated[Path, typer.Argument(help="Predictions: a timeline, ActivityNet results, or a folder.")],
    protocol: Annotated[
        str | None, typer.Option(help="Rules, such as thumos14, epic or ava. Default: by the ground truth.")
    ] = None,
    subset: Annotated[str | None, typer.Option(help="Part of the ground truth to score on.")] = None,
    tiou: Annotated[
        list[float] | None, typer.Option(help="tIoU threshold; repeat it. Default: the protocol's.")
    ] = None,
    ties: Annotated[str | None, typer.Option(help="Of equal scores first: later_first or earlier_first.")] = None,
    rule: Annotated[
        list[str] | None,
        typer.Option(help="Another of the protocol's rules, as NAME=VALUE (zero_union=miss); repeat it."),
    ] = None,
    blocked: Annotated[
        Path | None, typer.Option(help="Videos to leave out: a JSON list; for AVA its exclusions file.")
    ] = None,
    label_map: Annotated[Path | None, typer.Option(help="AVA label map (.pbtxt) of the classes that count.")] = None,
    diagnose: Annotated[bool, typer.Option("--diagnose", help="Error breakdown, sensitivity, confusions.")] = False,
    bootstrap: Annotated[int, typer.Option(min=0, help="Resamplings for 95 % confidence intervals.")] = 0,
    against: Annotated[Path | None, typer.Option(help="Second predictions to compare with, paired.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the resampling.")] = 0,
    figures: Annotated[Path | None, typer.Option(help="Folder for figures, PNG and SVG (needs matplotlib).")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Fail on anything odd in the files.")] = False,
    json: AsJson = False,
) -> None:
    """Score PREDICTIONS against TRUTH: average precision per tIoU threshold and class.

    Example: vidtad evaluate gt.json timelines/ --protocol thumos14 --diagnose
    """
    from vidtad.evaluation import Extras, evaluate_files
    from vidtad.evaluation.files import chosen_rules
    from vidtad.evaluation.protocols import parse_rules

    evaluation = evaluate_files(
        truth,
        predictions,
        protocol,
        subset=subset,
        blocked=blocked or (),
        label_map=label_map,
        strict=strict,
        extras=Extras(diagnose=diagnose, bootstrap=bootstrap, against=against, seed=seed),
        **parse_rules(rule or ()) | {"tiou": tiou or None} | ({"ties": ties} if ties else {}),
    )
    if protocol is None and (sentence := chosen_rules(evaluation)):
        note(sentence)
    for finding in evaluation.findings:
        note(finding.line())
    if figures is not None:
        from vidtad.evaluation.figures import save_figures

        for path in save_figures(evaluation, figures):
            note(f"wrote {path}")
    if json:
        print_json(evaluation.to_json())
    else:
        show(evaluation)


def show(evaluation: "Evaluation", *, scores_only: bool = False) -> None:
    """Every table the evaluation has content for, or the table of scores alone; percent."""
    from vidtad.evaluation import tables

    for content in tables(evaluation)[: 1 if scores_only else None]:
        print_table(content, bold="mAP")
