"""Optical flow between neighbouring frames, in pixels, and the 8-bit form flow networks were trained on.

Networks trained on one kind of flow lose accuracy on another: the published two-stream features saw TV-L1.
"""

import difflib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial
from typing import Any, Protocol

import cv2
import numpy as np

from vidtad.errors import InputError, RunError
from vidtad.flow.tvl1 import CUDA_LIKE, TvL1

__all__ = [
    "BOUND",
    "CUDA_LIKE",
    "LEARNED",
    "METHODS",
    "FlowMethod",
    "TvL1",
    "dequantised",
    "flow_of",
    "grey",
    "pairwise_flow",
    "quantise",
]

BOUND = 20.0


class FlowMethod(Protocol):
    """Flow from each picture of `first` to the one of `second`, grey uint8 (B, H, W) -> (B, H, W, 2) float32.

    Channel 0 is the displacement along x, channel 1 along y, in pixels. A method with a true attribute `colour`
    wants RGB pictures (B, H, W, 3) instead.
    """

    def __call__(self, first: np.ndarray, second: np.ndarray) -> np.ndarray: ...


def grey(rgb: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 RGB -> (H, W) uint8, 0.299 R + 0.587 G + 0.114 B."""
    return cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)


def tvl1_opencv(first: np.ndarray, second: np.ndarray, settings: TvL1 | None = None) -> np.ndarray:
    """TV-L1 by OpenCV's contributed module, pairs side by side on the cores. See `FlowMethod`.

    Raises RunError when the installed OpenCV lacks that module.
    """
    s = settings or TvL1()
    create = getattr(getattr(cv2, "optflow", None), "DualTVL1OpticalFlow_create", None)
    if create is None:
        raise RunError(
            "this OpenCV has no TV-L1: install numba or opencv-contrib-python-headless, or use --flow tvl1-torch"
        )

    def one(pair: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
        # A new object each time: it remembers the number of levels its smallest picture allowed.
        solver = create(
            s.tau,
            s.lambda_,
            s.theta,
            s.scales,
            s.warps,
            s.epsilon,
            s.inner,
            s.outer,
            s.scale_step,
            0.0,
            s.median,
            False,
        )
        return solver.calc(*pair, None)

    return _side_by_side(one, first, second)


def tvl1_cpu(first: np.ndarray, second: np.ndarray, settings: TvL1 | None = None) -> np.ndarray:
    """TV-L1 on the processor, pairs side by side on the cores. See `FlowMethod`.

    In loops compiled by numba where that works, by OpenCV elsewhere: ten times the processor seconds, and the same
    flow, bit for bit (OpenCV 5). Raises RunError where there is neither.
    """
    settings, loops = settings or TvL1(), compiled_loops()
    if loops is None:
        return tvl1_opencv(first, second, settings)
    return _side_by_side(lambda pair: loops(*pair, settings), first, second)


@lru_cache(maxsize=1)
def compiled_loops() -> Callable[[np.ndarray, np.ndarray, TvL1], np.ndarray] | None:
    """`tvl1_loops.flow_of_pair`, compiled; None where numba is missing, switched off or does not work here."""
    try:
        from numba import config

        if config.DISABLE_JIT:  # type: ignore[attr-defined]
            return None  # Python's own loops take a thousand times as long
        from vidtad.flow.tvl1_loops import flow_of_pair

        blank = np.zeros((2, 2), np.uint8)
        flow_of_pair(blank, blank, TvL1(scales=1, warps=1))
    except Exception:
        # A numba that does not fit NumPy, Python or the system's libraries fails with errors of every kind, some only
        # as it compiles.
        return None
    return flow_of_pair


def tvl1_torch(first: np.ndarray, second: np.ndarray, settings: TvL1 | None = None, device: str = "cpu") -> np.ndarray:
    """TV-L1 for all pairs at once in PyTorch, on any device. See `FlowMethod`."""
    import torch

    from vidtad.flow.tvl1 import tvl1

    with torch.inference_mode():
        pictures = [torch.from_numpy(np.ascontiguousarray(batch)).to(device) for batch in (first, second)]
        return tvl1(pictures[0], pictures[1], settings).cpu().numpy()


DIS_LEAST_PX = 32
"""Shortest side of pictures for `dis`: on long ones with a shorter side OpenCV's solver ends the process."""


def dis(first: np.ndarray, second: np.ndarray, preset: int = cv2.DISOPTICAL_FLOW_PRESET_MEDIUM) -> np.ndarray:
    """Dense inverse search (Kroeger et al., ECCV 2016) with OpenCV's preset 0, 1 or 2. See `FlowMethod`.

    Raises InputError for pictures with a side under `DIS_LEAST_PX` pixels.
    """
    if min(first.shape[1:]) < DIS_LEAST_PX:
        size = list(first.shape[1:])
        raise InputError(f"flow by dis needs pictures of at least {DIS_LEAST_PX} pixels a side, not {size}")
    solver = cv2.DISOpticalFlow_create(preset)  # type: ignore[attr-defined]
    return np.stack([solver.calc(a, b, None) for a, b in zip(first, second, strict=True)])


def farneback(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Farneback's polynomial expansion (SCIA 2003) with mmaction2's settings. See `FlowMethod`."""
    settings: dict[str, Any] = {
        "pyr_scale": 0.5,
        "levels": 3,
        "winsize": 15,
        "iterations": 3,
        "poly_n": 5,
        "poly_sigma": 1.2,
        "flags": 0,
    }

    def one(pair: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
        return cv2.calcOpticalFlowFarneback(*pair, None, **settings)  # type: ignore[call-overload]

    return _side_by_side(one, first, second)


def _side_by_side(
    one: Callable[[tuple[np.ndarray, np.ndarray]], np.ndarray], first: np.ndarray, second: np.ndarray
) -> np.ndarray:
    if len(first) == 1:
        return one((first[0], second[0]))[None]
    import torch

    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        return np.stack(list(pool.map(one, zip(first, second, strict=True))))


METHODS: dict[str, FlowMethod] = {
    "tvl1": tvl1_cpu,
    "tvl1-torch": tvl1_torch,
    "dis": dis,
    "farneback": farneback,
}


LEARNED = ("raft", "raft-small")
"""Methods that need weights: see `vidtad.flow.raft`."""


def flow_of(name: str, device: str = "cpu") -> FlowMethod:
    """The method called `name`; those in PyTorch run on `device`. Raises InputError naming the near ones."""
    if name == "tvl1-torch":
        return partial(tvl1_torch, device=device)
    if name in METHODS:
        return METHODS[name]
    if name in LEARNED:
        raise InputError(f"optical flow {name!r} is a network: load its weights with vidtad.flow.raft.Raft")
    names = [*METHODS, *LEARNED]
    near = difflib.get_close_matches(name, names, n=2, cutoff=0.4) or sorted(names)
    raise InputError(f"no optical flow is called {name!r}; did you mean {' or '.join(near)}?")


def quantise(flow: np.ndarray, bound: float = BOUND, *, truncate: bool = False) -> np.ndarray:
    """Flow in pixels -> uint8 levels, -bound at 0 and +bound at 255, values beyond clipped.

    Rounds half to even as denseflow does; `truncate` drops the fraction as mmaction2's script does.
    """
    clipped = np.clip(flow.astype(np.float32), -bound, bound)
    if truncate:
        return ((clipped + np.float32(bound)) * np.float32(255 / (2 * bound))).astype(np.uint8)
    return np.rint(255 * (clipped.astype(np.float64) + bound) / (2 * bound)).astype(np.uint8)


def levels_video_features(flow: np.ndarray, bound: float = BOUND) -> np.ndarray:
    """Flow in pixels -> float32 whole levels 0 to 256 around 128, as video_features rounds (no upper clip)."""
    return np.rint(128 + np.float32(255 / (2 * bound)) * np.clip(flow, -bound, bound)).astype(np.float32)


def dequantised(levels: np.ndarray, bound: float = BOUND) -> np.ndarray:
    """uint8 levels -> flow in pixels, float32, within bound / 255 of what was quantised."""
    return (levels.astype(np.float32) * np.float32(2 * bound / 255)) - np.float32(bound)


def pairwise_flow(pictures: Iterable[np.ndarray], method: FlowMethod, chunk: int = 16) -> Iterator[np.ndarray]:
    """Flow from each grey picture (H, W) uint8 to the next, one (H, W, 2) float32 at a time; N pictures give N - 1.

    `chunk` pairs are computed together; no more pictures than that are held.
    """
    waiting: list[np.ndarray] = []
    for picture in pictures:
        waiting.append(picture)
        if len(waiting) > chunk:
            yield from _flows(waiting, method)
            waiting = waiting[-1:]
    if len(waiting) > 1:
        yield from _flows(waiting, method)


def _flows(pictures: list[np.ndarray], method: FlowMethod) -> np.ndarray:
    stacked = np.stack(pictures)
    return method(stacked[:-1], stacked[1:])
