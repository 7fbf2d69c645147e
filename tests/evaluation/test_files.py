"""The one call behind `vidtad evaluate`: choices it makes, what it reports, what it refuses."""

import json
from pathlib import Path

import pytest

from vidtad.errors import InputError
from vidtad.evaluation import PROTOCOLS, Extras, evaluate_files, protocol_named, tables
from vidtad.formats import activitynet
from vidtad.formats.tables import Annotations, Predictions

FIXTURES = Path(__file__).parents[1] / "parity" / "fixtures"
KEYS = {"average_mAP", "mAP", "tiou_thresholds", "ap", "protocol", "videos", "instances"}


def write(tmp_path, truth, predicted, **more):
    paths = tmp_path / "gt.json", tmp_path / "preds.json"
    documents = (
        activitynet.annotations_json(Annotations.from_rows(truth, **more)),
        activitynet.results_json(Predictions.from_rows(predicted)),
    )
    for path, document in zip(paths, documents, strict=True):
        path.write_text(json.dumps(document))
    return paths


def test_document_and_line():
    case = FIXTURES / "anet_map" / "missing"
    result = evaluate_files(case / "gt.json", case / "preds.json")
    document = json.loads(json.dumps(result.to_json(), allow_nan=False))
    assert document.keys() >= KEYS
    assert document["protocol"] == "activitynet" and document["subset"] == "validation"
    assert len(document["mAP"]) == len(document["tiou_thresholds"]) == 10
    assert all(len(row) == 10 for row in document["ap"].values())
    assert document["average_mAP"] == pytest.approx(sum(document["mAP"]) / 10)
    for part in ("activitynet", "14 videos", "59 instances", "18.45"):
        assert part in result.paper_line()
    assert "\n" not in result.paper_line()
    kinds = {finding["kind"] for finding in document["warnings"]}
    assert "predicted video unknown to the ground truth" in kinds and "annotated video without predictions" in kinds


def test_strict_refuses_what_is_reported(tmp_path):
    case = FIXTURES / "anet_map" / "missing"
    with pytest.raises(InputError, match="unknown to the ground truth"):
        evaluate_files(case / "gt.json", case / "preds.json", strict=True)
    clean = write(tmp_path, [("v", "x", 0, 1)], [("v", "x", 0, 1, 0.5)])
    assert evaluate_files(*clean, strict=True).average_mAP == 1


def test_protocol_is_detected_by_content(tmp_path):
    kit, epic, ego4d = (FIXTURES / name for name in ("thumos_evalkit", "epic_map", "ego4d_mq"))
    found = {
        "thumos14": evaluate_files(kit / "annotation", kit / "detections.txt"),
        "epic": evaluate_files(epic / "annotations.csv", epic / "submission.json"),
        "ego4d": evaluate_files(ego4d / "gt.json", ego4d / "preds_sorted.json"),
        "ava": evaluate_files(FIXTURES / "ava_eval/basic/gt.csv", FIXTURES / "ava_eval/basic/det.csv"),
    }
    assert {name: result.protocol.name for name, result in found.items()} == {name: name for name in found}
    assert set(found["epic"].details["tasks"]) == {"verb", "noun", "action"}
    assert not any("verb and noun" in finding.kind for finding in found["epic"].findings)
    assert "verb mAP average 57.59; noun mAP average 63.50; action mAP average 65.27" in found["epic"].paper_line()
    assert "Recall@1x" in found["ego4d"].paper_line()
    for result in found.values():
        assert result.to_json().keys() >= KEYS
        assert all(len(row) == len(table.header) for table in tables(result) for row in table.rows)


def test_subset_is_chosen_and_told(tmp_path):
    truth = [("a", "x", 0, 1), ("b", "x", 0, 1)]
    only_b = write(tmp_path, truth, [("b", "x", 0, 1, 0.5)], subset=("training", "other"))
    result = evaluate_files(*only_b)
    assert result.subset == "other" and "subset not given" in result.findings[0].kind
    both = write(tmp_path, truth, [("a", "x", 0, 1, 0.5), ("b", "x", 0, 1, 0.5)], subset=("training", "validation"))
    assert evaluate_files(*both).subset == "validation"
    assert evaluate_files(*both, subset="training").subset == "training"
    assert evaluate_files(*both, subset="Training").subset == "training"
    with pytest.raises(InputError, match="'training', 'validation'"):
        evaluate_files(*both, subset="test")


