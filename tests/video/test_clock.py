"""Times of frames: a fault of a container's clock moves the frame concerned alone; what jumps for good is joined up."""

import itertools
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vidtad.video import open_video, probe
from vidtad.video.clock import Clock, Stamp, plausible, possible

GAP = 40
BASE = Fraction(1, 1000)


def times(stamps: list[int | None], promised_s: float | None = None, length: int = GAP) -> tuple[list[float], Clock]:
    """Seconds of frames whose container says `stamps`, in milliseconds."""
    clock = Clock(BASE, Fraction(25), False, promised_s)
    placed = clock.placed(Stamp(number, ticks, length) for number, ticks in enumerate(stamps))
    return [clock.seconds(ticks) for _, ticks in placed], clock


def sound(count: int) -> list[int | None]:
    return [GAP * k for k in range(count)]


def test_a_sound_clock_is_left_alone() -> None:
    found, clock = times(sound(50))
    assert found == pytest.approx([0.04 * k for k in range(50)]) and not clock.moved and not clock.jumps


@pytest.mark.parametrize(
    ("at", "value"),
    [
        (10, 9 * GAP),  # twice
        (10, 2 * GAP),  # back
        (10, 13 * GAP + 5),  # ahead, among times to come
        (10, 900_000),  # far ahead
        (10, None),
        (0, 900_000),
        (0, 7 * GAP + 1),
        (1, 900_000),
        (48, 45 * GAP),
        (49, 45 * GAP),
        (49, 48 * GAP),
        (49, None),
    ],
)
def test_one_fault_moves_one_frame(at: int, value: int | None) -> None:
    stamps = sound(50)
    stamps[at] = value
    found, clock = times(stamps, promised_s=2.0)
    expected = [0.04 * k for k in range(50)]
    assert found == pytest.approx(expected, abs=1e-9)
    assert clock.moved + clock.jumps == 1


def test_one_in_ten_twice_for_an_hour() -> None:
    stamps = [GAP * (k - 1 if k and k % 10 == 0 else k) for k in range(90_000)]
    found, clock = times(list(stamps))
    assert found[-1] == pytest.approx(0.04 * 89_999) and clock.moved == 8_999
    assert max(abs(time - 0.04 * k) for k, time in enumerate(found)) < 1e-9


def test_three_alike_share_the_gap() -> None:
    found, _ = times([0, 40, 40, 40, 80, 120, 160, 200])
    assert found == pytest.approx([0, 0.04, 0.04 + 0.04 / 3, 0.04 + 0.08 / 3, 0.08, 0.12, 0.16, 0.2])


def test_a_pause_is_no_fault() -> None:
    stamps = [*sound(20), *(GAP * k + 90_000 for k in range(20, 40))]
    found, clock = times(stamps, promised_s=100.0)
    assert found[20] == pytest.approx(90.8) and not clock.moved and not clock.jumps


@pytest.mark.parametrize("new", [0, -500_000, 12 * GAP, 10_000_000])
def test_a_clock_that_jumps_for_good_is_joined_up(new: int) -> None:
    stamps = [*sound(50), *(new + GAP * k for k in range(50))]
    found, clock = times(stamps, promised_s=4.0)
    assert found == pytest.approx([0.04 * k for k in range(100)], abs=1e-9)
    assert clock.jumps == 1 and clock.jumps_at_s == pytest.approx([2.0])


def test_a_clock_that_comes_back_is_believed_again() -> None:
    stamps = [*sound(50), *(5_000_000 + GAP * k for k in range(30)), *(GAP * k for k in range(80, 130))]
    found, clock = times(stamps, promised_s=5.2)
    assert found == pytest.approx([0.04 * k for k in range(130)], abs=1e-9) and clock.jumps == 2


