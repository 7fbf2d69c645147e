"""Where the errors are: the tables of DETAD (Alwassel et al., "Diagnosing Error in Temporal Action
Detectors").

AP_N is AP with a precision normalised to the average number of annotations per class, so that bins of
unequal size compare. All tables are averaged over the tIoU grid.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np

from vidtad.errors import InputError
from vidtad.evaluation.align import Aligned
from vidtad.evaluation.characteristics import Bins, bins_for, characteristics
from vidtad.evaluation.matching import blocks, temporal_iou
from vidtad.evaluation.precision import area
from vidtad.evaluation.temporal import Matching, class_slices, find_pairs, match
from vidtad.formats.tables import Annotations

OUTCOMES = (
    "True Positive",
    "Double Detection Err",
    "Wrong Label Err",
    "Localization Err",
    "Confusion Err",
    "Background Err",
)
TRUE, DOUBLE, WRONG_LABEL, LOCALIZATION, CONFUSION, BACKGROUND = range(6)
SLICES = 10
BACKGROUND_TIOU = 0.1
MISSED_PRECISION = 0.05


@dataclass(frozen=True)
class FalsePositives:
    """outcome: int8 (thresholds, predictions), position in OUTCOMES, of the `rank`ed predictions that were
    looked at (the 10 N best of a class with N annotations); slice_of: which N of them. best: row of the
    annotation each overlaps most, -1 for none. ap_n: (classes, thresholds). gain: average mAP_N won by
    removing each error.
    """

    rank: np.ndarray
    outcome: np.ndarray
    slice_of: np.ndarray
    best: np.ndarray
    ap_n: np.ndarray
    gain: Mapping[str, float]

    def counts(self, part: int | None = None) -> dict[str, np.ndarray]:
        """Predictions of each outcome per threshold, of one slice or of all."""
        chosen = self.outcome if part is None else self.outcome[:, self.slice_of == part]
        return {name: (chosen == code).sum(axis=1) for code, name in enumerate(OUTCOMES)}

    def shares(self, part: int | None = None) -> dict[str, float]:
        """Share of each outcome, averaged over the thresholds; NaN where there is no prediction to share out."""
        counts = self.counts(part)
        total = int(sum(column[0] for column in counts.values()))
        if not total:
            return dict.fromkeys(counts, float("nan"))
        return {name: float((column / total).mean()) for name, column in counts.items()}


@dataclass(frozen=True)
class BinTable:
    """Per characteristic and bin: annotations in it, the share of them missed, and mAP_N over them (NaN:
    none). pairs: (first, second) characteristic -> annotations and missed share, each (bins of the first, bins of
    the second).
    """

    bins: Mapping[str, Bins]
    count: Mapping[str, np.ndarray]
    missed: Mapping[str, np.ndarray]
    sensitivity: Mapping[str, np.ndarray]
    pairs: Mapping[tuple[str, str], tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class Diagnosis:
    """All tables. annotations: kept ones (length above 0, coverage at most 1). average: of them per class."""

    aligned: Aligned
    annotations: int
    average: float
    plain_ap: np.ndarray
    false_positives: FalsePositives
    ap_n: np.ndarray
    ap_n_without_late: np.ndarray
    table: BinTable


def diagnose(aligned: Aligned, truth: Annotations, bins: Mapping[str, Bins] | None = None) -> Diagnosis:
    """Every table of one aligned pair. bins: of the protocol's data set by default.

    Raises InputError when no annotation is longer than 0 s and no longer than its video.
    """
    bins = bins if bins is not None else bins_for(aligned.protocol.name)
    traits = characteristics(aligned, truth)
    sound = (aligned.gt_end > aligned.gt_start) & ~(traits["coverage"] > 1)
    if not sound.any():
        raise InputError("diagnosis: no annotation is longer than 0 s and within its video")
    traits = {name: column[sound] for name, column in traits.items()}
    kept = keep_annotations(aligned, sound)
    average = len(kept.gt_class) / max(len(kept.classes), 1)
    matching = match(kept, find_pairs(kept))
    ap_n, _ = normalised(kept, matching.hits, average)
    late_ap_n, strong = normalised(kept, matching.hits, average, minimum=MISSED_PRECISION)
    places = {name: bins[name].place(traits[name]) for name in bins}
    missed = ~_found(matching, strong)
    return Diagnosis(
        aligned=kept,
        annotations=len(kept.gt_class),
        average=average,
        plain_ap=_plain(kept, matching.hits),
        false_positives=false_positives(kept, matching, average),
        ap_n=ap_n,
        ap_n_without_late=late_ap_n,
        table=BinTable(
            bins=bins,
            count={
                name: np.bincount(where[where >= 0], minlength=len(bins[name].labels)) for name, where in places.items()
            },
            missed={name: _share(missed, where, len(bins[name].labels)) for name, where in places.items()},
            sensitivity={
                name: _sensitivity(kept, matching, average, where, len(bins[name].labels))
                for name, where in places.items()
            },
            pairs={(a, b): _pair(missed, places, bins, a, b) for a, b in combinations(bins, 2)},
        ),
    )


def keep_annotations(aligned: Aligned, keep: np.ndarray) -> Aligned:
    """The aligned pair with some annotations only; the class list stays."""
    return replace(
        aligned,
        **{name: getattr(aligned, name)[keep] for name in ("gt_video", "gt_class", "gt_start", "gt_end", "gt_row")},
    )


def normalised(
    aligned: Aligned,
    hits: np.ndarray,
    average: float,
    *,
    minimum: float = 0.0,
    counted: np.ndarray | None = None,
    instances: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """AP_N, float64 (classes, thresholds), NaN for classes without annotations; and the hits that count.

    hits: bool (thresholds, ranked predictions). minimum: hits whose normalised precision is not above it
    become false positives. counted: bool like hits, which predictions are there at all. instances:
    annotations per class.
    """
    instances = aligned.per_class if instances is None else instances
    there = np.ones_like(hits) if counted is None else counted
    strong = hits & there
    ap = np.full((len(aligned.classes), len(hits)), np.nan)
    for number, part in enumerate(class_slices(aligned)):
        if not instances[number]:
            continue
        found, present = strong[:, part], there[:, part]
        recall, precision = _normalised_curve(found, present, instances[number], average)
        if minimum > 0:
            strong[:, part] = found = found & (precision > minimum)
            recall, precision = _normalised_curve(found, present, instances[number], average)
        ap[number] = area(recall, precision) if found.shape[1] else 0.0
    return ap, strong


def false_positives(aligned: Aligned, matching: Matching, average: float) -> FalsePositives:
    """Outcome of the best predictions of every class, and what removing one kind of error would win."""
    instances = aligned.per_class
    place = np.concatenate([np.arange(part.stop - part.start) for part in class_slices(aligned)])
    class_ = aligned.pr_class[aligned.order]
    looked_at = place < SLICES * instances[class_]
    rank = np.flatnonzero(looked_at)
    overlap, best = best_annotation(aligned, rank)
    same = np.where(best >= 0, aligned.gt_class[best] == class_[rank], False) if len(aligned.gt_class) else best >= 0
    outcome = np.zeros((len(matching.hits), len(rank)), np.int8)
    for row, threshold in enumerate(aligned.protocol.tiou):
        kind = np.select(
            [overlap >= threshold, overlap >= BACKGROUND_TIOU],
            [np.where(same, DOUBLE, WRONG_LABEL), np.where(same, LOCALIZATION, CONFUSION)],
            BACKGROUND,
        )
        outcome[row] = np.where(matching.hits[row, rank], TRUE, kind)
    everything = np.broadcast_to(looked_at, matching.hits.shape)
    ap_n, _ = normalised(aligned, matching.hits, average, counted=everything)
    before, gain = float(np.nanmean(ap_n, axis=0).mean()), {}
    for code, name in list(enumerate(OUTCOMES))[1:]:
        without = everything.copy()
        without[:, rank] &= outcome != code
        after, _ = normalised(aligned, matching.hits, average, counted=without)
        gain[name] = float(np.nanmean(after, axis=0).mean()) - before
    slice_of = place[rank] // np.maximum(instances[class_[rank]], 1)
    return FalsePositives(rank, outcome, slice_of.astype(np.int64), best, ap_n, gain)


def best_annotation(aligned: Aligned, rank: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Largest overlap of each ranked prediction with any annotation of its video, whatever its class, and
    that annotation's row (the first of equals; -1 and overlap 0 where the video has none).
    """
    rows = aligned.order[rank]
    overlap, best = np.zeros(len(rank)), np.full(len(rank), -1, np.int64)
    start, end = aligned.pr_start[rows], aligned.pr_end[rows]
    for prediction, annotation in blocks(aligned.pr_video[rows], aligned.gt_video):
        tiou = np.nan_to_num(
            temporal_iou(aligned.gt_start[annotation], aligned.gt_end[annotation], start[prediction], end[prediction])
        )
        opens = np.flatnonzero(np.r_[True, prediction[1:] != prediction[:-1]])
        largest = np.maximum.reduceat(tiou, opens)
        is_best = tiou == np.repeat(largest, np.diff(np.r_[opens, len(tiou)]))
        first = np.minimum.reduceat(np.where(is_best, np.arange(len(tiou)), len(tiou)), opens)
        overlap[prediction[opens]] = largest
        best[prediction[opens]] = annotation[first]
    return overlap, best


