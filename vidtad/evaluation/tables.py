"""An evaluation as tables of text, for a terminal or a page."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from vidtad.evaluation.result import Evaluation

MOST = 15


@dataclass(frozen=True)
class Table:
    """title, column names, rows of text (first column a name, the others numbers), and a line to say below."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


def tables(evaluation: Evaluation) -> list[Table]:
    """Every table the evaluation has content for, the scores first. Figures in percent unless they say
    otherwise.
    """
    return list(_tables(evaluation))


def _tables(evaluation: Evaluation) -> Iterator[Table]:
    details = evaluation.details
    yield score_table(evaluation)
    if "tasks" in details:
        yield _tasks(evaluation)
    if evaluation.mean_recall is not None:
        yield Table(
            "Recall@kx, mean over classes",
            ("k", *_thresholds(evaluation)),
            tuple(
                (f"{k}x", *map(percent, column))
                for k, column in zip(evaluation.protocol.recall_at, evaluation.mean_recall.T, strict=True)
            ),
        )
    if "retrieval" in details:
        found = details["retrieval"]
        rows = zip(found["tiou"], found["recall"], strict=True)
        yield Table(
            "Retrieval recall, over instances (Ego4D)",
            ("tIoU", *found["at"]),
            tuple((f"{tiou:.2g}", *map(percent, row)) for tiou, row in rows),
        )
    if "proposals" in details:
        found = details["proposals"]
        yield Table(
            "Proposals, labels ignored",
            ("", *(f"AR@{n}" for n in found["AR@AN"]), "AUC"),
            (("recall", *map(percent, found["AR@AN"].values()), f"{found['AUC_percent']:.2f}"),),
        )
    if evaluation.ties is not None:
        yield _ties(evaluation)
    if "bootstrap" in details:
        yield _bootstrap(evaluation)
    if "comparison" in details:
        yield from _comparison(details["comparison"])
    if "diagnosis" in details:
        found = details["diagnosis"]
        yield from (_diagnosis(found) if "false_positives" in found else _frame_diagnosis(found))
    if "confusion" in details:
        yield _confusion(details["confusion"])


def score_table(evaluation: Evaluation) -> Table:
    """AP per class and threshold, classes by name, and the means."""
    order = sorted(range(len(evaluation.classes)), key=lambda row: evaluation.classes[row])
    rows = [
        (evaluation.classes[row], *map(percent, evaluation.ap[row]), percent(evaluation.ap[row].mean()))
        for row in order
    ]
    rows.append(("mAP", *map(percent, evaluation.mAP), percent(evaluation.average_mAP)))
    return Table("Average precision", ("class", *_thresholds(evaluation), "mean"), tuple(rows), evaluation.paper_line())


def percent(value: float | None) -> str:
    """Percent with one decimal; `-` for no value."""
    return "-" if value is None or np.isnan(value) else f"{100 * value:.1f}"


def _thresholds(evaluation: Evaluation) -> Iterable[str]:
    return (f"{threshold:.2f}" for threshold in evaluation.protocol.tiou)


def _tasks(evaluation: Evaluation) -> Table:
    tasks = evaluation.details["tasks"]
    return Table(
        "Verb, noun and action mAP",
        ("task", *_thresholds(evaluation), "mean", "classes"),
        tuple(
            (name, *map(percent, task["mAP"]), percent(task["average_mAP"]), str(task["classes"]))
            for name, task in tasks.items()
        ),
    )


def _ties(evaluation: Evaluation) -> Table:
    ties = evaluation.ties
    assert ties is not None
    return Table(
        "Equal scores",
        ("average mAP", ""),
        (
            (f"as reported, {ties.rule.replace('_', ' ')}", f"{100 * evaluation.average_mAP:.2f}"),
            ("ties broken the other way round", f"{100 * ties.other_rule:.2f}"),
            ("least favourable order", f"{100 * ties.lowest:.2f}"),
            ("most favourable order", f"{100 * ties.highest:.2f}"),
        ),
        f"{ties.tied} of {evaluation.predictions} predictions share their score with another one of their class",
    )


