"""The only list of heads, built in and installed, and what they have together."""

from collections.abc import Mapping

from vidtad.errors import InputError, unknown
from vidtad.heads import actionformer, motion, person, react
from vidtad.heads.spec import SPATIO_TEMPORAL, TEMPORAL, Converter, HeadSpec, LayoutReader, TemporalDetector
from vidtad.hub.bundle import Bundle
from vidtad.plugins import Table

__all__ = [
    "HEADS",
    "SPATIO_TEMPORAL",
    "TEMPORAL",
    "HeadSpec",
    "TemporalDetector",
    "converters",
    "head_named",
    "head_of",
    "layouts",
    "load_detector",
    "trainable",
]

HEADS: Mapping[str, HeadSpec] = Table(
    "vidtad.heads",
    HeadSpec,
    {spec.name: spec for spec in (react.SPEC, actionformer.SPEC, *person.SPECS, motion.SPEC)},
)


def head_named(name: str) -> HeadSpec:
    """The head called `name`. Raises InputError with the near ones."""
    if name in HEADS:
        return HEADS[name]
    raise InputError(unknown("head", name, HEADS))


def head_of(bundle: Bundle) -> HeadSpec:
    """The head of a bundle. Raises InputError where this installation has none of that name."""
    if bundle.head in HEADS:
        return HEADS[bundle.head]
    raise InputError(
        f"bundle {bundle.name}: {unknown('head', bundle.head, HEADS)}; a newer vidtad, or the package that brings "
        "this head, may know it"
    )


def load_detector(bundle: Bundle, device: str = "cpu", precision: str = "float32") -> TemporalDetector:
    """The bundle's head with its weights, on `device`, in `precision` (`float32` or `bf16`).

    Raises InputError when the bundle does not fit together or its head does not read features.
    """
    spec = head_of(bundle)
    if spec.load is None:
        raise InputError(f"bundle {bundle.name}: head {spec.name} reads {spec.feeds}, not features")
    return spec.load(bundle, device, precision)


def converters() -> dict[str, Converter]:
    """Published checkpoints that are whole detectors, by id."""
    return {id: converter for spec in HEADS.values() for id, converter in spec.converters.items()}


def layouts() -> dict[str, LayoutReader]:
    """The words of `models convert --from`."""
    return {name: reader for spec in HEADS.values() for name, reader in spec.layouts.items()}


def trainable() -> list[str]:
    """Names of the heads that `vidtad train` trains: those on features first, then those on person boxes."""
    on_features = [name for name, spec in HEADS.items() if spec.recipe is not None]
    return on_features + [name for name, spec in HEADS.items() if spec.parts is not None]
