"""Golden fixtures of ReAct: the network, its sampling op, windows and losses."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tests.parity import seeded
from vidtad.heads.react.windows import react_windows, retain
from vidtad.models.deformable import DeformableAttention, deformable_sample
from vidtad.models.loading import load_exactly
from vidtad.models.react import ReAct, ReActConfig, ReActOutput, load_released
from vidtad.models.react_losses import (
    LossConfig,
    Match,
    Pairs,
    ReActCriterion,
    Targets,
    contrastive_regions,
    match,
    match_cost,
    roi_align,
)

Manifest = dict[str, Any]
Arrays = Mapping[str, np.ndarray]


def config_of(manifest: Manifest) -> ReActConfig:
    c = manifest["config"]
    return ReActConfig(
        in_channels=c["input_feat_dim"],
        classes=c["num_class"],
        width=c["feat_dim"],
        heads=c["n_head"],
        encoder_points=c["encoder_sample_num"],
        decoder_points=c["decoder_sample_num"],
        encoder_layers=c["num_encoder_layers"],
        decoder_layers=c["num_decoder_layers"],
        feed_forward=c["dim_feedforward"],
        queries=c["num_queries"],
        relation_iou=c.get("relation_iou_threshold", 0.2),
        relation_similarity=c.get("relation_similarity_threshold", 0.2),
        clip_len=c["clip_len"],
    )


def seeded_state(manifest: Manifest) -> dict[str, Tensor]:
    """The checkpoint as published: every tensor, and the aliases beside their targets."""
    state = seeded.state_dict(manifest["state_dict"], manifest["seed"], manifest.get("drawn_as"))
    for key, scale in manifest.get("weight_scale", {}).items():
        state[key] = state[key] * np.float32(scale)
    for alias, target in manifest.get("aliases", {}).items():
        state[alias] = state[target]
    return {key: torch.from_numpy(value) for key, value in state.items()}


def network(manifest: Manifest) -> ReAct:
    checkpoint = {"meta": {}, "state_dict": seeded_state(manifest), "optimizer": {}}
    return load_released(ReAct(config_of(manifest)), checkpoint).eval()


def drawn_feature(name: str, rule: str, seed: int) -> np.ndarray:
    """A piecewise linear input, from the sentence the manifest describes it with."""
    drawn = r"base = ([\d.]+) \* seeded\.array\('([^']+)', \((\d+), (\d+)\), seed\).*base\[t//(\d+)\]"
    found = re.search(drawn, rule)
    size = re.match(r"\((\d+), (\d+)\)", rule)
    assert found and size, f"{name}: cannot read {rule!r}"
    scale, key, knots, width, step = found.groups()
    base = np.float32(scale) * seeded.array(key, (int(knots), int(width)), seed)
    t = np.arange(int(size[1]))
    a = ((t % int(step)) / np.float32(step)).astype(np.float32)[:, None]
    return base[t // int(step)] * (1 - a) + base[t // int(step) + 1] * a


def windows_of(manifest: Manifest, io: Arrays) -> tuple[Tensor, Tensor]:
    """Features (B, T, C) zero padded to the manifest's length, and the mask that is true on padding."""
    lengths = io["snippet_num"]
    rows = [
        io[f"feature_{i}"]
        if f"feature_{i}" in io
        else drawn_feature(f"feature_{i}", manifest["inputs"][f"feature_{i}"], manifest["seed"])
        for i in range(len(lengths))
    ]
    total = manifest["config"]["padded_length"]
    features = np.zeros((len(rows), total, rows[0].shape[1]), np.float32)
    for i, row in enumerate(rows):
        assert len(row) == lengths[i]
        features[i, : len(row)] = row
    return torch.from_numpy(features), torch.arange(total) >= torch.from_numpy(lengths)[:, None]


class Recorder:
    """Forward hooks that keep what passes through the layers of a network."""

    def __init__(self, model: ReAct):
        self.seen: dict[str, Tensor] = {}
        for i, layer in enumerate(model.transformer.encoder.layers):
            self.keep(layer, f"enc{i}")
            self.keep(layer.self_attn, f"enc{i}_attn")
        for i, layer in enumerate(model.transformer.decoder.layers):
            self.keep(layer, f"dec{i}")
            self.keep(layer.self_attn, f"dec{i}_self")
            self.keep(layer.cross_attn, f"dec{i}_cross")
            layer.self_attn.register_forward_hook(
                lambda module, args, output, i=i: self.seen.__setitem__(f"blocked_layer{i}", args[1])
            )
        self.keep(model.transformer.decoder.reference_point, "init_reference")

    def keep(self, module: torch.nn.Module, name: str) -> None:
        module.register_forward_hook(lambda m, args, output: self.seen.__setitem__(name, output))


