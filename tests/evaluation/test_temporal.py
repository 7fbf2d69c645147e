"""Matching and mAP against the plain loop, and the rules that are options."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.evaluation import reference
from vidtad.errors import InputError
from vidtad.evaluation import PROTOCOLS, evaluate
from vidtad.evaluation.align import align
from vidtad.evaluation.temporal import find_pairs, match
from vidtad.formats.tables import Annotations, Predictions

# Coarse times and scores, so that equal overlaps, equal scores and empty or reversed segments all occur.
segments = st.tuples(st.integers(0, 12), st.integers(0, 12)).map(lambda ends: (float(ends[0]), float(ends[1])))
annotation_rows = st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("xy"), segments), min_size=1, max_size=14)
prediction_rows = st.lists(
    st.tuples(st.sampled_from("abc"), st.sampled_from("xy"), segments, st.integers(0, 5)), max_size=30
)
RULES = replace(PROTOCOLS["activitynet"], tiou=(0.1, 0.5, 1.0))


def tables(truth, predicted):
    return (
        Annotations.from_rows([(video, label, *ends) for video, label, ends in truth]),
        Predictions.from_rows([(video, label, *ends, score / 5) for video, label, ends, score in predicted]),
    )


@settings(deadline=None, max_examples=150)
@given(annotation_rows, prediction_rows)
def test_agrees_with_the_published_loop(truth, predicted):
    result = evaluate(*tables(truth, predicted), RULES)
    # The files list predictions by video, and that order decides ties.
    for row, name in enumerate(result.classes):
        own = [(v, ends, s) for v, label, ends, s in predicted if label == name]
        ranked = sorted(enumerate(own), key=lambda item: (-item[1][2], -item[0]))
        instances = sum(label == name for _, label, _ in truth)
        for column, threshold in enumerate(RULES.tiou):
            hits = [False] * len(ranked)
            for video in "abc":
                places = [place for place, (_, (v, _, _)) in enumerate(ranked) if v == video]
                found, _ = reference.walk(
                    [ends for v, label, ends in truth if (v, label) == (video, name)],
                    [ranked[place][1][1] for place in places],
                    threshold,
                )
                for place, hit in zip(places, found, strict=True):
                    hits[place] = hit
            assert result.ap[row, column] == pytest.approx(reference.average_precision(hits, instances), abs=1e-12)


@settings(deadline=None, max_examples=60)
@given(annotation_rows, prediction_rows)
def test_matching_is_one_to_one_and_hits_are_taken(truth, predicted):
    aligned = align(*tables(truth, predicted), RULES)
    matching = match(aligned, find_pairs(aligned))
    for hits, taken_by in zip(matching.hits, matching.taken_by, strict=True):
        takers = taken_by[taken_by >= 0]
        assert len(np.unique(takers)) == len(takers) == hits.sum()
        assert (aligned.pr_class[aligned.order][takers] == aligned.gt_class[taken_by >= 0]).all()
        assert (aligned.pr_video[aligned.order][takers] == aligned.gt_video[taken_by >= 0]).all()


@settings(deadline=None, max_examples=40)
@given(annotation_rows, prediction_rows)
def test_the_range_of_ties_holds_both_orders(truth, predicted):
    pair = tables(truth, predicted)
    later, earlier = (evaluate(*pair, replace(RULES, ties=ties)) for ties in ("later_first", "earlier_first"))
    if later.ties is None:
        assert later.average_mAP == pytest.approx(earlier.average_mAP, abs=1e-12)
    else:
        assert later.ties.other_rule == pytest.approx(earlier.average_mAP, abs=1e-12)
        assert later.ties.lowest <= later.average_mAP <= later.ties.highest


def test_perfect_predictions_score_one():
    truth = Annotations.from_rows([("v", "x", 0, 2), ("v", "y", 1, 5), ("w", "x", 3, 4)])
    predicted = Predictions.from_rows([("v", "x", 0, 2, 0.9), ("w", "x", 3, 4, 0.8), ("v", "y", 1, 5, 0.7)])
    result = evaluate(truth, predicted, PROTOCOLS["activitynet"])
    assert result.average_mAP == 1 and result.mean_recall.min() == 1
    assert (result.videos, result.instances) == (2, 3) and result.findings == ()


def test_zero_over_zero_is_a_match_for_activitynet_and_a_miss_for_opentad():
    truth = Annotations.from_rows([("v", "x", 5, 5)])
    predicted = Predictions.from_rows([("v", "x", 1, 1, 0.5)])
    assert evaluate(truth, predicted, PROTOCOLS["activitynet"]).average_mAP == 1
    kept = replace(PROTOCOLS["opentad"], duplicates="keep")
    assert evaluate(truth, predicted, kept).average_mAP == 0


def test_unknown_labels_by_rule():
    truth = Annotations.from_rows([("v", "b", 0, 10)], label_ids={"a": 0, "b": 1})
    predicted = Predictions.from_rows([("v", "a", 20, 30, 0.9), ("v", "b", 0, 10, 0.5)])
    dropped = evaluate(truth, predicted, PROTOCOLS["activitynet"])
    assert dropped.average_mAP == 1 and dropped.predictions == 2
    assert [finding.kind for finding in dropped.findings] == ["prediction of a label without annotations"]
    # Class b is re-numbered to 0, which is the number of the unknown class a.
    assert evaluate(truth, predicted, PROTOCOLS["actionformer"]).average_mAP == 0.5
    with pytest.raises(InputError, match="'a'"):
        evaluate(truth, predicted, replace(PROTOCOLS["activitynet"], unknown_labels="refuse"))


def test_blocked_videos_leave_both_sides():
    truth = Annotations.from_rows([("v", "x", 0, 2), ("w", "x", 0, 2)])
    predicted = Predictions.from_rows([("w", "x", 5, 9, 0.9), ("v", "x", 0, 2, 0.5)])
    result = evaluate(truth, predicted, PROTOCOLS["activitynet"], blocked=["w"])
    assert result.average_mAP == 1 and result.instances == result.predictions == 1


def test_predictions_in_other_videos_are_false_positives():
    truth = Annotations.from_rows([("v", "x", 0, 2), ("w", "x", 0, 2)], subset=("val", "train"))
    predicted = Predictions.from_rows([("w", "x", 0, 2, 0.9), ("z", "x", 0, 2, 0.8), ("v", "x", 0, 2, 0.5)])
    result = evaluate(truth, predicted, PROTOCOLS["activitynet"], "val")
    assert result.average_mAP == pytest.approx(1 / 3)
    assert {finding.kind for finding in result.findings} == {
        "predicted video unknown to the ground truth",
        "predicted video of another subset, all false positives unless --rule stray_videos=drop",
    }


@pytest.mark.parametrize("tiou", [(), (0.0, 0.5), (1.5,)])
def test_thresholds_out_of_range_are_refused(tiou):
    with pytest.raises(InputError, match="tIoU"):
        replace(RULES, tiou=tiou)


def test_v_prefix_is_bridged_and_told():
    truth = Annotations.from_rows([("v_abc", "x", 0, 2)])
    result = evaluate(truth, Predictions.from_rows([("abc", "x", 0, 2, 1.0)]), PROTOCOLS["activitynet"])
    assert result.average_mAP == 1 and "prefix" in result.findings[0].kind


def test_frames_in_place_of_seconds_are_suspected():
    truth = Annotations.from_rows([("v", "x", 0, 2)], duration=np.array([5.0]))
    predicted = Predictions.from_rows([("v", "x", 30, 60, 0.9), ("v", "x", 0, 2, 0.5)])
    findings = evaluate(truth, predicted, PROTOCOLS["activitynet"]).findings
    assert [finding.kind for finding in findings] == ["prediction that starts after its video"]
    assert "frames" not in findings[0].example
    wrong = predicted.select(np.array([True, False]))
    assert "frames" in evaluate(truth, wrong, PROTOCOLS["activitynet"]).findings[0].example


def test_stray_videos_can_be_dropped():
    truth = Annotations.from_rows([("v", "x", 0, 2)])
    predicted = Predictions.from_rows([("w", "x", 0, 2, 0.9), ("v", "x", 0, 2, 0.5)])
    assert evaluate(truth, predicted, PROTOCOLS["activitynet"]).average_mAP == 0.5
    dropping = replace(PROTOCOLS["activitynet"], stray_videos="drop")
    assert evaluate(truth, predicted, dropping).average_mAP == 1
    with pytest.raises(InputError, match="count, drop"):
        replace(RULES, stray_videos="keep")