def _normalised_curve(
    hits: np.ndarray, there: np.ndarray, instances: int, average: float
) -> tuple[np.ndarray, np.ndarray]:
    recall = np.cumsum(hits, axis=1) / instances
    wrong = np.cumsum(there & ~hits, axis=1)
    weighted = recall * average
    total = weighted + wrong
    return recall, np.divide(weighted, total, out=np.zeros_like(total), where=total > 0)


def _plain(aligned: Aligned, hits: np.ndarray) -> np.ndarray:
    ap = np.full((len(aligned.classes), len(hits)), np.nan)
    for number, part in enumerate(class_slices(aligned)):
        if not aligned.per_class[number]:
            continue
        found = np.cumsum(hits[:, part], axis=1)
        rank = np.arange(1, found.shape[1] + 1)
        ap[number] = area(found / aligned.per_class[number], found / rank) if len(rank) else 0.0
    return ap


def _found(matching: Matching, strong: np.ndarray) -> np.ndarray:
    """bool (thresholds, annotations): taken by a prediction that counts."""
    found = np.zeros(matching.taken_by.shape, bool)
    for row, taken_by in enumerate(matching.taken_by):
        taken = taken_by >= 0
        found[row, taken] = strong[row, taken_by[taken]]
    return found


def _share(missed: np.ndarray, where: np.ndarray, bins: int) -> np.ndarray:
    """Missed share of the annotations of each bin, averaged over the thresholds; NaN for a bin without any."""
    shares = [missed[:, where == bin_] for bin_ in range(bins)]
    return np.array([part.mean(axis=1).mean() if part.shape[1] else np.nan for part in shares])


