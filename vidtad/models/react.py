"""ReAct: temporal action detection with relational queries (Shi et al., ECCV 2022).

Where paper and released code disagree this follows the code, because the published weights depend on it:
there is no normalisation after the encoder's feed-forward layer (`norm2` is stored and unused), relational
attention adds its own residual and has no output projection, and cross attention is queried by the relational
attention's output.
"""

import copy
import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vidtad.errors import InputError
from vidtad.geometry import pairwise_iou, start_end
from vidtad.models.deformable import DeformableAttention, at_least_single
from vidtad.models.loading import load_exactly


@dataclass(frozen=True)
class ReActConfig:
    """Size and rules of a ReAct network; the defaults are THUMOS14 as released.

    `relation_iou` and `relation_similarity`: in decoder layers after the first, a query attends to another
    one only if their segments overlap by at most the first and their contents' cosine exceeds the second. The
    released code holds 0.2 and 0.2; the supplement of the paper says 0.5 for the first. `relation` False
    drops that mask, `quality` False the two quality heads (both for ablations). `clip_len` and `stride_rate`:
    snippets in a window, and the step between windows as a share of it; with `resize` a video of any length is
    interpolated to `clip_len` snippets instead, which are its one window. Raises ValueError for sizes no network
    can have.
    """

    in_channels: int = 2048
    classes: int = 20
    width: int = 256
    heads: int = 8
    encoder_points: int = 4
    decoder_points: int = 4
    encoder_layers: int = 2
    decoder_layers: int = 4
    feed_forward: int = 1024
    queries: int = 40
    relation: bool = True
    relation_iou: float = 0.2
    relation_similarity: float = 0.2
    quality: bool = True
    clip_len: int = 256
    stride_rate: float = 0.25
    resize: bool = False

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            if field.type in (int, "int") and getattr(self, field.name) < 1:
                raise ValueError(f"ReAct: {field.name} must be at least 1, not {getattr(self, field.name)}")
        if self.width % self.heads:
            raise ValueError(f"ReAct: width {self.width} is not divisible by {self.heads} heads")
        if int(self.clip_len * self.stride_rate) < 1:
            raise ValueError(f"ReAct: stride_rate {self.stride_rate} is below one snippet of {self.clip_len}")


THUMOS14 = ReActConfig()
# From the paper alone: no ActivityNet code or weights were released. One window is the whole video, rescaled.
ACTIVITYNET = ReActConfig(
    in_channels=400,
    classes=200,
    encoder_layers=3,
    queries=60,
    relation_iou=0.9,
    relation_similarity=-0.2,
    clip_len=100,
    stride_rate=1.0,
    resize=True,
)


@dataclass(frozen=True)
class ReActOutput:
    """What a forward pass predicts, for every decoder layer (L of them, the last one counts).

    `logits` (L, B, Q, classes); `segments` (L, B, Q, 2), (mid, len) as fractions of each window's valid
    snippets; `quality_iou` and `quality_mid` (L, B, Q) in (0, 1), all ones without quality heads; `projected`
    and `memory` (B, T, C) are the encoder's input and output; `lengths` (B,) counts valid snippets (1 for an
    empty window).
    """

    logits: Tensor
    segments: Tensor
    quality_iou: Tensor
    quality_mid: Tensor
    projected: Tensor
    memory: Tensor
    mask: Tensor
    lengths: Tensor

    def single(self) -> "ReActOutput":
        """The same in float32 after a pass in mixed precision."""
        parts = (getattr(self, field.name) for field in dataclasses.fields(self))
        return ReActOutput(*(at_least_single(part) if part.is_floating_point() else part for part in parts))

    def scores(self) -> Tensor:
        """Last layer's class probability times both qualities, (B, Q, classes)."""
        return self.logits[-1].sigmoid() * (self.quality_iou[-1] * self.quality_mid[-1]).unsqueeze(-1)