def _bootstrap(evaluation: Evaluation) -> Table:
    found = evaluation.details["bootstrap"]
    entries = zip([*_thresholds(evaluation), "average"], [*found["mAP"], found["average_mAP"]], strict=True)
    return Table(
        f"95 % intervals, {found['samples']} resamplings of the videos",
        ("tIoU", "mAP", "low", "high"),
        tuple((name, *(f"{100 * entry[key]:.2f}" for key in ("value", "low", "high"))) for name, entry in entries),
    )


def _comparison(found: Mapping[str, Any]) -> Iterator[Table]:
    change = found["difference"]
    verdict = "more than noise" if found["beyond_noise"] else "within noise"
    yield Table(
        "Comparison, average mAP",
        ("first", "second", "change", "low", "high", "p"),
        (
            (
                f"{100 * found['first']:.2f}",
                f"{100 * found['second']:.2f}",
                *(f"{100 * change[key]:+.2f}" for key in ("value", "low", "high")),
                f"{found['p_value']:.3f}",
            ),
        ),
        f"the difference is {verdict}: 95 % interval over {found['samples']} paired resamplings of the videos",
    )
    for kind in ("classes", "videos"):
        rows = found[kind]
        if rows:
            yield Table(
                f"{kind.capitalize()} that changed most",
                (kind, "first", "second", "change"),
                tuple(
                    (row["name"], percent(row["first"]), percent(row["second"]), f"{100 * row['change']:+.1f}")
                    for row in rows[:MOST]
                ),
                f"{len(rows)} changed",
            )


def _diagnosis(found: Mapping[str, Any]) -> Iterator[Table]:
    wrong = found["false_positives"]
    yield Table(
        "What the best predictions are (10 per annotation), and what mending an error wins",
        ("outcome", "share", "gain in mAP_N"),
        tuple(
            (
                name,
                percent(share),
                f"{100 * wrong['average_mAP_N_gain'][name]:+.1f}" if name in wrong["average_mAP_N_gain"] else "",
            )
            for name, share in wrong["share"].items()
        ),
        f"average mAP_N {100 * found['average_mAP_N']:.2f}",
    )
    yield Table(
        "By rank, in units of the number of annotations",
        ("outcome", *(f"{n + 1}G" for n in range(10))),
        tuple((name, *(percent(part[name]) for part in wrong["share_by_slice"])) for name in wrong["share"]),
    )
    for trait, bins in found["characteristics"].items():
        yield Table(
            f"Annotations by {trait}",
            ("bin", "annotations", "missed", "mAP_N"),
            tuple(
                (label, str(entry["annotations"]), percent(entry["missed"]), percent(entry["average_mAP_N"]))
                for label, entry in bins.items()
            ),
        )
    for pair, rows in found["missed_by_pair"].items():
        yield Table(
            f"Missed annotations by {pair}",
            (pair.partition(" x ")[0], *next(iter(rows.values()))),
            tuple(
                (label, *(f"{percent(entry['missed'])} ({entry['annotations']})" for entry in row.values()))
                for label, row in rows.items()
            ),
            "missed share (annotations there)",
        )


def _frame_diagnosis(found: Mapping[str, Any]) -> Iterator[Table]:
    for trait, bins in found.items():
        yield Table(
            f"Boxes by {trait.replace('_', ' ')}",
            ("bin", "instances", "mAP"),
            tuple((label, str(entry["instances"]), percent(entry["mAP"])) for label, entry in bins.items()),
        )


def _confusion(found: Mapping[str, Any]) -> Table:
    return Table(
        f"Classes taken for one another, tIoU {found['tiou']:.2g}",
        ("predicted as", "is", "count", "at the threshold", "nearby"),
        tuple(
            (row["predicted"], row["truth"], str(row["count"]), str(row["wrong_label"]), str(row["confusion"]))
            for row in found["pairs"][:MOST]
        ),
        f"{len(found['pairs'])} pairs of classes",
    )
