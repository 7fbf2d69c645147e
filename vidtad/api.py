"""The same work as the command line, from Python: `vidtad.extract`, `vidtad.detect`, `vidtad.evaluate`.

Each is one call; the rungs below (`vidtad.video`, `vidtad.features`, `vidtad.pipelines`) are public as well.
"""

from collections.abc import Iterable
from fractions import Fraction
from os import PathLike
from pathlib import Path
from typing import Any

from vidtad.checkpoints import resolve_model
from vidtad.devices import pick_device
from vidtad.evaluation import Evaluation, evaluate_files
from vidtad.features import Features
from vidtad.pipelines.extraction import Decoding, extract_file, load_extractor
from vidtad.pipelines.people.timelines import worker_for
from vidtad.pipelines.timelines import Job
from vidtad.timeline import Timeline, merge

AnyPath = str | PathLike[str]


def extract(
    video: AnyPath,
    extractor: str = "i3d",
    *,
    weights: str | None = None,
    out: AnyPath = "features",
    window: int | None = None,
    stride: int | None = None,
    fps: Fraction | int | None = None,
    device: str = "auto",
) -> Features:
    """Feature rows of one video, also written to `<out>/<stem>.npy` with a sidecar.

    `extractor` and `weights` are what `vidtad extract --extractor --weights` take; window and stride in frames. A
    finished file of the same making is read back instead. Raises InputError or RunError with one sentence.
    """
    rate = None if fps is None else Fraction(fps)
    loaded = load_extractor(
        extractor, weights, device=pick_device(device), window=window, stride=stride, fps=rate
    )
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
) -> Timeline:
    """One timeline of a video or feature file, or of several; nothing is written unless `out` names a folder.

    `model` is a name of `vidtad models list` or the path of a bundle, `weights` replaces the extractor's. Raises
    InputError for unusable input, RunError for failed work.
    """
    bundle, _ = resolve_model(model if isinstance(model, str) else Path(model))
    job = Job(out=None if out is None else Path(out), weights=weights, min_score=min_score, batch=batch)
    worker = worker_for(bundle, job, device=pick_device(device))
    paths = [inputs] if isinstance(inputs, str | PathLike) else list(inputs)
    return merge(worker(Path(path)) for path in paths)


def evaluate(truth: AnyPath, predictions: AnyPath, protocol: str | None = None, **options: Any) -> Evaluation:
    """Scores of a prediction file (or folder of timelines) against ground truth.

    `options` are those of `vidtad.evaluation.evaluate_files`: subset, tiou, ties, extras, ... Raises InputError for
    unusable files.
    """
    return evaluate_files(Path(truth), Path(predictions), protocol, **options)
