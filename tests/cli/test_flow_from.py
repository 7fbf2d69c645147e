"""`vidtad detect` and `vidtad train` with --flow-from: as extraction and then the rest, and what is refused."""

import pickle
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from typer.testing import CliRunner, Result

from tests.bundles import TINY, seeded_react
from tests.clips import numbered_frames, write_clip
from tests.pipelines.extract.test_flow_cache import readings
from vidtad.api import train
from vidtad.cli import app
from vidtad.errors import InputError
from vidtad.extractors import flows
from vidtad.features import load_features
from vidtad.hub.bundle import Bundle, load_bundle, save_bundle
from vidtad.models.actionformer import ActionFormer
from vidtad.models.actionformer_config import ActionFormerConfig
from vidtad.pipelines.detect.dispatch import bundle_for, worker_for
from vidtad.pipelines.detect.worker import Job
from vidtad.pipelines.extract.flow_cache import FlowPictures
from vidtad.timeline import read_timeline

FRAMES, SIZE = 14, (256, 340)
NAME = "tsn/thumos14+tsn/thumos14-flow"
RANDOM = ("--weights", "random:1")
LABELLED = ("a", "b", "c")


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(autouse=True)
def none_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> int:
        raise AssertionError("flow was computed")

    monkeypatch.setattr(flows, "solve", refuse)


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    for first, name in enumerate(LABELLED):
        write_clip(folder / f"{name}.mp4", numbered_frames(FRAMES, first=20 * first), 25)
    return folder


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of flow that nothing has, so that who shows them to the network has read them."""
    folder, random = tmp_path_factory.mktemp("flow"), np.random.default_rng(0)
    for name in LABELLED:
        (folder / name).mkdir()
        for axis in "xy":
            for number in range(FRAMES - 1):
                levels = random.integers(0, 256, (8, 10), np.uint8)
                picture = cv2.resize(levels, SIZE[::-1], interpolation=cv2.INTER_CUBIC)
                cv2.imwrite(str(folder / name / f"flow_{axis}_{number:05d}.jpg"), picture)
    return folder


@pytest.fixture
def flow(drawn: Path, tmp_path: Path) -> Path:
    """A copy of the pictures, to be spoilt."""
    return Path(shutil.copytree(drawn, tmp_path / "flow"))


@pytest.fixture(scope="module")
def features(clips: Path, drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `vidtad extract` makes of them."""
    out = tmp_path_factory.mktemp("features")
    result = run("extract", clips, "--extractor", "tsn/thumos14", "--stream", "rgb,flow", *RANDOM, "--flow-from", drawn,
                 "--out", out)  # fmt: skip
    assert result.exit_code == 0, result.output
    return out


