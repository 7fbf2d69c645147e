"""A detector in one file: head weights, class names, and everything needed to feed and decode it.

The file is safetensors with one JSON document under the metadata key `vidtad`. Head tensors are stored under
`head.<key>`, tensors of an embedded extractor under `extractor.<key>`. Nothing in it can run code.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vidtad.errors import InputError, RunError, first_line
from vidtad.runtime.files import atomic_write, fraction_of
from vidtad.runtime.sources import read_hashed

if TYPE_CHECKING:
    from torch import Tensor

FORMAT = 1
METADATA_KEY = "vidtad"
MAX_HEADER = 32 << 20
_PREFIXES = {"head_weights": "head.", "extractor_weights": "extractor."}
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,99}")


@dataclass(frozen=True, eq=False)
class Bundle:
    """A detector: what it is, what it must be fed, how its output is decoded, and its weights.

    Validated when made (InputError): plain JSON values in the documents, unique class names, finite weights.

    name: letters, digits and `._+-` (it becomes a file name). head: the head's network (`react`,
    `actionformer`, `linear`, ...), built from `head_config`; `head_weights` carries that network's own
    state-dict keys. classes: output index -> class name. extractor: name of the extractor the head was
    trained on. sampling: `window` and `stride` in frames and `fps` (None: the video's own rate; a number,
    or a fraction as text), as given to the extractor. channels: blocks of a feature row in the order the
    head expects, e.g. (("rgb", 1024), ("flow", 1024)); empty for heads that do not read feature rows.
    decoding: defaults of post-processing. training: how it was made. scores: what it scored, and on what.
    demonstration: True when it knows generated classes only. extractor_weights: the extractor's state
    dict when embedded, else None; extractor_checkpoint: id in `vidtad.heads.catalogue.CHECKPOINTS`;
    extractor_sha256: hash of the weights file the extractor had in training.
    """

    name: str
    head: str
    head_config: dict[str, Any]
    classes: tuple[str, ...]
    extractor: str
    sampling: dict[str, Any]
    channels: tuple[tuple[str, int], ...]
    head_weights: "dict[str, Tensor]" = field(repr=False)
    decoding: dict[str, Any] = field(default_factory=dict)
    licence: str | None = None
    training: dict[str, Any] = field(default_factory=dict)
    scores: dict[str, Any] = field(default_factory=dict)
    demonstration: bool = False
    extractor_weights: "dict[str, Tensor] | None" = field(default=None, repr=False)
    extractor_checkpoint: str | None = None
    extractor_sha256: str | None = None
    _file_sha256: str | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not _NAME.fullmatch(self.name):
            raise InputError(
                f"bundle name {self.name!r}: at most 100 letters, digits and ._+-, a letter or digit first"
            )
        where = f"bundle {self.name}"
        for text in ("head", "extractor"):
            if not isinstance(getattr(self, text), str) or not getattr(self, text):
                raise InputError(f"{where}: {text} must be a non-empty text")
        for text in ("licence", "extractor_checkpoint", "extractor_sha256"):
            if not isinstance(getattr(self, text), str | None):
                raise InputError(f"{where}: {text} must be a text or absent")
        if self.extractor_sha256 is not None and not re.fullmatch("[0-9a-f]{64}", self.extractor_sha256):
            raise InputError(f"{where}: extractor_sha256 must be 64 lower-case hexadecimal digits")
        if not isinstance(self.demonstration, bool):
            raise InputError(f"{where}: demonstration must be true or false")
        for document in ("head_config", "sampling", "decoding", "training", "scores"):
            if not isinstance(getattr(self, document), Mapping):
                raise InputError(f"{where}: {document} must be a JSON object")
            object.__setattr__(self, document, _plain(getattr(self, document), f"{where}: {document}"))
        object.__setattr__(self, "classes", _check_classes(self.classes, where))
        object.__setattr__(self, "channels", _check_channels(self.channels, where))
        _check_sampling(self.sampling, where)
        object.__setattr__(self, "head_weights", _check_weights(self.head_weights, f"{where}: head_weights"))
        if self.extractor_weights is not None:
            weights = _check_weights(self.extractor_weights, f"{where}: extractor_weights")
            object.__setattr__(self, "extractor_weights", weights)

    @property
    def width(self) -> int:
        """Channels of one feature row the head reads; 0 when it reads no feature rows."""
        return sum(count for _, count in self.channels)

    @property
    def sha256(self) -> str:
        """SHA-256 of the file it was loaded from, else of the file `save_bundle` would write."""
        if self._file_sha256 is None:
            import hashlib

            object.__setattr__(self, "_file_sha256", hashlib.sha256(_serialise(self)).hexdigest())
        assert self._file_sha256 is not None
        return self._file_sha256

    def document(self) -> dict[str, Any]:
        """Everything but the tensors, as plain JSON values (what is stored under the metadata key)."""
        skipped = {*_PREFIXES, "_file_sha256"}
        values = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in skipped}
        return {"format": FORMAT, **_plain(values, f"bundle {self.name}")}


def bundle_name(text: str) -> str:
    """The nearest valid bundle name to `text` (a file stem, say): other characters become `-`."""
    name = re.sub(r"[^A-Za-z0-9._+-]+", "-", text).strip("-._+")[:100]
    return name or "bundle"


def save_bundle(bundle: Bundle, path: Path) -> Path:
    """Write `bundle` under `path`, atomically. Raises RunError when the file cannot be written."""
    data = _serialise(bundle)
    with atomic_write(Path(path)) as file:
        file.write(data)
    return Path(path)


def load_bundle(path: Path) -> Bundle:
    """Read and validate a bundle; tensors on the CPU. Raises InputError for anything but a sound bundle."""
    bundle, digest = read_hashed(Path(path), _load)
    object.__setattr__(bundle, "_file_sha256", digest)
    return bundle


def _load(path: Path) -> Bundle:
    document = read_document(path)
    from safetensors import SafetensorError, safe_open

    weights: dict[str, dict[str, Tensor]] = {part: {} for part in _PREFIXES}
    try:
        with safe_open(path, framework="pt") as file:
            for key in file.keys():  # noqa: SIM118 (safe_open is not a mapping)
                part = next((part for part, prefix in _PREFIXES.items() if key.startswith(prefix)), None)
                if part is None:
                    raise InputError(f"{path}: not a sound bundle (unexpected tensor {key[:100]!r})")
                weights[part][key[len(_PREFIXES[part]) :]] = file.get_tensor(key)
    except (SafetensorError, OSError, ValueError, RuntimeError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: damaged bundle ({first_line(error)}); get the file again") from error
    known = {f.name for f in fields(Bundle) if f.init} - set(_PREFIXES)
    unknown = sorted(set(document) - known)
    if unknown:
        raise InputError(f"{path}: written by a newer vidtad (entry {unknown[0][:100]!r}); upgrade vidtad")
    try:
        bundle = Bundle(
            **document,
            head_weights=weights["head_weights"],
            extractor_weights=weights["extractor_weights"] or None,
        )
    except InputError as error:
        raise InputError(f"{path}: not a sound bundle ({error})") from error
    except TypeError as error:
        raise InputError(f"{path}: not a sound bundle ({first_line(error)})") from error
    return bundle


def read_document(path: Path) -> dict[str, Any]:
    """The JSON document of a bundle file, without its `format` entry, not validated further.

    Imports no torch. Raises InputError when the file is missing, not safetensors, or not a bundle of a known
    format.
    """
    path = Path(path)
    try:
        if not path.is_file():
            raise InputError(f"{path}: no such bundle file")
        size = path.stat().st_size
        with open(path, "rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if size < 10 or length + 8 > size:
                raise InputError(f"{path}: not a bundle (not a safetensors file, or cut off)")
            if length > MAX_HEADER:
                raise InputError(f"{path}: not a bundle (its header of {length} bytes exceeds {MAX_HEADER})")
            raw = file.read(length)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({first_line(error)})") from error
    header = _parse(raw, path, "not a safetensors file")
    metadata = header.get("__metadata__")
    text = metadata.get(METADATA_KEY) if isinstance(metadata, dict) else None
    if not isinstance(text, str):
        raise InputError(f"{path}: a safetensors file but not a vidtad bundle (no `{METADATA_KEY}` metadata)")
    document = _parse(text, path, f"broken `{METADATA_KEY}` metadata")
    version = document.pop("format", None)
    if isinstance(version, bool) or not isinstance(version, int) or version < 1:
        raise InputError(f"{path}: not a sound bundle (no format number)")
    if version > FORMAT:
        raise InputError(f"{path}: written by a newer vidtad (bundle format {version}); upgrade vidtad")
    return document


def _parse(text: str | bytes, path: Path, problem: str) -> dict[str, Any]:
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not a bundle ({problem})") from error
    if not isinstance(document, dict):
        raise InputError(f"{path}: not a bundle ({problem})")
    return document


def _serialise(bundle: Bundle) -> bytes:
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import save

    # Cloned because safetensors refuses tensors that share storage (tied or sliced weights).
    tensors = {
        prefix + key: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for part, prefix in _PREFIXES.items()
        for key, tensor in (getattr(bundle, part) or {}).items()
    }
    text = json.dumps(bundle.document(), allow_nan=False, sort_keys=True)
    try:
        return save(tensors, metadata={METADATA_KEY: text})
    except (SafetensorError, ValueError, KeyError) as error:
        raise RunError(f"bundle {bundle.name}: cannot be written ({first_line(error)})") from error


def _plain(value: Any, where: str, depth: int = 0) -> Any:
    """A copy of `value` made of JSON values only, tuples as lists; InputError names what is not one."""
    if depth > 50:
        raise InputError(f"{where}: nested more than 50 deep")
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise InputError(f"{where}: text is not valid Unicode") from error
        return value
    if isinstance(value, float):
        if value != value or value in (float("inf"), float("-inf")):
            raise InputError(f"{where}: {value} is not a JSON number")
        return float(value)
    if isinstance(value, list | tuple):
        return [_plain(item, f"{where}[{index}]", depth + 1) for index, item in enumerate(value)]
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise InputError(f"{where}: key {key!r} is not a text")
        return {_plain(k, where): _plain(item, f"{where}.{k[:100]}", depth + 1) for k, item in value.items()}
    raise InputError(f"{where}: {type(value).__name__} is not a JSON value")


def _check_classes(classes: Any, where: str) -> tuple[str, ...]:
    if not isinstance(classes, list | tuple) or not classes:
        raise InputError(f"{where}: classes must be a non-empty list of names")
    seen: set[str] = set()
    for name in classes:
        if not isinstance(name, str) or not name.strip():
            raise InputError(f"{where}: class name {name!r} is not a non-empty text")
        if name in seen:
            raise InputError(f"{where}: class {name!r} is listed twice")
        seen.add(name)
    return tuple(_plain(classes, f"{where}: classes"))


def _check_channels(channels: Any, where: str) -> tuple[tuple[str, int], ...]:
    problem = InputError(f"{where}: channels must be a list of (name, count) pairs with counts of at least 1")
    if not isinstance(channels, list | tuple):
        raise problem
    for block in channels:
        if not isinstance(block, list | tuple) or len(block) != 2:
            raise problem
        name, count = block
        if not isinstance(name, str) or not name or not isinstance(count, int) or isinstance(count, bool):
            raise problem
        if count < 1:
            raise problem
    return tuple((_plain(name, f"{where}: channels"), count) for name, count in channels)


def _check_sampling(sampling: Mapping[str, Any], where: str) -> None:
    for key in ("window", "stride"):
        value = sampling.get(key)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise InputError(f"{where}: sampling.{key} must be a number of frames, at least 1")
    fps = sampling.get("fps")
    if fps is None:
        return
    try:
        if isinstance(fps, bool) or not isinstance(fps, int | float | str) or fraction_of(fps) <= 0:
            raise ValueError
    except (ValueError, ZeroDivisionError, OverflowError) as error:
        raise InputError(f'{where}: sampling.fps must be above 0 (25, "30000/1001") or absent') from error


def _check_weights(weights: Any, where: str) -> "dict[str, Tensor]":
    import torch

    if not isinstance(weights, Mapping) or not weights:
        raise InputError(f"{where}: must hold at least one tensor")
    for key, tensor in weights.items():
        if not isinstance(key, str) or not isinstance(tensor, torch.Tensor):
            raise InputError(f"{where}: entry {str(key)[:100]!r} is not a named tensor")
        _plain(key, where)
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor.float()).all()):
            raise InputError(f"{where}: {key[:100]} holds values that are not finite numbers")
    return dict(weights)
