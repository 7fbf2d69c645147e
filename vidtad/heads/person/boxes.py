"""Who is in the picture: person boxes at keyframes, from a detector or a file, and the same person over time.

Boxes are (n, 4) float32 arrays x1 y1 x2 y2, normalised 0-1 by the frame; scores are (n,) float32 in 0-1.
"""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np

from vidtad.errors import InputError


class People(NamedTuple):
    """Person boxes of one keyframe, surest first: `boxes` (n, 4) normalised, `scores` (n,)."""

    boxes: np.ndarray
    scores: np.ndarray


class PersonDetector(Protocol):
    """Finds people in pictures. `identity` says what made the boxes, `notes` what the user should know of them."""

    identity: dict[str, Any]
    notes: tuple[str, ...]

    def __call__(self, pictures: Sequence[np.ndarray]) -> list[People]:
        """pictures: (H, W, 3) uint8 RGB of one size -> the people of each."""


@dataclass(frozen=True)
class _Torchvision:
    builder: str
    checkpoint: str


TORCHVISION = {
    "fasterrcnn": _Torchvision("fasterrcnn_resnet50_fpn_v2", "fasterrcnn-resnet50-fpn-v2-coco"),
    "fasterrcnn-fast": _Torchvision(
        "fasterrcnn_mobilenet_v3_large_320_fpn", "fasterrcnn-mobilenet-v3-large-320-fpn-coco"
    ),
}
HOG = "hog"
DETECTORS = (*TORCHVISION, HOG)
"""Names of person detectors, the default first: Faster R-CNN R50-FPN v2, the fast MobileNet one, OpenCV's HOG."""
DEFAULT = DETECTORS[0]
PERSON = 1
"""The label of people in torchvision's COCO detectors."""


def load_persons(
    name: str = DEFAULT, weights: str | None = None, *, threshold: float = 0.7, device: str = "cpu", seed: int = 0
) -> PersonDetector:
    """The person detector `name` (see `DETECTORS`), keeping boxes from a score of `threshold` on.

    `weights`: None for the published file (fetched into the cache when it is not there), `random` for a dry run, else
    a checkpoint file of the same network. Raises InputError for an unknown name or unfit weights, RunError when the
    file cannot be had.
    """
    check_name(name)
    if name == HOG:
        if weights is not None:
            raise InputError(f"person detector {HOG} has no weights to choose: leave out --persons-weights")
        return HogPersons()
    return TorchvisionPersons(name, weights, threshold=threshold, device=device, seed=seed)


def check_name(name: str) -> None:
    """Raise InputError, with the near ones, for a name that no person detector has."""
    if name not in DETECTORS:
        near = difflib.get_close_matches(name, DETECTORS, n=2, cutoff=0.4) or DETECTORS
        raise InputError(f"no person detector is called {name!r}; did you mean {', '.join(near)}?")


