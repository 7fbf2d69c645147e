"""The published matching loop, one prediction after another: what the array code must agree with."""

import math

import numpy as np

Segment = tuple[float, float]


def overlap(annotation: Segment, prediction: Segment) -> float:
    """Temporal IoU; NaN for 0/0."""
    inter = max(0.0, min(annotation[1], prediction[1]) - max(annotation[0], prediction[0]))
    union = (annotation[1] - annotation[0]) + (prediction[1] - prediction[0]) - inter
    return inter / union if union else math.nan


def walk(annotations: list[Segment], ranked: list[Segment], threshold: float) -> tuple[list[bool], list[int | None]]:
    """Of one class and video: whether each ranked prediction is a hit, and which one took each annotation."""
    taken: list[int | None] = [None] * len(annotations)
    hits = []
    for rank, prediction in enumerate(ranked):
        overlaps = np.array([overlap(annotation, prediction) for annotation in annotations])
        hit = False
        for row in overlaps.argsort(kind="stable")[::-1]:
            if overlaps[row] < threshold:
                break
            if taken[row] is None:
                taken[row], hit = rank, True
                break
        hits.append(hit)
    return hits, taken


def average_precision(hits: list[bool], instances: int) -> float:
    """Sum over hits of the best precision from there on, over the number of annotations."""
    precision = [sum(hits[: rank + 1]) / (rank + 1) for rank in range(len(hits))]
    return sum(max(precision[rank:]) for rank, hit in enumerate(hits) if hit) / instances
