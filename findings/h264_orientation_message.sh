#!/bin/sh
# The orientation that an H.264 stream itself carries reaches PyAV on few frames, and `rotation` cannot tell a mirror.
#
# Versions: av 18.1.0 (FFmpeg 8.1: libavcodec 62.28.102), Python 3.11.
# Behaviour: a stream gets a display-orientation message (SEI) by FFmpeg's own h264_metadata filter. Of 12 decoded frames
# (a keyframe every 5) three carry a DISPLAYMATRIX as side data and nine none: a reader that asks each frame by itself
# turns some and not the others. `VideoFrame.rotation` is 0 on those without.
# Where there is one, `rotation` is a number and a mirror is none:
#   message                       matrix (a, b, c, d)   rotation
#   mirrored left to right        -1  0  0  1           -180   the same as turned by 180 degrees
#   upside down (flip=vertical)    1  0  0 -1              0   the same as nothing at all
#   turned by 180 degrees         -1  0  0 -1           -180
#   turned by 90 and mirrored      0  1  1  0            -90   the same as turned by -90 degrees
# Only the matrix tells the eight orientations apart.
# Exit code 0 while that holds.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3.11 -m venv env && env/bin/pip install -q av==18.1.0 numpy==2.4.6
cat > orientation.py <<'PY'
import io

import av
import numpy as np
from av.bitstream import BitStreamFilterContext

plain = io.BytesIO()
with av.open(plain, "w", format="h264") as file:
    stream = file.add_stream("libx264", rate=25, options={"g": "5", "bf": "0"})
    stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
    for n in range(12):
        file.mux(stream.encode(av.VideoFrame.from_ndarray(np.full((48, 64, 3), 10 * n, np.uint8), "rgb24")))
    file.mux(stream.encode(None))
EXPECTED = {
    "flip=horizontal": ((-1, 0, 0, 1), -180),
    "flip=vertical": ((1, 0, 0, -1), 0),
    "rotate=180": ((-1, 0, 0, -1), -180),
    "rotate=90:flip=horizontal": ((0, 1, 1, 0), -90),
}
for told, (matrix, rotation) in EXPECTED.items():
    turned = io.BytesIO()
    with av.open(io.BytesIO(plain.getvalue()), format="h264") as source, av.open(turned, "w", format="h264") as sink:
        stream = source.streams.video[0]
        copied = sink.add_stream_from_template(stream)
        insert = BitStreamFilterContext(f"h264_metadata=display_orientation=insert:{told}", stream)
        packets = [p for packet in source.demux(stream) if packet.size for p in insert.filter(packet)]
        for n, packet in enumerate([*packets, *insert.filter(None)]):
            packet.stream, packet.pts, packet.dts = copied, n, n
            sink.mux(packet)
    found = []
    with av.open(io.BytesIO(turned.getvalue()), format="h264") as file:
        for frame in file.decode(video=0):
            held = [data for data in frame.side_data if data.type.name == "DISPLAYMATRIX"]
            values = np.frombuffer(bytes(held[0]), "<i4") / 65536 if held else None
            found.append((None if values is None else tuple(int(values[i]) for i in (0, 1, 3, 4)), frame.rotation))
    with_matrix = [entry for entry in found if entry[0] is not None]
    print(f"{told:26} {len(with_matrix)} of {len(found)} frames: matrix, rotation {with_matrix[0]}")
    assert len(found) == 12 and len(with_matrix) == 3 and set(with_matrix) == {(matrix, rotation)}
    assert all(entry == (None, 0) for entry in found if entry[0] is None)
PY
env/bin/python orientation.py
echo "as stated"
