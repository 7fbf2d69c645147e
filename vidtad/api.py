"""The same work as the command line, from Python: `vidtad.extract`, `detect`, `train`, `evaluate`.

Each is one call; the rungs below (`vidtad.video`, `vidtad.features`, `vidtad.pipelines`) are public as well.
"""

from collections.abc import Iterable
from dataclasses import fields
from fractions import Fraction
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vidtad.errors import InputError
from vidtad.evaluation import Evaluation, evaluate_files
from vidtad.features import Features
from vidtad.heads.person.options import PeopleOptions
from vidtad.heads.registry import head_named
from vidtad.pipelines.detect.dispatch import bundle_for, worker_for
from vidtad.pipelines.detect.worker import Job
from vidtad.pipelines.extract.extraction import Decoding, extract_file
from vidtad.pipelines.extract.load import load_given
from vidtad.runtime.devices import pick_device
from vidtad.timeline import Timeline, merge

if TYPE_CHECKING:
    from vidtad.pipelines.train.person import PeopleTrained
    from vidtad.pipelines.train.temporal import Trained

AnyPath = str | PathLike[str]

__all__ = ["PeopleOptions", "detect", "evaluate", "extract", "train"]


def extract(
    video: AnyPath,
    extractor: str | None = None,
    *,
    weights: str | None = None,
    out: AnyPath = "features",
    window: int | None = None,
    stride: int | None = None,
    fps: Fraction | int | None = None,
    device: str = "auto",
) -> Features:
    """Feature rows of one video, also written to `<out>/<stem>.npy` with a sidecar.

    `extractor` (default: i3d, or that of a bundle given as `weights`) and `weights` are what `vidtad extract` takes;
    window and stride in frames. A finished file of the same making is read back instead. Raises InputError or RunError
    with one sentence.
    """
    rate = None if fps is None else Fraction(fps)
    loaded = load_given(extractor, weights, device=pick_device(device), window=window, stride=stride, fps=rate)
    return extract_file(Path(video), loaded, Path(out), decoding=Decoding(assumed_fps=rate)).features


def detect(
    inputs: AnyPath | Iterable[AnyPath],
    model: AnyPath = "react",
    *,
    weights: str | None = None,
    out: AnyPath | None = None,
    min_score: float = 0.0,
    device: str = "auto",
    batch: int = 8,
    people: PeopleOptions | None = None,
) -> Timeline:
    """One timeline of a video or feature file, or of several; nothing is written unless `out` names a folder.

    `model` is a name of `vidtad models list` or the path of a bundle, `weights` replaces the extractor's. `batch`:
    windows at once. `people` is for detectors that say who does what: their timeline has `people` too. Raises
    InputError for unusable input, RunError for failed work.
    """
    bundle, _ = bundle_for(model if isinstance(model, str) else Path(model), weights)
    job = Job(out=None if out is None else Path(out), weights=weights, min_score=min_score, batch=batch)
    worker = worker_for(bundle, job, people, pick_device(device))
    paths = [inputs] if isinstance(inputs, str | PathLike) else list(inputs)
    return merge(worker(Path(path)) for path in paths)


def train(
    annotations: AnyPath,
    out: AnyPath,
    *,
    videos: AnyPath | None = None,
    model: str = "react",
    weights: str | None = None,
    epochs: int | None = None,
    device: str = "auto",
    **options: Any,
) -> "Trained | PeopleTrained":
    """Train a detector of your own classes on labelled videos and write one bundle to `out`.

    `model`: `react` or `actionformer` learn from segments; `linear`, `acar`, `acfb` and `action-transformer` from
    rows of person boxes. `options` are further fields of `vidtad.pipelines.train.temporal.TrainingJob` (features,
    preset, extractor, ...) or of `vidtad.heads.person.job.PeopleJob` (start, trunk, label_map, ...). The result has
    `bundle`, `path`, `log` and `scores`. A second call goes on where the first one stopped. Raises InputError for
    anything unusable, RunError for failed work.
    """
    from vidtad.heads.person.job import PeopleJob
    from vidtad.pipelines.train.person import run_people_training
    from vidtad.pipelines.train.temporal import TrainingJob, run_training

    kind = PeopleJob if head_named(model).tells_who else TrainingJob
    unknown = sorted(options.keys() - {field.name for field in fields(kind)})
    if unknown:
        raise InputError(f"training {model} takes no option {unknown[0]!r}")
    named = {name for name, value in options.items() if value is not None}
    paths = {"features", "flow_from", "start", "label_map"} & named
    given: dict[str, Any] = {
        "annotations": Path(annotations),
        "out": Path(out),
        "model": model,
        "weights": weights,
        "epochs": epochs,
        "device": pick_device(device),
        **options,
        **{name: Path(options[name]) for name in paths},
    }
    if kind is TrainingJob:
        return run_training(TrainingJob(**given, videos=None if videos is None else Path(videos)))
    if videos is None:
        raise InputError(f"{model} learns from videos: name their folder")
    return run_people_training(PeopleJob(**given, videos=Path(videos)))


def evaluate(truth: AnyPath, predictions: AnyPath, protocol: str | None = None, **options: Any) -> Evaluation:
    """Scores of a prediction file (or folder of timelines) against ground truth.

    `options` are those of `vidtad.evaluation.evaluate_files`: subset, tiou, ties, extras, ... Raises InputError for
    unusable files.
    """
    return evaluate_files(Path(truth), Path(predictions), protocol, **options)
