import math
from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from vidtad.errors import InputError
from vidtad.models.deformable import DeformableAttention, _gathered_rows, deformable_sample, weighted_rows
from vidtad.models.react import (
    ACTIVITYNET,
    THUMOS14,
    ReAct,
    ReActConfig,
    inverse_sigmoid,
    load_released,
    relation_blocked,
    released_state,
)

SMALL = ReActConfig(
    in_channels=12,
    classes=3,
    width=16,
    heads=4,
    encoder_layers=1,
    decoder_layers=3,
    feed_forward=32,
    queries=5,
    clip_len=24,
)


def sampled_as_an_image(value, locations, weights):
    """The same attention through torch's two-dimensional sampler on an image of one row."""
    b, t, h, d = value.shape
    image = value.permute(0, 2, 3, 1).reshape(b * h, d, 1, t)
    x = 2 * locations.permute(0, 2, 1, 3).reshape(b * h, *locations.shape[1::2]) - 1
    grid = torch.stack([x, torch.zeros_like(x)], dim=-1)
    taken = F.grid_sample(image, grid, align_corners=True)
    mixed = (taken * weights.permute(0, 2, 1, 3).reshape(b * h, 1, *weights.shape[1::2])).sum(-1)
    return mixed.reshape(b, h, d, -1).permute(0, 3, 1, 2).flatten(2)


def random_attention(seed: int, length: int = 9):
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.rand(*shape, generator=generator, dtype=torch.float64)

    value, locations, weights = draw(2, length, 3, 4), draw(2, 5, 3, 2) * 1.6 - 0.3, draw(2, 5, 3, 2)
    return [x.requires_grad_() for x in (value, locations, weights)]


