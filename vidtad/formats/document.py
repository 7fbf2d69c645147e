"""Reading a JSON document of annotations or predictions, and turning its loose values into columns."""

import codecs
import csv
import gc
import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from vidtad.errors import InputError
from vidtad.formats.tables import NOTHING_HAPPENS, Findings, index_names

SEPARATOR = re.compile(r"sep=([,;\t])\r?\n", re.IGNORECASE)
CLOCK_PART = re.compile(r"\d+\.?\d*(?:[eE][+-]?\d+)?|\.\d+(?:[eE][+-]?\d+)?")


@contextmanager
def named(path: Path) -> Iterator[None]:
    """Puts the file's name before the message of an InputError that does not have it."""
    try:
        yield
    except InputError as error:
        if str(path) in str(error):
            raise
        raise InputError(f"{path}: {error}") from error


@contextmanager
def refused(what: str) -> Iterator[None]:
    """Whatever reading a stranger's document trips over while the block runs becomes an InputError: `what`, and why."""
    try:
        yield
    except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, csv.Error) as error:
        raise InputError(f"{what} ({type(error).__name__}: {error})") from error


@contextmanager
def collector_paused() -> Iterator[None]:
    """Keeps Python's garbage collector from walking a large document again and again while it is being
    built.
    """
    running = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if running:
            gc.enable()


