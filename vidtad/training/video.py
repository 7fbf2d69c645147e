"""What a temporal head is trained on: feature rows of one video and what happens in it."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class TrainingVideo:
    """Feature rows of one video and what happens in it.

    `values` (T, C) float32, may be memory-mapped; `segments` (n, 2) float64 (start, end) in row positions,
    where row i covers [i, i + 1] (`Grid.positions(seconds) + 0.5`); `labels` (n,) class numbers.
    """

    name: str
    values: np.ndarray
    segments: np.ndarray
    labels: np.ndarray
