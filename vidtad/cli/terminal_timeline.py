"""A timeline as coloured text: one lane a class (and person), as wide as the terminal."""

from collections import defaultdict
from typing import TYPE_CHECKING

from vidtad.cli.common import visible

if TYPE_CHECKING:
    from rich.text import Text

    from vidtad.timeline import Segment, Timeline

COLOURS = ("cyan", "magenta", "yellow", "green", "blue", "red", "bright_cyan", "bright_magenta", "bright_yellow")
EIGHTHS = " ▏▎▍▌▋▊▉█"
DENSE_ASCII = " .:#"
MOST_LANES = 24
NARROWEST = 20


def render(timeline: "Timeline", width: int, threshold: float, *, ascii_only: bool = False) -> list["Text"]:
    """Lines that fit `width` columns: per video a title, a lane per class with its segments that score at least
    `threshold`, and an axis in minutes and seconds. Classes with the most time come first, at most 24 of them.

    A cell is filled by the share of its time that is covered, from the left. `ascii_only` draws it with
    `.:#` for terminals without Unicode.
    """
    from rich.text import Text

    lines: list[Text] = []
    for video, info in timeline.videos.items():
        name = visible(video)
        found = list(timeline.at_least(threshold).results.get(video, ()))
        length = max([info.duration_s, *(s.end_s for s in found)])
        lanes = _lanes(found)
        if not lanes or length <= 0:
            lines.append(Text(f"{name}: nothing scores {threshold:g} or more", no_wrap=True, overflow="ellipsis"))
            continue
        shown = list(lanes)[:MOST_LANES]
        names = max(4, min(max(map(len, shown)), width // 4))
        cells = max(NARROWEST, width - names - 3)
        lines.append(Text(name, style="bold", no_wrap=True, overflow="ellipsis"))
        for number, label in enumerate(shown):
            line = Text(no_wrap=True, overflow="crop")
            short = visible(" ".join(label.split()))
            short = short if len(short) <= names else short[: names - 1] + ("~" if ascii_only else "…")
            line.append(short.rjust(names) + (" | " if ascii_only else " ▕ "), style="default")
            bar = _bar(lanes[label], length, cells, ascii_only)
            line.append(bar, style=COLOURS[number % len(COLOURS)])
            lines.append(line)
        lines.append(Text(" " * (names + 3) + _axis(length, cells), style="dim", no_wrap=True, overflow="crop"))
        if len(lanes) > len(shown):
            lines.append(Text(f"and {len(lanes) - len(shown)} further classes", style="dim"))
    return lines


def _lanes(found: list["Segment"]) -> dict[str, list[tuple[float, float]]]:
    lanes: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for segment in sorted(found, key=lambda s: s.start_s):
        lane = lanes[segment.label if segment.track is None else f"{segment.track} {segment.label}"]
        if lane and segment.start_s <= lane[-1][1]:
            lane[-1] = (lane[-1][0], max(lane[-1][1], segment.end_s))
        else:
            lane.append((segment.start_s, segment.end_s))
    return dict(sorted(lanes.items(), key=lambda item: -sum(end - start for start, end in item[1])))


def _bar(spans: list[tuple[float, float]], length: float, cells: int, ascii_only: bool) -> str:
    covered = [0.0] * cells
    for start, end in spans:
        first, last = start / length * cells, end / length * cells
        for cell in range(int(first), min(cells, int(last) + 1)):
            covered[cell] += max(0.0, min(last, cell + 1) - max(first, cell))
    steps = DENSE_ASCII if ascii_only else EIGHTHS
    most = len(steps) - 1
    # A segment of a tenth of a second in a film of three hours still shows.
    levels = [0 if share <= 0 else max(1, round(min(share, 1.0) * most)) for share in covered]
    return "".join(steps[level] for level in levels)


def _axis(length: float, cells: int) -> str:
    steps = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 43200, 86400)
    step = next((step for step in steps if step / length * cells >= 12), steps[-1])
    axis = [" "] * cells
    moment = 0
    while moment <= length:
        place = int(moment / length * cells)
        label = _clock(moment)
        if place + len(label) <= cells:
            axis[place : place + len(label)] = label
        moment += step
    return "".join(axis)


def _clock(seconds: int) -> str:
    hours, rest = divmod(seconds, 3600)
    return f"{hours}:{rest // 60:02d}:{rest % 60:02d}" if hours else f"{rest // 60}:{rest % 60:02d}"
