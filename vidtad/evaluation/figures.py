"""Figures of an evaluation as PNG and SVG, with matplotlib (the optional extra `figures`)."""

import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vidtad.errors import InputError
from vidtad.evaluation.result import Evaluation
from vidtad.runtime.files import atomic_write

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# The Okabe-Ito palette: told apart by colour-blind readers too.
COLOURS = ("#009E73", "#56B4E9", "#CC79A7", "#E69F00", "#D55E00", "#999999")
FORMATS = ("png", "svg")
MOST_CLASSES = 60


def save_figures(evaluation: Evaluation, folder: Path, formats: Sequence[str] = FORMATS) -> list[Path]:
    """Write every figure the evaluation has content for; returns the paths.

    Always AP per class and mAP per threshold; with a diagnosis also error profile, gains and sensitivity.
    Raises InputError when matplotlib is not installed or a format is neither `png` nor `svg`.
    """
    wrong = [name for name in formats if name not in FORMATS]
    if wrong:
        raise InputError(f"figure format {wrong[0]!r} is not known; there are {', '.join(FORMATS)}")
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise InputError("figures need matplotlib; install it with: pip install 'vidtad[figures]'") from error
    written = []
    for name, draw in _drawings(evaluation).items():
        figure = Figure(figsize=(8, 4.5), layout="constrained")
        draw(figure)
        for kind in formats:
            path = Path(folder) / f"{name}.{kind}"
            content = io.BytesIO()
            figure.savefig(content, format=kind, dpi=150)
            with atomic_write(path) as file:
                file.write(content.getvalue())
            written.append(path)
    return written


def _drawings(evaluation: Evaluation) -> dict[str, Callable[["Figure"], None]]:
    drawings: dict[str, Callable[[Figure], None]] = {
        "ap_per_class": lambda figure: _per_class(figure, evaluation),
    }
    if len(evaluation.protocol.tiou) > 1:
        drawings["map_per_tiou"] = lambda figure: _per_tiou(figure, evaluation)
    found = evaluation.details.get("diagnosis", {})
    if "false_positives" in found:
        wrong = found["false_positives"]
        drawings["error_profile"] = lambda figure: _profile(figure, wrong["share_by_slice"])
        drawings["error_gain"] = lambda figure: _gain(figure, wrong["average_mAP_N_gain"])
        drawings["sensitivity"] = lambda figure: _sensitivity(figure, found)
    return drawings


def _per_class(figure: "Figure", evaluation: Evaluation) -> None:
    mean = np.nan_to_num(evaluation.ap.mean(axis=1))
    order = np.argsort(mean)[::-1][:MOST_CLASSES]
    axes = figure.subplots()
    axes.bar(range(len(order)), 100 * mean[order], color=COLOURS[1])
    axes.axhline(100 * evaluation.average_mAP, color="black", linewidth=1, label="average mAP")
    axes.set_xticks(range(len(order)), [evaluation.classes[row] for row in order], rotation=90, fontsize=7)
    left_out = len(mean) - len(order)
    axes.set_title("AP per class" + (f" (the best {len(order)}; {left_out} more)" if left_out else ""))
    axes.set_ylabel("average precision (%)")
    axes.legend()


def _per_tiou(figure: "Figure", evaluation: Evaluation) -> None:
    axes = figure.subplots()
    axes.plot(evaluation.protocol.tiou, 100 * evaluation.mAP, marker="o", color=COLOURS[0])
    bands = evaluation.details.get("bootstrap", {}).get("mAP")
    if bands:
        low, high = ([100 * band[end] for band in bands] for end in ("low", "high"))
        axes.fill_between(evaluation.protocol.tiou, low, high, alpha=0.25, color=COLOURS[0], label="95 % interval")
        axes.legend()
    axes.set_xlabel("tIoU threshold")
    axes.set_ylabel("mAP (%)")
    axes.set_ylim(bottom=0)
    axes.set_title(f"mAP, {evaluation.protocol.name}")


def _profile(figure: "Figure", slices: Sequence[Mapping[str, float | None]]) -> None:
    axes = figure.subplots()
    bottom = np.zeros(len(slices))
    for colour, name in zip(COLOURS, slices[0], strict=True):
        height = np.array([100 * (part[name] or 0.0) for part in slices])
        axes.bar([f"{n + 1}G" for n in range(len(slices))], height, bottom=bottom, color=colour, label=name)
        bottom += height
    axes.set_xlabel("best predictions, in units of the number of annotations G")
    axes.set_ylabel("share (%)")
    axes.set_title("What predictions are, by rank")
    figure.legend(loc="outside right upper")


def _gain(figure: "Figure", gain: Mapping[str, float]) -> None:
    axes = figure.subplots()
    names = sorted(gain, key=lambda name: gain[name])
    axes.barh(names, [100 * gain[name] for name in names], color=COLOURS[4])
    axes.set_xlabel("gain in average mAP_N (points) when the error is removed")
    axes.set_title("What mending each error would win")


def _sensitivity(figure: "Figure", found: Mapping[str, Any]) -> None:
    traits = found["characteristics"]
    grid = figure.subplots(2, len(traits), sharey="row", squeeze=False)
    for column, (trait, bins) in enumerate(traits.items()):
        for row, (key, colour) in enumerate((("average_mAP_N", COLOURS[1]), ("missed", COLOURS[3]))):
            heights = [100 * (entry[key] or 0) for entry in bins.values()]
            grid[row][column].bar(list(bins), heights, color=colour)
        grid[0][column].axhline(100 * found["average_mAP_N"], color="black", linewidth=1)
        grid[0][column].set_title(trait)
    grid[0][0].set_ylabel("mAP_N (%)")
    grid[1][0].set_ylabel("missed (%)")
