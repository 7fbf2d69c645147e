"""Files that are broken, odd or no video at all: one sentence, or everything there is and what was lost."""

import os
import threading
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from tests.clips import clip_of_kind, number_of, numbered_frames, write_clip, write_sound
from vidtad.errors import InputError, VidtadError
from vidtad.video import DecodeReport, open_video, probe

FASTSTART = {"movflags": "faststart"}


def refused(path: Path, words: str) -> None:
    """Both ways in refuse with one sentence that starts with the path."""
    for look in (probe, open_video):
        with pytest.raises(InputError, match=words) as caught:
            look(path)
        assert str(caught.value).startswith(str(path))
        assert "\n" not in str(caught.value)


def read(path: Path) -> tuple[list[int], list[float], DecodeReport]:
    video = open_video(path)
    found = [(number_of(frame.rgb()), frame.time_s) for frame in video]
    times = [time for _, time in found]
    assert times[0] == 0
    assert all(early < late for early, late in pairwise(times))
    return [number for number, _ in found], times, video.report


def test_missing(tmp_path: Path) -> None:
    refused(tmp_path / "no.mp4", "no such file")


def test_directory(tmp_path: Path) -> None:
    (tmp_path / "x.mp4").mkdir()
    refused(tmp_path / "x.mp4", "directory")


def test_named_pipe_does_not_block(tmp_path: Path) -> None:
    path = tmp_path / "pipe.mp4"
    os.mkfifo(path)
    watch = threading.Thread(target=refused, args=(path, "not a regular file"), daemon=True)
    watch.start()
    watch.join(timeout=20)
    assert not watch.is_alive()


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may read everything")
def test_unreadable(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "x.mp4", numbered_frames(2))
    path.chmod(0)
    refused(path, "cannot be read")


def picture_bytes() -> bytes:
    import cv2

    return cv2.imencode(".jpg", np.full((64, 64, 3), 90, np.uint8))[1].tobytes()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "empty file"),
        (b"Dear all,\nthis is no video.\n" * 40, "text"),
        (bytes(np.random.default_rng(0).integers(0, 256, 20_000, np.uint8)), "not a video"),
        (picture_bytes(), "a picture"),
        (b"#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\nhttp://example.invalid/a.ts\n", "not a video|playlist"),
        (b"ffconcat version 1.0\nfile other.mp4\n", "not a video|playlist"),
    ],
    ids=["empty", "text", "garbage", "picture", "playlist", "concat list"],
)
@pytest.mark.parametrize("name", ["x.mp4", "x.m3u8", "x.txt", "x.jpg"])
def test_other_contents(content: bytes, words: str, name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    refused(path, words)


def test_sound_only(tmp_path: Path) -> None:
    refused(write_sound(tmp_path / "tone.mp4"), "no video stream")


def test_cover_picture_is_no_video(tmp_path: Path) -> None:
    refused(write_sound(tmp_path / "album.m4a", cover=picture_bytes()), "no video stream.*cover")


def test_interrupted_recording(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "x.mp4", numbered_frames(30))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    refused(path, "incomplete file")


def test_too_many_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_clip(tmp_path / "x.mp4", numbered_frames(2))
    monkeypatch.setattr("vidtad.video.header.MOST_PIXELS", 160 * 96 - 1)
    monkeypatch.setattr("vidtad.video.header.first_frame", lambda *_: pytest.fail("decoded before refusing"))
    refused(path, "160 x 96 pixels")


@pytest.mark.parametrize("name", ["with space.mp4", "dança 影片.mp4", "-rf.mp4", "clip_%03d.mp4", "a:b.mp4", "x"])
def test_names(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_clip(tmp_path / "plain.mp4", numbered_frames(3)).rename(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    assert read(Path(name))[0] == [0, 1, 2]


@pytest.mark.parametrize("kind", ["mp4", "mkv"])
def test_truncated_download(kind: str, tmp_path: Path) -> None:
    options = FASTSTART if kind == "mp4" else None
    path = write_clip(tmp_path / f"x.{kind}", numbered_frames(90), container_options=options)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * 0.6)])
    numbers, _, report = read(path)
    assert 40 < len(numbers) < 65
    assert numbers == list(range(len(numbers)))
    assert report.duration_s == pytest.approx(len(numbers) / 30, abs=2e-3)
    # Threads may report a bad packet while the last whole frame is still on its way.
    assert report.duration_s - 0.07 < report.broke_at_s <= report.duration_s
    assert report.missing_s == pytest.approx(3 - report.duration_s, abs=2e-3)
    assert f"{report.broke_at_s:.2f} s" in report.warnings[0] and "of the promised 3.00 s" in report.warnings[0]


