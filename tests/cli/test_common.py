"""What every command prints: tables that a narrow terminal does not cut, names that do not rewrite it."""

import io
import json
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from vidtad.cli import app, common
from vidtad.cli.common import print_table, visible
from vidtad.evaluation.tables import Table


@pytest.mark.parametrize(("width", "fits"), [(140, True), (80, True), (60, False)])
def test_no_number_is_cut(width: int, fits: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    text = io.StringIO()
    monkeypatch.setattr(common, "console", lambda: Console(file=text, width=width))
    header = ("class", *(f"{50 + 5 * k} %" for k in range(10)), "mean")
    print_table(Table("Average precision", header, (("a class of words", *["100.0"] * 11), ("mAP", *["99.5"] * 11))))
    lines = text.getvalue().splitlines()
    assert "…" not in text.getvalue()
    assert sum(line.count("100.0") for line in lines) == 11 and max(line.count("100.0") for line in lines) == 11
    assert (max(map(len, lines)) <= width) == fits


def test_control_characters_are_shown_not_sent(tmp_path: Path) -> None:
    assert visible("a\x1b[2J\x07\r\x7f\x9b b\n漢\t") == "a\\x1b[2J\\x07\\x0d\\x7f\\x9b b\n漢\t"
    label, video = "\x1b[31mred", "v\x1b]0;title\x07"
    truth = {"database": {video: {"subset": "test", "annotations": [{"label": label, "segment": [0, 1]}]}}}
    found = {"results": {video: [{"label": label, "score": 0.5, "segment": [0, 1]}], "\x1b[2Jother": []}}
    (tmp_path / "gt.json").write_text(json.dumps(truth))
    (tmp_path / "found.json").write_text(json.dumps(found))
    for command in (("evaluate", "gt.json", "found.json"), ("labels", "check", "gt.json"), ("convert", "found.json")):
        more = ("--to", "cvat") if command[0] == "convert" else ()
        result = CliRunner().invoke(app, [*(str(tmp_path / c) if "." in c else c for c in command), *more], color=True)
        assert "\\x1b" in result.output and "\x1b[31" not in result.output and "\x1b[2J" not in result.output
