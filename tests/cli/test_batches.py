"""Whole commands under every kind of end: kill -9, Ctrl-C, a full disk, an unwritable folder; reruns go on."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from tests.bundles import seeded_react
from tests.clips import numbered_frames, write_clip
from vidtad.cli import app
from vidtad.features import load_features
from vidtad.timeline import Segment, Timeline, read_timeline, write_timeline_json
from vidtad.video import probe

SMALL = {"width": 32, "heads": 4, "queries": 8, "clip_len": 16, "feed_forward": 64}
TINY = ("--extractor", "tiny3d", "--weights", "random:3")
LENGTHS = {"a": 400, "b": 300, "c": 200, "d": 40}
PATIENCE_S = 300
POSIX = pytest.mark.skipif(os.name == "nt", reason="signals and limits of POSIX")


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def heed_interrupts() -> None:
    """In a child: a suite started in the background hands down that SIGINT is ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def start(*arguments: object, **options: object) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "vidtad", *map(str, arguments)]
    if os.name == "posix":
        options = {"preexec_fn": heed_interrupts} | options
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        **options,  # type: ignore[call-overload]
    )


def wait_until(true: Callable[[], bool], process: "subprocess.Popen[str]") -> None:
    for _ in range(24000):
        if true():
            return
        assert process.poll() is None, f"ended too early: {process.communicate()}"
        time.sleep(0.005)
    process.kill()
    raise AssertionError(f"never came to it: {process.communicate()}")


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    for name, frames in LENGTHS.items():
        write_clip(folder / f"{name}.mp4", numbered_frames(frames), 25)
    return folder


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return seeded_react(tmp_path_factory.mktemp("bundles") / "seeded.safetensors", **SMALL)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.slow
def test_workers_give_the_bytes_of_one_process(clips: Path, bundle: Path, tmp_path: Path) -> None:
    command = ("detect", clips, "--model", bundle, "--json")
    one = run(*command, "--out", tmp_path / "one")
    many = run(*command, "--out", tmp_path / "many", "--workers", 2, "--threads", 1)
    assert one.exit_code == many.exit_code == 0, many.stderr
    assert contents(tmp_path / "one") == contents(tmp_path / "many")
    assert list(json.loads(many.stdout)["results"]) == sorted(LENGTHS)
    assert json.loads(one.stdout) == json.loads(many.stdout)


def arguments(command: str, clips: Path, bundle: Path, out: Path) -> tuple[object, ...]:
    """A run over all clips, one window at a time."""
    task = TINY if command == "extract" else ("--model", bundle)
    return command, clips, *task, "--out", out, "--batch", 1


@POSIX
@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "workers"),
    [("extract", ()), ("extract", ("--workers", 2)), ("detect", ()), ("detect", ("--workers", 2))],
    ids=["extract serial", "extract pool", "detect serial", "detect pool"],
)
def test_kill_9_and_rerun(command: str, clips: Path, bundle: Path, tmp_path: Path, workers: tuple[object, ...]) -> None:
    out = tmp_path / "out"
    told = (*arguments(command, clips, bundle, out), *workers)
    process = start(*told)
    wait_until(lambda: any(out.glob("*.json")), process)
    process.kill()
    process.communicate(timeout=PATIENCE_S)
    time.sleep(0.5 if workers else 0)  # its workers follow it
    finished = {path.name: path.stat().st_mtime_ns for path in out.glob("*.json")}
    assert 0 < len(finished) <= len(LENGTHS)
    result = run(*told, "--json")
    assert result.exit_code == 0, result.stderr
    document = json.loads(result.stdout)
    if command == "extract":
        reused = {Path(entry["features"]).stem for entry in document["extracted"] if entry["reused"]}
        assert {f"{name}.json" for name in reused} >= set(finished)
    assert {name: (out / name).stat().st_mtime_ns for name in finished} == finished
    others = ".npy" if command == "extract" else ".csv"
    assert sorted(contents(out)) == sorted(f"{name}{kind}" for name in LENGTHS for kind in (".json", others))
    if command == "extract":
        for name in LENGTHS:
            load_features(out / f"{name}.npy", check_hash=True)
    else:
        undisturbed = run(*arguments(command, clips / "b.mp4", bundle, tmp_path / "other"))
        assert undisturbed.exit_code == 0
        assert contents(out).items() >= contents(tmp_path / "other").items()


