"""The report page of a long video in a headless browser: how long it takes to filter, and to move the view.

    python benchmarks/report.py                         20 000 segments over three hours
    python benchmarks/report.py --segments 2000 --shots /tmp/shots

Chromium is found on the path or named by $CHROMIUM; it draws without a GPU. `performance.now()` is read in the page:

threshold: 50 thresholds over the whole range of scores, in no order: ms of `setThreshold` itself, which filters, counts
and lays out, and ms until two more frames have been drawn (33.3 ms when nothing holds them up, `baseline_ms`).
view: 50 pieces of the video of all lengths, from ten seconds to all of it, measured in the same way.
moving: a minute's view that slides over two minutes of video for 240 frames: ms between frames; a browser draws one
every 16.7 ms when nothing holds it up, which is the baseline, and `ratio` is the median over it.

`load` is the machine's: other work on it lengthens all of this. With --shots the measured pages are kept as PNG.
"""

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the browser driver is the tests'

from machine import machine

from tests.render.report.browser import Browser, Page, executable
from vidtad.render.report.render import page
from vidtad.timeline import Segment, Timeline
from vidtad.video import VideoInfo

FRAME_MS = 1000 / 60
MEASURE = """(async (values, change) => {
  const frame = () => new Promise((done) => requestAnimationFrame(done)), found = [];
  for (const value of values) {
    await frame();
    const before = performance.now();
    change(value);
    const changed = performance.now();
    await frame(); await frame();
    found.push([changed - before, performance.now() - before]);
  }
  return found;
})"""
MOVING = """(async (frames) => {
  const frame = () => new Promise((done) => requestAnimationFrame(done)), found = [];
  let last = await frame();
  for (let k = 0; k < frames; k += 1) {
    vidtadReport.show(3600 + k / 2, 3660 + k / 2);
    const now = await frame();
    found.push(now - last);
    last = now;
  }
  return found;
})"""


def long_timeline(segments: int, hours: float, classes: int) -> Timeline:
    """Segments of 1 to 20 s anywhere in the video, scores as detectors give them: many low ones."""
    draw = np.random.default_rng(0)
    length = hours * 3600
    start = np.sort(draw.uniform(0, length - 20, segments))
    end = start + draw.uniform(1, 20, segments)
    score, label = draw.beta(1, 4, segments), draw.integers(0, classes, segments)
    found = tuple(
        Segment(float(a), float(b), f"class {c}", float(s)) for a, b, c, s in zip(start, end, label, score, strict=True)
    )
    info = VideoInfo(
        path="long.mp4", width=1280, height=720, duration_s=length, frames=round(length * 25), fps=25, codec="h264"
    )  # type: ignore[arg-type]
    return Timeline({"long": found}, {"long": info}, {"name": "drawn from a seed"})


def quantiles(values: list[float]) -> dict[str, float]:
    """Median, 95th percentile and maximum, in ms."""
    return {
        "median_ms": round(float(np.median(values)), 2),
        "p95_ms": round(float(np.percentile(values, 95)), 2),
        "most_ms": round(max(values), 2),
    }


def measured(tab: Page, segments: int, seconds: float) -> dict[str, dict[str, Any]]:
    """The three measurements of an open page."""
    thresholds = np.random.default_rng(1).permutation(np.linspace(0.0, 0.9, 50)).round(4).tolist()
    tab.ask("vidtadReport.setThreshold(0.5)")
    tab.settle()
    filtered = tab.ask(f"{MEASURE}({json.dumps(thresholds)}, (value) => vidtadReport.setThreshold(value))")
    tab.ask("vidtadReport.setThreshold(0)")
    tab.settle()
    if len(tab.ask("vidtadReport.shown")) != segments:
        raise SystemExit("the page does not show every segment at threshold 0")
    lengths = np.geomspace(10, seconds, 50)
    starts = np.random.default_rng(2).uniform(0, 1, 50) * (seconds - lengths)
    views = [[float(a), float(a + b)] for a, b in zip(starts, lengths, strict=True)]
    viewed = tab.ask(f"{MEASURE}({json.dumps(views)}, (value) => vidtadReport.show(...value))")
    moving = tab.ask(f"{MOVING}(240)")
    parts: dict[str, dict[str, Any]] = {}
    for name, pairs in (("threshold", filtered), ("view", viewed)):
        parts[name] = {
            "call": quantiles([pair[0] for pair in pairs]),
            "two_frames": quantiles([pair[1] for pair in pairs]) | {"baseline_ms": round(2 * FRAME_MS, 2)},
        }
    steps = quantiles(moving)
    parts["moving"] = steps | {"baseline_ms": round(FRAME_MS, 2), "ratio": round(steps["median_ms"] / FRAME_MS, 2)}
    return parts


def main() -> None:
    """Print the line and write it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--segments", type=int, default=20_000)
    parser.add_argument("--hours", type=float, default=3.0)
    parser.add_argument("--classes", type=int, default=20)
    parser.add_argument("--shots", type=Path, help="folder for pictures of the page")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "report.json")
    options = parser.parse_args()
    program = executable()
    if program is None:
        raise SystemExit("report.py: no Chromium on the path; install one, or name it with CHROMIUM")
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "long.html"
        text = page(long_timeline(options.segments, options.hours, options.classes), "long", place)
        place.write_text(text, encoding="utf-8")
        browser = Browser(program, Path(folder))
        try:
            tab = browser.open(place.as_uri())
            tab.settle()
            if options.shots:
                options.shots.mkdir(parents=True, exist_ok=True)
                tab.screenshot(options.shots / "opened.png")
            loaded_ms = tab.ask("performance.getEntriesByType('navigation')[0].loadEventEnd")
            line = {
                "segments": options.segments,
                "hours": options.hours,
                "classes": options.classes,
                "page_mb": round(len(text.encode()) / 1e6, 2),
                "loaded_ms": round(loaded_ms, 1),
                **measured(tab, options.segments, options.hours * 3600),
                "browser": tab.ask("navigator.userAgent").partition("Chrome/")[2].partition(" ")[0],
                "load": round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None,
                "machine": machine(),
            }
            if options.shots:
                tab.screenshot(options.shots / "moved.png")
                tab.ask("vidtadReport.show(0, Infinity)")
                tab.settle()
                tab.screenshot(options.shots / "everything.png")
            if tab.complaints:
                raise SystemExit(f"the page complained: {tab.complaints[:3]}")
        finally:
            browser.close()
    print(json.dumps(line), flush=True)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(line, indent=1) + "\n")


if __name__ == "__main__":
    main()
