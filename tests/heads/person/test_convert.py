"""Released person-box detectors become bundles: tensors in the authors' layouts, nothing missing, nothing unused."""

from pathlib import Path
from urllib.error import URLError

import pytest
import torch

from vidtad.errors import InputError, RunError
from vidtad.extractors.person_presets import TRUNKS
from vidtad.heads import catalogue as checkpoints
from vidtad.heads.person.bundle import load_network
from vidtad.heads.person.convert import RELEASED, bundle_from_people, class_names
from vidtad.heads.registry import converters
from vidtad.hub.bundle import Bundle, load_bundle
from vidtad.hub.registry import CHECKPOINTS
from vidtad.models.acar import AcarConfig, AcarHead
from vidtad.models.loading import random_state
from vidtad.models.roi import LinearConfig, LinearHead

NAMES = {"branch2.a": "conv1", "branch2.b": "conv2", "branch2.c": "conv3"}


def tiny_trunk() -> dict[str, torch.Tensor]:
    return random_state(TRUNKS["slowfast/tiny"].network())


def as_acar(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """PySlowFast's names to those of ACAR's release."""
    renamed = {}
    for key, value in state.items():
        stage, _, rest = key.partition(".")
        if stage.endswith("_fuse"):
            part = "0" if rest.startswith("conv") else "1"
            key = f"Tconv{stage[1]}.{part}.{rest.rsplit('.', 1)[1]}"
        else:
            pathway, _, inner = rest.partition("_")
            name = {"0": "slow", "1": "fast"}[pathway[-1]]
            if stage == "s1":
                key = f"{name}_{inner.removeprefix('stem.').replace('conv.', 'conv1.').replace('bn.', 'bn1.')}"
            else:
                block, _, layer = inner.removeprefix("res").partition(".")
                layer = layer.replace("branch1_bn.", "downsample_bn.").replace("branch1.", "downsample.0.")
                for number, letter in enumerate("abc", 1):
                    layer = layer.replace(f"branch2.{letter}_bn.", f"bn{number}.")
                    layer = layer.replace(f"branch2.{letter}.", f"conv{number}.")
                key = f"{name}_res{int(stage[1]) - 1}.{block}.{layer}"
        renamed[f"module.backbone.module.{key}"] = value
    return renamed


def acar_release() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    head = AcarHead(AcarConfig(width=576, reduced=8, hidden=4))
    return as_acar(tiny_trunk()) | {f"module.head.module.{key}": value for key, value in head.state_dict().items()}


def psf_release(outputs: int = 80) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    head = LinearHead(LinearConfig(width=576, classes=outputs))
    return {"model_state": tiny_trunk() | {f"head.{key}": value for key, value in head.state_dict().items()}}


def test_acar() -> None:
    bundle = bundle_from_people(acar_release(), "acar-r101-ava", sha256="0" * 64)
    assert (bundle.head, bundle.extractor, len(bundle.classes)) == ("acar", "slowfast/acar-r101", 60)
    assert bundle.classes[0] == "bend/bow (at the waist)" and bundle.classes[12] == "walk"
    assert bundle.head_config["poses"] == 13 and bundle.decoding == {"person_score": 0.85}
    network = load_network(bundle)
    clip, boxes = torch.randn(1, 3, 16, 64, 64), [torch.tensor([[0.1, 0.1, 0.9, 0.9]])]
    assert network(clip, boxes).shape == (1, 60)
    torch.testing.assert_close(
        network.trunk.s4.pathway0_res0.branch2.a.weight,
        acar_release()["module.backbone.module.slow_res3.0.conv1.weight"],
    )


def test_pyslowfast_and_its_longer_model() -> None:
    for id, window in (("slowfast-32x2-r101-ava2.2", 64), ("slowfast-64x2-r101-ava2.2", 128)):
        bundle = bundle_from_people(psf_release(), id)
        assert (bundle.head, len(bundle.classes), bundle.classes[79]) == ("linear", 80, "watch (a person)")
        assert (
            bundle.sampling["window"] == window and bundle.head_config["pixels"] and not bundle.head_config["aligned"]
        )


def test_mmaction2_leaves_the_first_output_out() -> None:
    bundle = bundle_from_people(psf_release(81), "mmaction2-slowfast-r50-ava-max")
    assert bundle.head_config["classes"] == 80 and bundle.head_config["background"] == 1
    head = load_network(bundle).head
    maps = (torch.rand(1, 512, 2, 4, 4), torch.rand(1, 64, 4, 4, 4))
    logits = head(maps, [torch.tensor([[0.0, 0, 64, 64]])])
    pooled = torch.cat([m.amax(2) for m in maps], dim=1)
    assert logits.shape == (1, 80) and head.config.maximum and head.config.side == 8
    assert head.projection(pooled.amax(dim=(2, 3)))[:, 1:].sub(logits).abs().max() < 0.5


@pytest.mark.parametrize("change", ["missing", "unused", "outputs"])
def test_other_weights_are_refused(change: str) -> None:
    state = acar_release()
    if change == "missing":
        del state["module.head.module.conv2.weight"]
    elif change == "unused":
        state["module.head.module.conv9.weight"] = torch.zeros(1)
    else:
        state["module.head.module.fc2.weight"] = torch.zeros(61, 8)
    with pytest.raises(InputError, match={"missing": "conv2", "unused": "conv9", "outputs": "61 outputs"}[change]):
        bundle_from_people(state, "acar-r50-ava")


def test_class_names_are_those_of_the_outputs() -> None:
    assert class_names(80)[1] == "crawl" and "crawl" not in class_names(60)
    with pytest.raises(InputError, match="81 outputs"):
        class_names(81)


def test_every_released_detector_is_in_the_registry() -> None:
    for id, released in RELEASED.items():
        assert CHECKPOINTS[id].task == "person detection" and released.trunk in TRUNKS
        assert id in converters()
    with pytest.raises(InputError, match="acar-r50-ava"):
        bundle_from_people({}, "acar")


def test_linear_is_fetched_and_turned_into_a_bundle_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIDTAD_CACHE", str(tmp_path))
    downloads = []

    def download(id: str, **_: object) -> Path:
        downloads.append(id)
        torch.save(psf_release(), tmp_path / "file.pyth")
        return tmp_path / "file.pyth"

    monkeypatch.setattr(checkpoints, "fetch", download)
    monkeypatch.setattr(checkpoints, "_builtins", dict)
    bundle, hint = checkpoints.resolve_model("linear")
    assert isinstance(bundle, Bundle) and bundle.name == "slowfast-8x8-r50-ava" and hint is None
    again = checkpoints.fetch_detector("slowfast-8x8-r50-ava")
    assert load_bundle(again).classes == bundle.classes and downloads == ["slowfast-8x8-r50-ava"]
    assert checkpoints.resolve_model("linear")[0].sha256 == load_bundle(again).sha256


def test_without_a_connection_the_address_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIDTAD_CACHE", str(tmp_path))
    monkeypatch.setattr(checkpoints, "_builtins", dict)

    class Offline:
        def open(self, *_: object, **__: object) -> None:
            raise URLError("no network")

    monkeypatch.setattr("vidtad.hub.download._opener", Offline)
    monkeypatch.setattr("vidtad.hub.download.PAUSE_S", 0)
    with pytest.raises(RunError, match="SLOWFAST_8x8_R50_DETECTION"):
        checkpoints.resolve_model("linear")
