"""A head that classifies every step by itself and joins neighbouring steps into segments; and a format."""

from dataclasses import asdict, dataclass

import numpy as np

from vidtad.formats.interchange import Format
from vidtad.heads.spec import TEMPORAL, HeadSpec


@dataclass(frozen=True)
class Decoding:
    threshold: float = 0.5
    display_score: float = 0.5


@dataclass(frozen=True)
class Config:
    in_channels: int
    classes: int


class Detector:
    def __init__(self, bundle, device="cpu", precision="float32"):
        import torch

        from vidtad.hub.fields import known_fields
        from vidtad.models.loading import load_exactly

        config = known_fields(Config, bundle.head_config, f"bundle {bundle.name}: head_config")
        self.decoding = known_fields(Decoding, bundle.decoding, f"bundle {bundle.name}: decoding")
        self.bundle, self.precision, self.warnings = bundle, precision, ()
        self.display_score, self.device = self.decoding.display_score, device
        self.network = torch.nn.Linear(config.in_channels, config.classes)
        load_exactly(self.network, bundle.head_weights)
        self.network.to(device)

    def __call__(self, values, progress=lambda done, total: None):
        import torch

        from vidtad.postprocess import Detections

        with torch.inference_mode():
            steps = torch.from_numpy(np.array(values, np.float32)).to(self.device)
            scores = self.network(steps).sigmoid().cpu().numpy()
        found = []
        for label, curve in enumerate(scores.T):
            edges = np.flatnonzero(np.diff(np.r_[False, curve >= self.decoding.threshold, False]))
            found += [(start, end, curve[start:end].mean(), label) for start, end in edges.reshape(-1, 2)]
        rows = np.array(sorted(found, key=lambda row: -row[2]), np.float64).reshape(-1, 4)
        progress(1, 1)
        return Detections(rows[:, :2], rows[:, 2], rows[:, 3].astype(np.int64))


class Learner:
    """One video a batch."""

    def __init__(self, config, videos):
        import torch

        self.network, self.videos = torch.nn.Linear(config.in_channels, config.classes), videos

    def identity(self):
        return [video.name for video in self.videos]

    def parameters(self, lr):
        return [{"params": list(self.network.parameters()), "lr": lr}]

    def steps(self, epoch):
        return len(self.videos)

    def batches(self, epoch, seed, first=0, part=None):
        import torch

        order = np.random.default_rng((seed, epoch)).permutation(len(self.videos))
        for video in [self.videos[number] for number in order[first:]]:
            wanted = np.zeros((len(video.values), self.network.out_features), np.float32)
            for (start, end), label in zip(video.segments.round().astype(int).clip(0), video.labels, strict=True):
                wanted[start:end, label] = 1
            yield torch.from_numpy(np.array(video.values, np.float32)), torch.from_numpy(wanted)

    def loss(self, batch, position):
        from torch.nn.functional import binary_cross_entropy_with_logits

        return {"classes": binary_cross_entropy_with_logits(self.network(batch[0]), batch[1])}


class Recipe:
    presets, fuses_geometric, one_class_note = {}, False, ""

    def agnostic(self, preset):
        return False

    def plan(self, facts, preset):
        from vidtad.training.loop import Schedule
        from vidtad.training.plan import Plan

        return Plan(Config(facts.channels, facts.classes), Schedule(epochs=20, lr=0.1), {}, asdict(Decoding()))

    def head(self, plan, videos):
        return Learner(plan.config, videos)


HEAD = HeadSpec(
    name="threshold",
    says="every step by itself",
    task=TEMPORAL,
    feeds="features",
    decoding=lambda: Decoding,
    load=Detector,
    recipe=Recipe,
)
LINES = Format("a line a segment", lambda t: {".lines": "".join(f"{s.label}\n" for r in t.results.values() for s in r)})
