"""A timeline in a notebook: a table for pandas, and the page that shows it."""

from collections.abc import Iterable
from html import escape
from itertools import compress
from typing import TYPE_CHECKING, Any

from vidtad.errors import InputError

if TYPE_CHECKING:
    from vidtad.timeline import Segment, Timeline

COLUMNS = {
    "video": object,
    "start_s": float,
    "end_s": float,
    "label": object,
    "score": float,
    "track": "Int64",
    "shown": bool,
}
MOST_SHOWN = 50


def dataframe(timeline: "Timeline") -> Any:
    """One row a segment, by video and time, with COLUMNS. Raises InputError where pandas is not installed."""
    try:
        import pandas
    except ImportError as error:
        raise InputError(f"a data frame needs pandas: pip install pandas ({error})") from error
    rows = [
        (name, s.start_s, s.end_s, s.label, s.score, s.track, timeline.shows(s))
        for name, found in timeline.results.items()
        for s in sorted(found, key=lambda s: (s.start_s, s.end_s, s.label))
    ]
    columns = {name: [row[place] for row in rows] for place, name in enumerate(COLUMNS)}
    return pandas.DataFrame(columns).astype(COLUMNS)


def html(timeline: "Timeline", most: int = MOST_SHOWN) -> str:
    """A table of the best `most` segments of all videos; before it what made them, after it how many more."""
    every = [(name, s) for name, found in timeline.results.items() for s in found]
    best = sorted(every, key=lambda entry: -entry[1].score)[:most]
    several, tracked = len(timeline.videos) > 1, any(s.track is not None for _, s in every)
    kept = [several, True, True, True, True, tracked]
    pale = [not timeline.shows(s) for _, s in best]
    rows = [
        _row("td", compress((name, *_cells(s)), kept), faint=faint) for (name, s), faint in zip(best, pale, strict=True)
    ]
    head = _row("th", compress(("video", "start", "end", "action", "score", "person"), kept))
    table = f"<table><thead>{head}</thead><tbody>{''.join(rows)}</tbody></table>" if rows else ""
    after = _after(len(every), len(best), timeline.display_score if any(pale) else None)
    return f"<div>{''.join(map(_line, _before(timeline)))}{table}{_line(after)}</div>"


def _before(timeline: "Timeline") -> list[str]:
    """What to know before the table is believed."""
    notes = [", ".join(timeline.videos)] if len(timeline.videos) == 1 else [f"{len(timeline.videos)} videos"]
    if timeline.detector.get("demonstration"):
        notes.append("Made by a demonstration detector: it knows generated clips only.")
    if timeline.detector.get("random_weights"):
        notes.append("Made with random weights: a dry run, the segments carry no meaning.")
    return notes


def _after(there: int, shown: int, least: float | None) -> str:
    if not there:
        return "No segments."
    more = f"and {there - shown} more: to_dataframe() has all {there} segments" if there > shown else ""
    faint = "" if least is None else f"pale: score under {least:g}"
    return "; ".join(filter(None, (more, faint)))


def _cells(s: "Segment") -> tuple[str, ...]:
    return _clock(s.start_s), _clock(s.end_s), s.label, f"{s.score:.2f}", "" if s.track is None else str(s.track)


def _clock(seconds: float) -> str:
    """h:mm:ss.s, hours only where there are any."""
    minutes, rest = divmod(round(seconds, 1), 60)
    hours, minutes = divmod(int(minutes), 60)
    return f"{hours}:{minutes:02d}:{rest:04.1f}" if hours else f"{minutes}:{rest:04.1f}"


def _row(kind: str, cells: Iterable[str], *, faint: bool = False) -> str:
    style = ' style="opacity: 0.5"' if faint else ""
    return f"<tr{style}>{''.join(f'<{kind}>{escape(cell)}</{kind}>' for cell in cells)}</tr>"


def _line(text: str) -> str:
    return f"<p>{escape(text)}</p>" if text else ""
