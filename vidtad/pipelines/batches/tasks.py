"""What a batch does to each of its inputs: small descriptions that travel to worker processes and load there."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vidtad.errors import InputError
from vidtad.extractors import GIVEN, streams_of, with_streams
from vidtad.heads.catalogue import cache_dir
from vidtad.pipelines.batches.local import Item, Part, ReportProgress, Work
from vidtad.pipelines.batches.pooling import Together
from vidtad.pipelines.batches.staging import Outputs, fetched, forget_away, is_away, making, with_copies
from vidtad.pipelines.detect.dispatch import bundle_for, worker_for
from vidtad.pipelines.detect.worker import Job, TemporalWorker, Worker
from vidtad.pipelines.extract.extraction import (
    Decoding,
    Extracted,
    Steps,
    extract_file,
    extract_in_steps,
)
from vidtad.pipelines.extract.flow_cache import FlowPictures, check_flow_from
from vidtad.pipelines.extract.load import load_given
from vidtad.pipelines.extract.ranges import part_of_file
from vidtad.runtime.malloc import keep_freed_memory
from vidtad.runtime.remote import shown
from vidtad.timeline import Timeline, parse_timeline

if TYPE_CHECKING:
    from vidtad.pipelines.detect.person_detector import PeopleOptions


@dataclass(frozen=True)
class ExtractTask:
    """Videos to feature files in `out`; the other fields are those of `load_given` and `extract_file`.

    `stream`: "rgb", "flow" or both joined by a comma, of the extractor's family; None takes `extractor` as named.
    `together`: whether batches are filled across the borders of videos; None: except on a CPU, which gains nothing.
    """

    out: Path
    extractor: str
    weights: str | None = None
    window: int | None = None
    stride: int | None = None
    fps: Fraction | None = None
    decoding: Decoding = field(default_factory=Decoding)
    batch: int = 8
    overwrite: bool = False
    stream: str | None = None
    flow: str | None = None
    keep_flow: Path | None = None
    flow_from: Path | None = None
    precision: str = "auto"
    together: bool | None = None

    def name(self) -> str:
        """The extractor's full name. Raises InputError for an unknown one."""
        return self.extractor if self.stream is None else with_streams(self.extractor, self.stream.split(","))

    def check(self, videos: Sequence[Path]) -> None:
        """Raise InputError, before weights are fetched, where no flow that is to be read can be, or is seen."""
        if self.flow_from is None:
            return
        if "flow" not in streams_of(self.name()):
            raise InputError(f"extractor {self.name()} sees no optical flow: add --stream rgb,flow or drop --flow-from")
        check_flow_from(self.flow_from, videos)

    def left_out(self, path: Path) -> None:
        """Remove what workers that died over this video left."""
        forget_away(self.out, path)

    def __call__(self, device: str) -> Work:
        """The work on one device: item -> what `--json` says of it; the values are on disk."""
        if device == "cpu":
            keep_freed_memory()
        loaded = load_given(
            self.name(),
            self.weights,
            device=device,
            window=self.window,
            stride=self.stride,
            fps=self.fps,
            flow=self.flow if self.flow_from is None else GIVEN,
            precision=self.precision,
        )

        key = making(replace(self, out=Path(), overwrite=False, together=None), loaded.weights_sha256)
        outputs = Outputs(self.out, (".npy", ".json"), key, self.overwrite)
        same: dict[str, Any] = {"decoding": self.decoding, "batch": self.batch, "overwrite": self.overwrite}

        def work(item: Item, progress: ReportProgress) -> dict[str, Any]:
            if isinstance(item, Part):
                with fetched(item.path) as path:
                    part_of_file(path, loaded, self.out, (item.number, item.parts), progress=progress, **same)
                return {}

            def here(path: Path, out: Path | None) -> dict[str, Any]:
                assert out is not None
                flow: dict[str, Any] = {"keep_flow": self.keep_flow, "flow_from": self.flow_from}
                return summary(path, extract_file(path, loaded, out, progress=progress, **flow, **same))

            if not is_away(item, outputs):
                return here(item, self.out)
            value, there = with_copies(item, _of_pictures(outputs, item, self.flow_from), here)
            return summary_of(value, item, self.out) if there else value

        def start(item: Item, progress: ReportProgress) -> Steps[dict[str, Any]]:
            if isinstance(item, Part) or is_away(item, outputs):
                return work(item, progress)
            return summary(item, (yield from extract_in_steps(item, loaded, self.out, progress=progress, **same)))

        # The flow of one video at a time can be kept, or read.
        alone = self.keep_flow is not None or self.flow_from is not None
        if alone or not (device != "cpu" if self.together is None else self.together):
            return work
        return Together(start, loaded.extractor, self.batch)


