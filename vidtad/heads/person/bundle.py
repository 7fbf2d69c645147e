"""Person-box networks from bundles and into them.

A bundle of a person-box head holds the head's own tensors as `head_weights` (for ACFB also `bank.*`, the ACAR head
that fills its bank), and the trunk's as `extractor_weights`, or the id of the checkpoint that has them. `extractor` is
a name of `person_presets.TRUNKS`; `sampling` says what else the clips are: `window`, `step`, `fps`, `resize`, and as
`stride` the frames between keyframes.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any

from torch import Tensor, nn

from vidtad.errors import InputError, unknown
from vidtad.extractors.keyframes import KeyframeConvention
from vidtad.extractors.person_presets import find_trunk
from vidtad.heads.person.options import random_seed
from vidtad.heads.person.parts import PersonParts
from vidtad.hub.bundle import Bundle
from vidtad.hub.fields import known_fields
from vidtad.models.acar import AcarHead, config_of
from vidtad.models.loading import load_exactly, random_state
from vidtad.models.people import PersonNetwork

BANK = "bank."


def parts_of(head: str, where: str = "") -> PersonParts:
    """Network and configuration of a person head. Raises InputError, after `where`, for any other name."""
    from vidtad.heads.registry import HEADS

    there = {name: spec.parts for name, spec in HEADS.items() if spec.parts is not None}
    if head not in there:
        raise InputError(where + unknown("person head", head, there))
    return there[head]()


def sampling_of(convention: KeyframeConvention, every_s: float = 1.0) -> dict[str, Any]:
    """The `sampling` entry of a bundle, with keyframes every `every_s` seconds."""
    stride = max(1, round(every_s * float(convention.fps)))
    values = convention.to_json()
    return {key: values[key] for key in ("window", "step", "fps", "resize")} | {"stride": stride}


def convention_of(bundle: Bundle) -> tuple[KeyframeConvention, float]:
    """What the bundle's network is fed, and the seconds between its keyframes."""
    convention, sampling = find_trunk(bundle.extractor).convention, bundle.sampling
    resize = sampling.get("resize", convention.resize)
    try:
        convention = replace(
            convention,
            window=int(sampling["window"]),
            step=int(sampling.get("step", convention.step)),
            fps=Fraction(sampling.get("fps") or convention.fps),
            resize=tuple(resize) if isinstance(resize, list | tuple) else int(resize),
        )
    except (TypeError, ValueError) as error:
        raise InputError(f"bundle {bundle.name}: sampling is unusable ({error}); make the bundle again") from error
    return convention, float(sampling["stride"] / convention.fps)


def person_bundle(
    name: str, head: str, network: PersonNetwork, *, trunk: str, classes: Sequence[str], **more: Any
) -> Bundle:
    """A bundle of a network, trunk embedded. `more` are further fields of `Bundle` (decoding, licence, scores, ...).

    Raises InputError when the classes are not as many as the head's outputs.
    """
    config = network.head.config
    if config.classes != len(classes):
        raise InputError(f"bundle {name}: {len(classes)} class names for a head of {config.classes}")
    head_weights = dict(network.head.state_dict())
    if network.bank is not None:
        head_weights |= {BANK + key: value for key, value in network.bank.state_dict().items()}
    more.setdefault("sampling", sampling_of(find_trunk(trunk).convention))
    return Bundle(
        name=name,
        head=head,
        head_config=dataclasses.asdict(config),
        classes=tuple(classes),
        extractor=trunk,
        channels=(),
        head_weights={key: value.detach().cpu().contiguous() for key, value in head_weights.items()},
        extractor_weights={key: value.detach().cpu() for key, value in network.trunk.state_dict().items()},
        **more,
    )


def load_network(bundle: Bundle, weights: str | None = None, *, device: str = "cpu") -> PersonNetwork:
    """The bundle's network in evaluation mode. `weights` replaces the trunk's: a file, a checkpoint id or `random`.

    Raises InputError when head, trunk, classes and weights do not fit together, RunError for a failed download.
    """
    kind = parts_of(bundle.head, f"bundle {bundle.name}: ")
    config = known_fields(kind.config, bundle.head_config, f"bundle {bundle.name}: head_config")
    if config.classes != len(bundle.classes):
        raise InputError(f"bundle {bundle.name}: {len(bundle.classes)} class names for a head of {config.classes}")
    own = {key: value for key, value in bundle.head_weights.items() if not key.startswith(BANK)}
    head = load_exactly(kind.network(config), own)
    filling = {key.removeprefix(BANK): value for key, value in bundle.head_weights.items() if key.startswith(BANK)}
    bank = None
    if filling:
        bank = AcarHead(config_of(filling, config))
        load_exactly(bank, filling)
    trunk = _trunk(bundle, weights)
    return PersonNetwork(trunk, head, bank).eval().to(device)


def _trunk(bundle: Bundle, weights: str | None) -> nn.Module:
    preset = find_trunk(bundle.extractor)
    seed = random_seed(weights)
    if seed is not None:
        network = preset.network()
        return load_exactly(network, random_state(network, seed))
    if weights is None and bundle.extractor_weights is not None:
        return preset.load(bundle.extractor_weights)
    source = weights or bundle.extractor_checkpoint
    if source is None:
        raise InputError(f"bundle {bundle.name} holds no trunk weights and names none; pass --weights FILE")
    return preset.load(_read(source))


def _read(source: str) -> Mapping[str, Tensor]:
    from pathlib import Path

    from vidtad.hub.download import fetch
    from vidtad.hub.reading import read_state_dict

    return read_state_dict(Path(source) if Path(source).is_file() else fetch(source))


def random_bundle(head: str, seed: int = 0) -> Bundle:
    """A bundle of the published sizes (SlowFast R50, or I3D for the Action Transformer) with seeded random weights.

    For dry runs: it knows AVA's class names and nothing else. Raises InputError for an unknown head.
    """
    from vidtad.heads.person.convert import class_names

    trunk = parts_of(head).published
    network = random_network(head, trunk, seed=seed)
    return person_bundle(
        f"{head}-random",
        head,
        network,
        trunk=trunk,
        classes=class_names(network.head.config.classes),
        training={"random_weights": True, "seed": seed},
    )


def random_network(head: str, trunk: str, config: Any = None, seed: int = 0) -> PersonNetwork:
    """A network of seeded random weights, for dry runs and tests. `config` defaults to the published head's, its
    width fitted to the trunk."""
    kind, preset = parts_of(head), find_trunk(trunk)
    if config is None:
        config = replace(kind.default, **{kind.channels: preset.width})
    network = PersonNetwork(preset.network(), kind.network(config))
    load_exactly(network, random_state(network, seed))
    return network.eval()
