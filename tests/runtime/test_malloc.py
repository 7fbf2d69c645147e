"""Memory that a process keeps: fewer pages are fetched from the system, and the user's own settings win."""

import subprocess
import sys

import pytest

SCRIPT = """
import platform, resource
import numpy as np
from vidtad.runtime.malloc import keep_freed_memory
kept = keep_freed_memory()
np.ones(8 << 20)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    np.ones(8 << 20)
faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print(kept, faults, platform.libc_ver()[0])
"""


def run(**environment: str) -> tuple[bool, int, str]:
    import os

    own = {key: value for key, value in os.environ.items() if not key.startswith("MALLOC_")} | environment
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, env=own, check=True)
    kept, faults, libc = [*done.stdout.split(), ""][:3]
    return kept == "True", int(faults), libc


@pytest.mark.skipif(sys.platform != "linux", reason="glibc is Linux's")
def test_a_second_array_takes_the_memory_of_the_first() -> None:
    kept, faults, libc = run()
    if libc != "glibc":
        assert not kept
        return
    assert kept
    assert faults < 1000, "64 MB are 16,000 pages, ten times over where they are given back"


def test_settings_of_the_environment_win() -> None:
    assert not run(MALLOC_MMAP_MAX_="65536")[0]
