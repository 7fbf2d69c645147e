"""Temporal mAP: vidtad against a plain loop over predictions, the way the published evaluators go about it.

    python benchmarks/evaluate.py --size medium

prints one JSON line per case with seconds of both, their ratio, and the largest difference of any AP.
`--size large` is 5,000 videos, 200 classes, 500,000 predictions; its loop takes minutes, `--ours-only`
leaves it out.
"""

import argparse
import json
import resource
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import numpy as np

from vidtad.evaluation import PROTOCOLS, evaluate, evaluate_files
from vidtad.evaluation.protocols import ACTIVITYNET_TIOU
from vidtad.formats.activitynet import annotations_json, results_json
from vidtad.formats.tables import Annotations, Predictions

SIZES = {  # videos, classes, annotations, predictions
    "tiny": (40, 5, 300, 1_500),
    "small": (250, 20, 2_000, 10_000),
    "medium": (1_000, 50, 12_000, 60_000),
    "large": (5_000, 200, 100_000, 500_000),
}


def workload(size: str, seed: int = 0) -> tuple[Annotations, Predictions]:
    """Random annotations and predictions, two in five of which are near an annotation; scores are distinct."""
    videos, classes, many, predictions = SIZES[size]
    rng = np.random.default_rng(seed)
    shown = rng.integers(0, classes, (videos, 3))
    video = rng.integers(0, videos, many)
    label = shown[video, rng.integers(0, 3, many)]
    label[:classes] = np.arange(classes)
    length = np.clip(rng.lognormal(np.log(6), 0.9, many), 0.8, 100)
    start = rng.uniform(0, 200, many)
    near = predictions * 2 // 5
    source = rng.integers(0, many, near)
    centre = start[source] + length[source] * (0.5 + rng.normal(0, 0.12, near))
    width = length[source] * rng.lognormal(0, 0.2, near)
    far_video = rng.integers(0, videos, predictions - near)
    far_start = rng.uniform(0, 200, predictions - near)
    pr_video = np.concatenate([video[source], far_video])
    pr_label = np.concatenate([label[source], shown[far_video, rng.integers(0, 3, predictions - near)]])
    pr_start = np.concatenate([centre - width / 2, far_start])
    pr_end = np.concatenate([centre + width / 2, far_start + rng.lognormal(np.log(6), 0.9, predictions - near)])
    score = (rng.permutation(predictions) + 1) / (predictions + 1)
    names = tuple(f"v_{number:05d}" for number in range(videos)), tuple(f"class {n}" for n in range(classes))
    by_video, pr_by_video = np.argsort(video, kind="stable"), np.argsort(pr_video, kind="stable")
    truth = Annotations(
        *names,
        video[by_video],
        label[by_video],
        start[by_video],
        (start + length)[by_video],
        subset=("validation",) * videos,
    )
    columns = (column[pr_by_video] for column in (pr_video, pr_label, pr_start, pr_end))
    return truth, Predictions(*names, *columns, score=score[pr_by_video])


def plain_loop(truth: Annotations, predicted: Predictions, tiou: np.ndarray) -> np.ndarray:
    """AP (classes, thresholds) by the published procedure: one prediction after another, best score first."""
    annotations = defaultdict(list)
    for row in range(len(truth)):
        annotations[int(truth.label[row]), int(truth.video[row])].append((truth.start[row], truth.end[row]))
    arrays = {key: np.array(segments) for key, segments in annotations.items()}
    ap = np.zeros((len(truth.labels), len(tiou)))
    for label in range(len(truth.labels)):
        rows = np.flatnonzero(predicted.label == label)
        rows = rows[np.argsort(-predicted.score[rows], kind="stable")]
        hits = np.zeros((len(tiou), len(rows)))
        free = {key: np.ones((len(tiou), len(segments)), bool) for key, segments in arrays.items() if key[0] == label}
        for place, row in enumerate(rows):
            key = label, int(predicted.video[row])
            if key not in arrays:
                continue
            start, end = arrays[key].T
            inter = np.minimum(end, predicted.end[row]) - np.maximum(start, predicted.start[row])
            inter = inter.clip(0)
            overlap = inter / ((end - start) + (predicted.end[row] - predicted.start[row]) - inter)
            for best in overlap.argsort()[::-1]:
                for column, threshold in enumerate(tiou):
                    if overlap[best] >= threshold and free[key][column, best] and not hits[column, place]:
                        hits[column, place], free[key][column, best] = 1, False
        found = hits.cumsum(axis=1)
        precision = found / np.arange(1, len(rows) + 1)
        best_after = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
        ap[label] = (hits * best_after).sum(axis=1) / (truth.label == label).sum()
    return ap


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--size", choices=sorted(SIZES), default="medium")
    parser.add_argument("--ours-only", action="store_true")
    arguments = parser.parse_args()
    truth, predicted = workload(arguments.size)
    begun = time.perf_counter()
    ours = evaluate(truth, predicted, PROTOCOLS["activitynet"])
    line = {
        "case": "temporal mAP in memory",
        "size": arguments.size,
        "predictions": len(predicted),
        "ours_s": time.perf_counter() - begun,
    }
    if not arguments.ours_only:
        begun = time.perf_counter()
        loop = plain_loop(truth, predicted, np.array(ACTIVITYNET_TIOU))
        line["baseline"], line["baseline_s"] = "plain per-prediction loop", time.perf_counter() - begun
        line["ratio"] = line["baseline_s"] / line["ours_s"]
        own = dict(zip(ours.classes, ours.ap, strict=True))
        line["largest_difference"] = float(
            max(np.abs(own[name] - row).max() for name, row in zip(truth.labels, loop, strict=True))
        )
    print(json.dumps(line))
    with tempfile.TemporaryDirectory() as folder:
        files = Path(folder) / "gt.json", Path(folder) / "preds.json"
        for path, document in zip(files, (annotations_json(truth), results_json(predicted)), strict=True):
            path.write_text(json.dumps(document))
        begun = time.perf_counter()
        evaluate_files(*files)
        line = {
            "case": "from files, with recall@kx and AR@AN",
            "size": arguments.size,
            "ours_s": time.perf_counter() - begun,
        }
    line["peak_mb_of_this_process"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (
        1 << 20 if sys.platform == "darwin" else 1 << 10
    )
    print(json.dumps(line))


if __name__ == "__main__":
    main()
