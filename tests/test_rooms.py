"""A line of code lives in its room: what each part of the package may import, read from the source itself."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import vidtad

ROOT = Path(vidtad.__file__).parent
HEAVY = {"torch", "torchvision", "cv2", "av", "scipy", "numpy", "matplotlib", "ray"}

# From the ground up. A module imports from floors below its own, and from its own room; imports inside functions count.
FLOORS = (
    {"secrecy"},
    {"errors", "geometry", "postprocess", "windows", "progress", "plugins"},
    {"runtime", "models", "notebook"},
    {"hub", "flow", "video", "synth"},
    {"extractors", "timeline"},
    {"formats"},
    {"arrays", "evaluation", "labels", "render", "training"},
    {"features", "heads"},
    {"pipelines"},
    {"api", "cli"},
    {"__init__", "__main__"},
)
FLOOR_OF = {room: number for number, floor in enumerate(FLOORS) for room in floor}


def imports(path: Path, top_level_only: bool = False) -> set[str]:
    """Full names of what a file imports; type-checking blocks excluded."""
    found: set[str] = set()

    def visit(nodes: list[ast.stmt]) -> None:
        for node in nodes:
            if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
                continue
            if isinstance(node, ast.Import):
                found.update(alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module:
                found.update(f"{node.module}.{alias.name}" for alias in node.names)
            elif not (top_level_only and isinstance(node, ast.FunctionDef | ast.ClassDef)):
                for field in ("body", "orelse", "finalbody"):
                    visit(getattr(node, field, []))
                for handler in getattr(node, "handlers", []):
                    visit(handler.body)

    visit(ast.parse(path.read_text()).body)
    return found


def room_of(path: Path) -> str:
    """The folder at the top of the package that a file lies in, or the file's own name."""
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def climbs(path: Path) -> list[str]:
    """What a file imports from its own floor or above, other than from its own room."""
    own = room_of(path)
    rooms = {name.split(".")[1] for name in imports(path) if name.startswith("vidtad.")} - {own, "__version__"}
    return sorted(room for room in rooms if FLOOR_OF.get(room, len(FLOORS)) >= FLOOR_OF[own])


def test_every_module_stands_on_a_floor() -> None:
    for path in sorted(ROOT.rglob("*.py")):
        assert room_of(path) in FLOOR_OF, f"{path.relative_to(ROOT)} stands on no floor: name its room in FLOORS"


def test_every_room_of_the_floors_is_there() -> None:
    assert {room_of(path) for path in ROOT.rglob("*.py")} == set(FLOOR_OF)


@pytest.mark.parametrize("room", sorted(FLOOR_OF))
def test_a_module_imports_from_floors_below_its_own(room: str) -> None:
    for path in sorted(ROOT.rglob("*.py")):
        if room_of(path) == room:
            assert not climbs(path), f"{path.relative_to(ROOT)} imports vidtad.{climbs(path)[0]}, no floor below"


def test_an_import_upward_is_seen_inside_a_function_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    (tmp_path / "models").mkdir()
    path = tmp_path / "models" / "x.py"
    path.write_text("def f():\n    from vidtad.pipelines import demo\n")
    assert climbs(path) == ["pipelines"]
    path.write_text("def f():\n    from vidtad.errors import InputError\n")
    assert climbs(path) == []


@pytest.mark.parametrize("library", ["typer", "rich", "click"])
def test_only_the_command_line_talks_to_the_terminal(library: str) -> None:
    for path in sorted(ROOT.rglob("*.py")):
        if "cli" not in path.relative_to(ROOT).parts:
            tops = {name.split(".")[0] for name in imports(path)}
            assert library not in tops, f"{path.relative_to(ROOT)} imports {library}"


def test_nothing_prints_outside_the_command_line() -> None:
    for path in sorted(ROOT.rglob("*.py")):
        if "cli" in path.relative_to(ROOT).parts:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            printing = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
            assert not printing, f"{path.relative_to(ROOT)}:{node.lineno} prints"


def test_no_pickle_is_ever_executed() -> None:
    for path in sorted(ROOT.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                continue
            owner = node.func.value.id if isinstance(node.func.value, ast.Name) else ""
            call = f"{owner}.{node.func.attr}"
            where = f"{path.relative_to(ROOT)}:{node.lineno}"
            assert call not in ("pickle.load", "pickle.loads", "np.fromregex"), where
            keywords = {keyword.arg: keyword.value for keyword in node.keywords}
            if call == "torch.load":
                assert getattr(keywords.get("weights_only"), "value", None) is True, where
            if call == "np.load":
                assert getattr(keywords.get("allow_pickle"), "value", None) is False, where


def test_help_imports_nothing_heavy() -> None:
    script = "import sys, vidtad.cli; print(*sorted(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    assert not HEAVY & {name.split(".")[0] for name in loaded}


def test_the_list_of_heads_imports_no_torch() -> None:
    script = "import sys, vidtad.heads.registry; list(vidtad.heads.registry.HEADS); print(*sorted(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "cv2", "av"} & {name.split(".")[0] for name in loaded}


def test_temporal_detection_does_not_wait_for_torchvision() -> None:
    """Its operators pull PyTorch's compiler in, which takes longer than the rest of the start together."""
    script = "import sys, vidtad.pipelines.batches.tasks, vidtad.pipelines.detect.temporal; print(*sorted(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torchvision", "torch._dynamo", "scipy"} & set(loaded)
