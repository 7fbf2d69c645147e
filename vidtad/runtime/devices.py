"""Which device computes: `auto`, or one the user named and the machine has."""

import difflib

from vidtad.errors import InputError

DEVICES = ("auto", "cpu", "cuda", "mps")


def pick_device(name: str) -> str:
    """`auto` becomes the GPU when there is one, else the CPU. Raises InputError for a device that is not there."""
    import torch

    kind, _, number = name.partition(":")
    if kind not in DEVICES or (number and not number.isdecimal()):
        near = difflib.get_close_matches(kind, DEVICES, n=1, cutoff=0.5) or [", ".join(DEVICES)]
        raise InputError(f"--device {name}: no such device; did you mean {near[0]}?")
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        return next(device for device in ("cuda", "mps", "cpu") if available[device])
    if not available[kind] or (kind == "cuda" and int(number or 0) >= torch.cuda.device_count()):
        raise InputError(f"--device {name}: this machine has none that PyTorch can use; pass --device cpu")
    return name


def all_devices(name: str) -> tuple[str, ...]:
    """The devices workers share: every GPU for `auto` or `cuda` where there are some, else the one `name` means.

    Raises InputError as `pick_device` does.
    """
    import torch

    picked = pick_device(name)
    if picked == "cuda":
        return tuple(f"cuda:{number}" for number in range(torch.cuda.device_count()))
    return (picked,)
