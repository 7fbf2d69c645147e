from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vidtad.formats.label_reading import read_labels
from vidtad.formats.label_types import Labels
from vidtad.formats.tables import Annotations
from vidtad.labels import Check, Duration, check, cleaned
from vidtad.labels.check import from_first_frame
from vidtad.labels.subsets import kind_of

TWO = {"a": Duration(10.0, 0.25), "b": Duration(20.0, 0.25)}


def labels_of(*rows: tuple[str, str, float, float], **more: object) -> Labels:
    table = Annotations.from_rows(rows, **more)
    count = len(table.videos)
    return Labels(table, ("",) * count, ("",) * count, np.full(count, np.nan))


def counts(found: Check) -> dict[str, int]:
    return {finding.kind.partition(" (")[0]: finding.count for finding in found.findings}


def test_clean_labels_have_nothing_serious() -> None:
    rows = [("a", "eat", float(i), i + 0.5) for i in range(10)] + [("b", "eat", 1.0, 5.0)]
    found = check(labels_of(*rows), TWO)
    assert not found.serious and found.videos == found.present == 2 and found.segments == 11
    assert found.classes[0].segments == 11 and found.classes[0].median_s == 0.5 and found.classes[0].longest_s == 4
    assert found.labelled == pytest.approx(9 / 30)


@pytest.mark.parametrize(
    ("row", "kind"),
    [
        (("a", "eat", 9.0, 12.0), "segment that ends after its video"),
        (("a", "eat", 11.0, 12.0), "segment that begins after its video ends"),
        (("a", "eat", 5.0, 4.0), "reversed segment"),
        (("a", "eat", 5.0, 5.0), "segment without length"),
        (("a", "eat", 5.0, 5.0005), "segment without length"),
        (("a", "eat", -1.0, 5.0), "segment that begins before 0"),
        (("a", "eat", -1.0, 0.0005), "segment that ends before 0"),
        (("a", "eat", -2.0, -1.0), "segment that ends before 0"),
        (("a", "eat", 9.9995, 12.0), "segment that lies less than a millisecond inside its video"),
        (("a", "", 1.0, 5.0), "segment without a label"),
        (("c", "eat", 1.0, 5.0), "labelled video that is not there"),
        (("a", "Eat ", 1.0, 5.0), "two classes that differ in spelling only"),
    ],
)
def test_each_problem_is_counted_once_and_is_serious(row: tuple, kind: str) -> None:
    good = [("a", "eat", 0.0, 1.0), ("b", "walk", 0.0, 1.0)]
    assert kind not in counts(check(labels_of(*good), TWO))
    found = check(labels_of(*good, row), TWO)
    assert counts(found)[kind] == 1 and kind in " ".join(finding.kind for finding in found.serious)


def test_notes_are_not_serious() -> None:
    rows = [("a", "eat", 0.0, 2.0), ("a", "eat", 0.0, 2.0), ("a", "eat", 1.0, 3.0), ("a", "walk", 1.0, 1.1)]
    found = check(labels_of(*rows), TWO, unused=["z"])
    assert not found.serious
    assert counts(found) == {
        "video that the labels do not name": 1,
        "segment shorter than one feature row, which the detector can hardly see": 1,
        "segment stated twice": 1,
        "segment that overlaps another one of its class": 1,
        "class with fewer than 10 segments": 2,
    }
    assert found.overlapping == 1.0 and found.together == 2


def test_times_in_frames_are_suspected() -> None:
    found = check(labels_of(("a", "eat", 100.0, 200.0), ("a", "eat", 300.0, 420.0)), TWO)
    assert "frames or milliseconds?" in found.serious[0].example


def test_a_stated_duration_that_is_another_one_is_told() -> None:
    found = check(labels_of(("a", "eat", 0.0, 1.0), duration=np.array([14.0])), TWO)
    assert counts(found)["video of another length than the labels state"] == 1
    assert "video of another length" not in str(check(labels_of(("a", "eat", 0.0, 1.0)), TWO).findings)


def test_what_is_stated_twice_is_counted_as_cleaning_drops_it() -> None:
    between = labels_of(("a", "eat", 3.0, 4.0), ("a", "eat", 3.0003, 9.0), ("a", "eat", 3.0005, 4.0))
    chain = labels_of(("a", "eat", 3.0, 4.0), ("a", "eat", 3.0008, 4.0), ("a", "eat", 3.0016, 4.0))
    for labels in (between, chain):
        found = counts(check(labels, TWO))
        assert found["segment stated twice"] == found["segment that overlaps another one of its class"] == 1
        assert len(cleaned(labels, TWO).table) == 2


