"""The report of a training run: one HTML file that needs nothing else, without scripts."""

import base64
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from vidtad.errors import VidtadError
from vidtad.evaluation import Evaluation
from vidtad.evaluation.protocols import Protocol
from vidtad.evaluation.tables import Table, score_table
from vidtad.formats.tables import Annotations, Predictions
from vidtad.hub.bundle import Bundle
from vidtad.labels import Check
from vidtad.pipelines.train.data import Split
from vidtad.pipelines.train.mistakes import Mistake, Operating, worst_mistakes
from vidtad.training.plan import Plan
from vidtad.training.published import Published
from vidtad.video import open_video

THUMBNAIL_HEIGHT = 90
NOTHING_RIGHT = "no segment on validation is right at tIoU 0.5: do not expect useful detections"
PARTS = {"validation": "Validation videos", "test": "Test videos (scored once, nothing was chosen by them)"}


@dataclass(frozen=True)
class Outcome:
    """Everything the report shows. `truth` and `predictions` are of the validation videos.

    `told`: what the terminal was told while it ran.
    """

    bundle: Bundle
    split: Split
    scores: Mapping[str, Evaluation]
    protocol: Protocol
    check: Check
    plan: Plan
    truth: Annotations | None = None
    predictions: Predictions | None = None
    operating: Operating | None = None
    blind: Mapping[str, float] = field(default_factory=dict)
    records: Sequence[Mapping[str, Any]] = ()
    videos: Mapping[str, Path] = field(default_factory=dict)
    told: Sequence[str] = ()


def report_html(outcome: Outcome, published: Published | None = None) -> str:
    """The page."""
    bundle = outcome.bundle
    parts = [f"<h1>{escape(bundle.name)}</h1>", _summary(outcome)]
    if notes := warnings_of(outcome):
        parts += ["<h2>Warnings and notes</h2>", _list(notes)]
    for part, heading in PARTS.items():
        if part in outcome.scores:
            parts += [f"<h2>{heading}</h2>", _table(score_table(outcome.scores[part]))]
            parts.append(_list([blind_line(outcome.scores[part], outcome.blind[part])]))
    if published is not None:
        parts.append(_table(published_table(published, outcome.scores)))
    parts += ["<h2>Training</h2>", _curves(outcome.records)]
    parts.append(_list([f"settings: {reason}" for reason in outcome.plan.reasons]))
    parts += ["<h2>Labels</h2>", _list(outcome.check.lines()), _table(class_table(outcome.check))]
    parts += ["<h2>Worst mistakes on the validation videos</h2>", _mistakes(outcome)]
    return _PAGE.format(title=escape(bundle.name), body="\n".join(parts))


def warnings_of(outcome: Outcome) -> list[str]:
    """What the terminal was told, problems first, but for what the page says elsewhere (labels, settings, split)."""
    elsewhere = {*outcome.check.lines(), *outcome.split.warnings}
    told = [line for line in outcome.told if line not in elsewhere and not line.startswith(("settings: ", "split: "))]
    told += [f"{part}: {finding.line()}" for part, result in outcome.scores.items() for finding in result.findings]
    if outcome.operating is None and "validation" in outcome.scores:
        told.append(NOTHING_RIGHT)
    serious = [finding.line() for finding in outcome.check.serious]
    told = [f"problem: {line}" for line in serious] + told
    return sorted(dict.fromkeys(told), key=lambda line: not line.startswith("problem: "))


def published_table(published: Published, scores: Mapping[str, Evaluation]) -> Table:
    """The published row beside the measured ones; only thresholds both have are filled."""
    rows = [("published", *(f"{100 * value:.1f}" for value in published.mAP), f"{100 * published.average:.1f}")]
    for part, result in scores.items():
        of = {round(t, 3): float(v) for t, v in zip(result.protocol.tiou, result.mAP, strict=True)}
        cells = [f"{100 * of[round(t, 3)]:.1f}" if round(t, 3) in of else "-" for t in published.tiou]
        rows.append((f"here, {part}", *cells, f"{100 * result.average_mAP:.1f}"))
    return Table(
        "Published result and this run, mAP",
        ("", *(f"{t:.2f}" for t in published.tiou), "average"),
        tuple(rows),
        f"published: {published.source}; comparable only on the same videos, features and protocol",
    )


