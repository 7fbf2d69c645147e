"""The one in-memory form of labels, and how importers fill it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from vidtad.errors import InputError
from vidtad.formats.document import SegmentColumns, numbers
from vidtad.formats.tables import Annotations, Findings
from vidtad.runtime.files import VIDEO_SUFFIXES


@dataclass(frozen=True)
class Labels:
    """Labelled segments, whatever tool they were made with.

    `table` holds videos, classes, segments in seconds, subsets and durations as the file states them, and what
    its reader noticed. Per video, "" where the file says nothing: `groups` (videos that must not be torn apart
    by a split: one person, one recording) and `files` (the video file). `fps` float64 is the rate the file
    states, NaN where it does not.
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
    return plain_path(text).name


class Gather:
    """What an importer fills, one video and one segment at a time; loose values become findings, not errors."""

    def __init__(self, findings: Findings | None = None) -> None:
        self.findings = findings or Findings()
        self.columns = SegmentColumns(self.findings)
        self._number: dict[str, int] = {}
        self._stated: list[str] = []
        self._more: list[dict[str, Any]] = []

    def video(self, stated: str, **more: Any) -> int:
        """Number of the video stated as this name or path; `more`: subset, group, file, duration, fps.

        Raises InputError when two different paths end in the same name.
        """
        name, path = video_id(stated), str(plain_path(stated))
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
        self._more[number].update({key: value for key, value in more.items() if value not in (None, "")})
        return number

    def add(self, video: int, label: Any, start: Any, end: Any) -> None:
        """A segment in seconds, as the file has it; without a label it is a finding."""
        text = "" if label is None else str(label).strip()
        if not text:
            self.findings.add("segment without a label", f"{self.columns.names[video]}: [{start}, {end}]")
            return
        self.columns.add(video, text, [start, end])

    def labels(self, source: str) -> Labels:
        """Everything gathered."""
        table = self.columns.columns()
        del table["score"], table["kept"]
        annotations = Annotations(
            **table,
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
