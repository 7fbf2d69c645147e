"""Object storage that speaks S3, through s3fs: videos from it, outputs to it, nothing done twice."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from vidtad.synth import write_clips

s3fs = pytest.importorskip("s3fs", reason="s3fs is not installed")
pytest.importorskip("moto", reason="moto is not installed")


@pytest.fixture(scope="module")
def storage() -> Iterator[dict[str, str]]:
    """The environment in which s3:// is a server of this machine's own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen([sys.executable, "-m", "moto.server", "-p", str(port)], stderr=subprocess.DEVNULL)
    try:
        for _ in range(100):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.2)
        yield {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_DEFAULT_REGION": "us-east-1",
        }
    finally:
        server.kill()
        server.wait()


def run(storage: dict[str, str], *arguments: str) -> "subprocess.CompletedProcess[str]":
    environment = {**os.environ, **storage, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "vidtad", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def bucket(storage: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Two clips in s3://bucket/videos."""
    folder = tmp_path_factory.mktemp("clips")
    write_clips(folder, range(1, 3), 1)
    system = s3fs.S3FileSystem(
        key=storage["AWS_ACCESS_KEY_ID"],
        secret=storage["AWS_SECRET_ACCESS_KEY"],
        endpoint_url=storage["AWS_ENDPOINT_URL"],
        skip_instance_cache=True,
    )
    system.mkdir("bucket")
    for clip in sorted(folder.glob("*.mp4")):
        system.put(str(clip), f"bucket/videos/{clip.name}")
    return system


@pytest.mark.slow
def test_detects_from_a_bucket_to_a_bucket_and_nothing_twice(storage: dict[str, str], bucket: Any) -> None:
    command = ("detect", "s3://bucket/videos", "--model", "react", "--out", "s3://bucket/timelines", "--json")
    done = run(storage, *command)
    assert done.returncode == 0, done.stderr
    bucket.invalidate_cache()
    names = sorted(Path(name).name for name in bucket.ls("bucket/timelines"))
    assert names == [f"synth1_00000{n}.{kind}" for n in (1, 2) for kind in ("csv", "json")]
    first = {name: bucket.info(f"bucket/timelines/{name}")["LastModified"] for name in names}
    written = json.loads(bucket.cat("bucket/timelines/synth1_000001.json"))
    assert written["results"]["synth1_000001"]
    time.sleep(1.1)  # times of objects are whole seconds
    assert run(storage, *command).returncode == 0
    bucket.invalidate_cache()
    assert {name: bucket.info(f"bucket/timelines/{name}")["LastModified"] for name in names} == first


@pytest.mark.slow
def test_what_is_not_there_and_a_storage_that_does_not_answer_are_one_sentence(
    storage: dict[str, str], bucket: Any, tmp_path: Path
) -> None:
    more = ("--extractor", "tiny3d", "--weights", "random", "--out", str(tmp_path))
    missing = run(storage, "extract", "s3://bucket/videos/none.mp4", *more)
    assert missing.returncode == 2 and "s3://bucket/videos/none.mp4: no such file" in missing.stderr
    refused = run({**storage, "AWS_SECRET_ACCESS_KEY": ""}, "extract", "s3://bucket/videos", *more)
    assert refused.returncode == 1 and refused.stderr.count("\n") == 1 and "does not answer" in refused.stderr
    assert not list(tmp_path.iterdir())
