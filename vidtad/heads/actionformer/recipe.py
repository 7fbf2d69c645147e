"""How `vidtad train` trains ActionFormer: as published, or scaled to the data."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace

import numpy as np

from vidtad.errors import InputError
from vidtad.heads.actionformer.presets import (
    EGO4D_VARIANTS,
    PRESETS,
    ActionFormerDecoding,
    ActionFormerPreset,
    ActionFormerTraining,
)
from vidtad.heads.actionformer.training import ActionFormerHead, ActionFormerSequences
from vidtad.models.actionformer import ActionFormer
from vidtad.models.actionformer_config import ActionFormerConfig
from vidtad.models.actionformer_losses import LossConfig
from vidtad.training.augment import spliced
from vidtad.training.loop import Schedule
from vidtad.training.plan import Facts, Plan
from vidtad.training.published import FeatureKind, Published
from vidtad.training.video import TrainingVideo

_THIRDS = (0.3, 0.4, 0.5, 0.6, 0.7)
_TENTHS = (0.1, 0.2, 0.3, 0.4, 0.5)
_LATE = (0.5, 0.75, 0.95)
_README = "README of the released weights"
_FUSED = f"{_README}, with class scores of whole videos from elsewhere"
_PUBLISHED = {
    "thumos14": Published(_README, "thumos14", _THIRDS, (0.8213, 0.7780, 0.7095, 0.5940, 0.4387), 0.6683),
    "activitynet-i3d": Published(_FUSED, "actionformer", _LATE, (0.5429, 0.3671, 0.0824), 0.3603),
    "activitynet-tsp": Published(_FUSED, "actionformer", _LATE, (0.5467, 0.3781, 0.0836), 0.3656),
    "epic100-verb": Published(_README, "epic", _TENTHS, (0.2658, 0.2542, 0.2415, 0.2229, 0.1909), 0.2351),
    "epic100-noun": Published(_README, "epic", _TENTHS, (0.2521, 0.2411, 0.2266, 0.2047, 0.1697), 0.2188),
}
FLOOR = 1e-8
"""Learning rate at the end of the released schedules."""


def schedule_of(training: ActionFormerTraining) -> Schedule:
    """The released schedule of a preset."""
    return Schedule(
        epochs=training.epochs,
        lr=training.lr,
        weight_decay=training.weight_decay,
        decay="cosine",
        floor=FLOOR / training.lr,
        warmup_epochs=training.warmup_epochs,
        warmup_complete=True,
        clip_norm=training.clip_norm,
        ema=training.ema,
    )


def _ego4d(channels: int) -> tuple[ActionFormerPreset, Published]:
    """The Ego4D model that reads features of this width, and its published score."""
    of_width = {preset.network.inputs: (name, preset) for name, preset in EGO4D_VARIANTS.items()}
    if channels not in of_width:
        known = ", ".join(f"{width} ({name})" for width, (name, _) in of_width.items())
        raise InputError(f"--preset ego4d: features are {channels} wide; released models read {known}")
    name, preset = of_width[channels]
    return preset, Published(f"{_README}, features {name}", "ego4d", (), (), preset.score)


class ActionFormerRecipe:
    """ActionFormer, as published or scaled.

    The rule, for n training segments with lengths in rows:
    - pyramid: published reaches (0-4, 4-8, 8-16, ...), as many levels as bring half the 95th percentile into the
      last but one, between 3 and 6;
    - sequences: 8 times the 95th percentile, between 128 and 2304 (published) rows, never above the longest video;
    - below 128 videos, sequences of that length joined anew from pieces of the videos, cut where nothing happens,
      make up the number;
    - width: 64 below 200 segments, 128 below 3000, 256 from there (published: 512), 4 heads, window 9;
    - batches of 4; as many epochs as give 1200 of them, and at least 20, a tenth of which warm up;
    - learning rate 1e-3 with cosine decay, gradient norm at most 1, moving average of the weights.

    Of the presets, those of ActivityNet learn a single class, which one it is being left to scores of whole videos
    from elsewhere; of Ego4D's the one is meant that reads features of this width (SlowFast 2304, Omnivore 1536,
    EgoVLP 256, side by side in this order).
    """

    presets: Mapping[str, FeatureKind] = {name: preset.features for name, preset in PRESETS.items()}
    fuses_geometric = True
    one_class_note = ""
    SEQUENCES, BATCHES, BATCH = 128, 1200, 4

    def kinds(self, preset: str) -> Sequence[FeatureKind]:
        """The features of the preset; of Ego4D those of each of its models."""
        if preset == "ego4d":
            return [variant.features for variant in EGO4D_VARIANTS.values()]
        return (self.presets[preset],)

    def agnostic(self, preset: str | None) -> bool:
        """Whether the preset learns a single class."""
        return preset is not None and PRESETS[preset].fused

    def plan(self, facts: Facts, preset: str | None) -> Plan:
        """The released settings of `preset`, or the rule above."""
        if preset is None:
            return self.scaled(facts)
        chosen, row = PRESETS[preset], _PUBLISHED.get(preset)
        if preset == "ego4d":
            chosen, row = _ego4d(facts.channels)
        return replace(self.released(facts, chosen), published=row)

    def released(self, facts: Facts, preset: ActionFormerPreset) -> Plan:
        """Settings of a released model."""
        training, network = preset.training, preset.network
        inputs = facts.channels if isinstance(network.in_channels, int) else network.in_channels
        config = replace(network, in_channels=inputs, classes=facts.classes)
        losses = LossConfig(
            smoothing=training.smoothing, regression=training.regression, normaliser=training.normaliser
        )
        options = {
            "batch": training.batch,
            "keep": training.keep,
            "crop": list(training.crop) if training.crop else None,
            "edge": training.edge,
            "spliced": 0,
            "losses": asdict(losses),
        }
        if config.resize:
            options["overlap"] = facts.overlap
        reason = f"settings of the released model for {preset.dataset}"
        return Plan(config, schedule_of(training), options, asdict(preset.decoding), (reason,))

    def scaled(self, facts: Facts) -> Plan:
        """The rule above."""
        count, long = len(facts.actions), float(np.quantile(facts.actions, 0.95))
        levels = min(max(math.ceil(math.log2(max(long, 1) / 8)) + 2, 3), 6)
        coarsest = 2 ** (levels - 1)
        longest = int(facts.rows.max())
        max_len = min(max(8 * long, 128), 2304, max(longest, 32))
        max_len = coarsest * math.ceil(max_len / coarsest)
        width = 64 if count < 200 else 128 if count < 3000 else 256
        videos = len(facts.rows)
        made = max(0, self.SEQUENCES - videos)
        epochs = max(round(self.BATCHES / max((videos + made) // self.BATCH, 1)), 20)
        reaches = [(0.0 if not level else 2.0 ** (level + 1), 2.0 ** (level + 2)) for level in range(levels)]
        reaches[-1] = (reaches[-1][0], 10000.0)
        config = ActionFormerConfig(
            in_channels=facts.channels,
            classes=facts.classes,
            width=width,
            heads=4,
            ranges=tuple(reaches),
            windows=9,
            max_len=max_len,
        )
        schedule = Schedule(
            epochs=epochs,
            lr=1e-3,
            weight_decay=0.05,
            decay="cosine",
            warmup_epochs=epochs / 10,
            clip_norm=1.0,
            ema=0.99,
        )
        reasons = (
            f"{levels} pyramid levels for actions of up to {long * facts.step_s:.1f} s (95 %)",
            f"sequences of at most {max_len} rows = {max_len * facts.step_s:.1f} s",
            f"width {width} for {count} training segments",
            f"{videos} videos{f' and {made} sequences joined anew from their pieces' if made else ''}",
        )
        options = {
            "batch": self.BATCH,
            "keep": 0.5,
            "crop": [0.9, 1.0],
            "edge": 0.0,
            "spliced": made,
            "losses": asdict(LossConfig()),
        }
        return Plan(config, schedule, options, asdict(ActionFormerDecoding()), reasons)

    def head(self, plan: Plan, videos: Sequence[TrainingVideo]) -> ActionFormerHead:
        """ActionFormer over sequences of `videos`, and of those joined anew."""
        config, options = plan.config, plan.options
        everything = [*videos, *spliced(videos, options["spliced"], config.max_len)]
        crop = options["crop"]
        data = ActionFormerSequences(
            everything,
            config,
            keep=options["keep"],
            crop=(crop[0], crop[1]) if crop else None,
            edge=options["edge"],
            overlap=options.get("overlap", 1.0),
        )
        return ActionFormerHead(
            ActionFormer(config), data, LossConfig(**options["losses"]), batch_size=options["batch"]
        )
