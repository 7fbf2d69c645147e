"""ReAct (Shi et al., ECCV 2022): decoder queries over overlapping windows."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from vidtad.heads.spec import TEMPORAL, HeadSpec, TemporalDetector
from vidtad.hub.bundle import Bundle

if TYPE_CHECKING:
    from vidtad.training.plan import Recipe


def _load(bundle: Bundle, device: str, precision: str) -> TemporalDetector:
    from vidtad.heads.react.detector import ReActDetector

    return ReActDetector(bundle, device, precision)


def _decoding() -> type:
    from vidtad.heads.react.decoding import ReActDecoding

    return ReActDecoding


def _recipe() -> "Recipe":
    from vidtad.heads.react.recipe import ReActRecipe

    return ReActRecipe()


def _released(checkpoint: Any, digest: str) -> Bundle:
    from vidtad.heads.react.convert import bundle_from_react

    return bundle_from_react(checkpoint, sha256=digest)


def _read(checkpoint: Any, preset: str, classes: Sequence[str] | None, digest: str) -> Bundle:
    from vidtad.heads.react.convert import bundle_from_react

    return bundle_from_react(checkpoint, preset, classes=classes, sha256=digest)


SPEC = HeadSpec(
    name="react",
    says="ReAct: queries over overlapping windows",
    task=TEMPORAL,
    feeds="features",
    load=_load,
    decoding=_decoding,
    recipe=_recipe,
    converters={"react-thumos14": _released},
    layouts={"react": _read},
    preferred=("react-thumos14",),
)
