"""Golden fixtures of ActionFormer: both layouts of the network, and decoding."""

import re
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tests.parity import seeded
from vidtad.features import Grid
from vidtad.hub.reading import state_dict
from vidtad.models.actionformer import ActionFormer, ActionFormerOutput
from vidtad.models.actionformer_config import ActionFormerConfig
from vidtad.models.actionformer_keys import load_released
from vidtad.postprocess import Detections, Nms, fuse_video_scores, point_candidates, point_segments, soft_nms

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


ADAPTERS = {
    "actionformer": actionformer,
    "actionformer_opentad": actionformer_opentad,
}
