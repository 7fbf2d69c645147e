"""What an evaluation found, ready for a table, a JSON document or a line in a paper."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from vidtad.evaluation.protocols import Protocol, grid_text
from vidtad.formats.tables import Finding


@dataclass(frozen=True)
class TiesEffect:
    """How far the order of equal scores could move `average_mAP`.

    rule: the order used. tied: predictions that share their score with another one of their class.
    other_rule: average mAP when ties are broken the other way round. lowest, highest: average mAP with the
    worst- and the best-overlapping prediction of each tie first.
    """

    rule: str
    tied: int
    other_rule: float
    lowest: float
    highest: float

    def to_json(self) -> dict[str, Any]:
        return {
            "rule": self.rule,
            "tied_predictions": self.tied,
            "average_mAP_other_rule": self.other_rule,
            "lowest_average_mAP": self.lowest,
            "highest_average_mAP": self.highest,
        }


@dataclass(frozen=True)
class Evaluation:
    """Scores under one protocol.

    ap: float64 (classes, thresholds), in the order of `classes`; NaN where a class has no annotation and does
    not enter the mean. recall: recall@kx, float64 (classes, thresholds, len(protocol.recall_at)), or None.
    videos, instances: evaluated videos with at least one annotation, and annotations. predictions: scored
    ones. findings: what was odd about the input, and how it was taken. details: further tables, ready for
    JSON.
    """

    protocol: Protocol
    subset: str
    classes: tuple[str, ...]
    ap: np.ndarray
    videos: int
    instances: int
    predictions: int
    recall: np.ndarray | None = None
    findings: tuple[Finding, ...] = ()
    ties: TiesEffect | None = None
    details: Mapping[str, Any] = field(default_factory=dict)

    @property
    def mAP(self) -> np.ndarray:
        """Mean over classes, float64 (thresholds,)."""
        counted = self.ap[~np.isnan(self.ap).all(axis=1)] if len(self.ap) else self.ap
        return counted.mean(axis=0) if len(counted) else np.zeros(len(self.protocol.tiou))

    @property
    def average_mAP(self) -> float:
        """Mean of `mAP` over the thresholds."""
        return float(self.mAP.mean())

    @property
    def mean_recall(self) -> np.ndarray | None:
        """recall@kx, mean over classes, float64 (thresholds, k)."""
        return None if self.recall is None else self.recall.mean(axis=0)

    def to_json(self) -> dict[str, Any]:
        """One JSON document; numbers are not rounded, a class without annotations is null."""
        document: dict[str, Any] = {
            "protocol": self.protocol.name,
            "subset": self.subset,
            "average_mAP": self.average_mAP,
            "mAP": self.mAP.tolist(),
            "tiou_thresholds": list(self.protocol.tiou),
            "videos": self.videos,
            "instances": self.instances,
            "predictions": self.predictions,
            "ap": {name: _nullable(row) for name, row in zip(self.classes, self.ap, strict=True)},
            "line": self.paper_line(),
            "ties": self.protocol.ties if self.ties is None else self.ties.to_json(),
            "warnings": [finding.to_json() for finding in self.findings],
        }
        if self.recall is not None and self.mean_recall is not None:
            document["recall"] = {
                "at": [f"{k}x" for k in self.protocol.recall_at],
                "mean": self.mean_recall.tolist(),
                "classes": dict(zip(self.classes, self.recall.tolist(), strict=True)),
            }
        return document | dict(self.details)

    def paper_line(self) -> str:
        """Result and conditions in one line, for pasting."""
        values = ", ".join(
            f"{100 * value:.2f}@{threshold:.3g}" for threshold, value in zip(self.protocol.tiou, self.mAP, strict=True)
        )
        average = f"average {100 * self.average_mAP:.2f} over tIoU {grid_text(self.protocol.tiou)}; "
        parts = "".join(self._other_figures())
        where = f", subset {self.subset}" if self.subset else ""
        return (
            f"{parts}mAP {average if len(self.protocol.tiou) > 1 else ''}{values} "
            f"(protocol {self.protocol.name}{where}: {self.videos} videos, {self.instances} instances, "
            f"{len(self.classes)} classes; equal scores {self.protocol.ties.replace('_', ' ')})"
        )

    def _other_figures(self) -> Iterator[str]:
        """Headline figures of the challenges that have more than one, each ending in a separator."""
        for name, task in self.details.get("tasks", {}).items():
            if name != "action":
                yield f"{name} mAP average {100 * task['average_mAP']:.2f}; "
        if "tasks" in self.details:
            yield "action "
        if "retrieval" in self.details:
            yield f"Recall@1x {100 * self.details['retrieval']['recall_1x_at_0.5']:.2f}@0.5; "


def _nullable(row: np.ndarray) -> list[float | None]:
    return [None if np.isnan(value) else float(value) for value in row]
