"""What goes with a process, and what the next one removes of a dead one's."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from vidtad.runtime.endings import at_end, end_all, temporary_folder

HOLD = """
import sys
from vidtad.runtime.endings import temporary_folder
with temporary_folder() as folder:
    (folder / "x").touch()
    print(folder, flush=True)
    sys.stdin.read()
"""


def holder(root: Path) -> "tuple[subprocess.Popen[str], Path]":
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, "TMPDIR": str(root)},
    )  # fmt: skip
    assert process.stdout
    return process, Path(process.stdout.readline().strip())


@pytest.mark.skipif(os.name == "nt", reason="files are locked otherwise there")
def test_folders_of_dead_processes_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    (dead, left), (live, used) = holder(tmp_path), holder(tmp_path)
    dead.kill()
    dead.wait()
    (tmp_path / "vidtad-notes").mkdir()
    with temporary_folder() as folder:
        assert folder.parent.parent == tmp_path and not list(folder.iterdir())
        assert not left.exists() and (used / "x").exists()
    live.communicate()
    assert [path.name for path in tmp_path.iterdir()] == ["vidtad-notes"]


def test_what_is_to_be_ended_is_ended_once(tmp_path: Path) -> None:
    called: list[str] = []

    def fails() -> None:
        called.append("fails")
        raise OSError

    forget = [at_end(fails), at_end(lambda: called.append("second")), at_end(lambda: called.append("taken back"))]
    forget[2]()
    end_all()
    assert sorted(called) == ["fails", "second"]
    for one in forget:
        one()
    end_all()
    assert len(called) == 2
