"""Files and folders that change while they are worked on: nothing half, and nothing of another file, is kept."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.clips import numbered_frames, write_clip
from vidtad.errors import RunError
from vidtad.features import load_features, save_features
from vidtad.heads.catalogue import builtin_bundle
from vidtad.pipelines.detect import motion
from vidtad.pipelines.detect import worker as timelines
from vidtad.pipelines.detect.motion import MotionWorker
from vidtad.pipelines.detect.worker import Job
from vidtad.pipelines.extract import extraction
from vidtad.pipelines.extract.extraction import Decoding, Scratch, extract_file, load_extractor, provenance_of
from vidtad.pipelines.extract.flow_cache import FlowFolder, FlowPictures
from vidtad.pipelines.extract.ranges import extract_range
from vidtad.runtime.files import write_json
from vidtad.runtime.sources import Changed, Source


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    path = write_clip(tmp_path / "clip.mp4", numbered_frames(95), 25)
    os.utime(path, (1e9, 1e9))
    return path


@pytest.fixture(scope="module")
def extractor():
    return load_extractor("tiny3d", "random:3")


def at_call(number: int, act, done: list[int]):
    """A progress callback that does something at its call of that number."""

    def progress(frames: int, total: int | None) -> None:
        done.append(frames)
        if len(done) == number:
            act()

    return progress


@pytest.mark.parametrize("number", [1, 3])
def test_a_folder_removed_on_the_way_loses_no_row_in_silence(clip: Path, tmp_path: Path, extractor, number) -> None:
    out, done = tmp_path / "out", []
    progress = at_call(number, lambda: shutil.rmtree(out), done)
    with pytest.raises(RunError, match="rows that were written are gone"):
        extract_file(clip, extractor, out, batch=2, progress=progress)
    assert not list(out.glob("clip.*"))
    whole = extract_file(clip, extractor, tmp_path / "whole", batch=2).features
    again = extract_file(clip, extractor, out, batch=2).features
    np.testing.assert_array_equal(again.values, whole.values)


def test_rows_that_something_else_writes_are_not_taken(clip: Path, tmp_path: Path, extractor) -> None:
    scratch = Scratch(tmp_path / "out", "clip", provenance_of(clip, extractor, Decoding()))
    width = extractor.extractor.convention.width
    rows = np.zeros((3, width), np.float32)
    scratch.append(np.arange(3.0), rows)
    data = scratch.path.read_bytes()

    def replaced() -> None:
        scratch.path.unlink()
        (scratch.path.parent / "other").touch()  # so that the inode is not given out again
        scratch.path.write_bytes(data)

    for harm in (
        scratch.path.unlink,
        lambda: scratch.path.write_bytes(data[:-1]),
        lambda: os.truncate(scratch.path, 0),
    ):
        scratch.path.write_bytes(data)
        scratch.begin()
        harm()
        with pytest.raises(RunError, match="are gone"):
            scratch.append(np.arange(1.0), rows[:1])
        with pytest.raises(RunError, match="are gone"):
            scratch.read()
    scratch.path.write_bytes(data)
    scratch.begin()
    scratch.append(np.array([3.0]), rows[:1])
    data = scratch.path.read_bytes()
    replaced()
    with pytest.raises(RunError, match="are gone"):
        scratch.append(np.array([4.0]), rows[:1])


def test_the_last_range_is_not_taken_for_shorter_than_it_is(clip: Path, tmp_path: Path, extractor) -> None:
    out, done = tmp_path / "out", []
    identity = provenance_of(clip, extractor, Decoding())

    def harm() -> None:
        shutil.rmtree(out)
        out.mkdir()

    with pytest.raises(RunError, match="are gone"):
        extract_range(clip, extractor, out, (2, 3), identity=identity, batch=2, progress=at_call(2, harm, done))
    assert not list(out.glob(".*.last"))


def test_an_array_that_goes_before_its_sidecar_is_said(clip: Path, tmp_path: Path, extractor, monkeypatch) -> None:
    features = extract_file(clip, extractor, tmp_path / "whole").features

    def removed(path: Path, document: object) -> None:
        shutil.rmtree(path.parent)
        write_json(path, document)

    monkeypatch.setattr("vidtad.features.write_json", removed)
    with pytest.raises(RunError, match=r"clip\.npy: was written and is gone"):
        save_features(features, tmp_path / "out", "clip")


def replace(clip: Path) -> None:
    other = write_clip(clip.with_name("other.mp4"), numbered_frames(60), 25)
    os.replace(other, clip)


def overwrite(clip: Path) -> None:
    other = write_clip(clip.with_name("other.mp4"), numbered_frames(60), 25)
    clip.write_bytes(other.read_bytes())


def cut_off(clip: Path) -> None:
    os.truncate(clip, clip.stat().st_size // 2)


@pytest.mark.parametrize("change", [replace, overwrite, cut_off, Path.unlink])
def test_a_video_that_changes_while_it_is_decoded(clip: Path, tmp_path: Path, extractor, change) -> None:
    out, done, original = tmp_path / "out", [], clip.read_bytes()
    with pytest.raises(Changed, match=r"clip\.mp4: (was changed|is gone)"):
        extract_file(clip, extractor, out, batch=2, progress=at_call(2, lambda: change(clip), done))
    assert not list(out.glob("clip.*"))
    clip.write_bytes(original)
    whole = extract_file(clip, extractor, tmp_path / "whole", batch=2).features
    np.testing.assert_array_equal(extract_file(clip, extractor, out, batch=2).features.values, whole.values)


@pytest.mark.parametrize("change", [replace, overwrite])
def test_a_video_that_changes_between_hashing_and_decoding(
    clip: Path, tmp_path: Path, extractor, monkeypatch, change
) -> None:
    open_video = extraction.open_video

    def late(path: Path, **options: object):
        change(clip)
        return open_video(path, **options)

    monkeypatch.setattr(extraction, "open_video", late)
    with pytest.raises(Changed):
        extract_file(clip, extractor, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("change", [replace, overwrite])
def test_a_range_of_a_video_that_changes(clip: Path, tmp_path: Path, extractor, change) -> None:
    out, done = tmp_path / "out", []
    source = Source(clip)
    identity = provenance_of(source, extractor, Decoding())
    progress = at_call(1, lambda: change(clip), done)
    with pytest.raises(Changed):
        extract_range(source, extractor, out, (1, 3), identity=identity, batch=2, progress=progress)
    scratch = Scratch(out, "clip", identity, (4, 8))
    assert not scratch.complete()


def test_detection_of_motion_in_a_video_that_changes(clip: Path, tmp_path: Path, monkeypatch) -> None:
    steps = motion.steps

    def late(*arguments: object):
        yield from steps(*arguments)
        replace(clip)

    monkeypatch.setattr(motion, "steps", late)
    with pytest.raises(Changed):
        MotionWorker(builtin_bundle("motion"), Job(tmp_path / "out"))(clip)
    assert not (tmp_path / "out").exists()


def test_a_timeline_is_there_when_its_table_is(clip: Path, tmp_path: Path, monkeypatch) -> None:
    out, write = tmp_path / "out", timelines.write_timeline_csv

    def late(timeline: object, path: Path) -> None:
        shutil.rmtree(out)
        write(timeline, path)

    monkeypatch.setattr(timelines, "write_timeline_csv", late)
    with pytest.raises(RunError, match="was written and is gone"):
        MotionWorker(builtin_bundle("motion"), Job(out))(clip)


def test_rows_of_an_array_that_changes(clip: Path, tmp_path: Path, extractor) -> None:
    path = extract_file(clip, extractor, tmp_path / "out").path
    features = load_features(path, check_hash=True, stored=True)
    assert features.values[:2].shape[0] == 2
    array = np.load(path)
    np.save(path, array + 1)
    with pytest.raises(RunError, match="was changed or replaced"):
        features.values[:2]


def test_kept_flow_that_goes_is_said(tmp_path: Path) -> None:
    keep = FlowFolder(tmp_path / "flow")
    for number in range(3):
        keep(number, np.zeros((16, 16, 2), np.uint8))
    keep.check()
    shutil.rmtree(tmp_path / "flow")
    keep(3, np.zeros((16, 16, 2), np.uint8))
    with pytest.raises(RunError, match=r"flow_x_00000\.jpg: was written and is gone"):
        keep.check()


def test_given_flow_that_changes_is_said(tmp_path: Path) -> None:
    keep = FlowFolder(tmp_path / "clip")
    for number in range(3):
        keep(number, np.full((16, 16, 2), 100 + number, np.uint8))
    pictures = FlowPictures.of(tmp_path, Path("clip.mp4"))
    total, hashed = pictures.hashed()
    assert total == pictures.sha256()
    np.testing.assert_array_equal(hashed.levels(1, (16, 16)), pictures.levels(1, (16, 16)))
    keep(1, np.full((16, 16, 2), 7, np.uint8))
    with pytest.raises(Changed, match=r"flow_x_00001\.jpg: was changed"):
        hashed.levels(1, (16, 16))
