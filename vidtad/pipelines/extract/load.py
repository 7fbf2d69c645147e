"""Extractors with their weights: published ones, local files, random ones, those a detector was trained on."""

import difflib
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vidtad.errors import InputError, RunError
from vidtad.extractors import (
    PRECISIONS,
    PRESETS,
    Changes,
    ClipExtractor,
    Given,
    TwoStream,
    build,
    find,
    random_weights,
    streams_of,
    with_streams,
)
from vidtad.flow import LEARNED
from vidtad.hub.registry import CHECKPOINTS
from vidtad.runtime.files import is_file
from vidtad.runtime.sources import read_hashed

if TYPE_CHECKING:
    from torch import Tensor

    from vidtad.flow.raft import Raft
    from vidtad.hub.bundle import Bundle

STREAMS = ("rgb", "flow")
DEFAULT = "i3d"
DEMONSTRATION = "tiny3d"
"""The extractor whose weights come with the package, inside the demonstration bundle."""
DEMONSTRATION_NOTE = f"{DEMONSTRATION} has the weights of the demonstration: trained on generated clips, not on footage"
DEMONSTRATION_OPTION = (
    f"--extractor {DEMONSTRATION}: small, built in, needs no download; its weights were trained on generated clips"
)


@dataclass(frozen=True)
class LoadedExtractor:
    """An extractor with the identity of its weights, as sidecars record it.

    `extra`: further settings that decide the rows, such as the weights of a learned flow.
    """

    extractor: ClipExtractor | TwoStream
    weights: str
    weights_sha256: str
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_random(self) -> bool:
        """True for a dry run: the rows carry no meaning."""
        return _is_random(self.weights)

    def settings(self) -> dict[str, Any]:
        """Everything besides weights and video that decides the rows, as plain JSON values."""
        return {**self.extractor.settings(), **self.extra}


@dataclass(frozen=True)
class _Weights:
    state: "Mapping[str, Tensor]"
    identity: str
    sha256: str


def load_extractor(
    name: str,
    weights: str | None = None,
    *,
    device: str = "cpu",
    window: int | None = None,
    stride: int | None = None,
    fps: "Fraction | None" = None,
    flow: str | Given | None = None,
    precision: str = "auto",
) -> LoadedExtractor:
    """The extractor `name` with published, random or local weights; "rgb+flow" by name gives two streams.

    `weights`: None for the preset's published checkpoint (fetched when it is not in the cache), `random` or
    `random:SEED`, a checkpoint id, or the path of a checkpoint file in a published layout; for two streams one such
    text for each, joined by a comma. `fps` resamples; None keeps the preset's choice. `flow`: method of optical flow,
    the preset's own by default; GIVEN for flow that is there as pictures (`extract_file` says where).
    `precision`: see `pick_precision`.
    Raises InputError for an unknown name or unfit weights, RunError for a failed fetch.
    """
    streams = streams_of(name)
    texts = _one_each(weights, streams)
    precision = pick_precision(precision, device)
    flow = flow or next((own for part in streams.values() if (own := find(part).convention.flow) in LEARNED), None)
    method: str | Raft | Given | None = flow
    extra: Mapping[str, Any] = {}
    if isinstance(flow, str) and flow in LEARNED:
        method, extra = _flow_method(flow, weights, device)
    changes = Changes(window, stride, ... if fps is None else fps, method, precision)
    if weights is not None and _is_random(weights):
        seed = _seed(weights)
        state: Mapping[str, Tensor] = random_weights(name, seed)
        extractor = build(name, state, device=device, changes=changes)
        return LoadedExtractor(extractor, f"random:{seed}", digest(state), extra)
    found = [_published(part, text) for part, text in zip(streams.values(), texts, strict=True)]
    if len(found) == 1:
        state, total = found[0].state, found[0].sha256
    else:
        state = {f"{s}.{key}": t for s, part in zip(streams, found, strict=True) for key, t in part.state.items()}
        total = hashlib.sha256("".join(part.sha256 for part in found).encode()).hexdigest()
        extra = {**extra, "weights_sha256": [part.sha256 for part in found]}
    identity = ",".join(part.identity for part in found)
    return LoadedExtractor(build(name, state, device=device, changes=changes), identity, total, extra)


