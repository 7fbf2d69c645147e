"""Packages that add heads, extractors and formats, as pip installs them."""

import base64
import hashlib
import json
import os
import re
import subprocess
import sys
import zipfile
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from tests.clips import numbered_frames, write_clip
from tests.training.test_loop import planted_videos
from vidtad.extractors import PRESETS
from vidtad.features import Features, Grid, Provenance, save_features
from vidtad.pipelines.extract.load import load_extractor
from vidtad.video import VideoInfo

RATE = Fraction(15)
EXAMPLE = Path(__file__).parent / "plugin_example"


def wheel(folder: Path, package: str, module: str, source: str, points: dict[str, dict[str, str]]) -> Path:
    """A wheel of one module with entry points {group: {name: object}}."""
    info = f"{package.replace('-', '_')}-1.0.dist-info"
    groups = "\n".join(
        f"[{group}]\n" + "".join(f"{name} = {value}\n" for name, value in names.items())
        for group, names in points.items()
    )
    files = {
        f"{module}.py": source,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": groups,
    }
    record = ""
    for name, text in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
        record += f"{name},sha256={digest},{len(text.encode())}\n"
    files[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n"
    path = folder / f"{package.replace('-', '_')}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return path


def installed(folder: Path, *wheels: Path) -> Path:
    command = [sys.executable, "-m", "pip", "install", "--no-index", "--no-deps", "--disable-pip-version-check", "-q"]
    subprocess.run([*command, "--target", str(folder), *map(str, wheels)], check=True, capture_output=True)
    return folder


def vidtad(site: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    paths = [str(site), str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    command = [sys.executable, "-m", "vidtad", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)


def groups_of(pyproject: str) -> dict[str, dict[str, str]]:
    found = re.findall(r'^\[project\.entry-points\."(.+?)"\]\n((?:\w+ = ".+"\n)+)', pyproject, re.MULTILINE)
    return {group: dict(re.findall(r'^(\w+) = "(.+)"$', lines, re.MULTILINE)) for group, lines in found}


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("example")
    points = groups_of((EXAMPLE / "pyproject.toml").read_text())
    assert points.keys() == {"vidtad.heads", "vidtad.formats"}
    source = (EXAMPLE / "vidtad_example.py").read_text()
    return installed(folder / "site", wheel(folder, "vidtad-example", "vidtad_example", source, points))


def planted(folder: Path) -> Path:
    """Features of six videos in `folder`/features, as of an extractor that exists; returns the label file."""
    convention, database = PRESETS["tiny3d"].convention, {}
    weights = load_extractor("tiny3d", "random:0").weights_sha256
    settings = {**convention.to_json(), "random_weights": True}
    for video in planted_videos(6):
        steps, frames = len(video.values), len(video.values) * convention.stride
        values = np.pad(video.values, ((0, 0), (0, convention.width - video.values.shape[1])))
        info = VideoInfo(f"{video.name}.mp4", 64, 48, RATE, float(frames / RATE), frames)
        grid = Grid.regular(RATE, convention.stride, convention.window, steps)
        provenance = Provenance("tiny3d", convention.channels, "random:0", weights, "cd" * 32, settings)
        save_features(Features(values, grid, info, provenance), folder / "features", video.name)
        seconds = grid.seconds(video.segments - 0.5).clip(0, info.duration_s)
        database[video.name] = {
            "subset": "training",
            "duration": info.duration_s,
            "annotations": [
                {"label": f"class{label}", "segment": [float(start), float(end)]}
                for (start, end), label in zip(seconds, video.labels, strict=True)
            ],
        }
    path = folder / "labels.json"
    path.write_text(json.dumps({"database": database}))
    return path


def test_a_head_of_a_package_trains_and_detects(example: Path, tmp_path: Path) -> None:
    labels = planted(tmp_path)
    train = (
        "train",
        "--annotations",
        labels,
        "--features",
        tmp_path / "features",
        "--model",
        "threshold",
        "--val-fraction",
        0,
    )
    made = vidtad(example, *train, "--out", tmp_path / "own.safetensors")
    assert made.returncode == 0, made.stderr
    bundle, out = tmp_path / "own.safetensors", tmp_path / "out"
    shown = vidtad(
        example, "detect", tmp_path / "features" / "v0.npy", "--model", bundle, "--out", out, "--format", "lines"
    )
    assert shown.returncode == 0, shown.stderr
    timeline = json.loads((out / "v0.json").read_text())
    assert {found["label"] for found in timeline["results"]["v0"]} <= {"class0", "class1", "class2"}
    assert timeline["results"]["v0"] and timeline["detector"]["head"] == "threshold"
    assert (out / "v0.lines").read_text().splitlines() == [found["label"] for found in timeline["results"]["v0"]]


def test_without_the_package_its_name_is_refused_in_a_sentence(tmp_path: Path) -> None:
    arguments = ("--annotations", planted(tmp_path), "--features", tmp_path / "features", "--model", "threshold")
    missing = vidtad(tmp_path, "train", *arguments, "--out", tmp_path / "own.safetensors")
    assert missing.returncode == 2 and "no trainable head is called 'threshold'" in missing.stderr


BROKEN = {
    "vidtad.heads": ("models", "show", "none-such"),
    "vidtad.extractors": ("extract", "x.mp4", "--extractor", "none-such"),
    "vidtad.formats": ("convert", "missing.json", "--to", "none-such"),
}


@pytest.mark.parametrize("group", BROKEN)
def test_a_plug_in_that_cannot_be_imported_costs_one_line(group: str, tmp_path: Path) -> None:
    site = installed(
        tmp_path / "site",
        wheel(tmp_path, "broken", "broken", 'raise OSError("no\\ndriver")\n', {group: {"x": "broken:X"}}),
    )
    (tmp_path / "missing.json").write_text("{}")
    write_clip(tmp_path / "x.mp4", numbered_frames(20))
    arguments = [tmp_path / word if "." in word else word for word in BROKEN[group]]
    before, after = vidtad(tmp_path, *arguments), vidtad(site, *arguments)
    line = f"vidtad: {group} 'x' of broken cannot be imported (OSError: no); it is left out"
    assert after.stderr.splitlines().count(line) == 1
    assert [text for text in after.stderr.splitlines() if text != line] == before.stderr.splitlines()
    assert (after.returncode, after.stdout) == (before.returncode, before.stdout)


def test_a_name_that_is_taken_is_refused(tmp_path: Path) -> None:
    source = 'from vidtad.formats.interchange import Format\nMINE = Format("mine", lambda t: {".csv": "mine"})\n'
    two = [
        wheel(tmp_path, name, name, source, {"vidtad.formats": {"csv": f"{name}:MINE", "new": f"{name}:MINE"}})
        for name in ("first", "second")
    ]
    script = (
        "import warnings\nfrom vidtad.formats.interchange import FORMATS\n"
        "with warnings.catch_warnings(record=True) as said:\n"
        "    warnings.simplefilter('always')\n    print(FORMATS['csv'].says, FORMATS['new'].says, 'none' in FORMATS)\n"
        "print(*[w.message for w in said], sep='\\n')"
    )
    site = installed(tmp_path / "site", *two)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(site), str(Path(__file__).parents[1])])}
    shown = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment, check=True)
    first, *rest = shown.stdout.splitlines()
    assert first == "one row a segment mine False"
    assert len(rest) == 3 and all(line.endswith("the name is taken; it is left out") for line in rest)
    assert sum("'csv' of" in line for line in rest) == 2 and sum("'new' of" in line for line in rest) == 1


def test_help_asks_no_package(tmp_path: Path) -> None:
    source = 'import pathlib\npathlib.Path(__file__).with_name("asked").touch()\nX = 1\n'
    groups = {group: {"x": "curious:X"} for group in BROKEN}
    site = installed(tmp_path / "site", wheel(tmp_path, "curious", "curious", source, groups))
    assert vidtad(site, "--help").returncode == 0
    assert not (site / "asked").exists()
    assert "is no HeadSpec" in vidtad(site, "models", "show", "none-such").stderr
    assert (site / "asked").exists()