class TorchvisionPersons:
    """A COCO detector of torchvision; of its classes people alone are kept."""

    def __init__(
        self, name: str, weights: str | None = None, *, threshold: float = 0.7, device: str = "cpu", seed: int = 0
    ):
        import torch
        from torchvision.models import detection

        from vidtad.runtime.device_memory import Parts

        chosen = TORCHVISION[name]
        self.threshold, self.device = threshold, torch.device(device)
        random = weights == "random"
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = getattr(detection, chosen.builder)(weights=None, weights_backbone=None)
        identity = {"detector": name, "weights": "random" if random else str(weights or chosen.checkpoint)}
        self.notes: tuple[str, ...] = ()
        if random:
            # Untrained scores are all low: a dry run shows a few boxes whatever they are.
            network.roi_heads.score_thresh, network.roi_heads.detections_per_img = 0.0, 3
            self.threshold = 0.0
            self.notes = ("person boxes come from random weights: a dry run",)
        else:
            from pathlib import Path

            from vidtad.hub.download import fetch
            from vidtad.hub.reading import read_state_dict
            from vidtad.models.loading import load_exactly
            from vidtad.runtime.sources import read_hashed

            path = Path(weights) if weights is not None else fetch(chosen.checkpoint)
            state, identity["weights_sha256"] = read_hashed(path, read_state_dict)
            load_exactly(network, state)
        self._own_notes, self.parts = self.notes, Parts(device, f"a single picture of {name}")
        self.identity: dict[str, Any] = {**identity, "threshold": threshold}
        self.network = network.eval().to(self.device)

    def __call__(self, pictures: Sequence[np.ndarray]) -> list[People]:
        """pictures: (H, W, 3) uint8 RGB -> the people of each, in one batch."""
        import torch

        if not pictures:
            return []

        def detect(part: list[np.ndarray]) -> list[dict[str, Any]]:
            batch = [torch.from_numpy(rgb).to(self.device).permute(2, 0, 1).float().div_(255) for rgb in part]
            return self.network(batch)

        with torch.inference_mode():
            found = [entry for part in self.parts(detect, list(pictures)) for entry in part]
        self.notes = (*self._own_notes, *self.parts.notes())
        people = []
        for rgb, entry in zip(pictures, found, strict=True):
            kept = (entry["labels"] == PERSON) | (self.threshold == 0)
            kept &= entry["scores"] >= self.threshold
            boxes, scores = entry["boxes"][kept].cpu().numpy(), entry["scores"][kept].cpu().numpy()
            people.append(tidy(boxes / np.array([rgb.shape[1], rgb.shape[0]] * 2, np.float32), scores))
        return people


class HogPersons:
    """OpenCV's built-in people detector (Dalal and Triggs, CVPR 2005): nothing to download, and much weaker.

    Scores are its margins through a logistic function, no probabilities.
    """

    def __init__(self) -> None:
        import cv2

        self.hog = cv2.HOGDescriptor()
        self.hog.setSVMDetector(cv2.HOGDescriptor_getDefaultPeopleDetector())  # type: ignore[attr-defined]
        self.identity: dict[str, Any] = {"detector": HOG}
        self.notes: tuple[str, ...] = (
            "people were found with OpenCV's HOG detector, a fallback: it sees upright, whole people only and misses "
            f"many; --persons {DEFAULT} finds more",
        )

    def __call__(self, pictures: Sequence[np.ndarray]) -> list[People]:
        """pictures: (H, W, 3) uint8 RGB -> the people of each."""
        return [self._one(rgb) for rgb in pictures]

    def _one(self, rgb: np.ndarray) -> People:
        import cv2

        height, width = rgb.shape[:2]
        # Its window is 64x128 pixels: smaller pictures are enlarged until a person may fill them.
        factor = max(1.0, 256 / min(height, width))
        picture = cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR)
        if factor > 1:
            picture = cv2.resize(picture, (round(width * factor), round(height * factor)))
        # Grouping would drop every window that no neighbour confirms, half of the people; suppression is done below.
        rectangles, margins = self.hog.detectMultiScale(
            picture, winStride=(8, 8), padding=(16, 16), scale=1.05, groupThreshold=0
        )
        if not len(rectangles):
            return nobody()
        x, y, w, h = np.asarray(rectangles, np.float32).T
        # The window holds a person and a border of about 15 % of its width and 5 % of its height.
        boxes = np.stack([x + 0.15 * w, y + 0.05 * h, x + 0.85 * w, y + 0.95 * h], axis=1)
        scores = 1 / (1 + np.exp(-np.ravel(margins).astype(np.float32)))
        boxes /= np.array([picture.shape[1], picture.shape[0]] * 2, np.float32)
        kept = suppressed(boxes, scores, 0.4)
        return tidy(boxes[kept], scores[kept])


def nobody() -> People:
    """The people of an empty keyframe."""
    return People(np.zeros((0, 4), np.float32), np.zeros(0, np.float32))