@POSIX
@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "workers", "at_work"),
    [
        ("extract", (), ".*.rows"),
        ("extract", ("--workers", 2), ".*.rows"),
        ("detect", (), "a.json"),
        ("overlay", (), ".*.tmp"),
    ],
    ids=["extract serial", "extract pool", "detect serial", "overlay"],
)
def test_ctrl_c_leaves_no_process_and_nothing_half_written(
    command: str, at_work: str, clips: Path, bundle: Path, tmp_path: Path, workers: tuple[object, ...]
) -> None:
    out = tmp_path / "out"
    if command == "overlay":
        told: tuple[object, ...] = (command, long_timeline(tmp_path), "--out", out / "annotated.mp4")
    else:
        told = (*arguments(command, clips, bundle, out), *workers)
    process = start(*told, start_new_session=True)
    wait_until(lambda: any(out.glob(at_work)), process)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 130 and "interrupted" in said and "Traceback" not in said
    left_over = {path.name for path in out.iterdir()}
    assert not any(name.endswith(".tmp") for name in left_over)
    assert left_over.isdisjoint({"annotated.mp4"}), "an overlay is whole or not there"
    for path in out.glob("*.npy"):
        load_features(path, check_hash=True)
    if command == "detect":
        for path in out.glob("*.json"):
            assert read_timeline(path).videos[path.stem].frames == LENGTHS[path.stem]
    if Path("/proc/self/stat").exists():
        deadline = time.monotonic() + 60
        while left := in_session(process.pid):
            assert time.monotonic() < deadline, f"processes left: {left}"
            time.sleep(0.05)


def long_timeline(folder: Path) -> Path:
    """A timeline of a clip of a thousand frames."""
    clip = write_clip(folder / "long.mp4", numbered_frames(1000), 25)
    timeline = Timeline({"long": (Segment(1.0, 30.0, "walk", 0.9),)}, {"long": probe(clip)}, {"name": "test"})
    write_timeline_json(timeline, folder / "long.json")
    return folder / "long.json"


def in_session(session: int) -> list[str]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            name, _, rest = stat.read_text().rpartition(")")
        except OSError:
            continue
        state, _, _, number = rest.split()[:4]
        if int(number) == session and state != "Z":
            found.append(name)
    return found


@POSIX
def test_ctrl_c_in_native_code_ends_all_the_same(tmp_path: Path) -> None:
    # Key derivation runs for minutes in C without the interpreter's lock, as a network does.
    script = "import hashlib, sys, threading\nfrom pathlib import Path\n"
    script += "from vidtad.cli.interrupts import ends_on_interrupt\nfrom vidtad.runtime.files import atomic_write\n"
    script += "with ends_on_interrupt(), atomic_write(Path(sys.argv[1]) / 'half') as file:\n file.write(b'begun')\n"
    script += " threading.Timer(0.5, print, ('in',), {'flush': True}).start()\n"
    script += " hashlib.pbkdf2_hmac('sha256', b'', b'', 2**30)"
    command = [sys.executable, "-c", script, str(tmp_path)]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=heed_interrupts
    )
    assert process.stdout and process.stdout.readline() == "in\n"
    assert [path.suffix for path in tmp_path.iterdir()] == [".tmp"]
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 130 and "interrupted" in said
    assert not list(tmp_path.iterdir()), "what was begun is gone"


