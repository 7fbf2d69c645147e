"""Scoring tables in memory under any protocol."""

from collections.abc import Callable, Collection

from vidtad.evaluation.ego4d import evaluate_ego4d
from vidtad.evaluation.epic import evaluate_epic
from vidtad.evaluation.protocols import Protocol
from vidtad.evaluation.result import Evaluation
from vidtad.evaluation.temporal import evaluate_temporal
from vidtad.evaluation.thumos_kit import evaluate_kit
from vidtad.formats.tables import Annotations, Predictions

Evaluator = Callable[[Annotations, Predictions, Protocol, str | None, Collection[str]], Evaluation]
EVALUATORS: dict[str, Evaluator] = {
    "temporal": evaluate_temporal,
    "thumos-kit": evaluate_kit,
    "thumos-kit-2014": evaluate_kit,
    "epic": evaluate_epic,
    "ego4d": evaluate_ego4d,
}


def evaluate(
    truth: Annotations,
    predicted: Predictions,
    protocol: Protocol,
    subset: str | None = None,
    blocked: Collection[str] = (),
) -> Evaluation:
    """Score predicted segments against ground truth.

    subset: the part of the ground truth to score on; None chooses it and says so in the findings. blocked:
    video ids to leave out on both sides. Raises InputError when the subset does not exist or holds no
    annotation.
    """
    return EVALUATORS[protocol.kind](truth, predicted, protocol, subset, blocked)
