"""Evaluating files: the one call behind `vidtad evaluate`."""

import json
from collections.abc import Collection
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from vidtad.errors import InputError
from vidtad.evaluation.align import Aligned, align
from vidtad.evaluation.confusion import confusions
from vidtad.evaluation.diagnosis import diagnose, diagnosis_json
from vidtad.evaluation.epic import relabel
from vidtad.evaluation.frames import RULES, default_classes, evaluate_frames, frame_diagnosis, match_frames
from vidtad.evaluation.noise import bootstrap, compare
from vidtad.evaluation.proposals import proposal_recall
from vidtad.evaluation.protocols import Protocol, protocol_named
from vidtad.evaluation.result import Evaluation
from vidtad.evaluation.scoring import evaluate
from vidtad.formats.ava import Key, action_names, ava_classes, is_rows, read_boxes, read_excluded, read_label_map
from vidtad.formats.document import read_text
from vidtad.formats.reading import read_annotations, read_predictions
from vidtad.formats.tables import Annotations, Findings, Predictions

ENOUGH_SAMPLES = 1000
TRAINING_PROTOCOL = "thumos14"
"""By which `train` scores segments unless told otherwise."""


@dataclass(frozen=True)
class Extras:
    """What to compute beyond the scores.

    diagnose: the error tables. bootstrap: number of resamplings for confidence intervals, 0 for none.
    against: a second prediction file to compare with. proposals: AR@AN, the labels ignored. seed: of the
    resampling.
    """

    diagnose: bool = False
    bootstrap: int = 0
    against: Path | None = None
    proposals: bool = True
    seed: int = 0


def evaluate_files(
    truth: Path,
    predictions: Path,
    protocol: str | None = None,
    *,
    subset: str | None = None,
    blocked: Path | Collection[str] = (),
    label_map: Path | None = None,
    strict: bool = False,
    extras: Extras = Extras(),
    **rules: Any,
) -> Evaluation:
    """Read both files, whatever their format, and score.

    protocol: name of a preset; None chooses by the ground truth. subset: None chooses by name and
    predictions, and says so in the findings. blocked: video ids to leave out on both sides, or a JSON file
    that lists them; for AVA the exclusions file (`video,second`). label_map: AVA classes that count.
    strict: raise InputError when a serious finding is made. rules: any field of `Protocol` in place of the
    preset's (`tiou`, `ties`, `zero_union`, `duplicates`, `unknown_labels`, ...); None leaves it. Raises
    InputError for unusable files, names and values.
    """
    truth, predictions = Path(truth), Path(predictions)
    preset = protocol_named(protocol) if protocol else None
    if (preset.kind in RULES) if preset else _holds_boxes(truth):
        asked = changed(preset or protocol_named("ava"), rules)
        if subset is not None:
            raise InputError(f"subset {subset!r}: rows of boxes, as in {truth}, name none; leave it out")
        result = _evaluate_boxes(truth, predictions, asked, _excluded(blocked, asked), label_map, extras)
    else:
        if label_map is not None:
            raise InputError(f"{label_map}: a label map is for ground truth of boxes (AVA), which {truth} is not")
        annotations, predicted = read_annotations(truth), read_predictions(predictions)
        asked = changed(preset or detect_protocol(annotations), rules)
        gone = blocked_ids(blocked)
        result = evaluate(annotations, predicted, asked, subset, gone)
        result = add_extras(result, annotations, predicted, gone, extras)
    serious = [finding for finding in result.findings if finding.serious]
    if strict and serious:
        raise InputError("the input is not clean: " + "; ".join(finding.line() for finding in serious))
    return result


def changed(protocol: Protocol, rules: dict[str, Any]) -> Protocol:
    """The preset with some fields replaced. Raises InputError for a field or value that does not exist."""
    known = {field.name for field in fields(Protocol)} - {"name", "kind"}
    for name in rules:
        if name not in known:
            raise InputError(f"evaluation rule {name!r} is not known; there are {', '.join(sorted(known))}")
    given = {name: value for name, value in rules.items() if value is not None}
    if "tiou" in given:
        given["tiou"] = tuple(dict.fromkeys(float(value) for value in given["tiou"]))
    return replace(protocol, **given)


