"""Extractors and the published weights that are theirs."""

import pytest
import torch

from vidtad.errors import InputError
from vidtad.extractors import PRESETS, random_weights
from vidtad.hub import download
from vidtad.hub.registry import CHECKPOINTS
from vidtad.models import slowfast
from vidtad.pipelines.extract.load import load_extractor


def shrunk(depth: int = 50, **changes) -> slowfast.SlowFastShape:
    """A published network at a quarter of its width."""
    return slowfast.SlowFastShape.published(depth, 5, width=16, **changes)


def test_every_slowfast_of_the_registry_has_a_preset() -> None:
    own = [id for id, entry in CHECKPOINTS.items() if entry.network == "slowfast" and entry.task == "classification"]
    assert len(own) == 9
    for id in own:
        owners = [name for name, preset in PRESETS.items() if id in preset.checkpoints]
        assert len(owners) == 1, id


@pytest.mark.parametrize(
    ("name", "alpha", "rule", "frames", "window", "slow_frames"),
    [
        ("slowfast", 4, "span", 32, 64, 8),
        ("slowfast/4x16", 8, "span", 32, 64, 4),
        ("slowfast/16x8", 4, "span", 64, 128, 16),
        ("slowfast/acar-r50", 4, "span", 32, 64, 8),
        ("slowfast/acar-r101", 4, "stride", 32, 64, 8),
        ("slowfast/epic", 4, "span", 32, 32, 8),
    ],
)
def test_slowfast_presets_are_the_published_networks(name, alpha, rule, frames, window, slow_frames) -> None:
    preset = PRESETS[name]
    weights = slowfast.SlowFast(shrunk()).state_dict()
    with torch.device("meta"):
        made = preset.network()
    for network in (made, preset.load(weights)):
        assert isinstance(network, slowfast.SlowFast)
        assert (network.options.alpha, network.options.slow_frames) == (alpha, rule)
        assert network.get_submodule("s1_fuse.conv_f2s").stride == (alpha, 1, 1)
    settings = preset.convention
    assert (len(settings.shown), settings.window, settings.fps) == (frames, window, 30)
    assert len(slowfast.slow_index(frames, alpha, rule)) == slow_frames


def test_random_networks_have_the_published_sizes() -> None:
    with torch.device("meta"):
        networks = {name: PRESETS[name].network() for name in PRESETS if name.startswith("slowfast")}
    millions = {
        name: sum(p.numel() for key, p in network.named_parameters() if not key.startswith("head")) / 1e6
        for name, network in networks.items()
    }
    assert abs(millions["slowfast"] - 33.64) < 0.01 and abs(millions["slowfast/acar-r101"] - 61.90) < 0.01
    kernels = slowfast.shape_of(networks["slowfast/16x8"].state_dict()).kernels[2]
    assert [(sum(k == 3 for k in one), sum(k == 1 for k in one)) for one in kernels] == [(6, 17), (6, 17)]


def test_acar_r101_has_its_own_pictures() -> None:
    ours, plain = PRESETS["slowfast/acar-r101"].convention, PRESETS["slowfast"].convention
    assert ours.interpolation == "pillow" and plain.interpolation == "opencv-floor"
    assert ours.mean == (110.63666788, 103.16065604, 96.29023126)
    assert ours.std == (38.7568578, 37.88248729, 40.02898126)


@pytest.mark.parametrize(
    ("name", "id", "right"),
    [
        ("slowfast", "slowfast-4x16-r50-kinetics400", "slowfast/4x16"),
        ("slowfast", "slowfast-4x16-r50-kinetics400-caffe2", "slowfast/4x16"),
        ("slowfast", "slowfast-16x8-r101-50-50-kinetics400", "slowfast/16x8"),
        ("slowfast", "acar-slowfast-r101-kinetics700", "slowfast/acar-r101"),
        ("slowfast/4x16", "slowfast-8x8-r50-kinetics400", "slowfast"),
        ("slowfast", "slowfast-8x8-r50-ava", "--model slowfast-8x8-r50-ava"),
    ],
)
def test_weights_of_another_preset_are_refused_before_they_are_fetched(monkeypatch, name, id, right) -> None:
    monkeypatch.setattr(download, "fetch", lambda id: pytest.fail(f"fetched {id}"))
    with pytest.raises(InputError) as error:
        load_extractor(name, id)
    assert str(error.value).endswith((f"pass --extractor {right}", f"pass {right} to detect"))
    assert "\n" not in str(error.value)


def test_weights_of_no_preset_and_those_of_both_are_taken(monkeypatch, tmp_path) -> None:
    path = tmp_path / "weights.pt"
    monkeypatch.setattr(download, "fetch", lambda id: path)
    torch.save({"state_dict": random_weights("tsn")}, path)
    assert load_extractor("tsn", "tsn-r50-1x1x5-kinetics400-rgb").weights == "tsn-r50-1x1x5-kinetics400-rgb"
    torch.save(random_weights("r2plus1d/tsp"), path)
    assert load_extractor("r2plus1d/tsp", "tsp-r2plus1d-34-thumos14").weights == "tsp-r2plus1d-34-thumos14"


def test_a_preset_of_learned_flow_brings_it() -> None:
    name = "i3d/video_features+i3d/video_features-flow"
    loaded = load_extractor(name, "random:1")
    assert loaded.extractor.convention.flow == "raft"
    assert len(loaded.settings()["flow_weights_sha256"]) == 64
    other = load_extractor(name, "random:1", flow="dis")
    assert other.extractor.convention.flow == "dis" and "flow_weights_sha256" not in other.settings()
    assert other.settings()["levels"] == "video_features" and "paired" not in other.settings()
