"""The rules that differ from temporal mAP: THUMOS kits, Ego4D retrieval, AR@AN, frame-mAP."""

import json
from dataclasses import replace

import numpy as np
import pytest

from vidtad.evaluation import PROTOCOLS, evaluate
from vidtad.evaluation.align import align
from vidtad.evaluation.ego4d import retrieval_recall
from vidtad.evaluation.frames import box_iou, evaluate_frames, frame_diagnosis, match_frames
from vidtad.evaluation.proposals import proposal_recall
from vidtad.formats.ava import rows
from vidtad.formats.tables import Annotations, Findings, Predictions

KIT = replace(PROTOCOLS["thumos14-kit"], tiou=(0.5,))


def kit_ap(truth, predicted, rules=KIT):
    return evaluate(Annotations.from_rows(truth), Predictions.from_rows(predicted), rules).ap[0, 0]


def test_kit_threshold_is_strict():
    assert kit_ap([("v", "x", 0, 10)], [("v", "x", 0, 5, 0.9)]) == 0
    assert kit_ap([("v", "x", 0, 10)], [("v", "x", 0, 5.1, 0.9)]) == 1


def test_kit_lets_annotations_choose_the_best_overlap():
    # The annotation takes the better-overlapping second detection; the first becomes a false positive.
    assert kit_ap([("v", "x", 0, 10)], [("v", "x", 0, 8, 0.9), ("v", "x", 0, 10, 0.5)]) == 0.5


def test_kit_forgives_detections_on_ambiguous_intervals():
    truth = [("v", "x", 0, 10), ("v", "Ambiguous", 20, 30)]
    detections = [("v", "x", 29, 40, 0.9), ("v", "x", 0, 10, 0.5)]
    assert kit_ap(truth, detections) == 1
    assert kit_ap(truth[:1], detections) == 0.5
    assert kit_ap(truth, [("v", "x", 30, 40, 0.9), detections[1]]) == 0.5


def test_kit_versions_differ_in_ties_and_interpolation():
    truth = [("v", "x", 0, 10), ("w", "x", 0, 10)]
    tied = [("v", "x", 50, 60, 0.5), ("w", "x", 0, 10, 0.5)]
    assert kit_ap(truth, tied) == 0.25
    eleven = kit_ap(truth, tied, replace(KIT, name="thumos14-kit-2014", kind="thumos-kit-2014"))
    assert eleven == pytest.approx(6 / 11)


def test_retrieval_is_strict_and_in_file_order():
    truth = Annotations.from_rows([("v", "x", 0, 10), ("w", "x", 0, 10)])
    predicted = Predictions.from_rows(
        [("v", "x", 40, 50, 0.1), ("v", "x", 0, 10, 0.9), ("w", "x", 0, 5, 0.5), ("w", "x", 0, 6, 0.4)]
    )
    recall = retrieval_recall(align(truth, predicted, PROTOCOLS["ego4d"]), (0.5,), (1, 2))
    assert recall.tolist() == [[0.0, 1.0]]


def test_proposal_budget_is_a_share_of_the_own_list():
    truth = Annotations.from_rows([("v", "x", 0, 10), ("w", "x", 0, 10)])
    good, bad = (0, 10), (50, 60)
    predicted = Predictions.from_rows(
        [("v", "", *bad, 0.9), ("v", "", *good, 0.8), ("w", "", *good, 0.1), ("w", "", *bad, 0.05)]
    )
    result = proposal_recall(align(truth, predicted, PROTOCOLS["activitynet"]), 2, grid=np.array([0.5, 1.0]))
    assert result.average_recall.tolist() == [0.5, 1.0]
    assert result.proposals_per_video.tolist() == [1.0, 2.0]


def frames(truth, predicted, name="ava", **more):
    boxes = rows("\n".join(truth) + "\n", Findings()), rows("\n".join(predicted) + "\n", Findings())
    return evaluate_frames(*boxes, PROTOCOLS[name], {1: "stand", 2: "walk"}, **more)


def test_a_detection_looks_at_its_best_box_only():
    truth = ["v,902,0,0,0.5,1,1,0", "v,902,0.02,0,0.52,1,1,1"]
    predicted = ["v,902,0,0,0.5,1,1,0.9", "v,902,0,0,0.5,1,1,0.8"]
    result = frames(truth, predicted)
    assert result.ap[0, 0] == 0.5 and np.isnan(result.ap[1, 0])
    assert result.average_mAP == 0.5 and json.loads(json.dumps(result.to_json()))["ap"]["2 walk"] == [None]


def test_frame_variants():
    truth = ["v,902,0,0,1,1,1,0", "v,903,0,0,1,1,1,0"]
    predicted = ["v,902,0,0,1,1,1,0.5", "z,902,0,0,1,1,1,0.9", "v,903,0,0,1,1,1,0.4"]
    assert frames(truth, predicted).average_mAP == 1
    assert frames(truth, predicted, "ava-acar").average_mAP == pytest.approx(2 / 3)
    excluded = {("v", "903.000000")}
    assert frames(truth, predicted, "ava", excluded=excluded).instances == 2
    assert frames(truth, predicted, "ava-acar", excluded=excluded).instances == 1
    crowd = [f"v,902,0.{n:02d},0,0.{n:02d}5,1,2,0.9" for n in range(50)]
    assert frames(truth[:1], crowd + predicted[:1]).average_mAP == 0
    assert frames(truth[:1], crowd + predicted[:1], "ava-pyslowfast").average_mAP == 1


def test_box_iou_without_a_pixel_more():
    one, two = np.array([[0, 0, 1, 1.0]]), np.array([[0.5, 0, 1.5, 1.0]])
    assert box_iou(one, two)[0] == pytest.approx(1 / 3) and box_iou(one, one)[0] == 1


def test_frame_diagnosis_by_size_and_crowd():
    text = ["v,902,0,0,0.1,0.1,1,0", "v,903,0,0,0.9,0.9,1,0", "v,903,0.5,0,0.9,0.9,1,0"]
    truth = rows("\n".join(text), Findings())
    predicted = rows("v,903,0,0,0.9,0.9,1,0.9\n", Findings())
    matching = match_frames(truth, predicted, PROTOCOLS["ava"], [1], ())
    found = frame_diagnosis(matching, [1], "later_first")
    sizes = [(entry["instances"], entry["mAP"]) for entry in found["box_size"].values()]
    assert sizes == [(1, 0.0), (0, None), (2, 0.5)]
    assert [entry["instances"] for entry in found["persons_in_image"].values()] == [1, 2, 0, 0]


def test_an_overlap_of_three_tenths_counts_on_the_grid_of_ego4d_and_not_on_that_of_epic():
    truth = Annotations.from_rows([("v", "x", 0, 10)])
    predicted = Predictions.from_rows([("v", "x", 0, 3, 0.5)])
    scores = {name: evaluate(truth, predicted, PROTOCOLS[name]).mAP.tolist() for name in ("ego4d", "epic")}
    assert scores == {"ego4d": [1, 1, 1, 0, 0], "epic": [1, 1, 0, 0, 0]}
