from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from vidtad.errors import InputError
from vidtad.pipelines.fuse.person import class_weights, ensemble
from vidtad.timeline import PersonBox, Timeline
from vidtad.video import VideoInfo

INFO = VideoInfo("v.mp4", 100, 100, Fraction(25), 10.0, 250)
BOX, OTHER = (0.1, 0.1, 0.4, 0.9), (0.5, 0.1, 0.9, 0.9)


def timeline(name: str, *scores: tuple[float, float], boxes: tuple = (BOX, OTHER)) -> Timeline:
    people = [
        PersonBox(float(second), track, box, 0.9, (("run", run), ("sit", sit)))
        for second, (run, sit) in enumerate(scores)
        for track, box in enumerate(boxes)
    ]
    detector = {"name": name, "classes": ["run", "sit"], "decoding": {"start": 0.6, "keep": 0.4, "bridge_s": 2.0}}
    return Timeline({"v": ()}, {"v": INFO}, detector, {"v": tuple(people)})


def test_each_class_listens_to_who_knows_it() -> None:
    a, b = timeline("a", (0.8, 0.2), (0.8, 0.2)), timeline("b", (0.4, 0.9), (0.4, 0.9))
    found = ensemble([a, b], [{"run": 0.3, "sit": 0.1}, {"run": 0.1, "sit": 0.3}])
    scores = dict(found.people["v"][0].actions)
    assert scores == pytest.approx({"run": 0.75 * 0.8 + 0.25 * 0.4, "sit": 0.25 * 0.2 + 0.75 * 0.9})
    assert [label for label, _ in found.people["v"][0].actions] == ["sit", "run"]
    assert {(s.track, s.label) for s in found.results["v"]} == {(t, label) for t in (0, 1) for label in ("run", "sit")}
    assert found.detector["name"] == "a+b" and found.detector["weights"]["run"] == [0.75, 0.25]


def test_order_of_boxes_does_not_matter_and_unknown_ap_weighs_alike() -> None:
    a, b = timeline("a", (0.8, 0.2)), timeline("b", (0.4, 0.9))
    turned = replace(b, people={"v": b.people["v"][::-1]})
    assert ensemble([a, turned]).people == ensemble([a, b]).people
    assert dict(ensemble([a, b]).people["v"][0].actions) == pytest.approx({"run": 0.6, "sit": 0.55})


def test_weights_add_up_to_one_for_every_class() -> None:
    found = class_weights(["a", "b", "c"], [{"a": 0.5, "b": float("nan")}, {"a": 0.25, "c": 0.0}])
    np.testing.assert_allclose(found.sum(axis=0), 1)
    np.testing.assert_allclose(found, [[2 / 3, 0.5, 0.5], [1 / 3, 0.5, 0.5]])


def test_what_does_not_belong_together_is_refused() -> None:
    a = timeline("a", (0.8, 0.2))
    with pytest.raises(InputError, match="at least two"):
        ensemble([a])
    with pytest.raises(InputError, match="same --boxes file"):
        ensemble([a, timeline("b", (0.4, 0.9), boxes=(BOX, (0.55, 0.1, 0.9, 0.9)))])
    with pytest.raises(InputError, match="different classes"):
        ensemble([a, replace(a, detector={**a.detector, "classes": ["run"]})])
    with pytest.raises(InputError, match="different videos"):
        ensemble([a, replace(a, videos={"w": INFO}, results={}, people={"w": ()})])
    with pytest.raises(InputError, match="one for each"):
        ensemble([a, a], [{}])
