"""Flow read from pictures, kept by an earlier run or made by denseflow: rows, numbers, what is refused, reuse."""

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner, Result

from tests.clips import numbered_frames, write_clip
from vidtad.cli import app
from vidtad.errors import InputError, RunError
from vidtad.extractors import GIVEN, flows
from vidtad.features import load_features
from vidtad.pipelines.batches.tasks import ExtractTask
from vidtad.pipelines.extract.extraction import LoadedExtractor, extract_file, load_extractor
from vidtad.pipelines.extract.flow_cache import FlowPictures

FRAMES = 14
NAME = "tsn/thumos14+tsn/thumos14-flow"
COMMAND = ("--extractor", "tsn/thumos14", "--stream", "rgb,flow", "--weights", "random:1", "--batch", 2)
SIZE = (256, 340)
Levels = Callable[[FlowPictures, int, tuple[int, int]], np.ndarray]


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clips") / "clip.mp4", numbered_frames(FRAMES), 25)


@pytest.fixture(scope="module")
def reader() -> LoadedExtractor:
    return load_extractor(NAME, "random:1", flow=GIVEN)


def lossless(folder: Path) -> Callable[[int, np.ndarray], None]:
    """Keeps levels as PNG files."""
    folder.mkdir(parents=True)

    def keep(number: int, levels: np.ndarray) -> None:
        for axis, name in enumerate("xy"):
            cv2.imwrite(str(folder / f"flow_{name}_{number:05d}.png"), levels[..., axis])

    return keep


