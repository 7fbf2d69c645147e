"""Average precision from ranked hits."""

import numpy as np


def interpolated_ap(hits: np.ndarray, instances: float, weight: np.ndarray | None = None) -> np.ndarray:
    """All-point interpolated average precision (the VOC 2010 rule).

    hits: bool (T, N), predictions of one class, best first. instances: number of annotations. weight: (N,)
    how often each prediction counts (1 by default). Returns float64 (T,); 0 without annotations or
    predictions.
    """
    if not instances or not hits.shape[1]:
        return np.zeros(hits.shape[0])
    step = hits.astype(np.float64) if weight is None else hits * weight
    total = np.arange(1, hits.shape[1] + 1, dtype=np.float64) if weight is None else np.cumsum(weight)
    found = np.cumsum(step, axis=1)
    precision = np.divide(found, total, out=np.zeros_like(found), where=total > 0)
    return area(found / instances, precision)


def area(recall: np.ndarray, precision: np.ndarray) -> np.ndarray:
    """Area under precision (..., N), made non-increasing from the right, over the recall steps (..., N)."""
    best = np.maximum.accumulate(precision[..., ::-1], axis=-1)[..., ::-1]
    return (np.diff(recall, axis=-1, prepend=0.0) * best).sum(axis=-1)
