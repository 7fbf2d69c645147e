"""`vidtad extract` and `vidtad detect` end to end on generated clips, through the command line."""

import csv
import errno
import json
import os
import re
import sys
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from tests.bundles import seeded_react
from tests.clips import VFR_PTS, clip_of_kind, numbered_frames, write_clip, write_sound
from vidtad.cli import app
from vidtad.errors import RunError
from vidtad.hub.bundle import load_bundle, save_bundle
from vidtad.timeline import read_timeline

SMALL = {"width": 32, "heads": 4, "queries": 8, "clip_len": 16, "feed_forward": 64}


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clips") / "clip.mp4", numbered_frames(150), 25)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return seeded_react(tmp_path_factory.mktemp("bundles") / "seeded.safetensors", **SMALL)


def test_video_to_timeline(clip: Path, bundle: Path, tmp_path: Path) -> None:
    result = run("detect", clip, "--model", bundle, "--out", tmp_path)
    assert result.exit_code == 0, result.stderr
    timeline = read_timeline(tmp_path / "clip.json")
    segments = timeline.results["clip"]
    assert segments and all(0 <= s.start_s < s.end_s <= 6.0 for s in segments)
    assert {s.label for s in segments} <= {"jump", "wave", "walk"}
    assert timeline.videos["clip"].frames == 150 and timeline.videos["clip"].duration_s == pytest.approx(6.0)
    assert timeline.detector["random_weights"] is True
    rows = list(csv.DictReader((tmp_path / "clip.csv").open()))
    assert len(rows) == len(segments) and [float(row["start_s"]) for row in rows] == sorted(
        round(s.start_s, 3) for s in segments
    )
    shown = sum(row["shown"] == "yes" for row in rows)
    assert shown == sum(s.score >= timeline.detector["display_score"] for s in segments)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clip.csv", "clip.json"]


def test_two_steps_give_the_same_timeline_as_one(clip: Path, tmp_path: Path) -> None:
    bundle = seeded_react(tmp_path / "b.safetensors", embed=False, **SMALL)
    weights = ("--weights", "random:7")
    assert run("extract", clip, "--extractor", "tiny3d", *weights, "--out", tmp_path / "f").exit_code == 0
    assert run("detect", tmp_path / "f", "--model", bundle, "--out", tmp_path / "two").exit_code == 0
    assert run("detect", clip, "--model", bundle, *weights, "--out", tmp_path / "one").exit_code == 0
    one, two = (read_timeline(tmp_path / folder / "clip.json") for folder in ("one", "two"))
    assert one.results == two.results


