"""What ReAct is trained on: set matching, detection losses and the contrastive losses of ACE (section 3.4).

As released; every deviation of the code from the paper is an option of `LossConfig` whose default is the
code.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from vidtad.geometry import mid_len, pairwise_iou, start_end, temporal_giou
from vidtad.models.deformable import weighted_rows
from vidtad.models.react import ReAct, ReActOutput


@dataclass(frozen=True)
class LossConfig:
    """Coefficients and choices of the losses; the defaults reproduce the released training.

    `iou_decay`: coefficient of the overlap penalty among predicted segments (Eq. 6). The released trainer
    logs it but never adds it to the loss, whatever its configuration says, hence 0; the paper's objective has
    1. `mid_quality`: the midpoint quality is trained with binary cross-entropy in the code, with L1 in Eq. 9.
    `detach_iou_target`: the IoU quality's target also pushes segments in the code (False). `warmup_steps`:
    detection steps during which the query classification loss has weight 0.
    """

    segment: float = 5.0
    iou: float = 2.0
    classification: float = 1.0
    quality: float = 1.0
    ace_decoder: float = 1.0
    ace_encoder: float = 0.1
    iou_decay: float = 0.0
    match_class: float = 1.0
    match_segment: float = 2.0
    match_iou: float = 5.0
    focal_alpha: float = 0.25
    focal_gamma: float = 2.0
    temperature: float = 0.07
    mid_quality: Literal["bce", "l1"] = "bce"
    detach_iou_target: bool = False
    warmup_steps: int = 25


class Counts(NamedTuple):
    """What losses are averaged over: windows, ground-truth instances, and instances that get a query."""

    windows: int
    targets: int
    matched: int


class Targets(NamedTuple):
    """Ground truth of a batch of windows, all windows' instances in one table.

    `segments` (G, 2) float (mid, len) as fractions of the valid window, may reach outside it; `labels` (G,)
    int64 class numbers; `window` (G,) int64 row of the batch, ascending. `joint` are the counts of the whole
    batch where this is one process's part of it (None: this is the whole batch).
    """

    segments: Tensor
    labels: Tensor
    window: Tensor
    joint: Counts | None = None

    def bounds(self) -> Tensor:
        """(G, 2) (start, end), cut to the window."""
        return start_end(self.segments).clamp(0, 1)

    def counts(self, windows: int, matched: int) -> Counts:
        """The joint counts, or those of this batch: its windows, its instances, and the matched ones."""
        return self.joint or Counts(windows, len(self.labels), matched)


class Match(NamedTuple):
    """Assigned pairs: `window` (M,), `query` (M,) ascending within a window, `target` (M,) rows of `Targets`."""

    window: Tensor
    query: Tensor
    target: Tensor


class Pairs(NamedTuple):
    """One anchor per window for ACE-enc, with what it is compared to.

    `features` (3B, T, C): the B windows, the B windows of the positives, the B windows of the negatives of
    another class, zero padded. Segments are (start, end) fractions of the padded length T: `anchor`,
    `positive`, `negative` (B, 2), `inner` (B, K, 2), parts of the anchor too short to be the action. `joint`:
    windows of the whole batch where this is one process's part of it.
    """

    features: Tensor
    anchor: Tensor
    positive: Tensor
    negative: Tensor
    inner: Tensor
    joint: int | None = None


def match_cost(logits: Tensor, segments: Tensor, targets: Tensor, labels: Tensor, config: LossConfig) -> Tensor:
    """Cost of assigning each query to each target: (..., Q, N), (..., Q, 2), (G, 2), (G,) -> (..., Q, G).

    Plain tIoU, L1 between (start, end) and the softmax (not sigmoid) probability of the class. `targets` are
    (start, end) inside the window.
    """
    bounds = start_end(segments).clamp(0, 1)
    distance = (bounds.unsqueeze(-2) - targets).abs().sum(-1)
    probability = logits.softmax(-1)[..., labels]
    iou = pairwise_iou(bounds, targets)
    return config.match_segment * distance - config.match_iou * iou - config.match_class * probability


def match(logits: Tensor, segments: Tensor, targets: Targets, config: LossConfig) -> list[Match]:
    """Cheapest one-to-one assignment of queries to targets, for each layer and window.

    `logits` (L, B, Q, N), `segments` (L, B, Q, 2). Returns one `Match` a layer. A window with more targets
    than queries leaves some targets out.
    """
    from scipy.optimize import linear_sum_assignment

    with torch.no_grad():
        bounds = targets.bounds().to(segments.dtype)
        cost = match_cost(logits.detach(), segments.detach(), bounds, targets.labels, config)
        # A diverged network is reported by the training loop, not by the assignment.
        table = cost.float().nan_to_num(nan=1e6).cpu().numpy()
    counts = torch.bincount(targets.window, minlength=logits.shape[1]).tolist()
    device = segments.device
    layers = []
    for layer in table:
        found: list[list[int]] = [[], [], []]
        first = 0
        for window, count in enumerate(counts):
            queries, rows = linear_sum_assignment(layer[window, :, first : first + count])
            found[0] += [window] * len(queries)
            found[1] += queries.tolist()
            found[2] += (rows + first).tolist()
            first += count
        layers.append(Match(*torch.tensor(found, dtype=torch.int64, device=device)))
    return layers


def focal_loss(logits: Tensor, targets: Tensor, alpha: float, gamma: float) -> Tensor:
    """Sigmoid focal loss (Lin et al., ICCV 2017), summed over everything."""
    cross_entropy = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    probability = logits.sigmoid()
    missed = probability * (1 - targets) + (1 - probability) * targets
    balance = alpha * targets + (1 - alpha) * (1 - targets)
    return (balance * cross_entropy * missed**gamma).sum()


def cross_entropy(probability: Tensor, wanted: Tensor) -> Tensor:
    """Summed binary cross-entropy of probabilities; unlike torch's it lets NaN through to the training loop."""
    sure, unsure = (p.clamp(min=1e-12).log() for p in (probability, 1 - probability))
    return -(wanted * sure + (1 - wanted) * unsure).sum()


