"""RGB and flow in one pass: order, names, weights, kept flow, precision, and detectors that want both."""

import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from tests.clips import numbered_frames, write_clip
from vidtad import flow
from vidtad.cli import app
from vidtad.errors import InputError
from vidtad.extractors import random_weights, with_streams
from vidtad.features import Features, Grid, Provenance, load_features
from vidtad.heads.react.convert import bundle_from_react
from vidtad.hub.bundle import save_bundle
from vidtad.models.react import THUMOS14, ReAct
from vidtad.pipelines.detect.temporal import check_fits
from vidtad.pipelines.extract.extraction import extract_file
from vidtad.pipelines.extract.load import bundle_extractor, load_extractor, pick_precision
from vidtad.timeline import read_timeline
from vidtad.video import probe

FRAMES = 14


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clips") / "clip.mp4", numbered_frames(FRAMES), 25)


@pytest.fixture(scope="module")
def alone(clip: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray]:
    """Rows of each stream of tsn/thumos14 by itself, flow by DIS."""
    out = tmp_path_factory.mktemp("alone")
    rgb = load_extractor("tsn/thumos14", "random:1")
    flows = load_extractor("tsn/thumos14-flow", "random:1", flow="dis")
    return {
        "rgb": extract_file(clip, rgb, out / "rgb").features.values,
        "flow": extract_file(clip, flows, out / "flow").features.values,
    }


def close(ours: np.ndarray, theirs: np.ndarray) -> bool:
    return bool(np.abs(ours - theirs).max() <= 1e-5 * np.abs(theirs).max())


@pytest.mark.parametrize("order", ["rgb,flow", "flow,rgb"])
def test_two_streams_of_the_command_are_each_alone_side_by_side(clip, alone, tmp_path, order) -> None:
    command = ["extract", str(clip), "--extractor", "tsn/thumos14", "--stream", order, "--weights", "random:1"]
    command += ["--flow", "dis", "--keep-flow", str(tmp_path / "flow"), "--out", str(tmp_path), "--batch", "2"]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    features = load_features(tmp_path / "clip.npy", check_hash=True)
    names = order.split(",")
    assert [name for name, _ in features.provenance.channels] == names
    # 14 frames are 13 pairs, and a window of five begins at each of 0, 5, 10.
    assert features.values.shape == (3, 2048)
    rows = {name: features.values[:, 1024 * i : 1024 * (i + 1)] for i, name in enumerate(names)}
    assert close(rows["rgb"], alone["rgb"]) and close(rows["flow"], alone["flow"])
    sidecar = json.loads((tmp_path / "clip.json").read_text())
    assert sidecar["extractor"] == with_streams("tsn/thumos14", names)
    assert [part["extractor"] for part in sidecar["settings"]["streams"]] == sidecar["extractor"].split("+")
    kept = sorted(path.name for path in (tmp_path / "flow" / "clip").iterdir())
    assert kept == [f"flow_{axis}_{number:05d}.jpg" for axis in "xy" for number in range(FRAMES - 1)]


def test_kept_flow_is_what_the_network_saw(clip, tmp_path) -> None:
    import cv2

    from vidtad.extractors.preprocess import resized
    from vidtad.video import open_video

    loaded = load_extractor("tsn/flow", "random", flow="farneback")
    extract_file(clip, loaded, tmp_path, keep_flow=tmp_path / "flow")
    with open_video(clip) as video:
        greys = [flow.grey(resized(frame.rgb(), (256, 427), "opencv")) for frame in video]
    expected = [flow.quantise(one) for one in flow.pairwise_flow(greys, flow.farneback)]
    for number in (0, 7, FRAMES - 2):
        for axis, name in enumerate("xy"):
            stored = cv2.imread(str(tmp_path / "flow" / "clip" / f"flow_{name}_{number:05d}.jpg"), cv2.IMREAD_GRAYSCALE)
            assert np.abs(stored.astype(int) - expected[number][..., axis]).mean() < 2
    assert loaded.extractor.keep is None


def test_keeping_flow_wants_an_extractor_that_sees_it(clip, tmp_path) -> None:
    with pytest.raises(InputError, match="sees no optical flow"):
        extract_file(clip, load_extractor("tiny3d", "random"), tmp_path, keep_flow=tmp_path / "flow")


def test_weights_of_each_stream_are_named_and_hashed(tmp_path, clip, alone) -> None:
    files = []
    for name in ("tsn/thumos14", "tsn/thumos14-flow"):
        files.append(tmp_path / f"{name.replace('/', '-')}.pt")
        torch.save(random_weights(name, 1), files[-1])
    name = "tsn/thumos14+tsn/thumos14-flow"
    loaded = load_extractor(name, ",".join(map(str, files)), flow="dis")
    features = extract_file(clip, loaded, tmp_path).features
    assert close(features.values, np.concatenate([alone["rgb"], alone["flow"]], axis=1))
    assert features.provenance.weights == "tsn-thumos14.pt,tsn-thumos14-flow.pt"
    assert len(features.provenance.settings["weights_sha256"]) == 2
    with pytest.raises(InputError, match="two files or ids"):
        load_extractor(name, str(files[0]))
    with pytest.raises(InputError, match="for both streams"):
        load_extractor(name, f"random,{files[1]}")


