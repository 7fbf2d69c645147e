import json
from pathlib import Path

import numpy as np
import pytest

from vidtad.errors import InputError
from vidtad.pipelines.fuse.segments import (
    VideoScores,
    combine,
    common_rule,
    ensemble_timelines,
    fuse_timeline,
    read_video_scores,
)
from vidtad.postprocess import Nms
from vidtad.timeline import Segment, Timeline
from vidtad.video import VideoInfo

INFO = VideoInfo(path="a.mp4", width=8, height=8, fps=25, duration_s=100.0, frames=2500)  # type: ignore[arg-type]


def timeline(*segments: tuple[float, float, str, float], name: str = "v_a", **detector: object) -> Timeline:
    return Timeline({name: tuple(Segment(*s) for s in segments)}, {name: INFO}, detector)


SCORES = VideoScores(("run", "jump", "sit"), {"a": np.array([0.1, 0.6, 0.3])})


def test_segments_take_the_classes_of_their_video() -> None:
    fused = fuse_timeline(timeline((1, 2, "action", 0.8), (3, 4, "action", 0.2)), SCORES)
    found = [(s.start_s, s.label, s.score) for s in fused.results["v_a"]]
    wanted = [(1, "jump", 0.48), (1, "sit", 0.24), (3, "jump", 0.12), (3, "sit", 0.06)]
    assert [(a, b) for a, b, _ in found] == [(a, b) for a, b, _ in wanted]
    assert [s for *_, s in found] == pytest.approx([product**0.5 for *_, product in wanted])
    plain = fuse_timeline(timeline((1, 2, "action", 0.8)), SCORES, classes=1, geometric=False)
    assert [s.score for s in plain.results["v_a"]] == pytest.approx([0.48])
    assert fused.detector["video_scores"]["classes"] == 2


def test_only_the_best_segments_are_fused() -> None:
    fused = fuse_timeline(timeline((1, 2, "action", 0.2), (3, 4, "action", 0.8)), SCORES, most=1)
    assert {s.start_s for s in fused.results["v_a"]} == {3}


def test_a_video_without_scores_is_named() -> None:
    with pytest.raises(InputError, match="v_b"):
        fuse_timeline(timeline((1, 2, "action", 0.8), name="v_b"), SCORES)
    assert fuse_timeline(timeline(name="v_b"), SCORES).results == {"v_b": ()}


def test_both_layouts_are_read(tmp_path: Path) -> None:
    path = tmp_path / "scores.json"
    path.write_text(json.dumps({"class": list(SCORES.classes), "results": {"a": [0.1, 0.6, 0.3]}}))
    own = read_video_scores(path)
    path.write_text(json.dumps({"a": [0.1, 0.6, 0.3]}))
    named = read_video_scores(path, SCORES.classes)
    assert own.classes == named.classes == SCORES.classes
    assert own.scores["a"].tolist() == named.scores["a"].tolist() == [0.1, 0.6, 0.3]


@pytest.mark.parametrize(
    ("document", "word"),
    [
        ([1], "no table"),
        ({"a": [0.5]}, "no class names"),
        ({"class": ["x"], "results": {"a": [0.5, 0.5]}}, "expected 1 scores"),
        ({"class": ["x"], "results": {"a": [-0.5]}}, "at least 0"),
        ({"class": ["x"], "results": {"a": ["high"]}}, "no list of numbers"),
        ({"class": ["x"], "results": {"a": [10**400]}}, "no list of numbers"),
        ({"class": ["x"], "results": {"a": [float("nan")]}}, "expected"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, document: object, word: str) -> None:
    path = tmp_path / "scores.json"
    path.write_text(json.dumps(document))
    with pytest.raises(InputError, match=word):
        read_video_scores(path)


def test_ensemble_keeps_what_each_finds_once() -> None:
    first = timeline((1, 5, "run", 0.9), (10, 12, "sit", 0.5), name="x", random_weights=True)
    second = timeline((1, 5, "run", 0.6), (20, 22, "run", 0.4), (10, 12, "run", 0.3), name="x")
    joint = ensemble_timelines([first, second], [1, 0.5], Nms(min_score=0.05))
    found = [(s.start_s, s.label, round(s.score, 3)) for s in joint.results["x"]]
    # The second detector's copy of the first segment is suppressed; another class at the same place is not.
    assert found == [(1, "run", 0.9), (10, "sit", 0.5), (20, "run", 0.2), (10, "run", 0.15)]
    assert joint.detector["random_weights"] is True and joint.detector["weights"] == [1, 0.5]


def test_an_ensemble_of_nothing_found() -> None:
    assert ensemble_timelines([timeline(), timeline()]).results == {"v_a": ()}


@pytest.mark.parametrize(
    ("others", "weights", "word"),
    [
        ([], None, "two or more"),
        (["v_a"], [1.0], "one each"),
        (["v_a"], [0.0, 0.0], "above"),
        (["v_a"], [-1.0, 2.0], "at least 0"),
        (["v_b"], None, "not of the same"),
    ],
)
def test_ensembles_that_cannot_be(others: list[str], weights: list[float] | None, word: str) -> None:
    with pytest.raises(InputError, match=word):
        ensemble_timelines([timeline(), *(timeline(name=name) for name in others)], weights)


def test_an_ensemble_is_cut_no_shorter_than_its_detectors_were() -> None:
    found = [(10.0 * n, 10.0 * n + 2, "run", 0.9 - n / 1000) for n in range(600)]
    react = timeline(*found[:300], head="react", decoding={"display_score": 0.2})
    other = timeline(*found[300:], head="actionformer", decoding={"top_k": 2000, "sigma": 0.4})
    assert (rule := common_rule([react, other])).top_k == 2000 and rule.sigma == 0.4 and not rule.class_agnostic
    assert len(combine([react, other]).results["v_a"]) == 600
    assert len(combine([react, other], rule=Nms(top_k=250)).results["v_a"]) == 250
    assert common_rule([react, react]).top_k == 1000 and common_rule([react, react]).class_agnostic
    assert common_rule([timeline(), timeline()]) == Nms()
    with pytest.raises(InputError, match="sigma"):
        common_rule([timeline(decoding={"sigma": -1.0})])
