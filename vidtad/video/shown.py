"""How a decoded frame is meant to be shown: which way up, and in which range of light."""

import struct
from dataclasses import dataclass
from typing import Any

import numpy as np

# FFmpeg's numbers: AVCOL_TRC_SMPTE2084, AVCOL_TRC_ARIB_STD_B67, AVCOL_PRI_BT2020 (ITU-T H.273 has the same).
TRANSFERS = {16: "pq", 18: "hlg"}
BT2020 = 9
SDR = "sdr"
# Film, BT.2020, SMPTE 431 and 432 (P3): OpenCV from 4.13 on converts these on reading, and no other decoder does.
CONVERTED_PRIMARIES = frozenset({8, 9, 11, 12})


@dataclass(frozen=True)
class Orientation:
    """From stored to upright: `turns` quarter turns counter-clockwise, then, if `mirrored`, left-right exchanged."""

    turns: int = 0
    mirrored: bool = False

    def apply(self, pixels: np.ndarray) -> np.ndarray:
        """(H, W, C) as stored -> upright; H and W change places for odd turns."""
        if self.turns:
            pixels = np.rot90(pixels, self.turns)
        if self.mirrored:
            pixels = pixels[:, ::-1]
        return np.ascontiguousarray(pixels)

    @property
    def swaps(self) -> bool:
        """Whether height and width change places."""
        return self.turns % 2 == 1


def display_matrix(frame: Any) -> tuple[int, ...] | None:
    """The 3 x 3 display matrix of a decoded frame (PyAV), row by row in 16.16, of the container or the bitstream."""
    from av.sidedata.sidedata import Type

    # By its key: the container iterates over data in av 18 and over keys in av 19.
    data = frame.side_data.get(Type.DISPLAYMATRIX)
    raw = b"" if data is None else bytes(data)
    return struct.unpack("=9i", raw[:36]) if len(raw) >= 36 else None


def orientation_of(frame: Any) -> Orientation:
    """Which of the eight orientations shows a decoded frame (PyAV) upright; other angles are rounded to the nearest.

    The matrix takes stored x, y (y down) to x' = a x + c y, y' = b x + d y (ISO/IEC 14496-12, 8.3.2.3).
    """
    matrix = display_matrix(frame)
    if matrix is None:
        return Orientation(round((frame.rotation or 0) / 90) % 4)
    a, b, c, d = matrix[0], matrix[1], matrix[3], matrix[4]
    mirrored = a * d - b * c < 0
    if abs(a) + abs(d) >= abs(b) + abs(c):
        # Mirrored: (-1, 1) is left and right exchanged, (1, -1) upside down, which is half a turn before that.
        turns = 0 if (d > 0 if mirrored else a > 0) else 2
    else:
        turns = 1 if b < 0 else 3
    return Orientation(turns, mirrored)


def opencv_converts(frame: Any) -> bool:
    """Whether OpenCV changes the colours of a frame (PyAV) on reading: HDR and wide colours."""
    return dynamic_range(frame) != SDR or int(getattr(frame, "color_primaries", 0) or 0) in CONVERTED_PRIMARIES


def dynamic_range(frame: Any) -> str:
    """`sdr`, `pq` or `hlg` by the frame's transfer function, `bt2020` where only its primaries are those of HDR."""
    transfer = TRANSFERS.get(int(getattr(frame, "color_trc", 0) or 0))
    if transfer is not None:
        return transfer
    return "bt2020" if int(getattr(frame, "color_primaries", 0) or 0) == BT2020 else SDR
