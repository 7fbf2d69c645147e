"""The product: what happens when, and who does it; as JSON (a superset of ActivityNet results) and CSV."""

import csv
import io
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from vidtad.errors import InputError
from vidtad.runtime.files import read_json, write_json, write_text
from vidtad.video import VideoInfo

FORMAT = "vidtad timeline 1"
CSV_COLUMNS = ("video", "start_s", "end_s", "label", "score")


def check_min_score(min_score: float | None) -> None:
    """Raise InputError for a least score that no score can be compared with; None asks for none."""
    if min_score is not None and not math.isfinite(min_score):
        raise InputError(f"--min-score {min_score}: not a finite number")


@dataclass(frozen=True, slots=True)
class Segment:
    """One action: seconds from the first frame, a class name, a score (higher is surer), the person if known."""

    start_s: float
    end_s: float
    label: str
    score: float
    track: int | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.start_s < self.end_s < math.inf:  # written so that NaN fails too
            raise InputError(f"segment {self.start_s:g}-{self.end_s:g} s: the start must be >= 0 and before the end")
        if not math.isfinite(self.score):
            raise InputError(f"segment {self.start_s:g}-{self.end_s:g} s: score {self.score} is not a number")

    def rounded(self) -> tuple[float, float]:
        """(start, end) in seconds to the millisecond; what would have no length, and not be read back, gets one."""
        start_s, end_s = round(self.start_s, 3), round(self.end_s, 3)
        return start_s, max(end_s, round(start_s + 0.001, 3))


@dataclass(frozen=True, slots=True)
class PersonBox:
    """One person at one keyframe: box (x1, y1, x2, y2) normalised 0-1 by the frame, actions as (label, score)."""

    time_s: float
    track: int
    box: tuple[float, float, float, float]
    box_score: float
    actions: tuple[tuple[str, float], ...] = ()

    def __post_init__(self) -> None:
        x1, y1, x2, y2 = self.box
        if not 0 <= self.time_s < math.inf:
            raise InputError(f"person at {self.time_s:g} s: a time is a finite number of at least 0")
        if not all(map(math.isfinite, (self.box_score, *(score for _, score in self.actions)))):
            raise InputError(f"person at {self.time_s:g} s: a score is not a number")
        if not (0 <= x1 < x2 <= 1 and 0 <= y1 < y2 <= 1):
            raise InputError(f"box {self.box} at {self.time_s:g} s: expected 0 <= x1 < x2 <= 1, the same for y")


