"""Adapters of the evaluation fixtures: files in, numbers under the paths of `expected.json` out."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from tests.parity import documents
from vidtad.errors import InputError
from vidtad.evaluation import evaluate
from vidtad.evaluation.align import align
from vidtad.evaluation.characteristics import Bins
from vidtad.evaluation.diagnosis import BACKGROUND_TIOU, OUTCOMES, SLICES, diagnose, mean_ap
from vidtad.evaluation.ego4d import RETRIEVAL_AT, RETRIEVAL_TIOU, retrieval_recall
from vidtad.evaluation.epic import NOUN_STRIDE, TASKS, challenge_metrics, relabel
from vidtad.evaluation.frames import evaluate_frames
from vidtad.evaluation.proposals import opentad_grid, proposal_recall
from vidtad.evaluation.protocols import ACTIVITYNET_TIOU, PROTOCOLS
from vidtad.evaluation.temporal import class_slices, find_pairs, match, score
from vidtad.formats.ava import read_boxes, read_excluded, read_label_map
from vidtad.formats.reading import read_annotations, read_predictions
from vidtad.formats.tables import Annotations

Numbers = dict[str, Any]


def anet_map(manifest: dict[str, Any], io: Mapping[str, np.ndarray], folder: Path) -> Numbers:
    return {f"{case.name}/{path}": value for case in cases(folder) for path, value in anet_map_case(case).items()}


def cases(folder: Path) -> list[Path]:
    return sorted(path.parent for path in folder.glob("*/expected.json"))


def anet_map_case(case: Path) -> Numbers:
    asked = json.loads((case / "expected.json").read_text())
    truth, predicted = read_annotations(case / "gt.json"), read_predictions(case / "preds.json")
    truth = numbered(truth, asked)
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


def numbered(truth: Annotations, asked: Any) -> Annotations:
    """With the fixture's numbers of labels, those that no annotation has among them."""
    return replace(truth, label_ids={**truth.label_ids, **asked.get("label_ids", {})})


def temporal_numbers(truth: Any, predicted: Any, rules: Any, subset: str, blocked: Any, wanted: Any) -> Numbers:
    """Every table of one evaluator; `wanted` only says which of the optional ones are stored, and for which k."""
    rules = replace(rules, recall_at=tuple(wanted.get("recall_top_k", rules.recall_at)))
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


def proposals_ar_an(manifest: dict[str, Any], io: Mapping[str, np.ndarray], folder: Path) -> Numbers:
    out: Numbers = {}
    for case in cases(folder):
        asked = json.loads((case / "expected.json").read_text())
        tables = read_annotations(case / "gt.json"), read_predictions(case / "preds.json")
        for name in ("activitynet", "opentad"):
            aligned = align(*tables, PROTOCOLS[name], asked["subset"])
            for number, run in enumerate(asked[name]):
                prefix = f"{case.name}/{name}/{number}"
                budget = run["max_avg_nr_proposals"]
                grid = opentad_grid(budget) if name == "opentad" else None
                tiou = run.get("tiou_thresholds", ACTIVITYNET_TIOU)
                result = proposal_recall(aligned, budget, tiou, grid=grid)
                out[f"{prefix}/recall"] = result.recall
                out[f"{prefix}/average_recall"] = result.average_recall
                out[f"{prefix}/proposals_per_video"] = result.proposals_per_video
                if name == "activitynet":
                    out[f"{prefix}/area"] = result.area
                    out[f"{prefix}/auc_percent"] = result.auc_percent
                    continue
                for metric in run["metrics"]:
                    value = result.auc_percent / 100 if metric == "AUC" else result.at(int(metric[3:]))
                    out[f"{prefix}/metrics/{metric}"] = value
    return out


def epic_map(manifest: dict[str, Any], io: Mapping[str, np.ndarray], folder: Path) -> Numbers:
    truth, predicted = read_annotations(folder / "annotations.csv"), read_predictions(folder / "submission.json")
    asked = json.loads((folder / "expected.json").read_text())
    rules = replace(PROTOCOLS["epic"], tiou=tuple(asked["tiou_thresholds"]))
    out: Numbers = {"num_nouns": NOUN_STRIDE}
    results = {}
    for task in TASKS:
        aligned = align(relabel(truth, task), relabel(predicted, task), rules)
        result = results[task] = score(aligned)
        out |= {f"tasks/{task}/ap/{name}": row for name, row in zip(result.classes, result.ap, strict=True)}
        out[f"tasks/{task}/mAP"] = result.mAP
        out[f"tasks/{task}/average_mAP"] = result.average_mAP
        out[f"tasks/{task}/n_classes"] = len(result.classes)
        out[f"tasks/{task}/n_predictions_kept"] = len(aligned.order)
    details = evaluate(truth, predicted, rules).details
    printed = details.get("challenge") or challenge_metrics(results)
    return out | {f"printed/{name}": value for name, value in printed.items()}


