"""From labels and folders to what training needs: which file belongs to which video, features, and the split."""

import hashlib
import json
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import partial
from pathlib import Path

import numpy as np

from vidtad.arrays import SUFFIXES, arrays_among, arrays_in, file_of, video_of
from vidtad.errors import InputError
from vidtad.features import Assumed, Features, StoredRows, load_features, sidecar_of
from vidtad.formats.label_types import Labels, video_id
from vidtad.labels import Check, Duration, check
from vidtad.labels.subsets import KINDS, kind_of
from vidtad.pipelines.extract.extraction import Decoding, InTheWay, LoadedExtractor, extract_file
from vidtad.runtime.files import VIDEO_SUFFIXES, atomic_write
from vidtad.training.video import TrainingVideo
from vidtad.video import probe

VAL_FRACTION = 0.2
Foreign = Callable[[str, Path], Assumed]
"""What a feature file without a sidecar is taken for, by the name of its video."""


@dataclass(frozen=True)
class Material:
    """What is there for the videos of the labels: video files, feature files, and what could not be read.

    All by video name. `unused`: videos that no label names. `durations`: of what is there and readable.
    """

    videos: Mapping[str, Path]
    features: Mapping[str, Path]
    unused: tuple[str, ...]
    durations: Mapping[str, Duration]
    broken: Mapping[str, str]


def find_material(
    labels: Labels,
    videos: Path | None,
    features: Path | None,
    *,
    rate: Fraction | None = None,
    stride: int | None = None,
    foreign: Foreign | None = None,
) -> Material:
    """Files of the labels' videos under `videos` (subfolders too) and in `features`.

    `stride` and `rate` (None: each video's own) are those of the extractor to come; `foreign` says what a video's
    feature file without a sidecar is taken for. `features` may be of any format of `vidtad.arrays`, or one HDF5 file,
    unless it is where features of `videos` are kept. Raises InputError when a folder is missing or no labelled video
    is there.
    """
    found_videos, unused = _assign(labels, _by_name(files_inside(videos, VIDEO_SUFFIXES), videos, "video"))
    if videos is None:
        one = features is not None and features.is_file()
        files = arrays_in(features) if features and one else arrays_among(files_inside(features, SUFFIXES))
        found_features, loose = _assign(labels, _by_name(files, features, "feature file"))
    else:
        files = files_inside(features, {".npy"}) if features and features.is_dir() else []
        found_features, loose = _assign(labels, _by_name(files, None, ""))
    durations: dict[str, Duration] = {}
    broken: dict[str, str] = {}
    for name in labels.videos:
        try:
            if name in found_videos:
                info = probe(found_videos[name])
                step = float(stride / (rate or info.fps)) if stride else None
                durations[name] = Duration(info.duration_s, step, info.player_start_s)
            elif name in found_features:
                path = found_features[name]
                held = load_features(path, foreign(name, path) if foreign else None, stored=True)
                step = float(held.grid.stride / held.grid.fps)
                durations[name] = Duration(held.video.duration_s, step, held.video.player_start_s)
        except InputError as error:
            broken[name] = str(error)
    if not durations:
        _raise_none(labels, videos, features, unused if videos is not None else loose, broken)
    return Material(found_videos, found_features, unused if videos is not None else loose, durations, broken)


def _raise_none(
    labels: Labels, videos: Path | None, features: Path | None, there: Sequence[str], broken: Mapping[str, str]
) -> None:
    if broken:
        raise InputError(f"none of the {len(broken)} labelled files can be used: {next(iter(broken.values()))}")
    place = videos if videos is not None else features
    example = f", {place} holds {there[0]!r}" if there else ""
    raise InputError(f"{place}: holds no labelled video: the labels name {labels.videos[0]!r}{example}")


