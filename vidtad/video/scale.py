"""Decoded pictures to RGB pixels, scaled on the way where wanted."""

import threading
from typing import Any

import numpy as np

# One scaler per thread and kind of picture: setting one up costs about as much as converting a small picture.
_scalers = threading.local()
MOST_SCALERS = 8


def to_rgb(frame: Any, height: int, width: int) -> np.ndarray:
    """Pixels of a PyAV frame as stored (no rotation), (height, width, 3) uint8.

    Shrinking averages over the area each pixel covers, enlarging is bicubic (both FFmpeg's swscale); with the
    frame's own size only the colours are converted, by the colour tags of the stream.
    """
    from av.video.reformatter import VideoReformatter

    if not hasattr(_scalers, "kept"):
        _scalers.kept = {}
    key = (frame.width, frame.height, frame.format.name, height, width)
    if key not in _scalers.kept:
        if len(_scalers.kept) >= MOST_SCALERS:
            _scalers.kept.clear()
        _scalers.kept[key] = VideoReformatter()
    shrinks = height * width < frame.height * frame.width
    same = (frame.height, frame.width) == (height, width)
    # Without scaling the choice matters only for colour at odd edges: there the library's default is kept.
    method = None if same else "AREA" if shrinks else "BICUBIC"
    scaled = _scalers.kept[key].reformat(frame, width, height, "rgb24", interpolation=method)
    return scaled.to_ndarray()
