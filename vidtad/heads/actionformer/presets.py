"""ActionFormer as released: for each data set the network, its features, training and post-processing.

No torch at import. Numbers are those of the released configurations, with which the published results were made;
the paper's text says other things in places (weight decay, epochs, optimiser, score fusion).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from vidtad.models import actionformer_config as networks
from vidtad.models.actionformer_config import ActionFormerConfig
from vidtad.postprocess import Nms
from vidtad.training.published import FeatureKind


@dataclass(frozen=True)
class ActionFormerDecoding:
    """Post-processing of ActionFormer; the defaults are those of the released THUMOS14 model.

    `score_threshold`, `candidates` and `min_length` (steps) apply before suppression: the best pairs of point and
    class of each pyramid level (`pooled`: of all together, as in OpenTAD) above the threshold. `voting` works only
    with `class_agnostic`, as released. The other options are those of `Nms`. `display_score` only says which
    segments a table shows. Raises ValueError for values out of range.
    """

    score_threshold: float = 0.001
    candidates: int = 2000
    min_length: float = 0.05
    pooled: bool = False
    method: Literal["gaussian", "linear", "vanilla", "hard", "none"] = "gaussian"
    sigma: float = 0.5
    iou_threshold: float = 0.1
    min_score: float = 0.001
    top_k: int = 200
    class_agnostic: bool = False
    voting: float | None = None
    display_score: float = 0.3

    def __post_init__(self) -> None:
        if self.candidates < 1:
            raise ValueError(f"candidates must be at least 1, not {self.candidates}")
        self.rule()

    def rule(self) -> Nms:
        """The suppression these options ask for."""
        return Nms(
            method=self.method,
            sigma=self.sigma,
            iou_threshold=self.iou_threshold,
            min_score=self.min_score,
            top_k=self.top_k,
            class_agnostic=self.class_agnostic,
            voting=self.voting,
        )


@dataclass(frozen=True)
class ActionFormerTraining:
    """How a released model was trained; the defaults are THUMOS14.

    `epochs` include the 5 of the warm-up. `smoothing` of the class targets, `regression` weight of its loss,
    `normaliser` the number of positive points the losses are first divided by. `keep` and `crop`: see
    `vidtad.heads.actionformer.training.ActionFormerSequences`. `edge`: steps added to either end of a cropped sequence
    when deciding what of an action is left (half a window; 0 when the older models were trained).
    """

    lr: float = 1e-4
    batch: int = 2
    epochs: int = 35
    warmup_epochs: int = 5
    weight_decay: float = 0.05
    clip_norm: float = 1.0
    ema: float = 0.999
    smoothing: float = 0.0
    regression: float = 1.0
    normaliser: float = 100.0
    keep: float = 0.5
    crop: tuple[float, float] | None = (0.9, 1.0)
    edge: float = 0.0


@dataclass(frozen=True)
class ActionFormerPreset:
    """One data set. `score`: published average mAP (0-1) of the released weights, where one network is meant.

    `fused`: reached with video-level class scores from elsewhere. `unit`: what a class number counts, for
    class names when none are given.
    """

    network: ActionFormerConfig
    features: FeatureKind
    training: ActionFormerTraining
    decoding: ActionFormerDecoding
    dataset: str
    score: float
    fused: bool = False
    unit: str = "class"


_I3D = (("rgb", 1024), ("flow", 1024))
_THUMOS = FeatureKind("i3d/thumos14", 16, 4, None, _I3D)
_ACTIVITYNET_TRAINING = ActionFormerTraining(
    lr=1e-3, batch=16, epochs=15, smoothing=0.1, regression=2.0, normaliser=200.0
)
_ACTIVITYNET_DECODING = ActionFormerDecoding(min_length=0.001, sigma=0.75, top_k=100, class_agnostic=True, voting=0.9)
_EPIC = FeatureKind("slowfast/epic", 32, 16, 30, (("rgb", 2304),))
_EPIC_DECODING = ActionFormerDecoding(candidates=5000, sigma=0.4, top_k=2000)
_EPIC_TRAINING = ActionFormerTraining(epochs=21, normaliser=250.0, keep=0.3)

THUMOS14_I3D = ActionFormerPreset(
    networks.THUMOS14_I3D, _THUMOS, ActionFormerTraining(), ActionFormerDecoding(), "THUMOS14 test", 0.6683
)
ACTIVITYNET_I3D = ActionFormerPreset(
    networks.ACTIVITYNET_I3D,
    FeatureKind("i3d/activitynet", 16, 16, 25, _I3D),
    _ACTIVITYNET_TRAINING,
    _ACTIVITYNET_DECODING,
    "ActivityNet 1.3 validation",
    0.3603,
    fused=True,
)
ACTIVITYNET_TSP = ActionFormerPreset(
    networks.ACTIVITYNET_TSP,
    FeatureKind("r2plus1d/tsp", 16, 16, 15, (("rgb", 512),)),
    _ACTIVITYNET_TRAINING,
    _ACTIVITYNET_DECODING,
    "ActivityNet 1.3 validation",
    0.3656,
    fused=True,
)
EPIC_VERB = ActionFormerPreset(
    networks.EPIC_VERB, _EPIC, _EPIC_TRAINING, _EPIC_DECODING, "EPIC-Kitchens 100 validation", 0.2351, unit="verb"
)
EPIC_NOUN = ActionFormerPreset(
    networks.EPIC_NOUN,
    _EPIC,
    ActionFormerTraining(epochs=21, normaliser=250.0, keep=0.3, smoothing=0.1),
    _EPIC_DECODING,
    "EPIC-Kitchens 100 validation",
    0.2188,
    unit="noun",
)
_EGO4D_PARTS = (("slowfast", 2304), ("omnivore", 1536), ("egovlp", 256))


def _ego4d(variant: str, score: float) -> ActionFormerPreset:
    parts = tuple((name, width) for name, width in _EGO4D_PARTS if name[0].upper() in variant.split("+"))
    window = 16 if variant == "E" else 32
    names = "-".join(name for name, _ in parts)
    return ActionFormerPreset(
        networks.EGO4D_VARIANTS[variant],
        FeatureKind(f"ego4d/{names}", window, 16, 30, parts),
        ActionFormerTraining(epochs=15, keep=0.3, edge=0.5 * window / 16),
        ActionFormerDecoding(candidates=5000, sigma=0.9, top_k=2000),
        "Ego4D moment queries validation",
        score,
        unit="moment",
    )


EGO4D_SCORES = {"S": 0.1489, "O": 0.1820, "E": 0.2060, "S+E": 0.2156, "O+E": 0.2198, "S+O+E": 0.2209}
EGO4D_VARIANTS = {variant: _ego4d(variant, score) for variant, score in EGO4D_SCORES.items()}
"""By features: SlowFast (S), Omnivore (O), EgoVLP (E)."""
EGO4D = EGO4D_VARIANTS["S+O+E"]

PRESETS: Mapping[str, ActionFormerPreset] = {
    "thumos14": THUMOS14_I3D,
    "activitynet-i3d": ACTIVITYNET_I3D,
    "activitynet-tsp": ACTIVITYNET_TSP,
    "epic100-verb": EPIC_VERB,
    "epic100-noun": EPIC_NOUN,
    "ego4d": EGO4D,
}
