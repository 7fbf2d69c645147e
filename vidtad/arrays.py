"""Feature arrays (rows, channels) in the files that data sets publish: .npy, .npz, HDF5, CSV. Read, never run.

An HDF5 file holds one array a video: `features.h5/NAME` stands for the one called NAME, wherever a path is wanted.
"""

import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from vidtad.errors import InputError, VidtadError
from vidtad.formats.document import is_decimal
from vidtad.runtime.names import composed, unfit

HDF5 = (".h5", ".hdf5")
GROUPS = ((".npy",), (".npz",), HDF5, (".csv",))
SUFFIXES = frozenset(suffix for group in GROUPS for suffix in group)
LARGEST = 1 << 32
"""Bytes up to which an array is read whole, or believed to be as long as its file says."""
UNQUESTIONED = 32 << 20
MOST_PACKED = 50
"""Bytes of an array that no questions are asked about, and how many times its stored size a larger one may have."""


def file_of(path: Path) -> Path:
    """The file on the disk: of `features.h5/NAME` that is `features.h5`."""
    parent = path.parent
    return parent if parent.suffix.lower() in HDF5 and parent.is_file() else path


def video_of(path: Path) -> str:
    """The name of the video whose file or array this is, as names are compared.

    That of an array in an HDF5 file is whole, whatever dots are in it.
    """
    return composed(path.stem if file_of(path) == path else path.name)


def is_array(path: Path) -> bool:
    """Whether this names a feature array, by its suffix."""
    return path.suffix.lower() in SUFFIXES or file_of(path) != path


def arrays_in(path: Path) -> list[Path]:
    """The path of every array in a file; of all but HDF5 the file itself. Raises InputError for a damaged file."""
    if path.suffix.lower() not in HDF5 or not path.is_file():
        return [path]
    with _hdf5(path) as file:
        names = sorted(name for name in file if _own(file, name) is not None)
    for name in names:
        if why := unfit(name):
            raise InputError(f"{path}: no result can be named like its array {name[:60]!r}: {why}; rename the array")
    if not names:
        raise InputError(f"{path}: holds no arrays (expected one a video, under its name)")
    return [path / name for name in names]


def arrays_among(files: Iterable[Path]) -> list[Path]:
    """The arrays of a folder's files: those of the first of `GROUPS` that is there, as a label table is a CSV too."""
    listed = list(files)
    for group in GROUPS:
        chosen = [path for path in listed if path.suffix.lower() in group]
        if chosen:
            return [array for path in chosen for array in arrays_in(path)]
    return []


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """The array while the block runs: something with `shape`, `dtype` and slices, on the disk where that is possible.

    Raises InputError for what is not there or holds no (rows, channels) of floating-point numbers.
    """
    path = Path(path)
    if file_of(path) != path:
        with _hdf5(path.parent) as file:
            yield _checked(path, _dataset(path, file))
        return
    try:
        values = _read(path)
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such feature file") from error
    except InputError:
        raise
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from error
    except Exception as error:  # NumPy parses headers as Python text and passes on whatever that raises
        expected = "a table of numbers" if path.suffix.lower() == ".csv" else "a .npy array of numbers"
        raise InputError(f"{path}: not a feature file (expected {expected})") from error
    yield _checked(path, values)


def read_rows(path: Path, rows: Any = slice(None)) -> np.ndarray:
    """Some rows (n, C) of an array, of the type they are stored in, in memory. Raises InputError like `opened`."""
    with opened(path) as held:
        try:
            # HDF5 takes no list of rows that names one twice.
            return np.array(held[rows] if isinstance(rows, slice) or isinstance(held, np.ndarray) else held[:][rows])
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror or error})") from error


def _read(path: Path) -> Any:
    suffix = path.suffix.lower()
    if suffix == ".npz":
        return _from_npz(path)
    if suffix == ".csv":
        with open(path, encoding="utf-8-sig") as file:
            first = file.readline().split(",")[0].strip().strip('"')
            titled = not is_decimal(first)
        return np.loadtxt(path, np.float32, delimiter=",", skiprows=int(titled), ndmin=2, encoding="utf-8-sig")
    if suffix in HDF5:
        raise InputError(f"{path}: holds an array a video; name one as {path}/NAME")
    return np.load(path, mmap_mode="r", allow_pickle=False)


def _from_npz(path: Path) -> np.ndarray:
    """The array called `feats`, as EPIC-Kitchens' are, or the only one."""
    with zipfile.ZipFile(path) as archive:
        listed = archive.infolist()
    entries = {entry.filename.removesuffix(".npy"): entry for entry in listed}
    if len(entries) < len(listed):
        raise InputError(f"{path}: two of its arrays have one name; which is meant cannot be told")
    name = "feats" if "feats" in entries or len(entries) != 1 else next(iter(entries))
    if name not in entries:
        raise InputError(f"{path}: holds {', '.join(list(entries)[:5]) or 'nothing'}, and no array called feats")
    if entries[name].file_size > LARGEST:
        raise InputError(f"{path}: unpacks to more than {LARGEST >> 30} GiB")
    _refuse_hollow(path, entries[name].file_size, entries[name].compress_size)
    with np.load(path, allow_pickle=False) as held:
        return held[name]


def _checked(path: Path, values: Any) -> Any:
    if len(getattr(values, "shape", ())) != 2 or values.dtype.kind != "f" or not values.size:
        raise InputError(f"{path}: expected a (rows, channels) array of floating-point numbers")
    return values


@contextmanager
def _hdf5(path: Path) -> Iterator[Any]:
    try:
        import h5py
    except ImportError as error:
        raise InputError(f"{path}: an HDF5 file, which takes h5py to read: pip install 'vidtad[hdf5]'") from error
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise InputError(f"{path}: not a readable HDF5 file; get it again") from error
    with file:
        try:
            yield file
        except VidtadError:
            raise
        except Exception as error:  # whatever the library says about the bytes that it meets
            raise InputError(f"{path}: damaged; get it again") from error


def _own(file: Any, name: str) -> Any:
    """The dataset of this name if it is in the file itself, and points to no other file; else None."""
    import h5py

    if not isinstance(file.get(name, getlink=True), h5py.HardLink):
        return None
    found = file.get(name)
    here = isinstance(found, h5py.Dataset) and not found.is_virtual and found.external is None
    return found if here else None


def _dataset(path: Path, file: Any) -> Any:
    found = _own(file, path.name)
    if found is None:
        raise InputError(f"{path}: there is no array of this name in {path.parent.name}")
    size = int(found.size or 0) * found.dtype.itemsize
    if size > LARGEST:
        raise InputError(f"{path}: more than {LARGEST >> 30} GiB")
    _refuse_hollow(path, size, int(found.id.get_storage_size()))
    return found


def _refuse_hollow(path: Path, size: int, stored: int) -> None:
    """Raise InputError for an array of which the file holds next to nothing: fill values, or a packed bomb."""
    if size > UNQUESTIONED and size > MOST_PACKED * stored:
        raise InputError(f"{path}: announces {size >> 20} MiB of features and holds {stored >> 10} KiB; get it again")