def ego4d_mq(manifest: dict[str, Any], io: Mapping[str, np.ndarray], folder: Path) -> Numbers:
    flat, wrapped = (read_annotations(folder / name) for name in ("gt.json", "gt_activitynet_layout.json"))
    asked = json.loads((folder / "expected.json").read_text())
    wrapped = numbered(wrapped, asked)
    out: Numbers = {}
    for order in ("sorted", "file_order"):
        predicted = read_predictions(folder / f"preds_{order}.json")
        official = asked[order]["ego4d_detection"]["tiou_thresholds"]
        rules = replace(PROTOCOLS["ego4d"], tiou=tuple(official))
        result = evaluate(flat, predicted, rules, asked.get("subset"))
        prefix = f"{order}/ego4d_detection"
        out |= {f"{prefix}/ap/{name}": row for name, row in zip(result.classes, result.ap, strict=True)}
        out |= {f"{prefix}/mAP": result.mAP, f"{prefix}/average_mAP": result.average_mAP}
        wanted = asked[order]["ego4d_retrieval"]
        if (wanted["tiou"], wanted["k"]) == (list(RETRIEVAL_TIOU), list(RETRIEVAL_AT)):
            recall = result.details["retrieval"]["recall"]
        else:
            aligned = align(flat, predicted, rules, asked.get("subset"))
            recall = retrieval_recall(aligned, wanted["tiou"], wanted["k"])
        out[f"{order}/ego4d_retrieval/recall"] = recall
        for name in ("actionformer", "opentad"):
            grid = asked[order][name].get("tiou_thresholds", official)
            rules = replace(PROTOCOLS[name], tiou=tuple(grid))
            numbers = temporal_numbers(wrapped, predicted, rules, asked.get("subset"), (), asked[order][name])
            out |= {f"{order}/{name}/{path}": value for path, value in numbers.items()}
    return out


def thumos_evalkit(manifest: dict[str, Any], io: Mapping[str, np.ndarray], folder: Path) -> Numbers:
    asked = json.loads((folder / "expected.json").read_text())
    truth, predicted = read_annotations(folder / "annotation"), read_predictions(folder / "detections.txt")
    out: Numbers = {}
    for name, preset in (("evalkit_20150930", "thumos14-kit"), ("evalkit_2014", "thumos14-kit-2014")):
        rules = replace(PROTOCOLS[preset], tiou=tuple(asked["thresholds"]))
        result = evaluate(truth, predicted, rules)
        out["classes"] = list(result.classes)
        out[f"{name}/mAP"] = result.mAP
        out |= {f"{name}/ap/{label}": row for label, row in zip(result.classes, result.ap, strict=True)}
    return out


def detad(manifest: dict[str, Any], io: Mapping[str, np.ndarray], folder: Path) -> Numbers:
    return {f"{case.name}/{path}": value for case in cases(folder) for path, value in detad_case(case).items()}