def test_rules_are_options(tmp_path):
    paths = write(tmp_path, [("v", "x", 5, 5)], [("v", "x", 1, 1, 0.5)])
    assert evaluate_files(*paths).average_mAP == 1
    assert evaluate_files(*paths, zero_union="miss").average_mAP == 0
    assert evaluate_files(*paths, tiou=[0.5]).to_json()["tiou_thresholds"] == [0.5]
    assert evaluate_files(*paths, tiou=None).protocol.tiou == PROTOCOLS["activitynet"].tiou
    for wrong in ({"tiou": [2]}, {"ties": "random"}, {"colour": "red"}):
        with pytest.raises(InputError):
            evaluate_files(*paths, **wrong)


def test_blocked_file(tmp_path):
    paths = write(tmp_path, [("v", "x", 0, 1), ("w", "x", 0, 1)], [("v", "x", 0, 1, 0.5)])
    (tmp_path / "blocked.json").write_text('["w"]')
    assert evaluate_files(*paths, blocked=tmp_path / "blocked.json").instances == 1
    (tmp_path / "blocked.json").write_text('{"w": 1}')
    with pytest.raises(InputError, match="list of video ids"):
        evaluate_files(*paths, blocked=tmp_path / "blocked.json")


def test_near_names_are_offered():
    with pytest.raises(InputError, match="thumos14"):
        protocol_named("thumos")


def test_nothing_to_evaluate_is_said(tmp_path):
    paths = write(tmp_path, [], [("v", "x", 0, 1, 0.5)])
    with pytest.raises(InputError, match="no annotation"):
        evaluate_files(*paths)


def test_no_predictions_score_zero(tmp_path):
    paths = write(tmp_path, [("v", "x", 0, 1)], [])
    result = evaluate_files(*paths, extras=Extras(diagnose=True, bootstrap=5))
    assert result.average_mAP == 0 and result.mean_recall.max() == 0
    json.dumps(result.to_json(), allow_nan=False)


def test_class_numbers_are_named_through_the_ground_truth(tmp_path):
    paths = write(tmp_path, [("v", "x", 0, 1), ("v", "y", 2, 3)], [], label_ids={"x": 7, "y": 9})
    rows = [{"label_id": 9, "scores": 0.5, "segment": [2, 3]}, {"label_id": 7, "scores": 0.4, "segment": [0, 1]}]
    paths[1].write_text(json.dumps({"database": {"v": rows}}))
    assert evaluate_files(*paths).average_mAP == 1


def test_unlabelled_proposals_still_have_ar_an(tmp_path):
    paths = write(tmp_path, [("v", "x", 0, 1), ("v", "y", 2, 3)], [])
    rows = [{"score": 0.5, "segment": [2, 3]}, {"score": 0.4, "segment": [0, 1]}]
    paths[1].write_text(json.dumps({"version": "1", "results": {"v": rows}, "external_data": {}}))
    assert evaluate_files(*paths).details["proposals"]["AR@AN"]["100"] == 1


def test_a_submission_without_a_prediction_is_still_scored_three_times(tmp_path):
    epic = FIXTURES / "epic_map"
    submission = json.loads((epic / "submission.json").read_text())
    submission["results"] = {video: [] for video in submission["results"]}
    (tmp_path / "submission.json").write_text(json.dumps(submission))
    found = evaluate_files(epic / "annotations.csv", tmp_path / "submission.json")
    assert {task: table["average_mAP"] for task, table in found.details["tasks"].items()} == {
        "verb": 0.0, "noun": 0.0, "action": 0.0,
    }  # fmt: skip


def test_thresholds_said_twice_count_once_and_epic_rules_on_plain_labels_are_told():
    thumos = FIXTURES / "detad" / "thumos"
    pair = thumos / "gt.json", thumos / "preds.json"
    assert evaluate_files(*pair, "thumos14", tiou=[0.5, 0.5, 0.3]).protocol.tiou == (0.5, 0.3)
    told = [finding for finding in evaluate_files(*pair, "epic").findings if "verb and noun" in finding.kind]
    assert len(told) == 1 and told[0].count == 2 and not told[0].serious


def test_what_boxes_have_no_use_for_is_refused_not_passed_over(tmp_path):
    basic = FIXTURES / "ava_eval" / "basic"
    pair = basic / "gt.csv", basic / "det.csv"
    (tmp_path / "excluded.csv").write_text("nobody,0902\n")
    whole = evaluate_files(*pair, "ava-acar").average_mAP
    assert evaluate_files(*pair, "ava-acar", blocked=tmp_path / "excluded.csv").average_mAP == whole
    for wrong, sentence in (
        ({"blocked": tmp_path / "excluded.csv"}, "ava-acar"),
        ({"blocked": ["v"]}, "file"),
        ({"subset": "validation"}, "subset"),
    ):
        with pytest.raises(InputError, match=sentence):
            evaluate_files(*pair, "ava", **wrong)