def test_frames_held_back_by_threads_are_not_lost(tmp_path: Path) -> None:
    """Every packet that is whole gives its frame, however many threads the decoder uses."""
    import av

    path = write_clip(
        tmp_path / "x.mp4",
        numbered_frames(90),
        container_options=FASTSTART,
        options={"bf": "3", "g": "24", "preset": "fast"},
    )
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * 0.7)])
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_type = "NONE"
        alone = []
        for packet in container.demux(stream):
            try:
                alone += [float(frame.pts * frame.time_base) for frame in packet.decode()]
            except av.error.FFmpegError:
                continue
    assert read(path)[1] == pytest.approx(alone)


def test_packets_of_zeros(tmp_path: Path) -> None:
    import av

    path = write_clip(tmp_path / "x.mp4", numbered_frames(60), options={"g": "12", "bf": "0"})
    data = bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        packets = [(p.pos, p.size) for p in container.demux(video=0) if p.size]
    for position, size in packets[40:]:
        data[position : position + size] = bytes(size)
    path.write_bytes(data)
    numbers, _, report = read(path)
    assert numbers == list(range(40))
    assert report.broke_at_s == pytest.approx(40 / 30)
    assert report.missing_s == pytest.approx(20 / 30)


def damaged_in_the_middle(folder: Path) -> Path:
    import av

    path = write_clip(folder / "holed.mp4", numbered_frames(60), options={"g": "20", "bf": "0"})
    data = bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        packets = [(p.pos, p.size) for p in container.demux(video=0) if p.size]
    position, size = packets[25]
    data[position : position + size] = bytes(size)
    path.write_bytes(data)
    return path


def test_hole_stays_a_hole_in_time(tmp_path: Path) -> None:
    video = open_video(damaged_in_the_middle(tmp_path))
    frames = list(video)
    numbers = [round(frame.time_s * 30) for frame in frames]
    assert numbers == [n for n in range(60) if n != 25]
    # A picture not marked as damaged is the right one; those between the loss and the next keyframe are marked.
    assert [n for n, frame in zip(numbers, frames, strict=True) if frame.damaged] == list(range(26, 40))
    for number, frame in zip(numbers, frames, strict=True):
        assert frame.damaged or number_of(frame.rgb()) == number
    report = video.report
    assert report.broke_at_s == pytest.approx(25 / 30)
    assert (report.frames, report.lost_packets, report.damaged_frames) == (59, 1, 14)
    assert report.missing_s == 0
    assert report.constant_rate


def test_strict_turns_damage_into_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"damaged at 0\.83 s"):
        list(open_video(damaged_in_the_middle(tmp_path), strict=True))
    path = write_clip(tmp_path / "short.mkv", numbered_frames(60))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(InputError, match="are missing"):
        list(open_video(path, strict=True))
    assert len(list(open_video(clip_of_kind("plain", tmp_path), strict=True))) == 60


def test_nothing_decodable(tmp_path: Path) -> None:
    import av

    path = write_clip(tmp_path / "x.mp4", numbered_frames(20))
    data = bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        packets = [(p.pos, p.size) for p in container.demux(video=0) if p.size]
    for position, size in packets:
        data[position : position + size] = bytes(size)
    path.write_bytes(data)
    refused(path, "no frame of it can be decoded")


