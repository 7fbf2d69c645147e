from dataclasses import replace
from itertools import permutations

import pytest
import torch
from torch.nn import functional as F

from vidtad.models.react import ReAct, ReActConfig
from vidtad.models.react_losses import (
    LossConfig,
    Pairs,
    ReActCriterion,
    Targets,
    contrastive_regions,
    cross_entropy,
    focal_loss,
    iou_decay,
    match,
    match_cost,
    param_groups,
    roi_align,
)

CONFIG = ReActConfig(
    in_channels=6, classes=3, width=16, heads=4, encoder_layers=1, decoder_layers=2, feed_forward=16, queries=5,
    clip_len=20,
)  # fmt: skip


def batch(counts: list[int], seed: int = 0):
    torch.manual_seed(seed)
    model = ReAct(CONFIG)
    # Spread queries, so that relations and matches are not decided by near ties.
    torch.nn.init.normal_(model.query_embed.weight, std=4.0)
    lengths = torch.tensor([20, 13, 7])[: len(counts)]
    mask = torch.arange(20) >= lengths[:, None]
    features = torch.randn(len(counts), 20, 6).masked_fill(mask.unsqueeze(-1), 0)
    total = sum(counts)
    segments = torch.stack([torch.rand(total), 0.1 + 0.4 * torch.rand(total)], dim=1)
    window = torch.repeat_interleave(torch.tensor(counts))
    return model, features, mask, Targets(segments, torch.randint(3, (total,)), window)


def test_matching_is_the_cheapest_assignment() -> None:
    model, features, mask, targets = batch([3, 0, 2])
    output = model(features, mask)
    config = LossConfig()
    cost = match_cost(output.logits, output.segments, targets.bounds(), targets.labels, config).detach()
    for layer, matched in enumerate(match(output.logits, output.segments, targets, config)):
        for window, count in ((0, 3), (2, 2)):
            mine = matched.window == window
            paid = cost[layer, window, matched.query[mine], matched.target[mine]].sum()
            first = int((targets.window < window).sum())
            every = [
                sum(cost[layer, window, q, first + t] for t, q in enumerate(chosen))
                for chosen in permutations(range(5), count)
            ]
            assert float(paid) == pytest.approx(float(min(every)), abs=1e-5)
        assert not (matched.window == 1).any()


def test_more_targets_than_queries() -> None:
    model, features, mask, targets = batch([9, 1])
    matched = match(*(lambda o: (o.logits, o.segments))(model(features, mask)), targets, LossConfig())[-1]
    assert (matched.window == 0).sum() == 5 and (matched.window == 1).sum() == 1
    terms = ReActCriterion().detection(model, model(features, mask), targets)
    assert all(torch.isfinite(value) for value in terms.values())


def test_order_of_the_ground_truth_does_not_matter() -> None:
    model, features, mask, targets = batch([3, 1, 2])
    turned = torch.tensor([2, 0, 1, 3, 5, 4])
    other = Targets(targets.segments[turned], targets.labels[turned], targets.window)
    output = model(features, mask)
    first, second = (ReActCriterion().detection(model, output, t) for t in (targets, other))
    for name in first:
        torch.testing.assert_close(first[name], second[name])


@pytest.mark.parametrize("counts", [[0, 0], [2, 0]])
def test_windows_without_an_action(counts: list[int]) -> None:
    model, features, mask, targets = batch(counts)
    terms = ReActCriterion().detection(model, model(features, mask), targets)
    loss = sum(value for value in terms.values() if value.requires_grad)
    loss.backward()
    assert torch.isfinite(loss)
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in model.parameters())
    if not sum(counts):
        assert terms["seg_loss"] == 0 and terms["ce_loss"] > 0


def test_terms_carry_released_names() -> None:
    model, features, mask, targets = batch([2, 1])
    terms = ReActCriterion().detection(model, model(features, mask), targets)
    each = {"seg_loss", "iou_loss", "quality_loss", "ce_loss", "iou_decay"}
    assert terms.keys() == each | {"gt_loss"} | {f"0_{name}" for name in each}


def test_iou_decay_is_logged_and_optimised_on_request() -> None:
    model, features, mask, targets = batch([2, 1])
    output = model(features, mask)
    logged = ReActCriterion().detection(model, output, targets)["iou_decay"]
    wanted = ReActCriterion(LossConfig(iou_decay=2.0)).detection(model, output, targets)["iou_decay"]
    assert not logged.requires_grad and wanted.requires_grad
    torch.testing.assert_close(wanted, 2 * logged)


def test_iou_decay_counts_each_pair_once() -> None:
    segments = torch.tensor([[[0.25, 0.5], [0.5, 0.5], [0.9, 0.1]]])
    assert float(iou_decay(segments)) == pytest.approx((1 / 3) / 9, abs=1e-5)


def test_warm_up_silences_query_classification_alone() -> None:
    model, features, mask, targets = batch([2, 1])
    terms = ReActCriterion().detection(model, model(features, mask), targets, classify=False)
    assert terms["ce_loss"] == 0 and terms["0_ce_loss"] == 0 and terms["gt_loss"] > 0


