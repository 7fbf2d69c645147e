"""Reading pickles of plain data and numpy arrays without running anything they name.

A pickle can call any function it names. Here every name is looked up in a short table of stand-ins made for
one load, so the real numpy constructors, which trust their arguments, are never called by the file either.
"""

import io
import pickle
import pickletools
import re
from collections.abc import Callable
from typing import Any

import numpy as np

MAX_MEMO = 1 << 22
_ARRAY_KINDS = "biufcSU"
_DTYPE = re.compile(r"[<>|=]?[biufcSU?]\d{0,9}")


class Refused(ValueError):
    """The pickle names code, or holds something other than plain data and arrays; the text says what."""


class DType:
    """Stand-in for `numpy.dtype`: numbers or text, the byte order set afterwards as numpy does."""

    def __init__(self, text: Any, *_: Any) -> None:
        if isinstance(text, bytes):
            text = text.decode("latin1")
        if not isinstance(text, str) or not _DTYPE.fullmatch(text):
            raise Refused(f"an array of type {str(text)[:40]!r}")
        self.dtype = np.dtype(text)

    def __setstate__(self, state: Any) -> None:
        order: Any = state[1] if isinstance(state, tuple) and len(state) > 1 else None
        if isinstance(order, bytes):
            order = order.decode("latin1")
        if order not in ("<", ">", "|", "="):
            raise Refused("an array of a structured type")
        self.dtype = self.dtype.newbyteorder(order)


class Array:
    """Stand-in for a `numpy.ndarray` under construction; `value` holds the finished array."""

    def __init__(self) -> None:
        self.value: np.ndarray | None = None

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, tuple) or len(state) != 5:
            raise Refused("a malformed array")
        _, shape, dtype, fortran, data = state
        self.value = _frombuffer(data, dtype, shape, "F" if fortran else "C").value


def scalar(dtype: Any, data: Any = b"") -> Any:
    """Stand-in for numpy's pickled scalar: a Python number or text."""
    value = _frombuffer(data, dtype, (1,), "C").value
    assert value is not None
    return value[0].item()


def _frombuffer(data: Any, dtype: Any, shape: Any, order: Any) -> Array:
    if not isinstance(dtype, DType) or dtype.dtype.kind not in _ARRAY_KINDS:
        raise Refused("an array of objects")
    if isinstance(data, str):  # Python 2 wrote bytes as text
        data = data.encode("latin1")
    if not isinstance(data, bytes | bytearray) or not isinstance(shape, tuple):
        raise Refused("a malformed array")
    if not all(isinstance(side, int) and 0 <= side < 2**48 for side in shape) or len(shape) > 32:
        raise Refused("a malformed array")
    array = Array()
    count = 1
    for side in shape:
        count *= side
    if count * dtype.dtype.itemsize != len(data):
        raise Refused("an array shorter or longer than it says")
    flat = np.frombuffer(data, dtype.dtype) if count else np.empty(0, dtype.dtype)
    array.value = flat.reshape(shape, order="F" if order == "F" else "C").astype(flat.dtype.newbyteorder("="))
    return array


def read_numpy_pickle(data: bytes) -> Any:
    """Unpickle dicts, lists, numbers, text and numpy arrays (any protocol, Python 2 files as latin1).

    Arrays come back as `numpy.ndarray`. Raises Refused when the pickle names anything but the constructors of
    those, and for whatever is not a sound pickle.
    """
    _scan(data)
    try:
        return _Unpickler(io.BytesIO(data), encoding="latin1").load()
    except Refused:
        raise
    except Exception as error:  # the unpickler raises nearly every type on damaged input
        raise Refused(f"damaged data ({type(error).__name__})") from error


def _scan(data: bytes) -> None:
    """Refuse what the unpickler would allocate memory for before looking: memo slots far beyond the data."""
    try:
        for code, argument, _ in pickletools.genops(data):
            if code.name in ("LONG_BINPUT", "PUT") and not 0 <= int(argument or 0) <= MAX_MEMO:
                raise Refused("a memo index out of range")
            if code.name in ("EXT1", "EXT2", "EXT4", "PERSID", "BINPERSID", "NEXT_BUFFER", "INST"):
                raise Refused(f"the instruction {code.name}")
    except Refused:
        raise
    except Exception as error:
        raise Refused(f"damaged data ({type(error).__name__})") from error


class _Unpickler(pickle.Unpickler):
    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._table = _stand_ins()

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self._table:
            raise Refused(f"the code object {module[:60]}.{name[:60]}, which is never run")
        return self._table[module, name]

    def persistent_load(self, pid: Any) -> Any:
        raise Refused("a reference outside the file")


def _stand_ins() -> dict[tuple[str, str], Callable[..., Any]]:
    """Name in a pickle -> what is called instead.

    Closures made anew for each load: a pickle can set attributes on what a name gives it, and must find
    nothing there that outlives the load.
    """

    def encode(text: str, encoding: str = "latin1") -> bytes:
        if encoding not in ("latin1", "latin-1"):
            raise Refused(f"the encoding {str(encoding)[:20]!r}")
        return text.encode("latin1")

    table: dict[tuple[str, str], Callable[..., Any]] = {
        ("numpy", "ndarray"): lambda *_: Array(),
        ("numpy", "dtype"): lambda *arguments: DType(*arguments),
        ("_codecs", "encode"): encode,
        ("collections", "OrderedDict"): lambda items=(): dict(items),
    }
    for builtins in ("builtins", "__builtin__"):
        table[builtins, "set"] = lambda items=(): set(items)
        table[builtins, "frozenset"] = lambda items=(): frozenset(items)
        table[builtins, "bytes"] = lambda: b""  # how empty bytes are written before protocol 3
    for core in ("numpy.core", "numpy._core"):
        table[f"{core}.multiarray", "_reconstruct"] = lambda *_: Array()
        table[f"{core}.multiarray", "scalar"] = lambda *arguments: scalar(*arguments)
        table[f"{core}.numeric", "_frombuffer"] = lambda *arguments: _frombuffer(*arguments)
    return table