def _absolute(found: Tensor, wanted: Tensor) -> Tensor:
    return (found - wanted).abs().sum()


def iou_decay(segments: Tensor, windows: int | None = None) -> Tensor:
    """Mean over B * Q * Q of the IoU of each unordered pair of a window's predicted segments (B, Q, 2).

    `windows` replaces B in the mean.
    """
    bounds = start_end(segments).clamp(0, 1)
    batch, queries = segments.shape[:2]
    return pairwise_iou(bounds, bounds).triu(diagonal=1).sum() / ((windows or batch) * queries**2)


class ReActCriterion:
    """The losses of one batch, by their released names, coefficients applied.

    An entry that carries no gradient is there to be logged: the loss to minimise is the sum of all others.
    """

    def __init__(self, config: LossConfig = LossConfig()):
        self.config = config

    def detection(
        self, model: ReAct, output: ReActOutput, targets: Targets, classify: bool = True
    ) -> dict[str, Tensor]:
        """Detection losses: last layer under bare names, earlier layers under `0_`, `1_`, ...

        `classify` False gives query classification weight 0 (the first `warmup_steps`).
        """
        matches = match(output.logits, output.segments, targets, self.config)
        last = len(matches) - 1
        terms = self.layer(output, last, targets, matches[last], classify)
        terms["gt_loss"] = self.config.ace_decoder * self.ace_decoder(model, output, targets, matches[last])
        for index in range(last):
            layer = self.layer(output, index, targets, matches[index], classify)
            terms |= {f"{index}_{name}": value for name, value in layer.items()}
        return terms

    def layer(
        self, output: ReActOutput, index: int, targets: Targets, matched: Match, classify: bool
    ) -> dict[str, Tensor]:
        """Segment, IoU, quality, classification losses and IoU decay of decoder layer `index`."""
        config = self.config
        logits, segments = output.logits[index], output.segments[index]
        bounds = targets.bounds().to(segments.dtype)
        counts = targets.counts(len(segments), len(matched.query))
        total = max(counts.targets, 1)
        wanted = bounds[matched.target]
        found = segments[matched.window, matched.query]
        distance = (found - mid_len(wanted)).abs().sum() / total
        giou = temporal_giou(start_end(found).clamp(0, 1), wanted)
        focal = focal_loss(logits, self._one_hot(logits, matched, targets), config.focal_alpha, config.focal_gamma)
        terms = {
            "seg_loss": config.segment * distance,
            "iou_loss": config.iou * (1 - giou).sum() / total,
            "ce_loss": config.classification * float(classify) * focal / total,
        }
        if output.quality_mid.requires_grad:
            terms["quality_loss"] = config.quality * self.quality(output, index, targets, matched)
        if config.iou_decay:
            terms["iou_decay"] = config.iou_decay * iou_decay(segments, counts.windows)
        else:
            terms["iou_decay"] = iou_decay(segments.detach(), counts.windows)
        return terms

    def quality(self, output: ReActOutput, index: int, targets: Targets, matched: Match) -> Tensor:
        """Midpoint quality on matched queries plus IoU quality on all queries (Eq. 8 to 10)."""
        segments = output.segments[index]
        bounds = targets.bounds().to(segments.dtype)
        wanted = mid_len(bounds[matched.target])
        with torch.no_grad():
            off = (segments[matched.window, matched.query, 0] - wanted[:, 0]).abs()
            closeness = torch.exp(-off / wanted[:, 1].clamp(min=1e-6))
        predicted = output.quality_mid[index][matched.window, matched.query]
        counts = targets.counts(len(segments), len(matched.query))
        loss = cross_entropy if self.config.mid_quality == "bce" else _absolute
        mid = loss(predicted, closeness) / max(counts.matched, 1)
        queries = counts.windows * segments.shape[1]
        if not len(bounds):
            return mid + output.quality_iou[index].sum() / queries
        overlap = pairwise_iou(start_end(segments).clamp(0, 1), bounds)
        own = targets.window == torch.arange(len(segments), device=segments.device)[:, None]
        best = (overlap * own.unsqueeze(1)).amax(-1)
        if self.config.detach_iou_target:
            best = best.detach()
        return mid + _absolute(output.quality_iou[index], best) / queries

    def ace_decoder(self, model: ReAct, output: ReActOutput, targets: Targets, matched: Match) -> Tensor:
        """Classify ground-truth segments given as fixed references to the decoder (ACE-dec)."""
        if not len(matched.query):
            return output.memory.sum() * 0
        hidden = self.ground_truth_hidden(model, output, targets, matched)
        labels = targets.labels[matched.target]
        loss = output.memory.new_zeros(())
        for head, state in zip(model.class_embed, hidden, strict=True):
            logits = head(state)
            wanted = F.one_hot(labels, logits.shape[-1]).to(logits.dtype)
            loss = loss + focal_loss(logits, wanted, self.config.focal_alpha, self.config.focal_gamma)
        return loss / targets.counts(len(output.memory), len(matched.query)).matched

    def ground_truth_hidden(self, model: ReAct, output: ReActOutput, targets: Targets, matched: Match) -> list[Tensor]:
        """Each layer's decoder output (M, C) at matched queries whose reference is their target."""
        content = model.query_embed.weight.chunk(2, dim=-1)[0].expand(len(output.memory), -1, -1)
        reference = output.memory.new_full((*content.shape[:2], 2), 0.5)
        wanted = mid_len(targets.bounds()[matched.target]).to(reference.dtype)
        reference[matched.window, matched.query] = wanted
        hidden, _ = model.decode(content, reference, output.memory, output.mask, output.lengths, refine=False)
        return [state[matched.window, matched.query] for state in hidden]

    def contrastive(self, model: ReAct, pairs: Pairs) -> dict[str, Tensor]:
        """ACE-enc: the anchor's projected features near the positive's, far from the negatives' (Eq. 7)."""
        return {"aceenc_loss": self.config.ace_encoder * self.ace_encoder(model.input_proj(pairs.features), pairs)}

    def ace_encoder(self, projected: Tensor, pairs: Pairs) -> Tensor:
        """Cross-entropy of cosine similarities; negatives give no gradient."""
        regions = roi_align(projected, contrastive_regions(pairs, projected.shape[1]))
        batch, inner = pairs.inner.shape[:2]
        unit = F.normalize(regions.mean(-1), dim=-1).unflatten(0, (batch, inner + 3))
        anchor, positive = unit[:, :1], unit[:, inner + 1 : inner + 2]
        negatives = torch.cat([unit[:, inner + 2 :], unit[:, 1 : inner + 1]], dim=1).detach()
        similarity = (anchor * torch.cat([positive, negatives], dim=1)).sum(-1)
        first = torch.zeros(batch, dtype=torch.int64, device=projected.device)
        loss = F.cross_entropy(similarity / self.config.temperature, first, reduction="sum")
        return loss / (pairs.joint or batch)

    @staticmethod
    def _one_hot(logits: Tensor, matched: Match, targets: Targets) -> Tensor:
        wanted = torch.zeros_like(logits)
        wanted[matched.window, matched.query, targets.labels[matched.target]] = 1
        return wanted


