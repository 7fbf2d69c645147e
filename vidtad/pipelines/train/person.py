"""Labelled boxes and videos to a bundle of a person-box head, with its frame mAP on held-out videos."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vidtad import __version__
from vidtad.arrays import video_of
from vidtad.errors import InputError
from vidtad.evaluation import Evaluation
from vidtad.evaluation.frames import evaluate_frames
from vidtad.evaluation.protocols import protocol_named
from vidtad.extractors.keyframe_stream import KeyClip
from vidtad.extractors.keyframes import KeyframeConvention
from vidtad.formats.ava import Boxes, ava_classes, image_key, read_label_map
from vidtad.formats.person_labels import PersonLabels, read_person_labels, targets_of
from vidtad.heads.person.boxes import People
from vidtad.heads.person.bundle import parts_of, person_bundle, sampling_of
from vidtad.heads.person.feature_bank import Banks, load_banks, save_banks
from vidtad.heads.person.initial_weights import pretrained, starting_network, usual_trunk
from vidtad.heads.person.job import PeopleJob
from vidtad.heads.person.recipes import find_preset, shortened
from vidtad.heads.person.scoring import Scorer
from vidtad.heads.person.training import Clips, Keyframe, PeopleHead, fill_banks
from vidtad.hub.bundle import Bundle, bundle_name, save_bundle
from vidtad.models.acfb import AcfbHead
from vidtad.models.people import PersonNetwork
from vidtad.models.roi import POSES
from vidtad.pipelines.claims import claimed_training
from vidtad.pipelines.extract.extraction import digest
from vidtad.pipelines.train.data import files_inside
from vidtad.runtime.files import VIDEO_SUFFIXES, still_there
from vidtad.runtime.sources import read_hashed
from vidtad.training.distributed import join, wait
from vidtad.training.loop import Schedule, learns_in, train

BATCHES = 1500


@dataclass(frozen=True)
class PeopleTrained:
    """What came out: the bundle, its file, its validation scores (None without held-out videos), the log's records,
    and the names of the held-out videos."""

    bundle: Bundle
    path: Path
    scores: Evaluation | None
    records: list[dict[str, Any]]
    held: tuple[str, ...] = ()

    @property
    def log(self) -> Path:
        """Losses and scores of every batch and epoch, a JSON record a line."""
        return self.path.with_name(self.path.name + ".work") / "log.jsonl"

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "bundle": str(self.path),
            "log": str(self.log),
            "classes": list(self.bundle.classes),
            "held_out": list(self.held),
            "settings": dict(self.bundle.training),
            "scores": {} if self.scores is None else {"validation": self.scores.to_json()},
        }


def run_people_training(
    job: PeopleJob, progress: Callable[[Mapping[str, Any]], None] = lambda _: None
) -> PeopleTrained:
    """Read, split, train, evaluate with the annotated boxes, write. A second call goes on where the first stopped.

    Raises InputError for anything unusable, RunError when training diverges or files cannot be written, Busy (a
    RunError) while another process trains the same `out`.
    """
    parts_of(job.model)
    job = with_preset(job)
    if job.start is None and job.weights is None:
        job = replace(job, weights=pretrained(job.trunk or usual_trunk(job.model)))
    with claimed_training(job.out, job.work):
        return _trained(job, progress)


def _trained(job: PeopleJob, progress: Callable[[Mapping[str, Any]], None]) -> PeopleTrained:
    part = join()
    names = read_label_map(job.label_map) if job.label_map is not None else None
    labels, labels_sha256 = read_hashed(job.annotations, lambda path: read_person_labels(path, names))
    classes = _classes(labels.classes)
    training, held = _split(labels, classes, job)
    torch.manual_seed(job.seed)
    network, trunk, convention = starting_network(job, len(classes), _poses(classes))
    if part.rank:  # the first process fills banks, the others find its files
        wait(part)
    banks = _banks(job, network, training, convention)
    if not part.rank:
        wait(part)
    changes: dict[str, Any] = {"batch_size": job.batch, "augmentation": job.augmentation, "losses": job.losses}
    head = PeopleHead(network, training, convention, banks=banks, **changes)
    schedule = _schedule(job, head)

    def score(_: Any) -> dict[str, float]:
        return {"frame_mAP": frame_map(network, held, convention, classes, device=job.device).average_mAP}

    last = replace(schedule, evaluate_from=max(schedule.evaluate_from, schedule.epochs - 1))
    result = train(
        head, last, job.work, seed=job.seed, device=job.device, progress=progress, evaluate=score if held else None
    )
    network.load_state_dict(result.state)
    found = frame_map(network, held, convention, classes, device=job.device) if held else None
    bundle = _bundle(job, network, trunk, convention, classes, schedule, found, labels_sha256)
    names_held = tuple(sorted({key.video.stem for key in held}))
    if not part.rank:
        save_bundle(bundle, job.out)
        still_there([job.out, job.work / "log.jsonl"])
    return PeopleTrained(bundle, job.out, found, result.records, names_held)


def frame_map(
    network: PersonNetwork,
    data: Sequence[Keyframe],
    convention: KeyframeConvention,
    classes: Sequence[str],
    *,
    device: str = "cpu",
    batch: int = 4,
) -> Evaluation:
    """Frame mAP (AVA's rules, box IoU 0.5) of a network on labelled keyframes, given their boxes."""
    scorer = Scorer(network.eval().to(device), convention, device=device)
    ids = dict(enumerate(classes, 1))
    truth: list[tuple[Any, ...]] = []
    found: list[tuple[Any, ...]] = []
    with closing(Clips(convention)) as clips:
        for video in sorted({key.video for key in data}):
            keys = sorted((key for key in data if key.video == video), key=lambda key: key.time_s)
            shown = ((_key_clip(key, clips), People(key.boxes.astype(np.float32), key.surely)) for key in keys)
            for key, scored in zip(keys, scorer(_batched(shown, batch)), strict=True):
                image = image_key(video.stem, key.time_s)
                for box, targets, scores in zip(key.boxes.tolist(), key.targets, scored.scores, strict=True):
                    truth += [(image, box, number + 1, 0.0) for number in np.flatnonzero(targets)]
                    found += [(image, box, number + 1, float(score)) for number, score in enumerate(scores)]
    return evaluate_frames(_boxes(truth), _boxes(found), protocol_named("ava"), ids)


def _batched(shown: Any, size: int) -> Any:
    pending: list[Any] = []
    for pair in shown:
        pending.append(pair)
        if len(pending) == size:
            yield tuple(zip(*pending, strict=True))
            pending = []
    if pending:
        yield tuple(zip(*pending, strict=True))


def _key_clip(key: Keyframe, clips: Clips) -> KeyClip:
    pictures, (height, width) = clips(key)
    # The picture itself is not looked at here, only its size.
    return KeyClip(key.time_s, np.broadcast_to(np.uint8(0), (height, width, 3)), (pictures,))


def _boxes(rows: list[tuple[Any, ...]]) -> Boxes:
    images = {image: number for number, image in enumerate(dict.fromkeys(row[0] for row in rows))}
    return Boxes(
        tuple(images),
        np.array([images[row[0]] for row in rows], np.int64),
        np.array([row[1] for row in rows], np.float64).reshape(-1, 4),
        np.array([row[2] for row in rows], np.int64),
        np.array([row[3] for row in rows], np.float64),
    )


def _classes(used: Sequence[str]) -> tuple[str, ...]:
    """AVA's 60 evaluated classes for labels of AVA, else the names in use."""
    known = {entry.name: entry.evaluated for entry in ava_classes()}
    if len(used) > POSES and all(name in known for name in used):
        return tuple(name for name, evaluated in known.items() if evaluated)
    return tuple(used)


def _poses(classes: Sequence[str]) -> int:
    return POSES if tuple(classes) == _classes([entry.name for entry in ava_classes()]) else 0


def _split(labels: PersonLabels, classes: Sequence[str], job: PeopleJob) -> tuple[list[Keyframe], list[Keyframe]]:
    files: dict[str, Path] = {}
    for path in files_inside(job.videos, VIDEO_SUFFIXES):
        other = files.setdefault(video_of(path), path)
        if other != path and video_of(path) in labels.videos:
            raise InputError(f"{other} and {path} have one name and the labels do not say which; move one away")
    there = [name for name in labels.videos if name in files]
    if not there:
        raise InputError(f"{job.videos}: none of the {len(labels.videos)} labelled videos is here")
    order = sorted(there, key=lambda name: hashlib.sha256(f"{job.seed} {name}".encode(errors="surrogatepass")).digest())
    held = set(order[: round(len(order) * job.val_fraction)]) if len(order) > 1 else set()
    parts: tuple[list[Keyframe], list[Keyframe]] = ([], [])
    for name in there:
        for second, people in sorted(labels.videos[name].items()):
            if people:
                boxes = np.array(list(people), np.float64)
                key = Keyframe(files[name], second, boxes, targets_of(list(people.values()), classes))
                parts[name in held].append(key)
    if not parts[0]:
        raise InputError(f"{job.annotations}: no labelled video is left to train on; lower the held-out share")
    return parts


def _banks(
    job: PeopleJob, network: PersonNetwork, data: Sequence[Keyframe], convention: KeyframeConvention
) -> Banks | None:
    """Banks of all videos, read from the work folder as they are asked for; first filled there, a video at a time."""
    if not isinstance(network.head, AcfbHead):
        return None
    filling = network.bank if network.bank is not None else network.head
    state = {**network.trunk.state_dict(), **{f"bank.{key}": value for key, value in filling.state_dict().items()}}
    labelled = [(str(key.video.name), key.time_s, np.round(key.boxes, 6).tolist()) for key in data]
    made_by = hashlib.sha256(f"{digest(state)}{convention.to_json()}{labelled}".encode()).hexdigest()
    folder = job.work / "banks"
    videos = sorted({key.video for key in data})
    there = {video for video, _ in load_banks(videos, folder, made_by=made_by)}
    for video in videos:
        if video not in there:
            keys = [key for key in data if key.video == video]
            save_banks(fill_banks(network, keys, convention, device=job.device), folder, made_by=made_by)
    return load_banks(videos, folder, made_by=made_by)


def with_preset(job: PeopleJob) -> PeopleJob:
    """`job` with what its preset says and it leaves open. Raises InputError for no preset, or one of another head."""
    if job.preset is None:
        return job
    preset = find_preset(job.preset)
    if preset.model != job.model:
        raise InputError(f"preset {job.preset} is for --model {preset.model}, not {job.model}")
    schedule = job.schedule or (preset.schedule if job.epochs is None else shortened(preset.schedule, job.epochs))
    job = replace(job, schedule=schedule, augmentation=job.augmentation or preset.augmentation)
    if job.start is not None:
        return job
    trunk = job.trunk or preset.trunk
    return replace(job, trunk=trunk, config=job.config or preset.config)


def _schedule(job: PeopleJob, head: PeopleHead) -> Schedule:
    """Asked for; else from nothing AdamW at 1e-3, from trained weights at 1e-4; about `BATCHES` batches, cosine."""
    precision = learns_in("float32" if job.precision == "auto" else job.precision, job.device)
    if job.schedule is not None:
        return job.schedule if job.precision == "auto" else replace(job.schedule, precision=precision)
    epochs = job.epochs or min(100, max(5, round(BATCHES / head.steps(0))))
    lr = 1e-4 if head.network.freeze_norm else 1e-3
    warmup = min(1.0, 0.05 * epochs)
    return Schedule(epochs=epochs, lr=lr, decay="cosine", warmup_epochs=warmup, clip_norm=1.0, precision=precision)


def _bundle(
    job: PeopleJob,
    network: PersonNetwork,
    trunk: str,
    convention: KeyframeConvention,
    classes: Sequence[str],
    schedule: Schedule,
    found: Evaluation | None,
    labels_sha256: str,
) -> Bundle:
    training = {
        "annotations_sha256": labels_sha256,
        "schedule": {key: list(v) if isinstance(v, tuple) else v for key, v in asdict(schedule).items()},
        "batch": job.batch,
        "seed": job.seed,
        "started_from": str(job.start.name if job.start else job.weights),
        "vidtad": __version__,
    }
    scores = {}
    if found is not None:
        per_class = {name: _number(ap[0]) for name, ap in zip(classes, found.ap, strict=True)}
        scores["validation"] = {
            "protocol": "ava, annotated boxes",
            "frame_mAP": found.average_mAP,
            "per_class": per_class,
        }
    return person_bundle(
        bundle_name(job.out.stem),
        job.model,
        network,
        trunk=trunk,
        classes=classes,
        sampling=sampling_of(convention),
        training=training,
        scores=scores,
    )


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
