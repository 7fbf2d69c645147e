"""How this process hands memory back to the system: seldom, in a process that runs a network over and over."""

import os

# Parameters of mallopt(3), by their numbers in malloc.h.
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4


def keep_freed_memory() -> bool:
    """Let glibc keep the memory of freed arrays for the next ones; whether that was possible.

    A network's maps take tens of megabytes each. By default every one of them is fetched from the system as empty
    pages and given back, which takes a fifth of the processor time of inference (docs/performance.md). From here on
    this process keeps what it has had, so that its memory stays at its peak. Settings of the environment win: where
    `MALLOC_MMAP_MAX_`, `MALLOC_TRIM_THRESHOLD_` or `GLIBC_TUNABLES` is set, nothing is changed. For programs that own
    their process; `vidtad extract` and `vidtad detect` call it on a CPU.
    """
    if any(name in os.environ for name in ("MALLOC_MMAP_MAX_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES")):
        return False
    import ctypes

    try:
        libc = ctypes.CDLL(None)
        libc.gnu_get_libc_version  # noqa: B018 (another libc has none)
        return bool(libc.mallopt(_MMAP_MAX, 0)) and bool(libc.mallopt(_TRIM_THRESHOLD, -1))
    except (AttributeError, OSError, TypeError):  # not Linux with glibc
        return False