@pytest.fixture(scope="module")
def computed(clip: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[np.ndarray, Path]:
    """Rows of both streams, flow by DIS, and the folder of its pictures, as the network saw them."""
    place = tmp_path_factory.mktemp("computed")
    loaded = load_extractor(NAME, "random:1", flow="dis")
    loaded.extractor.flow.keep = lossless(place / "flow" / "clip")
    return extract_file(clip, loaded, place, batch=2).features.values, place / "flow"


@pytest.fixture
def flow(computed: tuple[np.ndarray, Path], tmp_path: Path) -> Path:
    """A copy of the pictures, to be spoilt."""
    return Path(shutil.copytree(computed[1], tmp_path / "flow"))


def rows_of(clip: Path, loaded: LoadedExtractor, out: Path, flow_from: Path) -> np.ndarray:
    return extract_file(clip, loaded, out, batch=2, flow_from=flow_from).features.values


def test_rows_are_those_of_computed_flow_and_none_is_computed(clip, computed, tmp_path, monkeypatch) -> None:
    def refuse(*arguments: object) -> int:
        raise AssertionError("flow was computed")

    monkeypatch.setattr(flows, "solve", refuse)
    result = run("extract", clip, *COMMAND, "--flow-from", computed[1], "--out", tmp_path)
    assert result.exit_code == 0, result.output
    features = load_features(tmp_path / "clip.npy", check_hash=True)
    assert np.array_equal(features.values, computed[0])
    assert [name for name, _ in features.provenance.channels] == ["rgb", "flow"]
    settings = features.provenance.settings
    assert settings["flow"] == settings["streams"][1]["flow"] == "pictures" and settings["streams"][0]["flow"] is None
    assert len(settings["flow_pictures_sha256"]) == 64


def test_an_extractor_of_flow_alone(clip, computed, tmp_path) -> None:
    values = rows_of(clip, load_extractor("tsn/thumos14-flow", "random:1", flow=GIVEN), tmp_path, computed[1])
    np.testing.assert_allclose(values, computed[0][:, 1024:], rtol=0, atol=1e-5 * np.abs(values).max())


def test_kept_pictures_come_close(clip, computed, reader, tmp_path) -> None:
    keeping = load_extractor(NAME, "random:1", flow="dis")
    extract_file(clip, keeping, tmp_path / "kept", batch=2, keep_flow=tmp_path / "flow")
    values = rows_of(clip, reader, tmp_path / "read", tmp_path / "flow")
    assert np.array_equal(values[:, :1024], computed[0][:, :1024])
    # JPEG moves levels by less than one on average.
    difference = np.abs(values - computed[0])[:, 1024:].max() / np.abs(computed[0][:, 1024:]).max()
    assert 0 < difference < 0.1


def test_numbers_from_1(clip, computed, reader, flow, tmp_path) -> None:
    for number in reversed(range(FRAMES - 1)):
        for axis in "xy":
            picture = flow / "clip" / f"flow_{axis}_{number:05d}.png"
            picture.rename(picture.with_name(f"flow_{axis}_{number + 1:05d}.png"))
    assert np.array_equal(rows_of(clip, reader, tmp_path, flow), computed[0])


def test_pictures_that_no_window_shows_are_not_wanted(clip, flow, tmp_path) -> None:
    loaded = load_extractor(NAME, "random:1", stride=7, flow=GIVEN)
    # Windows of five begin at pairs 0 and 7.
    for number in (5, 6, 12):
        for axis in "xy":
            (flow / "clip" / f"flow_{axis}_{number:05d}.png").unlink()
    assert len(rows_of(clip, loaded, tmp_path, flow)) == 2


def test_a_resampled_time_line_has_pairs_of_its_own(clip, tmp_path) -> None:
    command = ("extract", clip, *COMMAND, "--fps", "10")
    kept = run(*command, "--flow", "dis", "--keep-flow", tmp_path / "flow", "--out", tmp_path / "kept")
    read = run(*command, "--flow-from", tmp_path / "flow", "--out", tmp_path / "read")
    assert kept.exit_code == read.exit_code == 0, read.output
    ours, theirs = (np.load(tmp_path / place / "clip.npy") for place in ("read", "kept"))
    assert ours.shape == theirs.shape and np.abs(ours - theirs).max() < 0.1 * np.abs(theirs).max()
    assert 2 * 3 < len(list((tmp_path / "flow" / "clip").iterdir())) < 2 * 7


def test_pictures_of_another_rate_or_video_are_refused_and_a_spare_one_is_not(clip, computed, reader, flow, tmp_path):
    result = run("extract", clip, *COMMAND, "--fps", "10", "--flow-from", flow, "--out", tmp_path / "out")
    assert result.exit_code == 2 and "more than clip.mp4 has at 10 frames a second" in result.stderr
    last = FRAMES - 1
    for axis in "xy":
        shutil.copy(flow / "clip" / f"flow_{axis}_00000.png", flow / "clip" / f"flow_{axis}_{last:05d}.png")
    assert np.array_equal(rows_of(clip, reader, tmp_path, flow), computed[0])
    shutil.copy(flow / "clip" / "flow_x_00000.png", flow / "clip" / f"flow_x_{last + 2:05d}.png")
    with pytest.raises(InputError, match=f"flow of {FRAMES + 2} pairs of frames, more than clip.mp4 has;"):
        rows_of(clip, reader, tmp_path / "more", flow)


def spoil(name: str) -> Callable[[Path], object]:
    def size(folder: Path) -> object:
        return cv2.imwrite(str(folder / "flow_x_00000.png"), np.zeros((240, 320), np.uint8))

    def later_size(folder: Path) -> object:
        return cv2.imwrite(str(folder / "flow_y_00009.png"), np.zeros((240, 320), np.uint8))

    def cut(folder: Path) -> object:
        picture = folder / "flow_y_00009.png"
        return picture.write_bytes(picture.read_bytes()[:-100])

    def noise(folder: Path) -> object:
        return (folder / "flow_x_00003.png").write_bytes(b"\0" * 5000)

    def deep(folder: Path) -> object:
        return cv2.imwrite(str(folder / "flow_x_00003.png"), np.zeros(SIZE, np.uint16))

    def end(folder: Path) -> None:
        for number in (11, 12):
            (folder / f"flow_x_{number:05d}.png").unlink()

    def hole(folder: Path) -> None:
        (folder / "flow_y_00004.png").unlink()

    def start(folder: Path) -> None:
        for number in (0, 1):
            (folder / f"flow_x_{number:05d}.png").unlink()

    return {each.__name__: each for each in (size, later_size, cut, noise, deep, end, hole, start)}[name]


@pytest.mark.parametrize(
    ("how", "sentence"),
    [
        ("size", "flow_x_00000.png: 320 x 240 pixels, but the extractor sees this video's flow at 340 x 256; lengths"),
        ("later_size", "flow_y_00009.png: 320 x 240 pixels"),
        ("cut", "flow_y_00009.png: cannot be decoded"),
        ("noise", "flow_x_00003.png: cannot be decoded"),
        ("deep", "flow_x_00003.png: not a grey picture of 8 bits"),
        ("end", "flow_x_00011.png: this picture of flow is missing"),
        ("hole", "flow_y_00004.png: this picture of flow is missing"),
        ("start", "clip: neither flow_x_00000 nor flow_x_00001"),
    ],
)
def test_pictures_that_will_not_do_are_named(clip, flow, tmp_path, how, sentence) -> None:
    spoil(how)(flow / "clip")
    result = run("extract", clip, *COMMAND, "--flow-from", flow, "--out", tmp_path / "out")
    assert result.exit_code == 2
    assert sentence in result.stderr and "Traceback" not in result.stderr
    assert not list((tmp_path / "out").glob("clip.*"))


@pytest.mark.parametrize("how", ["size", "end", "hole", "start"])
def test_what_can_be_seen_first_is(clip, flow, reader, tmp_path, monkeypatch, how) -> None:
    spoil(how)(flow / "clip")
    monkeypatch.setattr("vidtad.pipelines.extract.extraction._extract_claimed", None)
    with pytest.raises(InputError):
        extract_file(clip, reader, tmp_path, flow_from=flow)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--flow", "dis"), "--flow: not with --flow-from"),
        (("--keep-flow", "kept"), "--keep-flow: not with --flow-from"),
        (("--ranges", 2, "--workers", 2), "leave out --ranges"),
        (("--stream", "rgb"), "extractor tsn/thumos14 sees no optical flow: add --stream rgb,flow or drop --flow-from"),
        (("--flow-from", "s3://bucket/flow"), "--flow-from s3://bucket/flow: name a folder on this machine"),
        (("--flow-from", "nowhere"), "--flow-from nowhere: no such folder"),
        (("--flow-from", "."), "clip: no such folder, but --flow-from wants one with the flow of clip.mp4"),
    ],
)
def test_options_that_will_not_do(clip, flow, tmp_path, monkeypatch, options, sentence) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(ExtractTask, "__call__", None)  # seen before the extractor is loaded
    result = run("extract", clip, *COMMAND, "--flow-from", flow, "--out", tmp_path / "out", *options)
    assert result.exit_code == 2 and sentence in result.stderr, result.output
    assert not (tmp_path / "out").exists()


