"""A line of code lives in its room: what each part of the package may import, read from the source itself."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import vidtad

ROOT = Path(vidtad.__file__).parent
HEAVY = {"torch", "torchvision", "cv2", "av", "scipy", "numpy", "matplotlib", "ray"}

# Room -> the vidtad modules it must never import. Everything not named is allowed.
FORBIDDEN = {
    "models": {"video", "features", "timeline", "weights", "checkpoints", "bundle", "files", "extractors", "pipelines",
               "cli", "evaluation", "formats", "synth"},
    "video": {"models", "extractors", "pipelines", "cli", "features", "timeline", "weights", "bundle", "evaluation"},
    "extractors": {"pipelines", "cli", "timeline", "evaluation", "formats", "files", "weights", "checkpoints", "bundle",
                   "video"},
    "evaluation": {"models", "extractors", "pipelines", "cli", "video", "weights", "bundle"},
    "formats": {"models", "extractors", "pipelines", "cli", "video", "bundle", "evaluation"},
    "labels": {"models", "extractors", "pipelines", "cli", "video", "features", "weights", "bundle", "evaluation"},
    "synth": {"models", "extractors", "pipelines", "cli", "features", "weights", "bundle", "evaluation"},
    "pipelines": {"cli"},
    "training": {"pipelines", "cli", "formats", "labels", "evaluation", "weights", "checkpoints", "bundle", "timeline"},
    "flow": {"extractors", "pipelines", "cli", "video", "files", "weights", "checkpoints", "bundle", "timeline"},
    "report": {"models", "extractors", "pipelines", "cli", "weights", "checkpoints", "bundle", "evaluation"},
    "geometry.py": {"*"},
    "postprocess.py": {"*"},
    "windows.py": {"*"},
    "errors.py": {"*"},
    "features.py": {"models", "extractors", "pipelines", "cli", "weights", "bundle", "evaluation"},
    "timeline.py": {"models", "extractors", "pipelines", "cli", "weights", "bundle", "evaluation", "features"},
    "files.py": {"models", "extractors", "pipelines", "cli", "video", "features", "weights", "bundle", "evaluation"},
    "weights.py": {"models", "extractors", "pipelines", "cli", "video", "features", "timeline", "evaluation"},
    "bundle.py": {"models", "extractors", "pipelines", "cli", "video", "features", "timeline", "evaluation"},
}  # fmt: skip
ALLOWED_ALWAYS = {"errors", "geometry"}


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


def files_of(room: str) -> list[Path]:
    place = ROOT / room
    return [place] if place.suffix else sorted(place.rglob("*.py"))


@pytest.mark.parametrize("room", FORBIDDEN)
def test_imports_stay_in_their_room(room: str) -> None:
    own = room.removesuffix(".py")
    files = files_of(room)
    assert files, f"no such room: {room}"
    for path in files:
        rooms = {name.split(".")[1] for name in imports(path) if name.startswith("vidtad.")} - {own} - ALLOWED_ALWAYS
        wrong = rooms if "*" in FORBIDDEN[room] else rooms & FORBIDDEN[room]
        assert not wrong, f"{path.relative_to(ROOT)} imports vidtad.{min(wrong)}"


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


def test_temporal_detection_does_not_wait_for_torchvision() -> None:
    """Its operators pull PyTorch's compiler in, which takes longer than the rest of the start together."""
    script = "import sys, vidtad.pipelines.batches.tasks, vidtad.pipelines.detect.temporal; print(*sorted(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torchvision", "torch._dynamo", "scipy"} & set(loaded)
