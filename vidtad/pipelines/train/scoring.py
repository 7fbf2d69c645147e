"""Scores of a bundle on held-out videos, in memory: during training, and at its end."""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from torch import Tensor, nn

from vidtad.evaluation import Evaluation, Extras
from vidtad.evaluation.files import TRAINING_PROTOCOL, add_extras, detect_protocol
from vidtad.evaluation.protocols import Protocol, protocol_named
from vidtad.evaluation.scoring import evaluate
from vidtad.features import Features, StoredRows, content_sha256
from vidtad.formats.label_types import Labels
from vidtad.formats.tables import Annotations, Predictions
from vidtad.heads.registry import load_detector
from vidtad.hub.bundle import Bundle
from vidtad.labels import Check
from vidtad.pipelines.detect.temporal import detect_features
from vidtad.pipelines.fuse.segments import VideoScores, fuse_timeline
from vidtad.pipelines.train.data import Split
from vidtad.pipelines.train.mistakes import best_operating_point, blind_predictions
from vidtad.pipelines.train.report import Outcome
from vidtad.training.plan import Facts, Plan
from vidtad.training.published import Published
from vidtad.training.video import TrainingVideo

KEPT = ("protocol", "average_mAP", "mAP", "tiou_thresholds", "videos", "instances", "ap", "bootstrap")
"""Entries of an evaluation that a bundle keeps."""
SAMPLES = 300
"""Resamplings of the videos for the interval of a score."""
ROUNDS = 10
"""How often validation is scored within a run."""


@dataclass(frozen=True)
class Data:
    """What is trained on and scored on: labels cut to what is there, features, split, classes.

    `video_scores`: class scores of whole videos, which then name what the head finds; `labels` are what is scored on.
    """

    labels: Labels
    features: Mapping[str, Features]
    split: Split
    classes: tuple[str, ...]
    training: list[TrainingVideo]
    facts: Facts
    video_scores: VideoScores | None = None
    geometric: bool = True

    def truth(self, names: tuple[str, ...]) -> Annotations:
        """Annotations of these videos alone."""
        table = self.labels.table
        inside = np.isin(np.array(table.videos), names)
        kept = table.select(inside[table.video])
        return replace(
            kept,
            videos=tuple(name for name in table.videos if name in names),
            subset=(),
            duration=table.duration[inside],
            video=(np.cumsum(inside) - 1)[kept.video],
        )


class Scorer:
    """Scores weights on the validation videos, `ROUNDS` times in a run of `epochs`.

    `bundle_of` puts head weights into a bundle. `epoch` is kept up to date by who watches the loop.
    """

    def __init__(
        self,
        data: Data,
        bundle_of: Callable[[Mapping[str, Tensor]], Bundle],
        protocol: Protocol,
        epochs: int,
        device: str,
    ):
        self.data, self.bundle_of, self.protocol, self.epochs, self.device = data, bundle_of, protocol, epochs, device
        self.epoch = -1
        self.every = max(1, epochs // ROUNDS)

    def __call__(self, network: nn.Module) -> Mapping[str, float]:
        """Average mAP; nothing in the epochs between, and in the last, which is scored when all is done."""
        if (self.epoch + 1) % self.every or self.epoch + 1 == self.epochs:
            return {}
        result, _ = self.score(self.bundle_of(network.state_dict()), self.data.split.validation)
        return {"average_mAP": result.average_mAP}

    def score(self, bundle: Bundle, names: tuple[str, ...]) -> tuple[Evaluation, Predictions]:
        """Scores of a bundle on some videos, and what it found in them."""
        detector = load_detector(bundle, self.device)
        rows = []
        for name in names:
            found = detect_features(self.data.features[name], detector, name)
            if self.data.video_scores is not None:
                found = fuse_timeline(found, self.data.video_scores, geometric=self.data.geometric)
            rows += [(name, s.label, s.start_s, s.end_s, s.score) for s in found.results[name]]
        predictions = Predictions.from_rows(rows)
        return evaluate(self.data.truth(names), predictions, self.protocol), predictions

    def final(self, bundle: Bundle, names: tuple[str, ...]) -> tuple[Evaluation, Predictions]:
        """The same with an interval of the score, where the protocol has one."""
        result, predictions = self.score(bundle, names)
        if self.protocol.kind != "temporal" or len(names) < 2:
            return result, predictions
        extras = Extras(bootstrap=SAMPLES, proposals=False)
        return add_extras(result, self.data.truth(names), predictions, (), extras), predictions

    def blind(self, names: tuple[str, ...]) -> float:
        """Average mAP of a detector that never looks at a video."""
        table = replace(self.data.labels.table, subset=())
        found = blind_predictions(table, self.data.split.train, names)
        return evaluate(self.data.truth(names), found, self.protocol).average_mAP


def rules_of(asked: str | None, published: Published | None, truth: Annotations) -> tuple[Protocol, str]:
    """The protocol of a run, and a sentence on which it is and whether `vidtad evaluate` would take another one."""
    name, why = asked, "as asked"
    if name is None:
        name, why = (published.protocol, "that of the preset") if published else (TRAINING_PROTOCOL, "the default here")
    protocol, usual = protocol_named(name), detect_protocol(truth)
    sentence = f"scores: protocol {protocol.line()} ({why})"
    if usual.name != protocol.name:
        sentence += (
            f"; `vidtad evaluate` takes {usual.name} for such labels: pass it --protocol {protocol.name} to compare"
        )
    return protocol, sentence


def final_outcome(bundle: Bundle, data: Data, plan: Plan, scorer: Scorer, check: Check) -> Outcome:
    """The bundle with its scores and the display score chosen on validation, and what the report shows."""
    scores: dict[str, Evaluation] = {}
    predictions = truth = operating = None
    decoding = dict(plan.decoding)
    if data.split.validation:
        scores["validation"], predictions = scorer.final(bundle, data.split.validation)
        truth = data.truth(data.split.validation)
        operating = best_operating_point(truth, predictions, scorer.protocol)
        decoding |= {} if operating is None else {"display_score": operating.score}
    if data.split.test:
        scores["test"], _ = scorer.final(bundle, data.split.test)
    recorded = {
        part: {key: value for key, value in result.to_json().items() if key in KEPT} for part, result in scores.items()
    }
    blind = {part: scorer.blind(getattr(data.split, part)) for part in scores}
    for part, score in blind.items():
        recorded[part]["average_mAP_without_looking"] = score
    return Outcome(
        bundle=replace(bundle, decoding=decoding, scores=recorded),
        split=data.split,
        scores=scores,
        protocol=scorer.protocol,
        check=check,
        plan=plan,
        truth=truth,
        predictions=predictions,
        operating=operating,
        blind=blind,
    )


def digest_of(plan: Plan, data: Data, model: str, seed: int) -> str:
    """Name of a run: equal for equal settings, labels and features."""
    making = [
        (name, held.provenance.fingerprint() if held.provenance.source_sha256 else content_sha256(_place(held)))
        for name, held in sorted(data.features.items())
    ]
    segments = [(v.name, v.segments.round(6).tolist(), v.labels.tolist()) for v in data.training]
    parts = [plan.to_json(), seed, model, data.classes, making, segments, data.split.validation]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:12]


def _place(held: Features) -> Path:
    """The array file."""
    return held.values.path if isinstance(held.values, StoredRows) else Path(held.video.path)
