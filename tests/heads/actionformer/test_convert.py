from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from vidtad.errors import InputError
from vidtad.heads.actionformer.convert import RELEASED, bundle_from_actionformer
from vidtad.heads.actionformer.presets import EGO4D_VARIANTS, PRESETS
from vidtad.heads.catalogue import add
from vidtad.heads.registry import load_detector
from vidtad.hub.bundle import load_bundle
from vidtad.hub.reading import read_checkpoint
from vidtad.hub.registry import CHECKPOINTS, THUMOS14_CLASSES
from vidtad.models import actionformer_config as networks
from vidtad.models.actionformer import ActionFormer
from vidtad.models.actionformer_config import ActionFormerConfig
from vidtad.models.actionformer_keys import OPENTAD, load_released, released_state

SMALL = ActionFormerConfig(
    in_channels=6, classes=3, width=16, heads=2, stem_layers=1, ranges=((0, 4), (4, 1e4)), windows=5, max_len=32
)
# Section 11 of the released configurations: parameters and tensors of each network.
SIZES = {
    "THUMOS14_I3D": (29_251_612, 229),
    "ACTIVITYNET_I3D": (8_123_145, 229),
    "ACTIVITYNET_TSP": (6_943_497, 229),
    "EPIC_VERB": (29_763_177, 229),
    "EPIC_NOUN": (30_075_188, 229),
}
EGO4D_SIZES = {
    "S": 32_945_271,
    "O": 34_927_736,
    "E": 18_675_576,
    "S+E": 78_933_624,
    "O+E": 77_164_152,
    "S+O+E": 134_048_888,
}


def size(config: ActionFormerConfig) -> tuple[int, int]:
    with torch.device("meta"):
        state = ActionFormer(config).state_dict()
    return sum(value.numel() for value in state.values()), len(state)


@pytest.mark.parametrize("name", SIZES)
def test_released_networks_have_their_published_sizes(name: str) -> None:
    assert size(getattr(networks, name)) == SIZES[name]


@pytest.mark.parametrize("variant", EGO4D_SIZES)
def test_ego4d_networks_have_their_published_sizes(variant: str) -> None:
    assert size(networks.EGO4D_VARIANTS[variant])[0] == EGO4D_SIZES[variant]
    preset = EGO4D_VARIANTS[variant]
    assert sum(count for _, count in preset.features.channels) == preset.network.inputs


def test_official_lengths() -> None:
    lengths = {"THUMOS14_I3D": 576, "ACTIVITYNET_I3D": 96, "EPIC_VERB": 256, "EGO4D": 1024}
    for name, divisor in lengths.items():
        config = getattr(networks, name)
        assert config.official_length(10) == config.max_len
        longer = config.official_length(config.max_len + 1)
        assert longer % divisor == 0 and longer - divisor <= config.max_len


def test_every_published_checkpoint_has_a_preset() -> None:
    published = {id for id, c in CHECKPOINTS.items() if c.network == "actionformer" and c.task == "temporal detection"}
    assert published == set(RELEASED)
    for id, name in RELEASED.items():
        assert CHECKPOINTS[id].classes == PRESETS[name].network.classes


def published(config: ActionFormerConfig) -> dict:
    """A checkpoint file's contents: the averaged weights are the ones to take."""
    torch.manual_seed(1)
    state = ActionFormer(config).state_dict()
    averaged = {f"module.{key}": torch.randn_like(value) * 0.1 for key, value in state.items()}
    trained = {key: torch.zeros_like(value) for key, value in averaged.items()}
    return {"epoch": 34, "state_dict": trained, "state_dict_ema": averaged, "optimizer": {"state": {}}}


def as_opentad(state: dict) -> dict:
    """The same tensors under OpenTAD's names and shapes."""
    names = [
        ("backbone.embd_norm.", "projection.embed.", ".norm"),
        ("backbone.embd.", "projection.embed.", ""),
        ("backbone.", "projection.", ""),
        ("cls_head.cls_head.conv.", "rpn_head.cls_head.", ""),
        ("reg_head.offset_head.conv.", "rpn_head.reg_head.", ""),
        ("reg_head.scale.", "rpn_head.scale.", ""),
    ]
    renamed = {"module.rpn_head.loss_normalizer": torch.tensor(100)}
    for key, value in state.items():
        key = key.removeprefix("module.")
        for part in ("cls", "reg"):
            key = key.replace(f"{part}_head.head.", f"rpn_head.{part}_convs.")
            if key.startswith(f"{part}_head.norm."):
                number, leaf = key.removeprefix(f"{part}_head.norm.").split(".")
                key = f"rpn_head.{part}_convs.{number}.norm.{leaf}"
        for old, new, inner in names:
            if key.startswith(old):
                rest = key.removeprefix(old)
                number, _, leaf = rest.partition(".")
                key = f"{new}{number}{inner}.{leaf}" if inner else new + rest
                break
        norm = value.ndim == 3 and value.shape[0] == value.shape[2] == 1 and "drop_path" not in key
        renamed[f"module.{key}"] = value.flatten() if norm else value
    return renamed


