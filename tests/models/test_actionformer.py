import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from vidtad.models.actionformer import ActionFormer, ScaledDropPath, position_table
from vidtad.models.actionformer_config import ACTIVITYNET_I3D, ActionFormerConfig
from vidtad.models.local_attention import BLOCK, global_attention, local_attention

SMALL = ActionFormerConfig(
    in_channels=6, classes=3, width=16, heads=2, stem_layers=1, ranges=((0, 4), (4, 8), (8, 1e4)), windows=5, max_len=32
)


def plain_attention(query, key, value, valid, heads, radius=None, bias=None):
    """Full attention, scores outside the window and on padding at -inf; padded queries give 0."""
    batch, length, width = query.shape
    q, k, v = (x.view(batch, length, heads, -1).transpose(1, 2) for x in (query, key, value))
    scores = q @ k.transpose(2, 3) / math.sqrt(width // heads)
    if radius is not None:
        distance = torch.arange(length) - torch.arange(length)[:, None]
        if bias is not None:
            scores = scores + bias[:, distance.clamp(-radius, radius) + radius]
        scores = scores.masked_fill(distance.abs() > radius, -math.inf)
    scores = scores.masked_fill((valid == 0).view(batch, 1, 1, length), -math.inf)
    shares = torch.nan_to_num(scores.softmax(-1))
    return (shares @ v).transpose(1, 2).reshape(batch, length, width) * valid


def drawn(batch: int, length: int, width: int, lengths: list[int], seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    parts = [torch.randn(batch, length, width, generator=generator, dtype=torch.float64) for _ in range(3)]
    valid = (torch.arange(length) < torch.tensor(lengths)[:, None]).unsqueeze(-1).double()
    return [part.requires_grad_() for part in parts], valid


@pytest.mark.parametrize("length", [1, 3, BLOCK - 1, BLOCK, BLOCK + 1, 5 * BLOCK + 3])
@pytest.mark.parametrize("radius", [1, 4, 9])
@pytest.mark.parametrize("relative", [False, True])
def test_local_attention_and_its_gradients_are_those_of_full(length: int, radius: int, relative: bool) -> None:
    lengths = [length, max(1, length - 2), max(1, length // 3)]
    parts, valid = drawn(3, length, 8, lengths, seed=length)
    bias = torch.randn(2, 2 * radius + 1, dtype=torch.float64).requires_grad_() if relative else None
    inputs = [*parts] if bias is None else [*parts, bias]
    ours = local_attention(*parts, valid, 2, radius, bias) * valid
    plain = plain_attention(*parts, valid, 2, radius, bias)
    torch.testing.assert_close(ours, plain)
    upstream = torch.randn(ours.shape, dtype=torch.float64)
    grads = (torch.autograd.grad(out, inputs, upstream) for out in (ours, plain))
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b)
    (everything,) = torch.autograd.grad(local_attention(*parts, valid, 2, radius, bias).sum(), parts[:1])
    assert torch.isfinite(everything).all()


def test_global_attention_is_full_attention() -> None:
    parts, valid = drawn(2, 11, 8, [11, 6])
    torch.testing.assert_close(global_attention(*parts, valid, 2) * valid, plain_attention(*parts, valid, 2))


def batch(lengths: list[int], total: int = 32, channels: int = 6):
    generator = torch.Generator().manual_seed(1)
    features = torch.randn(len(lengths), total, channels, generator=generator)
    mask = torch.arange(total) >= torch.tensor(lengths)[:, None]
    features[mask] = 0
    return features, mask


def network(**changes) -> ActionFormer:
    torch.manual_seed(0)
    model = ActionFormer(replace(SMALL, **changes)).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model


@torch.inference_mode()
@pytest.mark.parametrize("changes", [{}, {"windows": (5, 5, -1)}, {"layout": "opentad"}, {"relative": True}])
def test_batched_sequences_do_not_see_each_other(changes: dict) -> None:
    model = network(**changes)
    features, mask = batch([32, 19, 7])
    together = model(features, mask)
    for row in range(3):
        alone = model(features[row : row + 1], mask[row : row + 1])
        for level in range(3):
            torch.testing.assert_close(together.logits[level][row], alone.logits[level][0], atol=1e-5, rtol=1e-4)


@torch.inference_mode()
@pytest.mark.parametrize("steps", [1, 6, 7, 25, 27, 28])
def test_one_padded_step_a_level_is_as_good_as_many(steps: int) -> None:
    model = network()
    features, _ = batch([32], 64)
    found = []
    for length in (SMALL.padded_length(steps), SMALL.official_length(steps), 64):
        mask = torch.arange(length)[None] >= steps
        output = model(features[:, :length].masked_fill(mask.unsqueeze(-1), 0), mask)
        valid = [int((~m).sum()) for m in output.masks]
        found.append([x[0, :n] for x, n in zip(output.logits, valid, strict=True)])
    for level in range(3):
        torch.testing.assert_close(found[0][level], found[1][level], atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(found[0][level], found[2][level], atol=1e-5, rtol=1e-4)


@torch.inference_mode()
def test_no_padding_is_not_the_same_as_some() -> None:
    model = network()
    features, _ = batch([32], 64)
    features[:, 32:] = 0
    full = model(features[:, :32], torch.zeros(1, 32, dtype=torch.bool)).logits[0]
    padded = model(features, torch.arange(64)[None] >= 32).logits[0][:, :32]
    assert (full - padded).abs()[:, -3:].max() > 1e-3
    assert SMALL.padded_length(32) == 32


@torch.inference_mode()
def test_wide_layers_in_slices_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    model, (features, mask) = network(), batch([32, 20])
    whole = model(features, mask)
    monkeypatch.setattr("vidtad.models.actionformer.SLICE", 5)
    sliced = model(features, mask)
    for a, b in zip(whole.logits + whole.offsets, sliced.logits + sliced.offsets, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


def test_every_parameter_learns() -> None:
    model = network(relative=True, positions=True).train()
    output = model(*batch([32, 19]))
    (sum(x.sum() for x in output.logits) + sum(x.sum() for x in output.offsets)).backward()
    # Adding to every key shifts the scores of a query alike, which softmax ignores.
    silent = {name for name, p in model.named_parameters() if p.grad is None or p.grad.abs().max() < 1e-7}
    assert {name.split(".attn.")[-1] for name in silent} <= {"key.bias", "key_norm.bias"}


def test_start_probabilities() -> None:
    model = ActionFormer(SMALL)
    model.set_prior(1e-6, [1])
    bias = model.cls_head.get_parameter("cls_head.conv.bias")
    assert bias.sigmoid().tolist() == pytest.approx([0.01, 1e-6, 0.01], rel=1e-4)


def test_drop_path_drops_samples_and_keeps_the_mean() -> None:
    torch.manual_seed(0)
    layer = ScaledDropPath(4, 0.25).train()
    torch.nn.init.ones_(layer.scale)
    out = layer(torch.ones(4000, 2, 4))
    assert out.unique().tolist() == pytest.approx([0, 4 / 3])
    assert out.mean().item() == pytest.approx(1, abs=0.05)
    assert (out == out[:, :1, :1]).all() and torch.equal(layer.eval()(torch.ones(2, 2, 4)), torch.ones(2, 2, 4))


def test_without_drop_path_there_are_no_scales() -> None:
    keys = ActionFormer(replace(SMALL, drop_path=0.0)).state_dict()
    assert not [key for key in keys if "drop_path" in key]


def test_position_table() -> None:
    table = position_table(40, 6).numpy() * math.sqrt(6)
    position = np.arange(40)
    for pair in range(3):
        angle = position / 10000 ** (2 * pair / 6)
        np.testing.assert_allclose(table[:, 2 * pair], np.sin(angle), atol=1e-6)
        np.testing.assert_allclose(table[:, 2 * pair + 1], np.cos(angle), atol=1e-6)


@torch.inference_mode()
def test_mixed_precision_is_near() -> None:
    model, (features, mask) = network(), batch([32, 20])
    exact = model(features, mask)
    with torch.autocast("cpu", torch.bfloat16):
        lower = model(features, mask).single()
    for a, b in zip(exact.logits, lower.logits, strict=True):
        assert b.dtype == torch.float32 and (a - b).abs().max() < 0.1 * a.abs().max() + 0.05


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"width": 15}, "divisible"),
        ({"windows": (5, 5)}, "windows"),
        ({"ranges": ()}, "windows"),
        ({"classes": 0}, "classes"),
        ({"kernel": 2}, "odd"),
        ({"in_channels": (3, 3)}, "source"),
        ({"in_channels": (3, 3), "width": (4, 4, 8)}, "widths"),
        ({"relative": True, "windows": 4}, "odd"),
        ({"layout": "mine"}, "layout"),
    ],
)
def test_impossible_sizes_are_refused(change: dict, word: str) -> None:
    with pytest.raises(ValueError, match=word):
        replace(SMALL, **change)


def test_wrong_shapes_are_refused() -> None:
    model, (features, mask) = network(), batch([32])
    with pytest.raises(ValueError, match="expected"):
        model(features[..., :5], mask)
    with pytest.raises(ValueError, match="mask"):
        model(features, mask[:, :30])
    with pytest.raises(ValueError, match="multiple of 4"):
        model(features[:, :30], mask[:, :30])


def test_released_rules() -> None:
    assert ACTIVITYNET_I3D.reach is None and SMALL.reach == 2 + 3 + (1 + 4) + (2 + 8) + 12
    # Windows whose chunks do not divide one another, which the released code cannot pad for.
    mixed = replace(SMALL, windows=(7, 7, -1))
    assert mixed.official_length(33) % 4 == 0
