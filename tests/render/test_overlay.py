"""What is drawn into a video is there, at its time, and the video is otherwise what it was."""

import json
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from typer.testing import CliRunner, Result

from tests.clips import KINDS, clip_of_kind, number_of, numbered_frames, write_clip
from vidtad.cli import app
from vidtad.errors import InputError
from vidtad.render.cut import cut
from vidtad.render.overlay import Canvas, Look, Script, burn, drawable
from vidtad.timeline import PersonBox, Segment, Timeline, write_timeline_json
from vidtad.video import VideoInfo, open_video, probe


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def timeline_of(path: Path, *segments: Segment, people: tuple[PersonBox, ...] = ()) -> Timeline:
    return Timeline({"v": segments}, {"v": probe(path)}, {"name": "test"}, {"v": people} if people else {})


def frames_of(path: Path) -> tuple[list[float], list[np.ndarray]]:
    with open_video(path) as video:
        found = [(frame.time_s, frame.rgb()) for frame in video]
    return [time for time, _ in found], [rgb for _, rgb in found]


def sound_of(path: Path) -> list[tuple[float, bytes]]:
    with av.open(str(path)) as container:
        return [(float(p.pts * p.time_base), bytes(p)) for p in container.demux(audio=0) if p.size]


@pytest.mark.parametrize(
    "kind", ["plain", "variable rate", "rotated 90", "odd size", "matroska with sound", "edit list"]
)
def test_frames_and_times_stay(kind: str, tmp_path: Path) -> None:
    source = clip_of_kind(kind, tmp_path)
    out = tmp_path / "out" / "annotated.mkv"
    frames = burn(timeline_of(source, Segment(0.5, 1.0, "walk", 0.9)), "v", source, out)
    (times, pictures), (new_times, new_pictures) = frames_of(source), frames_of(out)
    assert frames == len(times) == len(new_times)
    assert new_times == pytest.approx(times, abs=0.0011), "Matroska keeps milliseconds"
    height, width = pictures[0].shape[:2]
    assert new_pictures[0].shape[:2] == (height + height % 2, width + width % 2)
    quiet = [k for k, time in enumerate(times) if time < 0.45 or time > 1.05]
    for k in (quiet[0], quiet[-1]):
        body = np.s_[: height - 8, :width]
        assert np.abs(new_pictures[k][body].astype(int) - pictures[k][body]).mean() < 12, "nothing drawn there"


def test_sound_is_copied_bit_for_bit(tmp_path: Path) -> None:
    source = write_clip(tmp_path / "a.mp4", numbered_frames(60), 30, sound_s=2.0)
    out = tmp_path / "b.mp4"
    burn(timeline_of(source, Segment(0.5, 1.0, "walk", 0.9)), "v", source, out)
    before, after = sound_of(source), sound_of(out)
    assert [data for _, data in after] == [data for _, data in before]
    assert [time for time, _ in after] == pytest.approx([time for time, _ in before])
    assert probe(out).duration_s == pytest.approx(probe(source).duration_s, abs=0.001)


def test_pictures_that_start_after_the_sound_still_do(tmp_path: Path) -> None:
    source = write_clip(tmp_path / "a.mkv", numbered_frames(30), 30, pts=[15 + k for k in range(30)], sound_s=1.5)
    assert probe(source).start_s == pytest.approx(0.5, abs=0.01)
    burn(timeline_of(source), "v", source, tmp_path / "b.mkv")
    assert probe(tmp_path / "b.mkv").start_s == pytest.approx(probe(source).start_s, abs=0.002)


def test_a_clock_that_starts_late_gives_a_file_that_starts_at_once(tmp_path: Path) -> None:
    late = {"output_ts_offset": "5"}
    source = write_clip(tmp_path / "a.ts", numbered_frames(30), 30, sound_s=1.0, container_options=late)
    assert probe(source).start_s >= 5
    burn(timeline_of(source, Segment(0.2, 0.5, "a", 0.9)), "v", source, tmp_path / "b.mp4")
    with av.open(str(tmp_path / "b.mp4")) as container:
        assert container.duration / 1e6 == pytest.approx(1, abs=0.1)
    early = probe(source).start_s - sound_of(source)[0][0]
    assert probe(tmp_path / "b.mp4").start_s - sound_of(tmp_path / "b.mp4")[0][0] == pytest.approx(early, abs=0.002)


