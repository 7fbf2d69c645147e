"""Ctrl-C at a terminal, which every process of the command hears, not the first alone."""

import json
import os
import signal
from pathlib import Path

import pytest

from tests.cli.test_batches import POSIX, bundle, clips, run, start, wait_until

__all__ = ["bundle", "clips"]


@POSIX
def test_workers_leave_nothing_half_done_and_nothing_is_done_twice(
    clips: Path, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary, out = tmp_path / "temporary", tmp_path / "out"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    command = ("detect", clips, "--model", bundle, "--weights", "random:3", "--out", out)
    process = start(*command, "--workers", 2, start_new_session=True)
    wait_until(lambda: any(out.glob("*.json")), process)
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 130 and "interrupted" in said and "Traceback" not in said, said
    left = [path for path in out.rglob("*") if path.is_file()]
    kept = {path: path.stat().st_mtime_ns for path in left if path.suffix == ".json"}
    assert kept and not [path for path in left if path.name.endswith((".lock", ".tmp"))], left
    assert not list(temporary.rglob("vidtad*")), "temporary files are left"
    result = run(*command, "--json")
    assert result.exit_code == 0 and json.loads(result.stdout), result.stderr
    assert {path: path.stat().st_mtime_ns for path in kept} == kept, "what was finished is not done again"
    names = {path.name for path in out.iterdir()}
    assert names == {f"{name}.{kind}" for name in "abcd" for kind in ("json", "csv")}
