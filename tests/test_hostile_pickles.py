"""A pickle with a payload wherever a checkpoint may stand on the command line: refused, and its payload not run."""

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner, Result

from tests.bundles import seeded_react
from tests.clips import numbered_frames, write_clip
from tests.pipelines.detect.test_person_detector import a_bundle
from vidtad.cli import app
from vidtad.heads.person import convert as people
from vidtad.hub.bundle import save_bundle
from vidtad.hub.download import checkpoint_path, record_path
from vidtad.hub.registry import CHECKPOINTS
from vidtad.runtime.files import sha256, write_json
from vidtad.synth import write_clips
from vidtad.synth.spec import Level


class Payload:
    """Pickled, it makes the file `marker` when read by a plain unpickler."""

    def __init__(self, marker: Path):
        self.marker = str(marker)

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (self.marker, "w")


def as_pickle(path: Path, value: object) -> None:
    path.write_bytes(pickle.dumps(value, protocol=2))


def as_array(path: Path, value: object) -> None:
    with open(path, "wb") as file:
        np.save(file, np.array(value, dtype=object), allow_pickle=True)


def as_archive(path: Path, value: object) -> None:
    with open(path, "wb") as file:
        np.savez(file, results=np.array(value, dtype=object))


KINDS: dict[str, Callable[[Path, object], None]] = {
    "torch": lambda path, value: torch.save({"state_dict": value}, path),
    "old torch": lambda path, value: torch.save(value, path, _use_new_zipfile_serialization=False),
    "pickle": as_pickle,
    "array": as_array,
    "archive": as_archive,
}
EXTRACT = ("extract", "CLIP", "--out", "OUT")
TRAIN = ("train", "--videos", "CLIPS", "--annotations", "LABELS", "--out", "OUT/mine.safetensors", "--epochs", 1)
SEGMENTS = ("train", "--videos", "CLIPS", "--annotations", "SEGMENTS", "--out", "OUT/mine.safetensors", "--epochs", 1)
PEOPLE = ("detect", "CLIP", "--model", "PEOPLE", "--out", "OUT")
GRID = ("--fps", 25, "--stride", 4, "--window", 16, "--out", "OUT")
ARRAYS = ("train", "--features", "FILE.d", "--annotations", "SEGMENTS", "--out", "OUT/mine.safetensors", *GRID[:6])
CONVERT = ("models", "convert", "FILE", "--out", "OUT/b.safetensors")
PLACES: dict[str, tuple[object, ...]] = {
    "extract": (*EXTRACT, "--extractor", "tiny3d", "--weights", "FILE"),
    "extract, one of two streams": (*EXTRACT, "--stream", "rgb,flow", "--weights", "FILE,FILE"),
    "detect, extractor": ("detect", "CLIP", "--model", "BUNDLE", "--weights", "FILE", "--out", "OUT"),
    "detect, bundle": ("detect", "CLIP", "--model", "FILE", "--out", "OUT"),
    "detect, bundle by its suffix": ("detect", "CLIP", "--model", "FILE.safetensors", "--out", "OUT"),
    "detect, persons": (*PEOPLE, "--persons", "fasterrcnn-fast", "--persons-weights", "FILE"),
    "detect, trunk": (*PEOPLE, "--weights", "FILE"),
    "models show": ("models", "show", "FILE"),
    "models add": ("models", "add", "FILE"),
    "models add, as": ("models", "add", "FILE", "--as", "react-thumos14"),
    "models add, without a published hash": ("models", "add", "FILE", "--as", "slowfast-4x16-r50-kinetics400"),
    "models add, people": ("models", "add", "FILE", "--as", sorted(people.RELEASED)[0]),
    "models convert react": (*CONVERT, "--from", "react"),
    "models convert actionformer": (*CONVERT, "--from", "actionformer"),
    "models convert opentad": (*CONVERT, "--from", "opentad"),
    "train, extractor": (*SEGMENTS, "--extractor", "tiny3d", "--weights", "FILE"),
    "train, trunk": (*TRAIN, "--model", "linear", "--trunk", "slowfast/tiny", "--weights", "FILE"),
    "train, start": (*TRAIN, "--model", "linear", "--start", "FILE"),
    "evaluate, predictions": ("evaluate", "SEGMENTS", "FILE.pkl"),
    "evaluate, truth": ("evaluate", "FILE.pkl", "FILE.pkl"),
    "evaluate, archive": ("evaluate", "SEGMENTS", "FILE.npz"),
    "evaluate, array": ("evaluate", "SEGMENTS", "FILE.npy"),
    "evaluate, against": ("evaluate", "SEGMENTS", "FOUND", "--against", "FILE.pkl"),
    "report": ("report", "FILE.pkl", "--out", "OUT/page.html"),
    "report, truth": ("report", "FOUND", "--truth", "FILE.pkl", "--out", "OUT"),
    "convert": ("convert", "FILE.pkl", "--to", "srt", "--out", "OUT"),
    "convert, archive": ("convert", "FILE.npz", "--to", "elan", "--out", "OUT"),
    "ensemble": ("ensemble", "FILE.pkl", "FOUND", "--out", "OUT/both.json"),
    "ensemble, class scores": ("ensemble", "FOUND", "--video-scores", "FILE.pkl", "--out", "OUT/both.json"),
    "overlay": ("overlay", "FILE.pkl", "--out", "OUT"),
    "labels check": ("labels", "check", "FILE.pkl"),
    "train, features": (*ARRAYS, "--model", "react"),
    "train, features of ActionFormer": (*ARRAYS, "--model", "actionformer"),
    "train, class scores": (*SEGMENTS, "--extractor", "tiny3d", "--weights", "random", "--video-scores", "FILE.pkl"),
    "detect, archive of features": ("detect", "FILE.npz", "--model", "BUNDLE", *GRID),
    "detect, boxes": (*PEOPLE, "--boxes", "FILE.pkl"),
    "detect, features": ("detect", "FILE.npy", "--model", "BUNDLE", "--fps", 25, "--stride", 4, "--window", 16),
}


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """What the commands need besides the file: a clip, labels, bundles."""
    folder = tmp_path_factory.mktemp("made")
    write_clips(folder / "clips", [5, 6], Level(seconds=(2.4, 2.4), people=(1, 1), width=128, height=96), subset="")
    videos = sorted(clip.stem for clip in (folder / "clips").glob("*.mp4"))
    (folder / "labels.csv").write_text("".join(f"{name},1,0.1,0.1,0.5,0.9,wave\n" for name in videos))
    segment = {"label": "wave", "segment": [0.2, 2.0]}
    database = {name: {"duration": 2.4, "subset": "training", "annotations": [segment]} for name in videos}
    (folder / "segments.json").write_text(json.dumps({"database": database}))
    write_json(folder / "found.json", {"results": {name: [segment | {"score": 1}] for name in videos}})
    return {
        "CLIPS": folder / "clips",
        "SEGMENTS": folder / "segments.json",
        "LABELS": folder / "labels.csv",
        "FOUND": folder / "found.json",
        "CLIP": write_clip(folder / "clip.mp4", numbered_frames(40), 25),
        "BUNDLE": seeded_react(folder / "b.safetensors", width=32, heads=4, queries=8, clip_len=16, feed_forward=64),
        "PEOPLE": save_bundle(a_bundle("linear"), folder / "p.safetensors"),
    }


