"""One input (video or feature file) to one timeline on disk; the unit of work of `vidtad detect`."""

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

from vidtad.arrays import file_of, is_array, video_of
from vidtad.errors import InputError
from vidtad.extractors import GIVEN
from vidtad.features import Assumed, load_features, sidecar_of
from vidtad.heads.catalogue import cache_dir
from vidtad.heads.registry import load_detector
from vidtad.hub.bundle import Bundle
from vidtad.pipelines.detect.temporal import check_fits, detect_features, detector_identity
from vidtad.pipelines.extract.extraction import (
    Decoding,
    LoadedExtractor,
    Scratch,
    bundle_extractor,
    claimed,
    extract_features,
    provenance_of,
    reading_flow,
)
from vidtad.pipelines.extract.flow_cache import check_flow_from
from vidtad.pipelines.extract.ranges import extract_range
from vidtad.progress import Progress, no_progress
from vidtad.runtime.files import still_there
from vidtad.runtime.sources import Source
from vidtad.timeline import Timeline, check_min_score, read_timeline, write_timeline_csv, write_timeline_json


@dataclass(frozen=True)
class Job:
    """What `detect` was asked. `out` None writes nothing.

    `stride` and `window`, in frames: of features without a sidecar, at the rate `decoding.assumed_fps`; None: as the
    detector's own features. `flow_from`: see `extract_file`.
    """

    out: Path | None
    weights: str | None = None
    min_score: float = 0.0
    stride: int | None = None
    window: int | None = None
    decoding: Decoding = field(default_factory=Decoding)
    batch: int = 8
    overwrite: bool = False
    precision: str = "auto"
    flow_from: Path | None = None
    earlier: Path | None = None
    """Folder where earlier versions put timelines: a finished one of this making is moved to `out` from there."""

    def __post_init__(self) -> None:
        check_min_score(self.min_score)


def check_flow(bundle: Bundle, job: Job, inputs: Sequence[Path] = ()) -> None:
    """Raise InputError, before any weights are fetched, where no flow is read though the job says from where."""
    if job.flow_from is None:
        return
    if "flow" not in dict(bundle.channels):
        raise InputError(f"detector {bundle.name} sees no optical flow: drop --flow-from")
    features = next(filter(is_array, inputs), None)
    if features is not None:
        raise InputError(f"{features}: --flow-from is for videos, not for feature files: leave it out")
    check_flow_from(job.flow_from, inputs)


class Worker(ABC):
    """Turns inputs into timelines with one detector: one input to one timeline on disk, by one process at a time."""

    def __init__(self, bundle: Bundle, job: Job, device: str = "cpu"):
        check_flow(bundle, job)
        self.bundle, self.job, self.device = bundle, job, device
        self.kept = False

    @property
    @abstractmethod
    def display_score(self) -> float:
        """Score from which a table shows a segment."""

    @abstractmethod
    def timeline(self, path: Path, progress: Progress) -> Timeline:
        """As calling, for the one process that has claimed the output."""

    def __call__(self, path: Path, progress: Progress = no_progress) -> Timeline:
        """The timeline of `path`, written to the job's folder; a finished one of the same making is read back.

        Raises InputError for an unusable input or a timeline of another making in the way, RunError for a failed
        write, Busy (a RunError) while another process is at work on it.
        """
        path = Path(path)
        folder = self.folder(path)
        if folder is None:
            return self.timeline(path, progress)
        with claimed(folder, path):
            return self.timeline(path, progress)

    def folder(self, path: Path) -> Path | None:
        """Where something about `path` is written; None when nothing is."""
        return self.job.out

    def finished_or(self, path: Path, identity: Mapping[str, Any], make: Callable[[], Timeline]) -> Timeline:
        """A whole timeline of this making, if there is one, else what `make` gives, written.

        Raises InputError for another one in its place, which is never overwritten.
        """
        self.kept = False
        if self.job.out is None:
            return self._marked(make())
        target = self.job.out / f"{video_of(path)}.json"
        if not target.exists() and self.job.earlier is not None and not self.job.overwrite:
            _brought(self.job.earlier / target.name, target, identity)
        timeline = _finished(target, identity) if target.exists() and not self.job.overwrite else None
        self.kept = timeline is not None
        if timeline is None:
            timeline = self._marked(make())
            write_timeline_json(timeline, target)
        write_timeline_csv(timeline, target.with_suffix(".csv"))
        still_there([target])
        return timeline

    def _marked(self, timeline: Timeline) -> Timeline:
        """With the score from which its segments are worth showing: what `report` and `convert` begin at."""
        return replace(timeline, detector={**timeline.detector, "display_score": self.display_score})


