"""Published person-box detectors to bundles: ACAR, PySlowFast and pytorchvideo, mmaction2."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vidtad.errors import InputError
from vidtad.hub.bundle import Bundle
from vidtad.hub.registry import CHECKPOINTS

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class _Released:
    """What a checkpoint's tensors do not tell. `person_score`: from which boxes it was evaluated on people."""

    head: str
    trunk: str
    person_score: float
    score: float | None
    aligned: bool = False
    side: int = 7
    background: int = 0
    maximum: bool = False


RELEASED: dict[str, _Released] = {
    "acar-r50-ava": _Released("acar", "slowfast/acar-r50", 0.85, 0.2783),
    "acar-r101-ava": _Released("acar", "slowfast/acar-r101", 0.85, 0.3169),
    "acar-r101-ava-kinetics": _Released("acar", "slowfast/acar-r101", 0.85, 0.3374),
    "slowfast-8x8-r50-ava": _Released("linear", "slowfast/ava", 0.8, 0.2467),
    "slow-4x16-r50-ava": _Released("linear", "slow/ava", 0.8, 0.195),
    "slowfast-32x2-r101-ava2.1": _Released("linear", "slowfast/ava", 0.8, 0.282),
    "slowfast-32x2-r101-ava2.2": _Released("linear", "slowfast/ava", 0.8, 0.291),
    "slowfast-64x2-r101-ava2.2": _Released("linear", "slowfast/ava-64x2", 0.8, 0.294),
    **{
        f"mmaction2-slowfast-r50-ava-{kind}": _Released(
            "linear", "slowfast/mmaction2", 0.9, score, aligned=True, side=8, background=1, maximum=kind != "linear"
        )
        for kind, score in (("linear", 0.259), ("max", 0.2641), ("focal", 0.2665))
    },
}
"""Checkpoints that are whole person-box detectors, by id. `score`: published frame mAP on AVA."""


def bundle_from_people(checkpoint: Mapping[str, Any], id: str, *, sha256: str | None = None) -> Bundle:
    """Bundle `id` of a released detector, as `vidtad.hub.reading.read_checkpoint` returns it.

    Trunk and head are loaded once, with nothing missing and nothing left over. Raises InputError for an unknown id or
    another network's weights.
    """
    from vidtad.hub.reading import state_dict

    if id not in RELEASED:
        raise InputError(f"no person detector was released as {id!r}; there is {', '.join(RELEASED)}")
    released, state = RELEASED[id], state_dict(checkpoint)
    split = _acar if released.head == "acar" else _linear
    network = split(state, released)
    from vidtad.heads.person.bundle import person_bundle

    entry = CHECKPOINTS[id]
    return person_bundle(
        id,
        released.head,
        network,
        trunk=released.trunk,
        classes=class_names(network.head.config.classes),
        decoding={"person_score": released.person_score},
        licence=entry.licence,
        training={"source": entry.source, "dataset": "AVA", "checkpoint_sha256": sha256},
        scores={"published": {"dataset": "AVA validation", "frame_mAP": released.score}},
    )


def class_names(count: int) -> tuple[str, ...]:
    """AVA's names for a head of 80 outputs (id k + 1) or 60 (the evaluated ones: poses first, ids ascending)."""
    from vidtad.formats.ava import ava_classes

    classes = ava_classes()
    if count == len(classes):
        return tuple(entry.name for entry in classes)
    evaluated = tuple(entry.name for entry in classes if entry.evaluated)
    if count != len(evaluated):
        raise InputError(f"AVA has 80 classes, 60 of them evaluated; these weights have {count} outputs")
    return evaluated


def _acar(state: "Mapping[str, Tensor]", released: _Released) -> Any:
    from vidtad.extractors.person_presets import find_trunk
    from vidtad.models import acar, slowfast_keys
    from vidtad.models.people import PersonNetwork

    _, head = slowfast_keys.split_acar(state)
    return PersonNetwork(find_trunk(released.trunk).load(state), acar.load_head(head)).eval()


def _linear(state: "Mapping[str, Tensor]", released: _Released) -> Any:
    from vidtad.extractors.person_presets import find_trunk
    from vidtad.models import roi, slowfast_keys
    from vidtad.models.people import PersonNetwork

    renamed = slowfast_keys.from_published(state)
    head = {key.removeprefix("head."): value for key, value in renamed.items() if key.startswith("head.")}
    config = roi.LinearConfig(
        aligned=released.aligned, side=released.side, background=released.background, maximum=released.maximum
    )
    return PersonNetwork(find_trunk(released.trunk).load(renamed), roi.load_linear(head, config)).eval()


def converter(id: str) -> Callable[[Any, str], Bundle]:
    """(contents, SHA-256 of the file) -> bundle, for the checkpoint `id`."""
    return lambda checkpoint, digest: bundle_from_people(checkpoint, id, sha256=digest)
