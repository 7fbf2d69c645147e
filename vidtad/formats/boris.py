"""BORIS: projects (.boris), the two kinds of exported event tables, and the table that we write.

A START and a STOP event make a segment. They belong together by observation, subject, behaviour and modifiers, as in
BORIS's own check; projects do not say which is which, so there the first is a start. Times count from the start of the
observation, whose files may be queued one after the other, and contain its time offset, which a player subtracts.
A subject can do one behaviour once at a time, so what we write of segments of a class that overlap goes to further
subjects. BORIS has no place for scores; they are kept in the comment of the START row.
"""

import csv
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vidtad.errors import InputError
from vidtad.formats.document import csv_rows, parse_json
from vidtad.formats.label_types import Gather
from vidtad.formats.shared import NUMBER, PERSON, Videos, one_line, tiers
from vidtad.timeline import Timeline

COLUMNS = (
    "Observation id",
    "Observation date",
    "Description",
    "Observation duration",
    "Observation type",
    "Source",
    "Time offset (s)",
    "Media duration (s)",
    "FPS",
    "Subject",
    "Behavior",
    "Behavioral category",
    "Behavior type",
    "Time",
    "Media file name",
    "Image index",
    "Image file path",
    "Comment",
)
NOBODY = "No focal subject"
SCORE = re.compile(rf"score ({NUMBER})")


def write(timeline: Timeline) -> dict[str, str]:
    """Events of every video, in order of time."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, delimiter="\t", lineterminator="\n", restval="")
    writer.writeheader()
    for name, found in timeline.results.items():
        info = timeline.videos[name]
        media = one_line(info.path or name)
        fixed = {
            "Observation id": one_line(name),
            "Observation type": "Media file(s)",
            "Source": f"player #1:{media}",
            "Time offset (s)": "0.0",
            "Observation duration": f"{info.duration_s:.3f}",
            "Media duration (s)": f"{info.duration_s:.3f}",
            "FPS": f"{float(info.fps):.3f}" if info.fps else "NA",
            "Media file name": media,
            "Image file path": "NA",
        }
        events = []
        for (label, track), rows in tiers(found).items():
            for depth, row in enumerate(rows, 1):
                subject = NOBODY if track is None else f"person {track}"
                subject += f" ({depth})" if depth > 1 else ""
                for s in row:
                    events.append((s.start_s, 1, label, subject, f"score {s.score:.6g}"))
                    events.append((s.end_s, 0, label, subject, ""))
        for time_s, starts, label, subject, comment in sorted(events):
            event = {
                "Subject": subject,
                "Behavior": one_line(label),
                "Behavior type": "START" if starts else "STOP",
                "Time": f"{time_s:.3f}",
                "Image index": str(round(time_s * info.fps)) if info.fps else "NA",
                "Comment": comment,
            }
            writer.writerow(fixed | event)
    return {".boris.tsv": text.getvalue()}


def read(text: str, videos: Videos, path: Path) -> Timeline:
    """Segments of a project or a table as a timeline; what has no partner or no length is a warning of it.

    Raises InputError for what cannot be read, or holds no usable segment.
    """
    into = Gather()
    read_labels(text, path, into)
    return into.timeline(videos, "boris")


def read_labels(text: str, path: Path, into: Gather) -> None:
    """Add every segment of a project or a table. Raises InputError for what cannot be read without guessing."""
    into.on_player = True
    if text.lstrip()[:1] == "{":
        gather_project(parse_json(text, path, into.findings), into)
    else:
        gather_table(text, path, into)


def fits(text: str) -> bool:
    """Whether this is a project, or a table of events as BORIS exports it."""
    if text.lstrip()[:1] == "{":
        return '"behaviors_conf"' in text and '"observations"' in text
    return "Behavior" in text[:20_000] and _header(text) is not None


def is_project(document: Any) -> bool:
    """Whether this JSON document is a BORIS project."""
    if not isinstance(document, dict) or "behaviors_conf" not in document:
        return False
    return isinstance(document.get("observations"), dict)


@dataclass(frozen=True)
class _Films:
    """The files of an observation, one after the other: names, when each begins (seconds of the observation), offset.

    Without `begins` of all of them the times of the later ones are not known.
    """

    names: tuple[str, ...]
    begins: tuple[float, ...]
    offset: float

    @classmethod
    def of(cls, names: Sequence[str], lengths: Sequence[float | None], offset: float) -> "_Films":
        begins = [0.0]
        for _, length in zip(names[1:], lengths, strict=False):
            if length is None:
                break
            begins.append(begins[-1] + length)
        return cls(tuple(names), tuple(begins), offset)

    @property
    def known(self) -> bool:
        return len(self.begins) == len(self.names)

    def place(self, time_s: float) -> int:
        """Number of the file that the observation's time (with its offset) lies in."""
        return max((i for i, first in enumerate(self.begins) if first <= time_s - self.offset), default=0)


