"""Golden fixtures of suppression and of ReAct's way from predictions to detections."""

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tests.parity import seeded
from vidtad.heads.react.decoding import REACT, react_candidates, react_detections
from vidtad.heads.react.windows import react_windows
from vidtad.postprocess import Detections, Nms, soft_nms, suppress

Manifest = dict[str, Any]
Arrays = Mapping[str, np.ndarray]


def table(found: Detections, n_snippets: int) -> np.ndarray:
    """Rows start, end, score, class, with times as fractions of the video."""
    columns = (found.segments / n_snippets, found.scores[:, None], found.labels[:, None])
    return np.concatenate(columns, axis=1, dtype=np.float64)


def postproc(manifest: Manifest, io: Arrays, folder: Path) -> dict[str, np.ndarray]:
    c = manifest["config"]
    outputs: dict[str, np.ndarray] = {}
    for name in (name for name in io if name.startswith("out.")):
        steps = r"(merged|softnms_sigma(.+)_top(\d+)_min(.+))$"
        found = re.match(r"out\.thr([\d.e-]+)\.(video_(\d+))\." + steps, name)
        assert found, name
        threshold, video, number, kind, sigma, top, minimum = found.groups()
        n = int(io["video_snippets"][int(number)])
        cuts = react_windows(n, c["clip_len"], c["stride_rate"])
        for w, cut in enumerate(cuts):
            assert io[f"{video}.window_{w}.snippets"] == cut.stop - cut.start
        segments, scores = (
            np.stack([io[f"{video}.window_{w}.{part}"] for w in range(len(cuts))]) for part in ("segments", "scores")
        )
        if kind == "merged":
            outputs[name] = table(react_candidates(segments, scores, cuts, float(threshold)), n)
            continue
        rule = replace(REACT, sigma=float(sigma), top_k=int(top), min_score=float(minimum))
        kept = react_detections(segments, scores, cuts, min_score=float(threshold), rule=rule)
        outputs[name] = table(kept, n)
    return outputs


def suppressed(manifest: Manifest, io: Arrays, case: str, how: str) -> tuple[np.ndarray, np.ndarray]:
    """Indices and (start, end, score) rows for one case in one pool, such as `soft-linear@0.5`."""
    if f"{case}.segs" in io:
        segments, scores = io[f"{case}.segs"], io[f"{case}.scores"]
    else:
        count = int(re.search(r"N=(\d+)", manifest["inputs"][case])[1])  # type: ignore[index]
        centre, length, score = (
            seeded.array(f"input:nms.{part}", (count,), manifest["seed"]) for part in ("center", "length", "score")
        )
        centre, half = (centre - 0.5) * 2304, ((length - 0.5) ** 2 * 60 + np.float32(0.25)) / 2
        segments, scores = np.stack([centre - half, centre + half], axis=1), (score - 0.5) ** 3
    kind, _, argument = how.partition("@")
    minimum = float(argument[3:]) if argument.startswith("min") else 0.001
    rule = Nms(
        method=kind.removeprefix("soft-"),  # type: ignore[arg-type]
        sigma=manifest["config"]["sigma"],
        iou_threshold=0.0 if argument.startswith("min") or not argument else float(argument),
        min_score=0.0 if kind == "hard" else minimum,
        top_k=len(scores),
    )
    order = np.arange(len(scores))
    if kind == "hard":
        # The extension sorts with torch, which leaves the order of equal scores open; ours keeps input order.
        order = torch.from_numpy(scores).argsort(descending=True).numpy()
    rows, decayed = suppress(segments[order], scores[order], rule)
    rows = order[rows]
    return rows, np.concatenate([segments[rows], decayed[:, None]], axis=1)


def softnms(manifest: Manifest, io: Arrays, folder: Path) -> dict[str, np.ndarray]:
    batched = manifest["config"]["batched"]
    outputs: dict[str, np.ndarray] = {}
    for name in io:
        # The dot of a number separates nothing: `ties.hard@0.5.inds` is (`ties`, `hard@0.5`, `inds`).
        case, rest = name.split(".", 1)
        if "." not in rest:
            continue
        how, leaf = rest.rsplit(".", 1)
        if case == "batched":
            pooling, kind, *vote = how.split("_")
            rule = Nms(
                method="gaussian" if kind == "soft" else "hard",
                sigma=batched["sigma"],
                iou_threshold=batched["iou_threshold"],
                min_score=batched["min_score"],
                top_k=batched["max_seg_num"],
                class_agnostic=pooling == "agnostic",
                voting=float(vote[0][4:]) if vote and vote[0].startswith("vote") else None,
            )
            inputs = (io[f"batched.{part}"] for part in ("segs", "scores", "labels"))
            kept = soft_nms(*inputs, rule)
            outputs[name] = dict(zip(("segs", "scores", "labels"), kept, strict=True))[leaf]
            continue
        rows, detections = suppressed(manifest, io, case, how)
        outputs[name] = {
            "inds": rows,
            "dets": detections,
            "count": np.array([len(rows)]),
            "inds_head": rows[:300],
            "dets_head": detections[:300],
            "dets_every50": detections[::50],
        }[leaf]
    return outputs


ADAPTERS = {"react_postproc": postproc, "softnms_1d": softnms}
