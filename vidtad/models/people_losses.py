"""Losses of person-box heads: published pose-and-action loss, and those of the Action Transformer."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import box_iou

from vidtad.models.action_transformer import ActionTransformer, encoded
from vidtad.models.roi import activate


def class_loss(logits: Tensor, targets: Tensor, poses: int = 0, joint: int | None = None) -> Tensor:
    """Binary cross-entropy over all boxes and classes: logits and targets (n, classes), targets multi-hot.

    With `poses` the first classes share a softmax, and the loss is taken on probabilities (ACAR, as released); else
    on logits (PySlowFast). The sum is divided by the number of values of the joint batch, `joint` boxes (default: n).
    """
    boxes = max(len(logits) if joint is None else joint, 1)
    if poses:
        # In float32: probabilities near 1 have no room in half precision.
        with torch.autocast(logits.device.type, enabled=False):
            scores = activate(logits.float(), poses).clamp(0, 1)
            loss = F.binary_cross_entropy(scores, targets.float(), reduction="sum")
    else:
        loss = F.binary_cross_entropy_with_logits(logits, targets, reduction="sum")
    return loss / (boxes * logits.shape[1])


@dataclass(frozen=True)
class TransformerLosses:
    """Sampling and weights of the Action Transformer's losses: the object detection API's usual ones.

    `samples` regions a clip, at most `positive` of them people (IoU of at least `iou` with one). Losses of the
    class, of the box, and of the proposals' objectness and box are multiplied by their weights.
    """

    samples: int = 64
    positive: float = 0.25
    iou: float = 0.5
    class_weight: float = 1.0
    box_weight: float = 2.0
    objectness_weight: float = 1.0
    proposal_weight: float = 2.0


@dataclass(frozen=True)
class Assigned:
    """Regions of a clip with what they should say: `classes` (n, 1 + C) multi-hot, background first.

    `truth` (n, 4): the person of each region; `people` (n,) bool: whether there is one.
    """

    regions: Tensor
    classes: Tensor
    truth: Tensor
    people: Tensor


def assign(regions: Tensor, truth: Tensor, targets: Tensor, iou: float = 0.5) -> Assigned:
    """Regions (n, 4) that overlap a person (m, 4) take all their labels (m, C), the others the background alone."""
    overlap = box_iou(regions, truth) if len(truth) else regions.new_zeros(len(regions), 1)
    best, person = overlap.max(dim=1)
    people = best >= iou
    classes = regions.new_zeros(len(regions), 1 + targets.shape[1])
    classes[:, 0] = (~people).to(classes)
    where = regions
    if len(truth):
        classes[people, 1:] = targets[person[people]].to(classes)
        where = torch.where(people[:, None], truth[person], regions)
    return Assigned(regions, classes, where, people)


def sample(found: Assigned, losses: TransformerLosses) -> Assigned:
    """At most `samples` of the regions, drawn from torch's generator, at most the share `positive` of them people."""
    people = found.people.nonzero()[:, 0]
    others = (~found.people).nonzero()[:, 0]
    most = int(losses.samples * losses.positive)
    people = people[torch.randperm(len(people), device=people.device)[:most]]
    others = others[torch.randperm(len(others), device=others.device)[: losses.samples - len(people)]]
    kept = torch.cat([people, others])
    return Assigned(found.regions[kept], found.classes[kept], found.truth[kept], found.people[kept])


def transformer_loss(
    head: ActionTransformer,
    maps: Sequence[Tensor],
    truth: Sequence[Tensor],
    targets: Sequence[Tensor],
    *,
    size: tuple[int, int],
    losses: TransformerLosses | None = None,
    joint: int | None = None,
) -> dict[str, Tensor]:
    """Loss terms of both heads, and of the proposals where the network has them.

    maps: the trunk's; truth and targets per clip: boxes (m_i, 4) normalised, labels (m_i, C) multi-hot; size: (height,
    width) of the clips in pixels. Without proposals the given boxes themselves are the regions and stay where they
    are. Sums are divided by the number of clips of the joint batch, `joint` (default: those here), times the
    samples of a clip (given boxes: their number).
    """
    losses = losses or TransformerLosses()
    clips = len(truth) if joint is None else joint
    terms: dict[str, Tensor] = {}
    if head.rpn is None:
        assigned = [assign(boxes, boxes, labels, losses.iou) for boxes, labels in zip(truth, targets, strict=True)]
    else:
        share = len(truth) / max(clips, 1)
        proposals = [regions for regions, _ in head.rpn(maps[0], size, list(truth))]
        terms["objectness"] = losses.objectness_weight * share * head.rpn.losses["objectness"]
        terms["proposal"] = losses.proposal_weight * share * head.rpn.losses["box"]
        # The people's own boxes join the proposals, so that there is something to learn from before these are good.
        joined = [torch.cat([regions, boxes.to(regions)]) for regions, boxes in zip(proposals, truth, strict=True)]
        assigned = [
            sample(assign(regions, boxes.to(regions), labels, losses.iou), losses)
            for regions, boxes, labels in zip(joined, truth, targets, strict=True)
        ]
    output = head.run(maps, [entry.regions for entry in assigned])
    weights = torch.cat(
        [maps[0].new_full((len(entry.regions),), 1 / (clips * max(len(entry.regions), 1))) for entry in assigned]
    )
    classes, people = (torch.cat([getattr(entry, name) for entry in assigned]) for name in ("classes", "people"))
    codes = encoded(*(torch.cat([getattr(entry, name) for entry in assigned]) for name in ("regions", "truth")))
    heads = [("", output.logits, output.offsets)]
    if output.i3d_logits is not None and output.i3d_offsets is not None:
        heads.append(("i3d_", output.i3d_logits, output.i3d_offsets))
    for name, logits, offsets in heads:
        each = F.binary_cross_entropy_with_logits(logits, classes, reduction="none").sum(dim=1)
        terms[f"{name}class"] = losses.class_weight * (each * weights).sum()
        if head.rpn is not None:
            moved = F.smooth_l1_loss(offsets, codes, reduction="none").sum(dim=1)
            terms[f"{name}box"] = losses.box_weight * (moved * weights * people).sum()
    return terms
