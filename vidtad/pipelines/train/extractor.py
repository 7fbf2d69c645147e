"""The extractor of a training run, and what the new bundle says of it: weights embedded when small, else which."""

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vidtad.errors import InputError
from vidtad.extractors import Given, random_weights, streams_of
from vidtad.features import Features
from vidtad.hub.registry import CHECKPOINTS
from vidtad.pipelines.extract.load import (
    DEMONSTRATION_NOTE,
    LoadedExtractor,
    embedding,
    extractor_name,
    load_embedded,
    load_given,
)

if TYPE_CHECKING:
    from torch import Tensor

SMALL = 8_000_000
"""Bytes up to which an extractor travels inside the bundle."""


@dataclass(frozen=True)
class Sampling:
    """How rows lie in time: of an extractor None keeps its preset's choice; needed for features without a sidecar."""

    fps: Fraction | None = None
    stride: int | None = None
    window: int | None = None


@dataclass(frozen=True)
class Chosen:
    """An extractor ready for use; `state` are its weights unless they are a published checkpoint."""

    loaded: LoadedExtractor
    state: "Mapping[str, Tensor] | None"
    notes: tuple[str, ...] = ()


def choose_extractor(
    name: str | None,
    weights: str | None,
    sampling: Sampling = Sampling(),
    device: str = "cpu",
    flow: Given | None = None,
) -> Chosen:
    """The extractor `name` (None: that of a bundle given as `weights`, else i3d).

    `weights`: as for `load_extractor`, or a bundle that holds an extractor; None is the published checkpoint, and
    for tiny3d the weights of the demonstration. `flow`: GIVEN for flow that is there as pictures. Raises InputError for
    an unknown name or unfit weights, or flow for an extractor that sees none.
    """
    bundle, made = embedding(name, weights), extractor_name(name, weights)
    if flow is not None and "flow" not in streams_of(made):
        raise InputError(
            f"extractor {made} sees no optical flow: drop --flow-from, or pass one that does, such as "
            "--extractor i3d+i3d/flow"
        )
    wanted: dict[str, Any] = vars(sampling) | {"device": device, "flow": flow}
    if bundle is not None:
        loaded = load_embedded(bundle, **wanted)
        return Chosen(loaded, bundle.extractor_weights, () if weights is not None else (DEMONSTRATION_NOTE,))
    loaded = load_given(made, weights, **wanted)
    if loaded.is_random:
        notes = ("random extractor weights: a dry run, the detector will carry no meaning",)
        return Chosen(loaded, random_weights(made, int(loaded.weights.partition(":")[2])), notes)
    return Chosen(loaded, _file_state(weights))


def _file_state(weights: str | None) -> "Mapping[str, Tensor] | None":
    """Tensors of a local checkpoint file; None when the weights are a published checkpoint."""
    if weights is None or weights in CHECKPOINTS or not Path(weights).is_file():  # two streams are too large anyway
        return None
    from vidtad.hub.reading import read_checkpoint, state_dict

    return state_dict(read_checkpoint(Path(weights)))


@dataclass(frozen=True)
class BundledExtractor:
    """The extractor's fields of a `Bundle`, and what the user should know about them."""

    fields: dict[str, Any]
    notes: tuple[str, ...] = ()


def bundled_extractor(features: Features, chosen: Chosen | None, name: str | None = None) -> BundledExtractor:
    """Extractor, sampling and channels of a bundle trained on such features.

    `chosen`: the extractor they were or could be made with; None when it is not here. `name`: of what made features
    without a sidecar. Raises InputError when `chosen` has other weights than the features.
    """
    provenance, grid = features.provenance, features.grid
    known = bool(provenance.extractor)
    fields: dict[str, Any] = {
        "extractor": provenance.extractor or name or "unknown",
        "sampling": {
            "window": grid.span,
            "stride": grid.stride,
            "fps": provenance.settings.get("fps") if known else None,
        },
        "channels": tuple((block or "features", count) for block, count in provenance.channels),
    }
    if not known:
        remark = "features without a sidecar: the bundle detects in features of the same kind, not in videos"
        return BundledExtractor(fields, (remark,))
    fields["extractor_sha256"] = provenance.weights_sha256 or None
    if chosen is not None and chosen.loaded.weights_sha256 != provenance.weights_sha256:
        raise InputError(
            f"the features were made with weights {provenance.weights} of {provenance.extractor}, not with "
            f"{chosen.loaded.weights}; pass the same --weights or another --features folder"
        )
    if all(part in CHECKPOINTS for part in provenance.weights.split(",")):
        return BundledExtractor(fields | {"extractor_checkpoint": provenance.weights})
    if chosen is None or chosen.state is None:
        remark = f"extractor weights {provenance.weights} are not here: to detect in videos pass --weights FILE"
        return BundledExtractor(fields, (remark,))
    size = sum(tensor.numel() * tensor.element_size() for tensor in chosen.state.values())
    if size <= SMALL:
        return BundledExtractor(fields | {"extractor_weights": dict(chosen.state)})
    if chosen.loaded.is_random:
        return BundledExtractor(fields | {"extractor_checkpoint": chosen.loaded.weights})
    remark = (
        f"extractor weights {chosen.loaded.weights} ({size / 1e6:.0f} MB) are too large to embed: hand the file over "
        "beside the bundle and pass --weights FILE to detect"
    )
    return BundledExtractor(fields, (remark,))


def extractor_of_features(features: Features, weights: str | None) -> Chosen | None:
    """The extractor that made features, where `weights` (or a sidecar that names random ones) make it available."""
    provenance = features.provenance
    random = provenance.weights.startswith("random:")
    if not provenance.extractor or (weights is None and not random):
        return None
    return choose_extractor(provenance.extractor, weights or provenance.weights)