class Perceptron(nn.Module):
    """Linear layers with ReLU in between; `sizes` lists the widths from input to output."""

    def __init__(self, *sizes: int):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers[:-1]:
            x = F.relu(layer(x))
        return self.layers[-1](x)


class EncoderLayer(nn.Module):
    def __init__(self, config: ReActConfig):
        super().__init__()
        self.self_attn = DeformableAttention(config.width, config.heads, config.encoder_points)
        self.linear1 = nn.Linear(config.width, config.feed_forward)
        self.linear2 = nn.Linear(config.feed_forward, config.width)
        self.norm1 = nn.LayerNorm(config.width)
        self.norm2 = nn.LayerNorm(config.width)  # stored in every checkpoint, never applied

    def forward(self, x: Tensor, reference: Tensor, mask: Tensor, lengths: Tensor) -> Tensor:
        x = self.norm1(x + self.self_attn(x, reference, x, mask, lengths))
        return x + self.linear2(F.relu(self.linear1(x), inplace=True))


class RelationAttention(nn.Module):
    """Multi-head self-attention among queries, restricted to the pairs a mask lets through."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.Q = nn.Linear(width, width)
        self.K = nn.Linear(width, width)
        self.V = nn.Linear(width, width)

    def forward(self, x: Tensor, blocked: Tensor | None) -> Tensor:
        """`x` (B, Q, C) plus its attention; `blocked` (B, Q, Q) is true where i must not attend to j."""
        q, k, v = (part(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (self.Q, self.K, self.V))
        allowed = None if blocked is None else ~blocked.unsqueeze(1)
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=allowed)
        return x + attended.transpose(1, 2).flatten(2)


class DecoderLayer(nn.Module):
    def __init__(self, config: ReActConfig):
        super().__init__()
        self.self_attn = RelationAttention(config.width, config.heads)
        self.cross_attn = DeformableAttention(config.width, config.heads, config.decoder_points)
        self.linear1 = nn.Linear(config.width, config.feed_forward)
        self.linear2 = nn.Linear(config.feed_forward, config.width)
        self.norm1 = nn.LayerNorm(config.width)
        self.norm2 = nn.LayerNorm(config.width)
        self.norm3 = nn.LayerNorm(config.width)

    def forward(
        self,
        x: Tensor,
        reference: Tensor,
        blocked: Tensor | None,
        memory: Tensor,
        mask: Tensor,
        lengths: Tensor,
    ) -> Tensor:
        related = self.self_attn(x, blocked)
        x = self.norm1(x + related)
        x = self.norm2(x + self.cross_attn(related, reference, memory, mask, lengths))
        return self.norm3(x + self.linear2(F.relu(self.linear1(x), inplace=True)))


class Encoder(nn.Module):
    def __init__(self, config: ReActConfig):
        super().__init__()
        self.layers = nn.ModuleList(EncoderLayer(config) for _ in range(config.encoder_layers))


class Decoder(nn.Module):
    def __init__(self, config: ReActConfig):
        super().__init__()
        self.layers = nn.ModuleList(DecoderLayer(config) for _ in range(config.decoder_layers))
        self.norm = nn.LayerNorm(config.width)
        self.reference_point = nn.Linear(config.width, 1)


class Transformer(nn.Module):
    def __init__(self, config: ReActConfig):
        super().__init__()
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)


def inverse_sigmoid(x: Tensor, epsilon: float = 1e-5) -> Tensor:
    """Logit of `x` clamped to [0, 1], with both sides of the ratio at least `epsilon`."""
    x = x.clamp(0, 1)
    return torch.log(x.clamp(min=epsilon) / (1 - x).clamp(min=epsilon))


def relation_blocked(content: Tensor, segments: Tensor, iou_threshold: float, similarity_threshold: float) -> Tensor:
    """Pairs of queries that must not attend to each other, (B, Q, Q) bool; no gradient.

    Query i attends to j if their segments' IoU is at most `iou_threshold` (or i is j) and the cosine of their
    contents exceeds `similarity_threshold`: the intersection of the two relations plus the query itself, as
    in the text of section 3.2 (Eq. 3 prints a set difference). `content` (B, Q, C), `segments` (B, Q, 2) as
    (mid, len).
    """
    with torch.no_grad():
        bounds = start_end(segments).clamp(0, 1)
        distinct = pairwise_iou(bounds, bounds) <= iou_threshold
        unit = F.normalize(content, dim=-1)
        similar = unit @ unit.transpose(1, 2) > similarity_threshold
        itself = torch.eye(content.shape[1], dtype=torch.bool, device=content.device)
        return ~(distinct & similar | itself)


class ReAct(nn.Module):
    """The network; its state dict has the layout of the released checkpoints (see `released_state`)."""

    def __init__(self, config: ReActConfig = THUMOS14):
        super().__init__()
        self.config = config
        width = config.width
        self.input_proj = Perceptron(config.in_channels, width)
        self.query_embed = nn.Embedding(config.queries, 2 * width)
        self.transformer = Transformer(config)
        self.segment_embed = nn.ModuleList(Perceptron(width, width, width, 2) for _ in range(config.decoder_layers))
        self.class_embed = nn.ModuleList(nn.Linear(width, config.classes) for _ in range(config.decoder_layers))
        if config.quality:
            self.iou_predictor = nn.Linear(width, 1)
            self.cen_predictor = nn.Linear(width, 1)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """The released initialisation; draws from torch's global generator."""
        for module in self.transformer.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
        for module in self.transformer.modules():
            if isinstance(module, DeformableAttention):
                module.reset_parameters()
        nn.init.zeros_(self.transformer.decoder.reference_point.bias)
        # Every class starts at probability 0.01, so that the focal loss is not swamped by easy negatives.
        for head in self.class_embed:
            nn.init.constant_(head.get_parameter("bias"), -math.log(99))
        for heads in (self.class_embed, self.segment_embed):
            for later in heads[1:]:
                later.load_state_dict(copy.deepcopy(heads[0].state_dict()))
        nn.init.constant_(self.segment_embed[0].get_parameter("layers.2.bias")[1:], -2.0)

    def forward(self, features: Tensor, mask: Tensor) -> ReActOutput:
        """Detect in a batch of windows.

        `features` (B, T, in_channels) float, zeros on padding; `mask` (B, T) bool, true on padding, which
        must be at the end of a window. A fully padded window gives finite, meaningless rows. Raises
        ValueError on a wrong shape.
        """
        if features.ndim != 3 or features.shape[-1] != self.config.in_channels:
            raise ValueError(f"ReAct: features {tuple(features.shape)}, expected (B, T, {self.config.in_channels})")
        if mask.shape != features.shape[:2]:
            raise ValueError(f"ReAct: mask {tuple(mask.shape)} for features {tuple(features.shape)}")
        return self.detect(self.input_proj(features), mask)

    def overlapping(self, rows: Tensor, index: Tensor) -> ReActOutput:
        """The same for windows that share rows, each of which is projected once.

        `rows` (N, in_channels) float; `index` (B, T) int64, the rows of each window, -1 on padding.
        """
        zero = rows.new_zeros(1, rows.shape[1])
        projected = self.input_proj(torch.cat([rows, zero]))
        return self.detect(projected[index], index < 0)

    def detect(self, projected: Tensor, mask: Tensor) -> ReActOutput:
        """From projected features (B, T, C); `mask` as in `forward`."""
        lengths = (~mask).sum(1).clamp(min=1)
        memory = self.encode(projected, mask, lengths)
        content, position = self.query_embed.weight.expand(len(projected), -1, -1).chunk(2, dim=-1)
        reference = at_least_single(self.transformer.decoder.reference_point(position)).sigmoid()
        hidden, segments = self.decode(content, reference, memory, mask, lengths)
        logits = torch.stack([head(h) for head, h in zip(self.class_embed, hidden, strict=True)])
        states = torch.stack(hidden)
        if self.config.quality:
            heads = (self.iou_predictor, self.cen_predictor)
            iou, mid = (head(states).squeeze(-1).sigmoid() for head in heads)
        else:
            iou = mid = torch.ones_like(states[..., 0])
        return ReActOutput(logits, torch.stack(segments), iou, mid, projected, memory, mask, lengths)

    def encode(self, projected: Tensor, mask: Tensor, lengths: Tensor) -> Tensor:
        """Encoder output (B, T, C) for projected features (B, T, C)."""
        length = projected.shape[1]
        centres = (torch.arange(length, device=projected.device, dtype=projected.dtype) + 0.5) / length
        reference = centres.view(1, -1, 1).expand(len(projected), -1, -1)
        memory = projected
        for layer in self.transformer.encoder.layers:
            memory = layer(memory, reference, mask, lengths)
        return memory

    def decode(
        self,
        content: Tensor,
        reference: Tensor,
        memory: Tensor,
        mask: Tensor,
        lengths: Tensor,
        refine: bool = True,
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Run the decoder from queries `content` (B, Q, C) at `reference` (B, Q, 1 or 2) of the valid window.

        Returns each layer's output (B, Q, C), the last one normalised, and each layer's segments (B, Q, 2).
        With `refine` False the reference stays fixed in all layers and no segments are predicted (ACE-dec,
        section 3.4).
        """
        decoder = self.transformer.decoder
        valid = (lengths / memory.shape[1]).view(-1, 1, 1)
        hidden: list[Tensor] = []
        segments: list[Tensor] = []
        x = content
        for index, layer in enumerate(decoder.layers):
            scaled = reference * valid
            blocked = self._blocked(x, scaled)
            x = layer(x, scaled, blocked, memory, mask, lengths)
            last = index == len(decoder.layers) - 1
            hidden.append(decoder.norm(x) if last else x)
            if refine:
                segments.append(self.refine(index, hidden[-1], reference))
                reference = segments[-1].detach()
        return hidden, segments

    def refine(self, index: int, hidden: Tensor, reference: Tensor) -> Tensor:
        """Segments (B, Q, 2) of layer `index` from its output and the reference that entered it."""
        delta = at_least_single(self.segment_embed[index](hidden))
        base = inverse_sigmoid(reference)
        # A reference point has no length yet: the first layer predicts it from nothing.
        return (delta + (base if base.shape[-1] == 2 else F.pad(base, (0, 1)))).sigmoid()

    def _blocked(self, content: Tensor, reference: Tensor) -> Tensor | None:
        if reference.shape[-1] == 1 or not self.config.relation:
            return None
        return relation_blocked(content, reference, self.config.relation_iou, self.config.relation_similarity)


ALIAS = "transformer.decoder.segment_embed."


def released_state(checkpoint: Mapping[str, Any]) -> dict[str, Tensor]:
    """State dict of `ReAct` from a released checkpoint, or from one that already has its layout.

    Unwraps {meta, state_dict, optimizer} and drops the second name `transformer.decoder.segment_embed.*`
    under which released files repeat `segment_embed.*`. Nothing else is dropped, so that strict loading tells
    of any other difference. Raises InputError when a repeated tensor differs from the one it repeats.
    """
    state = checkpoint.get("state_dict", checkpoint)
    for key in state:
        if key.startswith(ALIAS):
            original = state.get(key.removeprefix("transformer.decoder."))
            if original is None or not torch.equal(original, state[key]):
                raise InputError(
                    f"{key} differs from the {key.removeprefix('transformer.decoder.')} it repeats: "
                    "this is no released ReAct checkpoint"
                )
    return {key: value for key, value in state.items() if not key.startswith(ALIAS)}


def load_released(model: ReAct, checkpoint: Mapping[str, Any]) -> ReAct:
    """Fill `model` from a released checkpoint and return it; InputError says which tensors do not fit."""
    load_exactly(model, released_state(checkpoint))
    return model