@dataclass
class _Pairs:
    """Events of one observation, in order of time, put together to segments."""

    into: Gather
    films: _Films
    where: str
    running: dict[tuple[str, ...], tuple[float, float]] = field(default_factory=dict)

    def take(self, key: tuple[str, ...], kind: str, time_s: float, score: float = 1.0) -> None:
        """An event of (subject, behaviour, modifiers): START, STOP, or "" where the file does not say which."""
        if not kind:
            kind = "STOP" if key in self.running else "START"
        if kind == "START":
            if key in self.running:
                self._never_stops(key)
            self.running[key] = time_s, score
        elif key in self.running:
            begun, score = self.running.pop(key)
            self.add(key, begun, time_s, score)
        else:
            self.into.findings.add("state event that stops without a start", f"{self.where}: {key[1]} at {time_s:g} s")

    def add(self, key: tuple[str, ...], start_s: float, end_s: float, score: float = 1.0) -> None:
        """A segment, in the file in which it begins."""
        films = self.films
        at = films.place(start_s)
        zero = films.offset + films.begins[at]
        person = PERSON.match(key[0])
        video = self.into.video(films.names[at])
        track = int(person[1]) if person else None
        self.into.add(video, key[1], round(start_s - zero, 6), round(end_s - zero, 6), score=score, track=track)

    def close(self) -> None:
        """No more events."""
        for key in list(self.running):
            self._never_stops(key)

    def _never_stops(self, key: tuple[str, ...]) -> None:
        begun, _ = self.running.pop(key)
        self.into.findings.add("state event that never stops", f"{self.where}: {key[1]} at {begun:g} s")


def gather_project(document: Mapping[str, Any], into: Gather) -> None:
    """Add every observation of a video. Observations of live scenes or pictures are findings."""
    if not is_project(document):
        raise InputError("not a BORIS project")
    ethogram = document["behaviors_conf"]
    kinds = {
        str(entry.get("code")): str(entry.get("type", ""))
        for entry in (ethogram.values() if isinstance(ethogram, dict) else ())
        if isinstance(entry, dict)
    }
    for name, observation in document["observations"].items():
        if not isinstance(observation, dict):
            into.findings.add("observation that is no object", str(name))
            continue
        players = observation.get("file")
        first = players.get("1") if isinstance(players, dict) else players
        media = [str(file) for file in first] if isinstance(first, list) else []
        if not media:
            into.findings.add("observation without a video left out", str(name), serious=False)
            continue
        _gather_observation(str(name), observation, media, kinds, into)


