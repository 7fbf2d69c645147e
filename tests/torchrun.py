"""A command as torchrun would start it: two processes of one group, over gloo."""

import os
import socket
import subprocess
import sys


def by_two(*arguments: object) -> list[tuple[str, str]]:
    """What each process of `vidtad ARGUMENTS` said, stdout and stderr; both must succeed."""
    words = [sys.executable, "-m", "vidtad", *map(str, arguments)]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen(
            words,
            env={**os.environ, **place, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    said = [process.communicate(timeout=300) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    return said