@pytest.mark.slow
def test_two_runs_at_once_share_the_work(clips: Path, tmp_path: Path) -> None:
    command = ("extract", clips, *TINY, "--out", tmp_path / "out", "--json")
    running = [start(*command) for _ in range(2)]
    said = [process.communicate() for process in running]
    assert [process.returncode for process in running] == [0, 0], said
    entries = [json.loads(out)["extracted"] for out, _ in said]
    made = [entry["features"] for part in entries for entry in part if not entry["reused"]]
    assert len(made) == len(set(made)) == len(LENGTHS), "each video is extracted by one of them"
    assert sorted(contents(tmp_path / "out")) == sorted(f"{n}.{kind}" for n in LENGTHS for kind in ("json", "npy"))


def test_shards_cover_a_folder(clips: Path, tmp_path: Path) -> None:
    sizes = []
    for part in (1, 2):
        result = run("extract", clips, *TINY, "--out", tmp_path / "out", "--shard", f"{part}/2", "--json")
        assert result.exit_code == 0, result.stderr
        sizes.append(len(json.loads(result.stdout)["extracted"]))
    assert sum(sizes) == len(LENGTHS)
    assert sorted(path.stem for path in (tmp_path / "out").glob("*.npy")) == sorted(LENGTHS)
    assert run("extract", clips, *TINY, "--shard", "3/2").exit_code == 2


def test_an_empty_shard_is_no_error(clips: Path, tmp_path: Path) -> None:
    results = [
        run("extract", clips / "d.mp4", *TINY, "--out", tmp_path / "o", "--shard", f"{part}/2") for part in (1, 2)
    ]
    assert [result.exit_code for result in results] == [0, 0]
    assert sorted("0 of 1" in result.stderr for result in results) == [False, True]


@POSIX
def test_a_limit_on_what_can_be_written_is_one_sentence(clips: Path, bundle: Path, tmp_path: Path) -> None:
    import resource

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (6000, 6000))

    out = tmp_path / "out"
    process = start("extract", clips / "b.mp4", *TINY, "--out", out, preexec_fn=limit)
    _, said = process.communicate()
    lines = [line for line in said.splitlines() if "random weights" not in line]
    assert process.returncode == 1 and len(lines) == 1 and "writing failed (File too large)" in lines[0]
    assert not [path for path in out.iterdir() if not path.name.endswith(".rows")], "something looks finished"
    assert run("extract", clips / "b.mp4", *TINY, "--out", out).exit_code == 0


@POSIX
@pytest.mark.parametrize("command", ["extract", "detect"])
def test_a_full_disk_stops_a_batch_with_the_reason(command: str, clips: Path, bundle: Path, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip("no right to mount a small disk here")
    try:
        task = TINY if command == "extract" else ("--model", bundle)
        result = run(command, clips, *task, "--out", disk / "out", "--json")
        assert result.exit_code == 1 and "Traceback" not in result.output
        failed = json.loads(result.stdout)["failed"]
        assert "No space left on device" in next(iter(failed.values()))
        assert sum("not begun" in reason for reason in failed.values()) == len(failed) - 1
        assert not list((disk / "out").glob(".*.tmp"))
    finally:
        subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.parametrize("command", ["extract", "detect"])
def test_an_unwritable_output_is_one_sentence(command: str, clips: Path, bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    task = TINY if command == "extract" else ("--model", bundle)
    for folder, code, sentence in (
        (tmp_path / "file" / "out", 2, "a file is in the place"),
        (tmp_path / ("n" * 300), 1, "cannot write here"),
    ):
        result = run(command, clips / "d.mp4", *task, "--out", folder)
        lines = [line for line in result.stderr.splitlines() if "random weights" not in line]
        assert result.exit_code == code and len(lines) == 1 and sentence in lines[0]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--engine", "spark"), "there are local and ray"),
        (("--address", "auto"), "--engine ray"),
        (("--shard", "0/4"), "1/8"),
        (("--workers", "0"), "--workers"),
    ],
)
def test_misuse_is_exit_2(arguments: tuple[str, ...], sentence: str, clips: Path) -> None:
    result = run("extract", clips, *TINY, *arguments)
    assert result.exit_code == 2 and sentence in result.stderr and "Traceback" not in result.output