def _gather_observation(
    name: str, observation: Mapping[str, Any], media: list[str], kinds: Mapping[str, str], into: Gather
) -> None:
    info = observation.get("media_info")
    stated = info.get("length") if isinstance(info, dict) else None
    lengths = [_number(stated.get(file)) if isinstance(stated, dict) else None for file in media]
    for file, length in zip(media, lengths, strict=True):
        into.video(file, duration=length)
    films = _Films.of(media, lengths, _number(observation.get("time offset")) or 0.0)
    if not films.known:
        into.findings.add("observation of several videos without their lengths left out", name)
        return
    pairs, rows = _Pairs(into, films, name), observation.get("events")
    if not isinstance(rows, list):
        into.findings.add("observation without a list of events", name)
        return
    usable = [row for row in rows if isinstance(row, list) and len(row) >= 3]
    if len(usable) < len(rows):
        into.findings.add("event that is no list of its parts", name, len(rows) - len(usable))
    for row in sorted(usable, key=lambda row: _number(row[0]) or 0.0):
        time, code = _number(row[0]), str(row[2])
        if time is None:
            into.findings.add("event without a time", f"{name}: {code}")
        elif code not in kinds:
            into.findings.add("event of a behaviour that the ethogram does not list", f"{name}: {code}")
        elif kinds[code].lower().startswith("point"):
            into.findings.add("point event left out: it has no length", f"{name}: {code}", serious=False)
        else:
            modifiers = str(row[3]) if len(row) > 3 else ""
            pairs.take((str(row[1]), code, modifiers), "", time)
    pairs.close()


# Columns of BORIS's tables, old and new. What else stands between behaviour and behaviour type are modifiers.
_FIXED = {"Behavior", "Behavioral category", "Behavior type", "Status", "Subject"}


def gather_table(text: str, path: Path, into: Gather) -> None:
    """Add the rows of tabular events (one a start or stop) or of aggregated events (one a behaviour)."""
    found = _header(text)
    if found is None:
        raise InputError(f"{path}: no header row with the columns of BORIS")
    rows, first = found
    header = [cell.strip() for cell in rows[first]]
    modifiers = _modifier_columns(header)
    pairs: dict[str, _Pairs] = {}
    films = _films_of(header, rows, first, path)
    for number, row in enumerate(rows[first + 1 :], first + 2):
        if not any(cell.strip() for cell in row):
            continue
        if len(row) > len(header) and any(cell.strip() for cell in row[len(header) :]):
            into.findings.add("row with more cells than the header left out", f"line {number}")
            continue
        record = dict(zip(header, [cell.strip() for cell in row] + [""] * (len(header) - len(row)), strict=False))
        observation = record.get("Observation id", "")
        if observation not in pairs:
            own = films[observation]
            pairs[observation] = _Pairs(into, own, observation or path.stem)
            for name in own.names:
                into.video(name)
        key = (record.get("Subject", ""), record.get("Behavior", ""), *(record[name] for name in modifiers))
        _take_row(record, key, number, pairs[observation])
    for each in pairs.values():
        each.close()


def _take_row(record: Mapping[str, str], key: tuple[str, ...], number: int, pairs: _Pairs) -> None:
    findings, where = pairs.into.findings, f"line {number}: {key[1]}"
    kind = (record.get("Behavior type") or record.get("Status") or "").upper()
    noted = SCORE.search(record.get("Comment") or record.get("Comment start") or "")
    score = float(noted[1]) if noted else 1.0
    if not key[1]:
        findings.add("event without a behaviour", f"line {number}")
    elif kind == "POINT":
        findings.add("point event left out: it has no length", where, serious=False)
    elif "Start (s)" in record:
        start, stop = _number(record["Start (s)"]), _number(record.get("Stop (s)"))
        if start is None or stop is None:
            findings.add("segment end that is no number", f"{where} [{record['Start (s)']}, {record.get('Stop (s)')}]")
        else:
            pairs.add(key, start, stop, score)
    elif kind not in ("", "START", "STOP"):
        findings.add("event that is neither start, stop nor point", f"{where}: {kind[:20]}")
    elif (time := _number(record.get("Time"))) is None:
        findings.add("event without a time", f"{where}: {record.get('Time', '')!r}")
    else:
        pairs.take(key, kind, time, score)


