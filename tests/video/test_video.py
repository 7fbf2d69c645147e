"""Decoding with the default decoder: which frames come out, when they are shown, what is said of the file."""

import json
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from tests.clips import KINDS, VFR_PTS, clip_of_kind, number_of, numbered_frames, write_clip
from vidtad.errors import InputError
from vidtad.video import Frame, VideoInfo, open_video, probe, resample


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("clips")


def due_times(kind: str) -> list[float]:
    _, fps, settings = KINDS[kind]
    if "pts" in settings and "time_base" in settings:
        return [pts / 1000 for pts in VFR_PTS]
    return [float(k / fps) for k in range(60 - settings.get("cut", 0))]


@pytest.mark.parametrize("kind", KINDS)
def test_every_frame_once_at_its_own_time_upright(kind: str, clips: Path) -> None:
    path = clip_of_kind(kind, clips)
    with open_video(path) as video:
        frames = [(frame.index, frame.time_s, number_of(frame.rgb(), video.info.rotation)) for frame in video]
    first = KINDS[kind][2].get("cut", 0)
    assert [index for index, _, _ in frames] == list(range(60 - first))
    assert [number for _, _, number in frames] == list(range(first, 60))
    # Matroska rounds times to milliseconds.
    assert [time for _, time, _ in frames] == pytest.approx(due_times(kind), abs=6e-4)
    assert video.report.warnings == ()
    assert video.report.broke_at_s is None
    assert video.final_info.constant_rate is (kind != "variable rate")
    assert video.final_info.frames == 60 - first
    if kind != "variable rate":
        assert video.final_info.fps == KINDS[kind][1]
        assert video.final_info.duration_s == pytest.approx((60 - first) / float(KINDS[kind][1]), abs=2e-3)


