"""How closely an output must agree with the stored one: the manifest's `tolerance`, read per kind of fixture."""

from typing import Any

import numpy as np


def bounds(kind: str, manifest: dict[str, Any], name: str, stored: np.ndarray) -> tuple[float, float]:
    """(absolute, relative-to-element) tolerance for the float array `name` of a fixture."""
    rule = manifest["tolerance"]
    if "rel_to_max" in rule:
        return rule["rel_to_max"] * float(np.abs(stored).max(initial=0)), 0.0
    if "scores_segments_atol" in rule and name.split(".")[1] in ("scores", "segments"):
        return rule["scores_segments_atol"], 0.0
    if "atol" in rule:
        return rule["atol"], rule.get("rtol", 0.0)
    raise AssertionError(f"no rule to read the tolerance of a {kind} fixture: {rule}")


def check(kind: str, manifest: dict[str, Any], name: str, computed: np.ndarray, stored: np.ndarray) -> None:
    """Assert that `computed` has the shape of `stored` and agrees with it; integers and booleans exactly."""
    assert computed.shape == stored.shape, f"{name}: shape {computed.shape}, stored {stored.shape}"
    if stored.dtype.kind in "biu":
        np.testing.assert_array_equal(computed, stored, err_msg=name)
        return
    absolute, relative = bounds(kind, manifest, name, stored)
    np.testing.assert_allclose(
        computed.astype(np.float64), stored.astype(np.float64), atol=absolute, rtol=relative, err_msg=name
    )