@pytest.fixture(scope="module")
def two_streams(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A detector in features of both streams."""
    torch.manual_seed(0)
    head = {**TINY, "in_channels": 2048, "classes": 2}
    network = ActionFormer(ActionFormerConfig(**head))
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    bundle = Bundle(
        name="both",
        head="actionformer",
        head_config=head,
        classes=("jump", "wave"),
        extractor="tsn/thumos14",
        sampling={"window": 5, "stride": 5, "fps": None},
        channels=(("rgb", 1024), ("flow", 1024)),
        head_weights=network.state_dict(),
    )
    return save_bundle(bundle, tmp_path_factory.mktemp("bundles") / "both.safetensors")


@pytest.fixture(scope="module")
def rgb_alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return seeded_react(tmp_path_factory.mktemp("bundles") / "rgb.safetensors", width=32, heads=4, clip_len=16)


def change(flow: Path, name: str = "a") -> None:
    shutil.copy(flow / name / "flow_x_00001.jpg", flow / name / "flow_x_00002.jpg")


def test_detecting_is_extracting_and_then_detecting(clips, features, drawn, two_streams, tmp_path) -> None:
    command = ("detect", "--model", two_streams, "--out")
    result = run(*command, tmp_path / "one", clips, *RANDOM, "--flow-from", drawn)
    assert result.exit_code == 0, result.output
    assert run(*command, tmp_path / "two", features).exit_code == 0
    for name in LABELLED:
        one, two = (read_timeline(tmp_path / place / f"{name}.json") for place in ("one", "two"))
        assert one.results[name] and one.results == two.results
        assert one.detector["features"] == two.detector["features"]
    assert not list((tmp_path / "one").glob(".*.rows"))


def test_timelines_are_of_their_pictures(clips, flow, two_streams, tmp_path) -> None:
    command = ("detect", clips / "a.mp4", "--model", two_streams, *RANDOM, "--out", tmp_path / "out", "--flow-from")
    assert run(*command, flow).exit_code == 0
    written = (tmp_path / "out" / "a.json").stat().st_mtime_ns
    moved = Path(shutil.copytree(flow, tmp_path / "moved"))
    assert run(*command, moved).exit_code == 0
    assert (tmp_path / "out" / "a.json").stat().st_mtime_ns == written
    change(flow)
    result = run(*command, flow)
    assert result.exit_code == 2 and "made from another input or with other settings" in result.stderr
    assert run(*command, flow, "--overwrite").exit_code == 0
    assert (tmp_path / "out" / "a.json").stat().st_mtime_ns != written


def test_rows_of_a_killed_detection_are_of_their_pictures(clips, flow, two_streams, tmp_path, monkeypatch) -> None:
    dies, notes, asked = readings()
    command = ("detect", clips / "a.mp4", "--model", two_streams, *RANDOM, "--batch", 1, "--flow-from", flow, "--out")
    monkeypatch.setattr(FlowPictures, "levels", dies)
    assert "killed" in run(*command, tmp_path / "out").stderr
    monkeypatch.setattr(FlowPictures, "levels", notes)
    shutil.copytree(tmp_path / "out", tmp_path / "again")
    assert run(*command, tmp_path / "out").exit_code == 0
    assert min(asked) == 10  # rows of two of three windows of five were there
    asked.clear()
    change(flow)
    assert run(*command, tmp_path / "again").exit_code == 0
    assert min(asked) == 0


def test_of_several_videos_one_without_pictures_does_not_stop_the_others(clips, flow, two_streams, tmp_path) -> None:
    shutil.rmtree(flow / "b")
    result = run("detect", clips, "--model", two_streams, *RANDOM, "--out", tmp_path / "out", "--flow-from", flow)
    assert result.exit_code == 1 and "but --flow-from wants one with the flow of b.mp4" in result.stderr
    assert sorted(path.name for path in (tmp_path / "out").glob("*.json")) == ["a.json", "c.json"]


@pytest.mark.parametrize(
    ("inputs", "options", "sentence"),
    [
        ("a.mp4", ("--flow-from", "nowhere"), "--flow-from nowhere: no such folder"),
        ("a.mp4", ("--flow-from", "."), "a: no such folder, but --flow-from wants one with the flow of a.mp4"),
        ("a.mp4", ("--flow-from", "s3://bucket/flow"), "--flow-from s3://bucket/flow: name a folder on this machine"),
        ("a.mp4", ("--ranges", 2, "--workers", 2), "--flow-from reads the flow of whole videos: leave out --ranges"),
        ("x.npy", (), "x.npy: --flow-from is for videos, not for feature files: leave it out"),
    ],
)
def test_detect_refuses(clips, flow, two_streams, tmp_path, monkeypatch, inputs, options, sentence) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("vidtad.pipelines.batches.tasks.DetectTask.__call__", None)  # seen before anything is loaded
    (tmp_path / "in").mkdir()
    shutil.copy(clips / "a.mp4", tmp_path / "in")
    np.save(tmp_path / "in" / "x.npy", np.zeros((4, 2048), np.float32))
    result = run("detect", tmp_path / "in" / inputs, "--model", two_streams, *RANDOM, "--flow-from", flow, *options)
    assert result.exit_code == 2 and sentence in result.stderr, result.output
    assert not (tmp_path / "timelines").exists()


@pytest.mark.parametrize("model", ["rgb", "motion", "linear"])
def test_detectors_that_see_no_flow_say_so(clips, flow, rgb_alone, tmp_path, model) -> None:
    name = str(rgb_alone) if model == "rgb" else model
    weights = () if model == "motion" else RANDOM
    result = run("detect", clips / "a.mp4", "--model", name, *weights, "--out", tmp_path / "out", "--flow-from", flow)
    assert result.exit_code == 2 and "sees no optical flow: drop --flow-from" in result.stderr, result.output
    bundle = bundle_for(name if model != "rgb" else rgb_alone, weights[-1] if weights else None)[0]
    with pytest.raises(InputError, match=f"detector {bundle.name} sees no optical flow"):
        worker_for(bundle, Job(None, flow_from=flow))


def test_a_detector_whose_extractor_has_pictures_to_read_wants_videos(features, flow, two_streams) -> None:
    worker = worker_for(load_bundle(two_streams), Job(None, weights="random:1", flow_from=flow))
    with pytest.raises(InputError, match="not for feature files"):
        worker(features / "a.npy")
    assert pickle.loads(pickle.dumps(worker.job)) == worker.job


def test_timelines_elsewhere_are_of_their_pictures_too(clips, features, flow, two_streams, tmp_path, monkeypatch):
    pytest.importorskip("fsspec")
    monkeypatch.setenv("VIDTAD_CACHE", str(tmp_path / "cache"))
    command = ("detect", f"file://{clips}/a.mp4", "--model", two_streams, *RANDOM, "--flow-from", flow,
               "--out", f"file://{tmp_path}/out")  # fmt: skip
    assert run(*command).exit_code == 0
    written = (tmp_path / "out" / "a.json").stat().st_mtime_ns
    assert run("detect", features / "a.npy", "--model", two_streams, "--out", tmp_path / "two").exit_code == 0
    one, two = (read_timeline(tmp_path / place / "a.json").results for place in ("out", "two"))
    assert one == two
    assert run(*command).exit_code == 0 and (tmp_path / "out" / "a.json").stat().st_mtime_ns == written
    change(flow)
    result = run(*command)
    assert result.exit_code == 2 and "made from another input or with other settings" in result.stderr


@pytest.mark.slow
def test_workers_read_pictures(clips, drawn, features, two_streams, tmp_path) -> None:
    command = ("detect", "--model", two_streams, "--out")
    workers = ("--flow-from", drawn, "--workers", 2, "--threads", 1)
    assert run(*command, tmp_path / "one", clips, *RANDOM, *workers).exit_code == 0
    assert run(*command, tmp_path / "two", features).exit_code == 0
    one, two = ([read_timeline(tmp_path / n / f"{name}.json").results for name in LABELLED] for n in ("one", "two"))
    assert one == two


@pytest.fixture(scope="module")
def labels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("labels") / "labels.csv"
    rows = [f"{name},0.05,0.25,jump\n{name},0.3,0.5,wave" for name in LABELLED]
    path.write_text("\n".join(["video,start_s,end_s,label", *rows, ""]))
    return path


def training(labels: Path, out: Path, *options: object) -> tuple[object, ...]:
    return ("train", "--annotations", labels, "--model", "actionformer", "--epochs", 1, "--out", out, *options)


BOTH = ("--extractor", NAME, *RANDOM)


def made_in(out: Path) -> dict[str, Path]:
    """The features beside a bundle, by the name of their video."""
    return {path.stem: path for path in out.with_name(f"{out.name}.work").glob("features/*/*.npy")}


@pytest.fixture(scope="module")
def trained(clips: Path, labels: Path, drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("trained") / "mine.safetensors"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(flows, "solve", None)
        result = run(*training(labels, out, "--videos", clips, *BOTH, "--flow-from", drawn))
    assert result.exit_code == 0, result.output
    return out


def test_training_is_extracting_and_then_training(trained, features, labels, tmp_path) -> None:
    made = made_in(trained)
    assert set(made) == set(LABELLED)
    for name, path in made.items():
        ours, theirs = load_features(path, check_hash=True), load_features(features / f"{name}.npy")
        assert np.array_equal(ours.values, theirs.values)
        assert ours.provenance.fingerprint() == theirs.provenance.fingerprint()
    out = tmp_path / "mine.safetensors"
    assert run(*training(labels, out, "--features", features, *RANDOM)).exit_code == 0
    ours, theirs = load_bundle(trained), load_bundle(out)
    assert ours.extractor == NAME and ours.channels == (("rgb", 1024), ("flow", 1024))
    assert all(torch.equal(ours.head_weights[key], theirs.head_weights[key]) for key in theirs.head_weights)


def test_what_is_trained_detects_with_pictures(trained, clips, drawn, tmp_path) -> None:
    result = run("detect", clips / "a.mp4", "--model", trained, "--flow-from", drawn, "--out", tmp_path)
    assert result.exit_code == 0, result.output
    assert read_timeline(tmp_path / "a.json").detector["extractor"] == NAME


def test_a_second_training_makes_features_of_changed_pictures_alone(clips, labels, flow, trained, tmp_path) -> None:
    out = tmp_path / trained.name
    shutil.copytree(trained.parent, tmp_path, dirs_exist_ok=True)
    command = training(labels, out, "--videos", clips, *BOTH, "--flow-from", flow)
    before = {name: path.stat().st_mtime_ns for name, path in made_in(out).items()}
    assert run(*command).exit_code == 0
    assert {name: path.stat().st_mtime_ns for name, path in made_in(out).items()} == before
    assert out.read_bytes() == trained.read_bytes()
    change(flow)
    assert run(*command).exit_code == 0
    after = {name: path.stat().st_mtime_ns for name, path in made_in(out).items()}
    assert [name for name in LABELLED if after[name] != before[name]] == ["a"]
    assert not np.array_equal(np.load(made_in(out)["a"]), np.load(made_in(trained)["a"]))


def test_features_that_are_kept_are_of_their_pictures(clips, labels, features, flow, tmp_path) -> None:
    kept = Path(shutil.copytree(features, tmp_path / "kept"))
    there = {path.name: path.read_bytes() for path in kept.iterdir()}
    command = training(labels, tmp_path / "mine.safetensors", "--videos", clips, *BOTH, "--features", kept, "--strict",
                       "--flow-from", flow)  # fmt: skip
    assert run(*command).exit_code == 0
    change(flow, "b")
    (flow / "c" / "flow_y_00003.jpg").unlink()
    result = run(*command)
    assert result.exit_code == 2
    assert "b.npy: made from another video, by another extractor or with other settings" in result.stderr
    assert "c is left out" in result.stderr and "flow_y_00003.jpg: this picture of flow is missing" in result.stderr
    assert {path.name: path.read_bytes() for path in kept.iterdir()} == there


def test_a_video_without_pictures_is_left_out(clips, labels, flow, tmp_path) -> None:
    shutil.rmtree(flow / "b")
    command = training(labels, tmp_path / "mine.safetensors", "--videos", clips, *BOTH, "--flow-from", flow)
    result = run(*command, "--val-fraction", 0)
    assert result.exit_code == 0, result.output
    assert "problem: b is left out" in result.stderr and "the flow of b.mp4" in result.stderr
    assert load_bundle(tmp_path / "mine.safetensors").training["videos"]["train"] == 2
    strict = run(*command, "--strict")
    assert strict.exit_code == 2 and "1 videos gave no features" in strict.stderr


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--extractor", "tsn/thumos14"), "extractor tsn/thumos14 sees no optical flow: drop --flow-from, or pass one"),
        (("--extractor", "tiny3d"), "extractor tiny3d sees no optical flow"),
        ((), "extractor i3d sees no optical flow: drop --flow-from, or pass one that does, such as --extractor i3d+"),
        ((*BOTH, "--flow-from", "nowhere"), "--flow-from nowhere: no such folder"),
        ((*BOTH, "--flow-from", "s3://bucket/flow"), "--flow-from s3://bucket/flow: name a folder on this machine"),
        (("--model", "linear"), "--flow-from: not for --model linear"),
    ],
)
def test_train_refuses(clips, labels, flow, tmp_path, monkeypatch, options, sentence) -> None:
    monkeypatch.chdir(tmp_path)
    for place in ("pipelines.extract.load._published", "pipelines.extract.load.random_weights"):
        monkeypatch.setattr(f"vidtad.{place}", None)  # seen before weights are there
    out = tmp_path / "mine.safetensors"
    result = run(*training(labels, out, "--videos", clips, "--flow-from", flow, *options))
    assert result.exit_code == 2 and sentence in result.stderr, result.output
    assert not out.exists()


def test_training_on_features_alone_reads_no_flow(features, labels, flow, tmp_path) -> None:
    result = run(*training(labels, tmp_path / "mine.safetensors", "--features", features, "--flow-from", flow))
    assert result.exit_code == 2 and "--flow-from is for videos: pass --videos DIR" in result.stderr


def test_from_python(clips, labels, drawn, trained, tmp_path) -> None:
    options = {"extractor": NAME, "weights": "random:1", "epochs": 1, "flow_from": str(drawn)}
    made = train(labels, tmp_path / trained.name, videos=clips, model="actionformer", device="cpu", **options)
    assert made.path.read_bytes() == trained.read_bytes()
