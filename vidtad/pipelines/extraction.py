"""Video -> feature rows -> feature file, resumable: rows already on disk are never computed twice."""

import hashlib
import os
import re
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vidtad.errors import InputError, RunError
from vidtad.extractors import ClipExtractor, build, find, random_weights
from vidtad.extractors.stream import feature_rows
from vidtad.features import Features, Grid, Provenance, load_features, save_features, sidecar_of
from vidtad.files import sha256
from vidtad.video import VideoInfo, open_video, resample

if TYPE_CHECKING:
    from fractions import Fraction

    from torch import Tensor

    from vidtad.bundle import Bundle

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
class LoadedExtractor:
    """An extractor with the identity of its weights, as sidecars record it."""

    extractor: ClipExtractor
    weights: str
    weights_sha256: str

    @property
    def is_random(self) -> bool:
        """True for a dry run: the rows carry no meaning."""
        return self.weights.startswith("random:")


@dataclass(frozen=True)
class Extracted:
    """What became of one video: `reused` when a finished file of the same content was there already."""

    path: Path
    features: Features
    seconds: float
    reused: bool


def load_extractor(
    name: str,
    weights: str | None = None,
    *,
    device: str = "cpu",
    window: int | None = None,
    stride: int | None = None,
    fps: "Fraction | None" = None,
) -> LoadedExtractor:
    """The extractor `name` with published, random or local weights.

    `weights`: None for the preset's published checkpoint (fetched when it is not in the cache), `random` or
    `random:SEED`, a checkpoint id, or the path of a checkpoint file in a published layout. `fps` resamples; None
    keeps the preset's choice. Raises InputError for an unknown name or unfit weights, RunError for a failed fetch.
    """
    preset = find(name)
    changes: dict[str, Any] = {"window": window, "stride": stride}
    if fps is not None:
        changes["fps"] = fps
    if weights is not None and weights.partition(":")[0] == "random":
        seed = weights.partition(":")[2] or "0"
        if not seed.isdecimal():
            raise InputError(f"--weights {weights}: the seed must be a whole number, as in random:0")
        state = random_weights(name, int(seed))
        return LoadedExtractor(build(name, state, device=device, **changes), f"random:{seed}", digest(state))
    from vidtad.checkpoints import fetch
    from vidtad.weights import read_checkpoint, state_dict

    if weights is not None and Path(weights).is_file():
        path, identity = Path(weights), Path(weights).name
    else:
        identity = weights or next(iter(preset.checkpoints), "")
        if not identity:
            raise InputError(f"extractor {name} has no published weights; pass --weights FILE or --weights random")
        path = fetch(identity)
    extractor = build(name, state_dict(read_checkpoint(path)), device=device, **changes)
    return LoadedExtractor(extractor, identity, sha256(path))


def bundle_extractor(bundle: "Bundle", weights: str | None = None, *, device: str = "cpu") -> LoadedExtractor:
    """The extractor a detector bundle was trained on, with its sampling; embedded weights unless others are given."""
    from fractions import Fraction

    fps = bundle.sampling.get("fps")
    sampling: dict[str, Any] = {"window": bundle.sampling["window"], "stride": bundle.sampling["stride"]}
    if bundle.extractor_weights is not None and weights is None:
        extractor = build(
            bundle.extractor,
            bundle.extractor_weights,
            device=device,
            fps=None if fps is None else Fraction(fps),
            **sampling,
        )
        return LoadedExtractor(extractor, f"bundle:{bundle.name}", digest(bundle.extractor_weights))
    return load_extractor(
        bundle.extractor,
        weights or bundle.extractor_checkpoint,
        device=device,
        fps=None if fps is None else Fraction(fps),
        **sampling,
    )


def digest(state: "Mapping[str, Tensor]") -> str:
    """SHA-256 over names, shapes and values of weights that do not come from a file of their own."""
    total = hashlib.sha256()
    for key in sorted(state):
        array = np.ascontiguousarray(state[key].detach().cpu().numpy())
        total.update(f"{key}{array.dtype}{array.shape}".encode())
        total.update(array.tobytes())
    return total.hexdigest()


def extract_file(
    path: Path,
    loaded: LoadedExtractor,
    out: Path,
    *,
    decoding: Decoding = Decoding(),
    batch: int = 8,
    overwrite: bool = False,
    progress: Progress = no_progress,
) -> Extracted:
    """Features of one video as `<out>/<stem>.npy` with its sidecar.

    A finished pair made by the same extractor, weights and settings from the same bytes is read back and kept; one
    made otherwise is never replaced unless `overwrite`. After a kill the rows computed so far are taken up again.
    Raises InputError for an unusable video, RunError for a failed write.
    """
    begun = time.monotonic()
    path, out = Path(path), Path(out)
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
        settings=convention.to_json()
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
    padded = 0
    with open_video(path, decoder=decoding.decoder, fps=decoding.assumed_fps, strict=decoding.strict) as video:
        fps = convention.fps or video.info.fps
        frames = video if convention.fps is None else resample(video, convention.fps)
        total = expected_frames(video.info, fps)
        for rows in feature_rows(frames, extractor, fps=float(fps), batch=batch, skip=scratch.rows()):
            scratch.append(rows.times_s, rows.values)
            padded = max(padded, rows.padded)
            progress(rows.frames_read, total)
        info, warnings = video.final_info, video.report.warnings
    if not scratch.rows():
        raise InputError(f"{path}: no frame could be decoded; the file is damaged or not a video")
    if padded:
        warnings = (*warnings, f"{path}: shorter than one window: its last frame was repeated {padded} times")
    times_s, values = scratch.read()
    grid = Grid(fps, convention.stride, convention.window, times_s)
    return Features(values, grid, info, replace(identity, warnings=tuple(warnings)))


def expected_frames(info: VideoInfo, fps: "Fraction") -> int | None:
    """Frames a reader at `fps` will see, as far as the header tells."""
    if info.duration_s > 0:
        return max(1, round(info.duration_s * float(fps)))
    return info.frames
