"""Labels and videos (or features) to a detector bundle with its scores and a report: the work of `vidtad train`."""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vidtad import __version__
from vidtad.errors import InputError
from vidtad.evaluation import Evaluation
from vidtad.evaluation.protocols import protocol_named
from vidtad.extractors import GIVEN, find, streams_of
from vidtad.features import Features
from vidtad.formats.label_reading import read_labels
from vidtad.formats.label_types import Labels
from vidtad.heads.registry import HEADS, head_named
from vidtad.hub.bundle import Bundle, bundle_name, save_bundle
from vidtad.labels import Check, Duration, cleaned
from vidtad.pipelines.claims import claimed_training
from vidtad.pipelines.extract.extraction import Decoding
from vidtad.pipelines.extract.flow_cache import check_flow_from
from vidtad.pipelines.train.agnostic import one_class, scores_of_videos
from vidtad.pipelines.train.callbacks import Watcher, board_of, recorded, reporter
from vidtad.pipelines.train.data import (
    Extraction,
    Foreign,
    Material,
    Split,
    check_material,
    features_of,
    find_material,
    name_of_making,
    split_videos,
    training_videos,
)
from vidtad.pipelines.train.extractor import (
    Chosen,
    Sampling,
    bundled_extractor,
    choose_extractor,
    extractor_of_features,
)
from vidtad.pipelines.train.mistakes import Operating
from vidtad.pipelines.train.report import report_html
from vidtad.pipelines.train.scoring import Data, Scorer, digest_of, final_outcome, rules_of
from vidtad.pipelines.train.third_party_features import assumption, is_bare
from vidtad.runtime.files import still_there, write_json, write_text
from vidtad.runtime.sources import Source
from vidtad.training.distributed import join, wait
from vidtad.training.loop import learns_in, train
from vidtad.training.plan import Facts, Plan, Recipe, planned, with_options
from vidtad.training.published import Published


@dataclass(frozen=True)
class TrainingJob:
    """What `train` was asked.

    `videos` or `features` (or both: then features are looked for, and put, in that folder). `val_fraction` as in
    `split_videos`. `frame_rate`: of label files that count frames. `protocol`: None for that of the preset, else
    THUMOS14's. `video_scores`: file of class scores of whole videos, which then name what the head finds when it is
    scored. `precision`: see `learns_in`. `tensorboard`: also write the curves for TensorBoard. `flow_from`: see
    `extract_file`. `options`: entries of `Plan.options` to replace, such as {"losses": {"mid_quality": "l1"}} for ReAct
    as its paper says. Beside `out` a folder `<out>.work` holds features, checkpoints and the log. Raises InputError for
    an unknown precision.
    """

    annotations: Path
    out: Path
    videos: Path | None = None
    features: Path | None = None
    model: str = "react"
    preset: str | None = None
    extractor: str | None = None
    weights: str | None = None
    sampling: Sampling = field(default_factory=Sampling)
    epochs: int | None = None
    seed: int = 0
    val_fraction: float | None = None
    protocol: str | None = None
    frame_rate: float | None = None
    device: str = "cpu"
    precision: str = "auto"
    decoding: Decoding = field(default_factory=Decoding)
    batch: int = 8
    strict: bool = False
    video_scores: Path | None = None
    tensorboard: bool = False
    flow_from: Path | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        learns_in(self.precision, self.device, self.preset)

    @property
    def work(self) -> Path:
        """Folder of everything that makes a second run go on where the first stopped."""
        return self.out.with_name(self.out.name + ".work")


@dataclass(frozen=True)
class Trained:
    """What came out. `scores` by part (`validation`, `test`), where there is one."""

    bundle: Bundle
    path: Path
    report: Path
    log: Path
    check: Check
    split: Split
    plan: Plan
    scores: Mapping[str, Evaluation]
    operating: Operating | None
    blind: Mapping[str, float]
    published: Published | None

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "bundle": str(self.path),
            "report": str(self.report),
            "log": str(self.log),
            "classes": list(self.bundle.classes),
            "operating_point": None if self.operating is None else vars(self.operating),
            "labels": self.check.to_json(),
            "split": vars(self.split),
            "settings": self.plan.to_json(),
            "reasons": list(self.plan.reasons),
            "scores": {part: result.to_json() for part, result in self.scores.items()},
            "average_mAP_without_looking": dict(self.blind),
            "published": None if self.published is None else vars(self.published),
        }


