from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.bundles import seeded_actionformer
from vidtad.errors import InputError, RunError
from vidtad.features import Grid
from vidtad.heads.actionformer.detector import ActionFormerDetector, pieces, predict_points
from vidtad.heads.registry import load_detector
from vidtad.hub.bundle import load_bundle
from vidtad.models.actionformer import ActionFormer
from vidtad.models.actionformer_config import ActionFormerConfig
from vidtad.windows import from_resized, resized, to_resized

CONFIG = ActionFormerConfig(
    in_channels=6, classes=3, width=16, heads=2, stem_layers=1, ranges=((0, 4), (4, 8), (8, 1e4)), windows=5, max_len=32
)
CPU = torch.device("cpu")


def network(**changes) -> ActionFormer:
    torch.manual_seed(0)
    model = ActionFormer(replace(CONFIG, **changes)).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    return model


def rows(count: int, channels: int = 6) -> np.ndarray:
    return np.random.default_rng(count).normal(size=(count, channels)).astype(np.float32)


def whole(model: ActionFormer, values: np.ndarray) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Valid outputs of each level in one pass at the official length."""
    config, steps = model.config, len(values)
    length = config.official_length(steps)
    features = torch.zeros(1, length, config.inputs)
    features[0, :steps] = torch.from_numpy(values)
    with torch.inference_mode():
        output = model(features, torch.arange(length)[None] >= steps)
    valid = [int((~mask).sum()) for mask in output.masks]
    levels = zip(output.logits, output.offsets, valid, strict=True)
    return [(scores[0, :n].sigmoid(), offsets[0, :n]) for scores, offsets, n in levels]


@pytest.mark.parametrize(
    "changes", [{}, {"positions": True}, {"relative": True}, {"kernel": 5}, {"kernel": 1}, {"layout": "opentad"}]
)
@pytest.mark.parametrize("steps", [5, 29, 32, 33, 160, 161, 399])
def test_pieces_give_what_one_pass_at_the_official_length_gives(
    steps: int, changes: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vidtad.heads.actionformer.detector.ROWS", 20)
    model, values = network(**changes), rows(steps)
    points = predict_points(model, values, CPU, piece=32)
    for level, (scores, offsets) in enumerate(whole(model, values)):
        np.testing.assert_allclose(points.scores[level], scores.numpy(), atol=2e-5)
        np.testing.assert_allclose(points.offsets[level], offsets.numpy(), atol=2e-4)


def test_reach_covers_what_an_output_depends_on() -> None:
    model = network()
    reach, steps = model.config.reach, 256
    features = torch.from_numpy(rows(steps))[None].requires_grad_()
    output = model(features, torch.zeros(1, steps, dtype=torch.bool))
    point = steps // 2 // 4
    (grad,) = torch.autograd.grad(output.logits[2][0, point].sum(), features)
    touched = np.flatnonzero(grad[0].abs().sum(1).numpy())
    assert reach is not None and abs(touched - point * 4).max() <= reach
    assert abs(touched - point * 4).max() >= reach / 2, "the margin is wider than it needs to be"


def test_pieces_cover_every_step_once() -> None:
    cut = list(pieces(CONFIG, 400, 32))
    assert [own.start for own, _ in cut] == list(range(0, 400, 32)) and cut[-1][0].stop == 400
    assert all(own.start % 4 == 0 and read.start % 4 == 0 for own, read in cut)
    attending = replace(CONFIG, windows=(5, 5, -1))
    assert len(list(pieces(attending, 400, 32))) == 1


def test_short_video_is_not_padded_to_the_training_length() -> None:
    assert CONFIG.padded_length(5) == 12 and CONFIG.official_length(5) == 32
    assert CONFIG.padded_length(32) == 32 and CONFIG.official_length(33) == 48


@pytest.mark.parametrize(("fps", "stride", "span"), [("30000/1001", 4, 16), (15, 16, 16), (30, 16, 32)])
def test_positions_become_the_published_seconds(fps: str | int, stride: int, span: int) -> None:
    """(step * stride + span / 2) / fps, before the first window centre and after the last one too."""
    grid = Grid.regular(Fraction(fps), stride, span, 50)
    steps = np.array([-1.7, 0.0, 0.25, 17.5, 49.0, 53.4])
    published = (steps * stride + 0.5 * span) / float(Fraction(fps))
    np.testing.assert_allclose(grid.seconds((steps + 0.5) - 0.5), published, rtol=1e-12)


@pytest.mark.parametrize(("stride", "span"), [(16, 16), (4, 16)])
def test_resized_positions_become_the_published_seconds(stride: int, span: int) -> None:
    rows_, steps, fps = 75, 192, 25.0
    found = np.array([[0.0, 3.5], [-0.4, 191.9]])
    step = ((rows_ - 1) * stride + span) / steps
    published = (found * step + 0.5 * step) / fps
    positions = from_resized(found, rows_, steps, span / stride)
    seconds = Grid.regular(Fraction(25), stride, span, rows_).seconds(positions)
    np.testing.assert_allclose(seconds, published, rtol=1e-12)
    np.testing.assert_allclose(to_resized(positions, rows_, steps, span / stride), found, atol=1e-12)


def test_resizing_keeps_what_is_where() -> None:
    ramp = np.repeat(np.arange(10, dtype=np.float32)[:, None], 3, axis=1)
    longer = resized(ramp, 40)
    assert longer.shape == (40, 3)
    centres = from_resized(np.arange(40.0), 10, 40, 1.0)
    inside = (centres > 0) & (centres < 9)
    np.testing.assert_allclose(longer[inside, 0], centres[inside], atol=1e-5)


@pytest.mark.parametrize(("count", "steps"), [(7, 192), (300, 192), (1, 8), (192, 192)])
def test_resizing_is_torchs_linear_interpolation(count: int, steps: int) -> None:
    values = rows(count, 3)
    channels_first = torch.from_numpy(values).T[None]
    wanted = torch.nn.functional.interpolate(channels_first, steps, mode="linear", align_corners=False)
    np.testing.assert_allclose(resized(values, steps), wanted[0].T.numpy(), atol=1e-5)


def bundle_path(folder: Path, **options) -> Path:
    return seeded_actionformer(folder / "af.safetensors", embed=False, **options)


def test_detector_of_a_bundle(tmp_path: Path) -> None:
    bundle = load_bundle(bundle_path(tmp_path))
    detector = load_detector(bundle)
    assert isinstance(detector, ActionFormerDetector)
    seen: list[tuple[int, int | None]] = []
    found = detector(rows(100, bundle.width), lambda done, total: seen.append((done, total)))
    assert seen == [(100, 100)]
    assert len(found.scores) and (np.diff(found.scores) <= 0).all() and set(found.labels) <= {0, 1, 2}
    assert (found.segments[:, 1] > found.segments[:, 0]).all()


def test_resizing_detector_scales_with_the_video(tmp_path: Path) -> None:
    bundle = load_bundle(bundle_path(tmp_path, max_len=32, resize=True))
    detector = load_detector(bundle)
    values = rows(1, bundle.width).repeat(320, 0)
    short, long = detector(values[:64]), detector(values)
    overlap = bundle.sampling["window"] / bundle.sampling["stride"]
    scale = (320 - 1 + overlap) / (64 - 1 + overlap)
    centred = [found.segments - 0.5 + 0.5 * overlap for found in (short, long)]
    np.testing.assert_allclose(centred[1], centred[0] * scale, atol=1e-3)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"head_config": {"classes": 4}}, "class names"),
        ({"head_config": {"wings": 4}}, "wings"),
        ({"head_config": {"ranges": []}}, "windows|ranges|levels"),
        ({"decoding": {"sigma": 0.0}}, "sigma"),
        ({"decoding": {"candidates": 0}}, "candidates"),
    ],
)
def test_unfitting_bundles_are_refused(tmp_path: Path, change: dict, word: str) -> None:
    bundle = load_bundle(bundle_path(tmp_path))
    changed = {key: {**getattr(bundle, key), **value} for key, value in change.items()}
    with pytest.raises(InputError, match=word):
        load_detector(replace(bundle, **changed))


@pytest.mark.parametrize("most", [700, 200])
def test_full_memory_halves_the_pieces_and_says_so(most: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = load_bundle(seeded_actionformer(tmp_path / "b.safetensors"))
    detector, values = ActionFormerDetector(bundle), rows(3000, bundle.width)
    whole = detector(values)
    detect = detector.network.detect

    def limited(embedded, mask):
        if embedded.shape[1] > most:
            raise RuntimeError("CUDA out of memory. Tried to allocate 1 GiB")
        return detect(embedded, mask)

    monkeypatch.setattr(detector.network, "detect", limited)
    if most < 256:
        with pytest.raises(RunError, match="3000 feature rows"):
            detector(values)
        return
    found = detector(values)
    assert detector.piece == 375 and "375 rows" in detector.warnings[0]
    np.testing.assert_allclose(found.scores, whole.scores, atol=1e-4)
    # Detections whose scores rounding alone tells apart may change places.
    by_place = [np.lexsort(detections.segments.round(2).T) for detections in (found, whole)]
    np.testing.assert_allclose(found.segments[by_place[0]], whole.segments[by_place[1]], atol=1e-3)
