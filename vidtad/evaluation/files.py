"""Evaluating files: the one call behind `vidtad evaluate`."""

import json
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

from vidtad.errors import InputError
from vidtad.evaluation.protocols import Protocol, Ties, protocol_named
from vidtad.evaluation.result import Evaluation
from vidtad.evaluation.scoring import evaluate
from vidtad.formats.document import read_text
from vidtad.formats.reading import read_annotations, read_predictions
from vidtad.formats.tables import Annotations


def evaluate_files(
    truth: Path,
    predictions: Path,
    protocol: str | None = None,
    *,
    subset: str | None = None,
    tiou: Sequence[float] | None = None,
    blocked: Path | Collection[str] = (),
    ties: Ties | None = None,
    strict: bool = False,
) -> Evaluation:
    """Read both files, whatever their format, and score.

    protocol: name of a preset; None chooses by the ground truth. subset: None chooses by name and
    predictions, and says so in the findings. tiou: thresholds in (0, 1] in place of the preset's. blocked:
    video ids to leave out on both sides, or a JSON file that lists them. ties: `later_first` or
    `earlier_first`. strict: raise InputError when a serious finding is made. Raises InputError for unusable
    files, an unknown protocol or subset.
    """
    annotations, predicted = read_annotations(truth), read_predictions(predictions)
    rules = protocol_named(protocol) if protocol else detect_protocol(annotations)
    if tiou is not None:
        rules = replace(rules, tiou=tuple(float(value) for value in tiou))
    if ties is not None:
        rules = replace(rules, ties=ties)
    result = evaluate(annotations, predicted, rules, subset, blocked_ids(blocked))
    serious = [finding for finding in result.findings if finding.serious]
    if strict and serious:
        raise InputError("input is not clean: " + "; ".join(finding.line() for finding in serious))
    return result


def detect_protocol(truth: Annotations) -> Protocol:
    """The preset that ground truth of this kind is usually scored with."""
    if truth.source in ("epic", "ego4d", "multithumos"):
        return protocol_named(truth.source)
    if truth.videos and all(name.startswith(("video_test_", "video_validation_")) for name in truth.videos):
        return protocol_named("thumos14")
    return protocol_named("activitynet")


def blocked_ids(blocked: Path | Collection[str]) -> Collection[str]:
    """Ids from a JSON list, or the collection itself. Raises InputError when the file is no list of names."""
    if not isinstance(blocked, (str, Path)):
        return blocked
    try:
        names = json.loads(read_text(Path(blocked)))
    except ValueError as error:
        raise InputError(f"{blocked}: not valid JSON ({error})") from error
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise InputError(f"{blocked}: not a JSON list of video ids")
    return names