def test_both_layouts_hold_the_same_weights() -> None:
    state = published(SMALL)["state_dict_ema"]
    own, foreign = load_released(SMALL, state), load_released(SMALL, as_opentad(state))
    assert own.config.layout == "released" and foreign.config.layout == "opentad"
    for key, value in own.state_dict().items():
        assert torch.equal(value, foreign.state_dict()[key]), key
    assert len(OPENTAD) >= 8 and released_state(as_opentad(state)).keys() == own.state_dict().keys()


@torch.inference_mode()
def test_layouts_agree_where_no_padding_is_near() -> None:
    state = published(SMALL)["state_dict_ema"]
    own, foreign = (load_released(SMALL, layout).eval() for layout in (state, as_opentad(state)))
    features = torch.randn(1, 32, 6, generator=torch.Generator().manual_seed(3))
    mask = torch.zeros(1, 32, dtype=torch.bool)
    whole = [network(features, mask).logits[0] for network in (own, foreign)]
    torch.testing.assert_close(*whole, atol=1e-3, rtol=0)
    mask[:, 20:] = True
    features[:, 20:] = 0
    padded = [network(features, mask).logits[0][:, :20] for network in (own, foreign)]
    assert (padded[0] - padded[1])[:, -5:].abs().max() > 5e-3


def test_add_the_authors_file(tmp_path: Path) -> None:
    path = tmp_path / "epoch_034.pth.tar"
    contents = published(networks.THUMOS14_I3D)
    torch.save(contents, path)
    bundle = load_bundle(add(path, name="actionformer-thumos14").path)
    assert bundle.classes == THUMOS14_CLASSES and bundle.width == 2048
    averaged = {key.removeprefix("module."): value for key, value in contents["state_dict_ema"].items()}
    assert bundle.head_weights.keys() == averaged.keys()
    assert all(torch.equal(bundle.head_weights[key], value) for key, value in averaged.items())
    assert bundle.sampling == {"window": 16, "stride": 4, "fps": None}
    assert bundle.scores["published"]["average_mAP"] == 0.6683
    detector = load_detector(bundle)
    assert len(detector(np.random.default_rng(0).standard_normal((40, 2048), dtype=np.float32)).scores)


def test_presets_in_opentads_layout(tmp_path: Path) -> None:
    contents = published(replace(networks.EPIC_NOUN, classes=293))
    contents["state_dict_ema"] = as_opentad(contents["state_dict_ema"])
    torch.save(contents, tmp_path / "epoch_21.pth")
    bundle = bundle_from_actionformer(read_checkpoint(tmp_path / "epoch_21.pth"), "epic100-noun")
    assert bundle.head_config["layout"] == "opentad" and bundle.decoding["pooled"] is True
    assert len(bundle.classes) == 293 and not bundle.scores
    assert bundle.classes[292] == "output 292", "these are no numbers of nouns"
    load_detector(bundle)


def test_outputs_are_numbered_like_the_data_sets_classes() -> None:
    bundle = bundle_from_actionformer(published(networks.EPIC_NOUN), "epic100-noun")
    assert bundle.classes[299] == "noun 299"


def test_ego4d_features_follow_from_the_weights() -> None:
    bundle = bundle_from_actionformer(published(networks.EGO4D_VARIANTS["E"]), "ego4d")
    assert bundle.channels == (("egovlp", 256),) and bundle.sampling["window"] == 16
    assert bundle.head_config == {**bundle.head_config, "width": 384, "heads": 4}


@pytest.mark.parametrize(
    ("preset", "change", "word"),
    [
        ("thumos", lambda state: None, "there is thumos14"),
        ("thumos14", lambda state: state.pop("module.neck.fpn_norms.0.bias"), "missing: neck.fpn_norms.0.bias"),
        ("thumos14", lambda state: state.update({"module.extra": torch.ones(1)}), "unused: extra"),
        ("epic100-verb", lambda state: None, "another shape"),
        ("ego4d", lambda state: None, "no released network"),
    ],
)
def test_other_weights_are_refused(preset: str, change, word: str) -> None:
    contents = published(networks.THUMOS14_I3D)
    change(contents["state_dict_ema"])
    with pytest.raises(InputError, match=word):
        bundle_from_actionformer(contents, preset)


def test_class_names_must_fit() -> None:
    with pytest.raises(InputError, match="2 class names"):
        bundle_from_actionformer(published(networks.THUMOS14_I3D), classes=("a", "b"))


def test_opentads_activitynet_is_refused() -> None:
    contents = published(networks.ACTIVITYNET_TSP)
    contents["state_dict_ema"] = as_opentad(contents["state_dict_ema"])
    with pytest.raises(InputError, match="resizes"):
        bundle_from_actionformer(contents, "activitynet-tsp")


def test_presets_are_plain_values() -> None:
    for preset in PRESETS.values():
        assert ActionFormerConfig(**asdict(preset.network)) == preset.network
