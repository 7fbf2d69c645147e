"""Energies to stretches of motion: smoothing, background, hysteresis, joining."""

from dataclasses import replace

import numpy as np
import pytest

from vidtad.heads.motion import MotionSettings, background_level, median_filtered, motion_segments

SETTINGS = MotionSettings()


def trace(*parts: tuple[float, float], step_s: float = 0.0625) -> tuple[np.ndarray, np.ndarray]:
    """Edges and energies of (seconds, energy) pieces."""
    energy = np.concatenate([np.full(round(seconds / step_s), float(level)) for seconds, level in parts])
    return np.arange(len(energy) + 1) * step_s, energy


def test_one_stretch_has_its_exact_edges():
    (found,) = motion_segments(*trace((3, 1), (2, 20), (4, 1)))
    assert found[:2] == (3.0, 5.0)
    assert found[2] == pytest.approx((19 / 3) / (1 + 19 / 3))


def test_more_motion_scores_higher_and_comes_first():
    found = motion_segments(*trace((4, 1), (2, 10), (4, 1), (2, 40), (4, 1)))
    assert [round(start, 3) for start, _, _ in found] == [10.0, 4.0]
    assert 0 < found[1][2] < found[0][2] < 1


def test_it_takes_a_rise_to_begin_and_less_to_go_on():
    weak = trace((4, 0), (2, 2), (4, 0))
    assert motion_segments(*weak) == []
    strong_then_weak = trace((4, 0), (1, 6), (2, 2), (4, 0))
    ((start, end, _),) = motion_segments(*strong_then_weak)
    assert (start, end) == (4.0, 7.0)


def test_short_gaps_are_closed_and_long_ones_not():
    assert len(motion_segments(*trace((3, 0), (1, 9), (0.4375, 0), (1, 9), (3, 0)))) == 1
    assert len(motion_segments(*trace((3, 0), (1, 9), (0.625, 0), (1, 9), (3, 0)))) == 2


def test_short_bursts_and_single_spikes_are_dropped():
    assert motion_segments(*trace((3, 0), (0.3125, 50), (3, 0))) == []
    assert motion_segments(*trace((3, 0), (0.0625, 500), (3, 0))) == []


def test_the_restlessness_of_the_scene_is_no_motion():
    rng = np.random.default_rng(0)
    edges, energy = trace((60, 8))
    energy = energy * rng.uniform(0.7, 1.3, len(energy))
    assert motion_segments(edges, energy) == []
    energy[320:352] *= 4
    ((start, end, _),) = motion_segments(edges, energy)
    assert start == pytest.approx(20, abs=0.1) and end == pytest.approx(22, abs=0.1)


def test_a_video_that_moves_all_along_is_one_stretch():
    ((start, end, _),) = motion_segments(*trace((20, 60)))
    assert (start, end) == (0.0, 20.0)


def test_unknown_energies_are_bridged():
    edges, energy = trace((3, 0), (2, 9), (3, 0))
    energy[50:56] = np.nan
    ((start, end, _),) = motion_segments(edges, energy)
    assert (start, end) == (3.0, 5.0)
    assert motion_segments(edges, np.full(len(energy), np.nan)) == []
    assert motion_segments(np.array([0.0]), np.array([])) == []


def test_uneven_times_are_kept():
    edges, energy = trace((3, 0), (2, 9), (3, 0))
    edges = edges**1.1
    ((start, end, _),) = motion_segments(edges, energy)
    assert (start, end) == (edges[48], edges[80])


def test_background_of_long_traces_follows_the_scene():
    values = np.concatenate([np.full(1000, 1.0), np.full(1000, 5.0)])
    level = background_level(values, 0.2, 100)
    assert level[:800].tolist() == [1.0] * 800 and level[1200:].tolist() == [5.0] * 800
    assert background_level(values[:150], 0.2, 100).tolist() == [1.0] * 150


def test_median_keeps_steps():
    values = np.array([0, 0, 9, 0, 0, 5, 5, 5, 5.0])
    assert median_filtered(values, 3).tolist() == [0, 0, 0, 0, 0, 5, 5, 5, 5]
    assert median_filtered(values, 0.4) is values


@pytest.mark.parametrize("wrong", [{"background": 2.0}, {"keep": 0.0}, {"floor": 0.0}, {"gap_s": -1.0}, {"side_px": 8}])
def test_settings_are_checked(wrong):
    with pytest.raises(ValueError):
        replace(SETTINGS, **wrong)
