"""A video from any frame on is the video from its start: numbers, times, pixels, and what is found in the end."""

from fractions import Fraction
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from tests.clips import KINDS, clip_of_kind, numbered_frames, write_clip
from vidtad.errors import InputError
from vidtad.video import open_video, resample
from vidtad.video.index import Inexact, read_index


@pytest.mark.parametrize("kind", KINDS)
def test_from_any_frame_on(kind: str, tmp_path: Path) -> None:
    path = clip_of_kind(kind, tmp_path)
    index = read_index(path)
    assert index is not None
    with open_video(path) as video:
        frames = list(video)
    assert len(index) == len(frames)
    for first in (0, 1, 13, 30, len(frames) - 1):
        found = list(index.frames(first))
        assert found == frames[first:]
        assert all(np.array_equal(a.rgb(), b.rgb()) for a, b in zip(found[:3], frames[first:], strict=False))
    assert index.found() == (video.final_info, video.report.warnings)


@pytest.mark.parametrize("kind", ["plain", "variable rate", "ntsc open GOP"])
@pytest.mark.parametrize("rate", [Fraction(12), Fraction(25), Fraction(60)])
def test_resampled_from_any_frame_on(kind: str, rate: Fraction, tmp_path: Path) -> None:
    path = clip_of_kind(kind, tmp_path)
    index = read_index(path)
    assert index is not None
    with open_video(path) as video:
        whole = list(resample(video, rate))
    for first in range(len(whole)):
        source = index.frames(max(0, index.number_before(first / rate) - 1))
        found = list(islice(resample(source, rate, first), 2))
        expected = whole[first : first + 2]
        assert found == expected
        assert [frame.picture.frame.pts for frame in found] == [frame.picture.frame.pts for frame in expected]


def test_long_groups_of_pictures(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "long.mp4", numbered_frames(120), 25, options={"g": "500", "bf": "3"})
    index = read_index(path)
    assert index is not None and len(index.plan.keyframes) == 1
    with open_video(path) as video:
        assert list(index.frames(100)) == list(video)[100:]


def test_files_without_reliable_times_have_no_index(tmp_path: Path) -> None:
    raw = write_clip(tmp_path / "x.h264", numbered_frames(30), 30, container_format="h264")
    assert read_index(raw, fps=Fraction(30)) is None
    clip = write_clip(tmp_path / "x.mp4", numbered_frames(30), 30)
    assert read_index(clip, decoder="opencv") is None


def test_damage_is_inexact(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "x.mp4", numbered_frames(90), 30)
    data = bytearray(path.read_bytes())
    data[5000:5400] = b"\xff" * 400
    path.write_bytes(bytes(data))
    index = read_index(path)
    assert index is not None, "the packets are where they were"
    with pytest.raises(Inexact):
        list(index.frames())


def test_a_strict_pass_is_strict_here_too(tmp_path: Path) -> None:
    short = write_clip(tmp_path / "x.mp4", numbered_frames(90), 30)
    index = read_index(short, strict=True)
    assert index is not None
    object.__setattr__(index.promise, "duration_s", 9.0)
    with pytest.raises(InputError, match="missing"):
        index.found()


def test_decoding_threads_never_wait_for_the_interpreter(tmp_path: Path) -> None:
    # torchvision does this when it is imported; closing a file whose threads log errors then never ends.
    import av.logging

    av.logging.set_level(av.logging.ERROR)
    path = write_clip(tmp_path / "x.mp4", numbered_frames(10), 30)
    with open_video(path):
        assert av.logging.get_level() is None