def test_clock_restart_is_joined_up(tmp_path: Path) -> None:
    one = write_clip(tmp_path / "one.ts", numbered_frames(30)).read_bytes()
    path = tmp_path / "twice.ts"
    path.write_bytes(one + one)
    numbers, times, report = read(path)
    assert numbers == [*range(30), *range(30)]
    assert times == pytest.approx([k / 30 for k in range(60)], abs=1e-3)
    assert "clock jumps at 1.00 s" in report.warnings[0]
    assert report.broke_at_s is None


def test_size_change_gives_one_size(tmp_path: Path) -> None:
    small = write_clip(tmp_path / "small.ts", numbered_frames(30)).read_bytes()
    large = write_clip(tmp_path / "large.ts", numbered_frames(30, 192, 320)).read_bytes()
    path = tmp_path / "both.ts"
    path.write_bytes(small + large)
    video = open_video(path)
    assert {frame.rgb().shape for frame in video} == {(96, 160, 3)}
    assert video.report.frames == 60
    assert any("size changes to 320 x 192" in warning for warning in video.report.warnings)


def test_sound_longer_than_the_video_is_no_damage(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "x.mkv", numbered_frames(30), sound_s=6)
    numbers, _, report = read(path)
    assert len(numbers) == 30
    assert report.warnings == () and report.missing_s == 0


def test_durations_in_headers_may_lie(tmp_path: Path) -> None:
    """A header count is a claim: memory and loops follow what is there."""
    path = write_clip(tmp_path / "x.mp4", numbered_frames(30))
    data = bytearray(path.read_bytes())
    for box in (b"mvhd", b"tkhd", b"mdhd"):
        at = data.index(box) + (24 if box == b"tkhd" else 20)
        data[at : at + 4] = (2**31 - 5).to_bytes(4, "big")
    path.write_bytes(data)
    numbers, _, report = read(path)
    assert numbers == list(range(30))
    assert report.duration_s == pytest.approx(1)
    assert report.warnings == ()


def bitten(data: bytes, seed: int) -> bytes:
    """`data` cut off, or with some bits turned, in the headers every other time."""
    random = np.random.default_rng(seed)
    if seed % 4 == 0:
        return data[: int(random.integers(1, len(data)))]
    changed = bytearray(data)
    end = min(len(data), 1500) if seed % 2 else len(data)
    for at in random.integers(0, end, int(random.integers(1, 12))):
        changed[at] ^= 1 << int(random.integers(0, 8))
    return bytes(changed)


@pytest.mark.parametrize("kind", ["mp4", "mkv", "ts", "avi"])
def test_flipped_bits_and_cuts_give_frames_or_one_sentence(kind: str, tmp_path: Path) -> None:
    codec = "mpeg4" if kind == "avi" else "libx264"
    whole = write_clip(tmp_path / f"whole.{kind}", numbered_frames(10), codec=codec).read_bytes()
    path, odd, outcomes = tmp_path / f"x.{kind}", [], {"frames": 0, "refused": 0}

    def look() -> None:
        for seed in range(40):
            path.write_bytes(bitten(whole, seed))
            try:
                probe(path)
                video = open_video(path)
                frames = sum(frame.rgb().ndim == 3 for frame in video)
                outcomes["frames"] += 1
                if frames != video.report.frames or not frames:
                    odd.append((seed, f"{frames} frames, {video.report.frames} reported"))
            except VidtadError as error:
                outcomes["refused"] += 1
                if not str(error).startswith(str(path)) or "\n" in str(error):
                    odd.append((seed, str(error)))
            except Exception as error:
                odd.append((seed, repr(error)))

    watch = threading.Thread(target=look, daemon=True)
    watch.start()
    watch.join(timeout=240)
    assert not watch.is_alive(), "a damaged file holds the reader up"
    assert not odd and sum(outcomes.values()) == 40
    assert outcomes["frames"] and outcomes["refused"], outcomes
