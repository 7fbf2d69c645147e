"""Writing report pages: one file for one video, a folder with an index for several."""

import html
import os
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

from vidtad.errors import InputError
from vidtad.formats.people import segments_of
from vidtad.formats.shared import file_stems
from vidtad.formats.tables import Annotations
from vidtad.render.report.render import Clip, filled, first_threshold, page
from vidtad.runtime.files import still_there, write_text
from vidtad.timeline import Segment, Timeline

BARS = 300
INDEX = "index.html"


def write_report(
    timeline: Timeline,
    out: Path,
    *,
    clips: Mapping[str, Clip] | None = None,
    truth: Annotations | None = None,
    threshold: float | None = None,
) -> list[Path]:
    """Write the page of a timeline of one video to `out`; of several, a page each and an index into folder `out`.

    clips: the video files, by id; a page without one works all the same. truth, threshold: see `page`. Returns
    the files, the one to open first. Raises InputError for an empty timeline, RunError for a failed write.
    """
    clips, out = clips or {}, Path(out)
    if not timeline.videos:
        raise InputError("a report of what? The timeline holds no video")
    if len(timeline.videos) == 1 and out.suffix.lower() in (".html", ".htm"):
        (name,) = timeline.videos
        write_text(out, page(timeline, name, out, clip=clips.get(name), truth=truth, threshold=threshold))
        return [out]
    written, rows = [out / INDEX], []
    for name, stem in file_stems(timeline.videos, {"index"}).items():
        place = out / f"{stem}.html"
        write_text(place, page(timeline, name, place, clip=clips.get(name), truth=truth, threshold=threshold))
        written.append(place)
        rows.append(_row(timeline, name, place.name, threshold))
    count = len(rows)
    facts = f"{count} video{'s' if count > 1 else ''}"
    if timeline.detector.get("name"):
        facts += f", detector {timeline.detector['name']}"
    parts = {"title": html.escape(out.resolve().name), "facts": html.escape(facts), "rows": "\n".join(rows)}
    write_text(out / INDEX, filled("index.html", parts))
    still_there(written)
    return written


def _row(timeline: Timeline, name: str, address: str, threshold: float | None) -> str:
    info = timeline.videos[name]
    everything = timeline.results.get(name, ()) or tuple(segments_of(timeline.people.get(name, ())))
    level = first_threshold(everything, 0) if threshold is None else threshold
    found = [s for s in everything if s.score >= level]
    seconds: dict[str, float] = defaultdict(float)
    for s in found:
        seconds[s.label] += s.end_s - s.start_s
    top = sorted(seconds, key=lambda label: -seconds[label])[:4]
    cells = (
        f'<a href="{quote(os.fsencode(address))}">{html.escape(name)}</a>',
        html.escape(_clock(info.duration_s)),
        f"{len(found)} of {len(everything)}",
        _bars(found, info.duration_s, sorted(seconds)),
        html.escape(", ".join(top)),
    )
    return "<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"


def _bars(found: list[Segment], duration_s: float, labels: list[str]) -> str:
    length = max([duration_s, *(s.end_s for s in found)])
    best = sorted(found, key=lambda s: -s.score)[:BARS]
    hue = {label: round((number * 137.508 + 212) % 360) for number, label in enumerate(labels)}
    bars = []
    for s in sorted(best, key=lambda s: s.score):
        x, width = s.start_s / length * 1000, max(2.0, (s.end_s - s.start_s) / length * 1000)
        place = f'x="{x:.1f}" y="2" width="{width:.1f}" height="18"'
        bars.append(f'<rect {place} fill="hsl({hue[s.label]},60%,50%)" fill-opacity="0.7"/>')
    return (
        '<svg viewBox="0 0 1000 22" preserveAspectRatio="none" role="img" aria-label="Segments over time">'
        + "".join(bars)
        + "</svg>"
    )


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}" if minutes >= 60 else f"{minutes}:{rest:02d}"
