"""The network that training of a person-box head begins with: trunk, head and what fills a bank."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from vidtad.errors import InputError
from vidtad.extractors.keyframes import KeyframeConvention
from vidtad.extractors.person_presets import find_trunk, i3d_parts
from vidtad.heads.person.bundle import convention_of, load_network, parts_of
from vidtad.heads.person.job import PeopleJob
from vidtad.heads.person.options import random_seed
from vidtad.hub.bundle import Bundle, load_bundle
from vidtad.hub.fields import known_fields
from vidtad.models.acar import AcarHead
from vidtad.models.acfb import AcfbHead
from vidtad.models.action_transformer import ActionTransformer, I3dHead
from vidtad.models.loading import load_exactly, random_state
from vidtad.models.people import PersonNetwork

PRETRAINED = {
    "slowfast/ava": "slowfast-8x8-r50-kinetics400",
    "slowfast/acar-r50": "slowfast-8x8-r50-kinetics400",
    "i3d/ava": "i3d-rgb-kinetics400",
}
"""Checkpoint (see `vidtad.heads.catalogue`) that a trunk starts from unless the user says otherwise."""


def usual_trunk(model: str) -> str:
    """The trunk of a head where none is named."""
    return parts_of(model).backbone


def pretrained(trunk: str) -> str:
    """The checkpoint that a trunk starts from. Raises InputError for one that has none."""
    find_trunk(trunk)
    if trunk not in PRETRAINED:
        raise InputError(
            f"trunk {trunk} starts from trained weights: give a file or id of them, or a bundle to start from; "
            "`random` learns from nothing"
        )
    return PRETRAINED[trunk]


def _shape(model: str, trunk: str, start: Bundle | None) -> Any:
    """The published head's configuration, or that of the head to go on from; a bank's maps fit its head's."""
    kind = parts_of(model)
    if start is None or start.head not in (model, kind.fills_bank):
        return kind.configs.get(trunk, kind.default)
    config = known_fields(kind.config, start.head_config, f"bundle {start.name}: head_config")
    return config if start.head == model or kind.adopts is None else kind.adopts(kind.default, config)


def starting_network(job: PeopleJob, classes: int, poses: int) -> tuple[PersonNetwork, str, KeyframeConvention]:
    """(network, name of its trunk, its clips) that training begins with. Raises InputError."""
    start = load_bundle(job.start) if job.start is not None else None
    if start is not None:
        parts_of(start.head, f"{job.start}: says what happens when, not who does it: ")
    trunk = job.trunk or (start.extractor if start else usual_trunk(job.model))
    preset, kind = find_trunk(trunk), parts_of(job.model)
    sizes: dict[str, Any] = {"classes": classes, kind.channels: preset.width}
    if hasattr(kind.default, "poses"):
        sizes["poses"] = poses
    head = kind.network(replace(job.config or _shape(job.model, trunk, start), **sizes))
    seed = random_seed(job.weights, job.seed)
    bank, convention = None, job.convention or preset.convention
    if start is not None and not job.weights:
        source = load_network(start)
        network = PersonNetwork(source.trunk, head)
        if start.head == job.model and source.head.config == head.config:
            load_exactly(head, source.head.state_dict())
        if isinstance(head, AcfbHead) and start.head == kind.fills_bank:
            bank = source.head
        convention = job.convention or convention_of(start)[0]
    elif seed is not None:
        loaded = preset.network()
        network = PersonNetwork(load_exactly(loaded, random_state(loaded, seed)), head)
    else:
        from vidtad.hub.download import fetch
        from vidtad.hub.reading import read_state_dict

        path = Path(str(job.weights)) if Path(str(job.weights)).is_file() else fetch(str(job.weights))
        state = _without_classifier(read_state_dict(path))
        network = PersonNetwork(preset.load(state), head)
        if isinstance(head, ActionTransformer) and head.i3d is not None:
            _last_blocks(head.i3d, i3d_parts(state)[1])
    network.freeze_norm, network.freeze_trunk = seed is None, job.freeze_trunk
    if isinstance(head, AcfbHead):
        _prepare_bank(network, bank)
    return network, trunk, convention


def _last_blocks(head: I3dHead, blocks: Mapping[str, torch.Tensor]) -> None:
    """I3D's Mixed_5b and 5c where the weights have them; class and box layers stay random (Girdhar et al., 2019)."""
    if blocks:
        own = {key: value for key, value in head.state_dict().items() if key.startswith(("classes.", "offsets."))}
        load_exactly(head, {**blocks, **own})


def _prepare_bank(network: PersonNetwork, filling: Any) -> None:
    """The bank is filled once, by a head that never learns, from a trunk that does not either."""
    head = network.head
    if filling is None:
        filling = AcarHead(head.config)
        load_exactly(filling, head.state_dict())
    else:
        # The query starts as what fills the bank, where sizes agree.
        own = head.state_dict()
        shared = {k: v for k, v in filling.state_dict().items() if k in own and own[k].shape == v.shape}
        head.load_state_dict({**own, **shared})
    network.bank, network.freeze_trunk = filling, True


def _without_classifier(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {key: value for key, value in state.items() if not key.startswith(("head.", "module.head."))}
