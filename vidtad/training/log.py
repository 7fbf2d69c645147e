"""The log of a training run: a JSON record a line, whole whatever happens to its file meanwhile."""

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from vidtad.errors import RunError
from vidtad.runtime.files import write_text


class Lines:
    """The file `path` of `records`, a list that grows; where it is not what was written, it is written anew."""

    def __init__(self, path: Path, records: Sequence[Mapping[str, Any]]):
        self.path, self.records = path, records
        self._size = 0

    def add(self) -> None:
        """Write the last record, the one that is not in the file yet. Raises RunError."""
        line = _line(self.records[-1])
        try:
            with open(self.path, "r+b") as file:
                whole = file.seek(0, 2) == self._size
                if whole:
                    file.write(line.encode())
        except FileNotFoundError:
            whole = False
        except OSError as error:
            raise RunError(f"{self.path}: cannot write the log ({error.strerror or error})") from error
        if whole:
            self._size += len(line)
        else:
            self.write()

    def check(self) -> None:
        """Write the file anew unless it is whole. Raises RunError."""
        there = -1
        with suppress(OSError):
            there = self.path.stat().st_size
        if there != self._size:
            self.write()

    def write(self) -> None:
        """Write all records. Raises RunError."""
        text = "".join(map(_line, self.records))
        write_text(self.path, text)
        self._size = len(text)


def _line(record: Mapping[str, Any]) -> str:
    return json.dumps(record) + "\n"  # ASCII: as many bytes as letters


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The records of a log up to the first line that is not whole, as after a full disk; none where there is no file.

    Raises RunError when it cannot be read.
    """
    records = []
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return []
    except OSError as error:
        raise RunError(f"{path}: cannot be read ({error.strerror or error})") from error
    with suppress(ValueError):
        for line in text.splitlines():
            records.append(json.loads(line))
    return records
