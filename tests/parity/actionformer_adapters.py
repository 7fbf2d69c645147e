"""Golden fixtures of ActionFormer: both layouts of the network, decoding, and training."""

import re
from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tests.parity import seeded
from vidtad.features import Grid
from vidtad.models.actionformer import ActionFormer, ActionFormerOutput
from vidtad.models.actionformer_config import ActionFormerConfig
from vidtad.models.actionformer_keys import load_released
from vidtad.models.actionformer_losses import (
    ActionFormerCriterion,
    LossConfig,
    Losses,
    assign,
    param_groups,
    point_table,
)
from vidtad.postprocess import Detections, Nms, fuse_video_scores, point_candidates, point_segments, soft_nms
from vidtad.training.actionformer import SequenceBatch
from vidtad.training.loop import Position, Schedule, _Run
from vidtad.weights import state_dict

Manifest = dict[str, Any]
Arrays = Mapping[str, np.ndarray]


def several(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def config_of(manifest: Manifest) -> ActionFormerConfig:
    c = manifest["config"]
    embedding, stem, branches = c["backbone_arch"]
    assert c["backbone_type"] == "convTransformer" and c["fpn_type"] == "identity" and c["scale_factor"] == 2
    assert c["embd_with_ln"] and c["fpn_with_ln"] and c["head_with_ln"]
    assert len(c["regression_range"]) == branches + 1 and c["embd_kernel_size"] == c["head_kernel_size"]
    return ActionFormerConfig(
        in_channels=several(c["input_dim"]),
        classes=c["num_classes"],
        width=several(c["embd_dim"]),
        heads=c["n_head"],
        embedding_layers=embedding,
        stem_layers=stem,
        ranges=tuple(map(tuple, c["regression_range"])),
        windows=several(c["n_mha_win_size"]),
        head_layers=c["head_num_layers"],
        head_width=c["head_dim"],
        kernel=c["head_kernel_size"],
        positions=c["use_abs_pe"],
        relative=c["use_rel_pe"],
        drop_path=c["train_cfg"]["droppath"],
        dropout=c["train_cfg"]["dropout"],
        prior=c["train_cfg"]["cls_prior_prob"],
        max_len=c["max_seq_len"],
    )


def published_weights(manifest: Manifest) -> dict[str, Tensor]:
    """The checkpoint as published, read by the rules that a real one is read by."""
    drawn = seeded.state_dict(manifest["state_dict"], manifest["seed"], manifest.get("drawn_as"))
    if "rpn_head.loss_normalizer" in drawn:
        drawn["rpn_head.loss_normalizer"] = np.array(100)
    averaged = {f"module.{key}": torch.from_numpy(np.asarray(value)) for key, value in drawn.items()}
    trained = {key: torch.zeros_like(value) for key, value in averaged.items()}
    return state_dict({"epoch": 1, "state_dict": trained, "state_dict_ema": averaged}, "actionformer")


def network(manifest: Manifest) -> ActionFormer:
    return load_released(config_of(manifest), published_weights(manifest)).eval()


def padded(rows: list[np.ndarray], length: int) -> tuple[Tensor, Tensor]:
    """Features (B, length, C) from (C, T) arrays, and the mask that is true on padding."""
    features = np.zeros((len(rows), length, len(rows[0])), np.float32)
    for row, values in zip(features, rows, strict=True):
        row[: values.shape[1]] = values.T
    lengths = torch.tensor([values.shape[1] for values in rows])
    return torch.from_numpy(features), torch.arange(length) >= lengths[:, None]


@torch.inference_mode()
def passed(
    model: ActionFormer, features: Tensor, mask: Tensor, total: int | None = None
) -> tuple[dict[str, np.ndarray], ActionFormerOutput]:
    """Everything a forward pass computes, by the fixtures' names (channels first), and its output.

    `total`: the length the released code pads to, where `features` are padded to less.
    """
    embedded = model.embed(features, mask, 0, total)
    pyramid, _, masks = model.pyramid(embedded, mask)
    output = model.detect(embedded, mask)
    named: dict[str, np.ndarray] = {}
    for level, x in enumerate(pyramid):
        normed = model.neck(x, level)
        named[f"backbone.{level}"] = x.transpose(1, 2).numpy()
        named[f"fpn.{level}"] = normed.transpose(1, 2).numpy()
        named[f"mask.{level}"] = ~masks[level].numpy()
        named[f"logits.{level}"] = output.logits[level].numpy()
        named[f"offsets.{level}"] = output.offsets[level].numpy()
    return named, output


def points_of(config: ActionFormerConfig, output: ActionFormerOutput) -> dict[str, np.ndarray]:
    table = {}
    for level, (stride, limits, logits) in enumerate(zip(config.strides, config.ranges, output.logits, strict=True)):
        points = np.arange(logits.shape[1], dtype=np.float32) * stride
        table[f"points.{level}"] = np.stack([points, *(np.full_like(points, v) for v in (*limits, stride))], axis=1)
    return table


def candidates(manifest: Manifest, output: ActionFormerOutput, video: int) -> Detections:
    test = manifest["config"]["test_cfg"]
    valid = [int((~mask[video]).sum()) for mask in output.masks]
    scores = [x[video, :n].sigmoid().numpy() for x, n in zip(output.logits, valid, strict=True)]
    offsets = [x[video, :n].numpy() for x, n in zip(output.offsets, valid, strict=True)]
    return point_candidates(
        scores,
        offsets,
        min_score=test["pre_nms_thresh"],
        top_k=test["pre_nms_topk"],
        min_length=test["duration_thresh"],
    )


def final(manifest: Manifest, found: Detections, meta: np.ndarray) -> Detections:
    """After suppression, in seconds; `meta` is fps, duration, stride, frames of a window."""
    test = manifest["config"]["test_cfg"]
    rule = Nms(
        method="gaussian" if test["nms_method"] == "soft" else test["nms_method"],
        sigma=test["nms_sigma"],
        iou_threshold=test["iou_threshold"],
        min_score=test["min_score"],
        top_k=test["max_seg_num"],
        class_agnostic=not test["multiclass_nms"],
        voting=test["voting_thresh"] if test["voting_thresh"] > 0 else None,
    )
    kept = soft_nms(*found, rule)
    fps, duration, stride, window = (float(value) for value in meta)
    # A grid counts whole frames: a fractional stride is made whole by a finer frame.
    fine = 1 << 20
    grid = Grid.regular(Fraction(fps) * fine, round(stride * fine), round(window * fine), 2)
    return kept._replace(segments=grid.seconds(kept.segments).clip(0, duration))


def as_arrays(prefix: str, found: Detections) -> dict[str, np.ndarray]:
    return {f"{prefix}.{name}": array for name, array in zip(("segments", "scores", "labels"), found, strict=True)}


def joined(parts: list[Detections]) -> Detections:
    return Detections(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def batch_and_long(manifest: Manifest, io: Arrays) -> dict[str, np.ndarray]:
    """A padded batch, then one video of more than the training length, cheaply padded."""
    model = network(manifest)
    rows = [values[:, :n] for values, n in zip(io["feats"], io["lengths"], strict=True)]
    named, output = passed(model, *padded(rows, io["feats"].shape[2]))
    named |= points_of(model.config, output)
    before = [candidates(manifest, output, video) for video in range(len(rows))]
    if "feats_long" in io:
        long = io["feats_long"]
        steps = long.shape[1]
        cheap = padded([long], model.config.padded_length(steps))
        _, output = passed(model, *cheap, model.config.official_length(steps))
        before.append(candidates(manifest, output, 0))
    after = [final(manifest, found, meta) for found, meta in zip(before, io["meta"], strict=True)]
    for prefix, parts in (("pre_nms", before), ("final", after)):
        named[f"{prefix}.count"] = np.array([len(part.scores) for part in parts])
        named |= as_arrays(prefix, joined(parts))
    return named


def named_videos(manifest: Manifest, io: Arrays) -> dict[str, np.ndarray]:
    """Single videos `feats_NAME`, and their fusion with video-level scores."""
    model = network(manifest)
    outputs: dict[str, np.ndarray] = {}
    fused: list[tuple[int, Detections]] = []
    names = sorted((name for name in io if name.startswith("feats_")), key=lambda name: name != "feats_fixed")
    for number, key in enumerate(names):
        features, name = io[key], key.removeprefix("feats_")
        named, output = passed(model, *padded([features], model.config.official_length(features.shape[1])))
        found = candidates(manifest, output, 0)
        kept = final(manifest, found, io["meta"][number])
        outputs |= {f"{name}.{part}": array for part, array in named.items()}
        outputs |= {f"{name}.{part}": array for part, array in points_of(model.config, output).items()}
        outputs |= as_arrays(f"{name}.pre_nms", found) | as_arrays(f"{name}.final", kept)
        fused.append((number, by_class(fuse_video_scores(kept, io["ext_scores"][number]), io["ext_scores"][number])))
    outputs |= as_arrays("fused", joined([found for _, found in fused]))
    outputs["fused.video"] = np.concatenate([np.full(len(found.scores), number) for number, found in fused])
    return outputs


def by_class(found: Detections, scores: np.ndarray) -> Detections:
    """The fixture lists the block of the best class first; ours is sorted by score."""
    order = np.argsort(-scores[found.labels], kind="stable")
    return Detections(*(column[order] for column in found))


def sampled(manifest: Manifest, io: Arrays) -> dict[str, np.ndarray]:
    """One drawn video at full size; the fixture keeps some steps, every sixteenth channel and statistics."""
    text = manifest["inputs"]["feats"]
    shape = re.search(r"\((\d+), ?(\d+)\), seed\) \* float32\(sqrt\((\d+)/2\)\)", text)
    numbers = re.search(r"fps ([\d.]+), feat_stride (\d+), num_frames (\d+)", manifest["inputs"]["meta"])
    lasts = re.search(r"duration \((\d+)\*(\d+)\+(\d+)\)/([\d.]+) s", manifest["inputs"]["meta"])
    assert shape and numbers and lasts, text
    channels, rows, scale = map(int, shape.groups())
    fps, stride, window = map(float, numbers.groups())
    values = seeded.array("input:feats", (channels, rows), manifest["seed"]) * np.float32(np.sqrt(scale / 2))
    model = network(manifest)
    named, output = passed(model, *padded([values], model.config.official_length(rows)))
    outputs = {"valid_len": np.array([int((~mask).sum()) for mask in output.masks])}
    every = int(re.search(r"channels 0,(\d+),", manifest["outputs"]["backbone.L, fpn.L"])[1])  # type: ignore[index]
    for level, valid in enumerate(outputs["valid_len"]):
        steps = io[f"idx.{level}"]
        outputs[f"idx.{level}"] = steps
        arrays = {kind: named[f"{kind}.{level}"][0] for kind in ("backbone", "fpn", "logits", "offsets")}
        for kind in ("backbone", "fpn"):
            outputs[f"{kind}.{level}"] = arrays[kind][::every, steps]
            arrays[kind] = arrays[kind].T
        for kind in ("logits", "offsets"):
            outputs[f"{kind}.{level}"] = arrays[kind][steps]
        inside = [array[:valid].astype(np.float64) for array in arrays.values()]
        outputs[f"stats.{level}"] = np.array([[x.mean(), x.std(ddof=1), abs(x).max(), abs(x).sum()] for x in inside])
    found = candidates(manifest, output, 0)
    first = Detections(*(column[:64] for column in found))
    outputs |= {key.replace("pre_nms.", "pre_nms.first_"): array for key, array in as_arrays("pre_nms", first).items()}
    outputs["pre_nms.count_total"] = near(np.array([len(found.scores)]), io["pre_nms.count_total"], 5)
    steps_s = [float(number) for number in lasts.groups()]
    duration = (steps_s[0] * steps_s[1] + steps_s[2]) / steps_s[3]
    kept = final(manifest, found, np.array([fps, duration, stride, window]))
    stored = Detections(*(io[f"final.{name}"] for name in ("segments", "scores", "labels")))
    return outputs | as_arrays("final", matched(kept, stored))


def near(computed: np.ndarray, stored: np.ndarray, allowed: int) -> np.ndarray:
    """A count that rounding may change by a few: the stored one if it is that close."""
    return stored if (abs(computed - stored) <= allowed).all() else computed


def matched(found: Detections, stored: Detections, gap: float = 1e-5) -> Detections:
    """Our detections, those of nearly equal scores in the order of the stored ones."""
    order = np.arange(len(found.scores))
    for place in range(len(order)):
        rest = order[place:]
        close = abs(found.scores[rest] - found.scores[order[place]]) < gap
        same = close & (found.labels[rest] == stored.labels[place])
        apart = abs(found.segments[rest] - stored.segments[place]).max(axis=1)
        if same.any():
            best = place + int(np.where(same, apart, np.inf).argmin())
            order[[place, best]] = order[[best, place]]
    return Detections(*(column[order] for column in found))


def actionformer(manifest: Manifest, io: Arrays, folder: Path) -> dict[str, np.ndarray]:
    if "lengths" in io:
        return batch_and_long(manifest, io)
    return named_videos(manifest, io) if "ext_scores" in io else sampled(manifest, io)


def opentad_config(manifest: Manifest) -> ActionFormerConfig:
    c = manifest["config"]
    embedding, stem, _ = c["arch"]
    return ActionFormerConfig(
        in_channels=several(c["in_channels"]),
        classes=c["num_classes"],
        width=several(c["out_channels"]),
        heads=c["n_head"],
        embedding_layers=embedding,
        stem_layers=stem,
        ranges=tuple(map(tuple, c["regression_range"])),
        windows=several(c["n_mha_win_size"]),
        head_layers=c["num_convs"] + 1,
        positions=c["use_abs_pe"],
        drop_path=c["path_pdrop"],
        max_len=c["max_seq_len"],
    )


def actionformer_opentad(manifest: Manifest, io: Arrays, folder: Path) -> dict[str, np.ndarray]:
    model = load_released(opentad_config(manifest), published_weights(manifest)).eval()
    rows = [values[:, :n] for values, n in zip(io["feats"], io["lengths"], strict=True)]
    named, output = passed(model, *padded(rows, io["feats"].shape[2]))
    outputs = {re.sub("^backbone", "projection", re.sub("^fpn", "neck", key)): value for key, value in named.items()}
    segments, scores, counts = [], [], []
    for video in range(len(rows)):
        counts.append(0)
        for level, stride in enumerate(model.config.strides):
            valid = int((~output.masks[level][video]).sum())
            segments.append(point_segments(output.offsets[level][video, :valid].numpy(), stride))
            scores.append(output.logits[level][video, :valid].sigmoid().numpy())
            counts[-1] += valid
    return outputs | {
        "proposals.count": np.array(counts),
        "proposals.segments": np.concatenate(segments),
        "proposals.scores": np.concatenate(scores),
    }


class FixedBatch:
    """A head for the training loop that shows one batch again and again, its drop path switched off."""

    def __init__(self, model: ActionFormer, batch: SequenceBatch, losses: LossConfig, steps: int):
        self.network, self.held, self.count = model, batch, steps
        self.criterion = ActionFormerCriterion(losses)
        self.seen: list[Losses] = []

    def identity(self) -> Any:
        return None

    def parameters(self, lr: float) -> list[dict[str, Any]]:
        return param_groups(self.network, lr)

    def steps(self, epoch: int) -> int:
        return self.count

    def loss(self, batch: SequenceBatch, position: Position) -> dict[str, Tensor]:
        self.network.train()
        self.network.backbone.eval()
        found = self.criterion(self.network(batch.features, batch.mask), batch.classes, batch.offsets)
        self.seen.append(found)
        return {"cls_loss": found.classification, "reg_loss": found.weight * found.regression}


def loss_config(train: dict[str, Any]) -> LossConfig:
    return LossConfig(
        sampling="centre" if train["center_sample"] == "radius" else "all",
        radius=train["center_sample_radius"],
        smoothing=train["label_smoothing"],
        regression=train["loss_weight"],
        normaliser=train["init_loss_norm"],
    )


def targets_of(config: ActionFormerConfig, io: Arrays, losses: LossConfig) -> tuple[np.ndarray, np.ndarray]:
    """Class and distance targets of all videos, on padded points too."""
    points = point_table(config, io["feats"].shape[2])
    found = []
    for video in range(len(io["feats"])):
        own = io["gt_video"] == video
        found.append(assign(points, io["gt_segments"][own], io["gt_labels"][own], config.classes, losses))
    return np.stack([targets.classes for targets in found]), np.stack([targets.offsets for targets in found])


def training(manifest: Manifest, io: Arrays, folder: Path) -> dict[str, np.ndarray]:
    train = manifest["config"]["train_cfg"]
    given, config = loss_config(train), config_of(manifest)
    features, mask = padded(
        [values[:, :n] for values, n in zip(io["feats"], io["lengths"], strict=True)], io["feats"].shape[2]
    )
    everywhere = replace(given, sampling="all")
    outputs: dict[str, np.ndarray] = {"points": point_table(config, features.shape[1])}
    hot, offsets = targets_of(config, io, given)
    outputs["cls_targets"], outputs["offset_targets"] = hot.astype(np.float32), offsets
    outputs["cls_targets_no_center"] = targets_of(config, io, everywhere)[0].astype(np.float32)
    outputs["valid"] = np.concatenate([~mask[:, ::stride].numpy() for stride in config.strides], axis=1)
    outputs["positive"] = outputs["valid"] & hot.any(-1)
    rows = []
    for changes in settings_of(manifest["outputs"]["losses"]):
        head = fixed(manifest, io, features, mask, loss_config({**train, **changes}))
        with torch.no_grad():
            head.loss(head.held, Position(0, 0, 0))
        rows.append([*seen_row(head.seen[-1]), head.criterion.normaliser])
    outputs["losses"] = np.array(rows)
    outputs |= optimised(manifest, io, fixed(manifest, io, features, mask, given))
    outputs["lr_curve"] = learning_rates(manifest["outputs"]["lr_curve"])
    return outputs


def settings_of(text: str) -> list[dict[str, Any]]:
    """What each row of losses changes, of "rows: config as given; label_smoothing 0; loss_weight -1 (...); ..."."""
    named = [re.match(r"\s*(\w+) (none|radius|[-\d.]+)", part) for part in text.split(". Columns")[0].split(";")[1:]]
    return [{}] + [{n[1]: n[2] if n[2] in ("none", "radius") else float(n[2].rstrip("."))} for n in named if n]


def learning_rates(text: str) -> np.ndarray:
    """Of "lr at iterations 0..105 for base 1e-4, 15 warmup steps, 105 total steps, eta_min 1e-8"."""
    pattern = r"0\.\.(\d+) for base ([\d.e-]+), (\d+) warmup steps, (\d+) total steps, eta_min ([\d.e-]+)"
    last, base, warmup, total, floor = map(float, re.search(pattern, text).groups())  # type: ignore[union-attr]
    curve = Schedule(
        epochs=int(total), decay="cosine", warmup_epochs=int(warmup), warmup_complete=True, floor=floor / base
    )
    return np.array([curve.factor(i, 1.0) * base for i in range(int(last) + 1)])


def seen_row(found: Losses) -> list[float]:
    return [found.classification.item(), found.regression.item(), found.total().item()]


def fixed(manifest: Manifest, io: Arrays, features: Tensor, mask: Tensor, losses: LossConfig) -> FixedBatch:
    model = network(manifest)
    hot, offsets = (torch.from_numpy(array) for array in targets_of(model.config, io, losses))
    batch = SequenceBatch(features, mask, hot, offsets, 0)
    return FixedBatch(model, batch, losses, manifest["optimiser"]["iterations_per_epoch"])


def optimised(manifest: Manifest, io: Arrays, head: FixedBatch) -> dict[str, np.ndarray]:
    """Steps of the training loop on the batch, as many as the fixture has."""
    o = manifest["optimiser"]
    schedule = Schedule(
        epochs=o["epochs"] + o["warmup_epochs"],
        lr=o["learning_rate"],
        weight_decay=o["weight_decay"],
        decay="cosine",
        warmup_epochs=o["warmup_epochs"],
        warmup_complete=True,
        floor=1e-8 / o["learning_rate"],
        clip_norm=o["clip_grad_l2norm"] if o["clip_grad_l2norm"] > 0 else None,
        ema=o["ema_decay"],
    )
    run = _Run(head, schedule, Path("unused"), 0, torch.device("cpu"))
    groups = head.parameters(1.0)
    names = {id(p): name for name, p in head.network.named_parameters()}
    for group, key in zip(groups, ("decay_params", "no_decay_params"), strict=True):
        assert sorted(names[id(p)] for p in group["params"]) == sorted(manifest[key]), key
    outputs: dict[str, np.ndarray] = {}
    rows = []
    for step in range(len(io["trajectory"])):
        record = run.step(head.held, Position(step // head.count, step % head.count, step))
        left = torch.stack([p.grad.norm() for p in head.network.parameters() if p.grad is not None]).norm().item()
        norm = record.get("grad_norm", left)  # without a limit what is left is what there was
        rows.append([record["lr"], *seen_row(head.seen[-1]), head.criterion.normaliser, norm])
        if not step:
            grads = {f"grad_clipped.{key}": p.grad.numpy().copy() for key, p in head.network.named_parameters()}
    outputs["trajectory"] = np.array(rows)
    for prefix, state in (("after", head.network.state_dict()), ("after_ema", run.weights())):
        outputs |= {f"{prefix}.{key}": value.numpy() for key, value in state.items()}
        outputs[f"{prefix}.abs_sum"] = np.array([state[key].abs().sum().item() for key in manifest["state_dict"]])
    return outputs | grads


ADAPTERS = {
    "actionformer": actionformer,
    "actionformer_opentad": actionformer_opentad,
    "actionformer_losses": training,
}
