"""Several models' opinions on the same people, weighted class by class by how well each model does the class.

The report of the AVA-Kinetics 2020 challenge weights models "according to the AP" of the class without a formula; here
the weight of model m for class c is AP[m, c] / sum over models of AP[., c].
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from vidtad.errors import InputError
from vidtad.formats.people import keyframe_step
from vidtad.formats.shared import labels_of
from vidtad.heads.person.segments import REACH, MergeRule, merged
from vidtad.timeline import PersonBox, Segment, Timeline

SAME_BOX = 2e-3
"""Largest difference of a side, as a fraction of the frame, between what two models call one box."""


def ensemble(
    timelines: Sequence[Timeline],
    ap: Sequence[Mapping[str, float]] | None = None,
    *,
    rule: MergeRule | None = None,
) -> Timeline:
    """One timeline of several by different models on the same videos with the same boxes.

    ap: per model, class name -> AP (0-1) on validation data; None weights all alike, and so does a class without any
    AP above 0. Tracks are those of the first timeline; segments are merged anew by `rule` (default: that of the first
    detector). Scores a model left out count as 0. Raises InputError when fewer than two are given, or videos, boxes
    or classes differ.
    """
    if len(timelines) < 2:
        raise InputError("an ensemble needs the timelines of at least two models")
    if ap is not None and len(ap) != len(timelines):
        raise InputError(f"{len(timelines)} models but {len(ap)} sets of AP: give one for each model")
    first = timelines[0]
    classes = common_classes(timelines)
    for other in timelines[1:]:
        if other.people.keys() != first.people.keys():
            raise InputError(f"{_name(other)} and {_name(first)} are of different videos")
    weights = class_weights(classes, ap if ap is not None else [{}] * len(timelines))
    rule = rule or _rule(first.detector)
    floor = float(first.detector.get("decoding", {}).get("action_score", 0.0))
    people: dict[str, tuple[PersonBox, ...]] = {}
    results: dict[str, tuple[Segment, ...]] = {}
    for video, found in first.people.items():
        together = [_matched(found, other.people[video], f"{video}: {_name(other)}") for other in timelines[1:]]
        people[video] = tuple(
            replace(person, actions=_combined((person, *(rows[i] for rows in together)), classes, weights, floor))
            for i, person in enumerate(found)
        )
        step_s = _step_s(first, found)
        duration_s = first.videos[video].duration_s
        reaching = replace(rule, bridge_s=max(rule.bridge_s, REACH * step_s))
        results[video] = tuple(merged(people[video], reaching, step_s=step_s, duration_s=duration_s))
    detector: dict[str, Any] = {
        **first.detector,
        "name": "+".join(_name(timeline) for timeline in timelines),
        "warnings": sorted({text for timeline in timelines for text in timeline.detector.get("warnings", [])}),
        "ensemble": [dict(timeline.detector) for timeline in timelines],
        "weights": {
            name: [round(float(w), 6) for w in column] for name, column in zip(classes, weights.T, strict=True)
        },
    }
    for mark in ("demonstration", "random_weights"):
        if any(timeline.detector.get(mark) for timeline in timelines):
            detector[mark] = True
    return Timeline(results, first.videos, detector, people)


def common_classes(timelines: Sequence[Timeline]) -> tuple[str, ...]:
    """The classes all detectors know; of timelines that do not state them, those that occur.

    Raises InputError when detectors know different ones.
    """
    first = timelines[0]
    if not all(timeline.detector.get("classes") for timeline in timelines):
        return tuple(sorted({label for timeline in timelines for label in labels_of(timeline)}))
    for other in timelines[1:]:
        if set(other.detector["classes"]) != set(first.detector["classes"]):
            raise InputError(f"{_name(other)} and {_name(first)} know different classes")
    return tuple(first.detector["classes"])


def _step_s(timeline: Timeline, people: Sequence[PersonBox]) -> float:
    """Time between keyframes: what the detector was asked for, or that of the file its boxes came from."""
    if "boxes" in timeline.detector.get("persons", {}):
        return keyframe_step(person.time_s for person in people)
    return float(timeline.detector.get("keyframes", {}).get("every_s", 1.0))


def class_weights(classes: Sequence[str], ap: Sequence[Mapping[str, float]]) -> np.ndarray:
    """(models, classes) weights that add up to 1 for each class."""
    table = np.array([[float(model.get(name) or 0.0) for name in classes] for model in ap], np.float64)
    table = np.where(np.isfinite(table) & (table > 0), table, 0.0)
    total = table.sum(axis=0)
    return np.where(total > 0, table / np.where(total > 0, total, 1), 1 / len(ap))


def _combined(
    people: Sequence[PersonBox], classes: Sequence[str], weights: np.ndarray, floor: float
) -> tuple[tuple[str, float], ...]:
    scores = np.array([[dict(person.actions).get(name, 0.0) for name in classes] for person in people])
    mixed = (scores * weights).sum(axis=0)
    order = np.argsort(-mixed, kind="stable")
    return tuple((classes[k], round(float(mixed[k]), 6)) for k in order if mixed[k] >= floor)


def _matched(people: Sequence[PersonBox], others: Sequence[PersonBox], where: str) -> list[PersonBox]:
    """For each person the one with the same box at the same time."""
    at: dict[float, list[PersonBox]] = {}
    for other in others:
        at.setdefault(round(other.time_s, 3), []).append(other)
    found = []
    for person in people:
        near = [o for o in at.get(round(person.time_s, 3), ()) if _apart(person, o) <= SAME_BOX]
        if not near:
            raise InputError(
                f"{where} has no box {person.box} at {person.time_s:g} s: run all models with the same --boxes file"
            )
        found.append(min(near, key=lambda o: _apart(person, o)))
    return found


def _apart(one: PersonBox, other: PersonBox) -> float:
    return max(abs(a - b) for a, b in zip(one.box, other.box, strict=True))


def _rule(detector: Mapping[str, Any]) -> MergeRule:
    decoding = detector.get("decoding", {})
    return MergeRule(**{name: decoding[name] for name in ("start", "keep", "bridge_s") if name in decoding})


def _name(timeline: Timeline) -> str:
    return str(timeline.detector.get("name", "unnamed"))
