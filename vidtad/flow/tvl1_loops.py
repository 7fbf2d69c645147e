"""TV-L1 of one pair in loops that numba compiles: OpenCV's flow, bit for bit, in a fraction of its processor time.

OpenCV goes over all pixels once for each quantity of an iteration and computes lengths by `hypot`, one at a time. Here
one pass over the lines does a whole iteration, several pixels at a time. Pyramid, warps and median filter are OpenCV's.
"""

import math
from collections.abc import Iterator

import cv2
import numpy as np
from numba import njit

from vidtad.flow.tvl1 import FLAT as FLAT_64
from vidtad.flow.tvl1 import MIN_SIDE, TvL1

f4 = np.float32
ZERO, ONE, FLAT = f4(0), f4(1), f4(FLAT_64)


def flow_of_pair(first: np.ndarray, second: np.ndarray, settings: TvL1) -> np.ndarray:
    """Flow from `first` to `second`, grey pictures (H, W) uint8 -> (H, W, 2) float32, x then y, in pixels."""
    levels = list(_pyramid(first, second, settings))
    flow = np.zeros((2, *levels[-1][0].shape), f4)
    for now, later in reversed(levels):
        if flow.shape[1:] != now.shape:
            size = (now.shape[1], now.shape[0])
            grown = [cv2.resize(part, size, interpolation=cv2.INTER_LINEAR) for part in flow]
            flow = np.array(grown, f4) * f4(1 / settings.scale_step)
        flow = _solved(now, later, flow, settings)
    return np.ascontiguousarray(flow.transpose(1, 2, 0))


def _pyramid(first: np.ndarray, second: np.ndarray, settings: TvL1) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    pair, step = [first.astype(f4), second.astype(f4)], settings.scale_step
    for level in range(settings.scales):
        if level:
            pair = [cv2.resize(p, None, fx=step, fy=step, interpolation=cv2.INTER_LINEAR) for p in pair]  # type: ignore[misc]
            if min(pair[0].shape) < MIN_SIDE:
                return
        yield pair[0], pair[1]


def _solved(first: np.ndarray, second: np.ndarray, flow: np.ndarray, settings: TvL1) -> np.ndarray:
    """One pyramid level: pictures (H, W) and a flow (2, H, W) to start from -> the refined flow."""
    height, width = first.shape
    padded = cv2.copyMakeBorder(second, 1, 1, 1, 1, cv2.BORDER_REPLICATE)
    across = f4(0.5) * (padded[1:-1, 2:] - padded[1:-1, :-2])
    down = f4(0.5) * (padded[2:, 1:-1] - padded[:-2, 1:-1])
    columns, rows = np.arange(width, dtype=f4), np.arange(height, dtype=f4)[:, None]
    dual, change = np.zeros((2, 2, height, width), f4), np.zeros((height, width), f4)
    limit = f4(settings.epsilon**2 * first.size)
    weights = f4(settings.lambda_ * settings.theta), f4(settings.theta), f4(settings.tau / settings.theta)
    for _ in range(settings.warps):
        x, y = flow[0] + columns, flow[1] + rows
        shown, *slopes = (
            cv2.remap(plane, x, y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_CONSTANT) for plane in (second, across, down)
        )
        gradient = np.stack(slopes)
        square = gradient[0] * gradient[0] + gradient[1] * gradient[1]
        constant = shown - gradient[0] * flow[0] - gradient[1] * flow[1] - first
        error = f4(np.inf)
        for _ in range(settings.outer):
            if not error > limit:
                break
            if settings.median > 1:
                flow = np.stack([cv2.medianBlur(part, settings.median) for part in flow])
            error = _iterate(flow, dual, gradient, constant, square, *weights, limit, settings.inner, change)
    return flow


_compiled = njit(nogil=True, error_model="numpy")
"""Without Python's error at a division by zero, several pixels can be divided at a time."""


@_compiled
def _factors(constant, across, down, u, v, square, reach, out):  # type: ignore[no-untyped-def]
    for x in range(out.size):
        residual = constant[x] + (across[x] * u[x] + down[x] * v[x])
        bound = reach * square[x]
        factor = -residual / square[x] if square[x] > FLAT else ZERO
        factor = -reach if residual > bound else factor
        out[x] = reach if residual < -bound else factor


