from fractions import Fraction

import numpy as np
import pytest
import torch

from vidtad import extractors
from vidtad.errors import InputError
from vidtad.extractors.stream import clips
from vidtad.hub.registry import CHECKPOINTS
from vidtad.models.torchvision_video import NETWORKS


@pytest.fixture(scope="module")
def i3d() -> extractors.ClipExtractor:
    return extractors.build("i3d", extractors.random_weights("i3d", 3), window=9, stride=2, fps=Fraction(10))


def test_overrides_replace_the_preset(i3d) -> None:
    assert (i3d.convention.window, i3d.convention.stride, i3d.convention.fps) == (9, 2, 10)
    assert (i3d.convention.crop, i3d.convention.width) == (224, 1024)
    published = extractors.PRESETS["i3d"].convention
    assert (published.window, published.stride, published.fps) == (16, 4, None)
    anet = extractors.PRESETS["i3d/activitynet"].convention
    assert (anet.window, anet.stride, anet.fps) == (16, 16, 25)


def test_a_row_depends_on_its_own_window_only_and_follows_the_normalisation(i3d) -> None:
    clips = np.random.default_rng(0).integers(0, 256, (3, 9, 64, 64, 3), dtype=np.uint8)
    together = i3d(clips)
    alone = np.concatenate([i3d(clips[i : i + 1]) for i in range(3)])
    assert together.shape == (3, 1024) and together.dtype == np.float32 and np.isfinite(together).all()
    assert np.abs(together - alone).max() <= 1e-5 * np.abs(together).max()
    network = extractors.PRESETS["i3d"].load(extractors.random_weights("i3d", 3)).eval()
    x = 2 * torch.from_numpy(clips).permute(0, 4, 1, 2, 3).float() / 255 - 1
    with torch.inference_mode():
        expected = network.features(x).numpy()
    assert np.abs(together - expected).max() <= 1e-5 * np.abs(expected).max()


def test_random_weights_are_seeded() -> None:
    first, again, other = (extractors.random_weights("i3d", seed) for seed in (1, 1, 2))
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first["logits.conv3d.weight"], other["logits.conv3d.weight"])


def test_unknown_name_gets_the_near_ones() -> None:
    with pytest.raises(InputError, match="i3d/thumos14"):
        extractors.build("i3d/thumos", {})


def test_weights_of_another_network_are_refused() -> None:
    with pytest.raises(InputError, match="not those of InceptionI3d"):
        extractors.build("i3d", {"conv1.weight": torch.zeros(1)})


def test_pictures_that_are_handed_in_stay_as_they_are() -> None:
    extractor = extractors.build("r2plus1d/tsp", extractors.random_weights("r2plus1d/tsp"))
    pictures = np.random.default_rng(0).uniform(0, 255, (2, 6, 6, 3)).astype(np.float32)
    before = pictures.copy()
    found = extractor.normalise(pictures)
    np.testing.assert_array_equal(pictures, before)
    settings = extractor.convention
    expected = (before - np.float32(settings.mean)) / np.float32(settings.std)
    np.testing.assert_allclose(found.numpy(), np.moveaxis(expected, -1, -4), rtol=1e-6)


PAIRS = [
    (name, preset.companion)
    for name, preset in extractors.PRESETS.items()
    if preset.companion is not None and preset.convention.flow is None
]


def test_every_flow_preset_has_its_pictures() -> None:
    flows = {name for name, preset in extractors.PRESETS.items() if preset.convention.flow is not None}
    assert {flow for _, flow in PAIRS} == flows
    assert all(extractors.PRESETS[flow].companion == rgb for rgb, flow in PAIRS)


@pytest.mark.parametrize(("rgb", "flow"), PAIRS)
def test_both_streams_of_a_pair_see_the_same_windows_and_sizes(rgb: str, flow: str) -> None:
    name = extractors.with_streams(rgb, ["rgb", "flow"])
    assert name == f"{rgb}+{flow}"
    first, second = (extractors.PRESETS[part].convention for part in (rgb, flow))
    for key in ("window", "stride", "fps", "resize", "crop", "interpolation", "tail"):
        assert getattr(first, key) == getattr(second, key), key
    both = extractors.build(name, extractors.random_weights(name), flow="dis")
    assert isinstance(both, extractors.TwoStream)
    assert both.convention.channels == first.channels + second.channels
    pictures = np.zeros((first.window, first.crop, first.crop, 5), np.uint8)
    assert both.prepare(pictures[0]).shape == (first.crop, first.crop, 5)


