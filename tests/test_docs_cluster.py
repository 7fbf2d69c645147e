"""The sums of docs/cluster.md come out, and begin with what was measured."""

import json
import re

import pytest

from tests.test_docs import ROOT

PAGE = (ROOT / "docs" / "cluster.md").read_text()
MEASURED = {
    "I3D RGB, stride 4": ("i3d-stride-4", 1),
    "I3D RGB, stride 16": ("i3d-stride-16", 1),
    "TSN": ("tsn", 1),
    "R(2+1)D-34": ("r2plus1d", 1),
    "SlowFast": ("slowfast", 1),
    "I3D RGB and TV-L1 flow, stride 4": ("i3d-stride-4", 2),
    "I3D RGB and TV-L1 flow, stride 16": ("i3d-stride-16", 2),
    "people: ACAR": ("acar", 1),
}


def number(text: str) -> float:
    return float(text.replace(" ", ""))


def rows() -> list[tuple[str, list[float]]]:
    """(what, [windows, a window, network, flow, all, core-hours of 10 000 h]) of each line of the table."""
    cells = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in PAGE.splitlines() if line.count("|") == 8
    ]
    return [(row[0], [number(cell) for cell in row[1:]]) for row in cells if re.match(r"\d", row[1])]


def stage(name: str) -> float:
    found = re.search(rf"^\| {name}[^|]*\| ([\d ]+) \|", PAGE, re.MULTILINE)
    assert found
    return number(found[1])


@pytest.mark.parametrize("what, values", rows(), ids=lambda value: value if isinstance(value, str) else "")
def test_each_row_adds_up(what: str, values: list[float]) -> None:
    windows, each, network, flow, everything, hours = values
    assert network == pytest.approx(windows * each, rel=0.005)
    segments = 0 if what.startswith("people") else 8 * windows / 22_500
    total = stage("decode") + stage("prepare") + windows * each + flow + segments
    assert everything == pytest.approx(total, rel=0.005)
    assert hours == pytest.approx(10_000 * total / 3600, rel=0.005)
    assert flow == (pytest.approx(90_000 * 0.13) if "TV-L1" in what else 0)


def test_the_table_begins_with_what_was_measured() -> None:
    cases = json.loads((ROOT / "benchmarks" / "results" / "extract-cpu.json").read_text())["cases"]
    measured = {case["case"]: case["ours"]["cpu_s_per_window"] for case in cases if case["threads"] == 1}
    found = rows()
    assert len(found) == len(MEASURED)
    for what, values in found:
        case, streams = MEASURED[max((key for key in MEASURED if what.startswith(key)), key=len)]
        assert values[1] == pytest.approx(streams * measured[case], rel=0.01), what
    pair = (measured["two-stream-stride-16"] - 2 * measured["i3d-stride-16"]) / 16
    assert pair == pytest.approx(0.13, abs=0.005)
