"""Whatever a file holds, the answer is a result or one sentence: never a traceback."""

import copy
import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vidtad.errors import InputError
from vidtad.evaluation import Extras, evaluate_files, tables

FIXTURES = Path(__file__).parents[1] / "parity" / "fixtures"
TRUTH = {
    "version": "1",
    "taxonomy": [],
    "database": {
        "a": {
            "subset": "val",
            "duration": 9.0,
            "annotations": [
                {"label": "x", "segment": [0.0, 2.0], "label_id": 0, "coverage": 0.2},
                {"label": "y", "segment": [1.0, 2.5], "label_id": 1},
            ],
        },
        "b": {"subset": "train", "duration": None, "annotations": [{"label": "x", "segment": ["1", "2"]}]},
    },
}
PREDICTED = {
    "version": "1",
    "external_data": {},
    "results": {
        "a": [{"label": "x", "score": 0.5, "segment": [0.0, 1.9]}, {"label": "y", "score": 0.5, "segment": [3, 4]}],
        "c": [{"label": "z", "score": 0.25, "segment": [0, 1]}],
    },
}
junk = st.recursive(
    st.none()
    | st.booleans()
    | st.sampled_from([-3, 0, 1, 99, 10**400])
    | st.floats()
    | st.sampled_from(["", "x", "nan", "7", "²", "-1"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["segment", "label", "results", "a", "annotations", "actions"]), inner, max_size=3
        )
    ),
    max_leaves=8,
)


def places(document, path=()):
    yield path
    items = (
        document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    )
    for key, inner in items:
        yield from places(inner, (*path, key))


@st.composite
def damaged(draw, document):
    document = copy.deepcopy(document)
    for _ in range(draw(st.integers(0, 3))):
        path = draw(st.sampled_from(list(places(document))))
        value = draw(junk)
        if not path:
            return value
        node = document
        for key in path[:-1]:
            node = node[key]
        node[path[-1]] = value
    return document


def attempt(truth, predicted, **options):
    try:
        result = evaluate_files(truth, predicted, **options)
    except InputError as error:
        assert str(error) and "\n" not in str(error)
        return
    json.dumps(result.to_json(), allow_nan=False)
    assert 0 <= result.average_mAP <= 1
    tables(result)


@settings(deadline=None, max_examples=120, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    damaged(TRUTH),
    damaged(PREDICTED),
    st.sampled_from([None, "activitynet", "actionformer", "opentad", "ego4d", "epic", "thumos14-kit"]),
    st.booleans(),
)
def test_damaged_json(tmp_path, truth, predicted, protocol, strict):
    (tmp_path / "gt").write_text(json.dumps(truth))
    (tmp_path / "preds").write_text(json.dumps(predicted))
    attempt(tmp_path / "gt", tmp_path / "preds", protocol=protocol, strict=strict)
    extras = Extras(diagnose=True, bootstrap=3, against=tmp_path / "preds")
    attempt(tmp_path / "gt", tmp_path / "preds", protocol=protocol, extras=extras)


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
@pytest.mark.parametrize(
    "pair",
    [
        ("epic_map/annotations.csv", "epic_map/submission.json"),
        ("ava_eval/basic/gt.csv", "ava_eval/basic/det.csv"),
        ("ego4d_mq/gt.json", "thumos_evalkit/detections.txt"),
    ],
)
def test_damaged_text(tmp_path, pair, data):
    for place, name in enumerate(pair):
        lines = (FIXTURES / name).read_text().splitlines()[:12]
        for _ in range(data.draw(st.integers(0, 3))):
            row = data.draw(st.integers(0, len(lines) - 1))
            cut = data.draw(st.integers(0, min(len(lines[row]), 200)))
            piece = data.draw(st.sampled_from(["", ",", '"', "\0", "x", "nan", "1e999", "\n", "²"]))
            lines[row] = lines[row][:cut] + piece + lines[row][cut + data.draw(st.integers(0, 9)) :]
        (tmp_path / str(place)).write_text("\n".join(lines))
    attempt(tmp_path / "0", tmp_path / "1")