@pytest.mark.parametrize("rgb", ["i3d/thumos14", "i3d/activitynet", "i3d/video_features"])
def test_flow_of_one_family_follows_the_pictures_of_its_rgb(rgb: str) -> None:
    name = f"{rgb}+i3d/flow"
    both = extractors.build(name, extractors.random_weights(name), flow="dis")
    flow, wanted = both.streams[1].convention, extractors.PRESETS[rgb].convention
    assert (flow.resize, flow.crop, flow.interpolation) == (wanted.resize, wanted.crop, wanted.interpolation)


def test_networks_of_two_families_keep_their_own_pictures() -> None:
    name = "r2plus1d/tsp+i3d/flow"
    with pytest.raises(InputError, match="differ in resize, crop, interpolation"):
        extractors.build(name, extractors.random_weights(name), flow="dis")


@pytest.mark.parametrize("stream", ["i3d/thumos14", "i3d/thumos14-flow"])
def test_thumos14_pictures_are_340x256_and_their_middle(stream: str) -> None:
    weights = extractors.random_weights(stream)
    extractor = extractors.build(stream, weights)
    picture = np.random.default_rng(0).integers(0, 256, (240, 426, 3), dtype=np.uint8)
    assert (extractor.convention.resize, extractor.convention.crop) == ((256, 340), 224)
    depth = len(extractor.convention.mean)
    import cv2

    whole = cv2.resize(picture, (340, 256), interpolation=cv2.INTER_LINEAR)[..., :depth]
    prepared = extractor.prepare(np.ascontiguousarray(picture[..., :depth]))
    np.testing.assert_array_equal(prepared, whole[16:240, 58:282])


@pytest.mark.parametrize("stream", ["i3d/video_features", "i3d/video_features-flow"])
def test_video_features_normalises_with_its_own_eps(stream: str) -> None:
    preset = extractors.PRESETS[stream]
    for network in (preset.network(), preset.load(extractors.random_weights(stream))):
        norms = [module for module in network.modules() if isinstance(module, torch.nn.BatchNorm3d)]
        assert norms and {norm.eps for norm in norms} == {1e-5}
    assert preset.checkpoints[0].endswith("hassony2")
    assert extractors.PRESETS["i3d"].load(extractors.random_weights("i3d")).Conv3d_1a_7x7.bn.eps == 1e-3


@pytest.mark.parametrize(("frames", "stacks"), [(355, 5), (129, 2), (128, 1), (65, 1), (193, 3), (192, 2)])
def test_video_features_reads_one_frame_more_than_a_stack(frames: int, stacks: int) -> None:
    """(N - 1 - 64) // 64 + 1 stacks, alone and beside flow."""
    from vidtad.extractors.flows import Picture
    from vidtad.extractors.stream import clips

    convention = extractors.PRESETS["i3d/video_features"].convention
    extractor = extractors.ClipExtractor("video_features", convention, torch.nn.Identity())
    decoded = [Picture(k / 25, np.zeros((1, 1, 3), np.uint8)) for k in range(frames)]
    cut = list(clips(extractor.frames(decoded), convention, lambda picture: picture, fps=25))
    assert len(cut) == stacks
    assert [clip.numbers[0] for clip in cut] == [64 * k for k in range(stacks)]
    assert "paired" in convention.to_json() and "paired" not in extractors.PRESETS["i3d"].convention.to_json()