def test_streams_by_name() -> None:
    assert with_streams("i3d/thumos14", ["rgb", "flow"]) == "i3d/thumos14+i3d/thumos14-flow"
    assert with_streams("i3d", ["flow"]) == "i3d/flow"
    assert with_streams("tsn/flow", ["flow", "rgb"]) == "tsn/flow+tsn"
    with pytest.raises(InputError, match="no stream 'depth'"):
        with_streams("i3d", ["rgb", "depth"])
    with pytest.raises(InputError, match="no stream 'flow'"):
        with_streams("slowfast", ["rgb", "flow"])
    with pytest.raises(InputError, match="at most once"):
        with_streams("i3d", ["rgb", "rgb"])
    with pytest.raises(InputError, match="one of RGB and one of flow"):
        load_extractor("i3d+tsn", "random")


def test_the_rgb_preset_leads_in_sampling() -> None:
    loaded = load_extractor("i3d/flow+i3d/activitynet", "random", flow="dis")
    convention = loaded.extractor.convention
    assert (convention.window, convention.stride, convention.fps) == (16, 16, 25)
    assert convention.channels == (("flow", 1024), ("rgb", 1024)) and convention.flow == "dis"


def test_raft_with_seeded_weights(clip, tmp_path) -> None:
    command = ["extract", str(clip), "--extractor", "tsn/thumos14", "--stream", "flow", "--flow", "raft-small"]
    command += ["--weights", "random:1", "--out", str(tmp_path), "--window", "5", "--stride", "9", "--quiet"]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    features = load_features(tmp_path / "clip.npy", check_hash=True)
    assert features.values.shape == (2, 1024)
    assert features.provenance.settings["flow"] == "raft-small"
    assert len(features.provenance.settings["flow_weights_sha256"]) == 64


@pytest.mark.slow
def test_the_published_thumos_detector_runs_on_a_video(tmp_path: Path) -> None:
    torch.manual_seed(0)
    bundle = bundle_from_react({"state_dict": ReAct(THUMOS14).state_dict()})
    path = save_bundle(bundle, tmp_path / "react-thumos14.safetensors")
    video = write_clip(tmp_path / "short.mp4", numbered_frames(7), 30)
    command = ["detect", str(video), "--model", str(path), "--weights", "random:2", "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    timeline = read_timeline(tmp_path / "out" / "short.json")
    assert timeline.detector["extractor"] == "tsn/thumos14+tsn/thumos14-flow"
    assert timeline.detector["random_weights"] is True
    assert {segment.label for segment in timeline.results["short"]} <= set(bundle.classes)
    assert timeline.results["short"]


def test_a_bundle_brings_both_streams_and_its_sampling() -> None:
    torch.manual_seed(0)
    bundle = bundle_from_react({"state_dict": ReAct(THUMOS14).state_dict()})
    loaded = bundle_extractor(bundle, "random")
    assert loaded.extractor.convention.channels == bundle.channels
    assert (loaded.extractor.convention.window, loaded.extractor.convention.stride) == (5, 5)


@pytest.mark.parametrize(("name", "precision", "bound"), [("tiny3d", "bf16", 0.02), ("tsn/thumos14", "bf16", 0.03)])
def test_short_number_formats_come_close_and_are_recorded(clip, tmp_path, name, precision, bound) -> None:
    whole = extract_file(clip, load_extractor(name, "random"), tmp_path / "float32").features
    short = extract_file(clip, load_extractor(name, "random", precision=precision), tmp_path / precision).features
    difference = np.abs(short.values - whole.values).max() / np.abs(whole.values).max()
    assert 0 < difference < bound
    assert short.provenance.settings["precision"] == precision != whole.provenance.settings["precision"]
    assert short.provenance.fingerprint() != whole.provenance.fingerprint()


def test_precision_by_name() -> None:
    assert pick_precision("auto", "cpu") == "float32" and pick_precision("fp16", "cpu") == "fp16"
    with pytest.raises(InputError, match="did you mean bf16"):
        pick_precision("bf61", "cpu")


def test_channels_in_another_order_than_the_detectors_are_refused(clip: Path) -> None:
    torch.manual_seed(0)
    bundle = bundle_from_react({"state_dict": ReAct(THUMOS14).state_dict()})
    rows, grid = np.zeros((3, 2048), np.float32), Grid(Fraction(25), 5, 5, np.arange(3) / 5)
    there = Provenance(bundle.extractor, bundle.channels)
    check_fits(Features(rows, grid, probe(clip), there), bundle, "right.npy")
    swapped = Provenance(bundle.extractor, bundle.channels[::-1])
    with pytest.raises(InputError, match="channel order is flow 1024, rgb 1024 but") as error:
        check_fits(Features(rows, grid, probe(clip), swapped), bundle, "swapped.npy")
    assert "\n" not in str(error.value)
