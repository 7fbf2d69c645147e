"""EPIC-KITCHENS-100 action detection: one list of predictions scored three times, as verbs, nouns and
actions.
"""

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np

from vidtad.evaluation.protocols import EPIC_TIOU, Protocol
from vidtad.evaluation.result import Evaluation
from vidtad.evaluation.temporal import evaluate_temporal
from vidtad.formats.tables import Annotations, Finding, Predictions

NOUN_STRIDE = 300
Table = TypeVar("Table", Annotations, Predictions)
TASKS = ("verb", "noun", "action")


def evaluate_epic(
    truth: Annotations, predicted: Predictions, protocol: Protocol, subset: str | None, blocked: Collection[str]
) -> Evaluation:
    """The action evaluation, with all three in `details["tasks"]`.

    Files without verb and noun numbers (models trained and scored for one of them) are scored by their
    labels, which a finding says.
    """
    without = [
        f"the {what}"
        for what, table in (("ground truth", truth), ("predictions", predicted))
        if not {"verb", "noun"} <= table.extra.keys()
    ]
    if without:
        result = evaluate_temporal(truth, predicted, protocol, subset, blocked)
        kind = "file without verb and noun numbers, so that plain labels were scored"
        return replace(result, findings=(*result.findings, Finding(kind, len(without), without[0], False)))
    results = {name: evaluate_task(truth, predicted, protocol, name, subset, blocked) for name in TASKS}
    tasks = {
        name: {
            "average_mAP": result.average_mAP,
            "mAP": result.mAP.tolist(),
            "classes": len(result.classes),
            "ap": dict(zip(result.classes, result.ap.tolist(), strict=True)),
        }
        for name, result in results.items()
    }
    details: dict[str, Any] = {"tasks": tasks}
    if protocol.tiou == EPIC_TIOU:
        details["challenge"] = challenge_metrics(results)
    return replace(results["action"], details=details)


def challenge_metrics(results: Mapping[str, Evaluation]) -> dict[str, float]:
    """The challenge script's metric names, in percent: `verb_map_at_01` for tIoU 0.1, ..., `verb_map_avg`."""
    metrics = {}
    for name, result in results.items():
        for tenths, value in enumerate(result.mAP.tolist(), 1):
            metrics[f"{name}_map_at_{tenths:02d}"] = 100 * value
        metrics[f"{name}_map_avg"] = 100 * result.average_mAP
    return metrics


def evaluate_task(
    truth: Annotations,
    predicted: Predictions,
    protocol: Protocol,
    task: str,
    subset: str | None = None,
    blocked: Collection[str] = (),
) -> Evaluation:
    """Score one task. Classes are named by their number; an action's is 300 * verb + noun."""
    return evaluate_temporal(relabel(truth, task), relabel(predicted, task), protocol, subset, blocked)


def relabel(table: Table, task: str) -> Table:
    verb, noun = table.extra["verb"], table.extra["noun"]
    number = {"verb": verb, "noun": noun, "action": NOUN_STRIDE * verb + noun}[task]
    distinct, label = np.unique(number, return_inverse=True)
    return replace(table, labels=tuple(map(str, distinct.tolist())), label=label.reshape(-1))
