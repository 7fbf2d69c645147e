"""Ego4D moment queries: the flat clip table, and submissions with a detection and a retrieval list."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from vidtad.formats import activitynet
from vidtad.formats.tables import Annotations, Findings, Predictions


def is_annotations(document: Any) -> bool:
    """Whether this is a dictionary of clips whose annotations have `start_time` and `end_time`."""
    if not isinstance(document, dict) or "database" in document or not activitynet.is_annotations(document):
        return False
    rows = (row for clip in document.values() if isinstance(clip, dict) for row in clip.get("annotations", []))
    first = next(rows, None)
    return isinstance(first, dict) and "start_time" in first


def annotations(document: Mapping[str, Any], findings: Findings) -> Annotations:
    """Read the flat clip table; times are seconds in the clip."""
    return replace(activitynet.annotations(document, findings), source="ego4d")


def is_predictions(document: Any) -> bool:
    """Whether this is a challenge submission."""
    return isinstance(document, dict) and isinstance(document.get("detect_results"), dict)


def predictions(document: Mapping[str, Any], findings: Findings) -> Predictions:
    """Read a submission; its retrieval list, where present, becomes `retrieval`."""
    detect = activitynet.predictions({"results": document["detect_results"]}, findings)
    retrieve = document.get("retrieve_results")
    if isinstance(retrieve, dict):
        detect = replace(detect, retrieval=activitynet.predictions({"results": retrieve}, Findings()))
    return replace(detect, source="ego4d", findings=findings.result())