def load_given(
    name: str | None,
    weights: str | None = None,
    *,
    device: str = "cpu",
    window: int | None = None,
    stride: int | None = None,
    fps: "Fraction | None" = None,
    flow: str | Given | None = None,
    precision: str = "auto",
) -> LoadedExtractor:
    """As `load_extractor`, also with the weights inside a detector bundle: those of `embedding(name, weights)`.

    `name` None: see `extractor_name`.
    """
    wanted: dict[str, Any] = {"window": window, "stride": stride, "fps": fps, "flow": flow, "precision": precision}
    bundle = embedding(name, weights)
    if bundle is not None:
        return load_embedded(bundle, device=device, **wanted)
    try:
        return load_extractor(name or DEFAULT, weights, device=device, **wanted)
    except RunError as error:
        if weights is not None:
            raise
        raise RunError(f"{error}. Or take {DEMONSTRATION_OPTION}") from error


def load_embedded(
    bundle: "Bundle",
    *,
    device: str = "cpu",
    window: int | None = None,
    stride: int | None = None,
    fps: "Fraction | None" = None,
    flow: str | Given | None = None,
    precision: str = "auto",
) -> LoadedExtractor:
    """The extractor inside a bundle that `embedding` gave; the sampling is its preset's where none is said."""
    state = bundle.extractor_weights
    assert state is not None
    method: str | Raft | Given | None = flow
    extra: Mapping[str, Any] = {}
    if isinstance(flow, str) and flow in LEARNED:
        method, extra = _flow_method(flow, None, device)
    changes = Changes(window, stride, ... if fps is None else fps, method, pick_precision(precision, device))
    extractor = build(bundle.extractor, state, device=device, changes=changes)
    return LoadedExtractor(extractor, f"bundle:{bundle.name}", digest(state), extra)


def extractor_name(name: str | None, weights: str | None) -> str:
    """The extractor that is meant: as named, else that of a bundle given as weights, else i3d. Reads a header only."""
    return name or str((_header(weights) or {}).get("extractor", DEFAULT))


def embedding(name: str | None, weights: str | None) -> "Bundle | None":
    """The bundle whose extractor is meant: the file `weights`, or for tiny3d without weights a built-in one; or None.

    Raises InputError for a bundle without weights of the extractor `name` (None: of any).
    """
    from vidtad.heads.catalogue import builtin_bundle
    from vidtad.hub.bundle import load_bundle

    if weights is None:
        return builtin_bundle("react") if name == DEMONSTRATION else None
    if _header(weights) is None:
        return None
    bundle = load_bundle(Path(weights))
    if bundle.extractor_weights is None or name not in (None, bundle.extractor):
        raise InputError(f"--weights {weights}: this bundle does not hold weights of extractor {name or 'any'}")
    return bundle


def _header(weights: str | None) -> "Mapping[str, Any] | None":
    """What a bundle given as weights says of itself; None for anything else."""
    from vidtad.hub.bundle import read_document

    if weights is None or not weights.endswith(".safetensors") or not is_file(Path(weights)):
        return None
    try:
        return read_document(Path(weights))
    except InputError:  # a checkpoint in the same kind of file
        return None


def _is_random(text: str) -> bool:
    return text.partition(":")[0] == "random"


def _one_each(weights: str | None, streams: Mapping[str, str]) -> list[str | None]:
    """The text that names each stream's weights."""
    if weights is None or len(streams) == 1 or ("," not in weights and _is_random(weights)):
        return [weights] * len(streams)
    texts: list[str | None] = list(weights.split(","))
    if len(texts) != len(streams) or not all(texts):
        order = " and ".join(streams)
        raise InputError(f"--weights {weights}: the streams {order} want two files or ids, joined by a comma")
    if any(_is_random(text) for text in texts if text):
        raise InputError(f"--weights {weights}: random weights are for both streams: --weights random, or random:SEED")
    return texts


def _seed(text: str) -> int:
    seed = text.partition(":")[2] or "0"
    if not seed.isdecimal():
        raise InputError(f"--weights {text}: the seed must be a whole number, as in random:0")
    if len(seed) > 18:  # torch takes 64 bits
        raise InputError(f"--weights {text}: a seed has at most 18 digits")
    return int(seed)


def _published(name: str, weights: str | None) -> _Weights:
    """Weights of one preset: a local file's, or a checkpoint's by id, its published one by default."""
    from vidtad.hub.download import fetch
    from vidtad.hub.reading import read_checkpoint, state_dict

    if weights is not None and is_file(Path(weights)):
        path, identity = Path(weights), Path(weights).name
    else:
        identity = weights or next(iter(find(name).checkpoints), "")
        if not identity:
            raise InputError(f"extractor {name} has no published weights; pass --weights FILE or --weights random")
        _check_is_of(name, identity)
        path = fetch(identity)
    checkpoint, total = read_hashed(path, read_checkpoint)
    return _Weights(state_dict(checkpoint), identity, total)


