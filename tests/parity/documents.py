"""Fixtures that hold files and an `expected.json` instead of arrays: every number and verdict in it is compared.

What merely describes a case (its name, the subset, the thresholds asked for) is read by the adapters, so it is not
expected back. Everything else is, and nothing beyond it.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

DESCRIPTIONS = (
    "what", "case", "note", "subset", "label_ids", "blocked_videos", "tiou_source", "tiou_thresholds",
    "recall_top_k", "thresholds", "tiou", "k", "max_avg_nr_proposals", "limit_factor", "bins",
    "minimum_normalized_precision",
)  # fmt: skip
RANGE = "mAP_range_over_row_orders"
RANGE_MARGIN = 5e-4


def expected_numbers(folder: Path) -> dict[str, Any]:
    """Leaves of the fixture's expected.json files by path; a nested file's path starts with its folder."""
    leaves: dict[str, Any] = {}
    for file in sorted([*folder.glob("expected.json"), *folder.glob("*/expected.json")]):
        prefix = "" if file.parent == folder else file.parent.name
        leaves |= flat(json.loads(file.read_text()), prefix)
    return leaves


def flat(document: Any, prefix: str = "") -> dict[str, Any]:
    """Numbers, strings and lists of them under their `/`-joined path, descriptions left out."""
    if isinstance(document, dict):
        if RANGE in document:
            # The order of equal scores is undefined here; the range is what the fixture asks for.
            return {f"{prefix}/{RANGE}/{name}": pair for name, pair in document[RANGE].items()}
        items = [(key, inner) for key, inner in document.items() if key not in DESCRIPTIONS]
    elif isinstance(document, list) and document and isinstance(document[0], dict):
        items = list(enumerate(document))
    else:
        return {prefix: document}
    return {
        path: value
        for key, inner in items
        for path, value in flat(inner, f"{prefix}/{key}" if prefix else str(key)).items()
    }


def tolerance(manifest: Mapping[str, Any], path: str) -> float:
    """The manifest's tolerance for a float: by the name in its path, the strictest non-zero one otherwise."""
    rules = {name: value for name, value in manifest["tolerance"].items() if isinstance(value, float) and value}
    named = [value for name, value in rules.items() if name in path.split("/")]
    return named[0] if named else min(rules.values())


def compare(manifest: Mapping[str, Any], folder: Path, outputs: Mapping[str, Any]) -> None:
    """Assert that the outputs are exactly the expected paths, and that each value agrees."""
    expected = expected_numbers(folder)
    assert expected, f"{folder}: no expected.json"
    assert sorted(expected.keys() - outputs.keys()) == [], "expected and not computed"
    assert sorted(outputs.keys() - expected.keys()) == [], "computed and not expected"
    for path, stored in expected.items():
        if f"/{RANGE}/" in path:
            low, high = stored
            assert low - RANGE_MARGIN <= outputs[path] <= high + RANGE_MARGIN, path
            continue
        check_leaf(path, outputs[path], stored, tolerance(manifest, path))


def check_leaf(path: str, computed: Any, stored: Any, atol: float) -> None:
    """Floats (null = NaN) within `atol`, everything else exactly."""
    if stored is None or contains_none(stored):
        stored = np.array(stored, np.float64)
        computed = np.array(computed, np.float64)
    want, got = np.asarray(stored), np.asarray(computed)
    assert got.shape == want.shape, f"{path}: shape {got.shape}, stored {want.shape}"
    if want.dtype.kind == "f":
        np.testing.assert_allclose(got.astype(np.float64), want, rtol=0, atol=atol, err_msg=path)
    else:
        np.testing.assert_array_equal(got, want, err_msg=path)


def contains_none(stored: Any) -> bool:
    return isinstance(stored, list) and any(item is None or contains_none(item) for item in stored)
