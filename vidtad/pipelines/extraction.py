"""Video -> feature rows -> feature file, resumable: rows already on disk are never computed twice."""

import hashlib
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vidtad.errors import InputError, RunError
from vidtad.extractors.stream import feature_rows
from vidtad.features import Features, Grid, Provenance, load_features, save_features, sidecar_of
from vidtad.files import sha256
from vidtad.locks import claim
from vidtad.pipelines.extractors import LoadedExtractor, bundle_extractor, digest, keeping_flow, load_extractor
from vidtad.video import VideoInfo, open_video, resample

if TYPE_CHECKING:
    from fractions import Fraction

__all__ = [
    "Decoding",
    "Extracted",
    "LoadedExtractor",
    "Progress",
    "Scratch",
    "bundle_extractor",
    "digest",
    "expected_frames",
    "extract_features",
    "extract_file",
    "load_extractor",
    "no_progress",
    "provenance_of",
]

Progress = Callable[[int, "int | None"], None]
"""Called with the frames read so far and their expected number (None: unknown)."""


def no_progress(done: int, total: int | None) -> None:
    """The progress callback of a quiet run."""


@dataclass(frozen=True)
class Decoding:
    """How a video is read: backend name, the rate to assume where a file states none, damage as an error."""

    decoder: str = "pyav"
    assumed_fps: "Fraction | None" = None
    strict: bool = False


@dataclass(frozen=True)
class Extracted:
    """What became of one video: `reused` when a finished file of the same content was there already."""

    path: Path
    features: Features
    seconds: float
    reused: bool


def extract_file(
    path: Path,
    loaded: LoadedExtractor,
    out: Path,
    *,
    decoding: Decoding = Decoding(),
    batch: int = 8,
    overwrite: bool = False,
    progress: Progress = no_progress,
    keep_flow: Path | None = None,
) -> Extracted:
    """Features of one video as `<out>/<stem>.npy` with its sidecar.

    A finished pair made by the same extractor, weights and settings from the same bytes is read back and kept; one
    made otherwise is never replaced unless `overwrite`. After a kill the rows computed so far are taken up again.
    Optical flow, where there is any, is kept as pictures under `<keep_flow>/<stem>`. Raises InputError for an unusable
    video, RunError for a failed write, Busy (a RunError) while another process is at work on it.
    """
    path, out = Path(path), Path(out)
    flow_folder = None if keep_flow is None else Path(keep_flow) / path.stem
    with claimed(out, path), keeping_flow(loaded, flow_folder):
        return _extract_claimed(path, loaded, out, decoding, batch, overwrite, progress)


@contextmanager
def claimed(folder: Path, path: Path) -> Iterator[None]:
    """While the block runs, this process alone writes about the video `path` in `folder`. Raises Busy, RunError.

    What a killed process left half-written there is removed.
    """
    with claim(Path(folder) / f".{path.stem}.lock", str(path)):
        left = re.compile(rf"\.{re.escape(path.stem)}\.(npy|json|csv|ava\.csv)\.[^.]+\.tmp")
        for temporary in [found for found in Path(folder).iterdir() if left.fullmatch(found.name)]:
            with suppress(OSError):
                temporary.unlink()
        yield


def _extract_claimed(
    path: Path,
    loaded: LoadedExtractor,
    out: Path,
    decoding: Decoding,
    batch: int,
    overwrite: bool,
    progress: Progress,
) -> Extracted:
    begun = time.monotonic()
    target = out / f"{path.stem}.npy"
    identity = provenance_of(path, loaded, decoding)
    scratch = Scratch(out, path.stem, identity)
    if target.exists() and not overwrite:
        found = _finished(target)
        if found is not None and found.provenance.fingerprint() == identity.fingerprint():
            scratch.remove()
            return Extracted(target, found, time.monotonic() - begun, reused=True)
        # An unfinished pair is ours to complete only when the rows it is made of are still there.
        if found is not None or not scratch.rows():
            raise InputError(
                f"{target}: exists and was made from another video or with other settings; "
                "pass --overwrite to replace it, or another --out"
            )
    features = extract_features(
        path, loaded, scratch, decoding=decoding, batch=batch, progress=progress, identity=identity
    )
    save_features(features, out, path.stem)
    scratch.remove()
    return Extracted(target, features, time.monotonic() - begun, reused=False)


