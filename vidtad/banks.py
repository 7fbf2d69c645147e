"""Feature banks on disk: one safetensors file a video, plain and mirrored rows, float16."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch

from vidtad.errors import InputError, RunError
from vidtad.files import atomic_write
from vidtad.models.acfb import Bank, BankOptions

FORMAT = "vidtad bank 1"
Banks = dict[tuple[Path, bool], Bank]
"""Banks by video and whether it was mirrored."""


def save_banks(banks: Mapping[tuple[Path, bool], Bank], folder: Path, *, made_by: str) -> list[Path]:
    """Write `<folder>/<video>.bank.safetensors` for each video, atomically. `made_by` says what filled them (a hash
    of weights and settings) and is asked for when they are read. Raises RunError when a file cannot be written."""
    from safetensors.torch import save

    written = []
    for video in sorted({video for video, _ in banks}):
        tensors, options = {}, None
        for mirrored in (False, True):
            bank = banks.get((video, mirrored))
            if bank is None or not bank.rows():
                continue
            times, rows = zip(*bank.rows(), strict=True)
            side, options = "mirrored" if mirrored else "plain", bank.options
            tensors[f"{side}.times_s"] = torch.tensor(times, dtype=torch.float64)
            tensors[f"{side}.counts"] = torch.tensor([len(row) for row in rows])
            tensors[f"{side}.rows"] = torch.cat(rows).contiguous()
        if options is None:
            continue
        about = {
            "format": FORMAT,
            "made_by": made_by,
            "reach_s": options.reach_s,
            "per_second": options.per_second,
        }
        path = Path(folder) / f"{video.stem}.bank.safetensors"
        try:
            with atomic_write(path) as file:
                file.write(save(tensors, metadata={"vidtad": json.dumps(about)}))
        except OSError as error:
            raise RunError(f"{path}: writing failed ({error.strerror or error})") from error
        written.append(path)
    return written


def load_banks(videos: Iterable[Path], folder: Path, *, made_by: str) -> Banks:
    """Banks of these videos from `folder`; a video without a file is left out.

    Raises InputError for a file that is none, is damaged, or was filled by something else than `made_by`.
    """
    from safetensors import SafetensorError, safe_open

    banks: Banks = {}
    for video in videos:
        path = Path(folder) / f"{Path(video).stem}.bank.safetensors"
        if not path.exists():
            continue
        try:
            with safe_open(path, framework="pt") as file:
                about = json.loads((file.metadata() or {}).get("vidtad", "{}"))
                tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        except (SafetensorError, OSError, ValueError, RuntimeError, TypeError) as error:
            raise InputError(f"{path}: damaged bank ({str(error)[:100]}); remove it to fill it anew") from error
        if about.get("format") != FORMAT:
            raise InputError(f"{path}: not a feature bank of this version; remove it to fill it anew")
        if about.get("made_by") != made_by:
            raise InputError(f"{path}: filled by another network or with other settings; remove it to fill it anew")
        options = BankOptions(float(about["reach_s"]), int(about["per_second"]))
        for side in ("plain", "mirrored"):
            if f"{side}.rows" in tensors:
                banks[Path(video), side == "mirrored"] = _bank(side, tensors, options, path)
    return banks


def _bank(side: str, tensors: Mapping[str, torch.Tensor], options: BankOptions, path: Path) -> Bank:
    bank = Bank(options)
    try:
        times, counts, rows = (tensors[f"{side}.{name}"] for name in ("times_s", "counts", "rows"))
        for time_s, row in zip(times.tolist(), rows.split(counts.tolist()), strict=True):
            bank.add(time_s, row, torch.ones(len(row)))
    except (KeyError, ValueError, RuntimeError, IndexError) as error:
        raise InputError(f"{path}: damaged bank ({str(error)[:100]}); remove it to fill it anew") from error
    return bank
