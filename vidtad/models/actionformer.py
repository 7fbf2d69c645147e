"""ActionFormer: single-stage temporal action detection on a pyramid of local attention (Zhang et al., ECCV 2022).

Where paper and released code disagree this follows the code, because the published weights depend on it: norms
are not masked, so that padding reaches the last valid steps through the convolutions of width 3, and every
residual branch has a learned scale as long as drop path is configured.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vidtad.models.actionformer_config import THUMOS14_I3D, ActionFormerConfig
from vidtad.models.local_attention import global_attention, local_attention

SLICE = 384
"""Steps at a time that blocks, dense convolutions and heads see when no gradient is wanted."""


@dataclass(frozen=True)
class ActionFormerOutput:
    """What a forward pass predicts, one entry a pyramid level, finest first.

    `logits` (B, T_l, classes); `offsets` (B, T_l, 2), distances to start and end in steps of the level, at
    least 0; `masks` (B, T_l) bool, true on padding, where the other two mean nothing.
    """

    logits: tuple[Tensor, ...]
    offsets: tuple[Tensor, ...]
    masks: tuple[Tensor, ...]

    def single(self) -> "ActionFormerOutput":
        """The same in float32 after a pass in mixed precision."""
        logits, offsets = (tuple(x.float() for x in part) for part in (self.logits, self.offsets))
        return ActionFormerOutput(logits, offsets, self.masks)


class Convolution(nn.Conv1d):
    """Convolution over time of (B, T, C), zero padded; odd kernel. Depthwise ones may stride, if it divides T."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 1, *, bias: bool = False, depthwise: bool = False):
        groups = inputs if depthwise else 1
        super().__init__(inputs, outputs, kernel, padding=kernel // 2, bias=bias, groups=groups)
        if self.bias is not None:
            nn.init.zeros_(self.bias)
        self._held: tuple[tuple[object, ...], Tensor] | None = None

    def forward(self, x: Tensor, stride: int = 1) -> Tensor:
        if self.kernel_size == (1,):
            return F.linear(x, self.weight.squeeze(-1), self.bias)
        if self.groups > 1:
            return self._depthwise(x, stride)
        if torch.is_grad_enabled():
            return F.conv1d(x.transpose(1, 2), self.weight, self.bias, padding=self.padding).transpose(1, 2)
        return self._dense(x)

    def _dense(self, x: Tensor) -> Tensor:
        """A product a tap, slice by slice: neither transposed nor gathered copies of `x` are needed."""
        taps, length, side = self._taps(), x.shape[1], self.kernel_size[0] // 2
        result = x.new_empty(*x.shape[:2], self.out_channels)
        for rows, summed in zip(x, result, strict=True):
            for start in range(0, length, SLICE):
                stop = min(start + SLICE, length)
                torch.mm(rows[start:stop], taps[side], out=summed[start:stop])
                for shift in (*range(-side, 0), *range(1, side + 1)):
                    first, last = max(start, -shift), min(stop, length - shift)
                    if first < last:
                        summed[first:last].addmm_(rows[first + shift : last + shift], taps[side + shift])
        return result if self.bias is None else result.add_(self.bias)

    def _taps(self) -> Tensor:
        """(kernel, inputs, outputs), made once for weights that stay as they are: short levels cost little more."""
        weight = self.weight
        key = (0 if weight.is_inference() else weight._version, weight.data_ptr(), weight.dtype)
        if self._held is None or self._held[0] != key:
            self._held = (key, weight.detach().permute(2, 1, 0).contiguous())
        return self._held[1]

    def _depthwise(self, x: Tensor, stride: int) -> Tensor:
        taps = self.weight.squeeze(1).unbind(-1)
        padded, length = F.pad(x, (0, 0, len(taps) // 2, len(taps) // 2)), x.shape[1]
        summed = padded[:, :length:stride] * taps[0]
        for place, tap in enumerate(taps[1:], 1):
            summed.addcmul_(padded[:, place : place + length : stride], tap)
        return summed


class MaskedConvolution(nn.Module):
    """A convolution whose output is zero on padding."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 1, *, bias: bool = False, depthwise: bool = False):
        super().__init__()
        self.conv = Convolution(inputs, outputs, kernel, bias=bias, depthwise=depthwise)

    def forward(self, x: Tensor, valid: Tensor, stride: int = 1) -> Tensor:
        return self.conv(x, stride).mul_(valid)


class ChannelNorm(nn.Module):
    """Layer norm over channels, its weights stored as (1, C, 1)."""

    def __init__(self, channels: int, epsilon: float = 1e-5):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(1, channels, 1)), nn.Parameter(torch.zeros(1, channels, 1))
        self.epsilon = epsilon

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], self.weight.flatten(), self.bias.flatten(), self.epsilon)


class ScaledDropPath(nn.Module):
    """Learned scale per channel, then the whole branch dropped for a sample with probability `rate`."""

    def __init__(self, channels: int, rate: float):
        super().__init__()
        self.scale, self.rate = nn.Parameter(torch.full((1, channels, 1), 1e-4)), rate

    def forward(self, x: Tensor) -> Tensor:
        x = x * self.scale.flatten()
        if not self.training or self.rate == 0:
            return x
        kept = x.new_empty(len(x), 1, 1).bernoulli_(1 - self.rate)
        return x * kept / (1 - self.rate)


class Attention(nn.Module):
    """Attention whose queries, keys and values each come from their own depthwise convolution, which may stride."""

    def __init__(self, config: ActionFormerConfig, span: int):
        super().__init__()
        width = config.channels
        self.heads, self.span = config.heads, span
        for name in ("query", "key", "value"):
            self.add_module(f"{name}_conv", MaskedConvolution(width, width, 3, depthwise=True))
            self.add_module(f"{name}_norm", ChannelNorm(width))
            self.add_module(name, Convolution(width, width, bias=True))
        self.proj = Convolution(width, width, bias=True)
        self.drop = nn.Dropout(config.dropout)
        relative = nn.Parameter(torch.empty(1, 1, config.heads, span)) if config.relative and span > 1 else None
        self.register_parameter("rel_pe", relative)
        if relative is not None:
            nn.init.trunc_normal_(relative, std=math.sqrt(2 / width))

    def forward(self, x: Tensor, valid: Tensor, stride: int) -> Tensor:
        """`x` (B, T, D), `valid` (B, T / stride, 1) -> (B, T / stride, D)."""
        query, key, value = (self._project(name, x, valid, stride) for name in ("query", "key", "value"))
        if self.span > 1:
            bias = None if self.rel_pe is None else self.get_parameter("rel_pe").flatten(0, 2)
            mixed = local_attention(query, key, value, valid, self.heads, self.span // 2, bias)
        else:
            mixed = global_attention(query, key, value, valid, self.heads)
        return self.drop(self.proj(mixed)) * valid

    def _project(self, name: str, x: Tensor, valid: Tensor, stride: int) -> Tensor:
        parts = (self.get_submodule(name + suffix) for suffix in ("_conv", "_norm", ""))
        conv, norm, linear = parts
        return linear(norm(conv(x, valid, stride)))


class Block(nn.Module):
    """Pre-norm transformer block; with stride 2 it halves the sequence."""

    def __init__(self, config: ActionFormerConfig, span: int, stride: int):
        super().__init__()
        width = config.channels
        self.stride = stride
        self.ln1, self.ln2 = ChannelNorm(width), ChannelNorm(width)
        self.attn = Attention(config, span)
        wide, back = Convolution(width, 4 * width, bias=True), Convolution(4 * width, width, bias=True)
        self.mlp = nn.Sequential(wide, nn.GELU(), nn.Dropout(config.dropout), back, nn.Dropout(config.dropout))
        scaled = config.drop_path > 0
        self.drop_path_attn = ScaledDropPath(width, config.drop_path) if scaled else nn.Identity()
        self.drop_path_mlp = ScaledDropPath(width, config.drop_path) if scaled else nn.Identity()

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        """`x` (B, T, D), `valid` (B, T / stride, 1), of the output -> (B, T / stride, D)."""
        length = valid.shape[1]
        if torch.is_grad_enabled() or length <= SLICE or self.attn.span <= 1:
            return self._whole(x, valid)
        # Only a few steps to either side matter: piece by piece, little more than input and output is in memory.
        margin, result = self.attn.span // 2 + 1, x.new_empty(len(x), length, x.shape[2])
        for start in range(0, length, SLICE):
            stop = min(start + SLICE, length)
            left, right = max(start - margin, 0), min(stop + margin, length)
            piece = self._whole(x[:, left * self.stride : right * self.stride], valid[:, left:right])
            result[:, start:stop] = piece[:, start - left : stop - left]
        return result

    def _whole(self, x: Tensor, valid: Tensor) -> Tensor:
        attended = self.attn(self.ln1(x), valid, self.stride)
        if self.stride > 1:
            x = F.max_pool1d(x.transpose(1, 2), 3, self.stride, padding=1).transpose(1, 2)
        x = x * valid + self.drop_path_attn(attended)
        return x + self.drop_path_mlp(self.mlp(self.ln2(x)) * valid)


class Backbone(nn.Module):
    """Embedding convolutions, stem blocks, and blocks that halve the sequence."""

    def __init__(self, config: ActionFormerConfig):
        super().__init__()
        self.config, width = config, config.channels
        first = config.inputs
        if isinstance(config.in_channels, tuple):
            sizes = zip(config.in_channels, config.sources, strict=True)
            self.proj = nn.ModuleList(MaskedConvolution(a, b, bias=True) for a, b in sizes)
            first = width
        layers = [first] + [width] * (config.embedding_layers - 1)
        self.embd = nn.ModuleList(MaskedConvolution(inputs, width, config.kernel) for inputs in layers)
        self.embd_norm = nn.ModuleList(ChannelNorm(width, _epsilon(config)) for _ in layers)
        self.stem = nn.ModuleList(Block(config, config.spans[0], 1) for _ in range(config.stem_layers))
        self.branch = nn.ModuleList(Block(config, span, 2) for span in config.spans[1:])
        if config.positions:
            self.register_buffer("table", position_table(config.max_len, width), persistent=False)

    def embed(self, x: Tensor, valid: Tensor, first: int, total: int) -> Tensor:
        """`x` (B, T, inputs), `valid` (B, T, 1) -> (B, T, D)."""
        if isinstance(self.config.in_channels, tuple):
            parts = x.split(self.config.in_channels, dim=-1)
            x = torch.cat([proj(part, valid) for proj, part in zip(self.proj, parts, strict=True)], dim=-1)
        for conv, norm in zip(self.embd, self.embd_norm, strict=True):
            x = _masked_again(norm(conv(x, valid)).relu_(), valid, self.config)
        return x + self._positions(first, x.shape[1], total) * valid if self.config.positions else x

    def forward(self, x: Tensor, valid: list[Tensor]) -> list[Tensor]:
        """`x` (B, T, D) embedded, `valid` (B, T_l, 1) of each level -> (B, T_l, D) of each level."""
        for block in self.stem:
            x = block(x, valid[0])
        pyramid = [x]
        for block, mask in zip(self.branch, valid[1:], strict=True):
            pyramid.append(block(pyramid[-1], mask))
        return pyramid

    def _positions(self, first: int, length: int, total: int) -> Tensor:
        table = self.get_buffer("table")
        if not self.training and total >= self.config.max_len:
            table = F.interpolate(table.T[None], total, mode="linear", align_corners=False)[0].T
        return table[first : first + length]


class Neck(nn.Module):
    """One norm a level, unmasked."""

    def __init__(self, config: ActionFormerConfig):
        super().__init__()
        self.fpn_norms = nn.ModuleList(ChannelNorm(config.channels, _epsilon(config)) for _ in config.ranges)

    def forward(self, x: Tensor, level: int) -> Tensor:
        return self.fpn_norms[level](x)


class Head(nn.Module):
    """Convolutions shared by all levels; the output layer, of the given name, is masked in the released layout."""

    def __init__(self, config: ActionFormerConfig, name: str, outputs: int):
        super().__init__()
        self.config, self.name = config, name
        width = config.head_width or config.channels
        inputs = [config.channels] + [width] * (config.head_layers - 2)
        hidden = inputs[: config.head_layers - 1]
        self.head = nn.ModuleList(MaskedConvolution(size, width, config.kernel) for size in hidden)
        self.norm = nn.ModuleList(ChannelNorm(width, _epsilon(config)) for _ in hidden)
        last = width if hidden else config.channels
        self.add_module(name, MaskedConvolution(last, outputs, config.kernel, bias=True))

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        for conv, norm in zip(self.head, self.norm, strict=True):
            x = _masked_again(norm(conv(x, valid)).relu_(), valid, self.config)
        output: MaskedConvolution = self.get_submodule(self.name)  # type: ignore[assignment]
        return output(x, valid) if self.config.layout == "released" else output.conv(x)


class Scale(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1.0))


class RegressionHead(Head):
    """Distances to start and end in steps of the level: a learned scale a level, then ReLU."""

    def __init__(self, config: ActionFormerConfig):
        super().__init__(config, "offset_head", 2)
        self.scale = nn.ModuleList(Scale() for _ in config.ranges)

    def offsets(self, x: Tensor, valid: Tensor, level: int) -> Tensor:
        return F.relu(self(x, valid) * self.scale[level].get_parameter("scale"))


class ActionFormer(nn.Module):
    """The network; its state dict has the keys and shapes of the released one."""

    def __init__(self, config: ActionFormerConfig = THUMOS14_I3D):
        super().__init__()
        self.config = config
        self.backbone, self.neck = Backbone(config), Neck(config)
        self.cls_head, self.reg_head = Head(config, "cls_head", config.classes), RegressionHead(config)
        self.set_prior(config.prior)

    def set_prior(self, probability: float, classes: Sequence[int] | None = None) -> None:
        """Start these classes (None: all) from a probability at every point."""
        bias = self.cls_head.get_parameter("cls_head.conv.bias")
        with torch.no_grad():
            bias[list(range(len(bias))) if classes is None else list(classes)] = _logit(probability)

    def forward(self, features: Tensor, mask: Tensor) -> ActionFormerOutput:
        """Detect in a batch of sequences.

        `features` (B, T, inputs) float, zeros on padding; `mask` (B, T) bool, true on padding, which must be
        at the end; T a multiple of the last stride. Raises ValueError on a wrong shape.
        """
        return self.detect(self.embed(features, mask), mask)

    def embed(self, features: Tensor, mask: Tensor, first: int = 0, total: int | None = None) -> Tensor:
        """(B, T, inputs) -> (B, T, D), the part of the network that comes before attention; T is free.

        `first` and `total` place a piece of a longer sequence: its first step, and the padded length of the
        whole (position embedding alone needs them).
        """
        config = self.config
        if features.ndim != 3 or features.shape[-1] != config.inputs:
            raise ValueError(f"ActionFormer: features {tuple(features.shape)}, expected (B, T, {config.inputs})")
        if mask.shape != features.shape[:2]:
            raise ValueError(f"ActionFormer: mask {tuple(mask.shape)} for features {tuple(features.shape)}")
        valid = (~mask).unsqueeze(-1).to(features.dtype)
        return self.backbone.embed(features, valid, first, total or features.shape[1])

    def detect(self, embedded: Tensor, mask: Tensor) -> ActionFormerOutput:
        """The rest of the network, for what `embed` gave."""
        pyramid, valid, masks = self.pyramid(embedded, mask)
        heads = self._predict if torch.is_grad_enabled() else self._predict_in_slices
        found = [heads(x, inside, level) for level, (x, inside) in enumerate(zip(pyramid, valid, strict=True))]
        logits, offsets = zip(*found, strict=True)
        return ActionFormerOutput(logits, offsets, tuple(masks))

    def _predict(self, x: Tensor, valid: Tensor, level: int) -> tuple[Tensor, Tensor]:
        normed = self.neck(x, level)
        return self.cls_head(normed, valid), self.reg_head.offsets(normed, valid, level)

    def _predict_in_slices(self, x: Tensor, valid: Tensor, level: int) -> tuple[Tensor, Tensor]:
        """The same with few of the heads' activations in memory at a time."""
        length, margin = x.shape[1], self.config.head_layers * (self.config.kernel // 2)
        parts = []
        for start in range(0, length, SLICE):
            left, right = max(start - margin, 0), min(start + SLICE + margin, length)
            own = slice(start - left, min(start + SLICE, length) - left)
            found = self._predict(x[:, left:right], valid[:, left:right], level)
            parts.append([part[:, own] for part in found])
        logits, offsets = (torch.cat(part, dim=1) for part in zip(*parts, strict=True))
        return logits, offsets

    def pyramid(self, embedded: Tensor, mask: Tensor) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """Backbone outputs (B, T_l, D), validity (B, T_l, 1) as 0 or 1, and masks (B, T_l), of each level."""
        if embedded.shape[1] % self.config.strides[-1]:
            raise ValueError(f"ActionFormer: {embedded.shape[1]} steps are no multiple of {self.config.strides[-1]}")
        masks = [mask[:, ::stride] for stride in self.config.strides]
        valid = [(~m).unsqueeze(-1).to(embedded.dtype) for m in masks]
        return self.backbone(embedded, valid), valid, masks


def position_table(length: int, width: int) -> Tensor:
    """(length, width) float32 sinusoids over sqrt(width): sine in even channels, cosine in odd ones."""
    angle = np.arange(length)[:, None] / 10000 ** (2 * (np.arange(width) // 2) / width)
    table = np.where(np.arange(width) % 2, np.cos(angle), np.sin(angle))
    return torch.from_numpy(table).float() / width**0.5


def _epsilon(config: ActionFormerConfig) -> float:
    return 1e-5 if config.layout == "released" else 1e-6


def _masked_again(x: Tensor, valid: Tensor, config: ActionFormerConfig) -> Tensor:
    return x if config.layout == "released" else x * valid


def _logit(probability: float) -> float:
    return -math.log((1 - probability) / probability)
