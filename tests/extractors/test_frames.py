import numpy as np
import pytest
import torch

from vidtad import extractors
from vidtad.errors import InputError
from vidtad.extractors import preprocess, sampling


@pytest.mark.parametrize(
    ("interpolation", "expected"), [("opencv", (256, 390)), ("opencv-floor", (256, 389)), ("pillow", (256, 389))]
)
def test_long_side_is_rounded_as_each_pipeline_does(interpolation: str, expected: tuple[int, int]) -> None:
    assert preprocess.target_size(360, 548, 256, interpolation) == expected
    assert preprocess.target_size(548, 360, 256, interpolation) == expected[::-1]


def test_float_resizing_keeps_fractions_and_pillow_averages_when_shrinking() -> None:
    stripes = np.zeros((8, 64, 3), dtype=np.uint8)
    stripes[:, ::2] = 255
    assert preprocess.resized(stripes, (8, 9), "float").dtype == np.float32
    antialiased = preprocess.resized(stripes, (8, 8), "pillow")
    assert antialiased.std() < preprocess.resized(stripes, (8, 6), "opencv").std()


@pytest.mark.parametrize("shape", [(719, 1281), (120, 161), (240, 320), (1080, 1920)])
def test_float_resizing_is_tsps_to_five_digits(shape: tuple[int, int]) -> None:
    frame = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    shares = torch.from_numpy(frame).permute(2, 0, 1).contiguous().float() / 255
    wanted = torch.nn.functional.interpolate(shares[None], size=(128, 171), mode="bilinear", align_corners=False)[0]
    found = preprocess.resized(frame, (128, 171), "float")
    np.testing.assert_allclose(found / 255, wanted.permute(1, 2, 0).numpy(), atol=1e-6)


def test_crop_margins() -> None:
    picture = np.arange(171)[None, :, None].repeat(128, 0)
    assert preprocess.centre_crop(picture, 112)[0, 0, 0] == 29
    assert preprocess.centre_crop(picture, 112, half_to_even=True)[0, 0, 0] == 30
    with pytest.raises(InputError, match="smaller than the 200-pixel crop"):
        preprocess.centre_crop(picture, 200)


@pytest.mark.parametrize("name", list(extractors.PRESETS))
def test_every_preset_prepares_frames_of_any_shape(name: str) -> None:
    convention = extractors.PRESETS[name].convention
    extractor = extractors.ClipExtractor(name, convention, extractors.PRESETS["tiny3d"].network())
    for height, width in ((240, 320), (400, 100)):
        picture = extractor.prepare(np.full((height, width, 3), 7, dtype=np.uint8))
        assert picture.shape == (convention.crop, convention.crop, 3) and np.allclose(picture, 7)


def test_picked_frames_alone_reach_the_network() -> None:
    import torch

    class Mean(torch.nn.Module):
        def features(self, clips):
            return clips.mean(dim=(2, 3, 4))

    convention = extractors.PRESETS["tsn"].convention
    clips = np.zeros((2, 16, 4, 4, 3), dtype=np.uint8)
    clips[:, 8] = 255
    rows = extractors.ClipExtractor("tsn", convention, Mean())(clips)
    expected = (255 - np.array(convention.mean)) / np.array(convention.std)
    np.testing.assert_allclose(rows, np.tile(expected, (2, 1)), rtol=1e-6)


def test_short_videos_and_single_rows() -> None:
    assert len(sampling.window_starts(15, 16, 4)) == 0
    assert sampling.spread_clips(3, 5, 1, 2).tolist() == [[0, 1, 2, 0, 1]] * 2
    assert sampling.spread_clips(10, 4, 1, 1).tolist() == [[3, 4, 5, 6]]
    one = np.float32([[1, 2]])
    for pool in (sampling.resize_rows, sampling.pool_rows_mmaction):
        assert (pool(one) == one).all() and pool(one).shape == (100, 2)
    assert (sampling.pool_rows_bsn(one, frames=16, duration_s=1.0) == one).all()
    with pytest.raises(InputError, match="frame rates must be above 0"):
        sampling.resampled(10, 0, 15)


@pytest.mark.parametrize("snippets", [2, 5, 10, 25, 50])
def test_bins_that_end_on_a_centre_are_empty_where_bsns_are(snippets: int) -> None:
    rng = np.random.default_rng(snippets)
    for _ in range(20):
        features = rng.uniform(1, 2, (snippets, 1)).astype(np.float32)
        frames = int(rng.integers(16 * snippets - 8, 16 * snippets + 24))
        duration_s = frames / rng.uniform(15, 60)
        step = 16 / (frames / duration_s)
        first, last = step / 2 + 0 * step, step / 2 + (snippets - 1) * step
        whole = 16 * snippets / frames * duration_s
        empty = [
            min(last - 1e-4, 1 / 100 * (i + 1) * whole) < first or max(first + 1e-4, 1 / 100 * i * whole) > last
            for i in range(100)
        ]
        found = sampling.pool_rows_bsn(features, frames=frames, duration_s=duration_s)
        assert (found[:, 0] == 0).tolist() == empty
