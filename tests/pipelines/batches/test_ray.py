"""Ray on a simulated cluster of two nodes: the same results as here, whatever dies. Skipped without Ray."""

import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.bundles import seeded_react
from tests.clips import numbered_frames, write_clip
from tests.pipelines.batches.test_run import records
from tests.pipelines.toys import Toy, items, starts
from vidtad.errors import InputError, RunError
from vidtad.pipelines.batches.local import Setup
from vidtad.pipelines.batches.ray import layout
from vidtad.pipelines.batches.run import run

TWO = [{"CPU": 8.0}, {"CPU": 4.0, "GPU": 2.0}]


@pytest.mark.parametrize(
    ("nodes", "workers", "threads", "gpus", "expected"),
    [
        (TWO, None, None, 0, (3, 4)),
        (TWO, 4, None, 0, (4, 2)),
        (TWO, 12, None, 0, (12, 1)),
        (TWO, None, 8, 0, (1, 8)),
        (TWO, None, None, 1, (2, 2)),
        (TWO, 2, 1, 1, (2, 1)),
        ([{"CPU": 2.0}], None, None, 0, (1, 2)),
    ],
)
def test_workers_are_laid_out_over_nodes(
    nodes: list[dict[str, float]], workers: int | None, threads: int | None, gpus: int, expected: tuple[int, int]
) -> None:
    assert layout(nodes, workers, threads, gpus=gpus) == expected


@pytest.mark.parametrize(
    ("nodes", "workers", "threads", "gpus"),
    [(TWO, 13, None, 0), (TWO, None, 9, 0), (TWO, 3, None, 1), (TWO, 1, 5, 1), ([], None, None, 0)],
)
def test_what_never_fits_is_refused(nodes: Any, workers: int | None, threads: int | None, gpus: int) -> None:
    with pytest.raises(InputError, match="do not fit the cluster"):
        layout(nodes, workers, threads, gpus=gpus)


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Two nodes of one processor each."""
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[3]))
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "object_store_memory": 100 * 2**20})
    made.second = made.add_node(num_cpus=1, object_store_memory=100 * 2**20)
    yield made
    made.shutdown()


@pytest.mark.slow
def test_two_nodes_give_the_bytes_of_one_process(cluster: Any, tmp_path: Path) -> None:
    from vidtad.heads.catalogue import resolve_model
    from vidtad.pipelines.batches.tasks import DetectTask
    from vidtad.pipelines.detect.worker import Job

    bundle = seeded_react(tmp_path / "b.safetensors", width=32, heads=4, queries=8, clip_len=16, feed_forward=64)
    clips = [write_clip(tmp_path / f"{n}.mp4", numbered_frames(n), 25) for n in (40, 90, 60)]
    broken = tmp_path / "broken.mp4"
    broken.write_text("no video")
    written = {}
    for name, setup in {
        "serial": Setup(),
        "pool": Setup(workers=2, threads=1),
        "ray": Setup("ray", 2, threads=1, address=cluster.address),
        "ranges": Setup("ray", 2, threads=1, address=cluster.address, ranges=2),
    }.items():
        out = tmp_path / name
        task = DetectTask(str(bundle), resolve_model(bundle)[0].sha256, Job(out))
        found = list(run([*clips, broken], task, setup))
        assert {record.path for record in found if record.status == "done"} == set(clips), found
        written[name] = {path.name: path.read_bytes() for path in out.iterdir()}
    assert written["serial"] == written["pool"] == written["ray"] == written["ranges"]
    assert set(written["ray"]) == {f"{clip.stem}.{kind}" for clip in clips for kind in ("json", "csv")}


@pytest.mark.slow
def test_a_worker_and_a_node_lost_on_the_way(cluster: Any, tmp_path: Path) -> None:
    orders = {"killer": "die", "unlucky": "die once", **{f"slow{i}": "slow 30" for i in range(6)}}
    paths = items(tmp_path / "in", orders)
    setup = Setup("ray", 2, threads=1, address=cluster.address)
    found = {}
    for record in run(paths, Toy(tmp_path), setup):
        assert record.path.name not in found
        found[record.path.name] = record
        if sum(name.startswith("slow") for name in found) == 2:
            cluster.remove_node(cluster.second, allow_graceful=False)
            cluster.second = None
    assert {name for name, record in found.items() if record.status == "failed"} == {"killer"}
    assert set(found) == set(orders) and "died 2 times" in found["killer"].error
    assert starts(tmp_path).count("killer") == starts(tmp_path).count("unlucky") == 2
    assert all((tmp_path / f"slow{i}.txt").exists() for i in range(6))


def actors() -> list[int]:
    """Process ids of our actors."""
    found = []
    for line in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if line.read_bytes().startswith(b"ray::_Actor"):
                found.append(int(line.parent.name))
    return found


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="no way to see the actors")
def test_losses_do_not_change_a_byte(cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from vidtad.pipelines.batches.tasks import ExtractTask

    monkeypatch.setattr("vidtad.pipelines.batches.ray.ASK_EVERY_S", 0.2)  # it is what calls `lose`
    frames = numbered_frames(300)
    clips = [write_clip(tmp_path / f"{n}.mp4", [f for _ in range(n) for f in frames], 25) for n in (2, 9)]
    lost = []

    def lose(worker: int, item: object, done: int, total: int | None) -> None:
        if not lost:
            os.kill(actors()[0], signal.SIGKILL)
            lost.append("worker")
        elif len(lost) == 1 and len(list((tmp_path / "ray").glob(".*.rows"))) > 1:
            cluster.remove_node(cluster.second, allow_graceful=False)
            cluster.second = None
            lost.append("node")

    def extracted(name: str, setup: Setup, watch: Any) -> dict[str, bytes]:
        task = ExtractTask(tmp_path / name, "tiny3d", "random:3", batch=1)
        assert all(record.status == "done" for record in run(clips, task, setup, watch))
        return {path.name: path.read_bytes() for path in (tmp_path / name).iterdir()}

    here = extracted("here", Setup(), lambda *_: None)
    there = extracted("ray", Setup("ray", 2, threads=1, address=cluster.address, ranges=3), lose)
    assert lost == ["worker", "node"] and here == there and len(here) == 4


@pytest.mark.slow
def test_what_ray_would_wait_for_in_silence_is_refused(cluster: Any, tmp_path: Path) -> None:
    paths = items(tmp_path / "in", {"a": "hang", "b": "ok"})
    with pytest.raises(InputError, match="do not fit the cluster"):
        list(run(paths, Toy(tmp_path), Setup("ray", 5, address=cluster.address)))
    with pytest.raises(InputError, match="no node of the Ray cluster offers a GPU"):
        list(run(paths, Toy(tmp_path), Setup("ray", None, ("cuda",), address=cluster.address)))
    with pytest.raises(InputError, match="no such model"):
        list(run(paths, Toy(tmp_path, refuses=True), Setup("ray", address=cluster.address)))
    found = records(paths, Toy(tmp_path), Setup("ray", 2, threads=1, address=cluster.address, patience_s=4))
    assert found["b"].status == "done" and "no sign of life" in found["a"].error
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"


@pytest.mark.slow
def test_no_cluster_at_the_address(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("ray")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(RunError, match="no Ray cluster answers at auto"):
        list(run(items(tmp_path / "in", {"a": "ok"}), Toy(tmp_path), Setup("ray", address="auto")))


def test_without_ray_the_sentence_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match=r"pip install 'vidtad\[ray\]'"):
        list(run(items(tmp_path / "in", {"a": "ok"}), Toy(tmp_path), Setup("ray")))