@pytest.mark.parametrize(("kind", "turned"), [("rotated 90", 90), ("rotated 180", 180), ("rotated 270", 270)])
def test_rotation_is_applied(kind: str, turned: int, clips: Path) -> None:
    upright = next(iter(open_video(clip_of_kind("plain", clips)))).rgb()
    path = clip_of_kind(kind, clips)
    frame = next(iter(open_video(path)))
    assert np.array_equal(frame.rgb(), np.rot90(upright, turned // 90))
    info = probe(path)
    assert info.rotation == turned
    assert (info.height, info.width) == (frame.height, frame.width) == frame.rgb().shape[:2]


def test_pixels_are_those_encoded(clips: Path) -> None:
    pictures = numbered_frames(5)
    path = write_clip(clips / "lossless.mkv", pictures, codec="ffv1", pix_fmt="yuv444p", options={"slices": "4"})
    for frame, picture in zip(open_video(path), pictures, strict=True):
        # The way through YUV costs up to three grey levels.
        assert np.abs(frame.rgb().astype(int) - picture).max() <= 3


def test_frames_stay_right_after_the_next_and_after_closing(clips: Path) -> None:
    with open_video(clip_of_kind("ntsc open GOP", clips)) as video:
        frames = list(video)
    assert [number_of(frame.rgb()) for frame in frames] == list(range(60))


def test_scaling_by_the_decoder(clips: Path) -> None:
    frame = next(iter(open_video(clip_of_kind("rotated 90", clips))))
    small = frame.rgb((80, 48))
    assert small.shape == (80, 48, 3)
    coarse = frame.rgb().reshape(80, 2, 48, 2, 3).mean((1, 3))
    assert np.abs(small - coarse).mean() < 4


@pytest.mark.parametrize(("space", "full"), [(1, False), (1, True), (5, False), (9, False), (2, False)])
@pytest.mark.parametrize("interlaced", [False, True])
def test_large_pictures_go_another_way_to_the_same_pixels(
    space: int, full: bool, interlaced: bool, tmp_path: Path
) -> None:
    """By every colour tag (BT.709, 601, 2020, none; limited and full range), kept or let go, from two threads."""
    import av

    colour = {"color_range": 2 if full else 1, "colorspace": space}
    options = {"preset": "ultrafast"} | ({"x264-params": "tff=1"} if interlaced else {})
    pictures = numbered_frames(4, 480, 768)
    path = write_clip(tmp_path / "large.mp4", pictures, options=options, colour=colour)
    with av.open(str(path)) as container:
        reference = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    frames = list(open_video(path))
    assert all(np.array_equal(frame.rgb(), due) for frame, due in zip(frames, reference, strict=True))
    with ThreadPoolExecutor(2) as pool:
        kept = list(pool.map(Frame.rgb, frames * 3))
    assert all(np.array_equal(pixels, due) for pixels, due in zip(kept, reference * 3, strict=True))


def test_a_second_pass_gives_the_same(clips: Path) -> None:
    video = open_video(clip_of_kind("plain", clips))
    assert [f.time_s for f in video] == [f.time_s for f in video]


def test_report_belongs_to_a_complete_pass(clips: Path) -> None:
    video = open_video(clip_of_kind("plain", clips))
    with pytest.raises(RuntimeError):
        _ = video.report
    next(iter(video))
    with pytest.raises(RuntimeError):
        _ = video.final_info


def test_one_frame_is_a_video(tmp_path: Path) -> None:
    video = open_video(write_clip(tmp_path / "one.mp4", numbered_frames(1), 25))
    assert [(f.time_s, f.duration_s) for f in video] == [(0.0, 0.04)]
    assert video.report.duration_s == 0.04


def test_start_offset_is_kept_as_a_fact(clips: Path) -> None:
    assert probe(clip_of_kind("transport stream", clips)).start_s > 1
    assert probe(clip_of_kind("avi B-frames", clips)).start_s == pytest.approx(0.04)


def test_raw_stream_gets_a_rate_and_says_so(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "raw.h264", numbered_frames(30), 30, container_format="h264")
    guessed = open_video(path)
    assert [f.time_s for f in guessed] == pytest.approx([k / 30 for k in range(30)])
    assert "a guess" in guessed.report.warnings[0]
    told = open_video(path, fps=Fraction(10))
    assert [f.time_s for f in told] == pytest.approx([k / 10 for k in range(30)])
    assert "--fps" in told.report.warnings[0] and "a guess" not in told.report.warnings[0]
    assert told.info.duration_s == pytest.approx(3)


def test_fps_does_not_override_good_times(clips: Path) -> None:
    video = open_video(clip_of_kind("plain", clips), fps=Fraction(5))
    assert [f.time_s for f in video][:2] == pytest.approx([0, 1 / 30])


def test_impossible_rate_is_refused_unless_told(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "fast.mp4", numbered_frames(30), 30)
    data = bytearray(path.read_bytes())
    scale_at = data.index(b"mdhd") + 4 + 4 + 8
    data[scale_at : scale_at + 4] = (2**31 - 1).to_bytes(4, "big")
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"impossible frame rate.*--fps"):
        probe(path)
    assert probe(path, fps=Fraction(30)).duration_s == pytest.approx(1)
    assert [f.time_s for f in open_video(path, fps=Fraction(30))] == pytest.approx([k / 30 for k in range(30)])


def test_a_clock_whose_ticks_pass_for_the_rate(tmp_path: Path) -> None:
    frames = [np.full((576, 720, 3), 60 * k, np.uint8) for k in range(3)]
    path = write_clip(tmp_path / "tape.dv", frames, 25, codec="dvvideo", container_format="dv")
    info = probe(path)
    assert (info.fps, info.constant_rate, info.duration_s) == (25, True, pytest.approx(0.12))
    assert [frame.time_s for frame in open_video(path)] == pytest.approx([0, 0.04, 0.08])


def test_info_survives_json(clips: Path) -> None:
    info = probe(clip_of_kind("ntsc open GOP", clips))
    document = json.loads(json.dumps(info.to_json()))
    assert document["fps_exact"] == "30000/1001"
    assert VideoInfo.from_json(document | {"unknown": 1}) == info


class Mark:
    """A picture of one value."""

    def __init__(self, number: int) -> None:
        self.number = number

    def rgb(self, height: int, width: int) -> np.ndarray:
        return np.full((height, width, 3), self.number, np.uint8)


def marks(times: list[float], last: float) -> list[Frame]:
    ends = [*times[1:], times[-1] + last]
    return [Frame(k, t, ends[k] - t, 2, 2, Mark(k)) for k, t in enumerate(times)]


def shown(frames: list[Frame]) -> list[int]:
    return [int(frame.rgb()[0, 0, 0]) for frame in frames]


@pytest.mark.parametrize("fps", [Fraction(25), Fraction(30), Fraction(30000, 1001), Fraction(7), Fraction(1, 2)])
@pytest.mark.parametrize("kind", ["plain", "variable rate"])
def test_resampling_takes_the_nearest_frame(fps: Fraction, kind: str, clips: Path) -> None:
    source = list(open_video(clip_of_kind(kind, clips)))
    out = list(resample(source, fps))
    end = source[-1].time_s + source[-1].duration_s
    assert len(out) == -(-Fraction(end).limit_denominator(10**6) * fps // 1)
    for k, frame in enumerate(out):
        assert (frame.index, frame.time_s) == (k, float(k / fps))
        chosen = next(f for f in source if f.picture is frame.picture)
        assert abs(chosen.time_s - k / fps) <= min(abs(f.time_s - k / fps) for f in source) + 3e-6


def test_resampling_ties_go_to_the_earlier() -> None:
    out = list(resample(marks([k / 30 for k in range(4)], 1 / 30), Fraction(60)))
    assert shown(out) == [0, 0, 1, 1, 2, 2, 3, 3]


def test_resampling_fills_gaps_and_holds_one_frame_ahead() -> None:
    taken = []

    def source():
        for frame in marks([0.0, 0.1, 1.0, 1.1], 0.1):
            taken.append(frame.index)
            yield frame

    out = resample(source(), Fraction(10))
    first = [next(out) for _ in range(4)]
    assert shown(first) == [0, 1, 1, 1]
    assert taken == [0, 1, 2]
    assert shown([*first, *out]) == [0, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 3]


def test_resampling_nothing_and_nonsense() -> None:
    assert list(resample([], Fraction(25))) == []
    with pytest.raises(InputError, match="out of range"):
        list(resample([], Fraction(0)))
