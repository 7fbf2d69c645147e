"""Every format is recognised by content, and gives the same table."""

import csv
import io
import json
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vidtad.errors import InputError
from vidtad.formats import activitynet, delimited
from vidtad.formats.document import parse_json
from vidtad.formats.reading import read_annotations, read_predictions
from vidtad.formats.tables import Annotations, Findings, Predictions

PREDICTED = Predictions.from_rows(
    [("v1", "Diving", 1.5, 2.25, 0.1), ("v1", "Shotput", 0.0, 9.0, 1 / 3), ("v2", "Diving", 3.0, 4.0, 0.75)]
)
finite = st.floats(-1e6, 1e6)
prediction_rows = st.lists(st.tuples(st.sampled_from("pqr"), st.text(max_size=5), finite, finite, finite), max_size=12)


def rows(table):
    """Content of a table as comparable tuples, in order."""
    extra = [table.score.tolist()] if isinstance(table, Predictions) else []
    return list(
        zip(
            [table.videos[v] for v in table.video],
            [table.labels[k] for k in table.label],
            table.start.tolist(),
            table.end.tolist(),
            *extra,
            strict=True,
        )
    )


def as_text(tmp_path, name, content):
    path = tmp_path / name
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def by_number(predicted):
    order = {"Diving": 26, "Shotput": 79}
    return [(v, str(order[k]), *rest) for v, k, *rest in rows(predicted)]


def test_activitynet_and_timeline_results(tmp_path):
    document = activitynet.results_json(PREDICTED) | {"videos": {}, "detector": {"name": "x"}, "people": {}}
    assert rows(read_predictions(as_text(tmp_path, "anything.txt", document))) == rows(PREDICTED)


def test_bare_results_and_actionformer_json(tmp_path):
    results = activitynet.results_json(PREDICTED)["results"]
    assert rows(read_predictions(as_text(tmp_path, "a", results))) == rows(PREDICTED)
    ids = {"Diving": 26, "Shotput": 79}
    database = {
        name: [{"segment": row["segment"], "label_id": ids[row["label"]], "scores": row["score"]} for row in found]
        for name, found in results.items()
    }
    read = read_predictions(as_text(tmp_path, "b", {"database": database}))
    assert rows(read) == by_number(PREDICTED) and read.numbered


def as_csv(predicted):
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([("video", "start_s", "end_s", "label", "score")])
    writer.writerows((v, s, e, k, score) for v, k, s, e, score in rows(predicted))
    return text.getvalue()


def test_csv_and_thumos_text(tmp_path):
    ids = {"Diving": 26, "Shotput": 79}
    read = read_predictions(as_text(tmp_path, "a", as_csv(PREDICTED)))
    assert rows(read) == rows(PREDICTED)
    lines = "".join(f"{v} {s} {e} {ids[k]} {score}\n" for v, k, s, e, score in rows(PREDICTED))
    read = read_predictions(as_text(tmp_path, "b", lines))
    assert rows(read) == by_number(PREDICTED) and read.numbered


@pytest.mark.parametrize("protocol", [2, 4])
def test_actionformer_pickle_is_read_without_running_it(tmp_path, protocol):
    columns = {
        "video-id": [PREDICTED.videos[v] for v in PREDICTED.video],
        "t-start": PREDICTED.start.astype(np.float32),
        "t-end": PREDICTED.end.astype(np.float32),
        "label": np.array([26, 79, 26]),
        "score": PREDICTED.score.astype(np.float32),
    }
    path = tmp_path / "eval_results.pkl"
    path.write_bytes(pickle.dumps(columns, protocol=protocol))
    read = read_predictions(path)
    assert read.numbered and [row[:4] for row in rows(read)] == [row[:4] for row in by_number(PREDICTED)]
    np.testing.assert_array_equal(read.score, PREDICTED.score.astype(np.float32).astype(np.float64))


def test_a_pickle_that_names_code_is_refused(tmp_path):
    class Hostile:
        def __reduce__(self):
            return (print, ("ran",))

    path = tmp_path / "eval_results.pkl"
    path.write_bytes(pickle.dumps({"video-id": Hostile()}, protocol=4))
    with pytest.raises(InputError, match="refused"):
        read_predictions(path)
    with pytest.raises(InputError, match="pickle"):
        read_annotations(path)


def test_npz_columns(tmp_path):
    np.savez(
        tmp_path / "a.npz",
        videos=np.array(PREDICTED.videos),
        classes=np.array(PREDICTED.labels),
        video=PREDICTED.video,
        label=PREDICTED.label,
        start=PREDICTED.start,
        end=PREDICTED.end,
        score=PREDICTED.score,
    )
    assert rows(read_predictions(tmp_path / "a.npz")) == rows(PREDICTED)


def test_a_folder_of_timelines(tmp_path):
    for video in PREDICTED.videos:
        results = {video: activitynet.results_json(PREDICTED)["results"][video]}
        as_text(tmp_path, f"{video}.json", {"version": "x", "results": results})
        as_text(tmp_path, f"{video}.csv", "not read when there is JSON")
    assert rows(read_predictions(tmp_path)) == rows(PREDICTED)
    as_text(tmp_path, "summary.json", {"done": 2})
    read = read_predictions(tmp_path)
    assert rows(read) == rows(PREDICTED) and "summary.json" in read.findings[0].example


