"""Diagnosis, bootstrap, comparison and figures."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings

from tests.evaluation.test_temporal import annotation_rows, prediction_rows, tables
from vidtad.errors import InputError
from vidtad.evaluation import PROTOCOLS, Extras, evaluate_files
from vidtad.evaluation import tables as text_tables
from vidtad.evaluation.align import align
from vidtad.evaluation.characteristics import Bins
from vidtad.evaluation.confusion import confusions
from vidtad.evaluation.diagnosis import OUTCOMES, diagnose, diagnosis_json
from vidtad.evaluation.figures import save_figures
from vidtad.evaluation.noise import bootstrap, compare, resampled_map
from vidtad.evaluation.temporal import average_precision, find_pairs, match
from vidtad.formats.tables import Annotations, Predictions

THUMOS = Path(__file__).parents[1] / "parity" / "fixtures" / "detad" / "thumos"
RULES = replace(PROTOCOLS["activitynet"], tiou=(0.5,))


def test_each_error_gets_its_name():
    truth = Annotations.from_rows(
        [("v", "x", 0, 10), ("v", "y", 20, 30), ("v", "x", 40, 50)], duration=np.array([90.0])
    )
    predicted = Predictions.from_rows(
        [
            ("v", "x", 0, 10, 0.9),  # true positive
            ("v", "x", 0, 9, 0.8),  # double detection
            ("v", "x", 20, 30, 0.7),  # wrong label
            ("v", "x", 40, 44, 0.6),  # localization
            ("v", "x", 16, 24, 0.5),  # confusion
            ("v", "x", 60, 70, 0.4),  # background
        ]
    )
    found = diagnose(align(truth, predicted, RULES), truth)
    assert found.false_positives.outcome.tolist() == [list(range(6))]
    assert {name: count.tolist() for name, count in found.false_positives.counts().items()} == {
        name: [1] for name in OUTCOMES
    }
    assert confusions(found)["pairs"] == [
        {"predicted": "x", "truth": "y", "count": 2, "wrong_label": 1, "confusion": 1}
    ]


def test_only_the_ten_best_per_annotation_are_looked_at():
    truth = Annotations.from_rows([("v", "x", 0, 10)])
    predicted = Predictions.from_rows([("v", "x", 50, 60, 1 / (n + 1)) for n in range(25)])
    assert len(diagnose(align(truth, predicted, RULES), truth).false_positives.rank) == 10


def test_bins_are_closed_on_the_right_and_at_the_lowest_edge():
    bins = Bins((0, 1, 2), ("a", "b"))
    assert bins.place(np.array([-1, 0, 1, 1.5, 2, 3, np.nan])).tolist() == [-1, 0, 0, 1, 1, -1, -1]


@settings(deadline=None, max_examples=40)
@given(annotation_rows, prediction_rows)
def test_counting_every_video_once_gives_the_plain_map(truth, predicted):
    aligned = align(*tables(truth, predicted), RULES)
    matching = match(aligned, find_pairs(aligned))
    once = resampled_map(aligned, matching, np.ones((1, aligned.subset_videos)))
    np.testing.assert_allclose(once[0], average_precision(aligned, matching).mean(axis=0), atol=1e-12)


@settings(deadline=None, max_examples=30)
@given(annotation_rows, prediction_rows)
def test_a_video_drawn_twice_is_two_videos(truth, predicted):
    twin = {"a": ("a", "a2"), "b": ("b",), "c": ("c",)}
    # Copies need their own rank right after the original, or precision between them would differ.
    predicted = [(v, k, ends, 100 - n) for n, (v, k, ends, _) in enumerate(predicted)]
    doubled = [[(name, *row[1:]) for row in rows for name in twin[row[0]]] for rows in (truth, predicted)]
    aligned = align(*tables(truth, predicted), RULES)
    if "a" not in aligned.videos[: aligned.subset_videos]:
        return
    times = np.array([[2.0 if name == "a" else 1.0 for name in aligned.videos[: aligned.subset_videos]]])
    weighted = resampled_map(aligned, match(aligned, find_pairs(aligned)), times)
    copied = align(*tables(*doubled), RULES)
    plain = average_precision(copied, match(copied, find_pairs(copied)))
    np.testing.assert_allclose(weighted[0], plain.mean(axis=0), atol=1e-12)


def test_bootstrap_interval_holds_the_value_and_is_repeatable():
    pair = (
        Annotations.from_rows([(f"v{n}", "x", 0, 10) for n in range(20)]),
        Predictions.from_rows([(f"v{n}", "x", 0, 10 if n % 2 else 3, 1 - n / 100) for n in range(20)]),
    )
    aligned = align(*pair, RULES)
    found = bootstrap(aligned, 200, seed=3)
    average = found["average_mAP"]
    assert average["low"] < average["value"] < average["high"] and average["deviation"] > 0
    assert bootstrap(aligned, 200, seed=3) == found != bootstrap(aligned, 200, seed=4)
    with pytest.raises(InputError, match="at least 2"):
        bootstrap(aligned, 1)


def test_comparison_tells_a_real_difference_from_none():
    truth = Annotations.from_rows([(f"v{n}", "xy"[n % 2], 0, 10) for n in range(40)])
    good = [(f"v{n}", "xy"[n % 2], 0, 10, 0.5 + n / 100) for n in range(40)]
    bad = [(v, k, s, e if k == "x" else 2, score) for v, k, s, e, score in good]
    one, two = (align(truth, Predictions.from_rows(rows), RULES) for rows in (good, bad))
    same = compare(one, one, 100)
    assert not same["beyond_noise"] and same["p_value"] == 1 and same["classes"] == same["videos"] == []
    worse = compare(one, two, 100)
    assert worse["beyond_noise"] and worse["p_value"] < 0.05
    assert worse["difference"]["value"] == pytest.approx(-0.5)
    assert [row["name"] for row in worse["classes"]] == ["y"] and len(worse["videos"]) == 20


def test_everything_at_once_is_json_and_tables(tmp_path):
    extras = Extras(diagnose=True, bootstrap=20, against=THUMOS / "preds.json")
    result = evaluate_files(THUMOS / "gt.json", THUMOS / "preds.json", extras=extras)
    document = json.loads(json.dumps(result.to_json(), allow_nan=False))
    assert document.keys() >= {"diagnosis", "confusion", "bootstrap", "comparison", "proposals", "recall"}
    assert document["comparison"]["difference"]["value"] == 0
    shown = text_tables(result)
    assert all(len(row) == len(table.header) for table in shown for row in table.rows)
    assert len({table.title for table in shown}) == len(shown)


def test_pairs_of_characteristics_add_up_to_single_ones():
    diagnosis = evaluate_files(
        THUMOS / "gt.json", THUMOS / "preds.json", "thumos14", extras=Extras(diagnose=True)
    ).details["diagnosis"]
    assert len(diagnosis["missed_by_pair"]) == 3
    for pair, rows in diagnosis["missed_by_pair"].items():
        for label, row in rows.items():
            alone = diagnosis["characteristics"][pair.partition(" x ")[0]][label]
            assert sum(entry["annotations"] for entry in row.values()) == alone["annotations"]
            missed = sum(entry["annotations"] * (entry["missed"] or 0) for entry in row.values())
            assert missed == pytest.approx(alone["annotations"] * (alone["missed"] or 0))


def test_figures(tmp_path):
    pytest.importorskip("matplotlib")
    result = evaluate_files(THUMOS / "gt.json", THUMOS / "preds.json", extras=Extras(diagnose=True, bootstrap=5))
    written = save_figures(result, tmp_path)
    assert len(written) == 10 and {path.suffix for path in written} == {".png", ".svg"}
    assert written[0].read_bytes()[:4] == b"\x89PNG" and b"<svg" in written[1].read_bytes()
    with pytest.raises(InputError, match="jpeg"):
        save_figures(result, tmp_path, ["jpeg"])


def test_slices_without_predictions_have_no_shares() -> None:
    truth = Annotations.from_rows([("v", "a", 0.0, 1.0), ("v", "a", 2.0, 3.0)], source="test")
    found = Predictions.from_rows([("v", "a", 0.0, 1.0, 0.9)], source="test")
    document = diagnosis_json(diagnose(align(truth, found, RULES), truth))["false_positives"]
    assert set(document["share_by_slice"][0].values()) == {0.0, 1.0}
    assert set(document["share_by_slice"][5].values()) == {None}
