"""Feature rows, when each of them happens, where they came from; and the pair of files that holds them.

A file is `<id>.npy`, (T, C) float32, readable by any tool of the field as it is, with a sidecar `<id>.json`.
The sidecar is written last and carries the array's SHA-256: a pair is finished when the two agree.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from vidtad.arrays import file_of, opened, read_rows
from vidtad.errors import InputError, RunError
from vidtad.runtime.files import atomic_write, digest_of, fraction_of, read_json, sha256, still_there, write_json
from vidtad.runtime.sources import Source
from vidtad.video import VideoInfo


@dataclass(frozen=True, eq=False)
class Grid:
    """Where feature rows lie in time; the one place where row positions become seconds.

    Rows are `stride` frames apart and stand for `span` frames each, at `fps` frames a second. `times_s` (T,)
    float64 is the time of each row's centre in seconds from the first frame; at a constant rate row i is at
    (i * stride + span / 2) / fps, in a variable-rate file rows carry the times of their own frames.
    """

    fps: Fraction
    stride: int
    span: int
    times_s: np.ndarray

    def __post_init__(self) -> None:
        times = np.asarray(self.times_s, dtype=np.float64)
        if not (self.fps > 0 and self.stride >= 1 and self.span >= 1):
            raise InputError(f"grid of {self.fps} fps, stride {self.stride}, span {self.span}: each must be positive")
        if times.ndim != 1 or not len(times) or not np.isfinite(times).all() or (np.diff(times) <= 0).any():
            raise InputError("row times must be a non-empty list of increasing seconds")
        object.__setattr__(self, "times_s", times)

    @classmethod
    def regular(cls, fps: Fraction, stride: int, span: int, rows: int) -> "Grid":
        """Grid of a constant-rate video."""
        centres = np.arange(rows) * stride + span / 2
        return cls(fps, stride, span, centres * (fps.denominator / fps.numerator))

    def __len__(self) -> int:
        return len(self.times_s)

    def seconds(self, position: np.ndarray | float) -> np.ndarray:
        """Seconds of positions in rows: i is the centre of row i, i - 0.5 and i + 0.5 its edges.

        Linear between row centres; outside the first and last centre the nominal rate goes on.
        """
        position = np.asarray(position, dtype=np.float64)
        step, last = float(self.stride / self.fps), len(self.times_s) - 1
        inside = np.interp(position, np.arange(last + 1), self.times_s)
        return inside + step * (np.minimum(position, 0) + np.maximum(position - last, 0))

    def positions(self, seconds: np.ndarray | float) -> np.ndarray:
        """Positions in rows of times in seconds; the inverse of `seconds`."""
        seconds = np.asarray(seconds, dtype=np.float64)
        step, first, last = float(self.stride / self.fps), self.times_s[0], self.times_s[-1]
        inside = np.interp(seconds, self.times_s, np.arange(len(self.times_s)))
        return inside + (np.minimum(seconds - first, 0) + np.maximum(seconds - last, 0)) / step


@dataclass(frozen=True)
class Provenance:
    """What made a set of features: enough to refuse the wrong ones and to make them again.

    `channels` lists the blocks of a row in order, such as (("rgb", 1024), ("flow", 1024)). `weights` is a
    checkpoint id, a file name, `bundle:<name>` or `random:<seed>`. Empty strings mean unknown.
    """

    extractor: str
    channels: tuple[tuple[str, int], ...]
    weights: str = ""
    weights_sha256: str = ""
    source_sha256: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def fingerprint(self) -> str:
        """Canonical text of everything that decides the values; two runs with equal text give equal rows."""
        decides = (self.extractor, self.channels, self.weights_sha256, self.source_sha256, dict(self.settings))
        return json.dumps(decides, sort_keys=True)


class StoredRows:
    """Rows (T, C) of an array file as float32, read when sliced: between slices no file is open, nothing is held.

    What memory maps of thousands of videos cannot be, as each keeps a file descriptor. Raises InputError when the
    file holds no such array, RunError when it is gone, has changed or cannot be read any more.
    """

    dtype, ndim = np.dtype(np.float32), 2

    def __init__(self, path: Path):
        self.path = Path(path)
        self.source = Source(file_of(self.path))
        with opened(self.path) as held:
            self.source.look()
            self.shape: tuple[int, int] = (int(held.shape[0]), int(held.shape[1]))

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Any) -> np.ndarray:
        try:
            found = read_rows(self.path, rows).astype(np.float32, copy=False)
            self.source.check()
            return found
        except InputError as error:
            raise RunError(f"{error}: it cannot be read any more") from error

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self[:].astype(dtype or np.float32, copy=False)


@dataclass(frozen=True, eq=False)
class Features:
    """`values` (T, C) float32, one row a step of `grid`, of the video `video`. Finite, checked when made."""

    values: np.ndarray
    grid: Grid
    video: VideoInfo
    provenance: Provenance

    def __post_init__(self) -> None:
        if self.values.ndim != 2 or self.values.dtype != np.float32:
            raise InputError(
                f"{self.video.path}: features must be (rows, channels) float32, "
                f"found {self.values.dtype} {self.values.shape}"
            )
        rows, width = self.values.shape
        if rows != len(self.grid):
            raise InputError(f"{self.video.path}: {rows} feature rows but {len(self.grid)} row times")
        if width != sum(count for _, count in self.provenance.channels):
            raise InputError(
                f"{self.video.path}: rows are {width} wide but the channels are {self.provenance.channels}"
            )
        for start in range(0, rows, 4096):  # in pieces, so that a memory-mapped file stays on disk
            bad = ~np.isfinite(self.values[start : start + 4096]).all(axis=1)
            if bad.any():
                raise InputError(f"{self.video.path}: feature row {start + int(bad.argmax())} holds NaN or inf")


def save_features(features: Features, folder: Path, video_id: str) -> Path:
    """Write `<folder>/<video_id>.npy` and its sidecar; returns the path of the array. Raises RunError."""
    path = Path(folder) / f"{video_id}.npy"
    with atomic_write(path) as file:
        np.save(file, features.values, allow_pickle=False)
        file.seek(0)
        values_sha256 = digest_of(file)
    grid, provenance = features.grid, features.provenance
    document = {
        "format": "vidtad features 1",
        "extractor": provenance.extractor,
        "channels": [list(block) for block in provenance.channels],
        "weights": provenance.weights,
        "weights_sha256": provenance.weights_sha256,
        "settings": dict(provenance.settings),
        "fps": float(grid.fps),
        "fps_exact": str(grid.fps),
        "window": grid.span,
        "stride": grid.stride,
        "rows": len(grid),
        "frames": features.video.frames,
        "duration_s": features.video.duration_s,
        "source_sha256": provenance.source_sha256,
        "values_sha256": values_sha256,
        "warnings": list(provenance.warnings),
        "video": features.video.to_json(),
        "times_s": grid.times_s.tolist(),
    }
    write_json(sidecar_of(path), document)
    still_there([path])
    return path


def sidecar_of(path: Path) -> Path:
    """The sidecar that belongs to a feature array."""
    return Path(path).with_suffix(".json")


@dataclass(frozen=True)
class Assumed:
    """What rows without a sidecar are taken for: `stride` frames apart, `span` frames each, at `fps`.

    `duration_s`: of the video, where it is known; with `fps` None the rows are spread evenly over it. `provenance`:
    what made them, where known.
    """

    stride: int
    span: int
    fps: Fraction | None = None
    duration_s: float | None = None
    provenance: Provenance | None = None

    def grid(self, path: Path, rows: int) -> Grid:
        """Grid of so many rows. Raises InputError when neither rate nor duration is known."""
        rate = self.fps
        if rate is None and self.duration_s:
            rate = Fraction(rows * self.stride / self.duration_s).limit_denominator(10**6)
        if rate is None:
            raise InputError(
                f"{path}: no sidecar {sidecar_of(path).name} beside it says at which rate: pass --fps, or write "
                "sidecars as docs/reproduce.md shows"
            )
        return Grid.regular(rate, self.stride, self.span, rows)


def content_sha256(path: Path) -> str:
    """SHA-256 of an array file; of one array among others in a file, that of its own bytes. Raises InputError."""
    if file_of(path) == path:
        return sha256(path)
    return hashlib.sha256(np.ascontiguousarray(read_rows(path)).tobytes()).hexdigest()


def load_features(
    path: Path, foreign: Assumed | None = None, *, check_hash: bool = False, stored: bool = False
) -> Features:
    """Read a feature array (.npy memory-mapped; with `stored` as `StoredRows`) and its sidecar.

    An array of other origin, in any format of `vidtad.arrays`, has no sidecar: `foreign` says what its rows are.
    `check_hash` also compares the array with the sidecar's SHA-256; without a sidecar it is put into the provenance.
    Raises InputError for anything missing, malformed or contradictory.
    """
    path = Path(path)
    if stored:
        values: np.ndarray = StoredRows(path)  # type: ignore[assignment]
    else:
        with opened(path) as held:
            values = held if isinstance(held, np.ndarray) and held.dtype == np.float32 else held[:].astype(np.float32)
    sidecar = sidecar_of(path)
    if sidecar.exists():
        return _with_sidecar(path, values, read_json(sidecar), check_hash)
    if foreign is None:
        raise InputError(
            f"{path}: no sidecar {sidecar.name} beside it; pass --fps, --stride and --window to say when its rows are"
        )
    grid = foreign.grid(path, len(values))
    end_s = foreign.duration_s or float(grid.seconds(len(values) - 0.5))
    video = VideoInfo(path=str(path), width=0, height=0, fps=grid.fps, duration_s=end_s, frames=None)
    provenance = foreign.provenance or Provenance(extractor="", channels=(("", values.shape[1]),))
    if check_hash:
        times = {"fps": str(grid.fps), "stride": grid.stride, "window": grid.span, "duration_s": end_s}
        provenance = replace(
            provenance, source_sha256=content_sha256(path), settings={**provenance.settings, "assumed": times}
        )
    return Features(values, grid, video, provenance)


def _with_sidecar(path: Path, values: np.ndarray, document: Any, check_hash: bool) -> Features:
    sidecar = sidecar_of(path)
    try:
        if document["format"] != "vidtad features 1":
            raise InputError(f"{sidecar}: format {document['format']!r} is not one this version reads")
        grid = Grid(
            fraction_of(document["fps_exact"]),
            int(document["stride"]),
            int(document["window"]),
            np.asarray(document["times_s"], dtype=np.float64),
        )
        provenance = Provenance(
            extractor=str(document["extractor"]),
            channels=tuple((str(name), int(count)) for name, count in document["channels"]),
            weights=str(document["weights"]),
            weights_sha256=str(document["weights_sha256"]),
            source_sha256=str(document["source_sha256"]),
            settings=dict(document["settings"]),
            warnings=tuple(map(str, document["warnings"])),
        )
        video = VideoInfo.from_json(document["video"])
        stored_hash = document["values_sha256"]
    except (KeyError, TypeError, ValueError, ArithmeticError, AttributeError) as error:
        raise InputError(f"{sidecar}: not a feature sidecar ({type(error).__name__}: {error})") from error
    held = values.source.sha256 if check_hash and isinstance(values, StoredRows) else None
    if check_hash and stored_hash != (held or sha256(path)):
        raise InputError(f"{path}: does not match its sidecar; extract it again")
    return Features(values, grid, video, provenance)
