"""Batches: every item once, whatever dies; the same records from every engine; shards that fit together."""

import os
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.pipelines.toys import Toy, items, starts
from vidtad.errors import InputError, RunError
from vidtad.pipelines.batches.local import Fleet, Record, Setup, Watch, Work
from vidtad.pipelines.batches.run import ENGINES, longest_first, parse_shard, run, shard_of
from vidtad.runtime.locks import Busy, claim

SERIAL, POOL = Setup(), Setup(workers=2)


def records(paths: list[Path], task: Toy, setup: Setup) -> dict[str, Record]:
    found = list(run(paths, task, setup))
    assert len({record.path for record in found}) == len(found), "an item came out twice"
    return {record.path.name: record for record in found}


@pytest.mark.parametrize("setup", [SERIAL, POOL], ids=["serial", "pool"])
def test_a_bad_item_never_stops_the_rest(setup: Setup, tmp_path: Path) -> None:
    paths = items(tmp_path / "in", {"a": "ok", "b": "bad", "c": "bug", "d": "ok", "missing": "ok"})
    paths[-1].unlink()
    found = records(paths, Toy(tmp_path), setup)
    assert {name: record.status for name, record in found.items()} == {
        "a": "done",
        "b": "failed",
        "c": "failed",
        "d": "done",
        "missing": "failed",
    }
    assert found["a"].value == "a on cpu"
    assert found["b"].error == "a bad item" and found["b"].misuse
    assert "internal error (ZeroDivisionError" in found["c"].error and not found["c"].misuse
    assert "No such file" in found["missing"].error
    assert not list(tmp_path.glob(".*.lock"))


