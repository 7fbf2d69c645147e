"""Published ActionFormer weights, in the layout of the authors' code or of OpenTAD, as those of `ActionFormer`."""

import dataclasses
import re
from collections.abc import Mapping

from torch import Tensor

from vidtad.errors import InputError
from vidtad.models.actionformer import ActionFormer
from vidtad.models.actionformer_config import ActionFormerConfig
from vidtad.models.loading import load_exactly

OPENTAD = (
    (r"projection\.proj\.", "backbone.proj."),
    (r"projection\.embed\.(\d+)\.conv\.", r"backbone.embd.\1.conv."),
    (r"projection\.embed\.(\d+)\.norm\.", r"backbone.embd_norm.\1."),
    (r"projection\.(stem|branch)\.", r"backbone.\1."),
    (r"rpn_head\.(cls|reg)_convs\.(\d+)\.conv\.", r"\1_head.head.\2.conv."),
    (r"rpn_head\.(cls|reg)_convs\.(\d+)\.norm\.", r"\1_head.norm.\2."),
    (r"rpn_head\.cls_head\.", "cls_head.cls_head.conv."),
    (r"rpn_head\.reg_head\.", "reg_head.offset_head.conv."),
    (r"rpn_head\.scale\.", "reg_head.scale."),
)
"""Beginnings of OpenTAD's keys and the released ones they stand for; all others are the same."""
NORM = re.compile(r"(^|\.)(ln[12]|\w+_norm|norm\.\d+|embd_norm\.\d+|fpn_norms\.\d+)\.(weight|bias)$")


def is_opentad(state: Mapping[str, Tensor]) -> bool:
    """Whether these keys are OpenTAD's."""
    return any(key.startswith("projection.") for key in state)


def released_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors under the released names and shapes, from either layout.

    A `module.` before every key is dropped, and so is OpenTAD's loss normaliser, which only training reads.
    """
    while state and all(key.startswith("module.") for key in state):
        state = {key.removeprefix("module."): value for key, value in state.items()}
    if not is_opentad(state):
        return dict(state)
    renamed: dict[str, Tensor] = {}
    for key, value in state.items():
        if key == "rpn_head.loss_normalizer":
            continue
        name = next((re.sub(f"^{old}", new, key) for old, new in OPENTAD if re.match(old, key)), key)
        renamed[name] = value.reshape(1, -1, 1) if value.ndim == 1 and NORM.search(name) else value
    return renamed


def load_released(config: ActionFormerConfig, state: Mapping[str, Tensor]) -> ActionFormer:
    """Network of published weights, in either layout; OpenTAD's also switch the masking rule of `config`.

    Raises InputError listing what is missing, unused or of another shape.
    """
    stripped = {key.removeprefix("module."): value for key, value in state.items()}
    config = dataclasses.replace(config, layout="opentad" if is_opentad(stripped) else "released")
    network = ActionFormer(config)
    load_exactly(network, released_state(state))
    return network


def fitting(configs: Mapping[str, ActionFormerConfig], state: Mapping[str, Tensor]) -> str:
    """Which of some configurations these released weights were trained with, by the shape of their input layers.

    Raises InputError when it is none of them.
    """
    sources = sorted(key for key in state if re.fullmatch(r"backbone\.proj\.\d+\.conv\.weight", key))
    first = [state[key].shape[1] for key in sources or ["backbone.embd.0.conv.weight"] if key in state]
    for name, config in configs.items():
        wanted = config.in_channels if isinstance(config.in_channels, tuple) else (config.in_channels,)
        if tuple(first) == wanted:
            return name
    known = ", ".join(configs)
    raise InputError(f"no released network reads features of {first} channels: use a checkpoint of {known}")
