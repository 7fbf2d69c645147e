"""What training does with each thing that is odd in labels: dropped, cut or kept."""

import re

NO_CLASS = "Ambiguous"
"""A label that is none: what carries it is neither learnt nor scored."""
KINDS = ("train", "validation", "test", "")

_ENDINGS = (
    (re.compile(r"left out"), "dropped"),
    (re.compile(r"\(cut\)|, cut$"), "cut to its video"),
    (re.compile(r"\(used once\)"), "dropped, but for the first"),
)
_KEPT = {
    "duplicate id": "kept: the last one, the others are dropped",
    "row with more cells than the header": "kept, without the further cells",
    "video without a list of segments": "kept, as one in which nothing happens",
    "video without a segment": "kept, as one in which nothing happens",
    "task with several annotations, one is taken": "kept: one of them, the others are dropped",
    "prediction taken where nobody annotated": "kept, as if it had been annotated",
    "task without a frame rate": "kept, at that rate",
    "several attributes give labels": "kept: the labels of all of them",
    "several videos are linked, the first is taken": "kept: the first",
    "video whose labels were moved to its first frame": "kept, moved",
    "segment that overlaps another one of its class": "kept, both",
    "segment shorter than one feature row": "kept",
    "class with fewer than": "kept",
    "two classes that differ in spelling only": "kept, as two classes",
    "video of another length than the labels state": "kept: the length of the file counts",
    "video with several values of": "kept, with the first value",
    "value of `subset` that is not understood": "kept, as without a subset: write training, validation or test",
    "video without a subset among others with one": "kept, for training",
    "labelled video that is not there": "dropped, with its segments",
    "video that the labels do not name": "dropped: it is not used",
}


def fate_of(kind: str) -> str:
    """What `train` does with a finding of this kind, beginning with `dropped`, `cut` or `kept`.

    What a reader could not make sense of is dropped.
    """
    for beginning, fate in _KEPT.items():
        if kind.startswith(beginning) and "left out" not in kind:
            return fate
    return next((fate for pattern, fate in _ENDINGS if pattern.search(kind)), "dropped")


def kind_of(subset: str) -> str:
    """`train`, `validation`, `test`, or "" for a subset that says none of them."""
    name = subset.strip().lower()
    return next((kind for kind in KINDS[:3] if name.startswith(kind[:3]) or name == kind), "")
