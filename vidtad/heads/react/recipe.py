"""How `vidtad train` trains ReAct: as published, or scaled to the data."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any, cast

import numpy as np

from vidtad.heads.react.training import ReActHead, ReActWindows, TrainingVideo
from vidtad.heads.react.windows import react_windows
from vidtad.hub.fields import known_fields
from vidtad.models import react
from vidtad.models.react import ReAct, ReActConfig
from vidtad.models.react_losses import LossConfig
from vidtad.training.augment import spliced
from vidtad.training.loop import Head, Schedule
from vidtad.training.plan import Facts, Plan
from vidtad.training.published import FeatureKind, Published

_REACT_PUBLISHED = {
    "thumos14": (
        react.THUMOS14,
        Schedule(),
        Published(
            "the released THUMOS14 model (its README)",
            "thumos14",
            (0.3, 0.4, 0.5, 0.6, 0.7),
            (0.708, 0.659, 0.578, 0.472, 0.342),
            0.552,
        ),
    ),
    "activitynet": (
        react.ACTIVITYNET,
        Schedule(epochs=35, lr=1e-4, drop_epochs=(23,)),  # when the rate drops is not said: as late as for THUMOS14
        Published(
            "the paper for ActivityNet 1.3 (with class scores of whole videos from elsewhere)",
            "activitynet",
            (0.5, 0.75, 0.95),
            (0.496, 0.330, 0.086),
            0.326,
        ),
    ),
}


class ReActRecipe:
    """ReAct, as published or scaled.

    The rule, for n training segments with lengths in rows:
    - window: at least 8 median lengths and 1.5 times the 95th percentile, rounded up to 16; between 32 and 256
      rows unless that percentile asks for more, and never above the longest video;
    - below 400 windows, sequences of that length joined anew from pieces of the videos, cut where nothing
      happens, make up the number: without them a small set is learnt by heart;
    - queries: twice the most segments that begin within a window, between 10 and 100;
    - width: 64 below 200 segments, 128 below 3000, 256 (published) from there, with 4, 8 and 8 attention heads;
    - decoder layers: 3, and 4 (published) at width 256;
    - batches of 16 (published); as many epochs as give 1200 of them, and at least 20; a tenth are contrastive;
    - learning rate 4e-4 with cosine decay, gradient norm at most 1, moving average of the weights.
    """

    # As released, positions are shares of a video's rows on one side and of its frames on the other.
    presets: Mapping[str, FeatureKind] = {
        "thumos14": FeatureKind("tsn/thumos14", 5, 5, None, (("rgb", 1024), ("flow", 1024)), spread=True),
        "activitynet": FeatureKind("tsn/activitynet", 16, 16, None, (("rgb", 200), ("flow", 200)), spread=True),
    }
    fuses_geometric = False
    one_class_note = "the contrastive phase, which compares classes, is left out"
    WINDOWS, BATCHES, BATCH = 400, 1200, 16

    def kinds(self, preset: str) -> Sequence[FeatureKind]:
        """The features of the preset."""
        return (self.presets[preset],)

    def agnostic(self, preset: str | None) -> bool:
        """Never: ReAct tells classes itself."""
        return False

    def plan(self, facts: Facts, preset: str | None) -> Plan:
        """The published settings of `preset`, or the rule above.

        Those of ActivityNet are the paper's: neither code nor weights were released for it.
        """
        if preset is None:
            return self.scaled(facts)
        network, schedule, published = _REACT_PUBLISHED[preset]
        config = replace(network, in_channels=facts.channels, classes=facts.classes)
        options: dict[str, Any] = {"batch": 16, "contrastive_epochs": 6, "rescale_anchor": False, "spliced": 0}
        options["losses"] = asdict(LossConfig())
        return Plan(config, schedule, options, {}, (f"settings of {published.source}",), published)

    def scaled(self, facts: Facts) -> Plan:
        """The rule above."""
        count = len(facts.actions)
        median, long = (float(np.quantile(facts.actions, share)) for share in (0.5, 0.95))
        needed = _up(1.5 * long, 16)
        clip_len = max(32, needed, min(_up(8 * median, 16), 256))
        clip_len = max(32, min(clip_len, _up(float(facts.rows.max()), 16)))
        windows = sum(len(react_windows(int(n), clip_len, 0.25)) for n in facts.rows)
        made = max(0, self.WINDOWS - windows)
        together = facts.most_within(clip_len)
        queries = min(max(_up(2 * together, 5), 10), 100)
        width = 64 if count < 200 else 128 if count < 3000 else 256
        steps = -(-(windows + made) // self.BATCH)
        epochs = max(round(self.BATCHES / steps), 20)
        config = ReActConfig(
            in_channels=facts.channels, classes=facts.classes, width=width, heads=4 if width == 64 else 8,
            decoder_layers=4 if width == 256 else 3, feed_forward=4 * width, queries=queries, clip_len=clip_len,
        )  # fmt: skip
        schedule = Schedule(epochs=epochs, lr=4e-4, decay="cosine", clip_norm=1.0, ema=0.99)
        seconds = clip_len * facts.step_s
        beyond = int((facts.actions > clip_len).sum())
        cut = f"; {beyond} segments are longer and cannot be found whole" if beyond else ""
        reasons = (
            f"window {clip_len} rows = {seconds:.1f} s for actions of {median * facts.step_s:.1f} s (median), "
            f"{long * facts.step_s:.1f} s (95 %){cut}",
            f"{queries} queries for at most {together} actions that begin within a window",
            f"width {width} for {count} training segments",
            f"{windows} windows{f' and {made} joined anew from pieces of the videos' if made else ''}",
        )
        options: dict[str, Any] = {
            "batch": self.BATCH, "contrastive_epochs": None, "rescale_anchor": True, "spliced": made
        }  # fmt: skip
        options["losses"] = asdict(LossConfig())
        return Plan(config, schedule, options, {}, reasons)

    def head(self, plan: Plan, videos: Sequence[TrainingVideo]) -> Head:
        """ReAct over windows of `videos`; the contrastive phase is a tenth of the epochs unless the plan says."""
        config, options = plan.config, plan.options
        everything = [*videos, *spliced(videos, options["spliced"], config.clip_len)]
        data = ReActWindows(
            everything,
            config.clip_len,
            config.stride_rate,
            rescale_anchor=options["rescale_anchor"],
            resize=config.resize,
        )
        contrastive = options["contrastive_epochs"]
        contrastive = plan.schedule.epochs // 10 if contrastive is None else contrastive
        losses = known_fields(LossConfig, options["losses"], "losses of ReAct")
        head = ReActHead(ReAct(config), data, losses, batch_size=options["batch"], contrastive_epochs=contrastive)
        return cast(Head, head)


def _up(value: float, step: int) -> int:
    """The multiple of `step` at or above `value`."""
    return step * math.ceil(value / step)