def test_cleaning_cuts_and_drops() -> None:
    labels = labels_of(
        ("c", "eat", 0.0, 1.0),
        ("a", "eat", -1.0, 2.0),
        ("a", "eat", 9.0, 12.0),
        ("a", "eat", 11.0, 12.0),
        ("a", "eat", 5.0, 4.0),
        ("b", "walk", 3.0, 4.0),
        ("b", "walk", 3.0, 4.0),
        ("b", "walk", 3.0005, 3.9995),
        ("b", "walk", 5.0, 5.0009),
        subset=("x", "y", "z"),
    )
    table = cleaned(labels, TWO).table
    assert table.videos == ("a", "b") and table.subset == ("y", "z") and table.duration.tolist() == [10.0, 20.0]
    assert list(zip(table.start, table.end, strict=True)) == [(0.0, 2.0), (9.0, 10.0), (3.0, 4.0)]


def test_what_ends_alike_in_its_video_is_stated_twice() -> None:
    labels = labels_of(("a", "eat", 9.0, 12.0), ("a", "eat", 9.0, 15.0))
    assert counts(check(labels, TWO))["segment stated twice"] == 1 and len(cleaned(labels, TWO).table) == 1
    assert "segment stated twice" not in counts(check(labels, None))


ENDS = st.sampled_from([-1.0, -0.0005, 0.0, 0.0005, 3.0, 3.0005, 9.999, 9.9995, 10.0, 10.0005, 11.0])


@given(st.lists(st.tuples(st.sampled_from(["eat", "walk", " "]), ENDS, ENDS), min_size=1, max_size=8))
def test_what_is_said_to_be_left_out_is_left_out(drawn: list[tuple[str, float, float]]) -> None:
    """Whatever is wrong with a segment, the report and what is trained on agree about it."""
    rows = [("a", label, start, end) for label, start, end in drawn]
    for row in rows:
        labels = labels_of(row)
        said = " ".join(finding.kind for finding in check(labels, TWO).findings)
        assert ("(left out)" in said) == (len(cleaned(labels, TWO).table) == 0), (row, said)
        assert row[1] == " " or "(cut)" not in said or "(left out)" not in said, (row, said)
    labels = labels_of(*rows)
    said = counts(check(labels, TWO))
    left = sum(len(cleaned(labels_of(row), TWO).table) for row in rows)
    assert left - said.get("segment stated twice", 0) == len(cleaned(labels, TWO).table)


@given(
    st.lists(
        st.tuples(
            st.sampled_from("abc"), st.sampled_from(["eat", "walk", " "]),
            st.floats(-5, 30), st.floats(-5, 30),
        ),
        min_size=1, max_size=20,
    )
)  # fmt: skip
def test_cleaned_labels_have_nothing_serious_left(rows: list[tuple[str, str, float, float]]) -> None:
    left = cleaned(labels_of(*rows), TWO)
    assert (left.table.end - left.table.start >= 0.001).all() and (left.table.start >= 0).all()
    assert not check(left, TWO).serious


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        *(("Training", "train"), ("train_clean", "train"), ("val2017", "validation"), ("Testing ", "test")),
        *(("valid", "validation"), ("transition", ""), ("tested by me", ""), ("holdout", ""), ("", "")),
    ],
)
def test_a_subset_is_what_its_first_word_says(said: str, kind: str) -> None:
    assert kind_of(said) == kind


def test_each_file_of_a_folder_counts_from_its_own_zero(tmp_path: Path) -> None:
    (tmp_path / "a.srt").write_text("1\n00:00:03,000 --> 00:00:04,000\nhop\n")
    (tmp_path / "b.csv").write_text("video,start,end,label\nb,3,4,hop\n")
    late = {name: Duration(10.0, 0.25, 1.5) for name in "ab"}
    table = from_first_frame(read_labels(tmp_path), late).table
    assert {table.videos[v]: start for v, start in zip(table.video, table.start, strict=True)} == {"a": 1.5, "b": 3.0}
    found = check(read_labels(tmp_path), late).findings
    assert [f.example[0] for f in found if "moved to its first frame" in f.kind] == ["a"]
