import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.formats.label_samples import ACTIVITYNET, BORIS, CSV, EAF, EXPECTED, FILES, LABEL_STUDIO, VIA
from vidtad.errors import InputError
from vidtad.formats.activitynet import annotations_json
from vidtad.formats.label_reading import read_labels
from vidtad.formats.label_types import Labels, video_id


def rows(labels: Labels) -> list[tuple[str, str, float, float]]:
    table = labels.table
    return [
        (table.videos[v], table.labels[k], s, e)
        for v, k, s, e in zip(
            table.video.tolist(), table.label.tolist(), table.start.tolist(), table.end.tolist(), strict=True
        )
    ]


def kinds(labels: Labels) -> set[str]:
    return {finding.kind for finding in labels.table.findings}


@pytest.mark.parametrize("name", FILES)
def test_every_tool_is_recognised_by_content(name: str, tmp_path: Path) -> None:
    path = tmp_path / f"renamed{Path(name).suffix}"
    path.write_text(FILES[name])
    labels = read_labels(path)
    assert sorted(rows(labels)) == sorted(EXPECTED[name])


@pytest.mark.parametrize("name", FILES)
def test_written_as_activitynet_they_read_the_same(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text(FILES[name])
    first = read_labels(path)
    again = tmp_path / "again.json"
    again.write_text(json.dumps(annotations_json(first.table)))
    second = read_labels(again)
    assert rows(second) == rows(first) and second.videos == first.videos
    assert second.table.subset == first.table.subset
    assert np.array_equal(second.table.duration, first.table.duration, equal_nan=True)


def test_what_cannot_be_used_is_told(tmp_path: Path) -> None:
    found = {}
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
        found[name] = kinds(read_labels(tmp_path / name))
    assert "ELAN annotation without times left out" in found["kitchen.eaf"]  # an unaligned time slot
    assert {"point event left out: it has no length", "state event that never stops"} <= found["project.boris"]
    assert "observation without a video left out" in found["project.boris"]
    assert "point event left out: it has no length" in found["aggregated.csv"] & found["tabular.tsv"]
    assert "segment without a label" in found["via.json"]
    assert "task without a frame rate, taken at Label Studio's 24 a second" in found["tasks.json"]


def test_groups_subsets_rates_and_files_of_activitynet_and_csv(tmp_path: Path) -> None:
    for name in ("activitynet.json", "labels.csv"):
        (tmp_path / name).write_text(FILES[name])
        labels = read_labels(tmp_path / name)
        assert labels.videos == ("a", "b") and labels.groups == ("home", "yard")
        assert labels.table.subset == ("training", "validation")
    labels = read_labels(tmp_path / "activitynet.json")
    assert labels.fps[0] == 25 and np.isnan(labels.fps[1]) and labels.files == ("clips/a.mp4", "")


def test_frames_of_label_studio_follow_the_given_rate(tmp_path: Path) -> None:
    (tmp_path / "t.json").write_text(json.dumps(LABEL_STUDIO))
    labels = read_labels(tmp_path / "t.json", frame_rate=50)
    assert ("run", "run", 0.48, 1.44) in rows(labels)
    assert kinds(labels) == {"result of another kind left out (choices)", "skipped annotation left out"}


def test_check_boxes_of_via_give_each_label(tmp_path: Path) -> None:
    document = json.loads(json.dumps(VIA))
    document["attribute"]["1"]["type"] = 2
    document["metadata"]["a"]["av"]["1"] = "0,1"
    (tmp_path / "v.json").write_text(json.dumps(document))
    assert [row[1] for row in rows(read_labels(tmp_path / "v.json"))] == ["break egg", "pour", "pour"]


@pytest.mark.parametrize("delimiter", [";", "\t"])
def test_spreadsheets_of_other_countries(delimiter: str, tmp_path: Path) -> None:
    text = "Video;Start;End;Label\na.mp4;1,5;4,25;eat\n".replace(";", delimiter)
    (tmp_path / "x.csv").write_text("\ufeff" + text, encoding="utf-8")
    assert rows(read_labels(tmp_path / "x.csv")) == [("a", "eat", 1.5, 4.25)]


def test_a_folder_of_elan_files_is_one_set_of_labels(tmp_path: Path) -> None:
    (tmp_path / "one.eaf").write_text(EAF)
    (tmp_path / "two.eaf").write_text(EAF.replace("kitchen%201", "garden"))
    labels = read_labels(tmp_path)
    assert labels.videos == ("kitchen 1", "garden") and len(labels.table) == 6


def test_two_videos_of_one_name_are_refused(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("video,start,end,label\na/1.mp4,0,1,eat\nb/1.mp4,0,1,eat\n")
    with pytest.raises(InputError, match="different videos with one name"):
        read_labels(tmp_path / "x.csv")


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        ("x.json", '{"a": 1}', "no labels of a known layout"),
        ("x.csv", "name,from,to\na,1,2\n", "no labels of a known layout"),
        ("x.csv", "video,start,end,label\na,x,2,eat\n", "no usable segment"),
        ("x.json", "{", "not valid JSON"),
        ("x.eaf", "<ANNOTATION_DOCUMENT><TIER>", "not valid XML"),
        ("x.eaf", '<!DOCTYPE a [<!ENTITY b "c">]><ANNOTATION_DOCUMENT/>', "document type"),
        ("x.json", json.dumps({"results": {"v": [{"label": "a", "score": 1, "segment": [0, 1]}]}}), "predictions"),
        ("x.csv", "", "known layout"),
    ],
)
def test_other_files_are_refused_in_one_sentence(name: str, text: str, sentence: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(InputError, match=sentence) as caught:
        read_labels(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_a_missing_file_and_an_empty_folder_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        read_labels(tmp_path / "none.json")
    with pytest.raises(InputError, match="no label file in this folder"):
        read_labels(tmp_path)


@pytest.mark.parametrize(
    ("stated", "name"),
    [("a.mp4", "a"), ("x/y/a.MOV", "a"), ("C:\\x\\a.avi", "a"), ("take.2", "take.2"), ("take.2.mkv", "take.2")],
)
def test_names_of_videos(stated: str, name: str) -> None:
    assert video_id(stated) == name


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


def spoiled(document: object, path: list[int], junk: object) -> object:
    """The document with one value, found by walking `path`, replaced."""
    if not path or not isinstance(document, dict | list) or not document:
        return junk
    if isinstance(document, dict):
        key = list(document)[path[0] % len(document)]
        return {**document, key: spoiled(document[key], path[1:], junk)}
    index = path[0] % len(document)
    return [*document[:index], spoiled(document[index], path[1:], junk), *document[index + 1 :]]


@given(
    which=st.sampled_from([BORIS, VIA, LABEL_STUDIO, ACTIVITYNET]),
    path=st.lists(st.integers(0, 9), min_size=1, max_size=7),
    junk=JUNK,
)
def test_spoiled_documents_give_labels_or_one_sentence(
    which: object, path: list[int], junk: object, tmp_path_factory: pytest.TempPathFactory
) -> None:
    file = tmp_path_factory.getbasetemp() / "spoiled.json"
    file.write_text(json.dumps(spoiled(which, path, junk)))
    try:
        labels = read_labels(file)
    except InputError as error:
        assert str(file) in str(error)
    else:
        assert np.isfinite(labels.table.start).all() and np.isfinite(labels.table.end).all()


@given(
    which=st.sampled_from([EAF, CSV, FILES["aggregated.csv"], FILES["tabular.tsv"]]),
    place=st.integers(0, 3000),
    junk=st.text(max_size=12) | st.sampled_from(['"', "\x00", "<", "nan", "1e999", ",,,,", "\r", "-5:00"]),
    cut=st.integers(0, 40),
)
def test_spoiled_texts_give_labels_or_one_sentence(
    which: str, place: int, junk: str, cut: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    file = tmp_path_factory.getbasetemp() / "spoiled.txt"
    place %= len(which)
    file.write_bytes((which[:place] + junk + which[place + cut :]).encode("utf-8", "surrogatepass"))
    try:
        labels = read_labels(file)
    except InputError as error:
        assert str(file) in str(error)
    else:
        assert np.isfinite(labels.table.start).all() and np.isfinite(labels.table.end).all()


def test_an_elan_document_is_utf_8_whatever_it_says(tmp_path: Path) -> None:
    """As it is decoded before it is parsed; parsed anew in another encoding, accents came out as two signs."""
    for encoding in ("ISO-8859-1", "no-such-encoding"):
        path = tmp_path / "m.eaf"
        path.write_text(EAF.replace("UTF-8", encoding).replace("<ANNOTATION_VALUE>", "<ANNOTATION_VALUE>é", 1))
        assert any(label.startswith("é") for label in read_labels(path).table.labels)


def test_frames_beyond_all_are_no_segment(tmp_path: Path) -> None:
    value = {"ranges": [{"start": 10**400, "end": 9}, {"start": 1, "end": 48}], "timelinelabels": ["x"]}
    path = tmp_path / "l.json"
    path.write_text(json.dumps([{"data": {"video": "m.mp4"}, "annotations": [{"result": [{"value": value}]}]}]))
    assert read_labels(path).table.end.tolist() == [2.0]
