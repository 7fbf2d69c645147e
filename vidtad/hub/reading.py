"""Reading checkpoints written by anyone, by content and never by extension, without running what is in them.

`read_checkpoint` gives the nested data of a file; `state_dict` finds the network's tensors in it by the rules
of a named layout.
"""

import gzip
import math
import re
import zipfile
import zlib
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from vidtad.errors import InputError, RunError, first_line
from vidtad.runtime.endings import temporary_folder

if TYPE_CHECKING:
    from torch import Tensor

MAX_BYTES = 8 << 30
"""No compressed checkpoint is unpacked beyond this many bytes."""
MAX_RATIO = 50
"""Nor beyond this many times its own size (weights hardly compress; 16 MiB are always allowed)."""
MAX_DEPTH = 64

_TORCH_MAGIC = re.compile(rb"\x80.\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19\.", re.DOTALL)


@dataclass(frozen=True)
class Layout:
    """Where a family of checkpoints keeps its tensors.

    wrappers: keys looked up in turn, the first one present holds the state dict (none present: the file is
    the state dict itself). prefix: text cut from the start of every key when every key has it, repeatedly.
    drop: regular expressions; a key that matches one from its start is no weight of the network.
    """

    wrappers: tuple[str, ...] = ()
    prefix: str = ""
    drop: tuple[str, ...] = ()


LAYOUTS: dict[str, Layout] = {
    "plain": Layout(),
    "torch": Layout(("state_dict", "model_state", "model_state_dict", "model", "blobs"), prefix="module."),
    "react": Layout(wrappers=("state_dict",), drop=(r"transformer\.decoder\.segment_embed\.",)),
    "actionformer": Layout(wrappers=("state_dict_ema", "state_dict"), prefix="module."),
    "opentad": Layout(wrappers=("state_dict_ema", "state_dict"), prefix="module."),
    "i3d-piergiaj": Layout(prefix="module."),
    "i3d-hassony2": Layout(prefix="module."),
    "tensorflow": Layout(),
    "tsp": Layout(wrappers=("model",), prefix="module."),
    "ig65m": Layout(),
    "torchvision": Layout(),
    "mmaction2": Layout(wrappers=("state_dict",)),
    "bninception": Layout(wrappers=("state_dict",), prefix="module."),
    "pyslowfast": Layout(wrappers=("model_state",)),
    "pytorchvideo": Layout(wrappers=("model_state",)),
    "caffe2": Layout(wrappers=("blobs",), drop=(r".*momentum", r"lr$", r"model_iter$")),
    "acar": Layout(wrappers=("state_dict",), prefix="module."),
}
"""Named layouts; sources: the checkpoint sections of each project's code."""


def read_checkpoint(path: Path) -> Any:
    """The data of a checkpoint as dicts, lists, numbers, text and CPU tensors; arrays become tensors.

    Recognised by content: PyTorch files (zip, and the older stream format), safetensors, numpy `.npz`,
    pickles of numpy arrays (Caffe2's among them), and gzip of any of those. Nothing in the file is run:
    PyTorch reads it with `weights_only`, other pickles go through `vidtad.hub.pickles`. Raises InputError for
    anything else: a file that names code, a damaged one, one that unpacks to more than MAX_RATIO times its
    size or MAX_BYTES.
    """
    path = Path(path)
    try:
        if not path.is_file():
            raise InputError(f"{path}: no such checkpoint file")
        size = path.stat().st_size
        with open(path, "rb") as file:
            head = file.read(512)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error})") from error
    if head.startswith(b"\x1f\x8b"):
        return _read_gzip(path, size)
    return _plain(_read_container(path, head, size), str(path))


def state_dict(checkpoint: Any, layout: str | Layout = "torch") -> "dict[str, Tensor]":
    """The network's tensors in what `read_checkpoint` returned, by the rules of `layout` (a key of LAYOUTS).

    Raises InputError when there are none, or when something else than tensors is among them.
    """
    import torch

    rules = LAYOUTS[layout] if isinstance(layout, str) else layout
    found = checkpoint
    if isinstance(checkpoint, Mapping):
        found = next((checkpoint[key] for key in rules.wrappers if key in checkpoint), checkpoint)
    if not isinstance(found, Mapping):
        raise InputError("the checkpoint holds no named tensors: give a file with a network's state dict")
    weights = {key: value for key, value in found.items() if not any(re.match(d, key) for d in rules.drop)}
    others = [key for key, value in weights.items() if not isinstance(value, torch.Tensor)]
    if others or not weights:
        kind = f"entries that are no tensors ({', '.join(map(repr, others[:5]))})" if others else "no tensors"
        wanted = f" under {' or '.join(map(repr, rules.wrappers))}" if rules.wrappers else ""
        raise InputError(f"the checkpoint holds {kind}: expected a network's state dict{wanted}")
    while rules.prefix and all(key.startswith(rules.prefix) for key in weights):
        weights = {key[len(rules.prefix) :]: value for key, value in weights.items()}
    return weights


