"""BORIS: projects (.boris) and the two kinds of exported event tables.

State events come in pairs, one event that starts a behaviour of a subject and one that stops it; point events have
no length and are left out. Stored times contain the observation's time offset, which a player subtracts.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vidtad.errors import InputError
from vidtad.formats.document import csv_rows
from vidtad.formats.label_types import Gather


def is_project(document: Any) -> bool:
    """Whether this JSON document is a BORIS project."""
    if not isinstance(document, dict) or "behaviors_conf" not in document:
        return False
    return isinstance(document.get("observations"), dict)


def gather_project(document: Mapping[str, Any], into: Gather) -> None:
    """Add every observation of a video. Observations of live scenes or pictures are findings."""
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
        media = _media(observation)
        if not media:
            into.findings.add("observation without a video left out", str(name), serious=False)
            continue
        _gather_observation(str(name), observation, media, kinds, into)


def _media(observation: Mapping[str, Any]) -> list[str]:
    """Files of the first player, one after the other in time; further players show the same moments."""
    players = observation.get("file")
    files = players.get("1") if isinstance(players, dict) else players
    return [str(file) for file in files] if isinstance(files, list) else []


def _gather_observation(
    name: str, observation: Mapping[str, Any], media: list[str], kinds: Mapping[str, str], into: Gather
) -> None:
    info = observation.get("media_info")
    stated = info.get("length") if isinstance(info, dict) else None
    lengths = [_number(stated.get(file)) if isinstance(stated, dict) else None for file in media]
    videos = [into.video(file, duration=length) for file, length in zip(media, lengths, strict=True)]
    if len(media) > 1 and None in lengths[:-1]:
        into.findings.add("observation of several videos without their lengths left out", name)
        return
    begins = [0.0]
    for length in lengths[:-1]:
        begins.append(begins[-1] + (length or 0.0))
    offset = _number(observation.get("time offset")) or 0.0
    running: dict[tuple[str, str], float] = {}
    events = observation.get("events")
    rows = [row for row in events if isinstance(row, list) and len(row) >= 3] if isinstance(events, list) else []
    for row in sorted(rows, key=lambda row: _number(row[0]) or 0.0):
        time, code = _number(row[0]), str(row[2])
        if time is None:
            into.findings.add("event without a time", f"{name}: {code}")
        elif kinds.get(code, "").lower().startswith("point"):
            into.findings.add("point event left out", f"{name}: {code}", serious=False)
        elif (begun := running.pop((str(row[1]), code), None)) is None:
            running[str(row[1]), code] = time
        else:
            place = max(i for i, first in enumerate(begins) if first <= max(begun - offset, 0.0))
            into.add(videos[place], code, begun - offset - begins[place], time - offset - begins[place])
    for (_, code), begun in running.items():
        into.findings.add("state event that never stops", f"{name}: {code} at {begun:g} s")


def is_table(text: str) -> bool:
    """Whether this text is a table of events as BORIS exports it."""
    return "Behavior" in text[:20_000] and _header(text) is not None


def gather_table(text: str, path: Path, into: Gather) -> None:
    """Add the rows of tabular events (one a start or stop) or of aggregated events (one a behaviour)."""
    found = _header(text)
    if found is None:
        raise InputError(f"{path}: no header row with the columns of BORIS")
    rows, first = found
    header = [cell.strip() for cell in rows[first]]
    records = [dict(zip(header, row, strict=False)) for row in rows[first + 1 :] if any(row)]
    aggregated = "Start (s)" in header
    open_: dict[tuple[str, str, str], str] = {}
    for record in records:
        # Media file names are those of the moment; `Source` lists all of an observation.
        stated = _one_file(record) or record.get("Observation id", "").strip() or path.stem
        video, label = into.video(stated), record.get("Behavior", "").strip()
        kind = (record.get("Behavior type") or record.get("Status") or "").strip().upper()
        if kind == "POINT":
            into.findings.add("point event left out", f"{stated}: {label}", serious=False)
        elif aggregated:
            offset = _number(record.get("Time offset (s)")) or 0.0
            into.add(video, label, *(_shifted(record.get(key), offset) for key in ("Start (s)", "Stop (s)")))
        else:
            key = (stated, record.get("Subject", "").strip(), label)
            offset = _number(record.get("Time offset (s)")) or 0.0
            if (begun := open_.pop(key, None)) is None:
                open_[key] = record.get("Time", "")
            else:
                into.add(video, label, _shifted(begun, offset), _shifted(record.get("Time"), offset))
    for stated, _, label in open_:
        into.findings.add("state event that never stops", f"{stated}: {label}")


def _header(text: str) -> tuple[list[list[str]], int] | None:
    """All rows and the number of the header row, which older versions write after a preamble."""
    delimiter = "\t" if text[:20_000].count("\t") > text[:20_000].count(",") else ","
    rows = [line.split("\t") for line in text.splitlines()] if delimiter == "\t" else list(csv_rows(text))
    for number, row in enumerate(rows[:100]):
        cells = {cell.strip() for cell in row}
        if "Behavior" in cells and ("Time" in cells or {"Start (s)", "Stop (s)"} <= cells):
            return rows, number
    return None


def _one_file(record: Mapping[str, str]) -> str:
    for column in ("Media file name", "Media file path", "Media file", "Source"):
        text = (record.get(column) or "").strip()
        if column == "Source":
            text = text.partition("|")[0].removeprefix("player #1:")
            text = "" if ";" in text or text == "Live observation" else text
        if text and text.upper() != "NA":
            return text
    return ""


def _shifted(time: str | None, offset: float) -> float | str | None:
    value = _number(time)
    return time if value is None else value - offset


def _number(value: Any) -> float | None:
    try:
        number = float(value) if isinstance(value, (int, float, str)) and not isinstance(value, bool) else float("nan")
    except (ValueError, OverflowError):
        return None
    return number if abs(number) < float("inf") else None
