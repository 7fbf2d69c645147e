"""How closely an output must agree with the stored one: the manifest's `tolerance`, read per kind of fixture."""

import re
from typing import Any

import numpy as np


def bounds(kind: str, manifest: dict[str, Any], name: str, stored: np.ndarray) -> tuple[float, float]:
    """(absolute, relative-to-element) tolerance for the float array `name` of a fixture."""
    rule = manifest["tolerance"]
    if "rel_to_max" in rule:
        return rule["rel_to_max"] * float(np.abs(stored).max(initial=0)), 0.0
    if "scores_segments_atol" in rule and name.split(".")[1] in ("scores", "segments"):
        return rule["scores_segments_atol"], 0.0
    for part in ("dets", "segs", "scores"):
        if part in rule and name.rsplit(".", 1)[-1].startswith(part):
            return rule[part], 0.0
    if "atol" in rule:
        return rule["atol"], rule.get("rtol", 0.0)
    if "rule" in rule:
        return relative_to_max(rule["rule"], name) * float(np.abs(stored).max(initial=0)), 0.0
    if "offsets" in rule or "losses_relative" in rule:
        return actionformer(rule, name)
    for key in (name, "float"):
        if key in rule:
            return first_number(rule[key]), 0.0
    raise AssertionError(f"no rule to read the tolerance of a {kind} fixture: {rule}")


# Words of an output's name, and the entry of an ActionFormer fixture's tolerance that is about it.
ACTIONFORMER = (
    ("stats", "stats_relative"),
    ("segments", "segments_seconds"),
    ("segments", "segments"),
    ("scores", "scores"),
    ("logits", "logits"),
    ("offsets", "offsets"),
    ("backbone", "backbone"),
    ("fpn", "fpn"),
    ("backbone|fpn|projection|neck", "features"),
    ("targets", "targets"),
    ("losses", "losses_relative"),
    ("trajectory", "trajectory_relative"),
    ("grad_clipped", "grad"),
    ("abs_sum", "after_abs_sum_relative"),
    ("after", "after"),
    ("lr_curve", "lr_relative"),
)


def actionformer(rule: dict[str, Any], name: str) -> tuple[float, float]:
    """(absolute, relative) tolerance of an output of an ActionFormer fixture."""
    for words, entry in ACTIONFORMER:
        if entry in rule and re.search(rf"(^|[._])({words})", name):
            return (1e-9, rule[entry]) if entry.endswith("_relative") else (rule[entry], 0.0)
    return 0.0, 1e-7


def relative_to_max(rule: str, name: str) -> float:
    """The factor of a rule such as "max|a-b| <= 1e-4 * max|b| per array (5e-4 for scores), integers exact"."""
    scores = re.search(r"\(([\d.e-]+) for scores\)", rule)
    if scores and "scores" in name:
        return float(scores[1])
    return first_number(rule.split("<=")[1])


def first_number(rule: float | str) -> float:
    return float(re.search(r"\d[\d.]*(e-?\d+)?", str(rule))[0])  # type: ignore[index]


def check_distribution(rule: dict[str, Any], name: str, computed: np.ndarray, stored: np.ndarray) -> None:
    """Assert the bounds of a rule over all elements at once: largest, mean and 99th percentile difference."""
    difference = np.abs(computed.astype(np.float64) - stored.astype(np.float64))
    measured = {
        "max_abs": difference.max(),
        "mean_abs": difference.mean(),
        "p99_abs": np.percentile(difference, 99),
    }
    wrong = {key: (measured[key], rule[key]) for key in measured if key in rule and measured[key] > rule[key]}
    assert not wrong, f"{name}: (measured, allowed) {wrong}"
    assert any(key in rule for key in measured), f"{name}: nothing to compare in {rule}"


def check(kind: str, manifest: dict[str, Any], name: str, computed: np.ndarray, stored: np.ndarray) -> None:
    """Assert that `computed` has the shape of `stored` and agrees with it; integers and booleans exactly."""
    assert computed.shape == stored.shape, f"{name}: shape {computed.shape}, stored {stored.shape}"
    if stored.dtype.kind in "biu":
        np.testing.assert_array_equal(computed, stored, err_msg=name)
        return
    for names, rule in manifest["tolerance"].items():
        if isinstance(rule, dict) and name.split("/")[-1] in names.split(", "):
            return check_distribution(rule, name, computed, stored)
    absolute, relative = bounds(kind, manifest, name, stored)
    np.testing.assert_allclose(
        computed.astype(np.float64), stored.astype(np.float64), atol=absolute, rtol=relative, err_msg=name
    )
