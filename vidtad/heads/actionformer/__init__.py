"""ActionFormer (Zhang et al., ECCV 2022): a pyramid of local attention over the whole video."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from vidtad.heads.actionformer.convert import RELEASED, bundle_from_actionformer, converter
from vidtad.heads.spec import TEMPORAL, HeadSpec, TemporalDetector
from vidtad.hub.bundle import Bundle

if TYPE_CHECKING:
    from vidtad.training.plan import Recipe


def _load(bundle: Bundle, device: str, precision: str) -> TemporalDetector:
    from vidtad.heads.actionformer.detector import ActionFormerDetector

    return ActionFormerDetector(bundle, device, precision)


def _decoding() -> type:
    from vidtad.heads.actionformer.presets import ActionFormerDecoding

    return ActionFormerDecoding


def _recipe() -> "Recipe":
    from vidtad.heads.actionformer.recipe import ActionFormerRecipe

    return ActionFormerRecipe()


def _read(checkpoint: Any, preset: str, classes: Sequence[str] | None, digest: str) -> Bundle:
    return bundle_from_actionformer(checkpoint, preset, classes=classes, sha256=digest)


SPEC = HeadSpec(
    name="actionformer",
    says="ActionFormer: a pyramid of local attention over the whole video",
    task=TEMPORAL,
    feeds="features",
    load=_load,
    decoding=_decoding,
    recipe=_recipe,
    converters={id: converter(id) for id in RELEASED},
    layouts={"actionformer": _read, "opentad": _read},
    preferred=("actionformer-thumos14",),
)