def files_inside(folder: Path | None, suffixes: Collection[str]) -> list[Path]:
    """Files of a folder and its subfolders, but for hidden ones and those that trainings keep beside a bundle.

    Raises InputError when the folder is not there.
    """
    if folder is None:
        return []
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder")
    found = (path for path in sorted(folder.rglob("*")) if path.suffix.lower() in suffixes)
    apart = re.compile(r"\..*|.*\.safetensors\.work")
    return [p for p in found if p.is_file() and not any(map(apart.fullmatch, p.relative_to(folder).parts))]


def _by_name(files: Sequence[Path], place: Path | None, what: str) -> dict[str, list[Path]]:
    """Files by name; several where subfolders repeat one. Where `place` was named there must be some."""
    if place is not None and not files:
        raise InputError(f"{place}: no {what} in this folder")
    found: dict[str, list[Path]] = {}
    for path in files:
        found.setdefault(video_of(path), []).append(path)
    return found


def _assign(labels: Labels, files: Mapping[str, list[Path]]) -> tuple[dict[str, Path], tuple[str, ...]]:
    """The file of each labelled video, and the names of the files that are left.

    Raises InputError where two files could be one video's, or two videos have one file.
    """
    lowered: dict[str, str] = {}
    for stem in files:
        lowered.setdefault(stem.casefold(), stem)
    assigned: dict[str, Path] = {}
    owner: dict[Path, str] = {}
    for name, stated in zip(labels.videos, labels.files, strict=True):
        spellings = (name, f"v_{name}", name.removeprefix("v_"), video_id(stated) if stated else name)
        exact = [s for s in spellings if s in files]
        near = exact or [lowered[s.casefold()] for s in spellings if s.casefold() in lowered]
        if not near:
            continue
        paths = files[near[0]]
        if len(paths) > 1:
            ending = tuple(Path(stated).parts)
            paths = [path for path in paths if ending and path.parts[-len(ending) :] == ending] or paths
        if len(paths) > 1:
            raise InputError(f"{paths[0]} and {paths[1]} have one name and the labels do not say which; move one away")
        if (other := owner.setdefault(paths[0], name)) != name:
            raise InputError(f"{paths[0]}: the file of both {other!r} and {name!r}; give them one name in the labels")
        assigned[name] = paths[0]
    taken = {video_of(path) for path in assigned.values()}
    return assigned, tuple(stem for stem in files if stem not in taken)


def check_material(labels: Labels, material: Material) -> Check:
    """The labels' report, against what is there."""
    return check(labels, material.durations, material.unused)


@dataclass(frozen=True)
class Extraction:
    """How missing features are made, where they go, and whether that folder is ours to replace files in.

    `decoding`, `batch` and `flow_from` as for `extract_file`.
    """

    loaded: LoadedExtractor
    folder: Path
    own: bool
    decoding: Decoding = field(default_factory=Decoding)
    batch: int = 8
    flow_from: Path | None = None


def name_of_making(loaded: LoadedExtractor, decoding: Decoding) -> str:
    """A folder's name: equal for equal extractors, weights and `decoding`."""
    making = json.dumps([loaded.extractor.convention.to_json(), loaded.weights_sha256, repr(decoding)])
    return f"{loaded.extractor.name.replace('/', '-')}-{hashlib.sha256(making.encode()).hexdigest()[:12]}"


def features_of(
    material: Material,
    extraction: Extraction | None,
    foreign: Foreign | None = None,
    *,
    unpacked: Path | None = None,
    progress: Callable[[str, int, int], None] = lambda name, done, total: None,
) -> tuple[dict[str, Features], dict[str, str]]:
    """Features (`StoredRows`) of every video that is there, made where missing; and why some could not be.

    Arrays in other files than .npy are copied into the folder `unpacked`: no part of them can be read by itself.
    Raises InputError when features of different making meet, or none is left.
    """
    found: dict[str, Features] = {}
    failed: dict[str, str] = {}
    for number, name in enumerate(material.durations):
        progress(name, number, len(material.durations))
        try:
            if name in material.videos and extraction is not None:
                path = _extract(material.videos[name], extraction)
            else:
                path = material.features[name]
            # Of a pair, that the rows are those their sidecar is of; others have nothing that says so.
            pair = sidecar_of(path).exists()
            held = load_features(path, foreign(name, path) if foreign else None, check_hash=pair, stored=True)
            found[name] = held if unpacked is None or path.suffix.lower() == ".npy" else _unpacked(held, path, unpacked)
        except InputError as error:
            failed[name] = str(error)
    if not found:
        raise InputError(f"no video gave features: {next(iter(failed.values()))}")
    one_kind(found)
    return found, failed