def test_flow_of_video_features_rests_at_128() -> None:
    from vidtad.extractors.flows import Pair, Picture, Sized, levels_of

    flow = np.array([[[0.0, 20.0], [-20.0, 19.5]]], np.float32)
    assert levels_of(flow, "denseflow").tolist() == [[[128, 255], [0, 252]]]
    assert levels_of(flow, "video_features").tolist() == [[[128, 255], [0, 252]]]
    assert (
        levels_of(flow + 0.1, "video_features")[0, 0, 0] == 129 and levels_of(flow + 0.1, "denseflow")[0, 0, 0] == 128
    )
    convention = extractors.PRESETS["i3d/video_features-flow"].convention
    assert (convention.flow, convention.levels) == ("raft", "video_features")
    frames = [Sized(Picture(0.0, np.zeros((256, 256, 3), np.uint8)), convention) for _ in range(2)]
    pair = Pair(*frames, lambda first, second: np.full((*first.shape, 2), 0.1, np.float32))
    assert np.unique(pair.levels()).tolist() == [129]


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_torchvision_presets_are_what_torchvisions_own_weights_say(name: str) -> None:
    from torchvision.models import get_model_weights

    preset = extractors.PRESETS[name]
    settings, files = preset.convention, [CHECKPOINTS[id] for id in preset.checkpoints]
    published = list(get_model_weights(name))
    assert {file.url for file in files} == {weights.url for weights in published}
    assert files[0].url == get_model_weights(name).DEFAULT.url
    assert all(file.classes == len(weights.meta["categories"]) for file in files for weights in published)
    for weights in published:
        transforms = weights.transforms()
        np.testing.assert_allclose(settings.mean, np.array(transforms.mean) * 255, rtol=1e-6)
        np.testing.assert_allclose(settings.std, np.array(transforms.std) * 255, rtol=1e-6)
        assert [settings.crop] * 2 == transforms.crop_size
        resize = settings.resize if isinstance(settings.resize, tuple) else (settings.resize,)
        assert list(resize) == transforms.resize_size
        assert settings.window >= weights.meta.get("min_temporal_size", 1)
        assert settings.channels == (("rgb", NETWORKS[name][0]),)


@pytest.mark.parametrize("name", ["r3d_18", "s3d", "mvit_v2_s", "swin3d_t"])
@pytest.mark.parametrize("shape", [(240, 426), (321, 250), (256, 300)])
def test_torchvision_pictures_are_torchvisions_to_a_grey_level(name: str, shape: tuple[int, int]) -> None:
    from torchvision.models import get_model_weights

    settings = extractors.PRESETS[name].convention
    extractor = extractors.ClipExtractor(name, settings, torch.nn.Identity())
    waves = np.add.outer(np.sin(np.arange(shape[0]) / 9), np.cos(np.arange(shape[1]) / 7))
    picture = np.repeat((127.5 + 60 * waves).astype(np.uint8)[..., None], 3, axis=2)
    ours = extractor.normalise(extractor.prepare(picture)[None, None])[0, :, 0]
    transforms = get_model_weights(name).DEFAULT.transforms()
    theirs = transforms(torch.from_numpy(picture).permute(2, 0, 1)[None])[:, 0]
    assert ours.shape == theirs.shape
    level = 1 / min(settings.std)
    assert (ours - theirs).abs().max() <= 1.6 * level


@pytest.mark.parametrize(
    "frames, centres", [(8, [4]), (9, [8]), (24, [8]), (25, [8, 24]), (32, [8, 24]), (41, [8, 24, 40])]
)
@pytest.mark.parametrize("name", ["tsn", "tsn/flow", "tsn/activitynet"])
def test_tsn_has_a_snippet_for_every_centre_inside_the_video(name: str, frames: int, centres: list[int]) -> None:
    class Numbered:
        def __init__(self, number: int):
            self.time_s = number / 25

        def rgb(self) -> np.ndarray:
            return np.zeros((1, 1, 3), np.uint8)

    stream = clips(map(Numbered, range(frames)), extractors.PRESETS[name].convention, lambda rgb: rgb, fps=25.0)
    assert [clip.centre_s * 25 for clip in stream] == pytest.approx(centres)


@pytest.mark.parametrize(("name", "window"), [("tiny3d", 8), ("tiny3d", 33), ("s3d", 12)])
def test_windows_that_the_network_cannot_look_at_are_refused_at_once(name: str, window: int) -> None:
    with pytest.raises(InputError, match=rf"{name} cannot look at windows of {window} frames; its own are of"):
        extractors.build(name, extractors.random_weights(name), window=window)
