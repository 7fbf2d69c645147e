"""What a detector gets wrong, the score it is shown from, and how far its score can be trusted."""

from dataclasses import replace

import numpy as np
import pytest

from vidtad.errors import InputError
from vidtad.evaluation.protocols import PROTOCOLS
from vidtad.evaluation.scoring import evaluate
from vidtad.formats.tables import Annotations, Predictions
from vidtad.pipelines.train.mistakes import best_operating_point, worst_mistakes
from vidtad.pipelines.train.report import trust

TRUTH = Annotations.from_rows([("v", "eat", 0.0, 10.0), ("v", "walk", 20.0, 30.0), ("w", "eat", 0.0, 4.0)])
FOUND = Predictions.from_rows(
    [
        ("v", "eat", 0.0, 9.0, 0.9),
        ("v", "eat", 0.5, 10.0, 0.8),
        ("v", "eat", 21.0, 30.0, 0.7),
        ("v", "walk", 15.0, 22.0, 0.6),
        ("w", "eat", 50.0, 60.0, 0.5),
        ("w", "eat", 0.0, 4.0, 0.2),
    ]
)


def test_the_display_score_is_the_one_of_the_best_f1() -> None:
    point = best_operating_point(TRUTH, FOUND, PROTOCOLS["thumos14"])
    assert point is not None and point.score == 0.9 and point.f1 == pytest.approx(2 / 4)
    assert (point.precision, point.recall) == (1.0, pytest.approx(1 / 3))
    wrong = Predictions.from_rows([("v", "eat", 50.0, 60.0, 0.9)])
    assert best_operating_point(TRUTH, wrong, PROTOCOLS["thumos14"]) is None


def test_mistakes_say_what_is_wrong() -> None:
    found = worst_mistakes(TRUTH, FOUND, PROTOCOLS["thumos14"], 0.3)
    assert [(m.kind, m.video, m.label, m.why) for m in found] == [
        ("wrong", "v", "eat", "a second one for an action already found"),
        ("wrong", "v", "eat", "this is walk"),
        ("wrong", "v", "walk", "right class, wrong times (tIoU 0.13)"),
        ("wrong", "w", "eat", "nothing labelled here"),
        ("missed", "v", "walk", "nothing of its class overlaps it enough"),
        ("missed", "w", "eat", "found, but with score 0.20"),
    ]
    with pytest.raises(InputError):
        best_operating_point(TRUTH.select(np.zeros(3, bool)), FOUND, PROTOCOLS["thumos14"])


@pytest.mark.parametrize(
    ("low", "high", "says"), [(0.13, 0.77, "expect 13 to 77 %"), (1.0, 1.0, "no interval can be told")]
)
def test_an_interval_is_told_only_where_there_is_one(low: float, high: float, says: str) -> None:
    result = evaluate(TRUTH, FOUND, PROTOCOLS["thumos14"])
    assert trust(result) == "on 3 segments in 2 videos"
    details = {"bootstrap": {"average_mAP": {"low": low, "high": high}}}
    assert says in trust(replace(result, details=details))