def class_table(check: Check) -> Table:
    """Segments of each class and their lengths."""
    rows = tuple(
        (c.name, str(c.segments), str(c.videos), f"{c.shortest_s:.2f}", f"{c.median_s:.2f}", f"{c.longest_s:.2f}")
        for c in sorted(check.classes, key=lambda entry: -entry.segments)
    )
    return Table("Classes", ("class", "segments", "videos", "shortest s", "median s", "longest s"), rows)


def _summary(outcome: Outcome) -> str:
    bundle, split = outcome.bundle, outcome.split
    lines = [
        f"{bundle.head} for {len(bundle.classes)} classes on {bundle.extractor} features",
        f"split: {split.how}; {len(split.train)} training, {len(split.validation)} validation, {len(split.test)} test "
        f"videos",
        *split.warnings,
        "weights: those of the last epoch; the only choice made by a score is the display score, on validation",
    ]
    validation = outcome.scores.get("validation")
    if validation is None:
        lines.append("no validation video: nothing is known of how well it does")
    else:
        lines.append(f"average mAP on validation: {100 * validation.average_mAP:.1f} %; {trust(validation)}")
    if outcome.operating is not None:
        lines.append(operating_line(outcome.operating))
    return _list(lines)


def trust(result: Evaluation) -> str:
    """How far a score on so many instances can be trusted, in words."""
    amount = f"on {result.instances} segments in {result.videos} videos"
    if "bootstrap" not in result.details:
        return amount
    found = result.details["bootstrap"]["average_mAP"]
    if found["high"] - found["low"] < 0.005:  # resampling videos that are all alike says nothing of others
        return f"{amount}: all of them alike, so no interval can be told"
    low, high = (f"{100 * found[key]:.0f}" for key in ("low", "high"))
    return f"{amount}: with other videos of this kind expect {low} to {high} % (95 %, resampled videos)"


def blind_line(result: Evaluation, blind: float) -> str:
    """How much of the score needs no look at the video."""
    line = f"a detector that never looks, and says where actions lay in training, scores {100 * blind:.1f} %"
    if result.average_mAP <= blind:
        return f"{line}: this one is no better"
    low = result.details["bootstrap"]["average_mAP"]["low"] if "bootstrap" in result.details else blind
    return f"{line}: with so few videos that this one is better is not certain" if low < blind else line


def operating_line(point: Operating) -> str:
    """What is shown by default, and how good that is."""
    return (
        f"segments from score {point.score:g} are shown by default: best F1 on validation {point.f1:.2f} "
        f"(precision {point.precision:.2f}, recall {point.recall:.2f} at tIoU 0.5)"
    )


def _list(lines: Sequence[str]) -> str:
    return "<ul>" + "".join(f"<li>{escape(line)}</li>" for line in lines) + "</ul>"


def _table(table: Table) -> str:
    head = "".join(f"<th>{escape(cell)}</th>" for cell in table.header)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in table.rows)
    note = f"<p class=note>{escape(table.note)}</p>" if table.note else ""
    caption = f"<caption>{escape(table.title)}</caption>" if table.title else ""
    return f"<table>{caption}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{note}"


def _curves(records: Sequence[Mapping[str, Any]]) -> str:
    """Loss per epoch (mean), and validation mAP where it was taken."""
    sums: dict[int, list[float]] = {}
    for record in records:
        if "loss" in record:
            sums.setdefault(record["epoch"] + 1, []).append(float(record["loss"]))
    loss = [(epoch, sum(values) / len(values)) for epoch, values in sums.items()]
    scored = [
        (record["epoch"] + 1, 100 * float(record["evaluation"]["average_mAP"]))
        for record in records
        if record.get("evaluation")
    ]
    return _curve("loss", loss) + _curve("average mAP on validation, %", scored)