@dataclass(frozen=True)
class Timeline:
    """Segments per video, best first, with the videos they belong to and the detector that made them."""

    results: Mapping[str, tuple[Segment, ...]]
    videos: Mapping[str, VideoInfo]
    detector: Mapping[str, Any] = field(default_factory=dict)
    people: Mapping[str, tuple[PersonBox, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        strangers = sorted((self.results.keys() | self.people.keys()) - self.videos.keys())
        if strangers:
            raise InputError(f"timeline has results for {strangers[0]!r} but does not say what video that is")

    @property
    def display_score(self) -> float | None:
        """Score from which its detector's segments are worth showing; None where that is not known."""
        decoding = self.detector.get("decoding")
        usual = decoding.get("display_score") if isinstance(decoding, Mapping) else None
        value = self.detector.get("display_score", usual)
        return float(value) if isinstance(value, int | float) and math.isfinite(value) else None

    def shows(self, segment: Segment) -> bool:
        """Whether a segment reaches the display score."""
        least = self.display_score
        return least is None or segment.score >= least

    def at_least(self, score: float | None) -> "Timeline":
        """The segments, and the actions of persons, that score at least `score` (None: all); boxes stay."""
        if score is None:
            return self
        people = {
            name: tuple(replace(p, actions=tuple(a for a in p.actions if a[1] >= score)) for p in found)
            for name, found in self.people.items()
        }
        results = {name: tuple(s for s in found if s.score >= score) for name, found in self.results.items()}
        return replace(self, results=results, people=people)

    def to_json(self) -> dict[str, Any]:
        """The document that is written: every evaluator of ActivityNet results reads it."""
        document: dict[str, Any] = {
            "version": FORMAT,
            "results": {name: [_segment_json(s) for s in found] for name, found in self.results.items()},
            "external_data": {},
            "videos": {name: info.to_json() for name, info in self.videos.items()},
            "detector": dict(self.detector),
        }
        if self.detector.get("demonstration"):
            document["demonstration"] = True
        if self.people:
            document["people"] = {name: [_person_json(p) for p in found] for name, found in self.people.items()}
        return document

    def to_dataframe(self) -> Any:
        """A pandas.DataFrame, one row a segment, by video and time: video, start_s, end_s, label, score, track, shown.

        Times in seconds, as exact as the segments; `track` is missing (<NA>) where no person is known; `shown`: whether
        the score reaches the display threshold. Raises InputError where pandas is not installed.
        """
        from vidtad.notebook import dataframe

        return dataframe(self)

    def _repr_html_(self) -> str:
        from vidtad.notebook import html

        return html(self)


def merge(timelines: Iterable[Timeline]) -> Timeline:
    """One timeline of several, of different videos by the same detector."""
    results: dict[str, tuple[Segment, ...]] = {}
    videos: dict[str, VideoInfo] = {}
    people: dict[str, tuple[PersonBox, ...]] = {}
    detector: Mapping[str, Any] = {}
    for timeline in timelines:
        twice = results.keys() & timeline.results.keys()
        if twice:
            raise InputError(f"video {min(twice)!r} has two timelines; keep one")
        results |= timeline.results
        videos |= timeline.videos
        people |= timeline.people
        detector = timeline.detector
    return Timeline(results, videos, detector, people)


def write_timeline_json(timeline: Timeline, path: Path) -> None:
    """Write `path` atomically."""
    write_json(path, timeline.to_json())


def read_timeline(path: Path) -> Timeline:
    """Read a timeline written by vidtad. Raises InputError naming the file and the first thing wrong in it."""
    return parse_timeline(read_json(path), path)


def parse_timeline(document: Any, path: Path) -> Timeline:
    """The timeline in a JSON document; `path` is named in errors as in `read_timeline`."""
    try:
        if document["version"] != FORMAT:
            raise InputError(f"{path}: version {document['version']!r} is not a vidtad timeline")
        return Timeline(
            results={
                str(name): tuple(_segment_from_json(entry) for entry in found)
                for name, found in document["results"].items()
            },
            videos={str(name): VideoInfo.from_json(info) for name, info in document["videos"].items()},
            detector=dict(document["detector"]),
            people={
                str(name): tuple(_person_from_json(entry) for entry in found)
                for name, found in document.get("people", {}).items()
            },
        )
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    except KeyError as error:
        raise InputError(f"{path}: not a vidtad timeline ({error} is missing)") from error
    except (TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise InputError(f"{path}: not a vidtad timeline ({type(error).__name__}: {error})") from error


def timeline_csv(timeline: Timeline) -> str:
    """Rows `video,start_s,end_s,label,score[,track],shown`, in order of time; scores have four digits.

    `track` only where persons were followed. `shown`: whether a segment reaches the display threshold.
    """
    tracked = any(s.track is not None for found in timeline.results.values() for s in found)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow((*CSV_COLUMNS, *(("track",) if tracked else ()), "shown"))
    for name, found in timeline.results.items():
        for s in sorted(found, key=lambda s: (s.start_s, s.end_s, s.label)):
            start_s, end_s = s.rounded()
            who = ("" if s.track is None else s.track,) if tracked else ()
            shown = "yes" if timeline.shows(s) else "no"
            writer.writerow((name, f"{start_s:.3f}", f"{end_s:.3f}", s.label, f"{s.score:.4g}", *who, shown))
    return text.getvalue()


def write_timeline_csv(timeline: Timeline, path: Path) -> None:
    """Write `path` atomically."""
    write_text(path, timeline_csv(timeline))


def _segment_json(s: Segment) -> dict[str, Any]:
    entry: dict[str, Any] = {"label": s.label, "score": s.score, "segment": [s.start_s, s.end_s]}
    return entry if s.track is None else entry | {"track": s.track}


def _segment_from_json(entry: Mapping[str, Any]) -> Segment:
    (start_s, end_s), track = entry["segment"], entry.get("track")
    score = float(entry["score"])
    return Segment(float(start_s), float(end_s), str(entry["label"]), score, None if track is None else int(track))


def _person_json(p: PersonBox) -> dict[str, Any]:
    actions = [{"label": label, "score": score} for label, score in p.actions]
    return {"time_s": p.time_s, "track": p.track, "box": list(p.box), "box_score": p.box_score, "actions": actions}


def _person_from_json(entry: Mapping[str, Any]) -> PersonBox:
    x1, y1, x2, y2 = map(float, entry["box"])
    actions = tuple((str(a["label"]), float(a["score"])) for a in entry["actions"])
    return PersonBox(float(entry["time_s"]), int(entry["track"]), (x1, y1, x2, y2), float(entry["box_score"]), actions)
