"""What ActionFormer is trained on: which points answer for which action, and the losses (sections 3.3 and 4.1).

As released; where the paper says otherwise `LossConfig` names it.
"""

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vidtad.models.actionformer import ActionFormer, ActionFormerOutput
from vidtad.models.actionformer_config import ActionFormerConfig

ALIKE = 1e-3
"""Actions whose lengths differ by no more than this (in steps) are equally short."""


@dataclass(frozen=True)
class LossConfig:
    """Choices of the losses; the defaults are THUMOS14 as released.

    `sampling`: only points within `radius` strides of an action's centre, and inside the action, learn it
    ("centre"), or all points inside ("all"). `smoothing`: of the class targets. `regression`: weight of the
    distance loss; 0 or less balances it against the classification loss (one process only). Both losses are
    divided by a running mean of the number of positive points that starts at `normaliser` and keeps
    `momentum` of itself; the paper divides by the number itself.
    """

    sampling: Literal["centre", "all"] = "centre"
    radius: float = 1.5
    smoothing: float = 0.0
    regression: float = 1.0
    normaliser: float = 100.0
    momentum: float = 0.9
    focal_alpha: float = 0.25
    focal_gamma: float = 2.0


class PointTargets(NamedTuple):
    """What every point of a sequence should say, all levels together: P points.

    `classes` (P, N) bool, any number of them true; `offsets` (P, 2) float32 distances to start and end in
    strides, arbitrary at points without a class.
    """

    classes: np.ndarray
    offsets: np.ndarray


def point_table(config: ActionFormerConfig, length: int) -> np.ndarray:
    """(P, 4) float32: step, shortest and longest reach, and stride of every point of a sequence, finest level first."""
    levels = [
        np.stack(np.broadcast_arrays(np.arange(0, length, stride), low, high, stride), axis=1)
        for stride, (low, high) in zip(config.strides, config.ranges, strict=True)
    ]
    return np.concatenate(levels).astype(np.float32)


def assign(
    points: np.ndarray, segments: np.ndarray, labels: np.ndarray, classes: int, losses: LossConfig
) -> PointTargets:
    """Targets of `points` (P, 4) from a video's `segments` (G, 2) in steps and `labels` (G,), 0 to classes - 1.

    A point answers for the shortest action that it lies in (near its centre, with centre sampling) and whose
    farther end its level reaches for, both ends of the range included; for its class, the classes of all such
    actions of nearly the same length.
    """
    step, low, high, stride = (points[:, [column]] for column in range(4))
    if not len(segments):
        return PointTargets(np.zeros((len(points), classes), bool), np.zeros((len(points), 2), np.float32))
    start, end = np.asarray(segments, dtype=np.float32).T[:, None]
    left, right = step - start, end - step
    inside = np.minimum(left, right) > 0
    if losses.sampling == "centre":
        centre, reach = (start + end) / 2, stride * losses.radius
        near = np.minimum(step - np.maximum(centre - reach, start), np.minimum(centre + reach, end) - step)
        inside = near > 0
    farther = np.maximum(left, right)
    length = np.where(inside & (farther >= low) & (farther <= high), end - start, np.inf)
    best = length.argmin(1)
    shortest = np.take_along_axis(length, best[:, None], 1)
    wanted = np.isfinite(length) & (length <= shortest + ALIKE)
    hot = np.zeros((len(points), classes), bool)
    rows, columns = np.nonzero(wanted)
    hot[rows, np.asarray(labels)[columns]] = True
    distances = np.stack([np.take_along_axis(side, best[:, None], 1)[:, 0] for side in (left, right)], axis=1)
    return PointTargets(hot, distances / stride)


class Losses(NamedTuple):
    """Both losses, divided by the normaliser, and the weight of the second in the sum."""

    classification: Tensor
    regression: Tensor
    weight: Tensor

    def total(self) -> Tensor:
        return self.classification + self.weight * self.regression


class ActionFormerCriterion:
    """The losses and their running normaliser."""

    def __init__(self, config: LossConfig = LossConfig()):
        self.config, self.normaliser = config, float(config.normaliser)

    def __call__(
        self, output: ActionFormerOutput, classes: Tensor, offsets: Tensor, positives: int | None = None
    ) -> Losses:
        """Losses of a batch: `classes` (B, P, N) bool, `offsets` (B, P, 2), all levels together.

        `positives`: points with a class in the whole batch, where this is one process's part of it. Updates the
        normaliser.
        """
        valid = ~torch.cat(output.masks, dim=1)
        logits, distances = torch.cat(output.logits, dim=1)[valid], torch.cat(output.offsets, dim=1)
        positive = valid & classes.any(-1)
        count = int(positive.sum()) if positives is None else positives
        self.advance(count)
        target = classes[valid].to(logits.dtype)
        target = target * (1 - self.config.smoothing) + self.config.smoothing / (classes.shape[-1] + 1)
        classification = focal_loss(logits, target, self.config).sum() / self.normaliser
        regression = distance_loss(distances[positive], offsets[positive]).sum() / self.normaliser
        weight = classification.new_tensor(self.config.regression)
        if self.config.regression <= 0:
            weight = classification.detach() / regression.detach().clamp(min=0.01)
        return Losses(classification, regression, weight)

    def advance(self, positives: int) -> None:
        """Move the normaliser towards this number of positive points; before the losses of the batch."""
        keep = self.config.momentum
        self.normaliser = keep * self.normaliser + (1 - keep) * max(positives, 1)


def focal_loss(logits: Tensor, target: Tensor, config: LossConfig) -> Tensor:
    """Sigmoid focal loss (Lin et al., ICCV 2017), elementwise, for targets between 0 and 1 too."""
    probability = logits.sigmoid()
    error = 1 - (probability * target + (1 - probability) * (1 - target))
    share = config.focal_alpha * target + (1 - config.focal_alpha) * (1 - target)
    entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    return share * error**config.focal_gamma * entropy


def distance_loss(predicted: Tensor, target: Tensor, epsilon: float = 1e-8) -> Tensor:
    """1 - DIoU (Zheng et al., AAAI 2020) of segments given by distances (n, 2) to both sides of one point: (n,)."""
    nearer, farther = torch.minimum(predicted, target).sum(-1), torch.maximum(predicted, target).sum(-1)
    union = predicted.sum(-1) + target.sum(-1) - nearer
    apart = 0.5 * ((predicted[:, 1] - predicted[:, 0]) - (target[:, 1] - target[:, 0]))
    return 1 - nearer / union.clamp(min=epsilon) + (apart / farther.clamp(min=epsilon)) ** 2


def param_groups(network: ActionFormer, lr: float) -> list[dict[str, Any]]:
    """Optimiser groups: weights of convolutions decay; biases, norms, scales and position biases do not."""
    weights = {id(module.weight) for module in network.modules() if isinstance(module, nn.Conv1d)}
    decay = [p for p in network.parameters() if id(p) in weights]
    others = [p for p in network.parameters() if id(p) not in weights]
    return [{"params": decay, "lr": lr}, {"params": others, "lr": lr, "weight_decay": 0.0}]
