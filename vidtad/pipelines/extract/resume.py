"""Rows on their way to a feature file: kept on disk as they come, those of a whole video or of one of its ranges."""

import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np

from vidtad.errors import RunError
from vidtad.features import Provenance
from vidtad.runtime.files import brief
from vidtad.runtime.locks import claim

Span = tuple[int, "int | None"]
"""Rows from the first number up to, not including, the second (None: to the end of the video, wherever that is)."""


class Scratch:
    """An append-only file of rows whose name says what makes them, and which (`span`; None: all of a video).

    A record is the row's centre time (float64) and its values (float32). A record cut off by a kill is dropped.
    """

    def __init__(self, folder: Path, video_id: str, identity: Provenance, span: Span | None = None):
        width = sum(count for _, count in identity.channels)
        self.record = np.dtype([("time_s", "<f8"), ("values", "<f4", (width,))])
        self.span = span
        name = brief(video_id)
        self._counted: int | None = None
        self._first = 0
        self._file: tuple[int, int] | None = None
        self._times: list[np.ndarray] = []
        self._name = f".{name}.{hashlib.sha256(identity.fingerprint().encode()).hexdigest()[:16]}"
        own = "" if span is None else f".{span[0]}-{'' if span[1] is None else span[1]}"
        self.path = Path(folder) / f"{self._name}{own}.rows"
        self._any = re.compile(rf"\.{re.escape(name)}\.[0-9a-f]{{16}}(\.\d+-\d*)?\.(rows|last)")

    @property
    def lock(self) -> Path:
        """To be held by who writes the rows of a range."""
        return self.path.with_name(f"{self.path.name}.lock")

    def rows(self) -> int:
        """Whole records on disk."""
        return self.path.stat().st_size // self.record.itemsize if self.path.exists() else 0

    def begin(self) -> int:
        """Whole records on disk, which from now on must stay there: what `append` and `read` count on."""
        self._counted, self._file, self._times = self.rows(), None, []
        self._first = self._counted
        return self._counted

    def append(self, times_s: np.ndarray, values: np.ndarray) -> None:
        """Add rows and bring them to the disk. Raises RunError when that fails, or rows written before are gone."""
        if self._counted is None:
            self.begin()
        assert self._counted is not None
        records = np.empty(len(times_s), dtype=self.record)
        records["time_s"], records["values"] = times_s, values
        size = self._counted * self.record.itemsize
        try:
            if not self._counted:
                self.path.parent.mkdir(parents=True, exist_ok=True)
            with open(self.path, "r+b" if self._counted else "ab") as file:
                there = os.fstat(file.fileno())
                known = self._file in (None, (there.st_dev, there.st_ino))
                if not known or there.st_size // self.record.itemsize != self._counted:
                    raise self._lost()
                file.truncate(size)
                file.seek(size)
                file.write(records.tobytes())
                file.flush()
                os.fsync(file.fileno())
        except FileNotFoundError as error:
            raise self._lost() from error
        except OSError as error:
            raise RunError(f"{self.path}: writing failed ({error.strerror or error})") from error
        self._file = there.st_dev, there.st_ino
        self._counted += len(records)
        self._times.append(records["time_s"])

    def _lost(self) -> RunError:
        return RunError(
            f"{self.path}: rows that were written are gone: the folder was removed or replaced while it was at work, "
            "or something else wrote there; run the same command again"
        )

    def _whole(self) -> None:
        """Raise RunError unless all rows that were counted are on the disk."""
        if self._counted is not None and self.rows() != self._counted:
            raise self._lost()

    def read(self) -> tuple[np.ndarray, np.ndarray]:
        """(times_s (T,) float64, values (T, C) float32) of all whole records.

        Raises RunError unless they are those that were there when it began and those that were added since.
        """
        self._whole()
        try:
            times_s, values = self._read([self.path])
        except OSError as error:
            raise self._lost() from error
        added = np.concatenate([np.empty(0), *self._times])
        if self._counted is not None and not np.array_equal(times_s[self._first :], added):
            raise self._lost()
        return times_s, values

    def _read(self, paths: list[Path]) -> tuple[np.ndarray, np.ndarray]:
        size = self.record.itemsize
        parts = [np.fromfile(path, dtype=self.record, count=path.stat().st_size // size) for path in paths]
        times_s = np.concatenate([part["time_s"] for part in parts])
        return times_s, np.concatenate([part["values"] for part in parts])

    def end(self) -> None:
        """Say that the range which goes to the end of the video is complete."""
        assert self.span is not None and self.span[1] is None
        first = self.span[0]
        self._whole()
        try:
            if not self.rows():
                self.path.touch()
            os.replace(self.path, self.path.with_name(f"{self._name}.{first}-{first + self.rows()}.last"))
        except OSError as error:
            raise RunError(f"{self.path}: writing failed ({error.strerror or error})") from error

    def complete(self) -> bool:
        """Whether all rows of this range are there."""
        first, stop = self.span or (0, None)
        return any(one == first and (stop == end or (stop is None and last)) for one, end, last, _ in self._ranges())

    def _ranges(self) -> Iterator[tuple[int, int, bool, Path]]:
        """(first row, row behind the last, whether the video ends there, file) of every complete range of the video."""
        form = re.compile(rf"{re.escape(self._name)}\.(\d+)-(\d+)\.(rows|last)")
        for path in sorted(self.path.parent.iterdir()) if self.path.parent.is_dir() else ():
            found = form.fullmatch(path.name)
            if found is None:
                continue
            first, behind = int(found[1]), int(found[2])
            with suppress(OSError):  # removed by another process
                if path.stat().st_size == (behind - first) * self.record.itemsize:
                    yield first, behind, found[3] == "last", path

    def joined(self) -> tuple[np.ndarray, np.ndarray] | None:
        """As `read`, of ranges that cover the whole video, when they are all complete."""
        ranges, chosen, row = list(self._ranges()), [], 0
        while True:
            here = [(last, behind, path) for first, behind, last, path in ranges if first == row]
            if not here:
                return None
            last, behind, path = max(here)
            chosen.append(path)
            if last:
                return self._read(chosen)
            if behind <= row:
                return None
            row = behind

    def remove(self) -> None:
        """Forget the rows, those of ranges and of other settings of the same video too, but none being written."""
        names = {path.name.removesuffix(".lock") for path in self.path.parent.iterdir()}  # a lock outlives a kill
        for left in [self.path.with_name(name) for name in sorted(names) if self._any.fullmatch(name)]:
            with suppress(OSError, RunError), claim(left.with_name(f"{left.name}.lock")):
                left.unlink()
