"""The rules by which published programs compute detection mAP, as named presets.

A protocol is data: nothing in it is code, and every difference between the programs that moves a number is a
field. Sources: activitynet/ActivityNet `eval_detection.py`, ActionFormer `libs/utils/metrics.py`, OpenTAD
`evaluations/mAP.py`, the EPIC-KITCHENS-100 and Ego4D challenge scripts, and the THUMOS'14 MATLAB kits.
"""

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from vidtad.errors import InputError

# The grids as the programs make them; `linspace` puts some of these a rounding error beside the decimal
# number, and an overlap of exactly 0.3 is a miss under the EPIC grid.
ACTIVITYNET_TIOU = tuple(np.linspace(0.5, 0.95, 10).tolist())
THUMOS_TIOU = tuple(np.linspace(0.3, 0.7, 5).tolist())
EPIC_TIOU = tuple(np.linspace(0.1, 0.5, 5).tolist())
KIT_TIOU = (0.1, 0.2, 0.3, 0.4, 0.5)
BOX_IOU = (0.5,)
DENSE_TIOU = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)

Ties = Literal["later_first", "earlier_first"]

CHOICES = {
    "ties": ("later_first", "earlier_first"),
    "zero_union": ("match", "miss"),
    "duplicates": ("keep", "actionformer", "opentad"),
    "unknown_labels": ("drop", "refuse", "collide"),
    "stray_videos": ("count", "drop"),
    "class_order": ("appearance", "label_id"),
}


@dataclass(frozen=True)
class Protocol:
    """How to score.

    tiou: thresholds, inclusive. kind: which evaluator (`temporal`; `thumos-kit` and `thumos-kit-2014`, the
    MATLAB metric; `epic`, three tasks; `ego4d`, with retrieval; `ava-*`, boxes). ties: which of two equal
    scores ranks higher, the later or the earlier one of the file. zero_union: an overlap of 0/0 counts as a
    match (ActivityNet, ActionFormer, Ego4D) or a miss (OpenTAD). duplicates: `keep`, or drop repeated
    annotations by the rule of ActionFormer or OpenTAD (1 ms tolerance). unknown_labels: predictions of a
    class without annotations are dropped, refused (the ActivityNet program stops), or `collide`
    (ActionFormer: an unknown number falls on the class re-numbered to it). stray_videos: predictions
    in videos without an annotation are false positives, or dropped (TadTR). class_order: numbering of the
    classes. drop_labels: annotations that are no class.
    """

    name: str
    tiou: tuple[float, ...]
    kind: str = "temporal"
    ties: Ties = "later_first"
    zero_union: Literal["match", "miss"] = "match"
    duplicates: Literal["keep", "actionformer", "opentad"] = "keep"
    unknown_labels: Literal["drop", "refuse", "collide"] = "drop"
    stray_videos: Literal["count", "drop"] = "count"
    class_order: Literal["appearance", "label_id"] = "appearance"
    drop_labels: tuple[str, ...] = ()
    recall_at: tuple[int, ...] = (1, 5)

    def __post_init__(self) -> None:
        if not self.tiou or not all(0 < threshold <= 1 for threshold in self.tiou):
            raise InputError(f"tIoU thresholds must be above 0 and at most 1, not {list(self.tiou)}")
        for name, values in CHOICES.items():
            if getattr(self, name) not in values:
                raise InputError(f"{name}: {getattr(self, name)!r} is none of {', '.join(values)}")

    @property
    def least_union(self) -> float:
        """Lower bound of the union of two segments (`temporal_iou`'s guard), by which OpenTAD makes 0/0 a miss."""
        return 1e-8 if self.zero_union == "miss" else 0.0

    def line(self) -> str:
        """The rule in a few words, for people."""
        tie = "later" if self.ties == "later_first" else "earlier"
        return f"{self.name}, tIoU {grid_text(self.tiou)}, of equal scores the {tie} one first"


PROTOCOLS: dict[str, Protocol] = {
    protocol.name: protocol
    for protocol in (
        Protocol("activitynet", ACTIVITYNET_TIOU),
        Protocol(
            "actionformer",
            ACTIVITYNET_TIOU,
            duplicates="actionformer",
            unknown_labels="collide",
            class_order="label_id",
        ),
        Protocol("opentad", ACTIVITYNET_TIOU, zero_union="miss", duplicates="opentad"),
        Protocol("thumos14", THUMOS_TIOU, drop_labels=("Ambiguous",)),
        Protocol("thumos14-kit", KIT_TIOU, kind="thumos-kit"),
        Protocol("thumos14-kit-2014", KIT_TIOU, kind="thumos-kit-2014"),
        Protocol("multithumos", DENSE_TIOU),
        Protocol("charades", DENSE_TIOU),
        Protocol("epic", EPIC_TIOU, kind="epic"),
        Protocol("ego4d", KIT_TIOU, kind="ego4d"),
        Protocol("ava", BOX_IOU, kind="ava"),
        Protocol("ava-acar", BOX_IOU, kind="ava-acar"),
        Protocol("ava-pyslowfast", BOX_IOU, kind="ava-pyslowfast"),
    )
}
PROTOCOLS["hacs"] = replace(PROTOCOLS["activitynet"], name="hacs")
PROTOCOLS["fineaction"] = replace(PROTOCOLS["activitynet"], name="fineaction")


def protocol_named(name: str) -> Protocol:
    """The preset of this name. Raises InputError, with the near names, when there is none."""
    if name in PROTOCOLS:
        return PROTOCOLS[name]
    raise InputError(f"protocol {name!r} is not known; {_nearest(name, PROTOCOLS)}")


def parse_rules(texts: Sequence[str]) -> dict[str, str]:
    """Rules that choose between named behaviours, from `NAME=VALUE` texts. Raises InputError with the near names."""
    rules = {}
    for text in texts:
        name, _, value = text.partition("=")
        if name not in CHOICES:
            raise InputError(f"rule {text!r}: {name!r} is not known; {_nearest(name, CHOICES)}")
        if value not in CHOICES[name]:
            raise InputError(f"rule {text!r}: {name} is one of {', '.join(CHOICES[name])}")
        rules[name] = value
    return rules


def _nearest(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name.lower(), known, n=3, cutoff=0.5)
    return f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(known)}"


def grid_text(tiou: tuple[float, ...]) -> str:
    """`0.5:0.05:0.95` for an even grid of three or more, the numbers otherwise."""
    if len(tiou) > 2:
        steps = np.diff(tiou)
        if np.allclose(steps, steps[0]):
            return f"{tiou[0]:.3g}:{steps[0]:.3g}:{tiou[-1]:.3g}"
    return ", ".join(f"{threshold:.3g}" for threshold in tiou)
