"""What labels say of their own use: which part a video belongs to, and which label is none."""

import re

NO_CLASS = "Ambiguous"
"""A label that is none: what carries it is neither learnt nor scored."""
KINDS = ("train", "validation", "test", "")
_SAID = {"train": "train", "training": "train", "val": "validation", "valid": "validation", "validation": "validation"}
_SAID |= {"test": "test", "testing": "test"}


def kind_of(subset: str) -> str:
    """`train`, `validation`, `test`, or "" for a subset that says none of them. Its first word counts: `test_1`."""
    return _SAID.get(re.split("[^a-z]", subset.strip().lower(), maxsplit=1)[0], "")
