"""`vidtad evaluate` through the command line: one document on stdout, everything else beside it."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from vidtad.cli import app

FIXTURES = Path(__file__).parents[1] / "parity" / "fixtures"
PREDICTED = {"results": {"a": [{"label": "x", "score": 0.9, "segment": [3, 3]}]}}


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["evaluate", *map(str, arguments)])


def files(folder: Path, segment: list[float], predicted: Any = PREDICTED) -> tuple[Path, Path]:
    truth = {"database": {"a": {"subset": "val", "annotations": [{"label": "x", "segment": segment}]}}}
    (folder / "gt.json").write_text(json.dumps(truth))
    (folder / "preds.json").write_text(json.dumps(predicted))
    return folder / "gt.json", folder / "preds.json"


CASES = [
    (path.parent, name)
    for path in sorted(FIXTURES.glob("anet_map/*/expected.json"))
    for name, wanted in json.loads(path.read_text())["runs"][0].items()
    if isinstance(wanted, dict) and "error" not in wanted
]


@pytest.mark.parametrize(("case", "name"), CASES, ids=lambda value: getattr(value, "name", value))
def test_published_evaluators(case: Path, name: str, tmp_path: Path) -> None:
    asked = json.loads((case / "expected.json").read_text())
    wanted = asked["runs"][0][name]
    wanted = wanted.get("later_first", wanted)
    blocked = tmp_path / "blocked.json"
    blocked.write_text(json.dumps(asked.get("blocked_videos", [])))
    options = ["--protocol", name, "--subset", asked["subset"], "--blocked", str(blocked), "--json"]
    for threshold in asked["runs"][0]["tiou_thresholds"]:
        options += ["--tiou", repr(threshold)]
    document = json.loads(run(case / "gt.json", case / "preds.json", *options).stdout)
    assert document["instances"] == wanted["n_annotations"]
    assert document["average_mAP"] == pytest.approx(wanted["average_mAP"], abs=1e-9)
    assert document["ap"].keys() == wanted["ap"].keys()
    for label, row in wanted["ap"].items():
        np.testing.assert_allclose(document["ap"][label], row, rtol=0, atol=1e-9)


def test_rules_are_chosen_by_name(tmp_path: Path) -> None:
    pair = files(tmp_path, [2, 2])
    scores = {
        value: json.loads(run(*pair, "--rule", f"zero_union={value}", "--json").stdout)["average_mAP"]
        for value in ("match", "miss")
    }
    assert scores == {"match": 1.0, "miss": 0.0}


@pytest.mark.parametrize(
    ("rule", "said"),
    [("zero_unoin=miss", "zero_union"), ("zero_union=mis", "match, miss"), ("tiou=0.5", "is not known"), ("", "ties")],
)
def test_a_rule_that_does_not_exist_is_refused(tmp_path: Path, rule: str, said: str) -> None:
    result = run(*files(tmp_path, [1, 2]), "--rule", rule)
    assert result.exit_code == 2 and said in result.stderr and result.stdout == ""


def test_numbers_beyond_any_float_are_reported(tmp_path: Path) -> None:
    rows = [
        {"label": "x", "score": 10**400, "segment": [0, 1]},
        {"label": "x", "score": 0.5, "segment": [-1e308, 1e308]},
        {"label": "x", "score": 0.4, "segment": [1, 2]},
    ]
    result = run(*files(tmp_path, [1, 2], {"results": {"a": rows}}), "--json")
    document = json.loads(result.stdout)
    assert result.exit_code == 0 and document["predictions"] == 2
    assert "score that is no finite number" in {warning["kind"] for warning in document["warnings"]}


def test_a_first_video_without_annotations_does_not_hide_the_others(tmp_path: Path) -> None:
    truth, predictions = files(tmp_path, [1, 2], {"results": {"a": [{"label": "x", "score": 1, "segment": [1, 2]}]}})
    document = json.loads(truth.read_text())
    truth.write_text(json.dumps({"database": {"unlabelled": {"subset": "val"}} | document["database"]}))
    assert json.loads(run(truth, predictions, "--json").stdout)["average_mAP"] == 1.0


def test_misuse_is_one_sentence(tmp_path: Path) -> None:
    truth, predictions = files(tmp_path, [1, 2])
    os.mkfifo(tmp_path / "pipe")
    wrong = {
        "pipe": (truth, tmp_path / "pipe"),
        "label map": (truth, predictions, "--label-map", predictions),
        "--seed": (truth, predictions, "--bootstrap", 5, "--seed", -1),
        "did you mean thumos14": (truth, predictions, "--protocol", "thumos"),
        "swap": (predictions, truth),
    }
    for said, arguments in wrong.items():
        result = run(*arguments, "--json")
        assert (result.exit_code, result.stdout) == (2, ""), said
        assert said in result.stderr
