"""What every command prints: tables that a narrow terminal does not cut, names that do not rewrite it."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner

from tests.bundles import seeded_react
from vidtad.cli import app, common
from vidtad.cli.common import print_table, visible
from vidtad.evaluation.tables import Table
from vidtad.formats.shared import file_stems
from vidtad.hub.bundle import load_bundle


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


def test_a_name_with_a_line_break_stays_on_one_line(tmp_path: Path) -> None:
    (tmp_path / "t.json").write_text('{"results": {"v": [{"label": "a", "score": 0.5, "segment": [0, 1]}]}}')
    for out in (tmp_path / "a\nforged: line.csv", tmp_path / "b\nforged.html"):
        command = ["convert", str(tmp_path / "t.json"), "--to", "csv", "--out", str(out)]
        command = ["report", str(tmp_path / "t.json"), "--out", str(out)] if out.suffix == ".html" else command
        result = CliRunner().invoke(app, command)
        assert result.exit_code == 0 and "\\x0aforged" in result.stdout
        assert not any(line.startswith("forged") for line in result.output.splitlines())


@pytest.mark.parametrize("breaking", ["\x1b[31m", "\n", "\u202e"])
def test_features_without_a_sidecar_are_named_escaped(tmp_path: Path, breaking: str) -> None:
    bundle = seeded_react(tmp_path / "b.safetensors")
    np.save(tmp_path / f"v{breaking}x.npy", np.zeros((40, load_bundle(bundle).width), np.float32))
    features = str(tmp_path / f"v{breaking}x.npy")
    grid = ["--fps", "25", "--stride", "4", "--window", "16"]
    command = ["detect", features, "--model", str(bundle), *grid, "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0 and "no sidecar says what its rows are of" in result.stderr
    assert f"v{breaking}x" not in result.output


def test_control_characters_are_shown_not_sent(tmp_path: Path) -> None:
    assert visible("a\x1b[2J\x07\r\x7f\x9b b\n漢\t") == "a\\x1b[2J\\x07\\x0d\\x7f\\x9b b\\x0a漢\t"
    assert visible("a\u202eb\u2028c\u2066d") == "a\\u202eb\\u2028c\\u2066d"
    label, video = "\x1b[31mred", "v\x1b]0;title\x07"
    truth = {"database": {video: {"subset": "test", "annotations": [{"label": label, "segment": [0, 1]}]}}}
    found = {"results": {video: [{"label": label, "score": 0.5, "segment": [0, 1]}], "\x1b[2Jother": []}}
    (tmp_path / "gt.json").write_text(json.dumps(truth))
    (tmp_path / "found.json").write_text(json.dumps(found))
    for command in (("evaluate", "gt.json", "found.json"), ("labels", "check", "gt.json"), ("convert", "found.json")):
        more = ("--to", "cvat") if command[0] == "convert" else ()
        result = CliRunner().invoke(app, [*(str(tmp_path / c) if "." in c else c for c in command), *more], color=True)
        assert "\\x1b" in result.output and "\x1b[31" not in result.output and "\x1b[2J" not in result.output


def test_names_of_windows_devices_become_other_file_names() -> None:
    assert file_stems(["CON", "com1.x", "..", "", "fine"]) == {
        "CON": "_CON",
        "com1.x": "_com1.x",
        "..": "video",
        "": "video_2",
        "fine": "fine",
    }
