"""Frames by time are those of a sequential pass."""

import random
from pathlib import Path

import numpy as np
import pytest

from tests.clips import KINDS, clip_of_kind, number_of, numbered_frames, write_clip
from vidtad.video import Frame, Video, open_video


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("clips")


def same(one: Frame, other: Frame) -> bool:
    return one == other and np.array_equal(one.rgb(), other.rgb())


@pytest.mark.parametrize("kind", KINDS)
def test_as_in_a_sequential_pass(kind: str, clips: Path) -> None:
    choose = random.Random(kind)
    with open_video(clip_of_kind(kind, clips)) as video:
        frames = list(video)
        for _ in range(12):
            wanted = choose.choice(frames)
            assert same(video.at([wanted.time_s])[0], wanted)
        several = choose.choices(frames, k=20)
        assert all(map(same, video.at([frame.time_s for frame in several]), several))


def test_seeks_where_it_can(clips: Path) -> None:
    with open_video(clip_of_kind("ntsc open GOP", clips)) as video:
        walked = []
        video._frames_anew = lambda: walked.append(1) or iter([])
        assert [number_of(f.rgb()) for f in video.at([1.9019, 0.1001, 1.001])] == [57, 3, 30]
    assert not walked


def test_nearest_ties_and_ends(clips: Path) -> None:
    with open_video(clip_of_kind("plain", clips)) as video:
        times = [-3.0, 0.0, 1 / 60 + 1e-6, 1 / 60 - 1e-6, 0.5 / 15 + 0.0166, 1.9, 99.0]
        assert [f.index for f in video.at(times)] == [0, 0, 1, 0, 1, 57, 59]
        assert video.at([]) == []


@pytest.mark.parametrize("reset", [False, True], ids=["size change", "clock restart"])
def test_files_that_cannot_be_sought_in_are_walked(reset: bool, tmp_path: Path) -> None:
    one = write_clip(tmp_path / "one.ts", numbered_frames(60)).read_bytes()
    two = write_clip(tmp_path / "two.ts", numbered_frames(60, *((96, 160) if reset else (192, 320)), first=60))
    path = tmp_path / "both.ts"
    path.write_bytes(one + two.read_bytes())
    check_order(open_video(path))


def test_raw_stream_is_walked(tmp_path: Path) -> None:
    check_order(open_video(write_clip(tmp_path / "x.h264", numbered_frames(120), 30, container_format="h264")))


def check_order(video: Video) -> None:
    with video:
        frames = list(video)
        for index in (100, 3, 119, 118, 50, 64, 63, 0):
            assert same(video.at([frames[index].time_s])[0], frames[index])


def test_frames_in_a_damaged_group_are_those_of_the_pass(tmp_path: Path) -> None:
    import av

    path = write_clip(tmp_path / "x.mp4", numbered_frames(60), options={"g": "20", "bf": "0"})
    data = bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        packets = [(p.pos, p.size) for p in container.demux(video=0) if p.size]
    position, size = packets[25]
    data[position : position + size] = bytes(size)
    path.write_bytes(data)
    with open_video(path) as video:
        by_time = {round(frame.time_s * 30): frame for frame in video}
        for number in (24, 26, 30, 39, 40, 59, 5):
            found = video.at([number / 30])[0]
            assert found.time_s == by_time[number].time_s
            assert found.damaged == by_time[number].damaged
        # The lost frame's neighbour stands in for it.
        assert round(video.at([25 / 30])[0].time_s * 30) in (24, 26)