def test_rows_out_of_video_order_are_grouped(tmp_path):
    text = "video,start_s,end_s,label,score\nb,0,1,x,0.5\na,0,1,x,0.5\nb,2,3,x,0.5\n"
    assert [row[:3] for row in rows(read_predictions(as_text(tmp_path, "p", text)))] == [
        ("b", "x", 0.0),
        ("b", "x", 2.0),
        ("a", "x", 0.0),
    ]


TRUTH = [("v1", "Diving", 1.0, 2.0), ("v1", "Shotput", 3.5, 4.0), ("v2", "Diving", 0.0, 1.0)]


def test_ground_truth_layouts_agree(tmp_path):
    truth = Annotations.from_rows(TRUTH, subset=("val", "val"))
    wrapped = activitynet.annotations_json(truth)
    flat = wrapped["database"]
    as_strings = json.loads(json.dumps(wrapped))
    for video in as_strings["database"].values():
        for row in video["annotations"]:
            row["segment"] = [str(end) for end in row["segment"]]
    ego4d = {
        name: {
            "subset": "val",
            "clip_id": name,
            "annotations": [
                {"label": row["label"], "start_time": row["segment"][0], "end_time": row["segment"][1]}
                for row in video["annotations"]
            ],
        }
        for name, video in flat.items()
    }
    table = "video,start_s,end_s,label,subset\n" + "".join(f"{v},{s},{e},{k},val\n" for v, k, s, e in TRUTH)
    for number, content in enumerate((wrapped, flat, as_strings, ego4d, table)):
        read = read_annotations(as_text(tmp_path, str(number), content))
        assert rows(read) == TRUTH, number
        assert read.subsets == ("val",), number
    assert read_annotations(tmp_path / "3").source == "ego4d"


def test_thumos_folder(tmp_path):
    as_text(tmp_path, "Diving_test.txt", "v1  1.0 2.0\nv2.mp4 0 1\n")
    as_text(tmp_path, "Shotput_test.txt", "v1  3.5 4.0\n")
    as_text(tmp_path, "Ambiguous_test.txt", "v3 1 2\n")
    as_text(tmp_path, "detclasslist.txt", "26 Diving\n79 Shotput\n")
    read = read_annotations(tmp_path)
    assert sorted(rows(read)) == sorted([*TRUTH, ("v3", "Ambiguous", 1.0, 2.0)])
    assert read.label_ids == {"Diving": 26, "Shotput": 79} and read.subsets == ("test",)


def test_multithumos(tmp_path):
    document = {"v": {"subset": "testing", "duration": 9.0, "actions": [[3, 1.0, 2.0], [12, 0.0, 9.0]]}}
    read = read_annotations(as_text(tmp_path, "m", document))
    assert rows(read) == [("v", "3", 1.0, 2.0), ("v", "12", 0.0, 9.0)] and read.duration.tolist() == [9.0]


@settings(deadline=None, max_examples=60)
@given(prediction_rows)
def test_results_survive_json_and_csv(predicted):
    predicted = sorted(predicted, key=lambda row: row[0])
    table = Predictions.from_rows(predicted)
    text = json.dumps(activitynet.results_json(table))
    assert rows(activitynet.predictions(parse_json(text, None, Findings()), Findings())) == rows(table)
    if not any(set(row[1]) & set("\r\n\0") or row[1] != row[1].strip() for row in predicted):
        assert rows(delimited.predictions(as_csv(table), Findings())) == rows(table)


def test_bad_rows_are_counted_with_an_example(tmp_path):
    text = (
        '{"results": {"a": [{"label": "x", "score": 0.5, "segment": [3, 1]},'
        ' {"label": "x", "score": "high", "segment": [0, 1]}, {"label": "x", "score": NaN, "segment": [0, 1]},'
        ' {"label": "x", "score": 1, "segment": [0]}, {"label": "x", "score": 1, "segment": ["a", 1]}, 7],'
        ' "b": 3, "a": [{"label": "x", "score": 0.5, "segment": [3, 1]}, {"label": "x", "score": Infinity,'
        ' "segment": [0, 1]}, {"label": "x", "score": 1, "segment": [0, null]}, {"label": "x"}, 7]}}'
    )
    with pytest.raises(InputError):
        read_predictions(as_text(tmp_path, "p", text))
    read = read_predictions(as_text(tmp_path, "p", text.replace('"b": 3', '"b": []')))
    assert {finding.kind: finding.count for finding in read.findings} == {
        "duplicate id": 1,
        "segment that is no object": 1,
        "segment without two ends": 1,
        "segment end that is no number": 1,
        "score that is no finite number": 1,
        "reversed segment": 1,
    }
    assert rows(read) == [("a", "x", 3.0, 1.0, 0.5)]


@pytest.mark.parametrize("content", ["", "{}", "[1]", "hello", '{"results": 3}', "a,b\n1,2\n", "\x00\xff", "{"])
def test_anything_else_is_one_sentence(tmp_path, content):
    path = tmp_path / "file"
    path.write_bytes(content.encode("latin1"))
    for read in (read_annotations, read_predictions):
        with pytest.raises(InputError, match="file"):
            read(path)


def test_missing_and_swapped_files_are_told(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        read_predictions(tmp_path / "none.json")
    truth = as_text(tmp_path, "t", activitynet.annotations_json(Annotations.from_rows(TRUTH)))
    predicted = as_text(tmp_path, "p", activitynet.results_json(PREDICTED))
    with pytest.raises(InputError, match="swap"):
        read_predictions(truth)
    with pytest.raises(InputError, match="swap"):
        read_annotations(predicted)