def test_the_default_input_is_the_features_folder(
    clip: Path, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    nothing = run("detect", "--model", bundle)
    assert nothing.exit_code == 2 and "vidtad extract" in nothing.stderr
    assert run("extract", clip, "--extractor", "tiny3d", "--weights", "random").exit_code == 0
    assert run("detect", "--model", bundle).exit_code == 0
    (written,) = (tmp_path / "timelines").glob("*/clip.json")
    assert read_timeline(written).results["clip"]


def test_two_detectors_need_no_folder_by_hand(clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("one", "two"):
        bundle = replace(load_bundle(seeded_react(tmp_path / "b.safetensors", **SMALL)), name=name)
        save_bundle(bundle, tmp_path / f"{name}.safetensors")
        assert run("detect", clip, "--model", tmp_path / f"{name}.safetensors").exit_code == 0
        assert (tmp_path / "timelines" / name / "clip.csv").is_file()
    # What an earlier version wrote is moved, not made again.
    before = (tmp_path / "timelines" / "one" / "clip.json").read_bytes()
    for suffix in (".json", ".csv"):
        (tmp_path / "timelines" / "one" / f"clip{suffix}").rename(tmp_path / "timelines" / f"clip{suffix}")
    monkeypatch.setattr("vidtad.pipelines.detect.worker.detect_features", lambda *_, **__: pytest.fail("made again"))
    assert run("detect", clip, "--model", tmp_path / "one.safetensors").exit_code == 0
    assert (tmp_path / "timelines" / "one" / "clip.json").read_bytes() == before
    assert not list((tmp_path / "timelines").glob("clip.*"))


def test_a_batch_ends_with_one_table(bundle: Path, tmp_path: Path) -> None:
    clips = three_clips(tmp_path / "clips")
    (clips / "vfr.mp4").unlink(missing_ok=True)
    (clips / "b.mp4").write_text("no video")
    (clips / "notes.txt").write_text("hello")
    (clips / "more").mkdir()
    result = run("detect", clips, "--model", bundle, "--out", tmp_path / "t")
    rows = [line.split() for line in result.stdout.splitlines()]
    states = {Path(row[0]).name: row[1] for row in rows if row and row[0].endswith(".mp4")}
    assert result.exit_code == 1 and states == {"a.mp4": "made", "b.mp4": "failed", "c.mp4": "made"}
    assert "passed over notes.txt, more/; name what is to be taken too" in result.stderr
    (clips / "b.mp4").unlink()
    again = run("detect", clips, "--model", bundle, "--out", tmp_path / "t").stdout
    assert again.count("kept") == 2 and "made" not in again


def test_out_dash_prints_json_alone(clip: Path, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = run("detect", clip, "--model", bundle, "--out", "-")
    assert result.exit_code == 0
    assert json.loads(result.stdout)["results"]["clip"]
    assert not list(tmp_path.iterdir())


def test_a_finished_timeline_is_kept_and_another_is_not_replaced(clip: Path, bundle: Path, tmp_path: Path) -> None:
    command = ("detect", clip, "--model", bundle, "--out", tmp_path)
    assert run(*command).exit_code == 0
    written = (tmp_path / "clip.json").stat().st_mtime_ns
    assert run(*command).exit_code == 0
    assert (tmp_path / "clip.json").stat().st_mtime_ns == written
    other = run(*command, "--min-score", "0.01")
    assert other.exit_code == 2 and "--overwrite" in other.stderr
    assert run(*command, "--min-score", "0.01", "--overwrite").exit_code == 0


def test_features_without_a_sidecar_are_taken_for_the_detectors_own(bundle: Path, tmp_path: Path) -> None:
    about = json.loads(run("models", "show", bundle, "--json").stdout)
    values = np.random.default_rng(0).normal(size=(40, about["channels"][0][1])).astype(np.float32)
    np.save(tmp_path / "x.npy", values)
    here = ("detect", tmp_path / "x.npy", "--model", bundle, "--out", tmp_path / "t")
    unknown = run(*here)
    assert unknown.exit_code == 2 and "pass --fps" in unknown.stderr
    result = run(*here, "--fps", 25)
    assert result.exit_code == 0 and "at 25 a second" in result.stderr, result.stderr
    asked = ("--fps", 25, "--stride", about["sampling"]["stride"], "--window", about["sampling"]["window"])
    assert run(*here, *asked, "--overwrite").exit_code == 0


def test_a_timeline_of_other_features_is_never_taken_for_finished(bundle: Path, tmp_path: Path) -> None:
    width = json.loads(run("models", "show", bundle, "--json").stdout)["channels"][0][1]
    values = np.random.default_rng(0).normal(size=(40, width)).astype(np.float32)
    np.save(tmp_path / "x.npy", values)
    here = ("detect", tmp_path / "x.npy", "--model", bundle, "--out", tmp_path / "t", "--fps")
    assert run(*here, 25).exit_code == 0 and run(*here, 25).exit_code == 0
    other = run(*here, 30)
    assert other.exit_code == 2 and "--overwrite" in other.stderr
    np.save(tmp_path / "x.npy", -values)
    changed = run(*here, 25)
    assert changed.exit_code == 2 and "--overwrite" in changed.stderr


@pytest.mark.parametrize("suffix", [".npz", ".csv", ".h5"])
def test_a_folder_of_downloaded_features_is_read_as_it_is(bundle: Path, tmp_path: Path, suffix: str) -> None:
    width = json.loads(run("models", "show", bundle, "--json").stdout)["channels"][0][1]
    (tmp_path / "down").mkdir()
    values = {name: np.random.default_rng(n).normal(size=(40, width)).astype(np.float32) for n, name in enumerate("ab")}
    for name, rows in values.items():
        np.save(tmp_path / f"{name}.npy", rows)
        if suffix == ".npz":
            np.savez_compressed(tmp_path / "down" / f"{name}.npz", feats=rows)
        elif suffix == ".csv":
            np.savetxt(tmp_path / "down" / f"{name}.csv", rows, "%.9g", ",")
        else:
            h5py = pytest.importorskip("h5py")
            with h5py.File(tmp_path / "down" / "all.h5", "a") as file:
                file[name] = rows
    found = run("detect", tmp_path / "down", "--model", bundle, "--fps", 25, "--out", tmp_path / "t")
    assert found.exit_code == 0, found.stderr
    arrays = (tmp_path / "a.npy", tmp_path / "b.npy")
    assert run("detect", *arrays, "--model", bundle, "--fps", 25, "--out", tmp_path / "u").exit_code == 0
    for name in "ab":
        one, two = (read_timeline(tmp_path / folder / f"{name}.json").results for folder in "tu")
        assert one == two and one[name]
    if suffix == ".h5":
        single = run("detect", tmp_path / "down" / "all.h5" / "b", "--model", bundle, "--fps", 25, "--out", "-")
        assert list(json.loads(single.stdout)["results"]) == ["b"]


def test_dots_belong_to_the_name_of_an_array_in_hdf5(bundle: Path, tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    width = json.loads(run("models", "show", bundle, "--json").stdout)["channels"][0][1]
    with h5py.File(tmp_path / "all.h5", "w") as file:
        for name in ("clip.1", "clip.2"):
            file[name] = np.ones((40, width), np.float32)
    found = run("detect", tmp_path / "all.h5", "--model", bundle, "--fps", 25, "--out", tmp_path / "t")
    assert found.exit_code == 0, found.stderr
    assert sorted(path.name for path in (tmp_path / "t").glob("*.json")) == ["clip.1.json", "clip.2.json"]


def test_a_batch_finishes_the_good_and_lists_the_bad(clip: Path, bundle: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.mp4"
    broken.write_text("no video")
    result = run("detect", broken, clip, "--model", bundle, "--out", tmp_path / "t", "--json")
    assert result.exit_code == 1
    document = json.loads(result.stdout)
    assert list(document["results"]) == ["clip"] and list(document["failed"]) == [str(broken)]
    assert sorted(path.name for path in (tmp_path / "t").iterdir()) == ["clip.csv", "clip.json"]


def bad_inputs(folder: Path) -> dict[str, Path]:
    (folder / "text.mp4").write_text("this is not a video\n" * 50)
    (folder / "empty.mp4").touch()
    write_sound(folder / "sound.mp4")
    (folder / "folder.mp4").mkdir()
    np.save(folder / "narrow.npy", np.zeros((20, 3), dtype=np.float32))
    (folder / "broken.npy").write_bytes(b"\x93NUMPY")
    return {path.name: path for path in folder.iterdir()} | {"missing": folder / "missing.mp4"}


@pytest.mark.parametrize("command", ["extract", "detect"])
@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("missing", "no such file"),
        ("text.mp4", "not a video"),
        ("empty.mp4", "empty"),
        ("sound.mp4", "no video stream"),
        ("folder.mp4", "no video"),
    ],
)
def test_bad_input_is_one_sentence(command: str, name: str, sentence: str, bundle: Path, tmp_path: Path) -> None:
    path = bad_inputs(tmp_path)[name]
    out = tmp_path / "out"
    model = ("--model", bundle) if command == "detect" else ("--extractor", "tiny3d", "--weights", "random")
    result = run(command, path, *model, "--out", out)
    assert result.exit_code == 2, result.output
    lines = [line for line in result.stderr.splitlines() if "random weights" not in line]
    assert len(lines) == 1 and sentence in lines[0] and "Traceback" not in result.output
    assert result.stdout == "" and not out.exists()


def test_a_timeline_never_takes_the_place_of_a_sidecar(clip: Path, bundle: Path, tmp_path: Path) -> None:
    extract = ("extract", clip, "--extractor", "tiny3d", "--weights", "random", "--out", tmp_path)
    assert run(*extract).exit_code == 0
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    result = run("detect", tmp_path, "--model", bundle, "--out", tmp_path, "--overwrite")
    assert result.exit_code == 2 and "the place of its sidecar" in result.stderr
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_features_of_the_wrong_width_are_refused(bundle: Path, tmp_path: Path) -> None:
    path = bad_inputs(tmp_path)["narrow.npy"]
    result = run(
        *("detect", path, "--model", bundle, "--fps", 25, "--stride", 4, "--window", 16),
        *("--out", tmp_path / "out"),
    )
    assert result.exit_code == 2 and "rows are 3 wide" in result.stderr and len(result.stderr.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_features_of_another_sampling_are_refused(clip: Path, bundle: Path, tmp_path: Path) -> None:
    extract = ("extract", clip, "--extractor", "tiny3d", "--weights", "random", "--stride", 7, "--out", tmp_path / "f")
    assert run(*extract).exit_code == 0
    result = run("detect", tmp_path / "f", "--model", bundle, "--out", tmp_path / "out")
    assert result.exit_code == 2 and "every 7" in result.stderr and not (tmp_path / "out").exists()
    for option, told in (("--stride", 4), ("--window", 8)):
        result = run("detect", tmp_path / "f", "--model", bundle, option, told, "--out", tmp_path / "out")
        assert result.exit_code == 2 and "its sidecar says windows of 16 frames every 7" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["detect", "x.mp4", "--model", "raect"], "react"),
        (["extract", "x.mp4", "--extractor", "i3dd"], "i3d"),
        (["extract", "x.mp4", "--fps", "fast"], "frame rate"),
        (["extract", "x.mp4", "--device", "cdua", "--weights", "random"], "cuda"),
        (["detct"], "detect"),
        (["extract", "x.mp4", "--strid", "4"], "--stride"),
    ],
)
def test_misspellings_name_the_near_ones(
    arguments: list[str], expected: str, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.mp4").write_bytes(clip.read_bytes())
    result = run(*arguments)
    assert result.exit_code == 2 and expected in result.stderr and "Traceback" not in result.output


def test_help_has_an_example_for_every_command() -> None:
    for command in ("extract", "detect", "evaluate", "demo", "info", "models list", "models show", "models fetch"):
        result = run(*command.split(), "--help")
        assert result.exit_code == 0 and "Example: vidtad" in " ".join(result.stdout.split()), command


def test_other_formats_are_written_beside_the_json(clip: Path, bundle: Path, tmp_path: Path) -> None:
    result = run("detect", clip, "--model", bundle, "--out", tmp_path / "t", "--format", "srt,elan")
    assert result.exit_code == 0, result.stderr
    assert {path.suffix for path in (tmp_path / "t").iterdir()} == {".json", ".csv", ".srt", ".eaf"}
    wrong = run("detect", clip, "--model", bundle, "--out", tmp_path / "u", "--format", "srtt")
    assert wrong.exit_code == 2 and "srt" in wrong.stderr and not (tmp_path / "u").exists()
    nowhere = run("detect", clip, "--model", bundle, "--out", "-", "--format", "srt")
    assert nowhere.exit_code == 2 and "--out" in nowhere.stderr


def on_a_terminal(*arguments: object, encoding: str) -> str:
    """What `vidtad detect` shows on a terminal of 80 columns, without the colours."""
    import fcntl
    import pty
    import struct
    import subprocess
    import termios

    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 80, 0, 0))
    settings = {"TERM": "xterm", "PYTHONIOENCODING": encoding, "PYTHONUTF8": "0", "OMP_NUM_THREADS": "1"}
    env = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES", "NO_COLOR")} | settings
    command = [sys.executable, "-m", "vidtad", "detect", *map(str, arguments)]
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=env)
    os.close(theirs)
    shown = b""
    while True:
        try:
            part = os.read(ours, 1 << 16)
        except OSError:  # Linux says so when the other end is closed
            break
        if not part:
            break
        shown += part
    os.close(ours)
    text = shown.decode()
    assert process.wait() == 0, text
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text)