@pytest.mark.parametrize("option", [{"mid_quality": "l1"}, {"detach_iou_target": True}])
def test_quality_options_change_what_they_say(option: dict) -> None:
    model, features, mask, targets = batch([2, 1])
    output = model(features, mask)
    grads = []
    for config in (LossConfig(), LossConfig(**option)):
        terms = ReActCriterion(config).detection(model, output, targets)
        grads.append(
            torch.autograd.grad(
                terms["quality_loss"], [output.segments, output.quality_mid], retain_graph=True, allow_unused=True
            )
        )
    (pushed, mid), (other_pushed, other_mid) = grads
    if "detach_iou_target" in option:
        assert pushed.abs().sum() > 0 and other_pushed is None
    else:
        assert not torch.allclose(mid, other_mid)


def test_without_quality_heads_there_is_no_quality_loss() -> None:
    _, features, mask, targets = batch([2, 1])
    model = ReAct(replace(CONFIG, quality=False))
    assert "quality_loss" not in ReActCriterion().detection(model, model(features, mask), targets)


def test_focal_loss_is_cross_entropy_without_focus() -> None:
    logits, wanted = torch.randn(4, 3), torch.randint(2, (4, 3)).float()
    plain = F.binary_cross_entropy_with_logits(logits, wanted, reduction="sum")
    torch.testing.assert_close(focal_loss(logits, wanted, 0.5, 0.0), 0.5 * plain)
    p = torch.tensor([[0.9]])
    value = focal_loss(p.logit(), torch.ones(1, 1), 0.25, 2.0)
    torch.testing.assert_close(value, -0.25 * 0.1**2 * p.log().sum())


def test_cross_entropy() -> None:
    p, t = torch.rand(7), torch.rand(7)
    torch.testing.assert_close(cross_entropy(p, t), F.binary_cross_entropy(p, t, reduction="sum"))
    assert torch.isnan(cross_entropy(torch.tensor([float("nan")]), torch.tensor([0.5])))
    assert torch.isfinite(cross_entropy(torch.tensor([0.0, 1.0]), torch.tensor([1.0, 0.0])))


def test_regions_of_a_ramp_are_its_positions() -> None:
    ramp = torch.arange(40.0).view(1, 40, 1)
    out = roi_align(ramp, torch.tensor([[0.0, 4, 20], [0, 3, 3.2], [0, 0, 40]]))
    torch.testing.assert_close(out[0, 0], 4 + torch.arange(16) + 0.5)
    # Shorter than a snippet counts as one; coordinates are row indices without a half shift.
    torch.testing.assert_close(out[1, 0], 3 + (torch.arange(16) + 0.5) / 16)
    # 40 / 16 = 2.5 snippets a bin, three samples each; beyond the last row the last row goes on.
    edges = torch.arange(16)[:, None] * 2.5 + (torch.arange(3) + 0.5) * 2.5 / 3
    torch.testing.assert_close(out[2, 0], edges.clamp(max=39).mean(1))


def pairs_of(features: torch.Tensor) -> Pairs:
    third = len(features) // 3
    spans = torch.tensor([[0.1, 0.6], [0.2, 0.5]])[:third]
    return Pairs(features, spans, spans + 0.2, spans / 2, torch.stack([spans, spans + 0.3], dim=1) / 2)


def test_regions_list_anchor_parts_positive_negative() -> None:
    regions = contrastive_regions(pairs_of(torch.zeros(6, 10, 4)), 10)
    assert regions[:, 0].tolist() == [0, 0, 0, 2, 4, 1, 1, 1, 3, 5]
    torch.testing.assert_close(regions[0], torch.tensor([0.0, 1.0, 6.0]))
    torch.testing.assert_close(regions[3], torch.tensor([2.0, 3.0, 8.0]))


def test_contrastive_negatives_get_no_gradient() -> None:
    torch.manual_seed(0)
    projected = torch.randn(6, 10, 4, requires_grad=True)
    loss = ReActCriterion().ace_encoder(projected, pairs_of(projected.detach()))
    loss.backward()
    assert projected.grad is not None
    assert (projected.grad[:4].abs().sum((1, 2)) > 0).all() and (projected.grad[4:] == 0).all()


def test_contrastive_loss_prefers_a_positive_that_looks_like_the_anchor() -> None:
    alike = torch.zeros(3, 10, 2)
    alike[:2, :, 0] = 1
    alike[2, :, 1] = 1
    pairs = pairs_of(alike)._replace(inner=torch.zeros(1, 0, 2))
    swapped = alike[[0, 2, 1]]
    criterion = ReActCriterion()
    assert criterion.ace_encoder(alike, pairs) < 1e-5 < criterion.ace_encoder(swapped, pairs)


def test_slow_parameters_are_the_offset_and_weight_matrices() -> None:
    model = ReAct(CONFIG)
    fast, slow = param_groups(model, 1e-3)
    assert (fast["lr"], slow["lr"]) == (1e-3, pytest.approx(1e-4))
    # One encoder layer and two decoder layers hold two such matrices each; their biases learn at full speed.
    assert len(slow["params"]) == 6
    assert len(fast["params"]) + 6 == len(list(model.parameters()))