@pytest.mark.parametrize(("rotation", "wanted"), [(0, Fraction(4, 3)), (90, Fraction(3, 4))])
def test_pixels_that_are_not_square_stay_so(rotation: int, wanted: Fraction, tmp_path: Path) -> None:
    source = write_clip(tmp_path / "a.mp4", numbered_frames(8), rotation=rotation, aspect=Fraction(4, 3))
    timeline = timeline_of(source, Segment(0, 9, "a", 0.9))
    burn(timeline, "v", source, tmp_path / "b.mp4")
    (one,) = cut(timeline, "v", source, tmp_path / "cut", exact=True)
    for path in (tmp_path / "b.mp4", one.path):
        with av.open(str(path)) as container:
            assert container.streams.video[0].sample_aspect_ratio == wanted


def test_the_last_picture_is_shown_as_long_as_it_was(tmp_path: Path) -> None:
    source = write_clip(tmp_path / "a.mp4", numbered_frames(3), Fraction(1, 4))
    burn(timeline_of(source), "v", source, tmp_path / "b.mp4")
    assert probe(tmp_path / "b.mp4").duration_s == pytest.approx(probe(source).duration_s) == 12


@pytest.mark.parametrize(("width", "height"), [(2, 2), (1, 1), (640, 2)])
def test_pictures_smaller_than_the_strip(width: int, height: int, tmp_path: Path) -> None:
    frames = [np.full((height, width, 3), 90, np.uint8)] * 3
    source = write_clip(tmp_path / "a.mkv", frames, codec="ffv1", pix_fmt="bgr0")
    assert burn(timeline_of(source, Segment(0, 1, "walk", 0.9)), "v", source, tmp_path / "b.mp4") == 3


def test_labels_show_while_their_segment_lasts(tmp_path: Path) -> None:
    source = write_clip(tmp_path / "a.mp4", [np.full((240, 320, 3), 120, np.uint8)] * 40, 20)
    out = tmp_path / "b.mp4"
    burn(
        timeline_of(source, Segment(0.5, 1.0, "walk", 0.9), Segment(0, 2, "faint", 0.1)),
        "v",
        source,
        out,
        min_score=0.5,
    )
    times, pictures = frames_of(out)
    changed = [
        time for time, rgb in zip(times, pictures, strict=True) if np.abs(rgb[:120].astype(int) - 120).max() > 60
    ]
    assert changed == pytest.approx([k / 20 for k in range(10, 20)])
    strip = np.ptp(pictures[0][-2].astype(int), axis=-1) > 60  # coloured where the segment lies
    inside = np.nonzero(strip)[0]
    assert inside.min() == pytest.approx(80, abs=4) and inside.max() == pytest.approx(160, abs=4)


def test_boxes_are_drawn_where_the_person_is(tmp_path: Path) -> None:
    source = write_clip(tmp_path / "a.mp4", [np.full((240, 320, 3), 120, np.uint8)] * 40, 20)
    people = tuple(
        PersonBox(k * 0.5, 0, (0.1 + k * 0.1, 0.5, 0.3 + k * 0.1, 0.9), 0.9, (("walk", 0.8),)) for k in range(3)
    )
    burn(timeline_of(source, people=people), "v", source, tmp_path / "b.mp4")
    times, pictures = frames_of(tmp_path / "b.mp4")
    for time_s in (0.0, 0.25, 1.0):
        rgb = pictures[times.index(pytest.approx(time_s))].astype(int)
        columns = np.nonzero(np.abs(rgb[180] - 120).max(axis=-1) > 50)[0]
        left = 0.1 + time_s * 0.2
        assert columns.min() == pytest.approx(left * 320, abs=3) and columns.max() == pytest.approx(
            (left + 0.2) * 320, abs=3
        )
    assert np.abs(pictures[-1][180].astype(int) - 120).max() < 30, "half a step after the last keyframe nobody is there"


