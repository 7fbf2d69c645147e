"""How sure a figure is: bootstrap over videos, for one set of predictions and for the difference of two."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from vidtad.errors import InputError
from vidtad.evaluation.align import Aligned
from vidtad.evaluation.precision import interpolated_ap
from vidtad.evaluation.temporal import Matching, average_precision, class_slices, find_pairs, match

AT_ONCE = 128
CONFIDENCE = (2.5, 97.5)


@dataclass(frozen=True)
class Interval:
    """Percentiles 2.5 and 97.5 of the resampled values around `value`, and their standard deviation."""

    value: float
    low: float
    high: float
    deviation: float

    @classmethod
    def of(cls, value: float, samples: np.ndarray) -> "Interval":
        low, high = np.percentile(samples, CONFIDENCE)
        return cls(float(value), float(low), float(high), float(samples.std(ddof=1)))

    def to_json(self) -> dict[str, float]:
        return {"value": self.value, "low": self.low, "high": self.high, "deviation": self.deviation}


def bootstrap(aligned: Aligned, samples: int, seed: int = 0) -> dict[str, Any]:
    """95 % intervals of average mAP and of mAP at each threshold, videos of the subset drawn with
    replacement.

    Predictions in videos outside the subset stay in every sample. Raises InputError for fewer than 2 samples or
    a negative seed.
    """
    matching = match(aligned, find_pairs(aligned))
    drawn = resampled_map(aligned, matching, draw(aligned, samples, seed))
    mean_ap = average_precision(aligned, matching).mean(axis=0)
    return {
        "samples": samples,
        "seed": seed,
        "confidence": 0.95,
        "average_mAP": Interval.of(mean_ap.mean(), drawn.mean(axis=1)).to_json(),
        "mAP": [Interval.of(value, column).to_json() for value, column in zip(mean_ap, drawn.T, strict=True)],
    }


def draw(aligned: Aligned, samples: int, seed: int) -> np.ndarray:
    """How often each video of the subset is drawn: float64 (samples, videos of the subset)."""
    if samples < 2:
        raise InputError(f"bootstrap: at least 2 samples are needed, not {samples}")
    if seed < 0:
        raise InputError(f"bootstrap: a seed is 0 or above, not {seed}")
    return (
        np.random.default_rng(seed)
        .multinomial(aligned.subset_videos, np.full(aligned.subset_videos, 1 / aligned.subset_videos), size=samples)
        .astype(np.float64)
    )


def resampled_map(aligned: Aligned, matching: Matching, times: np.ndarray) -> np.ndarray:
    """mAP with every video counted `times` (samples, videos) over: float64 (samples, thresholds).

    A video drawn twice is two videos with the same content, so matches stay and only the counts change. A
    class without annotations in a sample does not enter that sample's mean.
    """
    strangers = np.ones((len(times), len(aligned.videos) - aligned.subset_videos))
    times = np.concatenate([times, strangers], axis=1)
    total = np.zeros((len(times), len(matching.hits)))
    classes = np.zeros(len(times))
    video, slices = aligned.pr_video[aligned.order], class_slices(aligned)
    for number, part in enumerate(slices):
        gt_video = aligned.gt_video[aligned.gt_class == number]
        for begin in range(0, len(times), AT_ONCE):
            block = slice(begin, begin + AT_ONCE)
            weight = times[block]
            instances = weight[:, gt_video].sum(axis=1)
            classes[block] += instances > 0
            total[block] += _weighted_ap(weight[:, video[part]], matching.hits[:, part], instances)
    return total / np.maximum(classes, 1)[:, None]


def _weighted_ap(weight: np.ndarray, hits: np.ndarray, instances: np.ndarray) -> np.ndarray:
    """AP (samples, thresholds) of one class. weight: (samples, predictions). Only hits add area, and the best
    precision from a hit on is reached at a hit, so nothing else is looked at."""
    ap = np.zeros((len(weight), len(hits)))
    if not weight.shape[1]:
        return ap
    seen = np.cumsum(weight, axis=1)
    for row, hit in enumerate(hits):
        where = np.flatnonzero(hit)
        if not len(where):
            continue
        gained = weight[:, where]
        there = seen[:, where]
        precision = np.divide(np.cumsum(gained, axis=1), there, out=np.zeros_like(there), where=there > 0)
        best = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
        area = (gained * best).sum(axis=1)
        ap[:, row] = np.divide(area, instances, out=np.zeros_like(area), where=instances > 0)
    return ap


def compare(first: Aligned, second: Aligned, samples: int = 1000, seed: int = 0) -> dict[str, Any]:
    """Whether two sets of predictions for the same ground truth differ, and where.

    Both are resampled with the same draws of videos. `p_value`: two-sided, the share of draws in which the
    difference has the other sign, doubled. Differences are second minus first.
    """
    matchings = [match(aligned, find_pairs(aligned)) for aligned in (first, second)]
    times = draw(first, samples, seed)
    drawn = [
        resampled_map(aligned, matching, times).mean(axis=1)
        for aligned, matching in zip((first, second), matchings, strict=True)
    ]
    ap = [
        average_precision(aligned, matching).mean(axis=1)
        for aligned, matching in zip((first, second), matchings, strict=True)
    ]
    difference = drawn[1] - drawn[0]
    interval = Interval.of(ap[1].mean() - ap[0].mean(), difference)
    tail = (1 + min(int((difference <= 0).sum()), int((difference >= 0).sum()))) / (1 + samples)
    per_video = [video_ap(aligned, matching) for aligned, matching in zip((first, second), matchings, strict=True)]
    names = sorted(per_video[0].keys() & per_video[1].keys())
    return {
        "samples": samples,
        "seed": seed,
        "first": float(ap[0].mean()),
        "second": float(ap[1].mean()),
        "difference": interval.to_json(),
        "p_value": min(1.0, 2 * tail),
        "beyond_noise": bool(interval.low > 0 or interval.high < 0),
        "classes": _changes(dict(zip(first.classes, zip(*ap, strict=True), strict=True))),
        "videos": _changes({name: (per_video[0][name], per_video[1][name]) for name in names}),
    }


def video_ap(aligned: Aligned, matching: Matching) -> dict[str, float]:
    """Average mAP of each annotated video taken alone, over the classes annotated in it."""
    videos = len(aligned.videos)
    group = (aligned.pr_video * len(aligned.classes) + aligned.pr_class)[aligned.order]
    by_group = np.argsort(group, kind="stable")
    groups = group[by_group]
    wanted, instances = np.unique(aligned.gt_video * len(aligned.classes) + aligned.gt_class, return_counts=True)
    begins, ends = np.searchsorted(groups, wanted, "left"), np.searchsorted(groups, wanted, "right")
    total, count = np.zeros(videos), np.zeros(videos)
    for number, found, begin, end in zip(wanted, instances.tolist(), begins, ends, strict=True):
        video = number // len(aligned.classes)
        count[video] += 1
        if begin < end:
            total[video] += interpolated_ap(matching.hits[:, by_group[begin:end]], found).mean()
    return {aligned.videos[video]: total[video] / count[video] for video in np.flatnonzero(count).tolist()}


def _changes(pairs: dict[str, tuple[float, float]]) -> list[dict[str, Any]]:
    """Entries whose figure changed, the largest change first."""
    rows = [
        {"name": name, "first": float(before), "second": float(after), "change": float(after - before)}
        for name, (before, after) in pairs.items()
        if before != after
    ]
    return sorted(rows, key=lambda row: (-abs(row["change"]), row["name"]))