def test_decoding_order_never_stretches_the_film() -> None:
    order = [0, 3, 1, 2, 6, 4, 5]
    stamps = [GAP * (7 * (k // 7) + order[k % 7]) for k in range(700)]
    found, _ = times(list(stamps))
    assert max(abs(time - 0.04 * k) for k, time in enumerate(found)) < 0.04 * 4


@settings(deadline=None)
@given(data=st.data())
def test_sound_frames_keep_their_times_whatever_befalls_others(data: st.DataObject) -> None:
    count = data.draw(st.integers(20, 120))
    gaps = data.draw(st.lists(st.integers(1, 400), min_size=count, max_size=count))
    true = [0, *np.cumsum(gaps[1:]).tolist()]
    stamps: list[int | None] = list(true)
    at = sorted(data.draw(st.sets(st.integers(1, count - 1), max_size=max(1, count // 12))))
    at = [place for number, place in enumerate(at) if not number or place - at[number - 1] > 8]  # faults stay apart
    for place in at:
        stamps[place] = data.draw(st.sampled_from([None, true[place - 1], true[place - 1] - 5, true[-1] + 60_000]))
    found, _ = times(stamps, promised_s=true[-1] / 1000)
    assert len(found) == count and all(a < b for a, b in itertools.pairwise(found))
    for place in set(range(count - 1)) - set(at):
        assert found[place] == pytest.approx(true[place] / 1000, abs=1e-9)


@settings(deadline=None)
@given(st.lists(st.one_of(st.none(), st.integers(-(2**40), 2**40)), min_size=1, max_size=60))
def test_any_stamps_give_increasing_times(stamps: list[int | None]) -> None:
    found, _ = times(stamps, promised_s=1.0)
    assert len(found) == len(stamps) and found[0] == 0
    assert all(a < b for a, b in itertools.pairwise(found))


def written(path: Path, stamps_ms: list[int], rate: int = 25) -> Path:
    """Motion JPEG in Matroska; frame k, of grey level 2 k, carries the time stamps_ms[k]."""
    with av.open(str(path), "w") as file:
        stream = file.add_stream("mjpeg", rate=rate)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuvj420p"
        for number, time in enumerate(stamps_ms):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), number * 2 % 256, np.uint8), format="rgb24")
            for packet in stream.encode(frame):
                packet.time_base, packet.pts, packet.dts, packet.duration = BASE, time, time, GAP
                file.mux(packet)
    return path


def test_a_camera_that_says_a_time_twice(tmp_path: Path) -> None:
    path = written(tmp_path / "twice.mkv", [GAP * (k - 1 if k and k % 10 == 0 else k) for k in range(100)])
    with open_video(path) as video:
        found = [frame.time_s for frame in video]
    assert found == pytest.approx([0.04 * k for k in range(100)])
    assert video.final_info.duration_s == pytest.approx(4.0)
    assert any("9 of 100 frame times are missing, repeated or out of order" in line for line in video.report.warnings)


@pytest.mark.parametrize(("codec", "suffix"), [("libx264", ".mp4"), ("libx264", ".avi")])
def test_packets_numbered_in_the_order_of_decoding(tmp_path: Path, codec: str, suffix: str) -> None:
    plain = tmp_path / "plain.h264"
    with av.open(str(plain), "w", format="h264") as file:
        stream = file.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.options = {"bf": "2", "b_strategy": "0"}
        for k in range(100):
            pixels = np.full((48, 64, 3), 40, np.uint8)
            pixels[:, : 1 + k % 60] = 200
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
    path = tmp_path / f"copied{suffix}"
    with av.open(str(plain)) as old, av.open(str(path), "w") as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        for number, packet in enumerate(p for p in old.demux(video=0) if p.size):
            packet.stream, packet.time_base, packet.duration = stream, Fraction(1, 25), 1
            packet.pts = packet.dts = number
            new.mux(packet)
    with open_video(path) as video:
        found = [frame.time_s for frame in video]
    assert found == pytest.approx([k / 25 for k in range(100)])
    assert any("placed by the decoding times" in line for line in video.report.warnings)
    with open_video(path) as video:
        assert [frame.time_s for frame in video.at([1.0, 2.0])] == pytest.approx([1.0, 2.0])


@pytest.mark.parametrize(("gap_ms", "rate"), [(0.5, 2000), (300_000, Fraction(1, 300))])
def test_rates_that_cameras_rarely_have(tmp_path: Path, gap_ms: float, rate: Fraction) -> None:
    path = tmp_path / "rare.mp4"
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=Fraction(rate))
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for k in range(40):
            file.mux(stream.encode(av.VideoFrame.from_ndarray(np.full((48, 64, 3), 5 * k, np.uint8), format="rgb24")))
        file.mux(stream.encode())
    info = probe(path)
    assert float(info.fps) == pytest.approx(float(rate), rel=1e-3)
    with open_video(path) as video:
        found = [frame.time_s for frame in video]
    assert found == pytest.approx([k * gap_ms / 1000 for k in range(40)])
    assert not plausible(info.fps) and possible(info.fps) and not video.report.warnings


def test_pictures_in_a_row_are_a_film(tmp_path: Path) -> None:
    data = b""
    with av.open(str(written(tmp_path / "a.mkv", list(range(0, 400, GAP))))) as file:
        data = b"".join(bytes(packet) for packet in file.demux(video=0) if packet.size)
    path = tmp_path / "film.mjpeg"
    path.write_bytes(data)
    with open_video(path) as video:
        assert len([frame for frame in video]) == 10
    assert "a guess; give the true one with --fps" in video.report.warnings[0]
    with open_video(path, fps=Fraction(10)) as video:
        assert [frame.time_s for frame in video][-1] == pytest.approx(0.9)