def test_the_extractor_and_the_call_belong_together(clip, flow, reader, tmp_path) -> None:
    rows_of(clip, reader, tmp_path / "there", flow)
    assert reader.extractor.flow.give is None
    with pytest.raises(InputError, match="computes its flow"):
        extract_file(clip, load_extractor(NAME, "random:1", flow="dis"), tmp_path, flow_from=flow)
    with pytest.raises(InputError, match="does not go with"):
        extract_file(clip, reader, tmp_path, flow_from=flow, keep_flow=tmp_path / "kept")
    with pytest.raises(InputError, match="computes no optical flow"):
        extract_file(clip, reader, tmp_path)
    with pytest.raises(InputError, match="sees no optical flow"):
        extract_file(clip, load_extractor("tiny3d", "random"), tmp_path, flow_from=flow)


def test_finished_files_are_of_their_pictures(clip, flow, tmp_path) -> None:
    command = ("extract", clip, *COMMAND, "--out", tmp_path / "out", "--json")
    assert run(*command, "--flow-from", flow).exit_code == 0
    moved = Path(shutil.copytree(flow, tmp_path / "moved"))
    assert json.loads(run(*command, "--flow-from", moved).stdout)["extracted"][0]["reused"]
    (flow / "clip" / "note.txt").write_text("not a picture")
    assert json.loads(run(*command, "--flow-from", flow).stdout)["extracted"][0]["reused"]
    shutil.copy(flow / "clip" / "flow_x_00001.png", flow / "clip" / "flow_x_00002.png")
    for other in (("--flow-from", flow), ("--flow", "dis")):
        result = run(*command, *other)
        assert result.exit_code == 2 and "made from another video or with other settings" in result.stderr


