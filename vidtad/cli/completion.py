"""What TAB offers for the values of options and arguments, without waiting for PyTorch."""

import inspect
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, get_args

Words = Callable[[], Iterable[str]]

PRESETS = ("thumos14", "activitynet", "activitynet-i3d", "activitynet-tsp", "epic100-verb", "epic100-noun", "ego4d")
PEOPLE_PRESETS = ("acar-r50", "acar-r101", "action-transformer")
# The tables of these three import PyTorch, which takes seconds; tests/cli/test_completion.py compares the names.
EXTRACTORS = (
    *("i3d", "i3d/flow", "i3d/thumos14", "i3d/thumos14-flow", "i3d/activitynet", "i3d/activitynet-flow"),
    *("i3d/video_features", "i3d/video_features-flow", "tsn", "tsn/flow", "tsn/thumos14", "tsn/thumos14-flow"),
    *("tsn/activitynet", "tsn/activitynet-flow", "r2plus1d/tsp", "r2plus1d/tsp-thumos14", "slowfast"),
    *("slowfast/16x8", "slowfast/4x16", "slowfast/epic", "slowfast/acar-r50", "slowfast/acar-r101", "r3d_18"),
    *("mc3_18", "r2plus1d_18", "s3d", "mvit_v1_b", "mvit_v2_s", "swin3d_t", "swin3d_s", "swin3d_b", "tiny3d"),
)
TRUNKS = (
    *("slowfast/ava", "slowfast/ava-64x2", "slowfast/acar-r50", "slowfast/acar-r101", "slowfast/mmaction2"),
    *("slow/ava", "slowfast/tiny", "i3d/ava", "i3d/tiny"),
)
FLOWS = ("tvl1", "tvl1-torch", "dis", "farneback", "raft", "raft-small")
SUBSETS = ("training", "validation", "test")


def _models() -> Iterable[str]:
    from vidtad.heads.catalogue import list_models

    return [row["name"] for row in list_models()]


def _detectors() -> Iterable[str]:
    from vidtad.heads.catalogue import list_models
    from vidtad.heads.registry import HEADS, converters

    bundles = [row["name"] for row in list_models() if row["kind"] == "bundle"]
    return [*HEADS, *converters(), *bundles]


def _heads() -> Iterable[str]:
    from vidtad.heads.registry import HEADS

    return HEADS


def _trainable() -> Iterable[str]:
    from vidtad.heads.registry import trainable

    return trainable()


def _trainable_on_features() -> Iterable[str]:
    from vidtad.heads.registry import HEADS

    return [name for name in HEADS if HEADS[name].recipe is not None]


def _checkpoints() -> Iterable[str]:
    from vidtad.hub.registry import CHECKPOINTS

    return CHECKPOINTS


def _fetchable() -> Iterable[str]:
    from vidtad.hub.registry import CHECKPOINTS

    return [id for id, checkpoint in CHECKPOINTS.items() if checkpoint.url]


def _formats() -> Iterable[str]:
    from vidtad.formats.interchange import FORMATS

    return FORMATS


def _protocols() -> Iterable[str]:
    from vidtad.evaluation.protocols import PROTOCOLS

    return PROTOCOLS


def _layouts() -> Iterable[str]:
    from vidtad.heads.registry import layouts

    return layouts()


# By a parameter's name, or by COMMAND.NAME where the name alone does not say enough.
OFFERS: Mapping[str, Words | tuple[str, ...]] = {
    "device": ("auto", "cpu", "cuda", "mps"),
    "precision": ("auto", "float32", "bf16", "fp16"),
    "decoder": ("pyav", "decord", "opencv", "torchcodec"),
    "engine": ("local", "ray"),
    "persons": ("fasterrcnn", "fasterrcnn-fast", "hog", "own"),
    "extractor": EXTRACTORS,
    "flow": FLOWS,
    "trunk": TRUNKS,
    "level": ("1", "2", "3"),
    "protocol": _protocols,
    "subset": SUBSETS,
    "ties": ("later_first", "earlier_first"),
    "extract.stream": ("rgb", "flow"),
    "detect.model": _detectors,
    "detect.formats": _formats,
    "train.model": _trainable,
    "train.preset": (*PRESETS, *PEOPLE_PRESETS),
    "train.precision": ("auto", "float32", "bf16"),
    "convert.to": _formats,
    "adopt.model": _trainable_on_features,
    "adopt.preset": PRESETS,
    "demo.model": _heads,
    "models.show.name": _models,
    "models.fetch.names": _fetchable,
    "models.add.name": _checkpoints,
    "models.convert.kind": _layouts,
    "models.convert.preset": PRESETS,
}
SEVERAL = frozenset({"extract.stream", "detect.formats", "convert.to"})
"""Options that take several words with commas between."""


def with_completion(command: Callable[..., Any], name: str | None = None) -> Callable[..., Any]:
    """The command itself, its parameters now with what OFFERS says; paths are left to the shell.

    `name`: how the command is called, its group before it and a dot between; its own name where None.
    """
    name = command.__name__ if name is None else name
    for parameter in inspect.signature(command).parameters.values():
        declared = getattr(parameter.annotation, "__metadata__", ())
        if not declared:
            continue
        key = f"{name}.{parameter.name}"
        words = OFFERS.get(key, OFFERS.get(parameter.name))
        if words is not None:
            declared[0].autocompletion = _offer(words, key in SEVERAL)
        elif _is_path(parameter.annotation.__origin__):
            declared[0].autocompletion = _nothing  # else Typer offers the typed word, and the shell no files
    return command


def _is_path(kind: Any) -> bool:
    return kind is Path or any(_is_path(inner) for inner in get_args(kind))


def _nothing(incomplete: str) -> list[str]:
    """What the shell completes by itself."""
    return []


def _offer(words: Words | tuple[str, ...], several: bool) -> Callable[[str], list[str]]:
    """A function that gives the words that begin as the typed one does, of `several` after the last comma."""

    def offer(incomplete: str) -> list[str]:
        before, comma, begun = incomplete.rpartition(",") if several else ("", "", incomplete)
        try:
            known = list(dict.fromkeys(words() if callable(words) else words))
        except Exception:  # a broken file in the cache: TAB offers nothing, the command itself says what is wrong
            return []
        given = before.split(",")
        return [f"{before}{comma}{word}" for word in known if word.startswith(begun) and word not in given]

    return offer
