"""Deformable attention along time: every query reads a few learned positions of a sequence."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def at_least_single(x: Tensor) -> Tensor:
    """`x` in float32 if it is of a shorter kind."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def weighted_rows(table: Tensor, rows: Tensor, shares: Tensor) -> Tensor:
    """Sum of chosen rows times their shares: (N, D), (M, S) int64, (M, S) -> (M, D), without an (M, S, D) array."""
    shares = shares.to(table.dtype)
    if table.device.type == "mps":  # whose kernel for it is missing from many releases of torch
        return _gathered_rows(table, rows, shares)
    return F.embedding_bag(rows, table, mode="sum", per_sample_weights=shares)


def _gathered_rows(table: Tensor, rows: Tensor, shares: Tensor) -> Tensor:
    return (table[rows] * shares.unsqueeze(-1)).sum(1)


def deformable_sample(value: Tensor, locations: Tensor, weights: Tensor) -> Tensor:
    """Weighted sum of linearly interpolated rows.

    `value` (B, T, H, D); `locations` (B, Q, H, K) as fractions of the length, 0 being the first row and 1 the
    last (the sampling index is location * (T - 1)); `weights` (B, Q, H, K). Rows outside the sequence count
    as zero, so values fade out within one row of either end. Returns (B, Q, H * D), differentiable in all
    three.
    """
    batch, length, heads, width = value.shape
    # Anything beyond two rows outside contributes nothing; the clamp keeps the integer conversion defined.
    index = (locations * (length - 1)).clamp(-2, length + 1)
    low = index.detach().floor()
    fraction = index - low
    rows = torch.stack([low, low + 1], dim=-1)
    inside = (rows >= 0) & (rows <= length - 1)
    share = torch.stack([1 - fraction, fraction], dim=-1) * weights.unsqueeze(-1) * inside
    # Row (b, t, h) of the flattened table is (b * T + t) * H + h.
    rows = rows.clamp(0, length - 1).long()
    first = torch.arange(batch, device=value.device).view(-1, 1, 1, 1, 1) * length
    head = torch.arange(heads, device=value.device).view(1, 1, -1, 1, 1)
    flat = ((first + rows) * heads + head).flatten(3).flatten(0, 2)
    taken = weighted_rows(value.reshape(-1, width), flat, share.flatten(3).flatten(0, 2))
    return taken.view(batch, locations.shape[1], heads * width)


class DeformableAttention(nn.Module):
    """Multi-head temporal deformable attention as released with ReAct (Shi et al., ECCV 2022).

    Offsets from a reference point are divided by the valid length of the window, not by the padded one; the
    last row of the padded window lies at 1 (align_corners). Attention weights are not renormalised for
    padding.
    """

    def __init__(self, width: int, heads: int, points: int):
        super().__init__()
        self.heads, self.points = heads, points
        self.sampling_offsets = nn.Linear(width, heads * points)
        self.atten_weight = nn.Linear(width, heads * points)
        self.value_proj = nn.Linear(width, width)
        self.out_proj = nn.Linear(width, width)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Zero offsets, even weights, heads spread over right, middle and left; Xavier projections."""
        nn.init.zeros_(self.sampling_offsets.weight)
        nn.init.zeros_(self.atten_weight.weight)
        nn.init.zeros_(self.atten_weight.bias)
        direction = torch.cos(4 * math.pi * torch.arange(self.heads) / self.heads)
        with torch.no_grad():
            self.sampling_offsets.bias.copy_((direction[:, None] * torch.arange(1, self.points + 1)).flatten())
        for linear in (self.value_proj, self.out_proj):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)

    def forward(self, query: Tensor, reference: Tensor, value: Tensor, mask: Tensor, lengths: Tensor) -> Tensor:
        """Attend from `query` (B, Q, C) to `value` (B, T, C); returns (B, Q, C).

        `reference` is (B, Q, 1), a position, or (B, Q, 2), a (mid, len) segment, as fractions of the padded
        length T. `mask` (B, T) is true on padding; `lengths` (B,) counts the valid rows (at least 1).
        """
        batch, queries, width = query.shape
        # Positions need more than the eight bits that mixed precision would leave them.
        offsets = at_least_single(self.sampling_offsets(query)).view(batch, queries, self.heads, self.points)
        weights = self.atten_weight(query).view(batch, queries, self.heads, self.points).softmax(-1)
        rows = self.value_proj(value).masked_fill(mask.unsqueeze(-1), 0)
        if reference.shape[-1] == 1:
            shift = offsets / lengths.view(-1, 1, 1, 1)
        else:
            shift = offsets / self.points * reference[..., 1, None, None] * 0.5
        locations = reference[..., 0, None, None] + shift
        rows = rows.unflatten(-1, (self.heads, width // self.heads))
        return self.out_proj(deformable_sample(rows, locations, weights))
