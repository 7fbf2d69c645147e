"""Adapters of the evaluation fixtures: files in, numbers under the paths of `expected.json` out."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from vidtad.errors import InputError
from vidtad.evaluation.align import align
from vidtad.evaluation.protocols import PROTOCOLS
from vidtad.evaluation.temporal import class_slices, find_pairs, match, score
from vidtad.formats.reading import read_annotations, read_predictions

Numbers = dict[str, Any]


def anet_map(manifest: dict[str, Any], io: Mapping[str, np.ndarray], folder: Path) -> Numbers:
    return {f"{case.name}/{path}": value for case in cases(folder) for path, value in anet_map_case(case).items()}


def cases(folder: Path) -> list[Path]:
    return sorted(path.parent for path in folder.glob("*/expected.json"))


def anet_map_case(case: Path) -> Numbers:
    asked = json.loads((case / "expected.json").read_text())
    truth, predicted = read_annotations(case / "gt.json"), read_predictions(case / "preds.json")
    blocked = asked.get("blocked_videos", ())
    out: Numbers = {}
    for number, run in enumerate(asked["runs"]):
        prefix = f"runs/{number}"
        for name in ("activitynet", "actionformer", "opentad"):
            if name not in run:
                continue
            rules = replace(PROTOCOLS[name], tiou=tuple(run["tiou_thresholds"]))
            if name == "activitynet":
                rules = replace(rules, unknown_labels="refuse")
            for ties in ("later_first", "earlier_first"):
                separate = ties in run[name]
                if not separate and ties == "earlier_first":
                    continue
                wanted = run[name][ties] if separate else run[name]
                numbers = temporal_numbers(
                    truth, predicted, replace(rules, ties=ties), asked["subset"], blocked, wanted
                )
                middle = f"{name}/{ties}" if separate else name
                out |= {f"{prefix}/{middle}/{path}": value for path, value in numbers.items()}
    return out


def temporal_numbers(truth: Any, predicted: Any, rules: Any, subset: str, blocked: Any, wanted: Any) -> Numbers:
    """Every table of one evaluator; `wanted` only says which of the optional ones are stored."""
    try:
        aligned = align(truth, predicted, rules, subset, blocked)
    except InputError as error:
        return {"error": f"KeyError: {str(error).split('label ')[1].split(' has')[0]}"}
    result = score(aligned)
    out: Numbers = {
        "n_annotations": result.instances,
        "classes": list(result.classes),
        "mAP": result.mAP,
        "average_mAP": result.average_mAP,
    }
    out |= {f"ap/{name}": row for name, row in zip(result.classes, result.ap, strict=True)}
    if "n_predictions" in wanted:
        out["n_predictions"] = result.predictions
    if "recall" in wanted:
        out["mean_recall"] = result.mean_recall
        out |= {f"recall/{name}": row for name, row in zip(result.classes, result.recall, strict=True)}
    if "ranked" in wanted:
        out |= ranked(aligned)
    return out


def ranked(aligned: Any) -> Numbers:
    matching, out = match(aligned, find_pairs(aligned)), {}
    for number, (name, part) in enumerate(zip(aligned.classes, class_slices(aligned), strict=True)):
        if part.start == part.stop:
            continue
        own = np.flatnonzero(aligned.pr_class == number)
        out[f"ranked/{name}/order"] = np.searchsorted(own, aligned.order[part])
        out[f"ranked/{name}/true_positive"] = ["".join(map(str, row.astype(int))) for row in matching.hits[:, part]]
    return out


ADAPTERS = {"anet_map": anet_map}