def detad_case(case: Path) -> Numbers:
    asked = json.loads((case / "expected.json").read_text())
    truth, predicted = read_annotations(case / "gt.json"), read_predictions(case / "preds.json")
    rules = replace(PROTOCOLS["activitynet"], tiou=tuple(asked["tiou_thresholds"]))
    bins = {
        name: Bins(tuple(np.inf if edge is None else edge for edge in entry["edges"]), tuple(entry["labels"]))
        for name, entry in asked["bins"].items()
    }
    found = diagnose(align(truth, predicted, rules, asked["subset"]), truth, bins)
    fp = found.false_positives
    out: Numbers = {
        "annotations_kept": found.annotations,
        "average_instances_per_class": found.average,
        "min_tiou": BACKGROUND_TIOU,
        "plain/mAP": mean_ap(found.plain_ap),
        "plain/average_mAP": np.mean(mean_ap(found.plain_ap)),
        "false_positive/predictions_kept": len(fp.rank),
        "false_positive/mAP_N": mean_ap(fp.ap_n),
        "false_positive/average_mAP_N": np.mean(mean_ap(fp.ap_n)),
        "false_negative/average_mAP_N": np.mean(mean_ap(found.ap_n_without_late)),
        "sensitivity/mAP_N": mean_ap(found.ap_n),
        "sensitivity/average_mAP_N": np.mean(mean_ap(found.ap_n)),
    }
    named = zip(found.aligned.classes, fp.ap_n, strict=True)
    out |= {f"false_positive/ap_N/{name}": row for name, row in named if not np.isnan(row).any()}
    out |= {f"false_positive/count/{name}": value for name, value in fp.counts().items()}
    out |= {f"false_positive/share/{name}": value for name, value in fp.shares().items()}
    out |= {f"false_positive/average_mAP_N_gain/{name}": value for name, value in fp.gain.items()}
    for part in range(SLICES):
        for name in OUTCOMES:
            out[f"false_positive/share_by_G/{part}/{name}"] = fp.shares(part)[name]
            out[f"false_positive/count_by_G/{part}/{name}"] = fp.counts(part)[name]
    if "per_prediction" in asked["false_positive"]:
        out |= per_prediction(found)
    return out | bin_numbers(found, asked)


def per_prediction(found: Any) -> Numbers:
    fp, aligned, out = found.false_positives, found.aligned, {}
    rows = aligned.order[fp.rank]
    for place, row in enumerate(rows.tolist()):
        prefix = f"false_positive/per_prediction/{place}"
        out[f"{prefix}/video"] = aligned.videos[aligned.pr_video[row]]
        out[f"{prefix}/label"] = aligned.classes[aligned.pr_class[row]]
        out[f"{prefix}/segment"] = [aligned.pr_start[row], aligned.pr_end[row]]
        out[f"{prefix}/score"] = aligned.pr_score[row]
        out[f"{prefix}/type"] = fp.outcome[:, place]
    return out


def bin_numbers(found: Any, asked: Any) -> Numbers:
    """A bin without annotations has no value: it is returned where the fixture stores null for it."""
    table, out = found.table, {}
    for name, bins in table.bins.items():
        for place, label in enumerate(bins.labels):
            count = int(table.count[name][place])
            if count or label in asked["bin_counts"][name]:
                out[f"bin_counts/{name}/{label}"] = count
            if count or label in asked["false_negative"]["characteristics"][name]:
                prefix = f"false_negative/characteristics/{name}/{label}"
                out[f"{prefix}/share_of_annotations"] = count / found.annotations
                out[f"{prefix}/missed"] = table.missed[name][place]
            if count or label in asked["sensitivity"]["characteristics"][name]:
                out[f"sensitivity/characteristics/{name}/{label}"] = table.sensitivity[name][place]
    return out


AVA_PROFILES = {"acar": "ava-acar", "activitynet": "ava", "pyslowfast": "ava-pyslowfast"}


def ava_eval(manifest: dict[str, Any], io: Mapping[str, np.ndarray], folder: Path) -> Numbers:
    asked, out = json.loads((folder / "expected.json").read_text()), {}
    for case, entry in asked.items():
        where = folder / case
        label_map = read_label_map(where / "labelmap.pbtxt")
        excluded = read_excluded(where / "excluded.csv") if (where / "excluded.csv").exists() else ()
        tables = read_boxes(where / "gt.csv"), read_boxes(where / "det.csv")
        for profile in entry["results"]:
            result = evaluate_frames(*tables, PROTOCOLS[AVA_PROFILES[profile]], label_map, excluded)
            if documents.RANGE in entry:
                out[f"{case}/{documents.RANGE}/{profile}"] = result.average_mAP
                continue
            # Without ties the evaluator as published and its stable rewrite agree: both are ours to meet.
            for variant in entry["results"][profile]:
                prefix = f"{case}/results/{profile}/{variant}"
                out[f"{prefix}/mAP"] = result.average_mAP
                named = zip(result.details["class_ids"], result.ap, strict=True)
                out |= {f"{prefix}/per_class/{number}": row[0] for number, row in named}
    return out


ADAPTERS = {
    "anet_map": anet_map,
    "ava_eval": ava_eval,
    "proposals_ar_an": proposals_ar_an,
    "detad": detad,
    "epic_map": epic_map,
    "ego4d_mq": ego4d_mq,
    "thumos_evalkit": thumos_evalkit,
}
