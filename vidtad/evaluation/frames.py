"""AVA frame-mAP at box IoU 0.5, in the three variants that published numbers come from.

Sources: activitynet/ActivityNet `get_ava_performance.py`, ACAR-Net `calc_mAP.py`, PySlowFast
`ava_eval_helper.py`. Unlike temporal mAP, a detection looks at its best-overlapping ground truth only.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from vidtad.errors import InputError
from vidtad.evaluation.matching import blocks
from vidtad.evaluation.precision import interpolated_ap
from vidtad.evaluation.protocols import Protocol
from vidtad.evaluation.result import Evaluation
from vidtad.formats.ava import Boxes, Key, ava_classes
from vidtad.formats.tables import Findings


@dataclass(frozen=True)
class FrameRules:
    """Where the variants differ.

    cap: boxes kept per image over all classes, 0 for all. by_score: within an image the higher score
    chooses first; otherwise the earlier row. exclusions: whether the list of excluded keyframes is
    honoured. strangers: whether detections on images without ground truth are false positives, or ignored.
    """

    cap: int
    by_score: bool
    exclusions: bool
    strangers: bool


RULES: Mapping[str, FrameRules] = {
    "ava": FrameRules(cap=50, by_score=True, exclusions=False, strangers=False),
    "ava-acar": FrameRules(cap=50, by_score=True, exclusions=True, strangers=True),
    "ava-pyslowfast": FrameRules(cap=0, by_score=False, exclusions=True, strangers=True),
}
AREA_BINS = (("small (< 5 % of the frame)", 0.0, 0.05), ("medium (5-20 %)", 0.05, 0.2), ("large (> 20 %)", 0.2, np.inf))
PEOPLE_BINS = (("1 person", 1, 2), ("2 persons", 2, 3), ("3-5 persons", 3, 6), ("6 or more", 6, np.inf))


@dataclass(frozen=True)
class FrameMatching:
    """Detections that count, in the order they are ranked within equal scores.

    gt: the ground truth that is scored. det: the detections. hit: bool, per threshold and detection. taken:
    int64, per threshold and detection, the ground-truth row it matched or -1.
    """

    gt: Boxes
    det: Boxes
    hit: np.ndarray
    taken: np.ndarray


def evaluate_frames(
    truth: Boxes,
    predicted: Boxes,
    protocol: Protocol,
    label_map: Mapping[int, str] | None = None,
    excluded: Collection[Key] = (),
) -> Evaluation:
    """Frame-mAP. label_map: {id: name} of the classes that count; None takes AVA's 60 for AVA's own files
    and the classes of the ground truth otherwise. Raises InputError when nothing is left to evaluate.
    """
    findings = Findings()
    classes = label_map if label_map is not None else default_classes(truth, findings)
    matching = match_frames(truth, predicted, protocol, classes, excluded)
    if not len(matching.gt.label):
        raise InputError("ground truth: no box of a class that counts")
    report_frames(truth, predicted, classes, findings)
    ids = sorted(classes)
    return Evaluation(
        protocol=protocol,
        subset="",
        classes=tuple(_name(number, classes) for number in ids),
        ap=frame_ap(matching, ids, protocol.ties),
        videos=len({matching.gt.images[i][0] for i in matching.gt.image}),
        instances=len(matching.gt.label),
        predictions=len(matching.det.label),
        findings=(*truth.findings, *predicted.findings, *findings.result()),
        details={"keyframes": len(np.unique(matching.gt.image)), "class_ids": ids},
    )


def default_classes(truth: Boxes, findings: Findings) -> dict[int, str]:
    """Classes that count when no label map is given."""
    known = {entry.id: entry for entry in ava_classes()}
    seconds = np.array([float(second) for _, second in truth.images] or [0.0])
    if len(truth.label) and seconds.min() >= 900 and truth.label.max() > 60 and truth.label.max() <= 80:
        findings.add("label map not given", "AVA's 60 evaluated classes taken", serious=False)
        return {number: entry.name for number, entry in known.items() if entry.evaluated}
    return {number: str(number) for number in np.unique(truth.label).tolist()}


def match_frames(
    truth: Boxes, predicted: Boxes, protocol: Protocol, classes: Collection[int], excluded: Collection[Key]
) -> FrameMatching:
    """Apply the variant's rules and find the hits."""
    rules = RULES[protocol.kind]
    wanted = np.array(sorted(classes), np.int64)
    gone = set(excluded) if rules.exclusions else set()
    gt = truth.select(np.isin(truth.label, wanted) & _outside(truth, gone))
    known = set(truth.images)
    det = predicted.select(np.isin(predicted.label, wanted))
    if rules.by_score:
        det = _best_first(det, rules.cap)
    place = np.array([key not in gone and (rules.strangers or key in known) for key in det.images], bool)
    sound = (det.box[:, 0] < det.box[:, 2]) & (det.box[:, 1] < det.box[:, 3])
    det = det.select(sound & place[det.image] if len(place) else sound)
    if rules.by_score:
        gt = gt.select(np.argsort(-gt.value, kind="stable"))
    hit, taken = _hits(gt, det, protocol.tiou)
    return FrameMatching(gt, det, hit, taken)