def tidy(boxes: np.ndarray, scores: np.ndarray) -> People:
    """Boxes clipped to the frame, empty ones dropped, surest first (of equal scores the earlier)."""
    boxes = np.clip(np.asarray(boxes, np.float32).reshape(-1, 4), 0, 1)
    scores = np.clip(np.asarray(scores, np.float32), 0, 1)
    whole = np.flatnonzero((boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1]) & np.isfinite(scores))
    order = whole[np.argsort(-scores[whole], kind="stable")]
    return People(boxes[order], scores[order])


def box_iou(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """IoU of every pair: (n, 4), (m, 4) -> (n, m); 0 where both are empty."""
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    overlap = np.maximum(high - low, 0).prod(axis=2)
    areas = [np.maximum(b[:, 2:] - b[:, :2], 0).prod(axis=1) for b in (boxes, others)]
    union = areas[0][:, None] + areas[1][None] - overlap
    return np.divide(overlap, union, out=np.zeros_like(overlap), where=union > 0)


def suppressed(boxes: np.ndarray, scores: np.ndarray, iou: float) -> np.ndarray:
    """Numbers of the boxes that greedy suppression above an IoU of `iou` keeps, surest first."""
    left, kept = np.argsort(-scores, kind="stable"), []
    while len(left):
        kept.append(left[0])
        overlaps = box_iou(boxes[left[:1]], boxes[left[1:]])[0]
        left = left[1:][overlaps <= iou]
    return np.array(kept, np.int64)


@dataclass
class _Track:
    id: int
    time_s: float
    box: np.ndarray
    velocity: np.ndarray

    def expected(self, time_s: float) -> np.ndarray:
        return self.box + self.velocity * (time_s - self.time_s)


class Tracker:
    """Gives the boxes of consecutive keyframes the ids of persons.

    Boxes are assigned to the persons seen before so that the sum of their IoU is largest (Kuhn, 1955), none below
    `min_iou`. A person is looked for where they were last, and where they would be had they moved on as before; one
    not seen for more than `max_gap_s` seconds is gone, and whoever appears there is somebody new. Ids count from 0 in
    order of appearance.
    """

    def __init__(self, min_iou: float = 0.2, max_gap_s: float = 3.0):
        if not 0 < min_iou <= 1 or max_gap_s <= 0:
            raise InputError(f"tracks need an IoU in (0, 1] and a gap above 0 s, not {min_iou} and {max_gap_s}")
        self.min_iou, self.max_gap_s = min_iou, max_gap_s
        self._tracks: list[_Track] = []
        self._count = 0
        self._now = -np.inf

    def __call__(self, time_s: float, boxes: np.ndarray) -> np.ndarray:
        """Ids (n,) int64 of the boxes (n, 4) at `time_s`, which must be after the last call's (InputError)."""
        if not time_s > self._now:
            raise InputError(f"keyframe at {time_s:g} s: keyframes must come in order of time, each once")
        self._now = time_s
        self._tracks = [track for track in self._tracks if time_s - track.time_s <= self.max_gap_s + 1e-9]
        boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
        ids = np.full(len(boxes), -1, np.int64)
        for row, place in self._assigned(time_s, boxes):
            track = self._tracks[place]
            ids[row] = track.id
            passed = time_s - track.time_s
            track.velocity = (boxes[row] - track.box) / passed
            track.box, track.time_s = boxes[row], time_s
        for row in np.flatnonzero(ids < 0).tolist():
            ids[row] = self._count
            self._tracks.append(_Track(self._count, time_s, boxes[row], np.zeros(4)))
            self._count += 1
        return ids

    def _assigned(self, time_s: float, boxes: np.ndarray) -> list[tuple[int, int]]:
        if not len(boxes) or not self._tracks:
            return []
        from scipy.optimize import linear_sum_assignment

        last = box_iou(boxes, np.stack([track.box for track in self._tracks]))
        moved = box_iou(boxes, np.stack([track.expected(time_s) for track in self._tracks]))
        overlap = np.maximum(last, moved)
        gain = np.where(overlap >= self.min_iou, overlap, 0.0)
        rows, places = linear_sum_assignment(gain, maximize=True)
        return [(row, place) for row, place in zip(rows.tolist(), places.tolist(), strict=True) if gain[row, place] > 0]