def test_what_is_said_of_a_person_at_the_edge_stays_in_the_picture() -> None:
    person = PersonBox(0.0, 0, (0.9, 0.5, 1.0, 1.0), 0.9, (("carry/hold (an object)", 0.9),))
    info = VideoInfo("v.mp4", 320, 240, Fraction(25), 2.0, 50)
    script = Script(Timeline({"v": ()}, {"v": info}, {}, {"v": (person,)}), "v")
    picture = Canvas(320, 240, script, 2.0, Look()).draw(np.zeros((240, 320, 3), np.uint8), 0.0)
    written = np.flatnonzero((picture[:119] > 200).all(axis=2).any(axis=0))
    assert written.min() < 0.9 * 320 - 20 and written.max() < 319


def test_a_script_knows_what_shows_when() -> None:
    found = (
        Segment(0, 100, "long", 0.4),
        Segment(5, 6, "a", 0.5),
        Segment(5.5, 7, "a", 0.9),
        Segment(5, 6, "low", 0.1),
    )
    script = Script(Timeline({"v": found}, {"v": None}, {}), "v", 0.2)  # type: ignore[dict-item]
    assert script.at(5.7).labels == (("a", 0.9), ("long", 0.4))
    assert script.at(5.2).labels == (("a", 0.5), ("long", 0.4))
    assert script.at(7.0).labels == (("long", 0.4),) and script.at(100.0).labels == ()


def test_text_is_reduced_to_what_the_font_has() -> None:
    assert drawable("Crème  brûlée\n漢") == "Creme brulee ?"


def test_a_failed_overlay_leaves_nothing(tmp_path: Path) -> None:
    source = write_clip(tmp_path / "a.mkv", numbered_frames(10), 30)
    timeline = timeline_of(source)
    for target, said in ((tmp_path / "b.avi", "endings"), (source, "is the video itself")):
        with pytest.raises(InputError, match=said):
            burn(timeline, "v", source, target)
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(InputError):
        burn(timeline, "v", tmp_path / "text.mp4", tmp_path / "c.mp4")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.mkv", "text.mp4"]


@pytest.mark.parametrize("kind", ["plain", "ntsc open GOP", "variable rate", "rotated 90", "edit list", "fragmented"])
def test_clips_are_copied_and_start_at_the_very_frame(kind: str, tmp_path: Path) -> None:
    source = clip_of_kind(kind, tmp_path)
    times, pictures = frames_of(source)
    rotation = KINDS[kind][2].get("rotation", 0)
    first, last = 17, 31  # inside a group of pictures
    segment = Segment(times[first], times[last], "high jump", 0.9)
    (one,) = cut(timeline_of(source, segment, Segment(0, 1, "low", 0.1)), "v", source, tmp_path / "o", min_score=0.5)
    assert one.copied and one.path.suffix == ".mp4" and "high-jump" in one.path.name
    new_times, new_pictures = frames_of(one.path)
    assert [number_of(rgb, rotation) for rgb in new_pictures][: last - first] == [
        number_of(rgb, rotation) for rgb in pictures[first:last]
    ]
    assert len(new_pictures) <= last - first + 4, "a few more where B-frames need them"
    wanted = [time - times[first] for time in times[first:last]]
    assert new_times[: last - first] == pytest.approx(wanted, abs=0.002)
    assert np.array_equal(new_pictures[0], pictures[first]), "the same pixels: nothing was encoded anew"


def test_clips_from_files_without_decoding_times(tmp_path: Path) -> None:
    source = write_clip(tmp_path / "a.mkv", numbered_frames(60), options={"preset": "fast", "bf": "3", "g": "24"})
    with av.open(str(source)) as container:
        assert next(container.demux(video=0)).dts is None, "Matroska has none, and here pictures are reordered"
    for first, last in ((0, 20), (30, 50), (50, 60)):
        segment = Segment(first / 30, last / 30, "a", 0.9)
        (one,) = cut(timeline_of(source, segment), "v", source, tmp_path / f"o{first}")
        times, pictures = frames_of(one.path)
        assert one.copied and [number_of(rgb) for rgb in pictures][: last - first] == list(range(first, last))
        assert times[: last - first] == pytest.approx([k / 30 for k in range(last - first)], abs=0.002)


