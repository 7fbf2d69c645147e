"""`vidtad train` end to end on generated clips, through the command line."""

import csv
import html
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from tests.clips import numbered_frames, write_clip
from vidtad.cli import app
from vidtad.errors import RunError
from vidtad.heads.react.recipe import ReActRecipe
from vidtad.hub.bundle import load_bundle
from vidtad.pipelines.train.callbacks import Watcher
from vidtad.pipelines.train.temporal import Sampling, TrainingJob, run_training
from vidtad.runtime.files import machine, sha256
from vidtad.runtime.locks import claim
from vidtad.synth import Level, write_clips

SHORT = Level(seconds=(5.0, 6.0), action_seconds=(0.8, 1.4), idle_seconds=(0.5, 0.9), width=96, height=80)
TINY = ("--extractor", "tiny3d", "--weights", "random:0")


@pytest.fixture(autouse=True, scope="module")
def few_windows() -> Iterator[None]:
    """Epochs of few batches."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ReActRecipe, "WINDOWS", 12)
        yield


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    write_clips(folder, range(8), SHORT, subset="")
    return folder


@pytest.fixture(scope="module")
def features(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("features")
    assert run("extract", clips, *TINY, "--out", folder).exit_code == 0
    return folder


@pytest.fixture(scope="module")
def trained(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    out = tmp_path_factory.mktemp("out") / "mine.safetensors"
    return out, run("train", "--videos", clips, "--annotations", clips / "ground_truth.json", *TINY, "--epochs", 3,
                    "--out", out)  # fmt: skip


def test_one_command_from_videos_to_a_bundle_that_detects(trained: tuple[Path, Result], tmp_path: Path) -> None:
    out, result = trained
    assert result.exit_code == 0, result.stderr
    assert "mAP" in result.stdout and "2 of 8 videos held out" in result.stderr
    bundle = load_bundle(out)
    assert bundle.extractor_weights is not None and bundle.extractor == "tiny3d" and not bundle.demonstration
    assert bundle.training["videos"] == {"train": 6, "validation": 2, "test": 0}
    assert bundle.training["random_weights"] is True and bundle.scores["validation"]["videos"] == 2
    alone = tmp_path / "handed over.safetensors"
    alone.write_bytes(out.read_bytes())
    write_clip(tmp_path / "new.mp4", numbered_frames(120), 15)
    detected = run("detect", tmp_path / "new.mp4", "--model", alone, "--out", tmp_path / "t")
    assert detected.exit_code == 0, detected.stderr
    rows = list(csv.DictReader((tmp_path / "t" / "new.csv").open()))
    assert rows and {row["label"] for row in rows} <= set(bundle.classes)


def test_what_lies_beside_the_bundle(trained: tuple[Path, Result]) -> None:
    out, _ = trained
    assert sorted(p.name for p in out.parent.iterdir()) == [
        "mine.report.html",
        "mine.safetensors",
        "mine.safetensors.work",
    ]
    (log,) = (out.parent / "mine.safetensors.work").glob("training-*/log.jsonl")
    records = [json.loads(line) for line in log.read_text().splitlines()]
    assert [r["epoch"] for r in records if "evaluation" in r] == [0, 1, 2]
    assert all(np.isfinite(r["loss"]) for r in records if "loss" in r)
    split = json.loads((log.parent / "split.json").read_text())
    assert len(split["train"]) == 6 and len(split["validation"]) == 2


def test_the_report_needs_nothing_else(trained: tuple[Path, Result]) -> None:
    page = (trained[0].parent / "mine.report.html").read_text()
    assert "http" not in page.replace("http-equiv", "") and "<script" not in page and 'src="data:image/jpeg' in page
    assert "<polyline" in page and "Average precision" in page and "held out" in page
    assert "default-src 'none'" in page


def test_the_report_holds_what_the_terminal_said(trained: tuple[Path, Result]) -> None:
    out, result = trained
    page = html.unescape((out.parent / "mine.report.html").read_text())
    assert "Warnings and notes" in page and "random extractor weights" in result.stderr
    for line in result.stderr.splitlines():
        assert line.removeprefix("vidtad: ").removeprefix("problem: ").removeprefix("note: ") in page, line


def test_by_which_protocol_it_is_scored_is_said(
    trained: tuple[Path, Result], clips: Path, features: Path, tmp_path: Path
) -> None:
    (line,) = [line for line in trained[1].stderr.splitlines() if "scores: protocol" in line]
    assert "thumos14" in line and "takes activitynet" in line and "--protocol thumos14" in line
    told: list[str] = []
    out = tmp_path / "a.safetensors"
    job = TrainingJob(clips / "ground_truth.json", out, features=features, epochs=1, seed=1, protocol="activitynet")
    trained_so = run_training(job, Watcher(say=told.append))
    assert trained_so.scores["validation"].protocol.name == "activitynet"
    (line,) = [line for line in told if line.startswith("scores: ")]
    assert "activitynet" in line and "as asked" in line and "to compare" not in line


def test_without_network_the_built_in_extractor_is_named(
    clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nothing(id: str) -> Path:
        raise RunError(f"{id}: cannot be reached")

    monkeypatch.setenv("VIDTAD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("vidtad.hub.download.fetch", nothing)
    out = tmp_path / "a.safetensors"
    result = run("train", "--videos", clips, "--annotations", clips / "ground_truth.json", "--out", out)
    assert result.exit_code == 1
    assert "cannot be reached" in result.stderr and "--extractor tiny3d" in result.stderr.splitlines()[-1]
    result = run("extract", clips, "--out", tmp_path / "f", "--quiet")
    assert result.exit_code == 1 and "--extractor tiny3d" in result.stderr


def test_a_second_run_gives_the_same_bytes_and_extracts_nothing(
    trained: tuple[Path, Result], clips: Path, tmp_path: Path
) -> None:
    out, _ = trained
    before = out.read_bytes()
    arrays = {p: p.stat().st_mtime_ns for p in out.parent.rglob("*.npy")}
    assert len(arrays) == 8
    out.unlink()
    again = run("train", "--videos", clips, "--annotations", clips / "ground_truth.json", *TINY, "--epochs", 3,
                "--out", out, "--json")  # fmt: skip
    assert again.exit_code == 0 and out.read_bytes() == before
    assert {p: p.stat().st_mtime_ns for p in out.parent.rglob("*.npy")} == arrays
    document = json.loads(again.stdout)
    assert document["bundle"] == str(out) and document["scores"]["validation"]["videos"] == 2


SMALLER = {
    "react": "from vidtad.heads.react.recipe import ReActRecipe; ReActRecipe.WINDOWS = 20",
    "actionformer": "from vidtad.heads.actionformer.recipe import ActionFormerRecipe as recipe; recipe.SEQUENCES = 20",
}


@pytest.mark.slow
@pytest.mark.parametrize("model", SMALLER)
def test_killed_and_started_again_it_gives_the_same_bytes(
    model: str, clips: Path, features: Path, tmp_path: Path
) -> None:
    def command(name: str) -> list[str]:
        (tmp_path / name).mkdir(exist_ok=True)
        arguments = ["train", "--features", features, "--annotations", clips / "ground_truth.json", "--epochs", 8,
                     "--model", model, "--out", tmp_path / name / "mine.safetensors"]  # fmt: skip
        return [sys.executable, "-c", script, *map(str, arguments)]

    script = f"{SMALLER[model]}; from vidtad.cli import main; main()"
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    subprocess.run(command("whole"), check=True, capture_output=True, env=environment)
    process = subprocess.Popen(command("killed"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
    work = tmp_path / "killed" / "mine.safetensors.work"

    def steps() -> int:
        return sum(len(log.read_text().splitlines()) for log in work.glob("training-*/log.jsonl"))

    while steps() < 5 and process.poll() is None:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "killed" / "mine.safetensors").exists()
    done = steps()
    subprocess.run(command("killed"), check=True, capture_output=True, env=environment)
    assert steps() > done
    whole, killed = ((tmp_path / name / "mine.safetensors").read_bytes() for name in ("whole", "killed"))
    assert whole == killed
    curves = [next((tmp_path / n).glob("*.work/training-*/log.jsonl")).read_text() for n in ("whole", "killed")]
    assert curves[0] == curves[1]


def test_a_second_training_of_one_bundle_is_told(clips: Path, features: Path, tmp_path: Path) -> None:
    out = tmp_path / "mine.safetensors"
    command = ("train", "--features", features, "--annotations", clips / "ground_truth.json", "--epochs", 1, "--out",
               out)  # fmt: skip
    left = tmp_path / "mine.safetensors.work" / "training-0" / f".checkpoint.pt.{machine()}-abcdefgh.tmp"
    left.parent.mkdir(parents=True)
    left.touch()
    with claim(tmp_path / ".mine.safetensors.lock"):
        result = run(*command)
        assert result.exit_code == 1 and "mine.safetensors: another process is at work on it" in result.stderr
        assert left.exists() and not out.exists()
    assert run(*command).exit_code == 0
    assert not left.exists(), "what a killed training left goes"
    assert {path.name for path in tmp_path.iterdir()} == {
        "mine.safetensors", "mine.safetensors.work", "mine.report.html",
    }  # fmt: skip


def test_the_bundle_names_the_labels_that_were_read(clips: Path, features: Path, tmp_path: Path) -> None:
    labels = tmp_path / "labels.json"
    shutil.copy(clips / "ground_truth.json", labels)
    digest = sha256(labels)

    def say(sentence: str) -> None:
        if sentence.startswith("split"):
            labels.write_text("{}")

    job = TrainingJob(labels, tmp_path / "mine.safetensors", features=features, epochs=1)
    assert run_training(job, Watcher(say=say)).bundle.training["labels_sha256"] == digest


def test_features_that_do_not_fit_their_sidecar_are_left_out(clips: Path, features: Path, tmp_path: Path) -> None:
    own = tmp_path / "features"
    shutil.copytree(features, own)
    spoilt = min(own.glob("*.npy"))
    np.save(spoilt, np.load(spoilt) + 1)
    result = run("train", "--features", own, "--annotations", clips / "ground_truth.json", "--epochs", 1, "--out",
                 tmp_path / "mine.safetensors")  # fmt: skip
    assert result.exit_code == 0
    assert f"{spoilt.stem} is left out: {spoilt}: does not match its sidecar" in result.stderr


def spoil(truth: Path, target: Path, change: Any) -> Path:
    document = json.loads(truth.read_text())
    change(document["database"])
    target.write_text(json.dumps(document))
    return target


def test_test_videos_change_nothing_but_their_own_score(clips: Path, features: Path, tmp_path: Path) -> None:
    def with_test(labels: list[str]) -> Any:
        def change(database: dict) -> None:
            for number, entry in enumerate(database.values()):
                entry["subset"] = "test" if number < 2 else "validation" if number < 4 else "train"
                if number < 2:
                    entry["annotations"] = [{"label": label, "segment": [1, 2]} for label in labels]

        return change

    bundles = []
    for name, labels in (("one", ["walk"]), ("two", ["wave", "jump"])):
        file = spoil(clips / "ground_truth.json", tmp_path / f"{name}.json", with_test(labels))
        out = tmp_path / name / "m.safetensors"
        result = run("train", "--features", features, "--annotations", file, "--epochs", 1, "--out", out)
        assert result.exit_code == 0, result.stderr
        bundles.append(load_bundle(out))
    first, second = bundles
    assert all((first.head_weights[k] == second.head_weights[k]).all() for k in first.head_weights)
    assert first.decoding == second.decoding and first.scores["validation"] == second.scores["validation"]
    assert first.scores["test"]["instances"] == 2 and second.scores["test"]["instances"] == 4


def test_hostile_names_are_escaped_and_classes_kept(clips: Path, features: Path, tmp_path: Path) -> None:
    name = "<script>alert(1)</script>&\"'"

    def change(database: dict) -> None:
        for entry in database.values():
            for action in entry["annotations"]:
                action["label"] = name if action["label"] in ("walk", "wave", "jump") else "[red]b[/red]"

    file = spoil(clips / "ground_truth.json", tmp_path / "l.json", change)
    out = tmp_path / "m.safetensors"
    result = run("train", "--features", features, "--annotations", file, "--epochs", 1, "--out", out)
    assert result.exit_code == 0, result.stderr
    page = (tmp_path / "m.report.html").read_text()
    assert "<script" not in page and "&lt;script&gt;" in page
    assert "[red]b[/red]" in result.stdout and set(load_bundle(out).classes) == {name, "[red]b[/red]"}


def one_class(database: dict) -> None:
    for entry in database.values():
        for action in entry["annotations"]:
            action["label"] = "move"


def test_one_class_trains_without_the_contrastive_phase(clips: Path, features: Path, tmp_path: Path) -> None:
    file = spoil(clips / "ground_truth.json", tmp_path / "l.json", one_class)
    out = tmp_path / "m.safetensors"
    result = run("train", "--features", features, "--annotations", file, "--epochs", 1, "--out", out)
    assert result.exit_code == 0 and "one class only" in result.stderr


def test_nothing_held_out_is_said(clips: Path, features: Path, tmp_path: Path) -> None:
    result = run("train", "--features", features, "--annotations", clips / "ground_truth.json", "--epochs", 1,
                 "--val-fraction", 0, "--out", tmp_path / "m.safetensors")  # fmt: skip
    assert result.exit_code == 0 and "nothing is known" in result.stdout
    assert load_bundle(tmp_path / "m.safetensors").scores == {}


def test_a_preset_prints_the_published_row(clips: Path, features: Path, tmp_path: Path) -> None:
    result = run("train", "--features", features, "--annotations", clips / "ground_truth.json", "--epochs", 1,
                 "--preset", "thumos14", "--out", tmp_path / "m.safetensors")  # fmt: skip
    assert result.exit_code == 0, result.stderr
    rows = [line.split() for line in result.stdout.splitlines() if line.split()[:1] in (["published"], ["here,"])]
    assert rows[0] == ["published", "70.8", "65.9", "57.8", "47.2", "34.2", "55.2"] and rows[1][1] == "validation"
    bundle = load_bundle(tmp_path / "m.safetensors")
    assert bundle.head_config["queries"] == 40 and bundle.head_config["width"] == 256


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--annotations", "none.json", "--videos", "clips"], "cannot be read"),
        (["--annotations", "other.csv", "--videos", "clips"], "holds no labelled video"),
        (["--annotations", "truth.json"], "pass --videos"),
        (["--annotations", "truth.json", "--videos", "nowhere"], "no such folder"),
        (["--annotations", "truth.json", "--videos", "clips", "--model", "reakt"], "cannot be trained"),
        (["--annotations", "truth.json", "--videos", "clips", "--val-fraction", "1.5"], "between 0 and 1"),
        (["--annotations", "truth.json", "--features", "features", "--preset", "thumos15"], "there is thumos14"),
        (["--annotations", "truth.json", "--videos", "clips", "--protocol", "ava"], "scores boxes of people"),
        (["--annotations", "truth.json", "--videos", "clips", "--protocol", "thumos15"], "is not known"),
        (["--annotations", "truth.json", "--videos", "clips", "--extractor", "tiny4d"], "tiny3d"),
        (["--annotations", "truth.json", "--videos", "clips", "--out", "m.pth"], ".safetensors"),
        (["--annotations", "missing.json", "--features", "features", "--strict"], "not clean"),
        (["--annotations", "late.json", "--features", "features"], "no segment lies inside"),
        (["--annotations", "empty_val.json", "--videos", "clips"], "no segment in the validation videos"),
        (["--annotations", "single.json", "--videos", "clips"], "no video can be held out"),
        (["--annotations", "truth.json", "--features", "features", "--weights", "random:3"], "made with weights"),
        (["--annotations", "truth.json", "--features", "bare"], "sidecar"),
    ],
)
def test_what_cannot_be_trained_is_one_sentence(
    arguments: list[str], sentence: str, clips: Path, features: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    os.symlink(clips, "clips")
    os.symlink(features, "features")
    truth = clips / "ground_truth.json"
    Path("truth.json").write_bytes(truth.read_bytes())
    Path("other.csv").write_text("video,start,end,label\nz,0,1,walk\n")
    Path("bare").mkdir()
    first = next(iter(json.loads(truth.read_text())["database"]))
    np.save(f"bare/{first}.npy", np.zeros((9, 4), np.float32))

    def late(database: dict) -> None:
        for entry in database.values():
            entry["annotations"] = [{"label": "walk", "segment": [100, 200]}]

    def empty_validation(database: dict) -> None:
        for number, entry in enumerate(database.values()):
            entry["subset"] = "val" if number < 2 else "train"
            entry["annotations"] = entry["annotations"] if number >= 2 else []

    def single(database: dict) -> None:
        for name in list(database)[1:]:
            del database[name]

    spoil(truth, Path("missing.json"), lambda database: database.update(gone={"annotations": []}))
    spoil(truth, Path("late.json"), late)
    spoil(truth, Path("empty_val.json"), empty_validation)
    spoil(truth, Path("single.json"), single)
    if "--out" not in arguments:
        arguments = [*arguments, "--out", "m.safetensors"]
    if "--videos" in arguments and "--extractor" not in arguments:
        arguments = [*arguments, "--extractor", "tiny3d", "--weights", "random"]
    result = run("train", *arguments, "--epochs", "1")
    assert result.exit_code == 2 and not Path("m.safetensors").exists(), result.output
    assert sentence in result.stderr.splitlines()[-1] and "Traceback" not in result.output
    assert result.stdout == ""
    assert "--videos" not in arguments or not Path("m.safetensors.work").exists(), "said before hours of extraction"


def write_planted(folder: Path, count: int, seed: int = 0) -> Path:
    """Feature files without sidecars in which channel c is raised while action c happens; and their labels."""
    random = np.random.default_rng(seed)
    database = {}
    for number in range(count):
        values = random.normal(0, 0.3, (60, 6)).astype(np.float32)
        annotations = []
        for start in (4, 22, 40):
            length, label = int(random.integers(6, 12)), int(random.integers(3))
            values[start : start + length, label] += 2
            # Rows are 5 frames apart at 10 frames a second, and 5 frames wide: row i covers [i, i + 1] / 2 s.
            segment = [start / 2, (start + length) / 2]
            annotations.append({"label": f"action {label}", "segment": segment})
        np.save(folder / f"v{number}.npy", values)
        database[f"v{number}"] = {"fps": 10, "annotations": annotations}
    path = folder / "truth.json"
    path.write_text(json.dumps({"database": database}))
    return path


@pytest.mark.slow
def test_planted_actions_are_learnt_from_features_without_sidecars(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ReActRecipe, "WINDOWS", 64)
    truth = write_planted(tmp_path, 20)
    job = TrainingJob(truth, tmp_path / "m.safetensors", features=tmp_path, sampling=Sampling(None, 5, 5), epochs=30)
    result = run_training(job)
    assert result.scores["validation"].average_mAP > 0.8
    assert result.operating is not None and result.operating.f1 > 0.7
    assert result.bundle.extractor == "unknown" and result.bundle.sampling["stride"] == 5
    again = run("detect", tmp_path / "v0.npy", "--model", result.path, "--fps", 10, "--stride", 5, "--window", 5,
                "--out", tmp_path / "t")  # fmt: skip
    assert again.exit_code == 0, again.stderr


def test_help_has_an_example() -> None:
    result = run("train", "--help")
    assert result.exit_code == 0 and "Example: vidtad" in " ".join(result.stdout.split())