@pytest.mark.skipif(os.name == "nt", reason="terminals of POSIX")
@pytest.mark.parametrize(
    ("encoding", "options", "separator", "steps", "bar"),
    [("utf-8", (), " ▕ ", "▏▎▍▌▋▊▉█", True), ("ascii", ("--quiet",), " | ", ".:#", False)],
)
def test_a_terminal_shows_the_timeline_in_characters_it_has(
    encoding: str, options: tuple[str, ...], separator: str, steps: str, bar: bool, bundle: Path, tmp_path: Path
) -> None:
    clip = write_clip(tmp_path / "clip.mp4", numbered_frames(150), 25)
    talkative = replace(load_bundle(bundle), decoding={"display_score": 0.01})
    eager = save_bundle(talkative, tmp_path / "eager.safetensors")
    text = on_a_terminal(clip, "--model", eager, "--out", tmp_path / "t", *options, encoding=encoding)
    (cells,) = re.findall(rf"walk{re.escape(separator)}([^\r\n]*)", text)
    assert set(cells) & set(steps) and set(cells) <= {*steps, " "}
    assert "\\u" not in text and (encoding == "utf-8" or text.isascii())
    assert "segments shown" in text and "action" in text
    assert ("/150" in text) is bar, "--quiet leaves out the bar of progress alone"


