"""Scores of each person at keyframes to segments of each person: hysteresis over the keyframes.

An action of a person begins at a keyframe that scores at least `start`, reaches in both directions as long as
neighbouring keyframes score at least `keep`, and stands for half a keyframe step before and after. A person missing
for longer than `bridge_s` ends it. Its score is the mean over its keyframes.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import fmean

from vidtad.errors import InputError
from vidtad.timeline import PersonBox, Segment

REACH = 1.5
"""Steps between keyframes that neither ends an action nor loses a person, however long the steps are."""


@dataclass(frozen=True)
class MergeRule:
    """Scores from which an action starts and is kept up, and the longest gap between keyframes it spans."""

    start: float = 0.5
    keep: float = 0.3
    bridge_s: float = 2.0

    def __post_init__(self) -> None:
        if not 0 <= self.keep <= self.start <= 1 or self.bridge_s < 0:
            raise InputError(
                f"actions start at a score of {self.start} and are kept from {self.keep}: give 0 <= keep <= start <= 1"
            )


def merged(people: Iterable[PersonBox], rule: MergeRule, *, step_s: float, duration_s: float) -> list[Segment]:
    """Segments of all persons, best first, times clipped to [0, duration_s]; `step_s` is the time between keyframes.

    A keyframe at which a person has no score for a class counts as 0.
    """
    tracks: dict[int, dict[float, dict[str, float]]] = defaultdict(dict)
    for person in people:
        tracks[person.track][person.time_s] = dict(person.actions)
    segments = []
    for track, keyframes in tracks.items():
        times = sorted(keyframes)
        for label in sorted({label for actions in keyframes.values() for label in actions}):
            scores = [keyframes[time_s].get(label, 0.0) for time_s in times]
            for first, last in _runs(times, scores, rule):
                start_s = max(0.0, times[first] - step_s / 2)
                end_s = min(duration_s, times[last] + step_s / 2)
                if end_s > start_s:
                    segments.append(Segment(start_s, end_s, label, fmean(scores[first : last + 1]), track))
    return sorted(segments, key=lambda s: (-s.score, s.start_s, s.label, s.track or 0))


def _runs(times: list[float], scores: list[float], rule: MergeRule) -> list[tuple[int, int]]:
    runs: list[tuple[int, int]] = []
    begun: int | None = None
    for place, (time_s, score) in enumerate(zip(times, scores, strict=True)):
        if begun is not None and time_s - times[place - 1] > rule.bridge_s + 1e-9:
            runs.append((begun, place - 1))
            begun = None
        if score < rule.keep:
            if begun is not None:
                runs.append((begun, place - 1))
            begun = None
        elif begun is None:
            begun = place
    if begun is not None:
        runs.append((begun, len(times) - 1))
    return [run for run in runs if max(scores[run[0] : run[1] + 1]) >= rule.start]
