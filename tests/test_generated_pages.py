"""What scripts write from the code is what is in docs/."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize(("script", "page"), [("draw_floors.py", "floors.svg"), ("cli_reference.py", "cli.md")])
def test_the_page_is_up_to_date(script: str, page: str, tmp_path: Path) -> None:
    fresh = tmp_path / page
    subprocess.run([sys.executable, ROOT / "scripts" / script, fresh], check=True, cwd=ROOT)
    assert fresh.read_text() == (ROOT / "docs" / page).read_text(), f"run: python scripts/{script} docs/{page}"


def test_the_reference_needs_no_torch() -> None:
    script = "import sys; sys.path.insert(0, 'scripts'); import cli_reference as c; c.reference(); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    assert "torch" not in loaded.stdout.split()
