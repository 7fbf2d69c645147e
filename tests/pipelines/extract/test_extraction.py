"""Extraction on real (generated) clips: exact rows and times, any batch size, and resuming after a kill."""

import json
import os
import signal
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from tests.clips import numbered_frames, write_clip
from vidtad.errors import InputError
from vidtad.features import load_features, sidecar_of
from vidtad.pipelines.extract.extraction import Decoding, Scratch, extract_file, load_extractor, provenance_of
from vidtad.video import probe


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clips") / "clip.mp4", numbered_frames(95), 25)


@pytest.fixture(scope="module")
def extractor():
    return load_extractor("tiny3d", "random:3")


def test_rows_times_and_duration_agree_with_the_file(clip: Path, tmp_path: Path, extractor) -> None:
    result = extract_file(clip, load_extractor("tiny3d", "random:3", stride=3, fps=Fraction(25)), tmp_path)
    window = result.features.grid.span
    rows = (95 - window) // 3 + 1
    assert result.features.values.shape == (rows, extractor.extractor.convention.width)
    np.testing.assert_allclose(result.features.grid.times_s, (np.arange(rows) * 3 + window / 2) / 25, atol=1e-9)
    assert result.features.video.frames == 95
    assert result.features.video.duration_s == pytest.approx(probe(clip).duration_s) == pytest.approx(3.8)
    sidecar = json.loads(sidecar_of(result.path).read_text())
    assert sidecar["weights"] == "random:3" and sidecar["settings"]["random_weights"] is True
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clip.json", "clip.npy"]


def test_batch_size_changes_nothing(clip: Path, tmp_path: Path, extractor) -> None:
    one = extract_file(clip, extractor, tmp_path / "one", batch=1).features.values
    many = extract_file(clip, extractor, tmp_path / "many", batch=64).features.values
    np.testing.assert_allclose(one, many, rtol=0, atol=1e-5 * np.abs(many).max())


def test_a_finished_file_is_kept_and_another_is_never_replaced(clip: Path, tmp_path: Path, extractor) -> None:
    first = extract_file(clip, extractor, tmp_path)
    assert not first.reused
    assert extract_file(clip, extractor, tmp_path).reused
    other = load_extractor("tiny3d", "random:4")
    with pytest.raises(InputError, match="pass --overwrite"):
        extract_file(clip, other, tmp_path)
    replaced = extract_file(clip, other, tmp_path, overwrite=True)
    assert not np.allclose(replaced.features.values, first.features.values)


def test_a_foreign_file_in_the_way_is_never_replaced(clip: Path, tmp_path: Path, extractor) -> None:
    np.save(tmp_path / "clip.npy", np.zeros((3, 3), dtype=np.float32))
    with pytest.raises(InputError, match="pass --overwrite"):
        extract_file(clip, extractor, tmp_path)
    assert np.load(tmp_path / "clip.npy").shape == (3, 3)


def test_rows_on_disk_are_not_computed_again(clip: Path, tmp_path: Path, extractor, monkeypatch) -> None:
    whole = extract_file(clip, extractor, tmp_path / "whole", batch=2).features
    scratch = Scratch(tmp_path / "cut", "clip", provenance_of(clip, extractor, Decoding()))
    scratch.append(whole.grid.times_s[:7], whole.values[:7])
    with open(scratch.path, "ab") as file:
        file.write(b"torn record")
    computed = []
    original = type(extractor.extractor).rows

    def counting(self, pictures, index):
        computed.append(len(index))
        return original(self, pictures, index)

    monkeypatch.setattr(type(extractor.extractor), "rows", counting)
    resumed = extract_file(clip, extractor, tmp_path / "cut", batch=2).features
    assert sum(computed) == len(whole.grid) - 7
    np.testing.assert_allclose(resumed.values, whole.values, rtol=0, atol=1e-5 * np.abs(whole.values).max())
    np.testing.assert_array_equal(resumed.grid.times_s, whole.grid.times_s)
    assert not scratch.path.exists()


def test_a_kill_between_array_and_sidecar_is_taken_up(clip: Path, tmp_path: Path, extractor) -> None:
    whole = extract_file(clip, extractor, tmp_path / "whole").features
    scratch = Scratch(tmp_path, "clip", provenance_of(clip, extractor, Decoding()))
    scratch.append(whole.grid.times_s, whole.values)
    np.save(tmp_path / "clip.npy", whole.values)  # the sidecar never came
    again = extract_file(clip, extractor, tmp_path)
    assert not again.reused
    assert load_features(again.path, check_hash=True).values.shape == whole.values.shape


def test_kill_9_leaves_nothing_that_looks_finished(tmp_path: Path, extractor) -> None:
    clip = write_clip(tmp_path / "long.mp4", numbered_frames(900), 25)
    out = tmp_path / "out"
    command = [sys.executable, "-m", "vidtad", "extract", str(clip), "--extractor", "tiny3d", "--weights", "random:3"]
    command += ["--out", str(out), "--batch", "1", "--quiet"]
    process = subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not any(path.stat().st_size > 4000 for path in out.glob(".long.*.rows")):
        assert process.poll() is None, "finished before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not list(out.glob("long.*")), "something looks finished"
    rows = Scratch(out, "long", provenance_of(clip, extractor, Decoding())).rows()
    assert rows > 0
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    assert sorted(path.name for path in out.iterdir()) == ["long.json", "long.npy"]
    whole = extract_file(clip, extractor, tmp_path / "whole").features
    resumed = load_features(out / "long.npy", check_hash=True)
    np.testing.assert_allclose(resumed.values, whole.values, rtol=0, atol=1e-5 * np.abs(whole.values).max())


def test_a_lock_that_outlived_a_kill_goes_with_the_next_run(clip: Path, tmp_path: Path, extractor) -> None:
    extract_file(clip, extractor, tmp_path)
    left = tmp_path / f".{clip.stem}.{'0' * 16}.rows.lock"
    left.touch()
    other = tmp_path / f".other.{'0' * 16}.rows.lock"
    other.touch()
    assert extract_file(clip, extractor, tmp_path).reused
    assert not left.exists() and other.exists(), "another video's is not touched"


def test_short_video_is_padded_and_says_so(tmp_path: Path, extractor) -> None:
    clip = write_clip(tmp_path / "short.mp4", numbered_frames(3), 25)
    features = extract_file(clip, extractor, tmp_path / "out").features
    assert len(features.grid) == 1
    assert any("shorter than one window" in warning for warning in features.provenance.warnings)


@pytest.mark.parametrize("weights", ["random:x", "no-such-checkpoint"])
def test_weights_that_do_not_exist_are_one_sentence(weights: str) -> None:
    with pytest.raises(InputError):
        load_extractor("tiny3d", weights)


def test_an_unknown_extractor_names_the_near_ones() -> None:
    with pytest.raises(InputError, match="i3d"):
        load_extractor("i3dd")