def add_extras(
    result: Evaluation, truth: Annotations, predicted: Predictions, blocked: Collection[str], extras: Extras
) -> Evaluation:
    """The evaluation with the asked tables in `details`: proposals, diagnosis, confusion, bootstrap,
    comparison.
    """
    details: dict[str, Any] = dict(result.details)
    if "tasks" in details:
        truth, predicted = relabel(truth, "action"), relabel(predicted, "action")
    kit = result.protocol.kind.startswith("thumos-kit")
    if kit and (extras.diagnose or extras.bootstrap or extras.against):
        raise InputError("diagnosis, bootstrap and comparison follow the Python rule; use protocol thumos14")

    def aligned(other: Predictions) -> Aligned:
        return align(truth, other, result.protocol, result.subset, blocked)

    own = aligned(predicted)
    if extras.proposals:
        details["proposals"] = proposal_recall(own).to_json()
    if extras.diagnose:
        found = diagnose(own, truth)
        details["diagnosis"] = diagnosis_json(found)
        details["confusion"] = confusions(found)
    if extras.bootstrap:
        details["bootstrap"] = bootstrap(own, extras.bootstrap, extras.seed)
    if extras.against is not None:
        other = read_predictions(extras.against)
        if "tasks" in details:
            other = relabel(other, "action")
        samples = extras.bootstrap or ENOUGH_SAMPLES
        details["comparison"] = compare(own, aligned(other), samples, extras.seed)
    return replace(result, details=details)


def detect_protocol(truth: Annotations) -> Protocol:
    """The preset that ground truth of this kind is usually scored with."""
    if truth.source in ("epic", "ego4d", "multithumos"):
        return protocol_named(truth.source)
    if truth.videos and all(name.startswith(("video_test_", "video_validation_")) for name in truth.videos):
        return protocol_named("thumos14")
    return protocol_named("activitynet")


def chosen_rules(result: Evaluation) -> str | None:
    """Of a protocol that was chosen by the ground truth: which, where `train` scores by another one; else None."""
    protocol = result.protocol
    if protocol.name == TRAINING_PROTOCOL or protocol.kind in RULES:
        return None
    return (
        f"protocol {protocol.name}, chosen by the ground truth; `vidtad train` scores by {TRAINING_PROTOCOL} unless "
        f"told otherwise: pass --protocol {TRAINING_PROTOCOL} to compare with its scores"
    )


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


def _evaluate_boxes(
    truth: Path,
    predictions: Path,
    protocol: Protocol,
    excluded: Collection[Key],
    label_map: Path | None,
    extras: Extras,
) -> Evaluation:
    if extras.bootstrap or extras.against:
        raise InputError("bootstrap and comparison are for segments; frame-mAP has only the diagnosis")
    classes = read_label_map(label_map) if label_map is not None else _named_classes(truth, predictions)
    ids = None if classes is None else {name: number for number, name in classes.items()}
    gt, det = read_boxes(truth, ids), read_boxes(predictions, ids)
    result = evaluate_frames(gt, det, protocol, classes, excluded)
    if not extras.diagnose:
        return result
    counted = classes if classes is not None else default_classes(gt, Findings())
    matching = match_frames(gt, det, protocol, counted, excluded)
    tables = frame_diagnosis(matching, sorted(counted), protocol.ties)
    return replace(result, details={**result.details, "diagnosis": tables})


def _excluded(blocked: Path | Collection[str], protocol: Protocol) -> Collection[Key]:
    """Keyframes to leave out. Raises InputError for names of videos, and under rules that leave out none."""
    if not isinstance(blocked, (str, Path)):
        if blocked:
            raise InputError("of boxes keyframes are left out, not videos: give a file of them, `video,second` a row")
        return ()
    if not RULES[protocol.kind].exclusions:
        able = " or ".join(name for name, rules in RULES.items() if rules.exclusions)
        raise InputError(f"{blocked}: protocol {protocol.name} leaves out no keyframes; use {able}")
    return read_excluded(Path(blocked))


def _named_classes(truth: Path, predictions: Path) -> dict[int, str] | None:
    """Numbers for ground truth whose actions are names: AVA's, if it knows them all. None where they are numbers."""
    names = action_names(truth)
    if not names:
        return None
    if not predictions.is_dir() and _holds_boxes(predictions) and not action_names(predictions):
        raise InputError(f"{predictions} has numbers for actions and {truth} has names: pass --label-map, or timelines")
    known = {entry.name: entry.id for entry in ava_classes()}
    own = {name: number for number, name in enumerate(names, 1)}
    return {number: name for name, number in (known if known.keys() >= set(names) else own).items() if name in names}


def _holds_boxes(truth: Path) -> bool:
    try:
        return truth.is_file() and is_rows(truth.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError):
        return False
