"""Feature files as data sets publish them: what training takes them for, and files of our own made of them."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np

from vidtad.arrays import arrays_among, arrays_in, opened, read_rows, video_of
from vidtad.errors import InputError
from vidtad.features import (
    Assumed,
    Features,
    Provenance,
    content_sha256,
    load_features,
    save_features,
    sidecar_of,
)
from vidtad.formats.label_reading import read_labels
from vidtad.formats.label_types import Labels
from vidtad.heads.registry import HEADS
from vidtad.pipelines.train.data import Foreign
from vidtad.pipelines.train.extractor import Sampling
from vidtad.training.published import FeatureKind
from vidtad.video import VideoInfo

DOWNLOADED = "downloaded"
"""The weights of a provenance that nobody knows more of."""


def is_bare(features: Features) -> bool:
    """Whether no sidecar says what these are."""
    return not features.provenance.source_sha256 and features.provenance.weights in ("", DOWNLOADED)


@dataclass(frozen=True)
class Adopted:
    """Videos whose features were written, and those of the annotations for which a file is missing."""

    written: tuple[str, ...]
    missing: tuple[str, ...]


def assumption(labels: Labels, asked: Sampling, model: str, preset: str | None) -> Foreign | None:
    """What feature files without a sidecar are taken for: what is asked, else what the preset's data set publishes.

    Their rate is the one asked for, else the data set's, else each video's in the labels; where rows cover a video
    evenly, its duration in the labels gives it. None when neither sampling nor preset is known. What it returns
    raises InputError for a video whose rate is not known.
    """
    if preset is None and (asked.stride is None or asked.window is None):
        return None
    number_of = {name: number for number, name in enumerate(labels.videos)}
    widths: list[int] = []

    def assumed(name: str, path: Path) -> Assumed:
        if preset is None:
            assert asked.stride is not None and asked.window is not None
            return Assumed(asked.stride, asked.window, asked.fps or _stated_fps(labels, number_of[name]))
        if not widths:
            with opened(path) as held:
                widths.append(int(held.shape[1]))
        kinds = _kinds(model, preset)
        kind = kinds.get(widths[0])
        sampled = kind or next(iter(kinds.values()))
        own = not (asked.stride or asked.window)
        provenance = _provenance(kind) if kind is not None and own else None
        stride, window = asked.stride or sampled.stride, asked.window or sampled.window
        duration_s = _duration(labels, number_of[name])
        if asked.fps is None and sampled.spread and duration_s is not None:
            return Assumed(stride, window, None, duration_s, provenance)
        rate = asked.fps or (None if sampled.fps is None else Fraction(sampled.fps))
        return Assumed(stride, window, rate or _stated_fps(labels, number_of[name]), duration_s, provenance)

    return assumed


def adopt_features(
    model: str,
    preset: str,
    annotations: Path,
    sources: Sequence[Path],
    out: Path,
    *,
    every: int = 1,
    fit: bool | None = None,
    overwrite: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Adopted:
    """Write `<out>/<video>.npy` with its sidecar for every annotated video found in all of `sources`.

    `model` and `preset` as for `vidtad train`: they say what a row is. A source is a folder, an HDF5 file, or a
    pattern of file names such as `rgb_*.h5`; its arrays are called `<video>` or `v_<video>`, in any format of
    `vidtad.arrays`, (T, C) floats. Those of several sources are put side by side on C in the order given. `every`:
    keep rows 0, `every`, 2 `every`, ... (ReAct's files hold a row a frame and it reads every fifth). Rates are the
    preset's, else the annotations' `fps`; with `fit` (None: as the preset's authors do) rows are spread over the
    annotated duration instead, and of streams of unequal length the shorter one counts. A file that is there stays
    when it is the same; one made otherwise is replaced with `overwrite` alone. `progress` is told the videos done and
    their number. Raises InputError for features of another width, other sources that disagree about the length of a
    video, two arrays of one name in a source, a missing rate, a file made otherwise, or when no video is found.
    """
    labels = read_labels(annotations)
    held = [_arrays(Path(source)) for source in sources]
    written, missing = [], []
    for number, name in enumerate(labels.videos):
        paths = [_find(arrays, name) for arrays in held]
        found = [path for path in paths if path is not None]
        if len(found) < len(paths):
            missing.append(name)
        else:
            parts = [read_rows(path)[::every].astype(np.float32, copy=False) for path in found]
            kind = _kind(model, preset, sum(part.shape[1] for part in parts), found[0])
            features = _adopted(labels, number, found, parts, kind, even=kind.spread if fit is None else fit)
            _put(features, found, Path(out) / f"{name}.npy", overwrite=overwrite)
            written.append(name)
        progress(number + 1, len(labels.videos))
    if not written:
        raise InputError(f"{sources[0]}: no feature file of an annotated video, such as {labels.videos[0]}.npy")
    return Adopted(tuple(written), tuple(missing))


def _adopted(
    labels: Labels, number: int, paths: Sequence[Path], parts: Sequence[np.ndarray], kind: FeatureKind, *, even: bool
) -> Features:
    """One video's features of several arrays (T, C); `even`: its rows are spread over its duration."""
    values = _joined(paths, parts, shortest=even)
    rate = None if even else _rate(labels, number, kind)
    duration_s = _duration(labels, number)
    if even and duration_s is None:
        name = labels.videos[number]
        raise InputError(f"{name}: the annotations state no duration to spread its rows over")
    grid = Assumed(kind.stride, kind.window, rate, duration_s).grid(paths[0], len(values))
    end_s = duration_s or float(grid.seconds(len(values) - 0.5))
    video = VideoInfo(path=str(paths[0]), width=0, height=0, fps=grid.fps, duration_s=end_s, frames=None)
    source_sha256 = hashlib.sha256("".join(map(content_sha256, paths)).encode()).hexdigest()
    return Features(values, grid, video, _provenance(kind, source_sha256))


def _put(features: Features, sources: Sequence[Path], target: Path, *, overwrite: bool) -> None:
    """Write features, unless the same are there. Raises InputError where others are, or what they are made of."""
    if target.exists() and any(source.exists() and source.samefile(target) for source in sources):
        raise InputError(f"{target}: is one of the downloaded files; name another --out")
    if target.exists() and not overwrite:
        if not _same(features, target):
            raise InputError(
                f"{target}: exists and was made from other files or with other settings; "
                "pass --overwrite to replace it, or another --out"
            )
        if sidecar_of(target).exists():
            return
    save_features(features, target.parent, target.stem)


def _same(features: Features, target: Path) -> bool:
    """Whether these features are in the file, whose sidecar may be missing, as after a kill."""
    if not sidecar_of(target).exists():
        return np.array_equal(read_rows(target), features.values)
    there = load_features(target)
    return (
        there.provenance.fingerprint() == features.provenance.fingerprint()
        and np.array_equal(there.grid.times_s, features.grid.times_s)
        and np.array_equal(there.values, features.values)
    )


def _arrays(source: Path) -> dict[str, list[Path]]:
    """Arrays of a source by name; several where its files repeat one."""
    if source.is_dir():
        found = arrays_among(sorted(source.iterdir()))
    elif source.is_file():
        found = arrays_in(source)
    else:
        found = arrays_among(sorted(source.parent.glob(source.name)))
    arrays: dict[str, list[Path]] = {}
    for path in found:
        arrays.setdefault(video_of(path), []).append(path)
    return arrays


def _find(arrays: Mapping[str, Sequence[Path]], name: str) -> Path | None:
    """The array of a video. Raises InputError when there are two."""
    spellings = (name, f"v_{name}", name.removeprefix("v_"))
    paths = next((arrays[spelling] for spelling in spellings if spelling in arrays), ())
    if len(paths) > 1:
        raise InputError(f"{paths[0]} and {paths[1]} have one name; move one away")
    return next(iter(paths), None)


def _joined(paths: Sequence[Path], parts: Sequence[np.ndarray], *, shortest: bool) -> np.ndarray:
    """Arrays (T, C) of one video side by side, float32; `shortest`: rows that not all have are left out."""
    rows = min(map(len, parts))
    for path, part in zip(paths, parts, strict=True):
        if not shortest and len(part) != len(parts[0]):
            raise InputError(f"{path}: {len(part)} rows, but {paths[0]} has {len(parts[0])}")
    return np.ascontiguousarray(np.concatenate([part[:rows] for part in parts], axis=1))


def _provenance(kind: FeatureKind, source_sha256: str = "") -> Provenance:
    settings = {"fps": None if kind.fps is None else str(kind.fps)}
    return Provenance(kind.extractor, kind.channels, DOWNLOADED, source_sha256=source_sha256, settings=settings)


def _kinds(model: str, preset: str) -> dict[int, FeatureKind]:
    """What a recipe's data set publishes, by the width of a row. Raises InputError for a recipe that is not there."""
    recipes = {name: spec.recipe() for name, spec in HEADS.items() if spec.recipe is not None}
    if model not in recipes or preset not in recipes[model].presets:
        known = ", ".join(f"{name} {p}" for name, recipe in recipes.items() for p in recipe.presets)
        raise InputError(f"{model} {preset}: no such published recipe; there is {known}")
    return {sum(count for _, count in kind.channels): kind for kind in recipes[model].kinds(preset)}


def _kind(model: str, preset: str, width: int, path: Path) -> FeatureKind:
    kinds = _kinds(model, preset)
    if width not in kinds:
        wanted = " or ".join(map(str, kinds))
        raise InputError(f"{path}: {width} channels (all sources together), but {preset} wants {wanted}")
    return kinds[width]


def _duration(labels: Labels, number: int) -> float | None:
    seconds = float(labels.table.duration[number])
    return seconds if np.isfinite(seconds) and seconds > 0 else None


def _stated_fps(labels: Labels, number: int) -> Fraction:
    fps = float(labels.fps[number])
    if not fps > 0:
        name = labels.videos[number]
        raise InputError(f"{name}: features without a sidecar, and the labels state no fps; pass --fps")
    return Fraction(fps).limit_denominator(1001)


def _rate(labels: Labels, number: int, kind: FeatureKind) -> Fraction:
    if kind.fps is not None:
        return Fraction(kind.fps)
    if not labels.fps[number] > 0:
        name = labels.videos[number]
        raise InputError(f"{name}: the annotations state no fps, and these features are at each video's own rate")
    return _stated_fps(labels, number)