def _check_is_of(name: str, id: str) -> None:
    """Raise InputError for a checkpoint that fits the extractor's network but wants other frames or arithmetic."""
    if id in find(name).checkpoints:
        return
    owners = [other for other, preset in PRESETS.items() if id in preset.checkpoints]
    if owners:
        raise InputError(
            f"--weights {id}: those weights want other frames or arithmetic than extractor {name}; "
            f"pass --extractor {' or '.join(owners)}"
        )
    if id in CHECKPOINTS and CHECKPOINTS[id].task == "person detection":
        raise InputError(f"--weights {id}: those are the weights of a detector of people; pass --model {id} to detect")


def _flow_method(name: str, weights: str | None, device: str) -> "tuple[Raft, dict[str, Any]]":
    """RAFT with its published weights, or with random ones in a dry run; and what the sidecar says of them."""
    from vidtad.flow.raft import CHECKPOINTS, Raft
    from vidtad.flow.raft import random_weights as random_raft

    if weights is not None and _is_random(weights):
        state: Mapping[str, Tensor] = random_raft(name, _seed(weights.split(",")[0]))
        identity = digest(state)
    else:
        from vidtad.hub.download import fetch
        from vidtad.hub.reading import read_checkpoint, state_dict

        checkpoint, identity = read_hashed(fetch(CHECKPOINTS[name]), read_checkpoint)
        state = state_dict(checkpoint)
    return Raft(name, state, device), {"flow_weights_sha256": identity}


def bundle_extractor(
    bundle: "Bundle",
    weights: str | None = None,
    *,
    device: str = "cpu",
    precision: str = "auto",
    flow: Given | None = None,
) -> LoadedExtractor:
    """The extractor a detector bundle was trained on, with its sampling; embedded weights unless others are given.

    Where the bundle wants RGB and flow but names one of the two extractors, the other one of its family joins in.
    `flow`: GIVEN for flow that is there as pictures, see `load_extractor`.
    """
    fps = bundle.sampling.get("fps")
    rate = None if fps is None else Fraction(fps)
    sampling: dict[str, Any] = {"window": bundle.sampling["window"], "stride": bundle.sampling["stride"]}
    name, streams = bundle.extractor, [stream for stream, _ in bundle.channels]
    if "+" not in name and set(streams) <= set(STREAMS):
        name = with_streams(name, streams)
    if bundle.extractor_weights is not None and weights is None:
        changes = Changes(fps=rate, flow=flow, precision=pick_precision(precision, device), **sampling)
        extractor = build(name, bundle.extractor_weights, device=device, changes=changes)
        return LoadedExtractor(extractor, f"bundle:{bundle.name}", digest(bundle.extractor_weights))
    given = weights or bundle.extractor_checkpoint
    loaded = load_extractor(name, given, device=device, fps=rate, flow=flow, precision=precision, **sampling)
    if weights is None and bundle.extractor_sha256 not in (None, loaded.weights_sha256):
        raise InputError(
            f"detector {bundle.name} was trained on features of other weights of {name} than {loaded.weights}: "
            f"pass --weights FILE, the one with SHA-256 {bundle.extractor_sha256}"
        )
    return loaded


def pick_precision(name: str, device: str) -> str:
    """`auto` becomes bf16 on a GPU that computes in it, else float32. Raises InputError for an unknown name."""
    if name not in ("auto", *PRECISIONS):
        near = difflib.get_close_matches(name, PRECISIONS, n=1, cutoff=0.4) or [", ".join(["auto", *PRECISIONS])]
        raise InputError(f"--precision {name}: no such precision; did you mean {near[0]}?")
    if name != "auto":
        return name
    import torch

    return "bf16" if device.startswith("cuda") and torch.cuda.is_bf16_supported() else "float32"


def digest(state: "Mapping[str, Tensor]") -> str:
    """SHA-256 over names, shapes and values of weights that do not come from a file of their own."""
    total = hashlib.sha256()
    for key in sorted(state):
        array = np.ascontiguousarray(state[key].detach().cpu().numpy())
        total.update(f"{key}{array.dtype}{array.shape}".encode())
        total.update(array.tobytes())
    return total.hexdigest()