@pytest.mark.parametrize("seed", range(5))
def test_sampling_and_gradients_are_those_of_the_image_sampler(seed: int) -> None:
    inputs, others = random_attention(seed), random_attention(seed)
    ours, theirs = deformable_sample(*inputs), sampled_as_an_image(*others)
    torch.testing.assert_close(ours, theirs)
    upstream = torch.randn(ours.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    ours.backward(upstream)
    theirs.backward(upstream)
    for a, b in zip(inputs, others, strict=True):
        torch.testing.assert_close(a.grad, b.grad)


def test_both_ways_to_sum_rows_agree() -> None:
    table, shares = torch.randn(9, 4), torch.rand(5, 3)
    rows = torch.randint(9, (5, 3))
    torch.testing.assert_close(weighted_rows(table, rows, shares), _gathered_rows(table, rows, shares))


def test_far_locations_contribute_nothing() -> None:
    value, _, weights = random_attention(0)
    locations = torch.full_like(weights, 1e6).requires_grad_()
    with torch.no_grad():
        locations[..., 0] = -1e6
    out = deformable_sample(value, locations, weights)
    out.sum().backward()
    assert (out == 0).all() and (value.grad == 0).all() and (locations.grad == 0).all()


def test_sequence_of_one_row() -> None:
    value, locations, weights = random_attention(0, length=1)
    out = deformable_sample(value, locations, weights)
    expected = value[:, 0].unsqueeze(1) * weights.sum(-1, keepdim=True)
    torch.testing.assert_close(out, expected.flatten(2))


def test_initial_heads_look_right_middle_and_left() -> None:
    offsets = DeformableAttention(32, 8, 4).sampling_offsets.bias.view(8, 4)
    torch.testing.assert_close(offsets[0], torch.tensor([1.0, 2, 3, 4]))
    torch.testing.assert_close(offsets[2], -offsets[0])
    assert offsets[1].abs().max() < 1e-5


def batch(lengths: list[int], total: int = 24, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    mask = torch.arange(total) >= torch.tensor(lengths)[:, None]
    features = torch.randn(len(lengths), total, SMALL.in_channels, generator=generator)
    return features.masked_fill(mask.unsqueeze(-1), 0), mask


def small(**changes) -> ReAct:
    torch.manual_seed(3)
    return ReAct(replace(SMALL, **changes)).eval()


def test_released_size() -> None:
    model = ReAct(THUMOS14)
    assert len(model.state_dict()) == 171
    assert sum(p.numel() for p in model.parameters()) == 5_934_555
    assert ACTIVITYNET.queries == 60 and ACTIVITYNET.encoder_layers == 3


def test_windows_of_a_batch_do_not_see_each_other() -> None:
    model = small()
    features, mask = batch([24, 17, 3])
    together = model(features, mask)
    for i in range(3):
        alone = model(features[i : i + 1], mask[i : i + 1])
        for name in ("logits", "segments", "quality_iou", "quality_mid"):
            torch.testing.assert_close(getattr(together, name)[:, i], getattr(alone, name)[:, 0])


def test_padding_content_does_not_matter() -> None:
    model = small()
    features, mask = batch([15, 20])
    first = model(features, mask)
    second = model(features.masked_fill(mask.unsqueeze(-1), 7.0), mask)
    torch.testing.assert_close(first.segments, second.segments)


def test_fully_padded_window_is_finite() -> None:
    model = small()
    output = model(*batch([24, 0]))
    assert all(torch.isfinite(x).all() for x in (output.logits, output.segments, output.scores()))
    output.logits.sum().backward()
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in model.parameters())


def test_unused_norm_is_stored_but_plays_no_part() -> None:
    model = small()
    before = model(*batch([24])).logits
    torch.nn.init.constant_(model.transformer.encoder.layers[0].norm2.weight, 9.0)
    torch.testing.assert_close(model(*batch([24])).logits, before)


def test_relation_is_an_intersection_plus_self() -> None:
    content = torch.tensor([[[1.0, 0], [1, 0.1], [0, 1], [-1, 0]]])
    segments = torch.tensor([[[0.2, 0.2], [0.8, 0.2], [0.8, 0.1], [0.2, 0.2]]])
    allowed = ~relation_blocked(content, segments, iou_threshold=0.2, similarity_threshold=0.05)
    expected = torch.eye(4, dtype=torch.bool)
    # 0-1: alike and apart. 1-2: alike enough but overlapping. 0-3: opposite contents.
    expected[0, 1] = expected[1, 0] = True
    assert (allowed[0] == expected).all()


def test_relation_and_quality_can_be_switched_off() -> None:
    features, mask = batch([24])
    assert not torch.allclose(
        small(relation_similarity=0.99).forward(features, mask).logits,
        small(relation=False).forward(features, mask).logits,
    )
    plain = small(quality=False)
    assert "iou_predictor.weight" not in plain.state_dict()
    output = plain(features, mask)
    torch.testing.assert_close(output.scores(), output.logits[-1].sigmoid())


def test_initialisation_as_released() -> None:
    model = small()
    assert model.class_embed[0].bias.tolist() == pytest.approx([-math.log(99)] * 3)
    assert model.segment_embed[0].layers[-1].bias[1] == -2
    assert model.segment_embed[1].layers[-1].bias[1] != -2
    torch.testing.assert_close(model.class_embed[0].weight, model.class_embed[2].weight)
    assert model.class_embed[0].weight is not model.class_embed[2].weight


def test_every_parameter_but_the_unused_norm_can_learn() -> None:
    model = small()
    features, mask = batch([24, 11])
    with torch.no_grad():
        for layer in model.transformer.encoder.layers:
            torch.nn.init.normal_(layer.self_attn.atten_weight.weight)
    output = model(features, mask)
    (output.logits.square().sum() + output.segments.sum() + output.scores().sum()).backward()
    without = {name for name, p in model.named_parameters() if p.grad is None}
    assert without == {"transformer.encoder.layers.0.norm2.weight", "transformer.encoder.layers.0.norm2.bias"}


def released(model: ReAct) -> dict:
    state = model.state_dict()
    alias = {f"transformer.decoder.{k}": v for k, v in state.items() if k.startswith("segment_embed.")}
    return {"meta": {}, "state_dict": {**state, **alias}, "optimizer": {}}


def test_released_checkpoint_round_trip() -> None:
    model, other = small(), ReAct(SMALL).eval()
    load_released(other, released(model))
    torch.testing.assert_close(other(*batch([24])).logits, model(*batch([24])).logits)
    assert released_state(model.state_dict()).keys() == model.state_dict().keys()


def test_alias_that_differs_is_refused() -> None:
    checkpoint = released(small())
    key = "transformer.decoder.segment_embed.1.layers.0.weight"
    checkpoint["state_dict"][key] = checkpoint["state_dict"][key] + 1
    with pytest.raises(InputError, match=r"segment_embed\.1"):
        released_state(checkpoint)


def test_nothing_else_is_ignored() -> None:
    checkpoint = released(small())
    checkpoint["state_dict"]["surprise"] = torch.zeros(1)
    with pytest.raises(InputError, match="surprise"):
        load_released(small(), checkpoint)


@pytest.mark.parametrize("wrong", [{"heads": 3}, {"queries": 0}, {"stride_rate": 0.01}])
def test_impossible_sizes(wrong: dict) -> None:
    with pytest.raises(ValueError, match="ReAct"):
        replace(SMALL, **wrong)


def test_wrong_shapes_are_named() -> None:
    features, mask = batch([24])
    with pytest.raises(ValueError, match="12"):
        small()(features[..., :5], mask)
    with pytest.raises(ValueError, match="mask"):
        small()(features, mask[:, :5])


def test_inverse_sigmoid() -> None:
    x = torch.tensor([0.1, 0.5, 0.9])
    torch.testing.assert_close(inverse_sigmoid(x).sigmoid(), x)
    assert torch.isfinite(inverse_sigmoid(torch.tensor([-1.0, 0, 1, 2]))).all()
