"""Timelines made better by what else is known: class scores of whole videos, and timelines of other detectors."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from vidtad.errors import InputError
from vidtad.formats.ava import ava_classes
from vidtad.heads.registry import HEADS
from vidtad.pipelines.fuse.person import common_classes, ensemble
from vidtad.postprocess import Detections, Nms, fuse_video_scores, soft_nms
from vidtad.runtime.files import read_json
from vidtad.timeline import Segment, Timeline


@dataclass(frozen=True, eq=False)
class VideoScores:
    """How likely each of `classes` occurs in a video: `scores[video]` (classes,) float64, at least 0."""

    classes: tuple[str, ...]
    scores: Mapping[str, np.ndarray]


def read_video_scores(path: Path, classes: Sequence[str] | None = None) -> VideoScores:
    """Read `{"class": [names], "results": {video: [scores]}}`, or `{video: [scores]}` with the names in `classes`.

    The first is how the CUHK scores for ActivityNet are published, the second what ActionFormer reads (by label
    id). Raises InputError for anything else, naming what is wrong.
    """
    document = read_json(path)
    table = document.get("results", document) if isinstance(document, dict) else None
    if not isinstance(table, dict):
        raise InputError(f"{path}: no table of videos; expected {{video: [one score a class]}}")
    names = classes if classes is not None else document.get("class", document.get("classes"))
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        raise InputError(f"{path}: no class names in it; name them, in the order of the scores")
    scores = {}
    for video, row in table.items():
        try:
            values = np.asarray(row, dtype=np.float64)
        except (TypeError, ValueError, OverflowError) as error:
            raise InputError(f"{path}: {video}: the scores are no list of numbers") from error
        if values.shape != (len(names),) or not (np.isfinite(values) & (values >= 0)).all():
            raise InputError(f"{path}: {video}: expected {len(names)} scores of at least 0, one a class")
        scores[str(video)] = values
    return VideoScores(tuple(names), scores)


def combine(
    timelines: Sequence[Timeline],
    *,
    weights: Sequence[float] | None = None,
    ap: Sequence[Path] | None = None,
    video_scores: VideoScores | None = None,
    rule: Nms | None = None,
) -> Timeline:
    """One timeline of several detectors' of one kind, or of a single one, its classes then taken from `video_scores`.

    People are combined by `people.ensemble.ensemble`, class by class by the AP of each detector (`ap`: files of
    `vidtad evaluate --json`) or by `weights`; segments by `ensemble_timelines`, by `weights` and
    `rule` (None: `common_rule`), and then they meet `video_scores`, see `fuse_timeline`. Raises
    InputError for what does not go together.
    """
    kinds = {bool(timeline.people) for timeline in timelines}
    if len(kinds) > 1:
        raise InputError("some of these timelines have people and some have none: combine each kind by itself")
    if weights and ap:
        raise InputError("an ensemble is weighted by AP or by fixed weights, not by both")
    given = len(weights or ap or timelines)
    if given != len(timelines):
        raise InputError(f"{len(timelines)} timelines but {given} weights or files of AP: give one for each")
    if len(timelines) < 2 and (video_scores is None or weights or ap):
        raise InputError("an ensemble needs the timelines of at least two detectors")
    if kinds == {True}:
        if video_scores is not None:
            raise InputError("class scores of whole videos say nothing of single people: leave them out")
        return _people(timelines, weights, ap)
    if ap:
        raise InputError("AP weighs timelines of people, class by class; give weights for these")
    joint = timelines[0]
    if len(timelines) > 1:
        joint = ensemble_timelines(timelines, weights, rule or common_rule(timelines))
    return joint if video_scores is None else fuse_timeline(joint, video_scores)


def _people(timelines: Sequence[Timeline], weights: Sequence[float] | None, ap: Sequence[Path] | None) -> Timeline:
    classes = common_classes(timelines)
    if ap:
        return ensemble(timelines, [read_ap(path, classes) for path in ap])
    if not weights:
        return ensemble(timelines)
    _check(weights)
    return ensemble(timelines, [dict.fromkeys(classes, weight) for weight in weights])


def _check(weights: Sequence[float]) -> None:
    if min(weights) < 0 or not 0 < sum(weights) < float("inf"):
        raise InputError("weights of an ensemble must be at least 0, and one of them above")


def read_ap(path: Path, classes: Sequence[str]) -> dict[str, float]:
    """{class: AP, 0-1} from what `vidtad evaluate --json` prints, over several thresholds their mean.

    There a class is its name, `number name` or a number: AVA's where all `classes` are AVA's, else its place among
    them from 1. Raises InputError for another file, or one that knows none of `classes`.
    """
    document = read_json(path)
    table = document.get("ap") if isinstance(document, dict) else None
    if not isinstance(table, dict):
        raise InputError(f"{path}: no AP of classes in it; expected what `vidtad evaluate --json` prints")
    known = {entry.name: entry.id for entry in ava_classes()}
    own = known if all(name in known for name in classes) else {name: place for place, name in enumerate(classes, 1)}
    found = {}
    for name in classes:
        row = next((table[key] for key in (name, f"{own[name]} {name}", str(own[name])) if key in table), None)
        values = [value for value in (row if isinstance(row, list) else [row]) if value is not None]
        if not all(isinstance(value, int | float) for value in values):
            raise InputError(f"{path}: the AP of {name!r} is no number")
        if values:
            found[name] = float(np.mean(values))
    if not found:
        raise InputError(f"{path}: has an AP of none of the detector's classes ({', '.join(classes[:3])})")
    return found


def fuse_timeline(
    timeline: Timeline, video_scores: VideoScores, *, classes: int = 2, geometric: bool = True, most: int = 200
) -> Timeline:
    """Give class-agnostic segments the classes that their whole video is likely to hold.

    The `most` best segments of a video appear once for each of its `classes` best classes, with the square root of
    the product of both scores, as the released ActionFormer does for ActivityNet (`geometric` False: the
    product, as its paper says). A leading `v_` of a video's name does not count. Raises InputError when a video
    with segments has no scores.
    """
    results = {}
    for name, segments in timeline.results.items():
        known = next((key for key in (name, name.removeprefix("v_")) if key in video_scores.scores), None)
        if known is None and segments:
            raise InputError(f"{name}: no class scores of this video; leave it out or add them")
        best = sorted(segments, key=lambda segment: -segment.score)[:most]
        if not best or known is None:
            results[name] = tuple(best)
            continue
        found = Detections(np.arange(len(best)), np.array([s.score for s in best]), np.zeros(len(best), int))
        fused = fuse_video_scores(found, video_scores.scores[known], classes, geometric)
        rows = zip(fused.segments.tolist(), fused.labels.tolist(), fused.scores.tolist(), strict=True)
        results[name] = tuple(
            replace(best[row], label=video_scores.classes[label], score=score) for row, label, score in rows
        )
    how = {"classes": classes, "geometric": geometric, "most": most}
    return replace(timeline, results=results, detector={**timeline.detector, "video_scores": how})


def common_rule(timelines: Sequence[Timeline]) -> Nms:
    """Suppression of an ensemble, from how its detectors decoded, where their timelines say so.

    The largest of their `top_k`, never below the usual 200, so that none is cut shorter than it was; `sigma` where
    they agree on it. Classes stay apart unless every detector suppressed them together.
    """
    decoded = []
    for timeline in timelines:
        stated, head = timeline.detector.get("decoding"), timeline.detector.get("head")
        if isinstance(stated, Mapping):  # what a bundle leaves out is its head's default
            defaults = asdict(HEADS[head].decoding()()) if isinstance(head, str) and head in HEADS else {}
            decoded.append({**defaults, **stated})
    usual = Nms()
    most = [d["top_k"] for d in decoded if type(d.get("top_k")) is int and d["top_k"] > 0]
    sigmas = {float(d["sigma"]) for d in decoded if isinstance(d.get("sigma"), int | float)}
    sigma = sigmas.pop() if len(sigmas) == 1 else usual.sigma
    together = len(decoded) == len(timelines) and all(d.get("class_agnostic") is True for d in decoded)
    try:
        return Nms(sigma=sigma, top_k=max([usual.top_k, *most]), class_agnostic=together)
    except ValueError as error:
        raise InputError(f"a timeline says it was decoded in a way that cannot be: {error}") from error


def ensemble_timelines(
    timelines: Sequence[Timeline], weights: Sequence[float] | None = None, rule: Nms = Nms()
) -> Timeline:
    """One timeline of several detectors' over the same videos.

    Segments of all of them suppress one another by `rule` (within their class, unless every detector does without
    classes), their scores first multiplied by the detector's weight over the largest of `weights` (default: equal):
    a segment that several find keeps the best score it was given, one that a single weak detector finds ranks low.
    Raises InputError for fewer than two timelines, weights that do not fit, or timelines of other videos.
    """
    weights = [1.0] * len(timelines) if weights is None else list(weights)
    if len(timelines) < 2 or len(weights) != len(timelines):
        given = f"{len(timelines)} timelines and {len(weights)} weights"
        raise InputError(f"an ensemble of {given}: two or more, one each")
    _check(weights)
    names = [frozenset(timeline.results) for timeline in timelines]
    strangers = sorted(frozenset().union(*names) - names[0].intersection(*names))
    if strangers:
        raise InputError(f"the timelines are not of the same videos ({', '.join(strangers[:3])})")
    shares = [weight / max(weights) for weight in weights]
    results = {name: _suppressed([t.results[name] for t in timelines], shares, rule) for name in timelines[0].results}
    made: dict[str, Any] = {
        "name": "ensemble",
        "ensemble": [dict(timeline.detector) for timeline in timelines],
        "weights": weights,
        "warnings": sorted({w for t in timelines for w in t.detector.get("warnings", [])}),
    }
    for mark in ("demonstration", "random_weights"):
        if any(timeline.detector.get(mark) for timeline in timelines):
            made[mark] = True
    return Timeline(results, timelines[0].videos, made)


def _suppressed(found: Sequence[tuple[Segment, ...]], shares: Sequence[float], rule: Nms) -> tuple[Segment, ...]:
    pool = [replace(s, score=s.score * share) for segments, share in zip(found, shares, strict=True) for s in segments]
    names = sorted({segment.label for segment in pool})
    kept = soft_nms(
        np.array([(s.start_s, s.end_s) for s in pool], dtype=np.float64).reshape(-1, 2),
        np.array([s.score for s in pool], dtype=np.float64),
        np.array([names.index(s.label) for s in pool], dtype=np.int64),
        rule,
    )
    rows = zip(kept.segments.tolist(), kept.labels.tolist(), kept.scores.tolist(), strict=True)
    return tuple(Segment(start, end, names[label], score) for (start, end), label, score in rows)
