"""Feature banks on disk: one safetensors file a video, plain and mirrored rows, float16."""

import json
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import torch

from vidtad.errors import InputError, RunError
from vidtad.models.acfb import Bank, BankOptions
from vidtad.runtime.files import atomic_write

FORMAT = "vidtad bank 1"
Banks = Mapping[tuple[Path, bool], "Bank | StoredBank"]
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


class StoredBank:
    """A bank in a file, of which a keyframe's rows alone are read: as `Bank`, for reading.

    Raises InputError for a file that is none, is damaged, or was filled by something else than `made_by`.
    """

    def __init__(self, path: Path, side: str, made_by: str):
        from safetensors import SafetensorError, safe_open

        try:
            self._file = safe_open(path, framework="pt")
            about = json.loads((self._file.metadata() or {}).get("vidtad", "{}"))
            if about.get("format") != FORMAT:
                raise InputError(f"{path}: not a feature bank of this version; remove it to fill it anew")
            if about.get("made_by") != made_by:
                raise InputError(f"{path}: filled by another network or with other settings; remove it to fill it anew")
            self.options = BankOptions(float(about["reach_s"]), int(about["per_second"]))
            self.times_s = self._file.get_tensor(f"{side}.times_s")
            counts = self._file.get_tensor(f"{side}.counts")
            self._rows = self._file.get_slice(f"{side}.rows")
            if len(counts) != len(self.times_s) or int(counts.sum()) != self._rows.get_shape()[0]:
                raise ValueError("counts of rows do not fit")
        except (SafetensorError, OSError, ValueError, RuntimeError, TypeError, KeyError) as error:
            raise InputError(f"{path}: damaged bank ({str(error)[:100]}); remove it to fill it anew") from error
        self._ends = counts.cumsum(0)

    def around(self, time_s: float) -> torch.Tensor:
        """(m, C, h, w) float16: all rows within reach of `time_s`."""
        near = ((self.times_s - time_s).abs() <= self.options.reach_s + 1e-6).nonzero()[:, 0]
        if not len(near):
            return self._rows[0:0]
        first, last = int(near[0]), int(near[-1])
        return self._rows[int(self._ends[first - 1]) if first else 0 : int(self._ends[last])]


class StoredBanks(Mapping[tuple[Path, bool], StoredBank]):
    """Banks in the files of a folder, by video and whether it was mirrored; the last few stay open."""

    def __init__(self, files: Mapping[tuple[Path, bool], Path], made_by: str, most_open: int = 16):
        self.files, self.made_by, self.most_open = dict(files), made_by, most_open
        self._open: OrderedDict[tuple[Path, bool], StoredBank] = OrderedDict()

    def __getitem__(self, key: tuple[Path, bool]) -> StoredBank:
        if key not in self._open:
            self._open[key] = StoredBank(self.files[key], "mirrored" if key[1] else "plain", self.made_by)
            while len(self._open) > self.most_open:
                self._open.popitem(last=False)
        self._open.move_to_end(key)
        return self._open[key]

    def __iter__(self) -> Iterator[tuple[Path, bool]]:
        return iter(self.files)

    def __len__(self) -> int:
        return len(self.files)


def load_banks(videos: Iterable[Path], folder: Path, *, made_by: str) -> StoredBanks:
    """Banks of these videos from `folder`, read when asked for; a video without a file is left out.

    Raises InputError for a file that is none, is damaged, or was filled by something else than `made_by`.
    """
    files = {}
    for video in map(Path, videos):
        path = Path(folder) / f"{video.stem}.bank.safetensors"
        if path.exists():
            for mirrored in (False, True):
                files[video, mirrored] = path
            StoredBank(path, "plain", made_by)
    return StoredBanks(files, made_by)