def read_state_dict(path: Path, layout: str | Layout = "torch") -> "dict[str, Tensor]":
    """The network's tensors in the checkpoint file `path`. Raises InputError, naming the file, when it has none."""
    checkpoint = read_checkpoint(path)
    try:
        return state_dict(checkpoint, layout)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def _read_gzip(path: Path, size: int) -> Any:
    limit = _limit(size)
    with temporary_folder() as folder:
        target = folder / "checkpoint"
        try:
            with gzip.open(path) as packed, open(target, "wb") as file:
                while block := packed.read(1 << 20):
                    file.write(block)
                    if file.tell() > limit:
                        raise InputError(f"{path}: unpacks to more than {limit} bytes; unpack it first")
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise InputError(f"{path}: damaged gzip file ({error})") from error
        except OSError as error:
            raise RunError(f"{path}: cannot be unpacked in {folder} ({error.strerror or error})") from error
        with open(target, "rb") as file:
            head = file.read(512)
        if head.startswith(b"\x1f\x8b"):
            raise InputError(f"{path}: gzip inside gzip; unpack it first")
        return _plain(_read_container(target, head, target.stat().st_size, shown=path), str(path))


def _limit(size: int) -> int:
    return min(MAX_BYTES, max(MAX_RATIO * size, 16 << 20))


def _read_container(path: Path, head: bytes, size: int, shown: Path | None = None) -> Any:
    shown = shown or path
    if head.startswith(b"PK\x03\x04"):
        return _read_zip(path, size, shown)
    if _TORCH_MAGIC.match(head):
        return _read_torch(path, shown)
    if len(head) > 9 and head[8:9] == b"{" and int.from_bytes(head[:8], "little") < size:
        return _read_safetensors(path, shown)
    if head[257:262] == b"ustar":
        raise InputError(f"{shown}: a tar archive; unpack it and give the checkpoint inside")
    if head[:1] in (b"\x80", b"(", b"c", b"]", b"}"):
        return _read_pickle(path, size, shown)
    raise InputError(
        f"{shown}: not a checkpoint (neither a PyTorch file, safetensors, numpy .npz, nor a pickle of arrays)"
    )


def _read_zip(path: Path, size: int, shown: Path) -> Any:
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, EOFError) as error:
        raise InputError(f"{shown}: damaged or cut off ({error}); get the file again") from error
    names = [member.filename for member in members]
    if names and all(name.endswith(".npy") for name in names):
        return _read_npz(path, size, shown)
    if any("/code/" in name or name.endswith("constants.pkl") for name in names):
        raise InputError(f"{shown}: a TorchScript program, which is never run; give weights alone")
    if not any(name.split("/")[-1] == "data.pkl" for name in names):
        raise InputError(f"{shown}: a zip archive that is not a checkpoint")
    # PyTorch stores entries as they are; compressed or overlapping ones would unpack to more than the file.
    packed = any(member.compress_type != zipfile.ZIP_STORED for member in members)
    if packed or sum(member.file_size for member in members) > size:
        raise InputError(f"{shown}: not as PyTorch writes it (compressed or overlapping entries)")
    return _read_torch(path, shown)


def _read_npz(path: Path, size: int, shown: Path) -> dict[str, Any]:
    import numpy as np

    arrays, left = {}, _limit(size)
    try:
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                left -= member.file_size
                if left < 0:
                    raise InputError(f"{shown}: unpacks to more than {_limit(size)} bytes")
                with archive.open(member) as file:
                    arrays[member.filename.removesuffix(".npy")] = _read_npy(np, file, member.file_size)
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, ValueError, NotImplementedError) as error:
        raise InputError(f"{shown}: not readable as arrays ({first_line(error)})") from error
    except (RuntimeError, TypeError, SyntaxError, MemoryError, RecursionError) as error:
        raise InputError(f"{shown}: damaged .npz file ({first_line(error)})") from error
    return arrays


def _read_npy(np: Any, file: Any, size: int) -> Any:
    """One array of an .npz; its header is checked against the entry's size before memory is taken for it."""
    version = np.lib.format.read_magic(file)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"array format {version}")
    reader = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = reader(file)
    if dtype.kind not in "biufcSU" or math.prod(shape) * dtype.itemsize > size:
        raise ValueError("an array of objects, or one longer than its entry")
    data = file.read()
    count = math.prod(shape)
    flat = np.frombuffer(data, dtype, count) if count else np.empty(0, dtype)
    return flat.reshape(shape, order="F" if fortran else "C").copy()


def _read_safetensors(path: Path, shown: Path) -> dict[str, Any]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            # Cloned: the tensors of an open file are views of it, and a gzip's unpacked copy is deleted.
            return {key: file.get_tensor(key).clone() for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, RuntimeError, TypeError, AttributeError) as error:
        raise InputError(f"{shown}: damaged safetensors file ({first_line(error)})") from error


