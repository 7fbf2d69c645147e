"""What the application as a whole answers when the work fails in ways nobody foresaw."""

from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from vidtad.cli import app


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), "out of memory; try a smaller"),
        (RuntimeError("MPS backend out of memory (MPS allocated: 1 GB)"), "out of memory; try a smaller"),
        (MemoryError(), "out of memory; try a smaller"),
        (RuntimeError("shapes differ"), "internal error (RuntimeError: shapes differ)"),
    ],
)
def test_memory_that_runs_out_is_no_internal_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: Exception, sentence: str
) -> None:
    def fails(*arguments: object, **options: object) -> None:
        raise error

    monkeypatch.setattr("vidtad.synth.write_clips", fails)
    result = CliRunner().invoke(app, ["synth", "--videos", "1", "--out", str(tmp_path / "o")])
    assert result.exit_code == 1
    assert result.stderr.startswith(f"vidtad: {sentence}") and len(result.stderr.splitlines()) == 1
