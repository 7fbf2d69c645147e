"""What a benchmark's figures were taken on."""

import os
import platform
from pathlib import Path
from typing import Any


def machine() -> dict[str, Any]:
    """What the figures were taken on."""
    import cv2
    import torch

    model, flags = platform.processor(), ""
    if Path("/proc/cpuinfo").exists():
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            key, _, value = line.partition(":")
            model = value.strip() if key.strip() == "model name" else model
            flags = value if key.strip() == "flags" else flags
    short = [flag for flag in ("avx512f", "avx512_bf16", "amx_bf16") if flag in flags.split()]
    return {"processor": model, "cores": os.cpu_count(), "flags": short, "torch": torch.__version__} | {
        "opencv": cv2.__version__,
        "python": platform.python_version(),
    }