def provenance_of(path: Path, loaded: LoadedExtractor, decoding: Decoding) -> Provenance:
    """Identity of the features that this video, extractor and settings give. Raises InputError for an unusable file."""
    from vidtad.video import probe

    probe(path, fps=decoding.assumed_fps)  # a clear sentence for anything that is no video, before its bytes are read
    convention = loaded.extractor.convention
    return Provenance(
        extractor=loaded.extractor.name,
        channels=convention.channels,
        weights=loaded.weights,
        weights_sha256=loaded.weights_sha256,
        source_sha256=sha256(path),
        settings=loaded.settings()
        | {
            "decoder": decoding.decoder,
            "assumed_fps": None if decoding.assumed_fps is None else str(decoding.assumed_fps),
            "random_weights": loaded.is_random,
        },
    )


def _finished(target: Path) -> Features | None:
    """The features under `target` when array and sidecar are whole and belong together."""
    if not sidecar_of(target).exists():
        return None
    try:
        return load_features(target, check_hash=True)
    except InputError:
        return None


class Scratch:
    """Rows on their way to a feature file: an append-only file whose name says what makes them.

    A record is the row's centre time (float64) and its values (float32). A record cut off by a kill is dropped.
    """

    def __init__(self, folder: Path, video_id: str, identity: Provenance):
        width = sum(count for _, count in identity.channels)
        self.record = np.dtype([("time_s", "<f8"), ("values", "<f4", (width,))])
        key = hashlib.sha256(identity.fingerprint().encode()).hexdigest()[:16]
        self.path = Path(folder) / f".{video_id}.{key}.rows"
        self._any = re.compile(rf"\.{re.escape(video_id)}\.[0-9a-f]{{16}}\.rows")

    def rows(self) -> int:
        """Whole records on disk."""
        return self.path.stat().st_size // self.record.itemsize if self.path.exists() else 0

    def append(self, times_s: np.ndarray, values: np.ndarray) -> None:
        """Add rows and bring them to the disk."""
        records = np.empty(len(times_s), dtype=self.record)
        records["time_s"], records["values"] = times_s, values
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with open(self.path, "ab") as file:
                whole = file.tell() - file.tell() % self.record.itemsize
                if whole != file.tell():
                    file.truncate(whole)
                file.write(records.tobytes())
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise RunError(f"{self.path}: writing failed ({error.strerror or error})") from error

    def read(self) -> tuple[np.ndarray, np.ndarray]:
        """(times_s (T,) float64, values (T, C) float32) of all whole records."""
        records = np.fromfile(self.path, dtype=self.record, count=self.rows())
        return records["time_s"].copy(), np.ascontiguousarray(records["values"])

    def remove(self) -> None:
        """Forget the rows, those of other settings of the same video too."""
        for left in [path for path in self.path.parent.iterdir() if self._any.fullmatch(path.name)]:
            with suppress(OSError):
                left.unlink()


def extract_features(
    path: Path,
    loaded: LoadedExtractor,
    scratch: Scratch,
    *,
    identity: Provenance,
    decoding: Decoding = Decoding(),
    batch: int = 8,
    progress: Progress = no_progress,
) -> Features:
    """Feature rows of a video; `scratch` holds those of an earlier, interrupted run and receives the new ones."""
    extractor, convention = loaded.extractor, loaded.extractor.convention
    padded, fitting = 0, batch
    with open_video(path, decoder=decoding.decoder, fps=decoding.assumed_fps, strict=decoding.strict) as video:
        fps = convention.fps or video.info.fps
        frames = video if convention.fps is None else resample(video, convention.fps)
        total = expected_frames(video.info, fps)
        for rows in feature_rows(frames, extractor, fps=float(fps), batch=batch, skip=scratch.rows()):
            scratch.append(rows.times_s, rows.values)
            padded, fitting = max(padded, rows.padded), rows.batch
            progress(rows.frames_read, total)
        info, warnings = video.final_info, video.report.warnings
    if not scratch.rows():
        raise InputError(f"{path}: no frame could be decoded; the file is damaged or not a video")
    if padded:
        warnings = (*warnings, f"{path}: shorter than one window: its last frame was repeated {padded} times")
    if fitting < batch:
        warnings = (*warnings, f"{path}: memory ran out with batches of {batch} windows: went on with {fitting}")
    times_s, values = scratch.read()
    grid = Grid(fps, convention.stride, convention.window, times_s)
    return Features(values, grid, info, replace(identity, warnings=tuple(warnings)))


def expected_frames(info: VideoInfo, fps: "Fraction") -> int | None:
    """Frames a reader at `fps` will see, as far as the header tells."""
    if info.duration_s > 0:
        return max(1, round(info.duration_s * float(fps)))
    return info.frames