def run_training(job: TrainingJob, watcher: Watcher = Watcher()) -> Trained:
    """Check, extract, split, train, evaluate, write. A second call goes on where the first one stopped.

    Raises InputError for anything unusable (with `strict` for anything odd in the labels), RunError when
    training diverges or files cannot be written, Busy (a RunError) while another process trains the same `out`.
    """
    recipe = _recipe(job)
    with claimed_training(job.out, job.work):
        return _trained(job, recipe, watcher)


def _trained(job: TrainingJob, recipe: Recipe, watcher: Watcher) -> Trained:
    watcher, told = recorded(watcher)
    annotations = Source(job.annotations)  # what the bundle names is what was read, however long training takes
    labels_sha256 = annotations.sha256 if job.annotations.is_file() else None
    labels, material, found = _checked(job, watcher)
    if labels_sha256 is not None:
        annotations.check(last=True)
    features, chosen = _features(job, labels, material, watcher)
    data = _data(job, recipe, labels, features, watcher)
    plan = with_options(planned(recipe, data.facts, job.preset, job.epochs, job.device, job.precision), job.options)
    published = plan.published
    for reason in plan.reasons:
        watcher.say(f"settings: {reason}")
    torch.manual_seed(job.seed)
    head = recipe.head(plan, data.training)
    folder = job.work / f"training-{digest_of(plan, data, job.model, job.seed)}"
    frame = _frame(job, plan, data, chosen, watcher, labels_sha256)
    protocol, sentence = rules_of(job.protocol, published, labels.table)
    watcher.say(sentence)
    scorer = Scorer(data, frame, protocol, plan.schedule.epochs, job.device)
    with ExitStack() as stack:
        board = board_of(folder, job.tensorboard)
        if board is not None:
            stack.callback(board.close)
        result = train(
            head,
            plan.schedule,
            folder,
            seed=job.seed,
            device=job.device,
            progress=reporter(watcher, scorer, plan.schedule.epochs, board),
            evaluate=scorer if data.split.validation else None,
        )
    outcome = final_outcome(frame(result.state), data, plan, scorer, found)
    outcome = replace(outcome, records=result.records, videos=material.videos, told=told)
    bundle = outcome.bundle
    report = job.out.with_name(f"{job.out.stem}.report.html")
    if not join().rank:
        save_bundle(bundle, job.out)
        write_text(report, report_html(outcome, published))
        split = {"how": data.split.how, "train": data.split.train, "validation": data.split.validation}
        write_json(folder / "split.json", split | {"test": data.split.test})
        still_there([job.out, report, folder / "log.jsonl", *([folder / "tensorboard"] if job.tensorboard else [])])
    return Trained(
        bundle=bundle,
        path=job.out,
        report=report,
        log=folder / "log.jsonl",
        check=found,
        split=data.split,
        plan=plan,
        scores=outcome.scores,
        operating=outcome.operating,
        blind=outcome.blind,
        published=published,
    )


def _recipe(job: TrainingJob) -> Recipe:
    spec = head_named(job.model)
    if spec.recipe is None:
        trained = ", ".join(name for name, spec in HEADS.items() if spec.recipe is not None)
        raise InputError(f"--model {job.model}: cannot be trained on features; there is {trained}")
    if job.videos is None and job.features is None:
        raise InputError("nothing to train on: pass --videos DIR, or --features DIR")
    if job.flow_from is not None:
        if job.videos is None:
            raise InputError("--flow-from is for videos: pass --videos DIR, or leave it out")
        check_flow_from(job.flow_from)
    if job.val_fraction is not None and not 0 <= job.val_fraction < 1:
        raise InputError(f"--val-fraction {job.val_fraction:g}: a share of the videos lies between 0 and 1")
    if job.epochs is not None and job.epochs < 1:
        raise InputError(f"--epochs {job.epochs}: at least 1")
    if job.protocol is not None and protocol_named(job.protocol).kind.startswith("ava"):
        raise InputError(f"--protocol {job.protocol}: scores boxes of people, which {job.model} does not find")
    recipe = spec.recipe()
    if job.preset is not None and job.preset not in recipe.presets:
        known = ", ".join(recipe.presets)
        raise InputError(f"--preset {job.preset}: there is no such recipe for this model; there is {known}")
    return recipe


