"""Which film of a file, which way up, and in which range of light: as FFmpeg and players show it."""

import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.bitstream import BitStreamFilterContext
from av.stream import Disposition

from vidtad.errors import InputError
from vidtad.video import open_video, probe
from vidtad.video.types import VideoInfo

H, W = 48, 64


def corners() -> np.ndarray:
    """A picture whose four quarters differ."""
    pixels = np.zeros((H, W, 3), np.uint8)
    pixels[: H // 2, : W // 2], pixels[: H // 2, W // 2 :] = 30, 90
    pixels[H // 2 :, : W // 2], pixels[H // 2 :, W // 2 :] = 150, 220
    return pixels


def film(path: Path, frames: int = 5, codec: str = "libx264", **context: object) -> Path:
    with av.open(str(path), "w") as file:
        stream = file.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = W, H, "yuv420p"
        stream.options = {"qp": "0"} if codec == "libx264" else {}
        for name, value in context.items():
            setattr(stream.codec_context, name, value)
        for _ in range(frames):
            file.mux(stream.encode(av.VideoFrame.from_ndarray(corners(), format="rgb24")))
        file.mux(stream.encode())
    return path


# Name -> (a, b, c, d) of the display matrix, and what it does to stored pixels.
ORIENTATIONS = {
    "as stored": ((1, 0, 0, 1), lambda p: p),
    "left and right exchanged": ((-1, 0, 0, 1), np.fliplr),
    "upside down, mirrored": ((1, 0, 0, -1), np.flipud),
    "half a turn": ((-1, 0, 0, -1), lambda p: np.rot90(p, 2)),
    "clockwise": ((0, 1, -1, 0), lambda p: np.rot90(p, -1)),
    "counter-clockwise": ((0, -1, 1, 0), np.rot90),
    "along the diagonal": ((0, 1, 1, 0), lambda p: p.transpose(1, 0, 2)),
    "along the other diagonal": ((0, -1, -1, 0), lambda p: np.rot90(p, 2).transpose(1, 0, 2)),
}


@pytest.mark.parametrize("name", ORIENTATIONS)
def test_all_eight_orientations_of_a_header(name: str, tmp_path: Path) -> None:
    (a, b, c, d), shown = ORIENTATIONS[name]
    path = film(tmp_path / "a.mp4")
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 4
    at += 40 if data[at] == 0 else 52
    data[at : at + 36] = struct.pack(">9i", a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    with open_video(path) as video:
        pixels = next(iter(video)).rgb()
        info = video.info
    expected = shown(corners())
    assert pixels.shape == expected.shape == (info.height, info.width, 3)
    assert np.abs(pixels.astype(int) - expected).mean() < 3
    assert info.mirrored == (a * d - b * c < 0)
    assert VideoInfo.from_json(info.to_json()) == info


@pytest.mark.parametrize(
    ("says", "shown"),
    [
        ("flip=horizontal", np.fliplr),
        ("flip=vertical", np.flipud),
        ("rotate=90", np.rot90),
        ("rotate=180", lambda p: np.rot90(p, 2)),
        ("rotate=270", lambda p: np.rot90(p, 3)),
    ],
)
def test_orientations_of_the_bitstream(says: str, shown: object, tmp_path: Path) -> None:
    path = tmp_path / "turned.mp4"
    with av.open(str(film(tmp_path / "a.mp4"))) as old, av.open(str(path), "w") as new:
        source = old.streams.video[0]
        stream = new.add_stream_from_template(source)
        bits = BitStreamFilterContext(f"h264_metadata=display_orientation=insert:{says}", source, stream)
        for packet in old.demux(source):
            for filtered in bits.filter(packet if packet.size else None):
                filtered.stream = stream
                new.mux(filtered)
    with open_video(path) as video:
        pixels = next(iter(video)).rgb()
        (late,) = video.at([0.16])  # after a seek, too
    for each in (pixels, late.rgb()):
        assert np.abs(each.astype(int) - shown(corners())).mean() < 3  # type: ignore[operator]


def test_other_decoders_refuse_mirrored_pictures(tmp_path: Path) -> None:
    path = film(tmp_path / "a.mp4")
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 44
    data[at : at + 36] = struct.pack(">9i", -1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    with pytest.raises(InputError, match="mirrored"), open_video(path, decoder="opencv") as video:
        list(video)


def two_films(path: Path, marked: int | None) -> Path:
    """A small film of 3 frames, then one of 10, of which `marked` alone is the default."""
    with av.open(str(path), "w") as file:
        streams = []
        for number, size in enumerate(((32, 32), (W, H))):
            stream = file.add_stream("libx264", rate=25)
            stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
            stream.disposition = Disposition.default if number == marked else Disposition(0)
            streams.append(stream)
        for number, stream in enumerate(streams):
            for _ in range((3, 10)[number]):
                pixels = np.zeros((stream.height, stream.width, 3), np.uint8)
                file.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
            file.mux(stream.encode())
    return path


@pytest.mark.parametrize(("marked", "frames"), [(1, 10), (0, 3), (None, 10)])
def test_the_film_is_the_stream_a_player_takes(marked: int | None, frames: int, tmp_path: Path) -> None:
    path = two_films(tmp_path / "two.mkv", marked)
    with open_video(path) as video:
        assert len(list(video)) == frames
        warning = video.report.warnings[0]
    assert "holds 2 films; stream" in warning and "is taken (h264" in warning
    assert len([frame for frame in video.at([0.0, 0.1])]) == 2
    with pytest.raises(InputError, match="several films"), open_video(path, decoder="opencv") as other:
        list(other)


def test_a_broadcast_that_turns_interlaced_is_refused_by_opencv(tmp_path: Path) -> None:
    path = tmp_path / "mixed.mkv"
    parts = []
    for name, options in (("p", {}), ("i", {"flags": "+ildct+ilme", "top": "1"})):
        part = tmp_path / f"{name}.m2v"
        with av.open(str(part), "w", format="mpeg2video") as file:
            stream = file.add_stream("mpeg2video", rate=25)
            stream.width, stream.height, stream.pix_fmt, stream.options = W, H, "yuv420p", options
            for k in range(12):
                frame = av.VideoFrame.from_ndarray(np.roll(corners(), 3 * k, 1), format="rgb24")
                file.mux(stream.encode(frame.reformat(format="yuv420p")))
            file.mux(stream.encode())
        parts.append(part.read_bytes())
    raw = tmp_path / "mixed.m2v"
    raw.write_bytes(b"".join(parts))
    with av.open(str(raw)) as old, av.open(str(path), "w") as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        for number, packet in enumerate(p for p in old.demux(video=0) if p.size):
            packet.stream, packet.time_base = stream, Fraction(1, 25)
            packet.pts = packet.dts = number
            new.mux(packet)
    with av.open(str(path)) as file:
        kinds = [frame.interlaced_frame for frame in file.decode(video=0)]
    assert not kinds[0] and kinds[-1]
    with pytest.raises(InputError, match=r"opencv cannot read it rightly \(interlaced.* from 0\.\d+ s on\)"):
        list(open_video(path, decoder="opencv"))
    assert len(list(open_video(path))) == len(kinds)


@pytest.mark.parametrize(("transfer", "primaries", "kind"), [(18, 9, "hlg"), (16, 9, "pq"), (1, 9, "bt2020")])
def test_hdr_is_said_and_left_to_one_decoder(transfer: int, primaries: int, kind: str, tmp_path: Path) -> None:
    path = film(tmp_path / "hdr.mp4", color_trc=transfer, color_primaries=primaries)
    assert probe(path).dynamic_range == kind
    with open_video(path) as video:
        list(video)
    assert f"{kind.upper()} footage, read without tone mapping" in video.report.warnings[0]
    with pytest.raises(InputError, match="HDR comes out tone-mapped"), open_video(path, decoder="opencv") as other:
        list(other)
    assert probe(film(tmp_path / "sdr.mp4")).dynamic_range == "sdr"


def test_opencv_is_not_asked_for_colours_that_it_converts(tmp_path: Path) -> None:
    path = film(tmp_path / "p3.mp4", color_primaries=12, color_trc=1)
    assert probe(path).dynamic_range == "sdr" and len(list(open_video(path))) == 5
    with pytest.raises(InputError, match="wide colours"):
        list(open_video(path, decoder="opencv"))


@pytest.mark.parametrize(("release", "fits"), [("4.12.0", False), ("4.13.0", True), ("5.0.0", True)])
def test_an_old_opencv_is_not_asked_for_a_matrix_that_it_ignores(
    release: str, fits: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import cv2

    monkeypatch.setattr(cv2, "__version__", release)
    assert len(list(open_video(film(tmp_path / "bt601.mp4", colorspace=6), decoder="opencv"))) == 5
    path = film(tmp_path / "bt709.mp4", colorspace=1)
    if fits:
        assert len(list(open_video(path, decoder="opencv"))) == 5
    else:
        with pytest.raises(InputError, match="wrong matrix"):
            list(open_video(path, decoder="opencv"))