def _curve(title: str, points: Sequence[tuple[float, float]], width: int = 460, height: int = 200) -> str:
    """An SVG line with its range; nothing for fewer than two points."""
    if len(points) < 2:
        return ""
    xs, ys = zip(*points, strict=True)
    low, high = min(0.0, *ys), max(ys)
    span = (high - low) or 1.0
    left, bottom = 46, height - 24
    step = (width - left - 8) / ((xs[-1] - xs[0]) or 1)
    dots = " ".join(
        f"{left + (x - xs[0]) * step:.1f},{bottom - (y - low) / span * (bottom - 24):.1f}"
        for x, y in points
        if math.isfinite(y)
    )
    return (
        f'<svg viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img">'
        f"<text x={left} y=14>{escape(title)}</text>"
        f'<path class="axis" d="M{left} 24V{bottom}H{width - 8}"/>'
        f"<text x=2 y=30>{high:.3g}</text><text x=2 y={bottom}>{low:.3g}</text>"
        f"<text x={left} y={height - 6}>{xs[0]:g}</text>"
        f'<text x={width - 8} y={height - 6} text-anchor="end">epoch {xs[-1]:g}</text>'
        f'<polyline points="{dots}"/></svg>'
    )


def _mistakes(outcome: Outcome) -> str:
    if outcome.truth is None or outcome.predictions is None:
        return "<p>No validation video.</p>"
    shown_from = float(outcome.bundle.decoding.get("display_score", 0.3))
    found = worst_mistakes(outcome.truth, outcome.predictions, outcome.protocol, shown_from)
    if not found:
        return f"<p>None among segments with a score of at least {shown_from:g}.</p>"
    return "".join(_mistake(mistake, outcome.videos.get(mistake.video)) for mistake in found)


def _mistake(mistake: Mistake, video: Path | None) -> str:
    score = "" if mistake.score is None else f", score {mistake.score:.2f}"
    times = f"{mistake.start_s:.1f}-{mistake.end_s:.1f} s"
    text = f"{mistake.kind}: {mistake.label} in {mistake.video}, {times}{score}: {mistake.why}"
    pictures = "".join(
        f'<img alt="" src="data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}">'
        for jpeg in ([] if video is None else thumbnails(video, mistake.start_s, mistake.end_s))
    )
    return f"<figure><figcaption>{escape(text)}</figcaption>{pictures}</figure>"


def thumbnails(video: Path, start_s: float, end_s: float, count: int = 4) -> list[bytes]:
    """JPEG pictures spread over a segment; none where the video cannot be read any more."""
    times = np.linspace(start_s, end_s, count + 2)[1:-1].tolist()
    pictures = []
    try:
        with open_video(video) as opened:
            for frame in opened.at(times):
                width = max(1, round(THUMBNAIL_HEIGHT * frame.width / frame.height))
                rgb = frame.rgb((THUMBNAIL_HEIGHT, width))
                done, data = cv2.imencode(".jpg", rgb[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 70])
                pictures += [data.tobytes()] if done else []
    except (VidtadError, OSError):
        return []
    return pictures


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width">
<style>
body {{ font: 15px/1.45 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; color: #222; }}
table {{ border-collapse: collapse; margin: .6rem 0; }}
caption {{ text-align: left; font-weight: 600; }}
th, td {{ padding: .15rem .7rem; border-bottom: 1px solid #ddd; text-align: right; }}
th:first-child, td:first-child {{ text-align: left; }}
.note {{ color: #555; }}
svg {{ max-width: 100%; }}
svg text {{ font-size: 11px; fill: #444; }}
svg polyline {{ fill: none; stroke: #1667b7; stroke-width: 1.6; }}
svg .axis {{ fill: none; stroke: #999; }}
figure {{ margin: .8rem 0; }}
figure img {{ margin-right: 3px; border-radius: 3px; }}
</style></head><body>
{body}
</body></html>
"""