def _unpacked(held: Features, path: Path, folder: Path) -> Features:
    """The same with its rows in a .npy file of `folder`, written unless that was done from the same file before."""
    file = file_of(path)
    assert isinstance(held.values, StoredRows)
    mark = repr((str(file.resolve()), path.name, *held.values.source.mark))
    target = folder / f"{hashlib.sha256(mark.encode()).hexdigest()[:24]}.npy"
    if not target.exists():
        with atomic_write(target) as written:
            np.save(written, held.values[:], allow_pickle=False)
    return replace(held, values=StoredRows(target))  # type: ignore[arg-type]


def _extract(video: Path, extraction: Extraction) -> Path:
    extract = partial(
        extract_file,
        video,
        extraction.loaded,
        extraction.folder,
        decoding=extraction.decoding,
        batch=extraction.batch,
        flow_from=extraction.flow_from,
    )
    try:
        return extract().path
    except InTheWay as error:
        # In a folder of our own an old file is one of a video that has changed since.
        if not extraction.own:
            raise InputError(
                f"{extraction.folder / video.stem}.npy: made from another video, by another extractor or with other "
                "settings; give another --features folder, or remove the file"
            ) from error
        return extract(overwrite=True).path


def one_kind(features: Mapping[str, Features]) -> None:
    """Raise InputError unless all features were made by one extractor, with one kind of window."""
    first = next(iter(features))
    for name, held in features.items():
        for what, ours, others in (
            ("rows of width", held.values.shape[1], features[first].values.shape[1]),
            ("windows of frames", held.grid.span, features[first].grid.span),
            ("steps of frames", held.grid.stride, features[first].grid.stride),
            ("extractor", held.provenance.extractor, features[first].provenance.extractor),
            ("weights", held.provenance.weights_sha256[:12], features[first].provenance.weights_sha256[:12]),
        ):
            if ours != others:
                raise InputError(
                    f"features are of different making: {what} {ours or 'unknown'} in {name}, "
                    f"{others or 'unknown'} in {first}; use another --features folder or extract them all anew"
                )


@dataclass(frozen=True)
class Split:
    """Video names of each part, in file order, and how it came about. Test videos are scored, never chosen by."""

    train: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...] = ()
    how: str = ""
    warnings: tuple[str, ...] = ()


def split_videos(labels: Labels, val_fraction: float | None = None, seed: int = 0) -> Split:
    """Who is trained on and who is held out, the same for the same labels and seed.

    Subsets of the file decide where it has them (training and validation by the beginning of their names; a test
    subset is never trained on; without a training subset the validation videos are trained on, as THUMOS'14
    does), unless `val_fraction` is given. Else `val_fraction` (0.2) of the videos are held out, those of one
    group together; what would leave a class without training segments stays. Raises InputError when nothing is
    left to train on, or to hold out although that was asked for.
    """
    table = labels.table
    parts = {kind: [n for n, s in zip(table.videos, table.subset, strict=True) if kind_of(s) == kind] for kind in KINDS}
    test, validation = parts["test"], parts["validation"]
    train = [*parts["train"], *parts[""]]
    if not train:
        train, validation = validation, []
        how = "the validation subset is trained on, as there is no training subset"
    else:
        how = f"subsets of the file: {len(train)} training, {len(validation)} validation videos"
    if not train:
        raise InputError("no video is left to train on: the labels put all of them into a test subset")
    if val_fraction is not None and validation:
        train, validation = [*train, *validation], []
    if not validation and val_fraction != 0:
        fraction = VAL_FRACTION if val_fraction is None else val_fraction
        units = _units(labels, train)
        train, validation = _hold_out(labels, units, fraction, seed)
        what = "videos" if all(len(unit) == 1 for unit in units) else f"videos of {len(units)} groups"
        chosen = f"{len(validation)} of {len(train) + len(validation)} {what} held out for validation (seed {seed})"
        how = chosen if not parts["train"] and parts[""] else f"{how}; {chosen}" if test else chosen
        if not validation:
            raise InputError(
                f"no video can be held out for validation: every one of the {len(units)} holds the only segments of a "
                "class; label more videos, or pass --val-fraction 0 to train without a score"
            )
    place = {name: number for number, name in enumerate(table.videos)}
    parts_of = dict(zip(table.videos, labels.groups, strict=True))
    return Split(
        train=tuple(sorted(train, key=place.__getitem__)),
        validation=tuple(sorted(validation, key=place.__getitem__)),
        test=tuple(test),
        how=how,
        warnings=_leaks(parts_of, train, [*validation, *test]),
    )