def network_outputs(model: ReAct, output: ReActOutput, seen: dict[str, Tensor]) -> dict[str, Tensor]:
    last = model.config.decoder_layers - 1
    initial = seen["init_reference"].sigmoid()
    entering = output.segments[last - 1] if last else initial
    named = {
        "input_proj": output.projected,
        "memory": output.memory,
        "init_reference": initial,
        # The released code also refines after the last layer, from its output before the final norm.
        "inter_references": torch.stack([*output.segments[:last], model.refine(last, seen[f"dec{last}"], entering)]),
        "hidden": torch.stack(
            [*(seen[f"dec{i}"] for i in range(last)), model.transformer.decoder.norm(seen[f"dec{last}"])]
        ),
        "cls_logits": output.logits,
        "segments": output.segments,
        "quality_iou": output.quality_iou.unsqueeze(-1),
        "quality_mid": output.quality_mid.unsqueeze(-1),
        "scores": output.scores(),
    }
    return {**named, **{k: v for k, v in seen.items() if k not in named and v is not None}}


def sliced(array: np.ndarray, suffix: str) -> np.ndarray:
    """What a stored name such as `memory[:, ::16, ::8]` or `memory.absmean` asks of an array."""
    if suffix == ".absmean":
        return np.abs(array.astype(np.float64)).reshape(len(array), -1).mean(1)
    parts = suffix.strip("[]").split(",")
    slices = (slice(*(int(n) if n else None for n in part.strip().split(":"))) for part in parts)
    return array[tuple(slices)]


def react(manifest: Manifest, io: Arrays, folder: Path) -> dict[str, np.ndarray]:
    model = network(manifest)
    recorder = Recorder(model)
    features, mask = windows_of(manifest, io)
    if "padding_mask" in io:
        assert (io["padding_mask"] == mask.numpy()).all()
    with torch.inference_mode():
        computed = network_outputs(model, model(features, mask), recorder.seen)
    outputs = {}
    for stored in io:
        if not stored.startswith("out."):
            continue
        found = re.match(r"out\.(\w+)(.*)", stored)
        assert found
        array = computed[found[1]].numpy()
        if found[2]:
            array = sliced(array, found[2])
        if array.dtype == bool and io[stored].dtype == np.uint8:
            array = np.packbits(array, axis=-1)
        outputs[stored] = array
    return outputs


def deform_attn_1d(manifest: Manifest, io: Arrays, folder: Path) -> dict[str, np.ndarray]:
    value, locations, weights = (
        torch.from_numpy(io[name]).requires_grad_() for name in ("value", "locations", "weights")
    )
    output = deformable_sample(value, locations, weights)
    output.backward(torch.from_numpy(io["upstream"]))
    assert value.grad is not None and locations.grad is not None and weights.grad is not None
    # On a sample the location gradient is one-sided and rounding picks the side.
    grad_locations = np.where(io["on_sample"], io["out.grad_locations"], locations.grad.numpy())
    size = manifest["config"]["module"]
    module = DeformableAttention(size["embed_dim"], size["heads"], size["points"])
    load_exactly(module, seeded_state(manifest))
    query, rows, mask, lengths = (
        torch.from_numpy(io[f"module.{name}"]) for name in ("query", "value", "padding_mask", "snippet_num")
    )
    with torch.inference_mode():
        point, segment = (
            module(query, torch.from_numpy(io[f"module.reference_{kind}"]), rows, mask, lengths).numpy()
            for kind in ("point", "segment")
        )
    return {
        "out.output": output.detach().numpy(),
        "out.grad_value": value.grad.numpy(),
        "out.grad_locations": grad_locations,
        "out.grad_weights": weights.grad.numpy(),
        "out.module_point": point,
        "out.module_segment": segment,
    }