def _checked(job: TrainingJob, watcher: Watcher) -> tuple[Labels, Material, Check]:
    """Labels and what is there for them, reported before anything expensive begins."""
    labels = read_labels(job.annotations, frame_rate=job.frame_rate)
    stride, rate = job.sampling.stride, job.sampling.fps
    if job.videos is not None:
        convention = find(next(iter(streams_of(job.extractor or "i3d").values()))).convention
        stride, rate = stride or convention.stride, rate or convention.fps
    material = find_material(labels, job.videos, job.features, rate=rate, stride=stride, foreign=_foreign(job, labels))
    found = check_material(labels, material)
    for line in found.lines():
        watcher.say(line)
    for name, reason in material.broken.items():
        watcher.say(f"problem: {name} is left out: {reason}")
    if job.strict and (found.serious or material.broken):
        raise InputError(f"{job.annotations}: the labels are not clean (--strict); every problem is listed above")
    _split(job, labels, material.durations)  # what cannot be learnt from is said before features are made
    return labels, material, found


def _foreign(job: TrainingJob, labels: Labels) -> Foreign | None:
    """What feature files without a sidecar are taken for. The preset tells only where no videos are."""
    if job.features is None:
        return None
    return assumption(labels, job.sampling, job.model, job.preset if job.videos is None else None)


def _features(
    job: TrainingJob, labels: Labels, material: Material, watcher: Watcher
) -> tuple[dict[str, Features], Chosen | None]:
    """Features of every usable video, and the extractor that made them, where it is here."""
    extraction = chosen = None
    part = join()  # before the extractor, whose weights go to this process's own GPU
    if any(name in material.videos for name in material.durations):
        flow = None if job.flow_from is None else GIVEN
        chosen = choose_extractor(job.extractor, job.weights, job.sampling, job.device, flow)
        folder = job.features or job.work / "features" / name_of_making(chosen.loaded, job.decoding)
        own = job.features is None
        extraction = Extraction(chosen.loaded, folder, own, job.decoding, job.batch, job.flow_from)
    if part.rank:  # the first process extracts, the others find its files
        wait(part)
    features, failed = features_of(
        material,
        extraction,
        _foreign(job, labels),
        unpacked=job.work / "rows",
        progress=lambda name, done, total: watcher.progress("features", done, total, name),
    )
    if not part.rank:
        wait(part)
    for name, reason in failed.items():
        watcher.say(f"problem: {name} is left out: {reason}")
    if failed and job.strict:
        raise InputError(f"{len(failed)} videos gave no features (--strict); the reasons are given above")
    bare = next((name for name, held in features.items() if is_bare(held)), None)
    if bare is not None:
        kind, grid = features[bare].provenance.extractor or "unknown", features[bare].grid
        watcher.say(
            f"features without a sidecar are taken for {kind}: rows of {grid.span} frames every {grid.stride}, in "
            f"{bare} at {float(grid.fps):.4g} a second: they end at {grid.seconds(len(grid) - 0.5):.1f} s, "
            f"the video at {features[bare].video.duration_s:.1f} s"
        )
    chosen = chosen or extractor_of_features(next(iter(features.values())), job.weights)
    for note in () if chosen is None else chosen.notes:
        watcher.say(note)
    return features, chosen