def three_clips(folder: Path) -> Path:
    """a and c of a constant rate, and vfr of a variable one."""
    folder.mkdir()
    for name in ("a", "c"):
        write_clip(folder / f"{name}.mp4", numbered_frames(60), 25)
    clip_of_kind("variable rate", folder)
    return folder


def test_formats_that_count_frames_know_when_those_of_a_variable_rate_are_shown(bundle: Path, tmp_path: Path) -> None:
    clips, out = three_clips(tmp_path / "clips"), tmp_path / "t"
    result = run("detect", clips, "--model", bundle, "--out", out, "--format", "cvat")
    assert result.exit_code == 0, result.stderr
    seconds = [tick / 1000 for tick in VFR_PTS]
    segments = read_timeline(out / "vfr.json").results["vfr"]
    starts = {min(range(60), key=lambda frame: abs(seconds[frame] - s.start_s)) for s in segments}
    tracks = ElementTree.parse(out / "vfr.cvat.xml").findall("track")
    found = {min(int(box.get("frame", "")) for box in track.findall("box")) for track in tracks}
    assert found == starts and len(starts) > 1
    assert sorted(path.name for path in out.glob("*.xml")) == ["a.cvat.xml", "c.cvat.xml", "vfr.cvat.xml"]


def test_a_format_that_cannot_be_written_fails_its_video_alone(bundle: Path, tmp_path: Path) -> None:
    clips, out = three_clips(tmp_path / "clips"), tmp_path / "t"
    (out / "c.srt").mkdir(parents=True)
    command = ("detect", clips, "--model", bundle, "--out", out, "--format", "srt,cvat")
    result = run(*command, "--json")
    assert result.exit_code == 1, result.stderr
    document = json.loads(result.stdout)
    assert list(document["results"]) == ["a", "vfr"] and list(document["failed"]) == [str(clips / "c.mp4")]
    assert "c.srt: writing failed" in document["failed"][str(clips / "c.mp4")]
    assert (out / "a.srt").is_file() and (out / "vfr.cvat.xml").is_file()
    alone = run("detect", clips / "c.mp4", *command[2:])
    assert alone.exit_code == 1 and "c.srt: writing failed" in alone.stderr