def test_exact_clips_hold_just_their_frames(tmp_path: Path) -> None:
    source = clip_of_kind("ntsc open GOP", tmp_path)
    times, _ = frames_of(source)
    (one,) = cut(timeline_of(source, Segment(times[17], times[31], "a", 0.9)), "v", source, tmp_path / "o", exact=True)
    assert not one.copied and [number_of(rgb) for rgb in frames_of(one.path)[1]] == list(range(17, 31))


def test_clips_keep_their_sound_in_step(tmp_path: Path) -> None:
    source = write_clip(tmp_path / "a.mp4", numbered_frames(90), 30, sound_s=3.0)
    for exact in (False, True):
        (one,) = cut(timeline_of(source, Segment(1.0, 2.0, "a", 0.9)), "v", source, tmp_path / str(exact), exact=exact)
        packets = sound_of(one.path)
        wanted = [(time - 1.0, data) for time, data in sound_of(source) if 1.0 <= time < 2.0]
        assert [data for _, data in packets] == [data for _, data in wanted]
        assert packets[0][0] == pytest.approx(wanted[0][0], abs=0.002)


def test_what_cannot_be_copied_is_encoded(tmp_path: Path) -> None:
    for kind in ("mjpeg", "wrong extension"):
        source = clip_of_kind(kind, tmp_path)
        (one,) = cut(timeline_of(source, Segment(0.5, 1.0, "a", 0.9)), "v", source, tmp_path / kind)
        numbers = [number_of(rgb) for rgb in frames_of(one.path)[1]]
        assert numbers[:15] == list(range(15, 30)) and one.copied == (kind == "wrong extension")


def test_a_segment_beyond_the_video_gives_no_file(tmp_path: Path) -> None:
    source = write_clip(tmp_path / "a.mp4", numbered_frames(30), 30)
    timeline = timeline_of(source, Segment(50, 60, "late", 0.9))
    for exact in (False, True):
        assert cut(timeline, "v", source, tmp_path / "o", exact=exact) == []
    assert not list(tmp_path.glob("o/*"))
    write_timeline_json(timeline, tmp_path / "v.json")
    result = run("clips", tmp_path / "v.json", "--video", source, "--out", tmp_path / "o")
    assert result.exit_code == 0 and "v: 1 segment without a frame" in result.stderr
    assert "no segment scores" not in result.stderr
    result = run("clips", tmp_path / "v.json", "--video", source, "--out", tmp_path / "o", "--min-score", 0.95)
    assert result.exit_code == 0 and "no segment scores 0.95" in result.stderr


def test_command_line(tmp_path: Path) -> None:
    source = write_clip(tmp_path / "match.mp4", numbered_frames(60), 30)
    timeline = Timeline(
        {"match": (Segment(0.5, 1.0, "jump/../x", 0.9), Segment(1.0, 1.5, "run", 0.4))},
        {"match": replace(probe(source), path=str(source))},
        {"name": "test", "display_score": 0.5, "demonstration": True},
    )
    write_timeline_json(timeline, tmp_path / "t" / "match.json")
    result = run("overlay", tmp_path / "t/match.json", "--json")
    assert "demonstration detector" in result.stderr
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["overlays"][0]["frames"] == 60
    assert probe(tmp_path / "t/match.annotated.mp4").frames == 60
    result = run("clips", tmp_path / "t/match.json", "--out", tmp_path / "c", "--json")
    (clip,) = json.loads(result.stdout)["clips"]
    assert Path(clip["clip"]).parent == tmp_path / "c" and clip["copied"] and clip["label"] == "jump/../x"
    everything = run("clips", tmp_path / "t/match.json", "--out", tmp_path / "d", "--all", "--json")
    assert len(json.loads(everything.stdout)["clips"]) == 2
    both = run("clips", tmp_path / "t/match.json", "--all", "--min-score", 0.2)
    assert both.exit_code == 2 and "--all leaves nothing out" in both.stderr
    assert run("clips", tmp_path / "t/match.json", "--min-score", 0.99).stderr.count("no segment scores") == 1
    source.unlink()
    result = run("overlay", tmp_path / "t/match.json")
    assert result.exit_code == 2 and "--video" in result.stderr
