"""ReAct as a detector: batches that do not fit the memory, and videos resized to one window."""

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.bundles import seeded_actionformer, seeded_react
from vidtad.errors import InputError, RunError
from vidtad.features import Assumed, Features, Grid, Provenance, load_features
from vidtad.heads.react.detector import ReActDetector
from vidtad.heads.registry import load_detector
from vidtad.hub.bundle import load_bundle
from vidtad.models.react import ReActOutput
from vidtad.pipelines.detect.temporal import detect_features
from vidtad.video import VideoInfo
from vidtad.windows import resized

SMALL = {"width": 16, "heads": 4, "feed_forward": 32, "queries": 6, "decoder_layers": 2, "encoder_layers": 1}


def detector(folder: Path, **config: object) -> ReActDetector:
    path = seeded_react(folder / "r.safetensors", **{**SMALL, "clip_len": 16, **config})
    return ReActDetector(load_bundle(path))


def rows(count: int, width: int) -> np.ndarray:
    return np.random.default_rng(count).normal(size=(count, width)).astype(np.float32)


def limited(made: ReActDetector, monkeypatch: pytest.MonkeyPatch, most: int) -> list[int]:
    """Let the network fail like a full GPU above so many windows; sizes that were tried."""
    tried, overlapping = [], made.network.overlapping

    def run(features: torch.Tensor, index: torch.Tensor) -> ReActOutput:
        tried.append(len(index))
        if len(index) > most:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB")
        return overlapping(features, index)

    monkeypatch.setattr(made.network, "overlapping", run)
    return tried


@torch.inference_mode()
def test_rows_that_windows_share_are_projected_once_and_the_same(tmp_path: Path) -> None:
    made = detector(tmp_path)
    values = torch.from_numpy(rows(23, made.config.in_channels))
    index = torch.arange(0, 12, 4)[:, None] + torch.arange(16)
    index[index >= len(values)] = -1
    windows = torch.stack(
        [torch.cat([values[row[row >= 0]], values.new_zeros(16, values.shape[1])])[:16] for row in index]
    )
    found, wanted = made.network.overlapping(values, index), made.network(windows, index < 0)
    assert int(wanted.lengths[-1]) == 15
    torch.testing.assert_close(found.projected, wanted.projected)
    torch.testing.assert_close(found.segments, wanted.segments)
    torch.testing.assert_close(found.scores(), wanted.scores())


def test_full_memory_halves_the_windows_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = detector(tmp_path)
    values = rows(100, made.config.in_channels)
    whole = made(values)
    assert made.warnings == ()
    tried = limited(made, monkeypatch, most=3)
    found = made(values)
    assert tried[:3] == [16, 8, 4] and max(tried[3:]) == 2
    for a, b in zip(found, whole, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
    assert len(made.warnings) == 1 and "2 windows" in made.warnings[0]
    made.batch = 16
    channels, sampling = made.bundle.channels, made.bundle.sampling
    grid = Grid.regular(Fraction(25), sampling["stride"], sampling["window"], 100)
    video = VideoInfo(path="v.npy", width=0, height=0, fps=Fraction(25), duration_s=60.0, frames=None)
    features = Features(values, grid, video, Provenance(made.bundle.extractor, channels))
    warnings = detect_features(features, made, "v").detector["warnings"]
    assert warnings == [f"v: {made.warnings[0]}"]


def test_a_window_that_does_not_fit_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = detector(tmp_path)
    limited(made, monkeypatch, most=0)
    with pytest.raises(RunError, match="single window"):
        made(rows(40, made.config.in_channels))


def test_other_errors_are_passed_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = detector(tmp_path)

    def broken(*_: torch.Tensor):
        raise RuntimeError("no kernel image")

    monkeypatch.setattr(made.network, "overlapping", broken)
    with pytest.raises(RuntimeError, match="kernel"):
        made(rows(40, made.config.in_channels))


@pytest.mark.parametrize("count", [5, 16, 70])
def test_resized_videos_are_one_window(tmp_path: Path, count: int) -> None:
    made = detector(tmp_path, resize=True)
    values = rows(count, made.config.in_channels)
    found = made(values)
    same = made(resized(values, 16))
    np.testing.assert_allclose(found.segments, same.segments * count / 16, rtol=1e-5)
    np.testing.assert_allclose(found.scores, same.scores, rtol=1e-5)
    assert found.segments.max() <= count + 1e-6


@pytest.mark.parametrize("make", [seeded_react, seeded_actionformer])
def test_half_precision_is_near_and_told(tmp_path: Path, make: Callable[..., Path]) -> None:
    size = {**SMALL, "clip_len": 16} if make is seeded_react else {}
    bundle = load_bundle(make(tmp_path / "b.safetensors", **size))
    single, half = (load_detector(bundle, "cpu", precision) for precision in ("float32", "bf16"))
    values = rows(60, bundle.width)
    grid = Grid.regular(Fraction(25), bundle.sampling["stride"], bundle.sampling["window"], 60)
    video = VideoInfo(path="v.npy", width=0, height=0, fps=Fraction(25), duration_s=60.0, frames=None)
    features = Features(values, grid, video, Provenance(bundle.extractor, bundle.channels))
    found = [detect_features(features, detector, "v") for detector in (single, half)]
    best = [max(segment.score for segment in timeline.results["v"]) for timeline in found]
    assert best[0] != best[1] and best[1] == pytest.approx(best[0], rel=0.2)
    assert "precision" not in found[0].detector and found[1].detector["precision"] == "bf16"


def test_rows_of_unknown_origin_are_taken_for_the_detectors_and_the_timeline_says_so(tmp_path: Path) -> None:
    made = detector(tmp_path)
    made.bundle = replace(made.bundle, channels=(("rgb", made.bundle.width - 8), ("flow", 8)))
    values = rows(40, made.bundle.width)
    np.save(tmp_path / "v.npy", values)
    sampling = made.bundle.sampling
    features = load_features(tmp_path / "v.npy", Assumed(sampling["stride"], sampling["window"], Fraction(25)))
    warning = detect_features(features, made, "v").detector["warnings"]
    assert len(warning) == 1 and warning[0].startswith("v: no sidecar") and "\n" not in warning[0]
    assert f"{made.bundle.extractor} features, channels in the order rgb {made.bundle.width - 8}, flow 8" in warning[0]
    known = replace(features, provenance=Provenance(made.bundle.extractor, made.bundle.channels))
    assert detect_features(known, made, "v").detector["warnings"] == []
    with pytest.raises(InputError, match="rows are 3 wide"):
        detect_features(replace(features, values=values[:, :3]), made, "v")
