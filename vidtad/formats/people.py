"""Persons at keyframes: linking boxes without identities into tracks, and tracks into segments."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import pairwise

from vidtad.timeline import PersonBox, Segment

Box = tuple[float, float, float, float]
# Boxes of one person at neighbouring keyframes overlap at least this much (intersection over union).
SAME_PERSON = 0.3
# A gap of this many keyframe steps ends a track or an action.
LONGEST_GAP = 1.5
ONE_KEYFRAME_S = 1.0
"""How long an action seen at a lone keyframe is taken to last: AVA annotates once a second."""


def iou(a: Box, b: Box) -> float:
    """Intersection over union of two boxes (x1, y1, x2, y2)."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    both = width * height
    return both / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both)


def keyframe_step(times: Iterable[float]) -> float:
    """The usual distance in seconds between keyframes (median); 1 with fewer than two."""
    moments = sorted(set(times))
    gaps = sorted(after - before for before, after in pairwise(moments))
    return gaps[len(gaps) // 2] if gaps else ONE_KEYFRAME_S


def sampled(people: Sequence[PersonBox], every_s: float) -> list[PersonBox]:
    """The boxes of each track nearest to every multiple of `every_s` seconds, at most a quarter of it away, put there.

    Annotation tools have a box in every frame; person-box detectors are trained at keyframes (AVA: one a second).
    """
    nearest: dict[tuple[int, int], PersonBox] = {}
    for person in people:
        number = round(person.time_s / every_s)
        away = abs(person.time_s - number * every_s)
        if away > every_s / 4:
            continue
        other = nearest.get((number, person.track))
        if other is None or away < abs(other.time_s - number * every_s):
            nearest[number, person.track] = person
    return [replace(nearest[key], time_s=key[0] * every_s) for key in sorted(nearest)]


def linked(boxes: Sequence[PersonBox]) -> list[PersonBox]:
    """The boxes with tracks: each takes the best overlapping box of the keyframe before, greedily."""
    moments: dict[float, list[PersonBox]] = defaultdict(list)
    for box in boxes:
        moments[box.time_s].append(box)
    limit = LONGEST_GAP * keyframe_step(moments)
    done: list[PersonBox] = []
    last: list[PersonBox] = []
    tracks = 0
    for moment in sorted(moments):
        before = [box for box in last if moment - box.time_s <= limit]
        now = moments[moment]
        pairs = sorted(
            ((iou(old.box, new.box), i, j) for i, old in enumerate(before) for j, new in enumerate(now)), reverse=True
        )
        track_of: dict[int, int] = {}
        taken: set[int] = set()
        for overlap, i, j in pairs:
            if overlap >= SAME_PERSON and i not in taken and j not in track_of:
                taken.add(i)
                track_of[j] = before[i].track
        last = []
        for j, box in enumerate(now):
            if j not in track_of:
                track_of[j], tracks = tracks, tracks + 1
            last.append(replace(box, track=track_of[j]))
        done += last
    return done


def segments_of(people: Iterable[PersonBox]) -> list[Segment]:
    """Runs of the same action of the same person at keyframes in a row; the score is the best of the run.

    A keyframe stands for half a step on either side of it.
    """
    seen: dict[tuple[int, str], list[tuple[float, float]]] = defaultdict(list)
    moments = set()
    for person in people:
        moments.add(person.time_s)
        for label, score in person.actions:
            seen[person.track, label].append((person.time_s, score))
    step = keyframe_step(moments)
    found = []
    for (track, label), keyframes in seen.items():
        run: list[tuple[float, float]] = []
        for keyframe in [*sorted(keyframes), None]:
            if run and (keyframe is None or keyframe[0] - run[-1][0] > LONGEST_GAP * step):
                start, end = max(0.0, run[0][0] - step / 2), run[-1][0] + step / 2
                found.append(Segment(start, end, label, max(score for _, score in run), track))
                run = []
            if keyframe is not None:
                run.append(keyframe)
    return sorted(found, key=lambda s: (s.start_s, s.label))


def by_track(people: Iterable[PersonBox]) -> dict[int, list[PersonBox]]:
    """{track: its boxes in order of time}."""
    tracks: dict[int, list[PersonBox]] = defaultdict(list)
    for person in sorted(people, key=lambda p: (p.track, p.time_s)):
        tracks[person.track].append(person)
    return dict(tracks)
