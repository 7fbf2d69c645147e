"""Trunks of person-box networks by name, each with the clips it was trained on."""

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial

from torch import Tensor, nn

from vidtad.errors import InputError
from vidtad.extractors.keyframes import KeyframeConvention
from vidtad.models import slow, slowfast
from vidtad.models.action_transformer import I3dTrunk, from_i3d
from vidtad.models.loading import load_exactly


@dataclass(frozen=True)
class PersonTrunk:
    """A trunk: the clips it wants, and how to build it, without weights or from a state dict in a published layout.

    A trunk turns clips (B, 3, T, H, W) into a tuple of maps (B, C_i, T_i, H / 16, W / 16), one a pathway; `width` is
    the sum of C_i.
    """

    convention: KeyframeConvention
    network: Callable[[], nn.Module]
    load: Callable[[Mapping[str, Tensor]], nn.Module]
    width: int


def _slowfast(state: Mapping[str, Tensor], options: slowfast.SlowFastOptions) -> nn.Module:
    from vidtad.models.slowfast_keys import from_published

    renamed = from_published(state)
    return slowfast.load({key: value for key, value in renamed.items() if not key.startswith("head.")}, options)


def _slow(state: Mapping[str, Tensor]) -> nn.Module:
    from vidtad.models.slowfast_keys import from_published

    return slow.load({key: value for key, value in from_published(state).items() if not key.startswith("head.")})


def i3d_parts(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """(trunk, Mixed_5b and 5c) of I3D weights in a published layout, named as in `models.i3d`."""
    from vidtad.models.i3d import from_hassony2

    return from_i3d(from_hassony2(state) if "conv3d_1a_7x7.conv3d.weight" in state else state)


def _i3d(state: Mapping[str, Tensor]) -> nn.Module:
    trunk, _ = i3d_parts(state)
    first = trunk.get("Conv3d_1a_7x7.conv3d.weight")
    shrink = 1 if first is None or first.ndim != 5 else max(1, 64 // first.shape[0])
    return load_exactly(I3dTrunk(shrink), trunk)


_PSF = KeyframeConvention()
_ACAR_R101 = replace(
    _PSF,
    interpolation="pillow",
    mean=(110.63666788, 103.16065604, 96.29023126),
    std=(38.7568578, 37.88248729, 40.02898126),
)
_MMACTION = replace(_PSF, interpolation="opencv", mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375))
_I3D = KeyframeConvention(64, 1, Fraction(25), (400, 400), "opencv-floor", (127.5, 127.5, 127.5), (127.5, 127.5, 127.5))
# Sizes that one CPU core trains: the same code with an eighth of the width and one block a stage.
_TINY = KeyframeConvention(32, 2, Fraction(15), 96, "opencv-floor", (127.5, 127.5, 127.5), (63.75, 63.75, 63.75))
_TINY_SHAPE = slowfast.SlowFastShape(
    (((1,), (3,)), ((1,), (3,)), ((3,), (3,)), ((3,), (3,))), width=16, fusion_kernel=5
)
_R50 = slowfast.SlowFastShape.published(50, 0)


def _trunk(convention: KeyframeConvention, shape: slowfast.SlowFastShape = _R50, **options: object) -> PersonTrunk:
    chosen = replace(slowfast.DETECTION, **options)  # type: ignore[arg-type]
    width = shape.width << 5
    return PersonTrunk(
        convention,
        lambda: slowfast.SlowFast(shape, chosen),
        partial(_slowfast, options=chosen),
        width + width // shape.beta_inv,
    )


TRUNKS: dict[str, PersonTrunk] = {
    "slowfast/ava": _trunk(_PSF),
    "slowfast/ava-64x2": _trunk(replace(_PSF, window=128)),
    "slowfast/acar-r50": _trunk(replace(_PSF, interpolation="pillow")),
    "slowfast/acar-r101": _trunk(_ACAR_R101, slow_frames="stride"),
    "slowfast/mmaction2": _trunk(_MMACTION, slow_frames="stride", dilations=(1, 1, 1, 1)),
    "slow/ava": PersonTrunk(replace(_PSF, step=16), slow.Slow, _slow, 2048),
    "slowfast/tiny": _trunk(_TINY, _TINY_SHAPE),
    "i3d/ava": PersonTrunk(_I3D, I3dTrunk, _i3d, 832),
    "i3d/tiny": PersonTrunk(
        replace(_I3D, window=16, fps=Fraction(15), resize=(96, 96)), partial(I3dTrunk, 8), _i3d, 104
    ),
}


def find_trunk(name: str) -> PersonTrunk:
    """The trunk called `name`. Raises InputError naming the nearest ones."""
    if name in TRUNKS:
        return TRUNKS[name]
    near = difflib.get_close_matches(name, TRUNKS, n=3, cutoff=0.4) or sorted(TRUNKS)
    raise InputError(f"no person trunk is called {name!r}; did you mean {', '.join(near)}?")
