"""Who is at work on a video in a folder: one process at a time, and what one that died leaves there."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from vidtad.arrays import video_of
from vidtad.errors import VidtadError
from vidtad.runtime.files import brief, remove_dead
from vidtad.runtime.locks import claim

SUFFIXES = (".npy", ".json", ".csv", ".ava.csv")


@contextmanager
def claimed(folder: Path, path: Path) -> Iterator[None]:
    """While the block runs, this process alone writes about the video `path` in `folder`. Raises Busy, RunError.

    What a killed process left half-written there is removed.
    """
    name = video_of(path)
    with claim(Path(folder) / f".{brief(name)}.lock", str(path)):
        remove_dead(Path(folder), [name + suffix for suffix in SUFFIXES])
        yield


@contextmanager
def claimed_training(out: Path, work: Path) -> Iterator[None]:
    """While the block runs, this process alone trains the bundle `out`; of processes that train it together, the first
    holds the claim. What killed ones left half-written in the folder `work` is removed. Raises Busy, RunError.
    """
    if os.environ.get("WORLD_SIZE", "1") != "1" and os.environ.get("RANK", "0") != "0":
        yield
        return
    with claim(out.with_name(f".{brief(out.name)}.lock"), str(out)):
        for folder, _, _ in os.walk(work):
            remove_dead(Path(folder))
        yield


def forget(folder: Path, path: Path) -> None:
    """Remove the locks and temporary files that workers which died over the video `path` left in `folder`."""
    name = re.escape(brief(video_of(path)))
    form = re.compile(rf"\.{name}(\.away|\.[0-9a-f]{{16}}(\.\d+-\d*)?\.rows)?\.lock", re.DOTALL)
    with suppress(OSError, VidtadError):
        for left in [found for found in Path(folder).iterdir() if form.fullmatch(found.name)]:
            with suppress(OSError, VidtadError), claim(left):
                pass  # whoever holds it alone removes it
        remove_dead(Path(folder), [video_of(path) + suffix for suffix in SUFFIXES])