def _read_pickle(path: Path, size: int, shown: Path) -> Any:
    from vidtad.hub.pickles import Refused, read_numpy_pickle

    if size > MAX_BYTES:
        raise InputError(f"{shown}: a pickle of {size} bytes, more than {MAX_BYTES} are not read")
    try:
        return read_numpy_pickle(path.read_bytes())
    except Refused as error:
        raise InputError(f"{shown}: refused, it holds {error}; get the weights as safetensors") from error
    except OSError as error:
        raise InputError(f"{shown}: cannot be read ({error.strerror or error})") from error


def _read_torch(path: Path, shown: Path) -> Any:
    import torch

    try:
        with _numpy_scalars_allowed():
            return torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise InputError(f"{shown}: cannot be read ({error.strerror or error})") from error
    except Exception as error:  # torch raises nearly every type on damaged input
        named = re.search(r"GLOBAL (\S+)", str(error))
        if named:
            held = f"the code object {named[1][:100]}, which is never run"
            raise InputError(f"{shown}: refused, it holds {held}; get the weights alone") from error
        # Without the advice PyTorch adds, which is to load the file with its code.
        found = re.search(r"WeightsUnpickler error: ([^\n]*)", str(error))
        reason = found[1][:200] if found else first_line(error)
        raise InputError(f"{shown}: not readable as a PyTorch file ({reason}); get the file again") from error


def _numpy_scalars_allowed() -> AbstractContextManager[Any]:
    """Lets PyTorch read what training scripts leave beside the weights: numpy numbers, argparse options.

    It gets stand-ins for them, never the real constructors. Naming a stand-in needs PyTorch 2.7.
    """
    import torch

    from vidtad.hub.pickles import Array, DType, scalar

    release = tuple(int(part) for part in re.findall(r"\d+", torch.__version__)[:2])
    if release < (2, 7):
        return nullcontext()
    stand_ins: list[Any] = [(DType, "numpy.dtype"), (SimpleNamespace, "argparse.Namespace")]
    stand_ins += [(Array, "numpy.ndarray")]
    for core in ("numpy.core.multiarray", "numpy._core.multiarray"):
        stand_ins += [(scalar, f"{core}.scalar"), (_new_array, f"{core}._reconstruct")]
    return torch.serialization.safe_globals(stand_ins)


def _new_array(*_: Any) -> Any:
    from vidtad.hub.pickles import Array

    return Array()


def _plain(value: Any, shown: str) -> Any:
    """`value` with dict and list subclasses made plain and arrays made tensors; shared parts stay shared."""
    return _Plainer(shown).convert(value, 0)


class _Plainer:
    def __init__(self, shown: str) -> None:
        self.shown = shown
        self.done: dict[int, Any] = {}
        self.kept: list[Any] = []  # keeps every visited object alive, so that no id is used twice

    def convert(self, value: Any, depth: int) -> Any:
        if value is None or isinstance(value, bool | int | float | complex | str | bytes):
            return value
        if depth > MAX_DEPTH:
            raise InputError(f"{self.shown}: nested more than {MAX_DEPTH} deep; not a checkpoint of weights")
        if id(value) not in self.done:
            self.kept.append(value)
            self.done[id(value)] = self._convert(value, depth + 1)
        return self.done[id(value)]

    def _convert(self, value: Any, depth: int) -> Any:
        import numpy as np
        import torch

        from vidtad.hub.pickles import Array

        if isinstance(value, Array):
            value = value.value
        if isinstance(value, torch.Tensor):
            return self._tensor(value)
        if isinstance(value, np.ndarray):
            return self._array(value)
        if isinstance(value, SimpleNamespace):
            value = vars(value)
        if isinstance(value, Mapping):
            return {self._key(key): self.convert(item, depth) for key, item in value.items()}
        if isinstance(value, list | tuple | set | frozenset):
            return [self.convert(item, depth) for item in value]
        if isinstance(value, torch.dtype | torch.device):
            return str(value)
        raise InputError(f"{self.shown}: holds a {type(value).__name__}; not a checkpoint of weights")

    def _array(self, array: Any) -> Any:
        import torch

        if array.dtype.kind not in "biufc":
            return array.tolist()
        try:
            return torch.from_numpy(array.astype(array.dtype.newbyteorder("="), order="C"))
        except TypeError as error:
            raise InputError(f"{self.shown}: holds {array.dtype} numbers, which tensors cannot") from error

    def _key(self, key: Any) -> Any:
        if isinstance(key, bytes):
            return key.decode("latin1")
        if isinstance(key, str | int | float) or key is None:
            return key
        return str(key)[:200]

    def _tensor(self, tensor: "Tensor") -> "Tensor":
        import torch

        tensor = tensor.detach()
        if tensor.device.type != "cpu" or tensor.layout != torch.strided or tensor.is_quantized:
            raise InputError(f"{self.shown}: holds a tensor that is not a plain array of numbers")
        claimed = tensor.numel() * tensor.element_size()
        if claimed > max(tensor.untyped_storage().nbytes(), 16 << 20):
            raise InputError(f"{self.shown}: a tensor {list(tensor.shape)} claims more than the file holds")
        return tensor