def training_videos(
    labels: Labels, features: Mapping[str, Features], names: tuple[str, ...], numbers: list[int]
) -> list[TrainingVideo]:
    """The videos `names`, their segments in feature rows; class c of the network is `numbers[c]` of the labels."""
    table = labels.table
    place = {name: number for number, name in enumerate(table.videos)}
    class_of = {number: position for position, number in enumerate(numbers)}
    videos = []
    for name in names:
        rows = np.flatnonzero(table.video == place[name])
        seconds = np.stack([table.start[rows], table.end[rows]], axis=1)
        segments = features[name].grid.positions(seconds) + 0.5
        labels_of = np.array([class_of[number] for number in table.label[rows].tolist()], np.int64)
        videos.append(TrainingVideo(name, features[name].values, segments, labels_of))
    return videos


def _units(labels: Labels, names: Collection[str]) -> list[list[str]]:
    """Videos that must stay together."""
    units: dict[tuple[str, str], list[str]] = {}
    for name, group in zip(labels.videos, labels.groups, strict=True):
        if name in names:
            units.setdefault(("group", group) if group else ("video", name), []).append(name)
    return list(units.values())


def _hold_out(labels: Labels, units: list[list[str]], fraction: float, seed: int) -> tuple[list[str], list[str]]:
    """(training, validation) videos: units in an order drawn from the seed, first those that bring a new class."""
    table = labels.table
    number = {name: position for position, name in enumerate(table.videos)}
    counts = np.zeros((len(table.videos), len(table.labels)), int)
    np.add.at(counts, (table.video, table.label), 1)
    keys = {unit[0]: f"{seed}:{unit[0]}".encode(errors="surrogatepass") for unit in units}
    drawn = sorted(units, key=lambda unit: hashlib.sha256(keys[unit[0]]).hexdigest())
    held = [counts[[number[name] for name in unit]].sum(0) for unit in drawn]
    left = np.sum(held, axis=0)
    wanted = max(1, round(fraction * sum(map(len, units))))
    chosen: list[int] = []
    covered, size = np.zeros_like(left), 0
    for needs_new_class in (True, False):
        for index, unit in enumerate(drawn):
            fits = size + len(unit) <= wanted or not chosen
            spares = ((left - held[index] > 0) | (held[index] == 0)).all()
            brings = (held[index][covered == 0] > 0).any()
            if index in chosen or not fits or not spares or (needs_new_class and not brings) or len(units) < 2:
                continue
            chosen.append(index)
            left, covered, size = left - held[index], covered + held[index], size + len(unit)
    validation = [name for index in chosen for name in drawn[index]]
    return [name for unit in units for name in unit if name not in validation], validation


def _leaks(group_of: Mapping[str, str], train: Collection[str], held: Collection[str]) -> tuple[str, ...]:
    shared = sorted({group_of[name] for name in train} & {group_of[name] for name in held} - {""})
    if not shared:
        return ()
    return (f"group {shared[0]!r} is both trained on and scored on ({len(shared)} such): the score flatters",)
