"""How much `gpu.py` runs of everything, and how it measures on a device that works on while the processor goes on."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from plain import write_movie


@dataclass(frozen=True)
class Sizes:
    """How much of everything is run. `side`: of the matrix product; `pairs` of flow together, by chunk size."""

    extractor: str = "i3d"
    people: bool = True
    precisions: tuple[str, ...] = ("bf16", "fp16", "float32")
    side: int = 8192
    batches: tuple[int, ...] = (8, 32, 128)
    repeats: int = 10
    frames: int = 3000
    height: int = 256
    pictures: tuple[tuple[int, int], ...] = ((720, 1280), (1080, 1920), (2160, 3840))
    chunks: tuple[int, ...] = (16, 64, 256)
    steps: tuple[int, ...] = (2304, 20000)
    react_steps: int = 21600
    width: int = 2048
    clip_s: int = 60


TINY = Sizes("tiny3d", False, ("bf16", "float32"), 64, (2,), 1, 48, 64, ((300, 400),), (2,), (64,), 300, 32, 3)


@dataclass(frozen=True)
class Bench:
    """Where and how much."""

    device: str
    sizes: Sizes
    folder: Path

    def wait(self) -> None:
        """Until the device has done what it was given."""
        import torch

        if self.device != "cpu":
            torch.cuda.synchronize()

    def seconds(self, work: Callable[[], object], repeats: int | None = None) -> float:
        """Of one call, the quickest of several."""
        repeats = repeats or self.sizes.repeats
        work()
        found = []
        for _ in range(repeats):
            self.wait()
            begun = time.perf_counter()
            work()
            self.wait()
            found.append(time.perf_counter() - begun)
        return min(found)

    def peak_mib(self, work: Callable[[], object]) -> float | None:
        """Device memory above what was there before."""
        import torch

        if self.device == "cpu":
            return None
        torch.cuda.empty_cache()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        work()
        self.wait()
        return round((torch.cuda.max_memory_allocated() - before) / 2**20, 1)

    def movie(self, frames: int, height: int) -> Path:
        """A video, made once."""
        path = self.folder / f"{frames}-{height}.mp4"
        if not path.exists():
            write_movie(path, frames, height)
        return path
