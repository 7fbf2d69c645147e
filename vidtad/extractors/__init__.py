"""Clip networks by name, each with the frames it was trained on: from decoded frames to feature rows."""

import dataclasses
import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from types import EllipsisType
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from vidtad.errors import InputError, out_of_memory
from vidtad.extractors.base import PRECISIONS, ClipConvention, ClipExtractor, Extractor
from vidtad.extractors.flows import GIVEN, FlowExtractor, Given, TwoStream
from vidtad.extractors.presets import PRESETS, Preset
from vidtad.flow import flow_of
from vidtad.models.loading import load_exactly, random_state

if TYPE_CHECKING:
    from vidtad.flow.raft import Raft

PICTURE = ("resize", "crop", "interpolation")
"""Settings of a convention that make up the size of its pictures."""

__all__ = [
    "GIVEN",
    "PRECISIONS",
    "PRESETS",
    "Changes",
    "ClipConvention",
    "ClipExtractor",
    "Extractor",
    "FlowExtractor",
    "Given",
    "Preset",
    "TwoStream",
    "build",
    "find",
    "random_weights",
    "streams_of",
    "with_streams",
]


def find(name: str) -> Preset:
    """The preset called `name`. Raises InputError naming the nearest ones."""
    if name in PRESETS:
        return PRESETS[name]
    near = difflib.get_close_matches(name, PRESETS, n=3, cutoff=0.4) or sorted(PRESETS)
    raise InputError(f"no extractor is called {name!r}; did you mean {', '.join(near)}?")


def with_streams(name: str, streams: Sequence[str]) -> str:
    """The extractor that gives the `streams` ("rgb", "flow"), in this order, of the family `name` belongs to.

    A single one is a preset's name, two are joined by "+". Raises InputError for a stream the family lacks.
    """
    preset = find(name)
    there = {preset.convention.channels[0][0]: name}
    if preset.companion is not None:
        there.setdefault(PRESETS[preset.companion].convention.channels[0][0], preset.companion)
    for stream in streams:
        if stream not in there:
            raise InputError(f"extractor {name} has no stream {stream!r}; it has {' and '.join(there)}")
    if not streams or len(set(streams)) != len(streams):
        raise InputError(f"streams {','.join(streams)}: name each of {','.join(there)} at most once")
    return "+".join(there[stream] for stream in streams)


@dataclass(frozen=True)
class Changes:
    """What replaces a preset's choice, where given: `window` and `stride` in frames, `fps` (None: the video's own).

    `flow`, a method's name, a loaded RAFT or GIVEN, is for networks that see flow; `precision` is one of PRECISIONS.
    """

    window: int | None = None
    stride: int | None = None
    fps: Fraction | EllipsisType | None = ...
    flow: "str | Raft | Given | None" = None
    precision: str = "float32"

    def of(self, convention: ClipConvention, *, flow: bool) -> ClipConvention:
        """`convention` with these changes, those of `flow` when asked."""
        changes: dict[str, Any] = {
            key: value for key, value in (("window", self.window), ("stride", self.stride)) if value is not None
        }
        if self.window is not None:
            changes["tail"] = max(0, min(convention.tail, self.window - 1))
        if self.fps is not ...:
            changes["fps"] = self.fps
        if self.flow is not None and flow:
            changes["flow"] = self.flow if isinstance(self.flow, str) else self.flow.name
        return dataclasses.replace(convention, **changes)


def build(
    name: str, weights: Mapping[str, Tensor], *, device: str = "cpu", changes: Changes | None = None, **options: Any
) -> "ClipExtractor | TwoStream":
    """The extractor `name` with `weights` (a state dict in any published layout), ready on `device`.

    Of two streams, "rgb+flow" by name, the state dict's keys begin with "rgb." or "flow."; both follow the RGB preset
    in window, stride and rate, and in the size of pictures where both are of one family. `options` are the fields of
    `Changes`, for calls without one. Raises InputError for an unknown name, weights of another network, a window or
    stride under 1, or a flow method that does not exist.
    """
    changes = changes or Changes(**options)
    names = streams_of(name)
    if changes.flow is not None and "flow" not in names:
        raise InputError(f"extractor {name} sees no optical flow: leave its method out")
    if len(names) == 1:
        return _build_one(name, weights, device, changes)
    leading = changes.of(find(names["rgb"]).convention, flow=False)
    followed = dataclasses.replace(changes, window=leading.window, stride=leading.stride, fps=leading.fps)
    families = {part.partition("/")[0] for part in names.values()}
    # An i3d/flow of an older bundle goes with any I3D; a network of another family may not take this one's pictures.
    picture = {key: getattr(leading, key) for key in PICTURE} if len(families) == 1 else {}
    streams = [
        _build_one(part, _under(weights, f"{stream}."), device, followed, picture) for stream, part in names.items()
    ]
    return TwoStream(*streams)


def _build_one(
    name: str, weights: Mapping[str, Tensor], device: str, changes: Changes, picture: Mapping[str, Any] | None = None
) -> ClipExtractor:
    preset = find(name)
    convention = changes.of(preset.convention, flow=preset.convention.flow is not None)
    convention = dataclasses.replace(convention, **picture or {})
    load = preset.load or (lambda state_dict: load_exactly(preset.network(), state_dict))
    if convention.flow is None:
        extractor = ClipExtractor(name, convention, load(weights), device, changes.precision)
        if convention.window != preset.convention.window:
            _try_window(extractor, preset.convention.window)
        return extractor
    method = flow_of(convention.flow, device) if isinstance(changes.flow, str | None) else changes.flow
    return FlowExtractor(name, convention, load(weights), device, changes.precision, method)


def _try_window(extractor: ClipExtractor, usual: int) -> None:
    """Raise InputError when the network cannot look at windows of this length: many know one, or have a shortest."""
    convention = extractor.convention
    frames = len(convention.shown)
    blank = np.zeros((frames, convention.crop, convention.crop, len(convention.mean)), np.uint8)
    try:
        extractor.rows(blank, np.arange(frames)[None])
    except RuntimeError as error:
        if out_of_memory(error):
            raise
        raise InputError(
            f"extractor {extractor.name} cannot look at windows of {convention.window} frames; its own are of {usual}"
        ) from error


def _under(weights: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): tensor for key, tensor in weights.items() if key.startswith(prefix)}


def streams_of(name: str) -> dict[str, str]:
    """Stream ("rgb", "flow") -> preset, in order, of an extractor's name: one preset, or two joined by "+".

    Raises InputError for an unknown name, or two presets of one stream.
    """
    parts = name.split("+")
    streams = {find(part).convention.channels[0][0]: part for part in parts}
    if len(streams) != len(parts) or (len(parts) > 1 and set(streams) != {"rgb", "flow"}):
        raise InputError(f"extractor {name}: two streams are one of RGB and one of flow")
    return streams


def random_weights(name: str, seed: int = 0) -> dict[str, Tensor]:
    """Seeded random weights of the extractor `name` (or of two, see `build`), the same on every machine.

    The features carry no meaning: this is for dry runs and tests. See `random_state`.
    """
    streams = streams_of(name)
    if len(streams) > 1:
        parts = {stream: random_weights(part, seed) for stream, part in streams.items()}
        return {f"{stream}.{key}": tensor for stream, part in parts.items() for key, tensor in part.items()}
    return random_state(find(name).network(), seed)
