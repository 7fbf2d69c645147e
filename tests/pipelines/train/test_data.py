import shutil
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.clips import numbered_frames, write_clip
from vidtad.errors import InputError
from vidtad.features import Assumed
from vidtad.formats.label_types import Labels
from vidtad.formats.tables import Annotations
from vidtad.pipelines.extract.extraction import load_extractor
from vidtad.pipelines.train.data import Extraction, features_of, find_material, split_videos
from vidtad.training.augment import JoinedRows, pieces_of, spliced
from vidtad.training.video import TrainingVideo


def labels_of(
    rows: list[tuple[str, str, float, float]],
    subset: tuple[str, ...] = (),
    groups: tuple[str, ...] = (),
    files: tuple[str, ...] = (),
) -> Labels:
    table = Annotations.from_rows(rows, **({"subset": subset} if subset else {}))
    count = len(table.videos)
    return Labels(table, groups or ("",) * count, files or ("",) * count, np.full(count, np.nan))


def each(*names: str, label: str = "eat") -> list[tuple[str, str, float, float]]:
    return [(name, label, 0.0, 1.0) for name in names]


TEN = tuple("abcdefghij")


def test_a_fifth_is_held_out_and_the_seed_decides_which() -> None:
    labels = labels_of(each(*TEN))
    first, again, other = split_videos(labels), split_videos(labels), split_videos(labels, seed=1)
    assert len(first.validation) == 2 and set(first.train) | set(first.validation) == set(TEN)
    assert first == again and first.validation != other.validation
    assert first.train == tuple(sorted(first.train)) and not first.test
    assert len(split_videos(labels, 0.5).validation) == 5 and not split_videos(labels, 0.0).validation


def test_groups_stay_together() -> None:
    groups = ("x", "x", "x", "y", "y", "z", "z", "z", "w", "w")
    split = split_videos(labels_of(each(*TEN), groups=groups), 0.3)
    of = dict(zip(TEN, groups, strict=True))
    assert split.validation and not {of[n] for n in split.validation} & {of[n] for n in split.train}
    assert "4 groups" in split.how


@pytest.mark.parametrize(
    ("subset", "train", "validation", "test"),
    [
        (("training", "training", "validation", "testing"), "ab", "c", "d"),
        (("Train", "train", "val", "val"), "ab", "cd", ""),
    ],
)
def test_subsets_of_the_file_decide(subset: tuple[str, ...], train: str, validation: str, test: str) -> None:
    split = split_videos(labels_of(each(*"abcd"), subset=subset))
    assert (split.train, split.validation, split.test) == (tuple(train), tuple(validation), tuple(test))


def test_without_a_training_subset_validation_is_trained_on_and_test_is_not() -> None:
    subset = ("validation",) * 5 + ("test",) * 5
    split = split_videos(labels_of(each(*TEN), subset=subset))
    assert set(split.test) == set("fghij") and set(split.train) | set(split.validation) == set("abcde")
    assert len(split.validation) == 1 and "no training subset" in split.how
    assert split_videos(labels_of(each(*TEN), subset=subset), 0.0).train == tuple("abcde")


def test_a_fraction_replaces_the_subsets_but_never_the_test_videos() -> None:
    subset = ("training",) * 6 + ("validation",) * 2 + ("test",) * 2
    split = split_videos(labels_of(each(*TEN), subset=subset), 0.5)
    assert split.test == ("i", "j") and len(split.validation) == 4 and len(split.train) == 4


def test_a_group_on_both_sides_is_told() -> None:
    labels = labels_of(each(*"ab"), subset=("training", "validation"), groups=("me", "me"))
    assert "flatters" in split_videos(labels).warnings[0]
    assert not split_videos(labels_of(each(*"ab"), subset=("training", "validation"))).warnings


def test_the_only_video_of_a_class_is_not_held_out() -> None:
    rows = [*each(*"abcdef"), ("g", "rare", 0.0, 1.0)]
    for seed in range(20):
        assert "g" in split_videos(labels_of(rows), 0.4, seed).train


