"""Length, coverage and crowding of annotations, in the bins of the diagnosis paper (DETAD, ECCV 2018)."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from vidtad.evaluation.align import Aligned
from vidtad.formats.tables import Annotations


@dataclass(frozen=True)
class Bins:
    """edges: right-closed, the lowest one included; one label fewer."""

    edges: tuple[float, ...]
    labels: tuple[str, ...]

    def place(self, values: np.ndarray) -> np.ndarray:
        """Bin of each value, int64; -1 outside the edges and for NaN."""
        edges = np.array(self.edges)
        found = np.maximum(np.searchsorted(edges, values, "left") - 1, 0)
        return np.where((values >= edges[0]) & (values <= edges[-1]), found, -1)


FIVE, FOUR = ("XS", "S", "M", "L", "XL"), ("XS", "S", "M", "L")
INF = float("inf")
ACTIVITYNET_BINS: Mapping[str, Bins] = {
    "coverage": Bins(tuple(np.linspace(0, 1, 6).tolist()), FIVE),
    "length": Bins((0, 30, 60, 120, 180, INF), FIVE),
    "num-instances": Bins((-1, 1, 4, 8, INF), FOUR),
}
THUMOS_BINS: Mapping[str, Bins] = {
    "coverage": Bins((0, 0.02, 0.04, 0.06, 0.08, 1), FIVE),
    "length": Bins((0, 3, 6, 12, 18, INF), FIVE),
    "num-instances": Bins((-1, 1, 40, 80, INF), FOUR),
}
THUMOS_LIKE = ("thumos14", "multithumos", "charades", "epic", "ego4d")


def bins_for(protocol_name: str) -> Mapping[str, Bins]:
    """THUMOS's bins for data of many short actions, ActivityNet's otherwise."""
    return THUMOS_BINS if protocol_name.startswith(THUMOS_LIKE) else ACTIVITYNET_BINS


def characteristics(aligned: Aligned, truth: Annotations) -> dict[str, np.ndarray]:
    """`length` (s), `coverage` (of the video, NaN where its duration is unknown) and `num-instances`
    (annotations of the video, of any class) per aligned annotation: the file's own where it has them.
    """
    length = aligned.gt_end - aligned.gt_start
    duration = truth.duration[truth.video[aligned.gt_row]]
    with np.errstate(divide="ignore", invalid="ignore"):
        coverage = np.where(duration > 0, length / duration, np.nan)
    count = np.bincount(aligned.gt_video, minlength=len(aligned.videos))[aligned.gt_video].astype(np.float64)
    computed = {"length": length, "coverage": coverage, "num-instances": count}
    return {
        name: np.where(np.isnan(given), column, given)
        for name, column in computed.items()
        for given in [truth.extra[name][aligned.gt_row] if name in truth.extra else column]
    }
