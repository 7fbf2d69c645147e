"""`vidtad evaluate`: predictions against ground truth."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vidtad.cli.common import console, note, print_json
from vidtad.cli.extract import AsJson

if TYPE_CHECKING:
    from vidtad.evaluation import Evaluation


def evaluate(
    truth: Annotated[Path, typer.Argument(help="Ground truth: ActivityNet JSON and others, told apart by content.")],
    predictions: Annotated[Path, typer.Argument(help="Predictions: a timeline, ActivityNet results, or a folder.")],
    protocol: Annotated[str | None, typer.Option(help="Rules to score by. Default: what the files suggest.")] = None,
    subset: Annotated[str | None, typer.Option(help="Part of the ground truth to score on.")] = None,
    tiou: Annotated[
        list[float] | None, typer.Option(help="tIoU threshold; repeat it. Default: the protocol's.")
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Fail on anything odd in the files.")] = False,
    json: AsJson = False,
) -> None:
    """Score PREDICTIONS against TRUTH: average precision per tIoU threshold and class.

    Example: vidtad evaluate gt.json timelines/match.json --tiou 0.5 --tiou 0.75
    """
    from vidtad.evaluation import evaluate_files

    evaluation = evaluate_files(truth, predictions, protocol, subset=subset, tiou=tiou or None, strict=strict)
    for finding in evaluation.findings:
        note(finding.line())
    if json:
        print_json(evaluation.to_json())
    else:
        show(evaluation)


def show(evaluation: "Evaluation") -> None:
    """AP per class and threshold, the means, and one line for a paper; percent."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE)
    table.add_column("tIoU", overflow="fold")
    for threshold in evaluation.protocol.tiou:
        table.add_column(f"{threshold:.2f}", justify="right")
    table.add_column("mean", justify="right", style="bold")
    for label, row in sorted(zip(evaluation.classes, evaluation.ap, strict=True), key=lambda pair: pair[0]):
        table.add_row(Text(label), *(f"{100 * ap:.1f}" for ap in (*row, row.mean())))
    table.add_section()
    table.add_row("mAP", *(f"{100 * ap:.1f}" for ap in (*evaluation.mAP, evaluation.average_mAP)))
    console().print(table)
    typer.echo(evaluation.paper_line())