@pytest.mark.parametrize(
    ("labels", "fraction", "sentence"),
    [
        (labels_of(each("a")), None, "no video can be held out"),
        (labels_of([*each("a"), *each("b", label="walk")]), None, "no video can be held out"),
        (labels_of(each("a", "b"), subset=("test", "test")), None, "no video is left to train on"),
    ],
)
def test_a_split_that_cannot_be_made_is_one_sentence(labels: Labels, fraction: float | None, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        split_videos(labels, fraction)


@given(
    st.lists(st.tuples(st.sampled_from("abcdefgh"), st.sampled_from("xyz")), min_size=1, max_size=20),
    st.floats(0.05, 0.9),
    st.integers(0, 5),
)
def test_any_split_is_whole_and_trains_every_class_it_can(
    pairs: list[tuple[str, str]], fraction: float, seed: int
) -> None:
    labels = labels_of([(name, label, 0.0, 1.0) for name, label in pairs])
    try:
        split = split_videos(labels, fraction, seed)
    except InputError:
        return
    assert not set(split.train) & set(split.validation) and split.train and split.validation
    assert set(split.train) | set(split.validation) == set(labels.videos)
    trained = {label for name, label in pairs if name in split.train}
    assert trained == {label for _, label in pairs}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    (folder / "day 1").mkdir()
    for path in (folder / "a.mp4", folder / "v_b.mp4", folder / "day 1" / "C.mp4", folder / "extra.mp4"):
        write_clip(path, numbered_frames(25), 25)
    (folder / "broken.mp4").write_text("no video")
    return folder


def test_videos_are_found_by_name(folder: Path) -> None:
    material = find_material(labels_of(each("a", "b", "c", "d", "broken")), folder, None, stride=5)
    assert {name: path.name for name, path in material.videos.items()} == {
        "a": "a.mp4",
        "b": "v_b.mp4",
        "c": "C.mp4",
        "broken": "broken.mp4",
    }
    assert material.unused == ("extra",) and set(material.durations) == {"a", "b", "c"}
    assert material.durations["a"].seconds == pytest.approx(1.0) and material.durations["a"].step_s == 0.2
    assert "not a video" in material.broken["broken"]


def test_the_stated_file_tells_two_of_one_name_apart(tmp_path: Path) -> None:
    for place in ("one", "two"):
        (tmp_path / place).mkdir()
        write_clip(tmp_path / place / "a.mp4", numbered_frames(5), 25)
    with pytest.raises(InputError, match="have one name"):
        find_material(labels_of(each("a")), tmp_path, None)
    material = find_material(labels_of(each("a"), files=("two/a.mp4",)), tmp_path, None)
    assert material.videos["a"] == tmp_path / "two" / "a.mp4"


@pytest.mark.parametrize("other", ["v_a", "A"])
def test_two_names_of_one_file_are_not_two_videos(folder: Path, other: str) -> None:
    """Each would be trained on as if the other's actions were none, or be held out while the other is trained on."""
    with pytest.raises(InputError, match=f"file of both 'a' and '{other}'"):
        find_material(labels_of(each("a", other)), folder, None)


@pytest.mark.parametrize(
    ("names", "sentence"),
    [(("z",), "holds no labelled video: the labels name 'z'"), (("broken",), "can be used")],
)
def test_nothing_usable_is_one_sentence(folder: Path, names: tuple[str, ...], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        find_material(labels_of(each(*names)), folder, None)


def test_missing_and_empty_folders(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        find_material(labels_of(each("a")), tmp_path / "none", None)
    with pytest.raises(InputError, match="no video in this folder"):
        find_material(labels_of(each("a")), tmp_path, None)


def test_features_of_different_width_are_refused(tmp_path: Path) -> None:
    for name, width in (("a", 4), ("b", 5)):
        np.save(tmp_path / f"{name}.npy", np.zeros((20, width), np.float32))

    def grid(name: str, path: Path) -> Assumed:
        return Assumed(5, 5, Fraction(25))

    material = find_material(labels_of(each("a", "b")), None, tmp_path, foreign=grid)
    assert material.durations["a"].seconds == pytest.approx(4.0)
    with pytest.raises(InputError, match="rows of width 5 in b, 4 in a"):
        features_of(material, None, grid)


def test_a_file_in_the_way_is_told_from_a_bad_video(folder: Path, tmp_path: Path) -> None:
    video = Path(shutil.copy(folder / "a.mp4", tmp_path))
    place, seeds = tmp_path / "features", [load_extractor("tiny3d", f"random:{seed}") for seed in range(2)]
    material = find_material(labels_of(each("a")), tmp_path, None, stride=5)

    def rows(seed: int, own: bool) -> bytes:
        features_of(material, Extraction(seeds[seed], place, own))
        return (place / "a.npy").read_bytes()

    first = rows(0, own=True)
    assert rows(0, own=False) == first
    with pytest.raises(InputError, match=r"a\.npy: made from another video.*another --features folder"):
        rows(1, own=False)
    second = rows(1, own=True)
    assert second != first
    video.write_text("no video")
    for own in (True, False):
        with pytest.raises(InputError, match=r"a\.mp4: not a video"):
            rows(1, own)
    assert (place / "a.npy").read_bytes() == second


def planted(name: str, rows: int, segments: list[tuple[float, float]]) -> TrainingVideo:
    values = np.stack([np.full(rows, ord(name), np.float32), np.arange(rows, dtype=np.float32)], 1)
    return TrainingVideo(name, values, np.array(segments, float).reshape(-1, 2), np.arange(len(segments)))


def test_joined_rows_read_like_the_whole() -> None:
    parts = [np.random.default_rng(n).normal(size=(n, 3)).astype(np.float32) for n in (4, 1, 7)]
    whole, joined = np.concatenate(parts), JoinedRows(parts)
    assert len(joined) == 12 and joined.shape == (12, 3)
    for first in range(13):
        for last in range(first, 14):
            assert np.array_equal(joined[first:last], whole[first:last])


def test_pieces_keep_every_action_whole() -> None:
    video = planted("a", 40, [(2.0, 8.0), (6.0, 12.0), (20.0, 25.0), (25.0, 30.0), (36.0, 39.0)])
    pieces = pieces_of(video)
    assert [len(piece.values) for piece in pieces] == [16, 17, 7]
    assert [piece.labels.tolist() for piece in pieces] == [[0, 1], [2, 3], [4]]
    assert sum(len(piece.values) for piece in pieces) == 40


@given(st.integers(20, 200), st.integers(0, 3))
def test_spliced_actions_keep_their_rows(rows: int, seed: int) -> None:
    videos = [planted("a", 50, [(5.0, 9.0), (20.0, 31.0)]), planted("b", 30, [(1.0, 4.0), (10.0, 12.0)])]
    where = {(v.name, int(k)): s for v in videos for k, s in zip(v.labels, v.segments, strict=True)}
    for made in spliced(videos, 5, rows, seed):
        again = {made.name: made for made in spliced(videos, 5, rows, seed)}[made.name]
        assert np.array_equal(again.values[0:999], made.values[0:999])
        assert len(made.values) <= max(rows, 50)
        for (start, end), label in zip(made.segments, made.labels, strict=True):
            held = made.values[int(start) : int(end)]
            first, last = where[chr(int(held[0, 0])), int(label)]
            assert held[:, 1].tolist() == list(range(int(first), int(last)))


def test_packed_features_are_unpacked_once(tmp_path: Path) -> None:
    rows = tmp_path / "m.safetensors.work" / "rows"  # beside the features, and still none of them
    values = {name: np.random.default_rng(n).normal(size=(20, 4)).astype(np.float32) for n, name in enumerate("ab")}
    for name, array in values.items():
        np.savez_compressed(tmp_path / f"{name}.npz", feats=array)

    def assumed(name: str, path: Path) -> Assumed:
        return Assumed(5, 5, Fraction(25))

    def unpack() -> dict[str, int]:
        material = find_material(labels_of(each("a", "b")), None, tmp_path, foreign=assumed)
        found, failed = features_of(material, None, assumed, unpacked=rows)
        assert not failed
        for name, held in found.items():
            np.testing.assert_array_equal(held.values[3:9], values[name][3:9])
        return {path.name: path.stat().st_mtime_ns for path in rows.glob("*.npy")}

    first = unpack()
    assert len(first) == 2 and unpack() == first
    values["b"] = np.concatenate([values["b"], -values["b"]])
    np.savez_compressed(tmp_path / "b.npz", feats=values["b"])
    assert len(unpack()) == 3