def filled(text: object, places: dict[str, str]) -> str:
    """`text` with the words that stand for files replaced."""
    words = str(text)
    for word in sorted(places, key=len, reverse=True):
        words = words.replace(word, places[word])
    return words


def refused(result: Result, marker: Path) -> None:
    """It ended with an error of ours, and nothing of the file was run."""
    assert not marker.exists(), "the payload ran"
    assert result.exit_code in (1, 2), result.output
    assert result.exception is None or isinstance(result.exception, SystemExit), repr(result.exception)
    assert "Traceback" not in result.output and "internal error" not in result.output, result.output
    *notes, last = result.stderr.splitlines()
    assert last.startswith("vidtad: ") and last.count("vidtad: ") == 1, result.stderr
    assert all(line.startswith("vidtad: ") for line in notes), result.stderr


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("place", PLACES)
def test_refused_and_not_run(
    place: str, kind: str, made: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIDTAD_CACHE", str(tmp_path / "cache"))
    marker, file = tmp_path / "ran", tmp_path / "weights.pth"
    KINDS[kind](file, {"a.weight": torch.zeros(2), "x": Payload(marker)})
    for suffix in (".safetensors", ".pkl", ".npy", ".npz"):
        shutil.copy(file, f"{file}{suffix}")
    (tmp_path / "weights.pth.d").mkdir()
    for clip in made["CLIPS"].glob("*.mp4"):
        shutil.copy(file, tmp_path / "weights.pth.d" / f"{clip.stem}.npy")
    places = {name: str(path) for name, path in made.items()}
    places |= {"FILE": str(file), "OUT": str(tmp_path / "out")}
    result = run(*(filled(argument, places) for argument in PLACES[place]))
    refused(result, marker)
    assert "weights.pth" in result.stderr, result.stderr
    assert not list(tmp_path.glob("out/*.safetensors")) and not list((tmp_path / "cache").rglob("*.pth"))


@pytest.mark.parametrize("kind", KINDS)
def test_the_payload_would_have_run(kind: str, tmp_path: Path) -> None:
    marker, file = tmp_path / "ran", tmp_path / "weights.pth"
    KINDS[kind](file, {"x": Payload(marker)})
    if kind == "array":
        np.load(file, allow_pickle=True)
    elif kind == "archive":
        np.load(file, allow_pickle=True)["results"]
    elif kind == "pickle":
        pickle.loads(file.read_bytes())
    else:
        torch.load(file, weights_only=False)
    assert marker.exists()


@pytest.mark.parametrize("noted", [False, True], ids=["", "with a hash that is its own"])
@pytest.mark.parametrize(
    ("id", "command"),
    [
        ("i3d-rgb-kinetics400", (*EXTRACT, "--extractor", "i3d")),
        ("fasterrcnn-mobilenet-v3-large-320-fpn-coco", (*PEOPLE, "--persons", "fasterrcnn-fast")),
        ("slowfast-8x8-r50-kinetics400", (*EXTRACT, "--extractor", "slowfast")),
        ("react-thumos14", ("detect", "CLIP", "--model", "react", "--out", "OUT")),
    ],
)
def test_in_the_cache(
    id: str,
    command: tuple[object, ...],
    noted: bool,
    made: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("VIDTAD_CACHE", str(tmp_path / "cache"))
    marker, cached = tmp_path / "ran", checkpoint_path(CHECKPOINTS[id])
    cached.parent.mkdir(parents=True)
    torch.save({"state_dict": {"x": Payload(marker)}}, cached)
    if noted:
        record_path(cached).write_text(sha256(cached) + "\n")
    shutil.copy(cached, tmp_path / "cache" / f"{id}.safetensors")
    bundles = tmp_path / "cache" / "bundles"
    bundles.mkdir()
    shutil.copy(cached, bundles / f"{id}.safetensors")
    places = {name: str(path) for name, path in made.items()} | {"OUT": str(tmp_path / "out")}
    result = run(*(filled(argument, places) for argument in command))
    refused(result, marker)
    assert not list(tmp_path.glob("out/*.npy")) and not list(tmp_path.glob("out/*.json"))


@pytest.mark.parametrize(
    "command",
    [
        (*SEGMENTS, "--extractor", "tiny3d", "--weights", "random:1"),
        (*TRAIN, "--model", "linear", "--trunk", "slowfast/tiny", "--weights", "random:1", "--val-fraction", 0.5),
    ],
    ids=["temporal", "people"],
)
def test_among_checkpoints_of_training(
    command: tuple[object, ...], made: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIDTAD_CACHE", str(tmp_path / "cache"))
    marker = tmp_path / "ran"
    places = {name: str(path) for name, path in made.items()} | {"OUT": str(tmp_path / "out")}
    asked = [filled(argument, places) for argument in command]
    assert run(*asked).exit_code == 0
    (kept,) = tmp_path.rglob("checkpoint.pt")
    for write in KINDS.values():
        (tmp_path / "out" / "mine.safetensors").unlink(missing_ok=True)
        write(kept, {"model": {}, "x": Payload(marker)})
        result = run(*asked)
        refused(result, marker)
        assert "checkpoint.pt" in result.stderr and not (tmp_path / "out" / "mine.safetensors").exists()
