import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vidtad.heads.react.decoding import REACT, react_candidates, react_detections
from vidtad.postprocess import Detections, Nms, fuse_video_scores, soft_nms, suppress, vote


def slow_soft_nms(segments, scores, rule: Nms) -> tuple[list[int], list[float]]:
    """The definition, one candidate at a time, without any reordering."""
    score = {i: float(s) for i, s in enumerate(scores)}
    rows, decayed = [], []
    while score and len(rows) < rule.top_k:
        best = max(score, key=lambda i: score[i])
        rows.append(best)
        decayed.append(score.pop(best))
        for i in list(score):
            inside = max(0, min(segments[i][1], segments[best][1]) - max(segments[i][0], segments[best][0]))
            lengths = (np.diff(segments[[i, best]]) + rule.length_epsilon).sum()
            iou = inside / (lengths - inside)
            if rule.method == "gaussian":
                score[i] *= np.exp(-(iou**2) / rule.sigma)
            elif iou >= rule.iou_threshold:
                score[i] *= 1 - iou if rule.method == "linear" else 0
            if score[i] < rule.min_score:
                del score[i]
    return rows, decayed


def random_case(n: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    start, length = rng.uniform(0, 50, n), rng.uniform(0.1, 15, n)
    return np.stack([start, start + length], 1), (rng.permutation(n) + 0.5) / max(n, 1), rng.integers(0, 4, n)


@given(st.integers(0, 40), st.integers(0, 9999), st.sampled_from(["gaussian", "linear", "vanilla"]))
def test_soft_nms_is_its_definition(n: int, seed: int, method) -> None:
    segments, scores, _ = random_case(n, seed)
    rule = Nms(method=method, iou_threshold=0.3, min_score=0.05, top_k=25)
    rows, decayed = suppress(segments, scores, rule)
    expected_rows, expected = slow_soft_nms(segments, scores, rule)
    assert rows.tolist() == expected_rows
    np.testing.assert_allclose(decayed, expected)


@given(st.integers(1, 60), st.integers(0, 9999))
def test_hard_nms_leaves_no_pair_above_the_threshold(n: int, seed: int) -> None:
    segments, scores, labels = random_case(n, seed)
    kept = soft_nms(segments, scores, labels, Nms(method="hard", iou_threshold=0.4, class_agnostic=True))
    assert kept.scores[0] == scores.max()
    for i, (s, e) in enumerate(kept.segments):
        for u, v in kept.segments[:i]:
            inside = max(0, min(e, v) - max(s, u))
            assert inside / (e - s + v - u - inside) < 0.4


def test_classes_do_not_suppress_each_other_unless_asked() -> None:
    segments, scores, labels = np.array([[0.0, 5.0]] * 2), np.array([0.9, 0.8]), np.array([3, 1])
    assert soft_nms(segments, scores, labels, Nms(method="hard")).labels.tolist() == [3, 1]
    assert soft_nms(segments, scores, labels, Nms(method="hard", class_agnostic=True)).labels.tolist() == [3]


@pytest.mark.parametrize("method", ["gaussian", "linear", "vanilla", "hard", "none"])
@pytest.mark.parametrize("agnostic", [True, False])
def test_nothing_in_nothing_out(method, agnostic: bool) -> None:
    rule = Nms(method=method, class_agnostic=agnostic, voting=0.7)
    kept = soft_nms(np.zeros((0, 2)), np.zeros(0), np.zeros(0, np.int64), rule)
    assert [part.shape for part in kept] == [(0, 2), (0,), (0,)]


def test_top_k_is_global_and_sorted() -> None:
    segments, scores, labels = random_case(200, 5)
    kept = soft_nms(segments, scores, labels, Nms(top_k=17))
    assert len(kept.scores) == 17
    assert (np.diff(kept.scores) <= 0).all()
    everything = soft_nms(segments, scores, labels, Nms(top_k=1000))
    np.testing.assert_array_equal(kept.segments, everything.segments[:17])


def test_decayed_scores_are_rounded_once() -> None:
    """Bit for bit what C computes with expf, which is all but always the nearest float."""
    single = np.float32
    for overlap in np.linspace(0.5, 9.5, 64, dtype=single):
        segments = np.array([[0, 10], [10 - overlap, 20 - overlap]], dtype=single)
        _, decayed = suppress(segments, np.array([1, 0.9], dtype=single), Nms(sigma=0.5))
        lengths = segments[:, 1] - segments[:, 0] + single(1e-6)
        shared = segments[0, 1] - segments[1, 0]
        iou = shared / (lengths[0] + lengths[1] - shared)
        assert decayed[1] == single(0.9) * single(math.exp(float(iou * iou / single(-0.5))))


def test_first_pick_below_the_minimum() -> None:
    segments, scores, labels = np.array([[0.0, 1.0]]), np.array([1e-4]), np.array([0])
    assert len(soft_nms(segments, scores, labels, Nms(min_score=0.001)).scores) == 1
    assert len(soft_nms(segments, scores, labels, Nms(min_score=0.001, prefilter=True)).scores) == 0


def test_identical_and_empty_segments_stay_finite() -> None:
    segments = np.array([[1.0, 1.0], [1.0, 1.0], [2.0, 3.0], [2.0, 3.0]])
    for rule in (REACT, Nms(class_agnostic=True, voting=0.7)):
        kept = soft_nms(segments, np.array([0.9, 0.8, 0.7, 0.6]), np.zeros(4, int), rule)
        assert np.isfinite(kept.segments).all() and np.isfinite(kept.scores).all()


def test_voting_averages_supporters_only() -> None:
    candidates = np.array([[0.0, 10.0], [0.0, 12.0], [30.0, 31.0]])
    moved = vote(candidates[:1], candidates, np.array([1.0, 0.5, 1.0]), 0.7)
    weight = 0.5 * 10 / 12
    np.testing.assert_allclose(moved, [[0, (10 + weight * 12) / (1 + weight)]])


def test_video_scores_relabel_each_detection() -> None:
    found = Detections(np.array([[0.0, 1.0], [2.0, 3.0]]), np.array([0.64, 0.25]), np.array([0, 0]))
    fused = fuse_video_scores(found, np.array([0.0, 0.25, 1.0]))
    assert fused.labels.tolist() == [2, 2, 1, 1]
    np.testing.assert_allclose(fused.scores, [0.8, 0.5, 0.4, 0.25])
    np.testing.assert_allclose(fused.segments[:, 0], [0, 2, 0, 2])


def test_react_windows_land_on_the_whole_video() -> None:
    windows = [slice(0, 64), slice(16, 70)]
    segments = np.array([[[0.5, 0.25]], [[0.5, 2.0]]], np.float32)
    scores = np.array([[[0.1, 0.6]], [[0.7, 0.2]]], np.float32)
    found = react_candidates(segments, scores, windows)
    # Best class alone; the second segment is cut to its window of 54 snippets.
    assert found.labels.tolist() == [0, 1]
    np.testing.assert_allclose(found.segments, [[16, 70], [24, 40]])
    assert found.segments.dtype == np.float64
    assert len(react_candidates(segments, scores, windows, min_score=0.65).scores) == 1
    kept = react_detections(segments, scores, windows, rule=replace(REACT, method="none"))
    np.testing.assert_allclose(kept.segments, found.segments)


@pytest.mark.parametrize("wrong", [{"method": "greedy"}, {"sigma": 0.0}, {"top_k": 0}])
def test_wrong_rules_are_refused(wrong) -> None:
    with pytest.raises(ValueError):
        Nms(**wrong)


def test_lengths_must_agree() -> None:
    with pytest.raises(ValueError, match="2 segments"):
        soft_nms(np.zeros((2, 2)), np.zeros(1), np.zeros(2), Nms())


@given(st.integers(0, 60), st.integers(0, 9999), st.sampled_from(["gaussian", "linear", "vanilla"]), st.booleans())
def test_classes_together_give_what_each_gives_alone(n: int, seed: int, method, ties: bool) -> None:
    segments, scores, labels = random_case(n, seed)
    scores = np.round(scores, 1) if ties else scores
    rule = Nms(method=method, iou_threshold=0.3, min_score=0.05, top_k=9, prefilter=bool(seed % 2))
    kept = soft_nms(segments, scores, labels, rule)
    found = []
    for label in np.unique(labels).tolist():
        pool = np.flatnonzero(labels == label)
        rows, decayed = suppress(segments[pool], scores[pool], rule)
        found += [(score, label, *segments[pool[row]]) for row, score in zip(rows, decayed, strict=True)]
    expected = sorted(found, key=lambda entry: -entry[0])[:9]
    together = zip(kept.scores.tolist(), kept.labels.tolist(), *kept.segments.T.tolist(), strict=True)
    assert list(together) == expected


def test_many_candidates_are_decayed_like_few(monkeypatch: pytest.MonkeyPatch) -> None:
    segments, scores, labels = random_case(300, 5)
    rule = Nms(class_agnostic=True, top_k=300)
    few = soft_nms(segments, scores, labels, rule)
    monkeypatch.setattr("vidtad.postprocess.FEW", 10)
    for a, b in zip(few, soft_nms(segments, scores, labels, rule), strict=True):
        assert np.array_equal(a, b)
