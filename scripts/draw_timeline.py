"""Draw the picture of README.md: `python scripts/draw_timeline.py TIMELINE TRUTH VIDEO_ID OUT.svg`.

One lane per class; ground truth as thin bars below the detections, whose opacity is their score.
"""

import json
import sys
from html import escape
from pathlib import Path

from vidtad.timeline import Segment, read_timeline

LEFT, WIDTH, LANE, TOP = 90, 700, 34, 36
COLOURS = ("#4e79a7", "#f28e2b", "#59a14f", "#e15759", "#b07aa1", "#76b7b2", "#9c755f", "#edc948")


def draw(segments: list[Segment], truth: list[dict], classes: list[str], duration_s: float, title: str) -> str:
    """SVG text of one video's timeline."""
    height = TOP + LANE * len(classes) + 34
    scale = WIDTH / duration_s
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {LEFT + WIDTH + 20} {height}" '
        'font-family="system-ui, sans-serif" font-size="12">',
        '<rect width="100%" height="100%" fill="#ffffff"/>',
        f'<text x="12" y="22" font-weight="600">{escape(title)}</text>',
    ]
    for lane, label in enumerate(classes):
        y, colour = TOP + lane * LANE, COLOURS[lane % len(COLOURS)]
        parts.append(f'<rect x="{LEFT}" y="{y}" width="{WIDTH}" height="{LANE - 6}" fill="#f2f2f0"/>')
        parts.append(f'<text x="{LEFT - 10}" y="{y + 18}" text-anchor="end">{escape(label)}</text>')
        for s in (s for s in segments if s.label == label):
            x, width = LEFT + s.start_s * scale, (s.end_s - s.start_s) * scale
            parts.append(
                f'<rect x="{x:.1f}" y="{y + 2}" width="{width:.1f}" height="{LANE - 14}" rx="3" fill="{colour}" '
                f'fill-opacity="{max(0.25, s.score):.2f}"/>'
                f'<text x="{x + width / 2:.1f}" y="{y + 16}" text-anchor="middle" fill="#fff">{s.score:.2f}</text>'
            )
        for entry in (entry for entry in truth if entry["label"] == label):
            start_s, end_s = entry["segment"]
            x, width = LEFT + start_s * scale, (end_s - start_s) * scale
            parts.append(f'<rect x="{x:.1f}" y="{y + LANE - 10}" width="{width:.1f}" height="3" fill="#222"/>')
    base = TOP + LANE * len(classes)
    for second in range(0, int(duration_s) + 1, 2):
        x = LEFT + second * scale
        parts.append(f'<text x="{x:.1f}" y="{base + 12}" text-anchor="middle" fill="#666">{second} s</text>')
    parts.append(
        f'<text x="{LEFT}" y="{base + 28}" fill="#666">bars: detected, with score; '
        "thin black lines: exact truth</text></svg>"
    )
    return "\n".join(parts) + "\n"


def main() -> None:
    """Read both files, draw the segments scored 0.3 or more."""
    timeline_path, truth_path, video_id, out = sys.argv[1:]
    timeline = read_timeline(Path(timeline_path))
    entry = json.loads(Path(truth_path).read_text())["database"][video_id]
    segments = [s for s in timeline.results[video_id] if s.score >= 0.3]
    title = f"{video_id}.mp4, detector {timeline.detector['name']}"
    classes = sorted(set(timeline.detector["classes"]))
    Path(out).write_text(draw(segments, entry["annotations"], classes, timeline.videos[video_id].duration_s, title))


if __name__ == "__main__":
    main()
