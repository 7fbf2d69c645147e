from fractions import Fraction

import numpy as np
import pytest
import torch

from vidtad import extractors
from vidtad.errors import InputError


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
