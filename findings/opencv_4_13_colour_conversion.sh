#!/bin/sh
# From 4.13 on OpenCV heeds the colour description of a video on reading, and converts wide colours; 4.12 does neither.
#
# Versions: opencv-python-headless 4.12.0.88, 4.13.0.92 and 5.0.0.93, PyAV 18.1.0 (FFmpeg 8), Python 3.11.
# Behaviour: one picture is encoded with six colour descriptions and read by PyAV (to_ndarray "rgb24": FFmpeg's scaler
# with the stream's own matrix) and by cv2.VideoCapture. The figure is the mean difference over all samples, of 255.
#   description           4.12    4.13 and 5.0
#   BT.601                 0.0     0.0
#   BT.709                 6.8     0.0    4.12 takes BT.601's matrix, whatever the stream says
#   BT.2020, SDR           4.8    21.7    from 4.13 on the primaries are converted ...
#   BT.2020, PQ            4.8    43.1    ... and, it seems, the tones mapped
#   BT.2020, HLG           4.8    33.3
#   BT.709 matrix, P3      6.8    11.8    also where only the primaries differ
# So features of ordinary BT.709 footage change between two minor versions, and those of wide-gamut or HDR footage
# differ from PyAV's in all. No version says anything.
# Exit code 0 while that holds.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
for version in 4.12.0.88 4.13.0.92 5.0.0.93; do
    python3.11 -m venv "$version" && "$version/bin/pip" install -q av==18.1.0 "opencv-python-headless==$version"
done
cat > compare.py <<'PY'
import sys

import av
import cv2
import numpy as np

row, column = np.mgrid[0:96, 0:128]
PICTURE = np.stack([column * 2, row * 2.5, 255 - column], -1).clip(0, 255).astype(np.uint8)
KINDS = {  # name: (matrix, primaries, transfer), as ITU-T H.273 numbers them, and the pixel format
    "BT.601": (6, 6, 6, "yuv420p"),
    "BT.709": (1, 1, 1, "yuv420p"),
    "BT.2020, SDR": (9, 9, 14, "yuv420p10le"),
    "BT.2020, PQ": (9, 9, 16, "yuv420p10le"),
    "BT.2020, HLG": (9, 9, 18, "yuv420p10le"),
    "BT.709 matrix, P3": (1, 12, 1, "yuv420p"),
}
found = {}
for kind, (matrix, primaries, transfer, pixels) in KINDS.items():
    with av.open("clip.mp4", "w") as file:
        stream = file.add_stream("libx264", rate=25, options={"x264-params": "qp=1"})
        stream.width, stream.height, stream.pix_fmt = 128, 96, pixels
        context = stream.codec_context
        context.colorspace, context.color_primaries, context.color_trc = matrix, primaries, transfer
        context.color_range = 1
        for _ in range(5):
            frame = av.VideoFrame.from_ndarray(PICTURE, "rgb24").reformat(format=pixels)
            frame.colorspace = matrix
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    with av.open("clip.mp4") as file:
        ours = next(file.decode(video=0)).to_ndarray(format="rgb24").astype(int)
    ok, picture = cv2.VideoCapture("clip.mp4").read()
    assert ok
    found[kind] = float(np.abs(picture[..., ::-1] - ours).mean())
    print(f"OpenCV {cv2.__version__}  {kind:18} {found[kind]:5.1f}")
expected = dict(zip(KINDS, map(float, sys.argv[1:]), strict=True))
assert all(abs(found[kind] - expected[kind]) < 0.5 for kind in KINDS), (found, expected)
PY
4.12.0.88/bin/python compare.py 0.0 6.8 4.8 4.8 4.8 6.8
4.13.0.92/bin/python compare.py 0.0 0.0 21.7 43.1 33.3 11.8
5.0.0.93/bin/python compare.py 0.0 0.0 21.7 43.1 33.3 11.8
echo "as stated"