def test_a_disk_that_fills_up_with_formats_ends_the_run(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clips, written = three_clips(tmp_path / "clips"), []

    def full(path: Path, text: str) -> None:
        written.append(path.name)
        if path.name == "c.srt":
            raise RunError(f"{path}: writing failed") from OSError(errno.ENOSPC, "No space left on device")
        path.write_text(text)

    monkeypatch.setattr("vidtad.formats.interchange.write_text", full)
    result = run("detect", clips, "--model", bundle, "--out", tmp_path / "t", "--format", "srt", "--json")
    assert result.exit_code == 1 and written == ["a.srt", "c.srt"]
    document = json.loads(result.stdout)
    assert list(document["results"]) == ["a"]
    assert ["not begun" in reason for reason in document["failed"].values()] == [False, True]


def test_rows_of_people_are_refused_before_a_video_is_opened(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clips = three_clips(tmp_path / "clips")
    monkeypatch.setattr("vidtad.cli.detect.run_batch", lambda *_, **__: pytest.fail("the work has begun"))
    result = run("detect", clips, "--model", bundle, "--out", tmp_path / "t", "--format", "srt,ava")
    assert result.exit_code == 2 and "--format ava" in result.stderr and len(result.stderr.splitlines()) == 1
    assert not (tmp_path / "t").exists()


@pytest.mark.parametrize("command", ["extract", "detect"])
def test_a_batch_of_bad_files_alone_lists_them_all(command: str, bundle: Path, tmp_path: Path) -> None:
    bad = [tmp_path / "in" / name for name in ("a.mp4", "b.mp4")]
    bad[0].parent.mkdir()
    for path in bad:
        path.write_text("no video")
    model = ("--model", bundle) if command == "detect" else ("--extractor", "tiny3d", "--weights", "random")
    told = (command, bad[0].parent, *model, "--out", tmp_path / "out")
    result = run(*told, "--json")
    assert result.exit_code == 1
    document = json.loads(result.stdout)
    assert list(document["failed"]) == list(map(str, bad))
    assert all("not a video" in reason for reason in document["failed"].values())
    assert document["results" if command == "detect" else "extracted"] in ({}, [])
    plain = run(*told)
    assert plain.exit_code == 1 and plain.stdout.count("failed") == (2 if command == "detect" else 0)
    assert "2 of 2 failed" in plain.stderr and "the others" not in plain.stderr
    assert run(command, bad[0], *model, "--out", tmp_path / "out").exit_code == 2


def test_misuse_of_detect_is_one_sentence_and_writes_nothing(clip: Path, bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for said, options in {
        "a file is in the place": ("--out", tmp_path / "file"),
        "not a finite number": ("--out", tmp_path / "out", "--min-score", "nan"),
        "at most 18 digits": ("--out", tmp_path / "out", "--weights", "random:" + 30 * "9"),
        "--stride, --window: only for feature files": ("--out", tmp_path / "out", "--stride", 8, "--window", 8),
        "not a frame rate": ("--out", tmp_path / "out", "--fps", "1e999999999"),
        "no format 'x'; there are": ("--out", tmp_path / "out", "--format", "x"),
    }.items():
        result = run("detect", clip, "--model", bundle, *options)
        assert (result.exit_code, result.stdout) == (2, ""), result.stderr
        assert said in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.skipif(os.name == "nt" or sys.platform == "darwin", reason="names there are text")
def test_odd_file_names_go_all_the_way(clip: Path, bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    names = [b"caf\xe9.mp4".decode(errors="surrogateescape"), "-x.mp4", "[bold]a.mp4", "ünï 漢字.mp4", "a.b.mp4"]
    names += ["漢" * 82 + ".mp4", "x" * 250 + ".mp4"]  # 250 and 254 of the 255 bytes that file systems take
    for name in names:
        (tmp_path / "in" / name).write_bytes(clip.read_bytes())
    out = tmp_path / "out"
    assert run("detect", tmp_path / "in", "--model", bundle, "--out", out).exit_code == 0
    assert {path.name for path in out.glob("*.json")} == {f"{Path(name).stem}.json" for name in names}
    again = run("detect", tmp_path / "in", "--model", bundle, "--out", out, "--json")
    assert again.exit_code == 0 and len(json.loads(again.stdout)["results"]) == len(names)
    for command in ("report", "overlay", "clips"):
        result = run(command, out, "--video", tmp_path / "in", "--out", tmp_path / command)
        assert result.exit_code == 0, result.stderr
    assert len(list((tmp_path / "report").iterdir())) == len(names) + 1
    assert len(list((tmp_path / "overlay").iterdir())) == len(names)