def _modifier_columns(header: Sequence[str]) -> list[str]:
    """Names of the columns that hold modifiers: called so, or named by their sets before the behaviour's type."""
    ends = [header.index(name) for name in ("Behavior type", "Status") if name in header]
    between = header[header.index("Behavior") + 1 : max(ends)] if ends else []
    named = [name for name in header if name.lower().startswith("modifier")]
    known = _FIXED | {"Time", "Comment", "Start (s)", "Stop (s)", "Duration (s)"}
    return list(dict.fromkeys([*named, *(name for name in between if name and name not in known)]))


def _films_of(header: Sequence[str], rows: Sequence[Sequence[str]], first: int, path: Path) -> dict[str, _Films]:
    """The files of every observation. Raises InputError where several are queued and it is not said how long."""
    preamble = {row[0].strip(): row[1].strip() for row in rows[:first] if len(row) > 1 and row[0].strip()}
    records: dict[str, list[dict[str, str]]] = {}
    for row in rows[first + 1 :]:
        if any(cell.strip() for cell in row):
            record = dict(zip(header, (cell.strip() for cell in row), strict=False))
            records.setdefault(record.get("Observation id", ""), []).append(record)
    films = {}
    for observation, own in records.items():
        offset = _number(own[0].get("Time offset (s)") or preamble.get("Time offset (s)")) or 0.0
        names, lengths = _stated(own, offset)
        names = names or [observation or preamble.get("Observation id", "") or path.stem]
        films[observation] = _Films.of(names, lengths, offset)
        if not films[observation].known:
            raise InputError(
                f"{path}: observation {observation!r} queues {len(names)} videos ({', '.join(names[:3])}) and does not "
                "say how long each is, so times in the later ones are not known; export the events anew with a recent "
                "BORIS, or give its project file"
            )
    return films


def _stated(records: Sequence[Mapping[str, str]], offset: float) -> tuple[list[str], list[float | None]]:
    """(files of the first player, their lengths) of an observation, as `Source` has them, else those of its rows."""
    record = records[0]
    source = record.get("Source", "").partition("|player #")[0].removeprefix("player #1:").strip()
    per_row = [name for each in records if (name := _own_file(each))]
    if source and source not in ("Live observation", "From directories of images", "NA"):
        names = [source] if source in per_row else source.split(";")
        durations = record.get("Media duration (s)", "").partition("|")[0].split(";")
        lengths = [_number(text) for text in durations]
        return names, lengths if len(lengths) == len(names) else [None] * len(names)
    listed = record.get("Media file", "") or ""
    names = list(dict.fromkeys(per_row)) or [name for name in listed.split(";") if name]
    return names, [None] * len(names)


def _own_file(record: Mapping[str, str]) -> str:
    """The file that a row names for its own moment; BORIS writes "Not found" where it looked without the offset."""
    for column in ("Media file name", "Media file path", "Media file"):
        text = record.get(column, "").strip()
        if text and text.upper() not in ("NA", "NOT FOUND") and ";" not in text:
            return text
    return ""


def _header(text: str) -> tuple[list[list[str]], int] | None:
    """All rows and the number of the header row, which older versions write after a preamble."""
    delimiter = "\t" if text[:20_000].count("\t") > text[:20_000].count(",") else ","
    rows = _tabbed(text) if delimiter == "\t" else list(csv_rows(text))
    for number, row in enumerate(rows[:100]):
        cells = {cell.strip() for cell in row}
        if "Behavior" in cells and ("Time" in cells or {"Start (s)", "Stop (s)"} <= cells):
            return rows, number
    return None


def _tabbed(text: str) -> list[list[str]]:
    """Rows of a table with tabs; cells in quotes may hold line breaks."""
    try:
        return list(csv.reader(io.StringIO(text), delimiter="\t", strict=True))
    except csv.Error:  # quotes that mean nothing
        return [line.split("\t") for line in text.splitlines()]


def _number(value: Any) -> float | None:
    try:
        number = float(value) if isinstance(value, (int, float, str)) and not isinstance(value, bool) else float("nan")
    except (ValueError, OverflowError):
        return None
    return number if abs(number) < float("inf") else None
