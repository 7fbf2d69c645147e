"""Sizes and rules of ActionFormer networks, and the released ones."""

import dataclasses
import math
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class ActionFormerConfig:
    """Size and rules of an ActionFormer network; the defaults are THUMOS14 with I3D features as released.

    `in_channels`: channels of a feature row, or one number per source, each of which then has its own
    projection to the width of the same place in `width`. `windows`: attention window in steps of each pyramid
    level (one number: of all), 1 or less for attention over everything. `ranges`: reach of the actions each level
    looks for, in steps of the first level, both ends included. `positions`: absolute position embedding;
    `relative`: a learned bias by distance in attention. `drop_path` 0 also removes the learned scales of the
    residual branches. `max_len`: steps of a training sequence; `resize`: a
    video of any length is interpolated to so many. `layout`: masking and norm constants of the
    authors' code ("released") or of OpenTAD's; outputs near the end of a video differ between them. Raises
    ValueError for sizes no network can have.
    """

    in_channels: int | tuple[int, ...] = 2048
    classes: int = 20
    width: int | tuple[int, ...] = 512
    heads: int = 4
    embedding_layers: int = 2
    stem_layers: int = 2
    ranges: tuple[tuple[float, float], ...] = ((0, 4), (4, 8), (8, 16), (16, 32), (32, 64), (64, 10000))
    windows: int | tuple[int, ...] = 19
    head_layers: int = 3
    head_width: int | None = None
    kernel: int = 3
    positions: bool = False
    relative: bool = False
    drop_path: float = 0.1
    dropout: float = 0.0
    prior: float = 0.01
    max_len: int = 2304
    resize: bool = False
    layout: Literal["released", "opentad"] = "released"

    def __post_init__(self) -> None:
        # JSON has lists only.
        for name in ("in_channels", "width", "windows"):
            if isinstance(getattr(self, name), list):
                object.__setattr__(self, name, tuple(getattr(self, name)))
        object.__setattr__(self, "ranges", tuple((float(low), float(high)) for low, high in self.ranges))
        for name in ("classes", "heads", "embedding_layers", "head_layers", "max_len"):
            if getattr(self, name) < 1:
                raise ValueError(f"ActionFormer: {name} must be at least 1, not {getattr(self, name)}")
        if isinstance(self.in_channels, tuple) != isinstance(self.width, tuple):
            raise ValueError("ActionFormer: several input sources need a width each, and one source a single width")
        if isinstance(self.in_channels, tuple) and len(self.in_channels) != len(self.sources):
            raise ValueError(f"ActionFormer: {len(self.in_channels)} sources but {len(self.sources)} widths")
        if self.channels % self.heads:
            raise ValueError(f"ActionFormer: width {self.channels} is not divisible by {self.heads} heads")
        if not self.ranges or len(self.spans) != self.levels:
            raise ValueError(f"ActionFormer: {len(self.spans)} windows for {self.levels} pyramid levels")
        if self.kernel % 2 == 0 or self.kernel < 1:
            raise ValueError(f"ActionFormer: kernel must be odd, not {self.kernel}")
        if self.relative and any(span > 1 and span % 2 == 0 for span in self.spans):
            raise ValueError("ActionFormer: a relative bias needs odd windows")
        if self.layout not in ("released", "opentad"):
            raise ValueError(f"ActionFormer: layout must be 'released' or 'opentad', not {self.layout!r}")

    @property
    def sources(self) -> tuple[int, ...]:
        return self.width if isinstance(self.width, tuple) else (self.width,)

    @property
    def channels(self) -> int:
        """Width of the pyramid."""
        return sum(self.sources)

    @property
    def inputs(self) -> int:
        """Channels of a feature row, all sources together."""
        return sum(self.in_channels) if isinstance(self.in_channels, tuple) else self.in_channels

    @property
    def levels(self) -> int:
        return len(self.ranges)

    @property
    def spans(self) -> tuple[int, ...]:
        """Attention window of each level."""
        return self.windows if isinstance(self.windows, tuple) else (self.windows,) * self.levels

    @property
    def strides(self) -> tuple[int, ...]:
        """Steps of the first level to one of each level."""
        return tuple(2**level for level in range(self.levels))

    @property
    def reach(self) -> int | None:
        """Steps to either side that an output can depend on; None where a level attends to everything."""
        if min(self.spans) <= 1:
            return None
        side, radii = self.kernel // 2, [span // 2 for span in self.spans]
        steps = self.embedding_layers * side + self.stem_layers * (1 + radii[0])
        steps += sum(s // 2 + s * r for s, r in zip(self.strides[1:], radii[1:], strict=True))
        return steps + self.head_layers * side * self.strides[-1]

    def official_length(self, steps: int) -> int:
        """Length to which the released code pads a video of so many steps."""
        if steps <= self.max_len:
            return self.max_len
        chunks = [s * max(2 * (w // 2), 1) for s, w in zip(self.strides, self.spans, strict=True)]
        divisor = math.lcm(max(chunks), self.strides[-1])
        return -(-steps // divisor) * divisor

    def padded_length(self, steps: int) -> int:
        """Smallest length that gives the released outputs.

        As many padded steps on a level as a convolution reaches over (one, for kernels of 3) do to the valid ones
        what any number does, and fewer do not; so each level gets these exactly if it has them at the official
        length.
        """
        official, coarsest = self.official_length(steps), self.strides[-1]
        shortest = (-(-steps // coarsest) + max(self.kernel // 2, 1)) * coarsest
        return min(shortest, official)


# Released configurations. THUMOS14 by the default: I3D RGB and flow.
THUMOS14_I3D = ActionFormerConfig()
# ActivityNet: which class is left to a video-level classifier. The paper's 35.6 with I3D has another length.
ACTIVITYNET_I3D = ActionFormerConfig(
    classes=1, width=256, windows=(7, 7, 7, 7, 7, -1), positions=True, max_len=192, resize=True
)
ACTIVITYNET_I3D_PAPER = dataclasses.replace(ACTIVITYNET_I3D, max_len=160, windows=(11, 11, 11, 11, -1, -1))
ACTIVITYNET_TSP = dataclasses.replace(ACTIVITYNET_I3D, in_channels=512)
_OVERLAPPING = ((0, 4), (2, 8), (4, 16), (8, 32), (16, 64), (32, 10000))
EPIC_VERB = ActionFormerConfig(in_channels=2304, classes=97, windows=9, ranges=_OVERLAPPING)
EPIC_NOUN = dataclasses.replace(EPIC_VERB, classes=300)
_EGO4D = ActionFormerConfig(
    in_channels=1536,
    classes=110,
    windows=9,
    ranges=(*_OVERLAPPING[:5], (32, 128), (64, 256), (128, 10000)),
    positions=True,
    dropout=0.1,
    max_len=1024,
)
_EGO4D_JOINT = dataclasses.replace(_EGO4D, in_channels=1792, width=768, heads=12)
EGO4D_VARIANTS = {
    "S": dataclasses.replace(_EGO4D, in_channels=2304, ranges=(*_OVERLAPPING[:5], (32, 128), (64, 10000))),
    "O": _EGO4D,
    "E": dataclasses.replace(_EGO4D, in_channels=256, width=384),
    "S+E": dataclasses.replace(_EGO4D_JOINT, in_channels=2560),
    "O+E": _EGO4D_JOINT,
    "S+O+E": dataclasses.replace(_EGO4D, in_channels=(2304, 1536, 256), width=(256, 384, 384), heads=16),
}
"""By features: SlowFast (S), Omnivore (O), EgoVLP (E), in this order of channels."""
EGO4D = EGO4D_VARIANTS["S+O+E"]
