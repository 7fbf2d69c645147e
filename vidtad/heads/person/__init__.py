"""Heads for what each person does: linear, ACAR, ACFB, Action Transformer."""

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from vidtad.heads.person.convert import RELEASED, converter
from vidtad.heads.spec import SPATIO_TEMPORAL, HeadSpec

if TYPE_CHECKING:
    from vidtad.heads.person.parts import PersonParts


def _decoding() -> type:
    from vidtad.heads.person.options import PeopleDecoding

    return PeopleDecoding


def _linear() -> "PersonParts":
    from vidtad.heads.person.parts import PersonParts
    from vidtad.models.roi import LinearConfig, LinearHead

    return PersonParts(LinearHead, LinearConfig, LinearConfig(), "width", "slowfast/ava", "slowfast/ava")


def _acar() -> "PersonParts":
    from vidtad.heads.person.parts import PersonParts
    from vidtad.models.acar import AcarConfig, AcarHead

    # ACAR's heads differ between its backbones: that of R101 is published for R101 alone.
    return PersonParts(
        AcarHead,
        AcarConfig,
        AcarConfig(depth=2, mlp_1x1=False),
        "width",
        "slowfast/ava",
        "slowfast/acar-r50",
        configs={"slowfast/acar-r101": AcarConfig()},
    )


def _acfb() -> "PersonParts":
    from vidtad.heads.person.parts import PersonParts
    from vidtad.models.acar import AcarConfig
    from vidtad.models.acfb import REPORTED, AcfbHead

    def as_wide(own: Any, filling: Any) -> Any:
        return replace(own, reduced=filling.reduced, hidden=filling.hidden)

    return PersonParts(
        AcfbHead, AcarConfig, REPORTED, "width", "slowfast/ava", "slowfast/acar-r50", fills_bank="acar", adopts=as_wide
    )


def _action_transformer() -> "PersonParts":
    from vidtad.heads.person.parts import PersonParts
    from vidtad.models.action_transformer import ActionTransformer, ActionTransformerConfig

    default = ActionTransformerConfig()
    return PersonParts(ActionTransformer, ActionTransformerConfig, default, "channels", "i3d/ava", "i3d/ava")


_ABOUT = {
    "linear": ("SlowFast with a linear RoI head", _linear, ("slowfast-8x8-r50-ava", "slowfast-32x2-r101-ava2.2")),
    "acar": (
        "ACAR: relations of each person to the others and the scene",
        _acar,
        ("acar-r101-ava-kinetics", "acar-r101-ava", "acar-r50-ava"),
    ),
    "acfb": ("ACAR with a feature bank of many seconds", _acfb, ()),
    "action-transformer": ("Action Transformer: each person attends to the clip", _action_transformer, ()),
}

SPECS = tuple(
    HeadSpec(
        name=name,
        says=says,
        task=SPATIO_TEMPORAL,
        feeds="person clips",
        decoding=_decoding,
        parts=parts,
        converters={id: converter(id) for id, released in RELEASED.items() if released.head == name},
        preferred=preferred,
    )
    for name, (says, parts, preferred) in _ABOUT.items()
)