def test_no_more_workers_than_items(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    whole = ENGINES["pool"]

    def counted(task: Toy, setup: Setup, watch: Watch) -> Fleet:
        sizes.append(setup.workers)
        return whole(task, setup, watch)

    monkeypatch.setitem(ENGINES, "pool", counted)
    found = records(items(tmp_path / "in", {"a": "ok", "b": "ok"}), Toy(tmp_path), Setup(workers=100_000))
    assert sizes == [2] and {record.status for record in found.values()} == {"done"}


def test_a_worker_that_dies_is_replaced_and_its_item_tried_once_more(tmp_path: Path) -> None:
    orders = {"killer": "die", "unlucky": "die once", **{f"ok{i}": "ok" for i in range(4)}}
    found = records(items(tmp_path / "in", orders), Toy(tmp_path), POOL)
    assert {name for name, record in found.items() if record.status == "failed"} == {"killer"}
    assert "died 2 times (signal 9)" in found["killer"].error
    begun = starts(tmp_path)
    assert begun.count("killer") == begun.count("unlucky") == 2
    assert all(begun.count(f"ok{i}") == 1 for i in range(4))


def test_an_item_that_is_left_out_leaves_no_lock(tmp_path: Path) -> None:
    paths = items(tmp_path / "in", {"a": "die", "b": "ok"})
    (tmp_path / ".a.lock.txt").touch()
    with claim(tmp_path / ".c.lock"):
        found = records(paths, Toy(tmp_path), POOL)
        assert found["a"].status == "failed" and "left out" in found["a"].error
        assert {path.name for path in tmp_path.glob(".*")} == {".a.lock.txt", ".c.lock"}


@pytest.mark.parametrize("setup", [replace(SERIAL, ranges=3), replace(POOL, ranges=3)], ids=["serial", "pool"])
def test_parts_go_before_their_item(setup: Setup, tmp_path: Path) -> None:
    found = records(items(tmp_path / "in", {"a": "ok", "b": "bad", "c": "ok"}), Toy(tmp_path), setup)
    assert {name: record.status for name, record in found.items()} == {"a": "done", "b": "failed", "c": "done"}
    assert found["b"].error == "a bad item" and found["b"].path == tmp_path / "in" / "b"
    assert sorted(starts(tmp_path)) == ["a", "c"], "an item with a bad part is not begun"
    parts = (tmp_path / "parts").read_text().split("\n")[:-1]
    assert len(parts) == len(set(parts)) and {f"{name} {n}" for name in "ac" for n in range(3)} <= set(parts)


def test_a_part_that_kills_its_workers_takes_its_item_along(tmp_path: Path) -> None:
    orders = {"killer": "die", "unlucky": "die once", "ok": "ok"}
    found = records(items(tmp_path / "in", orders), Toy(tmp_path), replace(POOL, ranges=2))
    assert {name: record.status for name, record in found.items()} == {
        "killer": "failed", "unlucky": "done", "ok": "done",
    }  # fmt: skip
    assert "died 2 times (signal 9)" in found["killer"].error and sorted(starts(tmp_path)) == ["ok", "unlucky"]


def test_a_full_disk_in_a_part_ends_the_batch(tmp_path: Path) -> None:
    paths = items(tmp_path / "in", {"a": "ok", "b": "full", "c": "ok", "d": "ok"})
    found = records(paths, Toy(tmp_path), replace(SERIAL, ranges=2))
    assert [found[name].status for name in "abcd"] == ["done", "failed", "failed", "failed"]
    assert "not begun" in found["c"].error and starts(tmp_path) == ["a"]


def test_a_worker_that_hangs_is_given_up(tmp_path: Path) -> None:
    paths = items(tmp_path / "in", {"hang": "hang", "slow": "slow 20", "ok": "ok"})
    found = records(paths, Toy(tmp_path), Setup(workers=2, patience_s=1.5))
    assert found["hang"].status == "failed" and "no sign of life" in found["hang"].error
    assert found["slow"].status == found["ok"].status == "done"


def test_a_model_that_does_not_load_is_said_once(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such model"):
        list(run(items(tmp_path / "in", {"a": "ok"}), Toy(tmp_path, refuses=True), POOL))


def test_workers_that_die_at_birth_end_the_run(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="die before they begin"):
        list(run(items(tmp_path / "in", {"a": "ok"}), Toy(tmp_path, dies_at_birth=True), Setup(workers=1)))


@pytest.mark.parametrize("setup", [SERIAL, Setup(workers=1)], ids=["serial", "pool"])
def test_a_full_disk_ends_the_batch(setup: Setup, tmp_path: Path) -> None:
    paths = items(tmp_path / "in", {"a": "ok", "b": "full", "c": "ok", "d": "ok"})
    found = records(paths, Toy(tmp_path), setup)
    assert [found[name].status for name in "abcd"] == ["done", "failed", "failed", "failed"]
    assert "not begun" in found["c"].error and starts(tmp_path) == ["a", "b"]


@pytest.mark.parametrize("setup", [SERIAL, POOL], ids=["serial", "pool"])
def test_what_another_process_has_at_work_is_waited_for(setup: Setup, tmp_path: Path) -> None:
    paths = items(tmp_path / "in", {"taken": "ok", "free": "ok"})
    script = "import sys; from pathlib import Path; from vidtad.runtime.locks import claim\n"
    script += f"with claim(Path({str(tmp_path / '.taken.lock')!r})):\n print('held', flush=True); sys.stdin.read()"
    holder = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert holder.stdin and holder.stdout
    assert holder.stdout.readline() == "held\n"
    with closing(run(paths, Toy(tmp_path), setup)) as found:
        assert next(found).path.name == "free"
        holder.kill()  # a lock goes with its process
        holder.wait()
        assert next(found) == Record(paths[0], "done", "taken on cpu", seconds=pytest.approx(0, abs=60))
        assert next(found, None) is None


def test_workers_end_with_the_run_and_with_their_parent(tmp_path: Path) -> None:
    paths = items(tmp_path / "in", {"a": "ok", "b": "hang", "c": "hang"})
    with closing(run(paths, Toy(tmp_path), POOL)) as found:
        next(found)
    pids = workers_of(tmp_path)
    assert pids and not any(map(alive, pids))

    (tmp_path / "log").unlink()
    script = "from pathlib import Path; from tests.pipelines.toys import Toy\n"
    script += "from vidtad.pipelines.batches.run import run\n"
    script += "from vidtad.pipelines.batches.local import Setup\nif __name__ == '__main__':\n"
    script += f" p = Path({str(tmp_path)!r}); r = run([p / 'in/a', p / 'in/b'], Toy(p), Setup(workers=2))\n"
    script += " next(r); print('begun', flush=True); next(r)"
    (tmp_path / "parent.py").write_text(script)
    parent = subprocess.Popen(
        [sys.executable, str(tmp_path / "parent.py")],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
    )
    assert parent.stdout and parent.stdout.readline() == "begun\n"
    parent.kill()
    parent.wait()
    for pid in workers_of(tmp_path):
        wait_for_death(pid)


def workers_of(out: Path) -> set[int]:
    return {int(line.split()[1]) for line in (out / "log").read_text().splitlines()}


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat")  # an orphan that nobody reaps is dead all the same
    return not (stat.exists() and stat.read_text().rpartition(")")[2].split()[0] == "Z")


def wait_for_death(pid: int) -> None:
    import time

    for _ in range(600):
        if not alive(pid):
            return
        time.sleep(0.1)
    raise AssertionError(f"worker {pid} outlived its parent")


def test_large_files_come_first_and_devices_in_turn(tmp_path: Path) -> None:
    for name, size in (("small", 1), ("large", 300), ("middle", 20)):
        (tmp_path / name).write_text("ok".ljust(size))
    (tmp_path / "none").touch()
    paths = [tmp_path / name for name in ("small", "gone", "large", "middle")]
    assert [path.name for path in longest_first(paths)] == ["large", "middle", "small", "gone"]
    paths = items(tmp_path / "in", {name: "slow 5" for name in "abcd"})
    found = records(paths, Toy(tmp_path), Setup(workers=2, devices=("cpu", "meta")))
    assert {record.value.split()[-1] for record in found.values()} == {"cpu", "meta"}


def test_large_files_elsewhere_come_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = pytest.importorskip("fsspec").filesystem("memory")
    sizes = {"small.mp4": 10, "large.mp4": 3000, "middle.mp4": 200, "refused.mp4": 9000}
    for name, length in sizes.items():
        memory.pipe_file(f"/longest/{name}", bytes(length))
    (tmp_path / "here.mp4").write_bytes(bytes(1000))
    info = type(memory).info

    def info_but_of_one(self: object, path: str, **options: object) -> object:
        if path.endswith("refused.mp4"):
            raise PermissionError(13, "denied")
        return info(self, path, **options)

    monkeypatch.setattr(type(memory), "info", info_but_of_one)
    away = Path("memory://longest")
    paths = [away / "small.mp4", away / "refused.mp4", away / "gone.mp4", away / "large.mp4", tmp_path / "here.mp4"]
    paths += [away / "middle.mp4", Path("nosuchprotocol://bucket/x.mp4")]
    found = [path.name for path in longest_first(paths)]
    memory.rm("/longest", recursive=True)
    assert found[:4] == ["large.mp4", "here.mp4", "middle.mp4", "small.mp4"]
    assert found[4:] == ["refused.mp4", "gone.mp4", "x.mp4"], "what tells no size goes last, in the given order"


@given(st.lists(st.text(min_size=1), max_size=30), st.integers(1, 9))
def test_shards_are_disjoint_and_together_complete(names: list[str], parts: int) -> None:
    paths = [Path("folder") / name.replace("/", "_").replace("\0", "_") for name in names]
    shards = [[path for path in paths if shard_of(path, parts) == part] for part in range(1, parts + 1)]
    assert sorted(str(path) for shard in shards for path in shard) == sorted(map(str, paths))
    assert all(shard_of(Path("/elsewhere") / path.name, parts) == shard_of(path, parts) for path in paths)


def test_a_shard_never_changes_its_place() -> None:
    assert [shard_of(Path(f"video_{i}.mp4"), 4) for i in range(8)] == [4, 1, 1, 3, 3, 3, 1, 1]


@pytest.mark.parametrize("text", ["0/4", "5/4", "1", "a/b", "1/0", "-1/4", "1/4/2", ""])
def test_a_shard_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="--shard"):
        parse_shard(text)


def test_a_claim_excludes_and_cleans_up(tmp_path: Path) -> None:
    lock = tmp_path / "new" / ".x.lock"
    with claim(lock):
        with pytest.raises(Busy, match=r"x\.mp4: another process"), claim(lock, "x.mp4"):
            pass
        assert lock.exists()
    assert not lock.parent.exists()
    lock.parent.mkdir()
    lock.touch()  # left by a killed process
    with claim(lock):
        pass
    assert lock.parent.exists() and not lock.exists()


def test_a_claim_in_an_unwritable_place_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="a file is in the place"), claim(tmp_path / "file" / ".x.lock"):
        pass
    with pytest.raises(RunError, match="cannot write here"), claim(tmp_path / ("n" * 300) / ".x.lock"):
        pass


def test_many_claims_at_once_never_overlap(tmp_path: Path) -> None:
    script = "import sys, time; from pathlib import Path; from vidtad.runtime.locks import Busy, claim\n"
    script += f"root = Path({str(tmp_path)!r}); done = 0\n"
    script += "while done < 40:\n"
    script += "  try:\n"
    script += "    with claim(root / 'out' / '.x.lock'):\n"
    script += "      open(root / 'inside', 'x').close(); (root / 'inside').unlink(); done += 1\n"
    script += "  except Busy: time.sleep(0.001)\n"
    running = [subprocess.Popen([sys.executable, "-c", script]) for _ in range(4)]
    assert [process.wait() for process in running] == [0, 0, 0, 0]


def test_threads_are_limited_without_workers_too_and_as_before_afterwards(tmp_path: Path) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)

    def threads(device: str) -> Work:
        return lambda item, progress: torch.get_num_threads()

    try:
        paths = items(tmp_path, {"a": "ok"})
        assert [record.value for record in run(paths, threads, Setup(threads=1))] == [1]
        assert torch.get_num_threads() == 2
        assert [record.value for record in run(paths, threads, Setup())] == [2]
    finally:
        torch.set_num_threads(before)
