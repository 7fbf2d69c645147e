import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from vidtad.models.actionformer import ActionFormer, ActionFormerOutput
from vidtad.models.actionformer_config import ActionFormerConfig
from vidtad.models.actionformer_losses import (
    ActionFormerCriterion,
    LossConfig,
    assign,
    distance_loss,
    focal_loss,
    param_groups,
    point_table,
)

CONFIG = ActionFormerConfig(
    in_channels=6, classes=3, width=16, heads=2, stem_layers=1, ranges=((0, 4), (4, 8), (8, 1e4)), windows=5, max_len=32
)
POINTS = point_table(CONFIG, 32)


def by_rule(segments: np.ndarray, labels: np.ndarray, losses: LossConfig) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The assignment point by point: classes, the segment that answers, and whether there is one."""
    classes, owner = np.zeros((len(POINTS), 3), bool), np.full(len(POINTS), -1)
    for row, (t, low, high, stride) in enumerate(POINTS):
        candidates = []
        for number, (a, b) in enumerate(segments):
            centre, reach = (a + b) / 2, losses.radius * stride
            inside = max(centre - reach, a) < t < min(centre + reach, b) if losses.sampling == "centre" else a < t < b
            if inside and low <= max(t - a, b - t) <= high:
                candidates.append((b - a, number))
        if candidates:
            shortest, owner[row] = min(candidates)
            classes[row, [labels[n] for length, n in candidates if length <= shortest + 1e-3]] = True
    return classes, owner, owner >= 0


@pytest.mark.parametrize("sampling", ["centre", "all"])
@pytest.mark.parametrize("seed", range(6))
def test_assignment_follows_the_rule(sampling: str, seed: int) -> None:
    random = np.random.default_rng(seed)
    # Eighths are exact in float32: no rounding decides which side of a border a point is on.
    start, length = random.integers(-16, 224, 6) / 8, random.integers(8, 160, 6) / 8
    segments = np.stack([start, start + length], axis=1).astype(np.float32)
    segments[1] = segments[0]  # two actions at one place
    labels = random.integers(3, size=6)
    losses = LossConfig(sampling=sampling)
    hot, offsets = assign(POINTS, segments, labels, 3, losses)
    wanted, owner, positive = by_rule(segments.astype(np.float64), labels, losses)
    np.testing.assert_array_equal(hot, wanted)
    assert positive.any()
    own, t, stride = segments[owner[positive]], POINTS[positive, 0], POINTS[positive, 3]
    np.testing.assert_allclose(offsets[positive, 0], (t - own[:, 0]) / stride, rtol=1e-5)
    np.testing.assert_allclose(offsets[positive, 1], (own[:, 1] - t) / stride, rtol=1e-5)


def test_a_reach_on_the_border_belongs_to_both_levels() -> None:
    hot, _ = assign(POINTS, np.array([[0.0, 8.0]]), np.array([2]), 3, LossConfig())
    at_four = POINTS[:, 0] == 4
    assert hot[at_four].any(1).tolist() == [True, True, False]


def test_nothing_happens_in_some_videos() -> None:
    hot, offsets = assign(POINTS, np.zeros((0, 2)), np.zeros(0, int), 3, LossConfig())
    assert hot.shape == (56, 3) and not hot.any() and offsets.shape == (56, 2)


def test_focal_loss_of_hard_targets_is_the_usual_one() -> None:
    logits = torch.tensor([-2.0, 0.5, 3.0], dtype=torch.float64)
    probability = logits.sigmoid()
    positive = focal_loss(logits, torch.ones(3, dtype=torch.float64), LossConfig())
    torch.testing.assert_close(positive, -0.25 * (1 - probability) ** 2 * probability.log())
    negative = focal_loss(logits, torch.zeros(3, dtype=torch.float64), LossConfig())
    torch.testing.assert_close(negative, -0.75 * probability**2 * (1 - probability).log())


def test_distance_loss() -> None:
    same = torch.tensor([[1.0, 2.0]])
    assert distance_loss(same, same).item() == pytest.approx(0)
    # (-1, 2) and (-2, 1): 2 shared of 4, centres 1 apart in a hull of 4.
    assert distance_loss(same, same.flip(1)).item() == pytest.approx(1 - 0.5 + (1 / 4) ** 2)
    zero = torch.zeros(1, 2, requires_grad=True)
    distance_loss(zero, torch.zeros(1, 2)).sum().backward()
    assert torch.isfinite(zero.grad).all()


def output_of(lengths: list[int]) -> tuple[ActionFormerOutput, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    model = ActionFormer(CONFIG)
    mask = torch.arange(32) >= torch.tensor(lengths)[:, None]
    output = model(torch.randn(len(lengths), 32, 6).masked_fill(mask.unsqueeze(-1), 0), mask)
    targets = [assign(POINTS, np.array([[3.0, 9.0], [5.0, 21.0]]), np.array([0, 2]), 3, LossConfig()) for _ in lengths]
    classes, offsets = (torch.from_numpy(np.stack(part)) for part in zip(*targets, strict=True))
    return output, classes, offsets


def test_normaliser_moves_before_it_divides() -> None:
    output, classes, offsets = output_of([32, 32])
    criterion = ActionFormerCriterion(LossConfig(normaliser=50))
    first = criterion(output, classes, offsets)
    count = int(classes.any(-1).sum())
    assert criterion.normaliser == pytest.approx(0.9 * 50 + 0.1 * count)
    second = ActionFormerCriterion(LossConfig(normaliser=500))(output, classes, offsets)
    ratio = (0.9 * 500 + 0.1 * count) / criterion.normaliser
    assert (first.classification / second.classification).item() == pytest.approx(ratio, rel=1e-5)
    assert (first.regression / second.regression).item() == pytest.approx(ratio, rel=1e-5)


def test_padding_costs_nothing() -> None:
    output, classes, offsets = output_of([32, 12])
    changed = classes.clone()
    padded = torch.from_numpy(POINTS[:, 0] >= 12)
    changed[1, padded] = True
    a, b = (ActionFormerCriterion()(output, c, offsets) for c in (changed, classes))
    assert a.total() == b.total()
    masked = classes.clone()
    masked[1, padded] = False
    assert ActionFormerCriterion()(output, masked, offsets).total() == b.total()


def test_no_action_at_all_gives_a_finite_loss() -> None:
    output, classes, offsets = output_of([32])
    losses = ActionFormerCriterion()(output, torch.zeros_like(classes), offsets)
    assert losses.regression.item() == 0 and losses.total().item() > 0
    losses.total().backward()


def test_balanced_losses_weigh_the_same() -> None:
    output, classes, offsets = output_of([32])
    losses = ActionFormerCriterion(LossConfig(regression=0))(output, classes, offsets)
    assert (losses.weight * losses.regression).item() == pytest.approx(losses.classification.item(), rel=1e-4)


def test_what_decays() -> None:
    model = ActionFormer(CONFIG)
    decay, others = param_groups(model, 1e-3)
    assert "weight_decay" not in decay and others["weight_decay"] == 0
    assert all(p.ndim == 3 and p.shape != (1, 16, 1) for p in decay["params"])
    assert len(decay["params"]) + len(others["params"]) == len(list(model.parameters()))
    assert math.prod(decay["params"][0].shape) > 16


def test_smoothing_spreads_over_the_classes() -> None:
    output, classes, offsets = output_of([32])
    smooth = ActionFormerCriterion(LossConfig(smoothing=0.2))(output, classes, offsets)
    logits = torch.cat(output.logits, dim=1)
    target = classes.float() * 0.8 + 0.2 / 4
    probability = logits.sigmoid()
    p = probability * target + (1 - probability) * (1 - target)
    weight = 0.25 * target + 0.75 * (1 - target)
    entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    count = int(classes.any(-1).sum())
    wanted = (weight * (1 - p) ** 2 * entropy).sum() / (90 + 0.1 * count)
    assert smooth.classification.item() == pytest.approx(wanted.item(), rel=1e-5)
