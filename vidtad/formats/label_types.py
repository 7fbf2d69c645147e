"""The one in-memory form of labels, and what the parser of each tool fills: labels and timelines are views of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from vidtad.errors import InputError
from vidtad.formats.document import SegmentColumns, numbers
from vidtad.formats.shared import assemble
from vidtad.formats.tables import Annotations, Findings
from vidtad.runtime.files import VIDEO_SUFFIXES
from vidtad.runtime.names import composed
from vidtad.timeline import PersonBox, Segment, Timeline
from vidtad.video import VideoInfo

ON_PLAYER = "on_player"


@dataclass(frozen=True)
class Labels:
    """Labelled segments, whatever tool they were made with.

    `table` holds videos, classes, segments in seconds, subsets and durations as the file states them, and what its
    reader noticed. Its `extra` column ON_PLAYER (bool), where there is one, says which times count from the start of
    the container, as players do, instead of from the first frame. Per video, "" where the file says nothing: `groups`
    (videos that must not be torn apart by a split: one person, one recording) and `files` (the video file). `fps`
    float64 is the rate the file states, NaN where it does not.
    """

    table: Annotations
    groups: tuple[str, ...]
    files: tuple[str, ...]
    fps: np.ndarray

    def __post_init__(self) -> None:
        count = len(self.table.videos)
        if not len(self.groups) == len(self.files) == len(self.fps) == count:
            raise InputError("labels: groups, files and fps need one entry per video")

    @property
    def videos(self) -> tuple[str, ...]:
        """Names of the videos, without suffix."""
        return self.table.videos

    @property
    def source(self) -> str:
        """The kind of file they came from."""
        return self.table.source


def plain_path(text: str) -> PurePosixPath:
    """A stated video path with forward slashes and without the suffix of a video file."""
    path = PurePosixPath(text.strip().replace("\\", "/"))
    return path.with_suffix("") if path.suffix.lower() in VIDEO_SUFFIXES else path


def video_id(text: str) -> str:
    """The name of a video: the last part of its path, without the suffix of a video file."""
    return composed(plain_path(text).name)


class Gather:
    """What an importer fills, one video and one segment at a time; loose values become findings, not errors."""

    def __init__(self, findings: Findings | None = None) -> None:
        self.findings = findings or Findings()
        self.columns = SegmentColumns(self.findings)
        self._number: dict[str, int] = {}
        self._stated: list[str] = []
        self._more: list[dict[str, Any]] = []
        self._tracks: list[int | None] = []
        self.people: dict[str, list[PersonBox]] = {}
        self.on_player = False
        """Whether the times that are added next are those of a player's clock."""
        self._on_player: list[bool] = []

    def video(self, stated: str, **more: Any) -> int:
        """Number of the video stated as this name or path; `more`: subset, group, file, duration, fps.

        Raises InputError when two different paths end in the same name.
        """
        name, path = video_id(stated), composed(str(plain_path(stated)))
        if not name:
            raise InputError(f"labels: a video is stated as {stated[:60]!r}, which is no name")
        if name not in self._number:
            self._number[name] = self.columns.add_video(name)
            self._stated.append(path)
            self._more.append({})
        number = self._number[name]
        if path not in (name, self._stated[number]) and self._stated[number] != name:
            raise InputError(
                f"labels: {self._stated[number]!r} and {path!r} are different videos with one name; rename one"
            )
        self._stated[number] = max(self._stated[number], path, key=len)
        known = self._more[number]
        for key, value in more.items():
            if value not in (None, "") and known.setdefault(key, value) != value:
                example = f"{self.columns.place}{name}: {str(value)[:40]}, before {str(known[key])[:40]}"
                self.findings.add(
                    f"video with several values of `{key}`, of which the first counts", example, fate="kept"
                )
        return number

    def add(self, video: int, label: Any, start: Any, end: Any, *, score: Any = 1.0, track: int | None = None) -> None:
        """A segment in seconds, as the file has it; one without a label, or with one that is no text, is a finding."""
        text = "" if label is None else label
        if not isinstance(text, str) or not text.strip():
            kind = "segment without a label" if text == "" or isinstance(text, str) else "label that is no text"
            self.findings.add(
                kind, f"{self.columns.place}{self.columns.names[video]}: {str(label)[:40]} [{start}, {end}]"
            )
            return
        self.columns.add(video, composed(text.strip()), [start, end], score)
        self._tracks.append(track)
        self._on_player.append(self.on_player)

    def timeline(self, videos: Mapping[str, VideoInfo], source: str) -> Timeline:
        """Everything gathered as a timeline: findings are its warnings. `videos`: what is known of videos by id.

        Raises InputError, with the serious findings, when not one segment or box is usable.
        """
        table = self.columns.columns()
        segments: dict[str, list[Segment]] = {name: [] for name in table["videos"]}
        columns = (table[key].tolist() for key in ("video", "label", "start", "end", "score", "kept"))
        for video, label, start, end, score, place in zip(*columns, strict=True):
            name = table["videos"][video]
            if end <= max(start, 0.0):
                if end == start or start < 0:
                    self.findings.add("segment without length left out", f"{name}: [{start:g}, {end:g}]")
                continue
            if start < 0:
                self.findings.add(
                    "segment that begins before its video, cut", f"{name}: [{start:g}, {end:g}]", fate="cut"
                )
            try:
                segments[name].append(Segment(max(start, 0.0), end, table["labels"][label], score, self._tracks[place]))
            except (ValueError, InputError) as error:
                self.findings.add("segment that cannot be", f"{name}: {error}")
        found = self.findings.result()
        if not any(segments.values()) and not any(self.people.values()):
            why = "; ".join(finding.line() for finding in found if finding.serious)
            raise InputError(f"holds no usable segment{f' ({why})' if why else ''}")
        made = assemble(segments, videos, source=source, people=self.people)
        if not found:
            return made
        return replace(made, detector={**made.detector, "warnings": [finding.line() for finding in found]})

    def labels(self, source: str) -> Labels:
        """Everything gathered."""
        table = self.columns.columns()
        kept = table["kept"]
        extra = {
            "place": np.array(self.columns.places, dtype=str)[kept],
            ON_PLAYER: np.array(self._on_player, bool)[kept],
        }
        del table["score"], table["kept"]
        annotations = Annotations(
            **table,
            extra={name: column for name, column in extra.items() if any(column)},
            subset=self._texts("subset"),
            duration=numbers([more.get("duration") for more in self._more]),
            source=source,
            findings=self.findings.result(),
        )
        return with_columns(annotations, self._more)

    def _texts(self, key: str) -> tuple[str, ...]:
        return tuple(str(more.get(key, "")).strip() for more in self._more)


def with_columns(table: Annotations, more: Sequence[Mapping[str, Any]]) -> Labels:
    """Labels of a table and, for each of its videos, an object with `group`, `file` and `fps` (all optional)."""

    def texts(key: str) -> tuple[str, ...]:
        return tuple(str(entry.get(key) or "").strip() for entry in more)

    fps = numbers([entry.get("fps") for entry in more])
    return Labels(table, texts("group"), texts("file"), np.where(np.isfinite(fps) & (fps > 0), fps, np.nan))
