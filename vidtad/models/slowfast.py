"""SlowFast networks (Feichtenhofer et al., ICCV 2019, section 3 and table 1), for classes, features and detection.

Parameter names are PySlowFast's; `vidtad.models.slowfast_keys` translates the other published layouts to them.
What a checkpoint's tensors show (depth, widths, temporal kernels, kind of fusion, non-local blocks, heads) is read
from them; what they cannot show is in `SlowFastOptions`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from vidtad.errors import InputError
from vidtad.models.fold import joined
from vidtad.models.loading import load_exactly

DEPTHS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
Pair = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class SlowFastOptions:
    """What the weights of a SlowFast network do not tell.

    `alpha`: fast frames per slow frame. `slow_frames`: "span" spreads them from the first to the last fast frame
    (PySlowFast, pytorchvideo, ACAR R50), "stride" takes every alpha-th (ACAR R101, mmaction2). `strides` and
    `dilations` are those of res2 to res5 in space, for both pathways: `DETECTION` keeps res5 at stride 16.
    """

    alpha: int = 4
    slow_frames: str = "span"
    strides: tuple[int, int, int, int] = (1, 2, 2, 2)
    dilations: tuple[int, int, int, int] = (1, 1, 1, 1)
    bn_eps: float = 1e-5
    nonlocal_pool: tuple[int, int, int] | None = (2, 2, 2)
    nonlocal_softmax: bool = False

    def __post_init__(self) -> None:
        if self.alpha < 1 or self.slow_frames not in ("span", "stride"):
            raise InputError(
                f"alpha {self.alpha} must be at least 1 and slow_frames {self.slow_frames!r} span or stride"
            )


DETECTION = SlowFastOptions(strides=(1, 2, 2, 1), dilations=(1, 1, 1, 2))


@dataclass(frozen=True)
class SlowFastShape:
    """Sizes of a SlowFast network: everything its weights tell.

    `kernels[stage][pathway]` lists the temporal kernel of each block's first convolution, res2 to res5.
    `heads` maps the name of each linear layer to (inputs, outputs, has a bias).
    """

    kernels: tuple[tuple[tuple[int, ...], tuple[int, ...]], ...]
    width: int = 64
    beta_inv: int = 8
    fusion_ratio: int = 2
    fusion_kernel: int = 7
    fusion_norm: bool = True
    nonlocal_blocks: Mapping[tuple[int, int, int], int] = field(default_factory=dict)
    heads: Mapping[str, tuple[int, int, bool]] = field(default_factory=dict)

    @staticmethod
    def published(depth: int = 50, num_classes: int = 400, **changes: int | bool) -> "SlowFastShape":
        """The published 8x8 network of 50, 101 or 152 layers, temporal kernels of 3 in all of res4 and res5."""
        if depth not in DEPTHS:
            raise InputError(f"SlowFast has 50, 101 or 152 layers, not {depth}")
        slow = [(kernel,) * count for kernel, count in zip((1, 1, 3, 3), DEPTHS[depth], strict=True)]
        fast = [(3,) * count for count in DEPTHS[depth]]
        heads = {"projection": (2304, num_classes, True)} if num_classes else {}
        shape = SlowFastShape(tuple(zip(slow, fast, strict=True)), heads=heads)
        return replace(shape, **changes)  # type: ignore[arg-type]


def slow_index(frames: int, alpha: int, rule: str = "span") -> Tensor:
    """Which of `frames` fast frames the slow pathway sees: (frames // alpha,) int64."""
    if rule == "stride":
        return torch.arange(0, frames, alpha)[: frames // alpha]
    return torch.linspace(0, frames - 1, frames // alpha).long()


class _Stem(nn.Module):
    def __init__(self, width: int, kernel: int, eps: float):
        super().__init__()
        self.conv = nn.Conv3d(3, width, (kernel, 7, 7), (1, 2, 2), (kernel // 2, 3, 3), bias=False)
        self.bn = nn.BatchNorm3d(width, eps=eps)
        self.pool = nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.pool(torch.relu_(self.bn(self.conv(x))))


class _Bottleneck(nn.Module):
    def __init__(self, widths: tuple[int, int, int], kernel: int, stride: int, dilation: int, eps: float):
        super().__init__()
        inputs, inner, outputs = widths
        self.a = nn.Conv3d(inputs, inner, (kernel, 1, 1), padding=(kernel // 2, 0, 0), bias=False)
        self.a_bn = nn.BatchNorm3d(inner, eps=eps)
        space: dict[str, Any] = {
            "stride": (1, stride, stride),
            "padding": (0, dilation, dilation),
            "dilation": (1, dilation, dilation),
        }
        self.b = nn.Conv3d(inner, inner, (1, 3, 3), bias=False, **space)
        self.b_bn = nn.BatchNorm3d(inner, eps=eps)
        self.c = nn.Conv3d(inner, outputs, 1, bias=False)
        self.c_bn = nn.BatchNorm3d(outputs, eps=eps)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu_(self.a_bn(self.a(x)))
        x = torch.relu_(self.b_bn(self.b(x)))
        return self.c_bn(self.c(x))


class _Block(nn.Module):
    def __init__(self, widths: tuple[int, int, int], kernel: int, stride: int, dilation: int, eps: float, first: bool):
        super().__init__()
        self.branch1: nn.Module | None = None
        if first:
            self.branch1 = nn.Conv3d(widths[0], widths[2], 1, (1, stride, stride), bias=False)
            self.branch1_bn = nn.BatchNorm3d(widths[2], eps=eps)
        self.branch2 = _Bottleneck(widths, kernel, stride, dilation, eps)

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.branch1 is None else self.branch1_bn(self.branch1(x))
        return torch.relu_(self.branch2(x).add_(shortcut))


class NonLocal(nn.Module):
    """Non-local block with a residual connection (Wang et al., CVPR 2018, section 3.3 and figure 2).

    `pool` (t, h, w) shrinks what is attended to by maximum; `softmax` is the embedded Gaussian, else the dot product
    divided by the number of positions.
    """

    def __init__(
        self, width: int, inner: int, pool: tuple[int, int, int] | None, softmax: bool = False, bn_eps: float = 1e-5
    ):
        super().__init__()
        self.softmax, self.inner = softmax, inner
        self.conv_theta = nn.Conv3d(width, inner, 1)
        self.conv_phi = nn.Conv3d(width, inner, 1)
        self.conv_g = nn.Conv3d(width, inner, 1)
        self.conv_out = nn.Conv3d(inner, width, 1)
        self.bn = nn.BatchNorm3d(width, eps=bn_eps)
        self.pool = nn.MaxPool3d(pool, pool) if pool and max(pool) > 1 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """x (B, width, T, H, W) -> the same shape."""
        attended = self.pool(x)
        theta, phi, g = (
            self.conv_theta(x).flatten(2),
            self.conv_phi(attended).flatten(2),
            self.conv_g(attended).flatten(2),
        )
        affinity = theta.transpose(1, 2) @ phi
        if self.softmax:
            affinity = (affinity * self.inner**-0.5).softmax(dim=2)
        else:
            affinity = affinity / affinity.shape[2]
        out = (g @ affinity.transpose(1, 2)).view(x.shape[0], self.inner, *x.shape[2:])
        return x + self.bn(self.conv_out(out))


class _Stage(nn.Module):
    """Blocks of both pathways, named as PySlowFast does: pathway{p}_res{i}, pathway{p}_nonlocal{i} after it."""

    def __init__(
        self, inputs: tuple[int, int], outputs: tuple[int, int], kernels: tuple[tuple[int, ...], tuple[int, ...]]
    ):
        super().__init__()
        self.inputs, self.outputs, self.kernels = inputs, outputs, kernels

    def fill(self, stride: int, dilation: int, eps: float) -> "_Stage":
        for p in (0, 1):
            width, out = self.inputs[p], self.outputs[p]
            for i, kernel in enumerate(self.kernels[p]):
                block = _Block((width, out // 4, out), kernel, 1 if i else stride, dilation, eps, first=not i)
                self.add_module(f"pathway{p}_res{i}", block)
                width = out
        return self

    def forward(self, pair: Pair) -> Pair:
        maps = []
        for p, x in enumerate(pair):
            for i in range(len(self.kernels[p])):
                x = self.get_submodule(f"pathway{p}_res{i}")(x)
                attention = getattr(self, f"pathway{p}_nonlocal{i}", None)
                x = x if attention is None else attention(x)
            maps.append(x)
        return maps[0], maps[1]


class _Fuse(nn.Module):
    """Lateral connection: fast maps, strided in time, joined to the slow ones (section 3.4, time-strided)."""

    def __init__(self, width: int, shape: SlowFastShape, alpha: int, eps: float):
        super().__init__()
        kernel, outputs = shape.fusion_kernel, width * shape.fusion_ratio
        self.conv_f2s = nn.Conv3d(width, outputs, (kernel, 1, 1), (alpha, 1, 1), (kernel // 2, 0, 0), bias=False)
        self.bn: nn.Module | None = nn.BatchNorm3d(outputs, eps=eps) if shape.fusion_norm else None

    def forward(self, pair: Pair) -> Pair:
        lateral = self.conv_f2s(pair[1])
        if self.bn is not None:
            lateral = torch.relu_(self.bn(lateral))
        return joined([pair[0], lateral]), pair[1]


class SlowFast(nn.Module):
    """SlowFast for clips (B, 3, T, H, W) float32 of fast frames, normalised as the weights want.

    T is a multiple of alpha, 32 for the 8x8 networks: every second frame of 64 at 30 frames a second.
    """

    def __init__(self, shape: SlowFastShape | None = None, options: SlowFastOptions | None = None):
        super().__init__()
        shape, self.options = shape or SlowFastShape.published(), options or SlowFastOptions()
        eps, alpha = self.options.bn_eps, self.options.alpha
        slow, fast = shape.width, shape.width // shape.beta_inv
        self.s1 = nn.ModuleDict({"pathway0_stem": _Stem(slow, 1, eps), "pathway1_stem": _Stem(fast, 5, eps)})
        self.s1_fuse = _Fuse(fast, shape, alpha, eps)
        for n, kernels in enumerate(shape.kernels, start=2):
            outputs = (shape.width << n, (shape.width << n) // shape.beta_inv)
            stage = _Stage((slow + fast * shape.fusion_ratio, fast), outputs, kernels)
            self.add_module(f"s{n}", stage.fill(self.options.strides[n - 2], self.options.dilations[n - 2], eps))
            slow, fast = outputs
            if n < 5:
                self.add_module(f"s{n}_fuse", _Fuse(fast, shape, alpha, eps))
        for (n, p, i), inner in shape.nonlocal_blocks.items():
            width = (shape.width << n) // (shape.beta_inv if p else 1)
            pool, softmax = self.options.nonlocal_pool, self.options.nonlocal_softmax
            self.get_submodule(f"s{n}").add_module(
                f"pathway{p}_nonlocal{i}", NonLocal(width, inner, pool, softmax, eps)
            )
        self.width = slow + fast
        self.head = nn.ModuleDict(
            {name: nn.Linear(inputs, outputs, bias) for name, (inputs, outputs, bias) in shape.heads.items()}
        )

    def run(self, clips: Tensor) -> dict[str, Pair]:
        """clips (B, 3, T, H, W) -> (slow, fast) maps after s1, s1_fuse, s2, ..., s4_fuse, s5, by name."""
        slow = clips[:, :, slow_index(clips.shape[2], self.options.alpha, self.options.slow_frames).to(clips.device)]
        pair = self.s1["pathway0_stem"](slow), self.s1["pathway1_stem"](clips)
        maps = {"s1": pair}
        for name in ("s1_fuse", "s2", "s2_fuse", "s3", "s3_fuse", "s4", "s4_fuse", "s5"):
            pair = maps[name] = self.get_submodule(name)(pair)
        return maps

    def forward(self, clips: Tensor) -> Pair:
        """clips (B, 3, T, H, W) -> res5: slow (B, 2048, T / alpha, h, w), fast (B, 256, T, h, w)."""
        slow = clips[:, :, slow_index(clips.shape[2], self.options.alpha, self.options.slow_frames).to(clips.device)]
        pair = self.s1["pathway0_stem"](slow), self.s1["pathway1_stem"](clips)
        for name in ("s1_fuse", "s2", "s2_fuse", "s3", "s3_fuse", "s4", "s4_fuse", "s5"):
            pair = self.get_submodule(name)(pair)
        return pair

    def features(self, clips: Tensor) -> Tensor:
        """clips (B, 3, T, H, W) -> (B, 2304): means over time and space of the slow, then the fast pathway."""
        return torch.cat([maps.mean(dim=(2, 3, 4)) for maps in self(clips)], dim=1)

    def classify(self, features: Tensor, head: str = "projection") -> Tensor:
        """features (B, 2304) -> scores before softmax or sigmoid (B, classes)."""
        return self.head[head](features)


def shape_of(state_dict: Mapping[str, Tensor]) -> SlowFastShape:
    """The sizes of the network a PySlowFast-named state dict is of. Raises InputError when it is of none."""
    try:
        stems = [state_dict[f"s1.pathway{p}_stem.conv.weight"].shape[0] for p in (0, 1)]
        fusion = state_dict["s1_fuse.conv_f2s.weight"].shape
        kernels = tuple((_kernels(state_dict, n, 0), _kernels(state_dict, n, 1)) for n in range(2, 6))
    except KeyError as error:
        raise InputError(f"these weights are not those of a SlowFast network (missing: {error.args[0]})") from None
    blocks, heads = {}, {}
    for key, tensor in state_dict.items():
        attention = re.fullmatch(r"s(\d)\.pathway(\d)_nonlocal(\d+)\.conv_theta\.weight", key)
        head = re.fullmatch(r"head\.(\w+)\.weight", key)
        if attention:
            blocks[int(attention[1]), int(attention[2]), int(attention[3])] = tensor.shape[0]
        elif head and tensor.ndim == 2:
            heads[head[1]] = (tensor.shape[1], tensor.shape[0], f"head.{head[1]}.bias" in state_dict)
    return SlowFastShape(
        kernels,
        width=stems[0],
        beta_inv=stems[0] // stems[1],
        fusion_ratio=fusion[0] // fusion[1],
        fusion_kernel=fusion[2],
        fusion_norm="s1_fuse.bn.weight" in state_dict,
        nonlocal_blocks=blocks,
        heads=heads,
    )


def _kernels(state_dict: Mapping[str, Tensor], stage: int, pathway: int) -> tuple[int, ...]:
    kernels: list[int] = []
    while (key := f"s{stage}.pathway{pathway}_res{len(kernels)}.branch2.a.weight") in state_dict:
        kernels.append(state_dict[key].shape[2])
    return tuple(kernels)


def load(state_dict: Mapping[str, Tensor], options: SlowFastOptions | None = None) -> SlowFast:
    """SlowFast with the weights of any layout `vidtad.models.slowfast_keys` knows.

    Raises InputError when a tensor is missing, unused or of another shape.
    """
    from vidtad.models.slowfast_keys import from_published

    renamed = from_published(state_dict)
    network = SlowFast(shape_of(renamed), options)
    load_exactly(network, renamed)
    return network
