#!/bin/sh
# PyAV 19 gives rates and time bases of a type of its own, which does less than the Fraction of PyAV 18, and a frame's
# side data iterates over keys where it iterated over data.
#
# Versions: av 18.1.0 and 19.0.0, Python 3.13.
# Behaviour: `average_rate`, `base_rate`, `guessed_rate`, `time_base` and `sample_aspect_ratio` of a video stream are
# `fractions.Fraction` in 18.1 and `av.rational.AVRational` in 19.0. Sums, products, quotients, comparisons, hashes and
# float() work and give Fractions; round(), int(), a format like ".2f", `limit_denominator` and isinstance(rate,
# Fraction) do not. `Fraction(rate)` works in both. `av.open` no longer takes `metadata_errors`.
# `for data in frame.side_data` gives SideData in 18.1 and members of `Type` in 19.0; `side_data.get(Type.NAME)` gives the
# data in both. Code that looks at `data.type` raises AttributeError, and only on frames that carry side data.
# As pip takes 19 on Python 3.12 and newer and 18 on 3.11, one program with `round(stream.average_rate)` works or raises
# by the Python it is installed on.
# Exit code 0 while that holds.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
for version in 18.1.0 19.0.0; do
    python3.13 -m venv "$version" && "$version/bin/pip" install -q "av==$version" numpy==2.4.6
done
cat > rates.py <<'PY'
import io
import sys
from fractions import Fraction

import av
import numpy as np
from av.sidedata.sidedata import Type

file = io.BytesIO()
with av.open(file, "w", format="mp4") as container:
    stream = container.add_stream("mpeg2video", rate=25)  # its decoder gives side data with each frame
    stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
    for _ in range(5):
        container.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), "rgb24")))
    container.mux(stream.encode(None))
data = file.getvalue()
TRIED = {
    "round": round,
    "int": int,
    "format": lambda rate: f"{rate:.2f}",
    "limit_denominator": lambda rate: rate.limit_denominator(10),
    "Fraction": Fraction,
    "float": float,
    "sum": lambda rate: rate + 1,
    "quotient": lambda rate: 1 / rate,
    "comparison": lambda rate: rate < 30,
}
works = {}
with av.open(io.BytesIO(data)) as container:
    stream = container.streams.video[0]
    names = ("average_rate", "base_rate", "guessed_rate", "time_base", "sample_aspect_ratio")
    kinds = {type(getattr(stream, name)).__name__ for name in names}
    for name, operation in TRIED.items():
        try:
            operation(stream.average_rate)
            works[name] = True
        except (TypeError, AttributeError):
            works[name] = False
with av.open(io.BytesIO(data)) as container:
    held = next(container.decode(video=0)).side_data
    iterated, by_key = type(next(iter(held))).__name__, type(held.get(Type.PANSCAN)).__name__
try:
    av.open(io.BytesIO(data), metadata_errors="ignore").close()
    works["metadata_errors"] = True
except TypeError:
    works["metadata_errors"] = False
print(f"av {av.__version__}: {', '.join(kinds)}; fails: {', '.join(n for n, ok in works.items() if not ok) or 'nothing'}")
print(f"  side data iterates over {iterated}, get() gives {by_key}")
assert by_key == "SideData" and iterated == ("SideData" if av.__version__.startswith("18.") else "Type")
if av.__version__.startswith("18."):
    assert kinds == {"Fraction"} and all(works.values())
else:
    assert kinds == {"AVRational"}
    lost = {"round", "int", "format", "limit_denominator", "metadata_errors"}
    assert {name for name, ok in works.items() if not ok} == lost, works
PY
for version in 18.1.0 19.0.0; do "$version/bin/python" rates.py; done
echo "as stated"