def _of_pictures(outputs: Outputs, item: Path, flow_from: Path | None) -> Outputs:
    """The same, made of the pictures of the item's flow too, where those are read."""
    if flow_from is None:
        return outputs
    return replace(outputs, key=making(outputs.key, FlowPictures.of(flow_from, item).sha256()))


def summary_of(document: dict[str, Any], video: Path, out: Path) -> dict[str, Any]:
    """The same, of a finished feature file elsewhere by its sidecar alone. Raises InputError for what is none."""
    try:
        return {
            "video": shown(video),
            "features": shown(out / f"{video.stem}.npy"),
            "rows": int(document["rows"]),
            "channels": sum(count for _, count in document["channels"]),
            "first_s": float(document["times_s"][0]),
            "last_s": float(document["times_s"][-1]),
            "frames": document["frames"],
            "fps": document["fps"],
            "duration_s": document["duration_s"],
            "reused": True,
            "seconds": 0.0,
            "warnings": list(document["warnings"]),
        }
    except (KeyError, TypeError, ValueError, IndexError) as error:
        sidecar = shown(out / f"{video.stem}.json")
        raise InputError(f"{sidecar}: not a feature sidecar ({type(error).__name__}: {error})") from error


def summary(path: Path, result: Extracted) -> dict[str, Any]:
    """A finished feature file in plain numbers."""
    features = result.features
    return {
        "video": str(path),
        "features": str(result.path),
        "rows": len(features.grid),
        "channels": features.values.shape[1],
        "first_s": float(features.grid.times_s[0]),
        "last_s": float(features.grid.times_s[-1]),
        "frames": features.video.frames,
        "fps": float(features.grid.fps),
        "duration_s": features.video.duration_s,
        "reused": result.reused,
        "seconds": round(result.seconds, 3),
        "warnings": list(features.provenance.warnings),
    }


@dataclass(frozen=True)
class Detected:
    """A timeline, and the score from which its detector would show a segment."""

    timeline: Timeline
    display_score: float
    seconds: float = 0.0
    kept: bool = False
    """Whether a finished timeline was there."""


def timed(worker: Worker, make: Callable[[], Timeline]) -> Detected:
    """What `make` gives, which calls the worker, and how long that took."""
    begun = time.monotonic()
    timeline = make()
    return Detected(timeline, worker.display_score, time.monotonic() - begun, worker.kept)


@dataclass(frozen=True)
class DetectTask:
    """Videos or features to timelines with the detector `model`, which must have the hash `sha256` where it runs."""

    model: str
    sha256: str
    job: Job
    people: "PeopleOptions | None" = None

    def left_out(self, path: Path) -> None:
        """Remove what workers that died over this input left."""
        forget_away(self.job.out or cache_dir() / "rows", path)

    def __call__(self, device: str) -> Work:
        """The work on one device: item -> `Detected`, or None for a part of one."""
        if device == "cpu":
            keep_freed_memory()
        bundle, _ = bundle_for(self.model, self.job.weights)
        if bundle.sha256 != self.sha256:
            raise InputError(
                f"--model {self.model}: a worker finds another bundle under this name; pass a file that all can read"
            )
        worker = worker_for(bundle, self.job, self.people, device)

        job, people = self.job, self.people
        files = (job.weights, people and people.boxes, people and people.persons_weights, people and people.weights)
        key = making(self.sha256, replace(job, out=None, overwrite=False), people, files=files)
        outputs = Outputs(job.out, (".csv", ".json"), key, job.overwrite)

        def work(item: Item, progress: ReportProgress) -> Detected | None:
            if isinstance(item, Part):
                if isinstance(worker, TemporalWorker):
                    with fetched(item.path) as path:
                        worker.part(path, (item.number, item.parts), progress)
                return None
            if not is_away(item, outputs):
                return timed(worker, lambda: worker(item, progress))

            def here(path: Path, out: Path | None) -> Any:
                worker.job = replace(job, out=out)
                return worker(path, progress).to_json()

            document, _ = with_copies(item, _of_pictures(outputs, item, job.flow_from), here)
            return Detected(parse_timeline(document, item), worker.display_score)

        return work