def contrastive_regions(pairs: Pairs, length: int) -> Tensor:
    """Regions (B * (K + 3), 3): row of `pairs.features`, start, end in snippets.

    For each window the anchor, its K parts, the positive, the negative.
    """
    batch, inner = pairs.inner.shape[:2]
    segments = torch.cat([pairs.anchor[:, None], pairs.inner, pairs.positive[:, None], pairs.negative[:, None]], dim=1)
    own = torch.arange(batch, device=segments.device)[:, None]
    source = torch.cat([own.expand(-1, inner + 1), own + batch, own + 2 * batch], dim=1)
    regions = torch.cat([source.unsqueeze(-1), segments.clamp(0, 1) * length], dim=-1)
    return regions.flatten(0, 1)


def roi_align(features: Tensor, regions: Tensor, bins: int = 16) -> Tensor:
    """Average of linearly interpolated features in equal bins of each region.

    `features` (N, T, C); `regions` (R, 3): row, start, end in snippets, where the index of a row is its
    position (no half-row shift); a region counts as at least one snippet long. Each bin averages ceil(length
    / bins) samples. Returns (R, C, bins), differentiable in the features alone.
    """
    length = features.shape[1]
    regions = regions.to(torch.promote_types(features.dtype, torch.float32))
    source, start, end = regions[:, 0].long(), regions[:, 1], regions[:, 2]
    width = (end - start).clamp(min=1) / bins
    samples = width.ceil()
    steps = torch.arange(int(samples.max()) if len(samples) else 1, device=features.device)
    inside_bin = (steps + 0.5) / samples[:, None] * width[:, None]
    edges = start[:, None] + torch.arange(bins, device=features.device) * width[:, None]
    position = edges[:, :, None] + inside_bin[:, None, :]
    counted = (steps < samples[:, None])[:, None, :] & (position >= -1) & (position <= length)
    position = position.clamp(0, length - 1)
    low = position.floor()
    share = torch.stack([1 - (position - low), position - low], dim=-1)
    share = share * (counted / samples[:, None, None]).unsqueeze(-1)
    rows = torch.stack([low, (low + 1).clamp(max=length - 1)], dim=-1).long()
    chosen = (rows + source.view(-1, 1, 1, 1) * length).flatten(2).flatten(0, 1)
    taken = weighted_rows(features.flatten(0, 1), chosen, share.flatten(2).flatten(0, 1))
    return taken.unflatten(0, (len(regions), bins)).transpose(1, 2)


def param_groups(model: torch.nn.Module, lr: float, slow: float = 0.1) -> list[dict[str, Any]]:
    """Optimiser groups of the released training: sampling offset and weight matrices learn `slow` times as fast."""
    slowed: Sequence[str] = ("sampling_offsets.weight", "atten_weight.weight")
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    return [
        {"params": [p for name, p in named if not name.endswith(tuple(slowed))], "lr": lr},
        {"params": [p for name, p in named if name.endswith(tuple(slowed))], "lr": lr * slow},
    ]