@_compiled
def _divergence_of_first(dual_x, dual_y, out):  # type: ignore[no-untyped-def]
    out[0] = dual_x[0] + dual_y[0]
    for x in range(1, out.size):
        out[x] = (dual_x[x] - dual_x[x - 1]) + dual_y[x]


@_compiled
def _divergence(dual_x, dual_y, above, out):  # type: ignore[no-untyped-def]
    out[0] = dual_x[0] + dual_y[0] - above[0]
    for x in range(1, out.size):
        out[x] = (dual_x[x] - dual_x[x - 1]) + (dual_y[x] - above[x])


@_compiled
def _move(factors, slopes, divergence, theta, u, change, further):  # type: ignore[no-untyped-def]
    for x in range(u.size):
        old = u[x]
        new = (factors[x] * slopes[x] + old) + divergence[x] * theta
        u[x] = new
        squared = (new - old) * (new - old)
        change[x] = change[x] + squared if further else squared


@_compiled
def _raise_dual(u, below, step, dual_x, dual_y, last):  # type: ignore[no-untyped-def]
    for x in range(u.size - 1):
        right = u[x + 1] - u[x]
        under = ZERO if last else below[x] - u[x]
        # In double precision, as rounded from there it is what hypot gives.
        length = f4(math.sqrt(np.float64(right) * np.float64(right) + np.float64(under) * np.float64(under)))
        slowed = length * step + ONE
        dual_x[x] = (right * step + dual_x[x]) / slowed
        dual_y[x] = (under * step + dual_y[x]) / slowed
    x = u.size - 1
    under = ZERO if last else below[x] - u[x]
    slowed = abs(under) * step + ONE
    dual_x[x] = dual_x[x] / slowed
    dual_y[x] = (under * step + dual_y[x]) / slowed


def _added(change):  # type: ignore[no-untyped-def]
    total = ZERO
    for y in range(change.shape[0]):
        row = change[y]
        for x in range(row.size):
            total += row[x]
    return total


_sum_in_order = _compiled(_added)
_sum = njit(nogil=True, error_model="numpy", fastmath={"reassoc", "nsz"})(_added)


@_compiled
def _total(change, limit):  # type: ignore[no-untyped-def]
    """The sum of all changes; where rounding may decide on which side of `limit` it is, added up as OpenCV does.

    That is pixel after pixel, which in single precision is off by up to n / 2 ** 24 of the sum of n changes.
    """
    total = _sum(change)
    doubt = max(f4(0.02), f4(change.size) / f4(2**23))
    return _sum_in_order(change) if abs(total - limit) < doubt * limit else total


@_compiled
def _iterate(flow, dual, gradient, constant, square, reach, theta, step, limit, most, change):  # type: ignore[no-untyped-def]
    """Up to `most` iterations, `flow` and `dual` in place; the last one's sum of squared updates.

    A line's flow needs the dual variables of that line and the one above as they were, a line's dual variables the new
    flow of that line and the one below: so these follow one line behind.
    """
    height, width = constant.shape
    factors, divergence = np.empty(width, f4), np.empty(width, f4)
    total = f4(np.inf)
    for _ in range(most):
        for y in range(height + 1):
            if y < height:
                _factors(constant[y], gradient[0, y], gradient[1, y], flow[0, y], flow[1, y], square[y], reach, factors)
                for k in range(2):
                    if y:
                        _divergence(dual[k, 0, y], dual[k, 1, y], dual[k, 1, y - 1], divergence)
                    else:
                        _divergence_of_first(dual[k, 0, y], dual[k, 1, y], divergence)
                    _move(factors, gradient[k, y], divergence, theta, flow[k, y], change[y], k == 1)
            if y:
                below = min(y, height - 1)
                for k in range(2):
                    _raise_dual(flow[k, y - 1], flow[k, below], step, dual[k, 0, y - 1], dual[k, 1, y - 1], y == height)
        total = _total(change, limit)
        if not total > limit:
            break
    return total