def _split(job: TrainingJob, labels: Labels, durations: Mapping[str, Duration]) -> tuple[Labels, Split]:
    """The labels that can be used, and who learns from them. Raises InputError when nothing can be learnt or scored."""
    used = cleaned(labels, durations)
    no_class = np.isin(np.array(used.table.labels), protocol_named("thumos14").drop_labels)
    used = replace(used, table=used.table.select(~no_class[used.table.label]))
    if not len(used.table):
        raise InputError(f"{job.annotations}: no segment lies inside a video that is there; see the problems above")
    fraction = 0.0 if job.preset and job.val_fraction is None and "test" in used.table.subset else job.val_fraction
    split, table = split_videos(used, fraction, job.seed), used.table
    for part in ("validation", "test"):
        names = getattr(split, part)
        if names and not np.isin(np.array(table.videos), names)[table.video].any():
            raise InputError(f"no segment in the {part} videos ({names[0]}, ...), so nothing can be scored; label some")
    return used, split


def _data(job: TrainingJob, recipe: Recipe, labels: Labels, features: Mapping[str, Features], watcher: Watcher) -> Data:
    durations = {
        name: Duration(held.video.duration_s, float(held.grid.stride / held.grid.fps), held.video.player_start_s)
        for name, held in features.items()
    }
    used, split = _split(job, labels, durations)
    watcher.say(f"split: {split.how}")
    for warning in split.warnings:
        watcher.say(f"problem: {warning}")
    learnt = one_class(used) if recipe.agnostic(job.preset) else used
    scores = None if job.video_scores is None else scores_of_videos(job.video_scores, used)
    if learnt is not used and scores is None:
        watcher.say(
            "all classes are learnt as one, and scored as one: which class it is takes class scores of whole videos "
            "(--video-scores FILE)"
        )
    table = learnt.table
    inside = np.isin(np.array(table.videos), split.train)[table.video]
    numbers = list(dict.fromkeys(table.label[inside].tolist()))
    if not numbers:
        raise InputError("the training videos hold no segment; label more of them or choose another --val-fraction")
    classes = tuple(table.labels[number] for number in numbers)
    unseen = sorted({table.labels[number] for number in table.label[~inside].tolist()} - set(classes))
    if unseen:
        watcher.say(
            f"problem: no training video has {', '.join(unseen)}: it cannot be found, and counts as AP 0 where scored"
        )
    if len(classes) == 1:
        rest = f": {recipe.one_class_note}" if recipe.one_class_note else ""
        watcher.say(f"one class only ({classes[0]}){rest}")
    training = training_videos(learnt, features, split.train, numbers)
    grids = [held.grid for held in features.values()]
    step_s = float(np.median([float(grid.stride / grid.fps) for grid in grids]))
    facts = Facts.of(training, len(classes), step_s, grids[0].span / grids[0].stride)
    scored = learnt if scores is None else used
    return Data(scored, features, split, classes, training, facts, scores, recipe.fuses_geometric)


def _frame(
    job: TrainingJob, plan: Plan, data: Data, chosen: Chosen | None, watcher: Watcher, labels_sha256: str | None
) -> Callable[[Mapping[str, Tensor]], Bundle]:
    """A function that puts head weights into the bundle of this run."""
    extractor = bundled_extractor(next(iter(data.features.values())), chosen, job.extractor)
    for sentence in extractor.notes:
        watcher.say(sentence)
    held = np.concatenate([video.labels for video in data.training])
    training: dict[str, Any] = {
        "vidtad": __version__,
        "labels_sha256": labels_sha256,
        "split": data.split.how,
        "videos": {part: len(getattr(data.split, part)) for part in ("train", "validation", "test")},
        "segments": {name: int((held == number).sum()) for number, name in enumerate(data.classes)},
        "seed": job.seed,
        "preset": job.preset,
        "selection": "weights of the last epoch; nothing was chosen by a score but display_score, on validation",
        **plan.to_json(),
    }
    if next(iter(data.features.values())).provenance.settings.get("random_weights"):
        training["random_weights"] = True

    def bundle(state: Mapping[str, Tensor]) -> Bundle:
        return Bundle(
            name=bundle_name(job.out.stem),
            head=job.model,
            head_config=plan.to_json()["network"],
            classes=data.classes,
            head_weights={key: value.detach().cpu() for key, value in state.items()},
            decoding=plan.decoding,
            training=training,
            **extractor.fields,
        )

    return bundle
