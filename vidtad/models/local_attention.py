"""Multi-head attention within a window around each step, in memory linear in the length of the sequence."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

BLOCK = 16
"""Queries that share one slice of keys: few make many small products, many compute scores outside the window."""
PADDED = -1e4
"""Added to the score of a key that is padding or outside. Not -inf: a row that sees nothing else must stay finite."""


PIECE = 1024
"""Steps attended to at a time when no gradient is wanted."""


def local_attention(
    query: Tensor, key: Tensor, value: Tensor, valid: Tensor, heads: int, radius: int, bias: Tensor | None = None
) -> Tensor:
    """Softmax attention of step i over the steps i - `radius` to i + `radius` inside the sequence.

    `query`, `key`, `value` (B, T, D), head h owning channels h * D / heads and on; `valid` (B, T, 1), zero on
    padding, which receives no weight; `bias` (heads, 2 * radius + 1), added to the scaled scores by distance.
    Returns (B, T, D); rows of padded queries are finite and meaningless. Equal to full attention with all
    other scores at -inf. Without gradients extra memory does not grow with T, but for the result; with them it
    is linear in T.
    """
    length = query.shape[1]
    if torch.is_grad_enabled() or length <= PIECE:
        return _banded(query, key, value, valid, heads, radius, bias)
    mixed = torch.empty_like(query)
    for start in range(0, length, PIECE):
        stop = min(start + PIECE, length)
        left, right = max(start - radius, 0), min(stop + radius, length)
        q, k, v, real = (x[:, left:right] for x in (query, key, value, valid))
        mixed[:, start:stop] = _banded(q, k, v, real, heads, radius, bias)[:, start - left : stop - left]
    return mixed


def _banded(
    query: Tensor, key: Tensor, value: Tensor, valid: Tensor, heads: int, radius: int, bias: Tensor | None
) -> Tensor:
    batch, length, width = query.shape
    count = -(-length // BLOCK)
    span, missing = BLOCK + 2 * radius, count * BLOCK - length
    # Blocks of queries are a batch of their own, each with the slice of keys that its windows cover.
    queries = F.pad(query, (0, 0, 0, missing)).reshape(batch * count, BLOCK, heads, width // heads).transpose(1, 2)
    keys, values = (_overlapping(x, radius, missing, span, heads) for x in (key, value))
    outside = F.pad((valid - 1) * -PADDED, (0, 0, radius, radius + missing), value=PADDED).squeeze(-1)
    mask = outside.unfold(1, span, BLOCK)[:, :, None, None] + _band(radius, bias, query)
    mask = mask.reshape(batch * count, -1, BLOCK, span).to(query.dtype)
    mixed = F.scaled_dot_product_attention(queries, keys, values, attn_mask=mask)
    return mixed.transpose(1, 2).reshape(batch, count * BLOCK, width)[:, :length]


def _overlapping(x: Tensor, radius: int, missing: int, span: int, heads: int) -> Tensor:
    """(B, T, D) -> (B * blocks, heads, span, D / heads): what each block of queries may look at."""
    padded = F.pad(x, (0, 0, radius, radius + missing))
    slices = padded.unfold(1, span, BLOCK).transpose(2, 3)
    # A single sequence needs no copy: its slices are overlapping views.
    return slices.reshape(-1, span, heads, x.shape[-1] // heads).transpose(1, 2)


def _band(radius: int, bias: Tensor | None, like: Tensor) -> Tensor:
    """(heads or 1, BLOCK, span): the bias of a key by its distance, -inf beyond the radius."""
    rows = torch.arange(BLOCK, device=like.device)[:, None]
    place = torch.arange(BLOCK + 2 * radius, device=like.device) - rows
    table = like.new_zeros(1, 2 * radius + 1) if bias is None else bias
    beyond = (place < 0) | (place > 2 * radius)
    return table[:, place.clamp(0, 2 * radius)].masked_fill(beyond, -math.inf)


def global_attention(query: Tensor, key: Tensor, value: Tensor, valid: Tensor, heads: int) -> Tensor:
    """The same over all steps: (B, T, D) three times, `valid` (B, T, 1), -> (B, T, D)."""
    batch, length, width = query.shape
    split = [x.reshape(batch, length, heads, width // heads).transpose(1, 2) for x in (query, key, value * valid)]
    mask = ((valid - 1) * -PADDED).transpose(1, 2).unsqueeze(1).to(query.dtype)
    mixed = F.scaled_dot_product_attention(split[0], split[1], split[2], attn_mask=mask.expand(-1, 1, length, -1))
    return mixed.transpose(1, 2).reshape(batch, length, width)
