"""Feature files as data sets publish them, to files that say what their rows are and when."""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np

from vidtad.actionformer_presets import EGO4D_VARIANTS, FeatureKind
from vidtad.errors import InputError
from vidtad.features import Features, Grid, Provenance, save_features
from vidtad.labels import Labels, read_labels
from vidtad.pipelines.training.recipes import RECIPES
from vidtad.video import VideoInfo

SUFFIXES = (".npy", ".npz")


@dataclass(frozen=True)
class Adopted:
    """Videos whose features were written, and those of the annotations for which a file is missing."""

    written: tuple[str, ...]
    missing: tuple[str, ...]


def adopt_features(
    model: str,
    preset: str,
    annotations: Path,
    sources: Sequence[Path],
    out: Path,
    *,
    every: int = 1,
    fit: bool = False,
) -> Adopted:
    """Write `<out>/<video>.npy` with its sidecar for every annotated video found in all the folders `sources`.

    `model` and `preset` as for `vidtad train`: they say what a row is. Files are `<video>` or `v_<video>` with
    `.npy`, or `.npz` with an array `feats` (or a single one), (T, C) floats; those of several folders are put side
    by side on C in the order given. `every`: keep rows 0, `every`, 2 `every`, ... (ReAct's files hold a row a
    frame and it reads every fifth). Rates are the preset's, else the annotations' `fps`; with `fit` rows are spread
    over the annotated duration instead. Raises InputError for features of another width, folders that disagree
    about the length of a video, a missing rate, or when no video is found.
    """
    labels = read_labels(annotations)
    written, missing = [], []
    for number, name in enumerate(labels.videos):
        paths = [_find(Path(source), name) for source in sources]
        found = [path for path in paths if path is not None]
        if len(found) < len(paths):
            missing.append(name)
            continue
        values = _joined(found)[::every]
        kind = _kind(model, preset, values.shape[1], found[0])
        rate = _rate(labels, number, kind, len(values) if fit else None)
        grid = Grid.regular(rate, kind.stride, kind.window, len(values))
        stated = float(labels.table.duration[number])
        end_s = stated if np.isfinite(stated) and stated > 0 else float(grid.seconds(len(values) - 0.5))
        video = VideoInfo(path=str(found[0]), width=0, height=0, fps=rate, duration_s=end_s, frames=None)
        provenance = Provenance(kind.extractor, kind.channels, weights="downloaded")
        save_features(Features(np.ascontiguousarray(values), grid, video, provenance), Path(out), name)
        written.append(name)
    if not written:
        raise InputError(f"{sources[0]}: no feature file of an annotated video, such as {labels.videos[0]}.npy")
    return Adopted(tuple(written), tuple(missing))


def _find(folder: Path, name: str) -> Path | None:
    stems = (name, f"v_{name}", name.removeprefix("v_"))
    candidates = (folder / f"{stem}{suffix}" for stem in stems for suffix in SUFFIXES)
    return next((path for path in candidates if path.is_file()), None)


def _joined(paths: Sequence[Path]) -> np.ndarray:
    """Arrays (T, C) of one video side by side, float32."""
    parts = [_array(path) for path in paths]
    for path, part in zip(paths, parts, strict=True):
        if len(part) != len(parts[0]):
            raise InputError(f"{path}: {len(part)} rows, but {paths[0]} has {len(parts[0])}")
    return np.concatenate([part.astype(np.float32, copy=False) for part in parts], axis=1)


def _array(path: Path) -> np.ndarray:
    try:
        held = np.load(path, mmap_mode="r", allow_pickle=False)
        if isinstance(held, np.lib.npyio.NpzFile):
            with held:
                held = held["feats" if "feats" in held.files or len(held.files) != 1 else held.files[0]]
    except Exception as error:  # NumPy parses headers as Python text and passes on whatever that raises
        raise InputError(f"{path}: not a feature file (expected an array, in .npz one called feats)") from error
    if held.ndim != 2 or held.dtype.kind != "f" or not held.size:
        raise InputError(f"{path}: expected (rows, channels) floats, found {held.dtype} {held.shape}")
    return held


def _kind(model: str, preset: str, width: int, path: Path) -> FeatureKind:
    recipe = RECIPES.get(model)
    if recipe is None or preset not in recipe.presets:
        known = ", ".join(f"{name} {p}" for name, r in RECIPES.items() for p in r.presets)
        raise InputError(f"{model} {preset}: no such published recipe; there is {known}")
    kinds = [recipe.presets[preset]]
    if preset == "ego4d":
        kinds = [variant.features for variant in EGO4D_VARIANTS.values()]
    for kind in kinds:
        if sum(count for _, count in kind.channels) == width:
            return kind
    wanted = " or ".join(str(sum(count for _, count in kind.channels)) for kind in kinds)
    raise InputError(f"{path}: {width} channels (all folders together), but {preset} wants {wanted}")


def _rate(labels: Labels, number: int, kind: FeatureKind, rows: int | None) -> Fraction:
    name, duration, fps = labels.videos[number], labels.table.duration[number], labels.fps[number]
    if rows is not None:
        if not duration > 0:
            raise InputError(f"{name}: the annotations state no duration to spread its rows over")
        return Fraction(rows * kind.stride / float(duration)).limit_denominator(10**6)
    if kind.fps is not None:
        return Fraction(kind.fps)
    if not fps > 0:
        raise InputError(f"{name}: the annotations state no fps, and these features are at each video's own rate")
    return Fraction(float(fps)).limit_denominator(1001)
