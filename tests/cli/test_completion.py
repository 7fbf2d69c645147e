"""TAB: scripts for shells, commands and options, and values that agree with the tables that commands look in."""

import os
import subprocess
import sys
from collections.abc import Iterator
from inspect import signature
from pathlib import Path

import pytest
import typer

from vidtad.cli import app
from vidtad.cli import completion as offered
from vidtad.cli.completion import OFFERS, SEVERAL


def run(folder: Path, *arguments: str, **more: str) -> "subprocess.CompletedProcess[str]":
    """The command line with a home folder of its own, where nobody looks which shell is running."""
    environment = os.environ | {"HOME": str(folder), "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"} | more
    command = [sys.executable, "-m", "vidtad", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=folder, check=False)


def tab(folder: Path, line: str) -> list[str]:
    """What bash is offered behind `line`."""
    number = len(line.split()) - (0 if line.endswith(" ") else 1)
    asked = {"_VIDTAD_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(number)}
    result = run(folder, **asked)
    assert result.returncode == 0 and not result.stderr, result.stderr
    return result.stdout.split()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish", "powershell"])
def test_a_script_for_each_shell(shell: str, tmp_path: Path) -> None:
    result = run(tmp_path, "--show-completion", shell)
    assert result.returncode == 0 and "_VIDTAD_COMPLETE" in result.stdout
    assert f"complete_{shell}" in result.stdout
    assert "python" not in result.stdout  # the script completes `vidtad`, however it was asked for


def test_install_writes_into_the_home_folder(tmp_path: Path) -> None:
    result = run(tmp_path, "--install-completion", "bash")
    assert result.returncode == 0, result.stderr
    script = tmp_path / ".bash_completions" / "vidtad.sh"
    assert "complete_bash" in script.read_text() and str(script) in (tmp_path / ".bashrc").read_text()


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("vidtad de", ["detect", "demo"]),
        ("vidtad models f", ["fetch"]),
        ("vidtad detect --mod", ["--model"]),
        ("vidtad detect --model react", ["react", "react-thumos14"]),
        ("vidtad convert a.json --to srt,el", ["srt,elan"]),
        ("vidtad evaluate --protocol multi", ["multithumos"]),
        ("vidtad extract --extractor i3d/f", ["i3d/flow"]),
        ("vidtad models fetch i3d-rgb-ch", ["i3d-rgb-charades"]),
        ("vidtad models convert f --from o", ["opentad"]),
        ("vidtad detect mat", []),  # the shell completes files, when nothing is offered
        ("vidtad detect a.mp4 --boxes mat", []),
    ],
)
def test_what_tab_offers(line: str, words: list[str], tmp_path: Path) -> None:
    (tmp_path / "match.mp4").touch()
    assert tab(tmp_path, line) == words


def test_tab_imports_no_torch() -> None:
    script = "import sys\nfrom vidtad.cli.completion import OFFERS\n"
    script += "[list(words() if callable(words) else words) for words in OFFERS.values()]\nprint(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "cv2", "av", "scipy"} & set(loaded)


def test_a_table_that_cannot_be_read_offers_nothing() -> None:
    def broken() -> list[str]:
        raise OSError("no such folder")

    assert offered._offer(broken, False)("") == []


def test_names_are_those_of_the_tables() -> None:
    from vidtad.extractors import PRESETS
    from vidtad.extractors.person_presets import TRUNKS
    from vidtad.flow import LEARNED, METHODS
    from vidtad.heads.person.boxes import DETECTORS
    from vidtad.heads.person.recipes import PEOPLE_PRESETS
    from vidtad.heads.registry import HEADS

    presets = {name for spec in HEADS.values() if spec.recipe is not None for name in spec.recipe().presets}
    assert set(offered.EXTRACTORS) == set(PRESETS)
    assert set(offered.TRUNKS) == set(TRUNKS)
    assert set(offered.FLOWS) == {*METHODS, *LEARNED}
    assert set(offered.PRESETS) == presets and set(offered.PEOPLE_PRESETS) == set(PEOPLE_PRESETS)
    assert set(OFFERS["persons"]) == {*DETECTORS, "own"}  # type: ignore[arg-type]


def parameters() -> Iterator[tuple[str, str]]:
    """(command, name) of every option and argument; the group before a command's name, and a dot between."""
    for group, before in ((app, ""), *((entry.typer_instance, f"{entry.name}.") for entry in app.registered_groups)):
        assert isinstance(group, typer.Typer)
        for entry in group.registered_commands:
            assert entry.callback is not None
            for name in signature(entry.callback).parameters:
                yield f"{before}{entry.name or entry.callback.__name__}", name


def test_every_offer_is_of_a_parameter() -> None:
    known = {name for _, name in parameters()} | {f"{command}.{name}" for command, name in parameters()}
    assert set(OFFERS) | SEVERAL <= known