def _same(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two descriptions of a detector say the same, but for warnings and what is worth showing."""
    passed = {"warnings": 0, "display_score": 0}
    return {**one, **passed} == {**other, **passed}


def _brought(old: Path, target: Path, identity: Mapping[str, Any]) -> None:
    """Move a finished timeline of this making, and its CSV, from where earlier versions put it."""
    try:
        if not old.is_file() or not _same(read_timeline(old).detector, identity):
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(old, target)
        if old.with_suffix(".csv").is_file():
            os.replace(old.with_suffix(".csv"), target.with_suffix(".csv"))
    except (InputError, OSError):
        return


def _finished(target: Path, identity: Mapping[str, Any]) -> Timeline:
    try:
        timeline = read_timeline(target)
    except InputError:
        timeline = None
    if timeline is None or not _same(timeline.detector, identity):
        raise InputError(
            f"{target}: exists and was made from another input or with other settings; "
            "pass --overwrite to replace it, or another --out"
        )
    return timeline


class TemporalWorker(Worker):
    """For heads that read feature rows; the extractor is loaded when the first video needs it."""

    def __init__(self, bundle: Bundle, job: Job, device: str = "cpu"):
        super().__init__(bundle, job, device)
        # Heads cost little beside extractors: they leave float32 only where that is asked for.
        self.detector = load_detector(bundle, device, "bf16" if job.precision == "bf16" else "float32")
        self._extractor: LoadedExtractor | None = None

    @property
    def display_score(self) -> float:
        """Score from which a table shows a segment."""
        return max(self.job.min_score, self.detector.display_score)

    def folder(self, path: Path) -> Path | None:
        """The job's; the rows of a video are kept in the cache where there is none."""
        return self.job.out if is_array(path) else self._rows_folder()

    def timeline(self, path: Path, progress: Progress) -> Timeline:
        """As calling, for the one process that has claimed the output."""
        if is_array(path):
            check_flow(self.bundle, self.job, [path])
            return self._from_features(path, progress)
        with reading_flow(path, self._loaded(), self.job.decoding, self.job.flow_from) as loaded:
            return self._from_video(path, loaded, progress)

    def _from_features(self, path: Path, progress: Progress) -> Timeline:
        job = self.job
        if job.out is not None and (job.out / f"{path.stem}.json").resolve() == sidecar_of(path).resolve():
            raise InputError(f"{path}: its timeline would take the place of its sidecar; choose another --out")
        source = Source(file_of(path))
        source.look()
        # Read when sliced, not mapped: a file that is cut off meanwhile is one sentence, not the end of the process.
        sliced = path.suffix.lower() == ".npy"
        features = load_features(path, self._assumed(), check_hash=True, stored=sliced)
        source.check()
        grid = features.grid
        if (job.stride or grid.stride, job.window or grid.span) != (grid.stride, grid.span):
            raise InputError(
                f"{path}: its sidecar says windows of {grid.span} frames every {grid.stride}; "
                "leave out --window and --stride, which are for files without one"
            )
        check_fits(features, self.bundle, str(path))
        return self.finished_or(
            path,
            detector_identity(self.bundle, features.provenance, job.min_score, self.detector.precision),
            lambda: detect_features(
                features, self.detector, video_of(path), min_score=job.min_score, progress=progress
            ),
        )

    def _assumed(self) -> Assumed:
        """What features without a sidecar are taken for: the detector's own kind, but for what the user says."""
        own, job = self.bundle.sampling, self.job
        fps = job.decoding.assumed_fps or (None if own.get("fps") is None else Fraction(str(own["fps"])))
        return Assumed(job.stride or own["stride"], job.window or own["window"], fps)

    def _from_video(self, path: Path, loaded: LoadedExtractor, progress: Progress) -> Timeline:
        job = self.job
        source = Source(path)
        identity = provenance_of(source, loaded, job.decoding)
        # Rows pass through a scratch file, so that an interrupted run goes on where it stopped.
        scratch = Scratch(self._rows_folder(), path.stem, identity)

        def make() -> Timeline:
            features = extract_features(
                source, loaded, scratch, identity=identity, decoding=job.decoding, batch=job.batch, progress=progress
            )
            return detect_features(features, self.detector, path.stem, where=str(path), min_score=job.min_score)

        made = detector_identity(self.bundle, identity, job.min_score, self.detector.precision)
        timeline = self.finished_or(path, made, make)
        scratch.remove()
        return timeline

    def part(self, path: Path, share: tuple[int, int], progress: Progress = no_progress) -> None:
        """Rows of one time range, number and parts in all as `share` says; `timeline` finds them.

        Nothing is done for feature files, or where a timeline is: whether it is the right one is for `timeline` to say.
        """
        job = self.job
        there = job.out is not None and not job.overwrite and (job.out / f"{path.stem}.json").exists()
        if is_array(path) or there:
            return
        loaded, folder = self._loaded(), self._rows_folder()
        source = Source(path)
        identity = provenance_of(source, loaded, job.decoding)
        extract_range(
            source, loaded, folder, share, identity=identity, decoding=job.decoding, batch=job.batch, progress=progress
        )

    def _loaded(self) -> LoadedExtractor:
        if self._extractor is None:
            self._extractor = self._fitting_extractor()
        return self._extractor

    def _rows_folder(self) -> Path:
        return self.job.out or cache_dir() / "rows"

    def _fitting_extractor(self) -> LoadedExtractor:
        flow = None if self.job.flow_from is None else GIVEN
        loaded = bundle_extractor(
            self.bundle, self.job.weights, device=self.device, precision=self.job.precision, flow=flow
        )
        given, wanted = (
            ", ".join(f"{name} {count}" for name, count in channels)
            for channels in (loaded.extractor.convention.channels, self.bundle.channels)
        )
        if given != wanted:  # said before hours of extraction, not after
            raise InputError(
                f"detector {self.bundle.name} wants features of {wanted}, but extractor {loaded.extractor.name} gives "
                f"{given}; detect in feature files (.npy) made elsewhere, or choose another --model"
            )
        return loaded