def frame_ap(matching: FrameMatching, ids: Collection[int], ties: str, gt_keep: np.ndarray | None = None) -> np.ndarray:
    """AP, float64 (classes, thresholds), NaN for classes without ground truth.

    gt_keep: bool per ground truth; only these count, and detections that matched others are left out.
    """
    det, sign = matching.det, -1 if ties == "later_first" else 1
    keep = np.ones(len(matching.gt.label), bool) if gt_keep is None else gt_keep
    position = np.arange(len(det.label))
    result = np.full((len(ids), len(matching.hit)), np.nan)
    for row, number in enumerate(ids):
        instances = int((matching.gt.label[keep] == number).sum())
        if not instances:
            continue
        own = np.flatnonzero(det.label == number)
        own = own[np.lexsort((sign * position[own], -det.value[own]))]
        for column, (hit, taken) in enumerate(zip(matching.hit, matching.taken, strict=True)):
            counted = own[(taken[own] < 0) | keep[taken[own]]]
            result[row, column] = interpolated_ap(hit[None, counted], instances)[0]
    return result


def box_iou(box: np.ndarray, other: np.ndarray) -> np.ndarray:
    """IoU of boxes (N, 4), elementwise, in the operation order of the reference; no pixel is added."""
    width = np.maximum(0.0, np.minimum(box[:, 2], other[:, 2]) - np.maximum(box[:, 0], other[:, 0]))
    height = np.maximum(0.0, np.minimum(box[:, 3], other[:, 3]) - np.maximum(box[:, 1], other[:, 1]))
    inter = height * width
    union = box_area(box) + box_area(other) - inter
    return np.divide(inter, union, out=np.zeros_like(inter), where=union > 0)


def box_area(box: np.ndarray) -> np.ndarray:
    return (box[:, 3] - box[:, 1]) * (box[:, 2] - box[:, 0])


def frame_diagnosis(matching: FrameMatching, ids: Collection[int], ties: str) -> dict[str, Any]:
    """mAP over the ground truth of each box size and each number of persons in the image."""
    gt = matching.gt
    area = box_area(gt.box)
    person = np.unique(np.column_stack([gt.image, gt.box]), axis=0)[:, 0].astype(np.int64)
    people = np.bincount(person, minlength=len(gt.images))[gt.image]
    tables: dict[str, Any] = {}
    for name, values, bins in (("box_size", area, AREA_BINS), ("persons_in_image", people, PEOPLE_BINS)):
        tables[name] = {}
        for label, low, high in bins:
            inside = (values >= low) & (values < high)
            ap = frame_ap(matching, ids, ties, inside) if inside.any() else None
            tables[name][label] = {"instances": int(inside.sum()), "mAP": None if ap is None else float(np.nanmean(ap))}
    return tables


def report_frames(truth: Boxes, predicted: Boxes, classes: Collection[int], findings: Findings) -> None:
    """Note what only one side has."""
    unknown = ~np.isin(predicted.label, list(classes))
    if unknown.any():
        findings.add(
            "detection of a class that does not count",
            str(predicted.label[unknown][0]),
            int(unknown.sum()),
            serious=False,
        )
    known = set(truth.images)
    strange = [key for key in predicted.images if key not in known]
    if strange:
        findings.add("detection image without ground truth", ",".join(strange[0]), len(strange))
    silent = known - set(predicted.images)
    if silent:
        findings.add("annotated image without detections", ",".join(min(silent)), len(silent))
    empty = (predicted.box[:, 0] >= predicted.box[:, 2]) | (predicted.box[:, 1] >= predicted.box[:, 3])
    if empty.any():
        findings.add("detection box without area (left out)", str(predicted.box[empty][0].tolist()), int(empty.sum()))


def _best_first(det: Boxes, cap: int) -> Boxes:
    """Rows by image, best score first, at most `cap` of an image."""
    order = np.lexsort((np.arange(len(det.value)), -det.value, det.image))
    image = det.image[order]
    place = np.arange(len(order)) - np.searchsorted(image, image, "left")
    return det.select(order[place < cap] if cap else order)


def _outside(boxes: Boxes, gone: Collection[Key]) -> np.ndarray:
    there = np.array([key not in gone for key in boxes.images], bool)
    return there[boxes.image] if len(there) else np.zeros(0, bool)


def _hits(gt: Boxes, det: Boxes, tiou: Collection[float]) -> tuple[np.ndarray, np.ndarray]:
    """Each detection's best ground truth of its image and class; the first to claim it with enough overlap
    has it.
    """
    best, overlap = _best_truth(gt, det)
    hit = np.zeros((len(tiou), len(det.label)), bool)
    for row, threshold in enumerate(tiou):
        claims = np.flatnonzero((best >= 0) & (overlap >= threshold))
        _, first = np.unique(best[claims], return_index=True)
        hit[row, claims[first]] = True
    return hit, np.where(hit, best, -1)


def _best_truth(gt: Boxes, det: Boxes) -> tuple[np.ndarray, np.ndarray]:
    span = int(max(gt.label.max(initial=0), det.label.max(initial=0))) + 1
    number = {key: position for position, key in enumerate(gt.images)}
    of_image = np.array([number.get(key, -1) for key in det.images] or [-1], np.int64)
    best, overlap = np.full(len(det.label), -1, np.int64), np.zeros(len(det.label))
    there = np.flatnonzero(of_image[det.image] >= 0)
    group = of_image[det.image[there]] * span + det.label[there]
    for which, annotation in blocks(group, gt.image * span + gt.label):
        rows = there[which]
        iou = box_iou(det.box[rows], gt.box[annotation])
        opens = np.flatnonzero(np.r_[True, which[1:] != which[:-1]])
        largest = np.maximum.reduceat(iou, opens)
        is_best = iou == np.repeat(largest, np.diff(np.r_[opens, len(iou)]))
        first = np.minimum.reduceat(np.where(is_best, np.arange(len(iou)), len(iou)), opens)
        best[rows[opens]], overlap[rows[opens]] = annotation[first], largest
    return best, overlap


def _name(number: int, classes: Mapping[int, str]) -> str:
    name = classes[number]
    return name if name == str(number) else f"{number} {name}"
