"""A device that runs out of memory: batches are halved and every row still comes, in order."""

import dataclasses
import threading

import numpy as np
import pytest
import torch

from tests.clips import numbered_frames, write_clip
from tests.extractors.test_stream import FirstAndLast, stream
from vidtad.errors import RunError
from vidtad.extractors import find
from vidtad.extractors.base import ClipExtractor
from vidtad.extractors.flows import Pair, Picture, flow_pairs
from vidtad.extractors.stream import feature_rows
from vidtad.features import load_features
from vidtad.pipelines.extract.extraction import extract_file, load_extractor


class Small(FirstAndLast):
    """Holds so many windows at a time and no more."""

    name = "small"

    def __init__(self, room: int, error: type[RuntimeError] = torch.cuda.OutOfMemoryError, words: str = "tried"):
        self.room, self.error, self.words = room, error, words
        self.tried: list[int] = []

    def rows(self, pictures: np.ndarray, index: np.ndarray) -> torch.Tensor:
        self.tried.append(len(index))
        if len(index) > self.room:
            raise self.error(self.words)
        return super().rows(pictures, index)


@pytest.mark.parametrize("room", [1, 3, 8])
@pytest.mark.parametrize(
    ("error", "words"),
    [
        (torch.cuda.OutOfMemoryError, "tried to allocate"),
        (RuntimeError, "MPS backend out of memory (MPS allocated: 1 GB)"),
        (RuntimeError, "[enforce fail] DefaultCPUAllocator: can't allocate memory"),
    ],
)
def test_batches_are_halved_and_nothing_is_lost(room: int, error: type[RuntimeError], words: str) -> None:
    frames, _ = stream(100)
    small = Small(room, error, words)
    found = list(feature_rows(frames, small, fps=25.0, batch=8))
    values = np.concatenate([rows.values for rows in found])
    expected = np.arange(22)[:, None] * 4 + [0, 15]
    np.testing.assert_array_equal(values, expected)
    assert found[-1].batch == {1: 1, 3: 2, 8: 8}[room]
    failures = [size for size in small.tried if size > room]
    assert failures == {1: [8, 4, 2], 3: [8, 4], 8: []}[room], "it does not try again what failed"


def test_a_single_window_that_does_not_fit_is_one_sentence() -> None:
    frames, _ = stream(100)
    with pytest.raises(RunError, match="single window of small"):
        list(feature_rows(frames, Small(0), fps=25.0, batch=8))


def test_an_error_of_the_network_ends_the_decoding_before_it_gets_out() -> None:
    frames, _ = stream(1000)
    try:
        list(feature_rows(frames, Small(0), fps=25.0, batch=2))
    except RunError:  # with its traceback, which holds the frames it passed
        assert "vidtad-prefetch" not in [thread.name for thread in threading.enumerate()]
    else:
        raise AssertionError("there was room for it")


def test_other_errors_of_a_network_are_not_taken_for_it() -> None:
    frames, _ = stream(100)
    with pytest.raises(RuntimeError, match="shape mismatch"):
        list(feature_rows(frames, Small(0, RuntimeError, "shape mismatch"), fps=25.0, batch=8))


def test_extraction_says_so(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    clip = write_clip(tmp_path / "clip.mp4", numbered_frames(95), 25)
    loaded = load_extractor("tiny3d", "random:3")
    whole = extract_file(clip, loaded, tmp_path / "whole").features
    original = ClipExtractor.rows

    def rows(self, pictures: np.ndarray, index: np.ndarray) -> torch.Tensor:
        if len(index) > 3:
            raise torch.cuda.OutOfMemoryError("tried to allocate")
        return original(self, pictures, index)

    monkeypatch.setattr(ClipExtractor, "rows", rows)
    extract_file(clip, loaded, tmp_path / "small")
    features = load_features(tmp_path / "small" / "clip.npy", check_hash=True)
    assert any("batches of 8 windows: went on with 2" in warning for warning in features.provenance.warnings)
    np.testing.assert_allclose(features.values, whole.values, rtol=0, atol=1e-5 * np.abs(whole.values).max())
    assert extract_file(clip, loaded, tmp_path / "small").reused


class Cramped:
    """A flow method that holds so many pairs at a time and no more."""

    def __init__(self, room: int, words: str = "CUDA out of memory. Tried to allocate"):
        self.room, self.words = room, words
        self.tried: list[int] = []

    def __call__(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        self.tried.append(len(first))
        if len(first) > self.room:
            raise RuntimeError(self.words)
        return np.stack(
            [np.full((*one.shape, 2), float(two.mean()) / 20) for one, two in zip(first, second, strict=True)]
        )


def pairs(method: Cramped) -> list[Pair]:
    convention = find("i3d/flow").convention
    convention = dataclasses.replace(convention, resize=(8, 8), crop=8)
    moving = [Picture(number / 25, np.full((8, 8, 3), number, np.uint8)) for number in range(41)]
    return list(flow_pairs(moving, convention, method, lambda number: True))


def test_optical_flow_is_computed_in_fewer_pairs_at_once() -> None:
    whole, cramped = Cramped(16), Cramped(5)
    expected = [pair.levels() for pair in pairs(whole)]
    assert whole.tried == [16, 16, 8]
    np.testing.assert_array_equal([pair.levels() for pair in pairs(cramped)], expected)
    assert cramped.tried == [16, 8, *[4] * 10], "what failed is not tried again"


def test_a_single_pair_that_does_not_fit_is_one_sentence() -> None:
    with pytest.raises(RunError, match="single pair"):
        pairs(Cramped(0))
    with pytest.raises(RuntimeError, match="mismatch"):
        pairs(Cramped(0, "shape mismatch"))