def read_text(path: Path) -> str:
    """The file as text: UTF-8, or UTF-16 with its mark, as spreadsheets write it. Raises InputError for others."""
    try:
        raw = Path(path).read_bytes()
        return raw.decode("utf-16" if raw[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else "utf-8-sig")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from error
    except UnicodeError as error:
        raise InputError(f"{path}: not a text file in UTF-8") from error


def parse_json(text: str, path: Path, findings: Findings) -> Any:
    """Parse JSON text; a key that occurs twice in one object is a finding (the last one counts, as in every
    JSON reader). Raises InputError when the text is not JSON."""

    def joined(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        document = dict(pairs)
        if len(document) != len(pairs):
            seen: set[str] = set()
            for key, _ in pairs:
                if key in seen:
                    findings.add("duplicate id", f"{key!r} (the last one counts)", fate="kept: the last one")
                seen.add(key)
        return document

    try:
        return json.loads(text, object_pairs_hook=joined)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not valid JSON ({error})") from error


def numbers(values: Sequence[Any]) -> np.ndarray:
    """float64 column of numbers or numeric strings; NaN where an entry is neither."""
    try:
        column = np.asarray(values, np.float64)
        if column.ndim == 1:
            return column
    except (TypeError, ValueError, OverflowError):
        pass
    return np.array([_number(value) for value in values], np.float64)


def _number(value: Any) -> float:
    try:
        return float(value) if isinstance(value, (int, float, str)) else float("nan")
    except (ValueError, OverflowError):
        return float("nan")


def is_number(text: str) -> bool:
    """Whether this label is a class number."""
    return text.isascii() and text.isdigit() and len(text) < 10


def is_decimal(text: str) -> bool:
    """Whether this reads as a number of any kind."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def csv_rows(text: str, delimiter: str = ",") -> Iterator[list[str]]:
    """Rows of CSV text, one at a time. Raises InputError when it is none, such as a file with null bytes."""
    try:
        yield from csv.reader(io.StringIO(text), delimiter=delimiter)
    except csv.Error as error:
        raise InputError(f"not readable as CSV ({error})") from error


def without_separator(text: str) -> tuple[str, str | None]:
    """(the text without a first line `sep=;`, as spreadsheets write it; its separator, None without one)."""
    found = SEPARATOR.match(text)
    return (text[found.end() :], found[1]) if found else (text, None)


def delimiter_of(text: str) -> str:
    """Comma, semicolon or tab: what cuts the first line into most cells; of equals the first."""
    line = text[: text.find("\n") + 1] or text
    return max(",;\t", key=lambda delimiter: len(next(csv_rows(line, delimiter), [])))


def first_row(text: str) -> list[str]:
    """Cells of the first line of a table with any delimiter; none when it is no table."""
    text, stated = without_separator(text)
    line = text[: text.find("\n") + 1] or text
    try:
        return next(csv_rows(line, stated or delimiter_of(text)), [])
    except InputError:
        return []


class Record(dict[str, str]):
    """A row of a table, by column; `line`: its number in the file, the header's being 1."""

    line = 0


def csv_records(text: str, findings: Findings | None = None) -> list[Record]:
    """Rows of a table with a header line, by column; missing cells are empty. Empty rows are passed over.

    Cells beyond the header are a finding. Raises InputError as `csv_rows`, and for two columns of one name.
    """
    text, stated = without_separator(text)
    first = 1 if stated is None else 2
    rows = csv_rows(text, stated or delimiter_of(text))
    header = [name.strip() for name in next(rows, [])]
    twice = sorted({name for name in header if name and header.count(name) > 1})
    if twice:
        raise InputError(f"two columns are called {twice[0]!r}; rename or remove one")
    records = []
    for number, row in enumerate(rows, first + 1):
        if not any(cell.strip() for cell in row):
            continue
        if findings is not None and any(cell.strip() for cell in row[len(header) :]):
            findings.add("row with more cells than the header", f"line {number}", fate="kept, without those cells")
        record = Record(zip(header, row + [""] * (len(header) - len(row)), strict=False))
        record.line = number
        records.append(record)
    return records


def seconds_of(text: Any) -> Any:
    """Seconds of `75.2`, `75,2`, `1:15.2` or `0:01:15.2`; anything else unchanged, for a finding to show."""
    if not isinstance(text, str):
        return text
    parts = text.strip().replace(",", ".").split(":")
    sign = -1.0 if parts[0].startswith("-") and len(parts) == 1 else 1.0
    if len(parts) > 3 or not all(CLOCK_PART.fullmatch(part.removeprefix("-") if sign < 0 else part) for part in parts):
        return text
    total = 0.0
    for part in parts:
        total = 60 * total + float(part.removeprefix("-"))
    return sign * total


class SegmentColumns:
    """Gathers segments of a loosely typed document and drops, with a finding each, the ones without usable
    ends.

    `place`: where in the file the next segment is, such as `line 7: `, for findings; "" where that is not known.
    """

    def __init__(self, findings: Findings) -> None:
        self.findings = findings
        self.names: list[str] = []
        self.video: list[int] = []
        self.label: list[Any] = []
        self.start: list[Any] = []
        self.end: list[Any] = []
        self.score: list[Any] = []
        self.place = ""
        self.places: list[str] = []

    def add_video(self, name: str) -> int:
        self.names.append(name)
        return len(self.names) - 1

    def add(self, video: int, label: Any, segment: Any, score: Any = 0.0) -> None:
        """Take one segment of a video added before, as the document has it."""
        if not isinstance(segment, (list, tuple)) or len(segment) != 2:
            self.findings.add("segment without two ends", f"{self.place}{self.names[video]}: {_short(segment)}")
            return
        self.places.append(self.place)
        self.video.append(video)
        self.label.append(label)
        self.start.append(segment[0])
        self.end.append(segment[1])
        self.score.append(score)

    def columns(self) -> dict[str, Any]:
        """Keyword arguments of a table: videos, labels, video, label, start, end; and `score`, `kept`.

        Rows are grouped by video, in order of first appearance, as a file with one list per video has them;
        the order of equal scores follows it. kept: which of the segments added each row is.
        """
        video = np.array(self.video, np.int64)
        start, end, score = numbers(self.start), numbers(self.end), numbers(self.score)
        finite_ends, finite_score = np.isfinite(start) & np.isfinite(end), np.isfinite(score)
        self._report("segment end that is no number", ~finite_ends, lambda i: _short([self.start[i], self.end[i]]))
        self._report("score that is no finite number", ~finite_score, lambda i: _short(self.score[i]))
        kept = np.flatnonzero(finite_ends & finite_score)
        self._report(
            "reversed segment",
            finite_ends & finite_score & (end < start),
            lambda i: f"[{start[i]:g}, {end[i]:g}]",
        )
        if len(kept) and (np.diff(video[kept]) < 0).any():
            first = np.full(len(self.names), len(video))
            np.minimum.at(first, video, np.arange(len(video)))
            kept = kept[np.argsort(first[video[kept]], kind="stable")]
        labels, label = index_names([name if type(name) is str else _label(name) for name in self.label])
        return {
            "videos": tuple(self.names),
            "labels": labels,
            "video": video[kept],
            "label": label[kept],
            "start": start[kept],
            "end": end[kept],
            "score": score[kept],
            "kept": kept,
        }

    def _report(self, kind: str, wrong: np.ndarray, show: Any) -> None:
        for row in np.flatnonzero(wrong).tolist():
            place = self.places[row] if self.places else ""
            self.findings.add(kind, f"{place}{self.names[self.video[row]]}: {show(row)}")


def rows_of(findings: Findings, name: str, rows: Any) -> Sequence[Mapping[str, Any]]:
    """The objects of a video's list; anything else in its place is a finding."""
    if not isinstance(rows, list):
        findings.add("video without a list of segments", f"{name}: {_short(rows)}", fate=NOTHING_HAPPENS)
        return []
    good = [row for row in rows if isinstance(row, dict)]
    if len(good) != len(rows):
        findings.add("segment that is no object", f"{name}", len(rows) - len(good))
    return good


def _label(value: Any) -> str:
    return "" if value is None else str(value)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