def readings() -> tuple[Levels, Levels, list[int]]:
    """Replacements of `FlowPictures.levels`: one that fails at pair 11, one that notes pairs in the list."""
    levels, asked = FlowPictures.levels, []

    def dies(self: FlowPictures, number: int, size: tuple[int, int]) -> np.ndarray:
        if number == 11:
            raise RunError("killed")
        return levels(self, number, size)

    def notes(self: FlowPictures, number: int, size: tuple[int, int]) -> np.ndarray:
        asked.append(number)
        return levels(self, number, size)

    return dies, notes, asked


def test_a_killed_run_goes_on_with_the_pictures_it_lacks(clip, computed, reader, tmp_path, monkeypatch) -> None:
    dies, notes, asked = readings()
    monkeypatch.setattr(FlowPictures, "levels", dies)
    with pytest.raises(RunError, match="killed"):
        extract_file(clip, reader, tmp_path, batch=1, flow_from=computed[1])
    monkeypatch.setattr(FlowPictures, "levels", notes)
    values = extract_file(clip, reader, tmp_path, batch=1, flow_from=computed[1]).features.values
    assert min(asked) == 10 and set(asked) == {10, 11, 12}  # two of three windows of five were there
    np.testing.assert_allclose(values, computed[0], rtol=0, atol=1e-5 * np.abs(values).max())


def test_a_damaged_video_has_fewer_pairs_than_its_header_says(reader, tmp_path) -> None:
    whole = write_clip(tmp_path / "whole.mkv", numbered_frames(40), 25)
    clip = tmp_path / "cut.mkv"
    clip.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    keeping = load_extractor(NAME, "random:1", flow="dis")
    kept = extract_file(clip, keeping, tmp_path / "kept", keep_flow=tmp_path / "flow").features
    assert kept.video.frames is not None and kept.video.frames < 35
    read = extract_file(clip, reader, tmp_path / "read", flow_from=tmp_path / "flow").features
    assert len(read.values) == len(kept.values)


def test_weights_of_a_learned_flow_are_not_loaded(monkeypatch) -> None:
    monkeypatch.setattr("vidtad.pipelines.extract.load._flow_method", None)
    settings = load_extractor("i3d/video_features-flow", "random", flow=GIVEN).settings()
    assert settings["flow"] == "pictures" and "flow_weights_sha256" not in settings


@pytest.mark.slow
def test_a_batch_reports_the_video_without_pictures(clip, flow, tmp_path) -> None:
    (tmp_path / "in").mkdir()
    for name in ("clip", "other"):
        shutil.copy(clip, tmp_path / "in" / f"{name}.mp4")
    options = ("--flow-from", flow, "--out", tmp_path / "out", "--workers", 2, "--threads", 1)
    result = run("extract", tmp_path / "in", *COMMAND, *options)
    assert result.exit_code == 1 and "other: no such folder" in result.stderr
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["clip.json", "clip.npy"]
    task = ExtractTask(tmp_path, "i3d", flow_from=flow, stream="flow")
    assert pickle.loads(pickle.dumps(task)) == task


def test_outputs_elsewhere_are_of_their_pictures_too(clip, computed, flow, tmp_path, monkeypatch) -> None:
    pytest.importorskip("fsspec")
    monkeypatch.setenv("VIDTAD_CACHE", str(tmp_path / "cache"))
    command = ("extract", f"file://{clip}", *COMMAND, "--flow-from", flow, "--out", f"file://{tmp_path}/out")
    assert run(*command).exit_code == 0
    assert np.array_equal(np.load(tmp_path / "out" / "clip.npy"), computed[0])
    assert "already there" in run(*command).stdout
    shutil.copy(flow / "clip" / "flow_x_00001.png", flow / "clip" / "flow_x_00002.png")
    result = run(*command)
    assert result.exit_code == 2 and "made from another video or with other settings" in result.stderr