def _pair(
    missed: np.ndarray, places: Mapping[str, np.ndarray], bins: Mapping[str, Bins], first: str, second: str
) -> tuple[np.ndarray, np.ndarray]:
    shape = (len(bins[first].labels), len(bins[second].labels))
    inside = (places[first] >= 0) & (places[second] >= 0)
    where = np.where(inside, places[first] * shape[1] + places[second], -1)
    count = np.bincount(where[inside], minlength=shape[0] * shape[1])
    return count.reshape(shape), _share(missed, where, count.size).reshape(shape)


def _sensitivity(aligned: Aligned, matching: Matching, average: float, where: np.ndarray, bins: int) -> np.ndarray:
    """mAP_N per bin: its annotations, and the predictions that took none outside of it at any threshold."""
    result = np.full(bins, np.nan)
    for bin_ in range(bins):
        inside = where == bin_
        if not inside.any():
            continue
        hits, there = np.zeros_like(matching.hits), np.ones(matching.hits.shape[1], bool)
        for row, taken_by in enumerate(matching.taken_by):
            there[taken_by[(taken_by >= 0) & ~inside]] = False
            hits[row, taken_by[(taken_by >= 0) & inside]] = True
        instances = np.bincount(aligned.gt_class[inside], minlength=len(aligned.classes))
        ap, _ = normalised(aligned, hits, average, counted=np.broadcast_to(there, hits.shape), instances=instances)
        result[bin_] = np.nanmean(ap, axis=0).mean()
    return result


def mean_ap(ap: np.ndarray) -> list[float]:
    """Mean over the classes that have annotations, per threshold."""
    return [float(value) for value in np.nanmean(ap, axis=0)]


def _without_nan(shares: Mapping[str, float]) -> dict[str, float | None]:
    return {name: None if np.isnan(value) else value for name, value in shares.items()}


def diagnosis_json(found: Diagnosis) -> dict[str, Any]:
    """The tables as one JSON document; bins without annotations, and slices without predictions, are null."""
    fp, table = found.false_positives, found.table

    def nullable(values: np.ndarray) -> list[float | None]:
        return [None if np.isnan(value) else float(value) for value in values]

    traits = {
        name: {
            label: {"annotations": count, "missed": missed, "average_mAP_N": value}
            for label, count, missed, value in zip(
                bins.labels,
                table.count[name].tolist(),
                nullable(table.missed[name]),
                nullable(table.sensitivity[name]),
                strict=True,
            )
        }
        for name, bins in table.bins.items()
    }
    return {
        "annotations": found.annotations,
        "average_instances_per_class": found.average,
        "average_mAP": float(np.mean(mean_ap(found.plain_ap))),
        "average_mAP_N": float(np.mean(mean_ap(found.ap_n))),
        "false_positives": {
            "predictions": len(fp.rank),
            "count": {name: column.tolist() for name, column in fp.counts().items()},
            "share": _without_nan(fp.shares()),
            "share_by_slice": [_without_nan(fp.shares(part)) for part in range(SLICES)],
            "average_mAP_N_gain": dict(fp.gain),
        },
        "characteristics": traits,
        "missed_by_pair": {
            f"{a} x {b}": {
                label: {
                    other: {"annotations": n, "missed": share}
                    for other, n, share in zip(table.bins[b].labels, counts, nullable(shares), strict=True)
                }
                for label, counts, shares in zip(table.bins[a].labels, count.tolist(), missed, strict=True)
            }
            for (a, b), (count, missed) in table.pairs.items()
        },
    }
