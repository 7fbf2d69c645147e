"""Ctrl-C at a terminal, which every process of the command hears, not the first alone."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.test_batches import POSIX, TINY, bundle, clips, heed_interrupts, run, start, wait_until
from tests.pipelines.batches.test_run import alive, workers_of
from tests.pipelines.toys import items

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


@POSIX
@pytest.mark.parametrize(("number", "code", "word"), [("SIGTERM", 143, "terminated"), ("SIGHUP", 129, "closed")])
def test_what_schedulers_and_terminals_send_ends_as_ctrl_c_does(
    clips: Path, bundle: Path, tmp_path: Path, number: str, code: int, word: str
) -> None:
    out = tmp_path / "out"
    process = start("extract", clips, *TINY, "--out", out, "--batch", 1, "--workers", 2, start_new_session=True)
    wait_until(lambda: any(out.glob(".*.rows")), process)
    process.send_signal(getattr(signal, number))
    _, said = process.communicate(timeout=120)
    assert process.returncode == code and said.count(word) == 1 and "Traceback" not in said, said
    assert not [path for path in out.iterdir() if path.name.endswith((".lock", ".tmp"))]


@POSIX
def test_nohup_is_heeded(tmp_path: Path) -> None:
    script = "import os, signal\nfrom vidtad.cli.interrupts import ends_on_interrupt\n"
    script += "signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
    script += "with ends_on_interrupt(): os.kill(os.getpid(), signal.SIGHUP); print('on')"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "on\n"), done.stderr


@POSIX
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_workers_in_native_code_end_with_the_command(tmp_path: Path, number: signal.Signals) -> None:
    (path,) = items(tmp_path / "in", {"a": "deaf"})
    script = "import sys\nfrom pathlib import Path\nfrom tests.pipelines.toys import Toy\n"
    script += "from vidtad.cli.interrupts import code_of, ends_on_interrupt, number_of\n"
    script += "from vidtad.pipelines.batches.run import run\nfrom vidtad.pipelines.batches.local import Setup\n"
    script += "if __name__ == '__main__':\n with ends_on_interrupt():\n  try:\n"
    script += f"   list(run([Path({str(path)!r})], Toy(Path({str(tmp_path)!r})), Setup(workers=1)))\n"
    script += "  except KeyboardInterrupt as error:\n   sys.exit(code_of(number_of(error)))\n"
    (tmp_path / "command.py").write_text(script)
    process = subprocess.Popen(
        [sys.executable, str(tmp_path / "command.py")],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=heed_interrupts,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    wait_until(lambda: (tmp_path / "a.died").exists(), process)
    process.send_signal(number)
    process.communicate(timeout=120)
    assert process.returncode == 128 + number
    (worker,) = workers_of(tmp_path)
    assert not alive(worker), "the worker outlives the command"
