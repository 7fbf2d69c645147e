"""The Dockerfile, which no test builds: it copies what is there and let through, and runs as nobody special."""

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
LINES = (ROOT / "Dockerfile").read_text().replace("\\\n", " ").splitlines()


def words(instruction: str) -> list[list[str]]:
    return [line.split()[1:] for line in LINES if line.startswith(f"{instruction} ")]


def test_what_is_copied_is_there_and_let_through() -> None:
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    through = {line[1:] for line in ignored if line.startswith("!")}
    copied = {source for *sources, _ in words("COPY") for source in sources}
    assert ignored[0] == "*" and copied == through
    assert all((ROOT / source).exists() for source in copied)


def test_everything_that_the_package_is_built_from_is_copied() -> None:
    project = (ROOT / "pyproject.toml").read_text()
    needed = {name for name in re.findall(r'^(?:readme|packages) = \[?"([^"]+)"', project, re.MULTILINE)}
    assert needed == {"README.md", "vidtad"} <= {source for *sources, _ in words("COPY") for source in sources}


def test_it_runs_the_command_as_another_user() -> None:
    order = [line.split()[0] for line in LINES if line and line[0].isalpha()]
    assert words("USER") == [["vidtad"]] and order.index("USER") > max(i for i, w in enumerate(order) if w == "RUN")
    assert words("ENTRYPOINT") == [['["vidtad"]']] and words("ARG") == [["DEVICE=cpu"]]
