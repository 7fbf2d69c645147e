"""What this installation is made of, for pasting into a report."""

import os
import platform
from importlib import metadata
from typing import Any

from vidtad import __version__

LIBRARIES = (
    "torch",
    "torchvision",
    "numpy",
    "scipy",
    "av",
    "opencv-contrib-python-headless",
    "safetensors",
    "pillow",
    "numba",
    "typer",
    "rich",
    "decord",
    "torchcodec",
    "ray",
)


def describe_installation() -> dict[str, Any]:
    """Versions, devices and folders; libraries that are not installed are None."""
    import torch

    from vidtad.heads.catalogue import cache_dir

    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {
        "vidtad": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpus": gpus,
        "cuda": torch.version.cuda,
        "libraries": {name: _version(name) for name in LIBRARIES},
        "cache": str(cache_dir()),
    }


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
