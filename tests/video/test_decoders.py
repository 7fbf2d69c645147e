"""One contract for every decoder that is installed: the same frames at the same times, or a refusal."""

import os
import signal
import subprocess
import sys
import threading
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from tests.clips import KINDS, clip_of_kind, number_of, numbered_frames, write_clip
from vidtad.errors import InputError, RunError
from vidtad.video import describe, open_video
from vidtad.video.backends import DECODERS
from vidtad.video.header import examine
from vidtad.video.isolate import IsolatedDecoder

# What a backend does not read is refused in words that match; everything else must be right.
REFUSED = {
    ("decord", "av1"): "decord",
    ("decord", "edit list"): "counts 48 frames where there are 43",
    ("decord", "transport stream"): "hang",
    ("opencv", "interlaced"): "rubbish",
    ("torchcodec", "avi B-frames"): "gives up|off",
    ("torchcodec", "transport stream"): "lose their first frames",
}
# OpenCV's releases differ in whether their FFmpeg has an AV1 decoder: refused or right, both are kept.
MAY_REFUSE = {("opencv", "av1"), ("torchcodec", "interlaced"), ("torchcodec", "edit list")}
# Rounding 10 bit to 8 and upsampling colour at odd edges are each library's own.
PIXELS_MAY_DIFFER = {"10 bit", "odd size", "interlaced"}


def installed(name: str) -> bool:
    """Asked of another process: decord's libraries, once loaded, break the VP9 encoder that makes the clips."""
    module = {"decord": "decord", "torchcodec": "torchcodec.decoders"}.get(name)
    if module is None:
        return True
    if find_spec(module.split(".")[0]) is None:
        return False
    return subprocess.run([sys.executable, "-c", f"import {module}"], capture_output=True).returncode == 0


AVAILABLE = [name for name in DECODERS if installed(name)]


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("clips")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("decoder", [name for name in AVAILABLE if name != "pyav"])
def test_same_frames_same_times_or_refused(decoder: str, kind: str, clips: Path) -> None:
    path = clip_of_kind(kind, clips)
    reference = open_video(path)
    due = [(frame.index, frame.time_s, frame.duration_s) for frame in reference]
    pictures = {frame.index: frame.rgb() for frame in reference}
    try:
        video = open_video(path, decoder=decoder)
        found = []
        for frame in video:
            found.append((frame.index, frame.time_s))
            pixels = frame.rgb()
            assert number_of(pixels, video.info.rotation) == number_of(pictures[frame.index], video.info.rotation)
            if kind not in PIXELS_MAY_DIFFER:
                assert np.array_equal(pixels, pictures[frame.index])
    except InputError as error:
        assert (decoder, kind) in REFUSED.keys() | MAY_REFUSE, error
        assert "--decoder pyav" in str(error)
        return
    assert (decoder, kind) not in REFUSED
    assert found == [(index, time_s) for index, time_s, _ in due]
    assert video.report.duration_s == pytest.approx(reference.report.duration_s, abs=2e-3)
    assert video.final_info.decoder == decoder
    assert video.report.warnings == ()


@pytest.mark.parametrize("decoder", [name for name in AVAILABLE if name != "pyav"])
def test_damage_is_refused_not_passed_off(decoder: str, tmp_path: Path) -> None:
    path = write_clip(tmp_path / "x.mp4", numbered_frames(90), container_options={"movflags": "faststart"})
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * 0.6)])
    with pytest.raises(InputError, match=f"{decoder} cannot read it rightly.*--decoder pyav"):
        list(open_video(path, decoder=decoder))


@pytest.mark.parametrize("decoder", AVAILABLE)
def test_frames_by_time_with_every_decoder(decoder: str, clips: Path) -> None:
    path = clip_of_kind("ntsc open GOP", clips)
    with open_video(path, decoder=decoder) as video:
        frames = video.at([1.5, 0.0, 0.517])
    assert [number_of(frame.rgb()) for frame in frames] == [45, 0, 15]


@pytest.mark.parametrize("decoder", AVAILABLE)
def test_percent_in_the_name_is_no_pattern(decoder: str, tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a%03d b.mp4", numbered_frames(4))
    assert [number_of(frame.rgb()) for frame in open_video(path, decoder=decoder)] == [0, 1, 2, 3]


def test_unknown_decoder_is_answered_with_those_there_are(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "x.mp4", numbered_frames(2))
    with pytest.raises(InputError, match="pyav, decord, opencv, torchcodec"):
        open_video(path, decoder="ffmpeg")


@pytest.mark.parametrize(("decoder", "module"), [("decord", "decord"), ("torchcodec", "torchcodec.decoders")])
def test_missing_decoder_names_its_extra(
    decoder: str, module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_clip(tmp_path / "x.mp4", numbered_frames(2))
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(InputError, match=rf"vidtad\[{decoder}\]"):
        list(open_video(path, decoder=decoder, isolate=False))


@pytest.mark.parametrize("kind", ["plain", "rotated 90", "variable rate", "transport stream"])
def test_child_process_gives_the_same(kind: str, clips: Path) -> None:
    path = clip_of_kind(kind, clips)
    here, there = open_video(path), open_video(path, isolate=True)
    for one, other in zip(here, there, strict=True):
        assert one == other
        assert np.array_equal(one.rgb(), other.rgb())
    assert here.report == there.report


def test_killed_decoding_child_is_one_sentence(clips: Path) -> None:
    video = open_video(clip_of_kind("plain", clips), isolate=True)
    frames = iter(video)
    next(frames)
    source = video._open
    assert isinstance(source, IsolatedDecoder)
    os.kill(source.process.pid, signal.SIGKILL)
    with pytest.raises(RunError, match=r"plain\.mp4: the process of decoder pyav died after frame \d+"):
        list(frames)


def test_hung_decoding_child_is_stopped(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "x.mp4", numbered_frames(90))
    source = IsolatedDecoder(path, examine(path), name="pyav", patience_s=3)
    flow = source.decode()
    next(flow)
    os.kill(source.process.pid, signal.SIGSTOP)
    with pytest.raises(RunError, match="gave no frame for 3 s"):
        list(flow)
    assert source.process.poll() is not None


def test_child_ends_with_its_reader(clips: Path) -> None:
    before = threading.active_count()
    with open_video(clip_of_kind("plain", clips), isolate=True) as video:
        flow = iter(video)
        next(flow)
        process = video._open.process
    assert process.poll() is not None
    flow.close()
    assert threading.active_count() <= before


def test_errors_cross_from_the_child(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "x.mp4", numbered_frames(3))
    video = open_video(path, isolate=True)
    path.unlink()
    with pytest.raises(InputError, match="no such file"):
        list(video)


def test_description_of_a_file(clips: Path) -> None:
    document = describe(clip_of_kind("rotated 90", clips), frames=True)
    assert document["promised"] == {"frames": 60, "duration_s": 2.0}
    assert (document["width"], document["height"], document["rotation"]) == (96, 160, 90)
    assert (document["frames"], document["fps"], document["fps_exact"]) == (60, 30.0, "30")
    assert document["constant_rate"] is True and document["damage"] is None and document["codec"] == "h264"
    assert document["frame_times_s"] == pytest.approx([k / 30 for k in range(60)])
    assert "frame_times_s" not in describe(clip_of_kind("rotated 90", clips))


def test_description_of_damage(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "x.mkv", numbered_frames(60))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    document = describe(path)
    assert document["damage"]["missing_s"] == pytest.approx(2 - document["duration_s"], abs=2e-3)
    assert document["promised"]["frames"] is None
    assert len(document["warnings"]) == 1
