"""Golden fixtures of ActionFormer's training: losses, schedule, and steps of the optimiser."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tests.parity.actionformer_adapters import Arrays, Manifest, config_of, network, padded
from vidtad.heads.actionformer.training import SequenceBatch
from vidtad.models.actionformer import ActionFormer
from vidtad.models.actionformer_config import ActionFormerConfig
from vidtad.models.actionformer_losses import (
    ActionFormerCriterion,
    LossConfig,
    Losses,
    assign,
    param_groups,
    point_table,
)
from vidtad.training.loop import Position, Schedule, _Run


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


ADAPTERS = {"actionformer_losses": training}
