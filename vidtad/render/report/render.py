"""One page: the template filled with a timeline's data. Nothing in it is fetched, except a linked video.

Text from files enters in two ways only: escaped into the title, and as JSON in an inert data block whose `<`,
`>` and `&` are written as escapes. A content security policy allows this page's own script, by its hash, and
no connection to anywhere.
"""

import base64
import hashlib
import html
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any
from urllib.parse import quote

from vidtad.errors import InputError
from vidtad.formats.people import keyframe_step, segments_of
from vidtad.formats.tables import Annotations
from vidtad.timeline import FORMAT, Segment, Timeline

SCRIPTS = ("model.js", "timeline.js", "player.js", "page.js")
# Above this many segments the page opens on the surest of them; the slider shows the rest.
SHOWN_AT_FIRST = 60
EMBED_LIMIT = 200_000_000
MEDIA = {
    ".mp4": "video/mp4",
    ".m4v": "video/mp4",
    ".mov": "video/mp4",  # what browsers play of QuickTime files, they play under this name
    ".webm": "video/webm",
    ".mkv": "video/webm",
    ".ogv": "video/ogg",
}


@dataclass(frozen=True)
class Clip:
    """The video file of a page: linked by an address relative to the page, or embedded into it."""

    path: Path
    embed: bool = False

    def address(self, page_at: Path) -> str:
        """What the page at `page_at` links to: relative where a relative path exists, percent-encoded."""
        try:
            relative = os.path.relpath(self.path.resolve(), page_at.resolve().parent)
        except ValueError:  # another drive
            return self.path.resolve().as_uri()
        return "/".join(quote(os.fsencode(part)) for part in Path(relative).parts)

    def base64(self) -> str:
        """The bytes of the file. Raises InputError when it is too large to embed, or unreadable."""
        try:
            size = self.path.stat().st_size
            if size > EMBED_LIMIT:
                raise InputError(
                    f"{self.path}: {size / 1e6:.0f} MB are too many to embed (at most {EMBED_LIMIT / 1e6:.0f}); link it"
                )
            return base64.b64encode(self.path.read_bytes()).decode()
        except OSError as error:
            raise InputError(f"{self.path}: cannot be read ({error.strerror or error})") from error


def page(
    timeline: Timeline,
    name: str,
    page_at: Path,
    *,
    clip: Clip | None = None,
    truth: Annotations | None = None,
    threshold: float | None = None,
) -> str:
    """HTML of video `name` of a timeline, to be written to `page_at`.

    threshold: score from which segments show at first; by default high enough for some 60 of them, or for three
    times as many as `truth` has. Raises InputError when the video cannot be embedded.
    """
    content = document(timeline, name, truth, threshold)
    content["video"] = clip.address(page_at) if clip and not clip.embed else None
    content["embedded"] = MEDIA.get(clip.path.suffix.lower(), "video/mp4") if clip and clip.embed else None
    return filled(
        "page.html",
        {
            "title": html.escape(name),
            "data": inert_json(content),
            "embedded": clip.base64() if clip and clip.embed else "",
            "script": '(() => {\n"use strict";\n' + "\n".join(map(static, SCRIPTS)) + "})();\n",
        },
    )


def filled(template: str, parts: Mapping[str, str]) -> str:
    """A template with style, security policy and the given parts in their places."""
    style, script = static("style.css"), parts.get("script", "")
    policy = (
        f"default-src 'none'; script-src '{_hash(script)}'; style-src '{_hash(style)}'; "
        "media-src 'self' file: data: blob:; img-src data:; base-uri 'none'; form-action 'none'"
    )
    known = {"style": style, "csp": policy, **parts}
    # In one pass: what is put in is never looked at again.
    return re.sub(r"\{\{(\w+)\}\}", lambda found: known[found[1]], static(template))


def static(name: str) -> str:
    """Text of a file of the page."""
    return resources.files("vidtad.render.report").joinpath("static").joinpath(name).read_text(encoding="utf-8")


def inert_json(content: Any) -> str:
    """JSON that cannot end the element it stands in, whatever its strings hold."""
    text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for sign in "<>&\u2028\u2029":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text


def document(
    timeline: Timeline, name: str, truth: Annotations | None = None, threshold: float | None = None
) -> dict[str, Any]:
    """What the page's script reads: labels by position, segments and boxes as rows."""
    info, people = timeline.videos[name], timeline.people.get(name, ())
    # Without segments of their own, the actions of persons at keyframes are the segments.
    found = timeline.results.get(name, ()) or tuple(segments_of(people))
    true_rows = _truth_rows(truth, name)
    names = {s.label for s in found} | {row[2] for row in true_rows} | {a for p in people for a, _ in p.actions}
    labels = sorted(names)
    at = {label: number for number, label in enumerate(labels)}
    scores = [s.score for s in found]
    low, high = min([0.0, *scores]), max(scores, default=1.0)
    if threshold is None:
        threshold = first_threshold(found, len(true_rows))
    return {
        "version": FORMAT,
        "id": name,
        "duration": info.duration_s,
        "fps": float(info.fps),
        "width": info.width,
        "height": info.height,
        "offset": info.start_s,
        "info": info.to_json(),
        "detector": dict(timeline.detector),
        "facts": _facts(timeline, name),
        "notices": _notices(timeline),
        "labels": labels,
        "segments": [[s.start_s, s.end_s, at[s.label], s.score, s.track] for s in found],
        "truth": [[start, end, at[label]] for start, end, label in true_rows],
        "people": [
            [p.time_s, p.track, *p.box, p.box_score, [[at[label], score] for label, score in p.actions]] for p in people
        ],
        "step": keyframe_step(p.time_s for p in people),
        "score_range": [low, max(high, low + 1e-9)],
        "threshold": min(max(threshold, low), high),
        "group": "person" if people and any(s.track is not None for s in found) else "class",
    }


def first_threshold(found: tuple[Segment, ...], true_count: int) -> float:
    """Score of the last segment worth showing at first; 0 when all are."""
    most = max(SHOWN_AT_FIRST, 3 * true_count)
    scores = sorted((s.score for s in found), reverse=True)
    return scores[most - 1] if len(scores) > most else min([0.0, *scores])


def _truth_rows(truth: Annotations | None, name: str) -> list[tuple[float, float, str]]:
    if truth is None or name not in truth.videos:
        return []
    rows = truth.select(truth.video == truth.videos.index(name))
    columns = zip(rows.start.tolist(), rows.end.tolist(), rows.label.tolist(), strict=True)
    return [(start, end, rows.labels[label]) for start, end, label in columns if end > start]


def _facts(timeline: Timeline, name: str) -> str:
    info, parts = timeline.videos[name], []
    if info.width and info.height:
        parts.append(f"{info.width} × {info.height}")
    if info.fps:
        parts.append(f"{float(info.fps):.4g} frames/s")
    detector = timeline.detector.get("name")
    if detector:
        parts.append(f"detector {detector}")
    return ", ".join(parts)


def _notices(timeline: Timeline) -> list[str]:
    notices = []
    if timeline.detector.get("demonstration"):
        notices.append("Made by the built-in demonstration detector, which knows generated clips only.")
    if timeline.detector.get("random_weights"):
        notices.append("Random weights, a dry run: the segments carry no meaning.")
    warnings = timeline.detector.get("warnings")
    return notices + [str(text) for text in warnings if text] if isinstance(warnings, list | tuple) else notices


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