def windows(manifest: Manifest, io: Arrays, folder: Path) -> dict[str, np.ndarray]:
    c = manifest["config"]
    outputs: dict[str, np.ndarray] = {}
    for video in (name.removesuffix(".rows") for name in io if name.endswith(".rows")):
        n = -(-int(io[f"{video}.rows"]) // c["feature_stride"])
        gt = io[f"{video}.gt"]
        cuts = react_windows(n, c["clip_len"], c["stride_rate"])
        kept = [(cut, retain(gt[:, 1:], cut, n, c["clip_len"], c["retention"])) for cut in cuts]
        kept = [(cut, found) for cut, found in kept if len(found[1])]
        for k, (cut, (segments, rows)) in enumerate(kept):
            outputs[f"{video}.train{k}.first_row"] = np.array(float(cut.start * c["feature_stride"]))
            outputs[f"{video}.train{k}.snippets"] = np.array(cut.stop - cut.start)
            outputs[f"{video}.train{k}.gt"] = np.concatenate([gt[rows, :1], segments], axis=1)
        outputs[f"{video}.test.first_row"] = np.array([float(cut.start * c["feature_stride"]) for cut in cuts])
        outputs[f"{video}.test.snippets"] = np.array([cut.stop - cut.start for cut in cuts])
        outputs[f"{video}.snippets"] = np.array(n)
        outputs[f"{video}.train_windows"] = np.array(len(kept))
    return outputs


def loss_config(c: dict[str, Any]) -> LossConfig:
    return LossConfig(
        segment=c["coef_l1"],
        iou=c["coef_iou"],
        classification=c["coef_ce"],
        quality=c["coef_quality"],
        ace_decoder=c["coef_acedec"],
        ace_encoder=c["coef_aceenc"],
        iou_decay=c["coef_iou_decay"],
        match_class=c["match_cost"]["class"],
        match_segment=c["match_cost"]["l1"],
        match_iou=c["match_cost"]["iou"],
    )


def targets_of(io: Arrays, windows: int) -> Targets:
    rows = [io[f"gt_{i}"].reshape(-1, 3) for i in range(windows)]
    table = torch.from_numpy(np.concatenate(rows))
    window = torch.repeat_interleave(torch.tensor([len(r) for r in rows]))
    return Targets(table[:, 1:], table[:, 0].long(), window)


def matching(output: ReActOutput, targets: Targets, config: LossConfig) -> dict[str, np.ndarray]:
    outputs: dict[str, np.ndarray] = {}
    cost = match_cost(output.logits, output.segments, targets.bounds().float(), targets.labels, config).detach()
    for index, matched in enumerate(match(output.logits, output.segments, targets, config)):
        outputs[f"match.layer{index}.cost"] = cost[index].numpy()
        for window in range(output.logits.shape[1]):
            mine = matched.window == window
            first = int((targets.window < window).sum())
            pair = torch.stack([matched.query[mine], matched.target[mine] - first])
            outputs[f"match.layer{index}.window{window}"] = pair.numpy()
    return outputs


def detection_losses(manifest: Manifest, io: Arrays) -> dict[str, np.ndarray]:
    model = network(manifest).train()
    criterion = ReActCriterion(loss_config(manifest["config"]))
    features, mask = windows_of(manifest, io)
    targets = targets_of(io, len(features))
    output = model(features, mask)
    classify = str(manifest["config"].get("ce_active", "yes")).startswith("yes")
    terms = criterion.detection(model, output, targets, classify)
    if not criterion.config.iou_decay:  # logged by itself, where the reference logs it times its coefficient
        terms |= {name: 0 * output.segments.sum() for name in terms if name.endswith("iou_decay")}
    outputs = matching(output, targets, criterion.config)
    last: Match = match(output.logits, output.segments, targets, criterion.config)[-1]
    hidden = criterion.ground_truth_hidden(model, output, targets, last)
    total = sum(value for name, value in terms.items() if "loss" in name)
    for name in ("seg_loss", "iou_loss", "quality_loss", "iou_decay"):
        (grad,) = torch.autograd.grad(terms[name], output.segments, retain_graph=True)
        outputs[f"termgrad.{name}.segments"] = grad[-1].numpy()
    (grad,) = torch.autograd.grad(terms["ce_loss"], output.logits, retain_graph=True)
    outputs["termgrad.ce_loss.cls_logits"] = grad[-1].numpy()
    total.backward()
    grads = {
        name: np.zeros(p.shape, np.float32) if p.grad is None else p.grad.numpy()
        for name, p in model.named_parameters()
    }
    return {
        **outputs,
        **{f"grad.{name}": grad for name, grad in grads.items()},
        "grad.norms": np.array([np.linalg.norm(grads[str(name)]) for name in io["grad.names"]]),
        "loss.values": np.array([terms[str(name)].item() for name in io["loss.names"]]),
        "loss.total": np.array(total.item()),
        "loss.total_with_iou_decay": np.array(sum(value.item() for value in terms.values())),
        "feed_gt.hidden": torch.stack(hidden).detach().numpy(),
        "pred.cls_logits": output.logits.detach().numpy(),
        "pred.segments": output.segments.detach().numpy(),
    }


def contrastive_losses(manifest: Manifest, io: Arrays) -> dict[str, np.ndarray]:
    model = network(manifest).train()
    own, _ = windows_of(manifest, io)
    total = own.shape[1]
    others = np.zeros((2 * len(own), *own.shape[1:]), np.float32)
    for k, kind in enumerate(("pos", "neg")):
        for i in range(len(own)):
            rows = io[f"ace_enc.{kind}_{i}"]
            others[k * len(own) + i, : len(rows)] = rows
    features = torch.cat([own, torch.from_numpy(others)])
    segments = (
        torch.from_numpy(io[f"ace_enc.{name}"])
        for name in ("query_segment", "pos_segment", "neg_segment", "inner_segments")
    )
    pairs = Pairs(features, *segments)
    criterion = ReActCriterion(loss_config(manifest["config"]))
    regions = contrastive_regions(pairs, total)
    terms = criterion.contrastive(model, pairs)
    terms["aceenc_loss"].backward()
    with torch.no_grad():
        aligned = roi_align(model.input_proj(features), regions)
    return {
        "ace_enc.rois": regions.numpy(),
        "ace_enc.roi_features": aligned.numpy(),
        "ace_enc.loss": np.array(terms["aceenc_loss"].item()),
        **{f"ace_enc.grad.{n}": p.grad.numpy() for n, p in model.named_parameters() if p.grad is not None},
    }


def losses(manifest: Manifest, io: Arrays, folder: Path) -> dict[str, np.ndarray]:
    return {**detection_losses(manifest, io), **contrastive_losses(manifest, io)}


ADAPTERS = {
    "react": react,
    "deform_attn_1d": deform_attn_1d,
    "react_windows": windows,
    "react_losses": losses,
}
