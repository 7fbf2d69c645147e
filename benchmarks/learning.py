"""Do both temporal heads learn, and does each of their parts help? mAP on feature sequences with planted actions.

    python benchmarks/learning.py --out rows.jsonl                every variant and seed, one JSON line each
    python benchmarks/learning.py --out rows.jsonl --summary      the table of what is there

A second call goes on where the first one stopped; several may share the work (`--seeds`, `--variants`).

The data: sequences of ROWS rows and CHANNELS channels of white noise (deviation 1), turned by a fixed rotation. Below
the rotation lie SIGNALS pairs of hidden channels. While an action lasts, the first channel of its pair is raised (by
an amount of its own, HEIGHT: faint actions have uncertain borders, so that there is something for a quality head to
tell) and the second is moved up or down by STYLE. That sign is the class; it is one for all actions of a signal in a
sequence, as one video shows one sport, and a single short action tells it in 5 of 6 cases only: others of the same
class have to be looked at, which is what ReAct's relational attention is for. Half of the actions are SHORT, half LONG,
up to 16 times as long, which is what ActionFormer's pyramid is for.

`clear` rows are about the same with every action at CLEAR_HEIGHT and moved by CLEAR_STYLE, so that little is uncertain:
they tell whether a head gets there at all, where the others tell what its parts are worth when it is hard.
`loose labels`: those of training, not of testing, are moved at either end by up to LOOSE of the action's length, as
people mark them: what centre sampling is for.

`oracle`, the ceiling: someone who knows how the data are made. It rotates back, finds the most likely on and off times
of each signal (Viterbi, with the mean height and the true noise and mean durations), and the sign from all rows of the
signal that are on; an action's score is its evidence. `oracle in windows`: the same someone, shown what ReAct is
shown, one window after the other, and merged as ReAct's windows are: the ceiling of ReAct.
`energy`, the floor: no training. Smoothed sum of squares over channels, above a threshold; it cannot tell classes and
lists every segment under all of them.

A variant is trained on sequences of its own seed and scored on others, all variants on the same. `mAP` is THUMOS14's,
averaged over tIoU 0.3 to 0.7.
"""

import argparse
import hashlib
import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from vidtad.evaluation.protocols import protocol_named
from vidtad.evaluation.scoring import evaluate
from vidtad.formats.tables import Annotations, Predictions
from vidtad.heads.actionformer.detector import predict_points
from vidtad.heads.actionformer.training import ActionFormerHead, ActionFormerSequences
from vidtad.heads.react.decoding import REACT as RELEASED
from vidtad.heads.react.decoding import react_detections
from vidtad.heads.react.training import ReActHead, ReActWindows
from vidtad.heads.react.windows import react_windows
from vidtad.models.actionformer import ActionFormer
from vidtad.models.actionformer_config import ActionFormerConfig
from vidtad.models.actionformer_losses import LossConfig
from vidtad.models.react import ReAct, ReActConfig
from vidtad.postprocess import Detections, Nms, point_candidates, soft_nms
from vidtad.training.loop import Schedule, train
from vidtad.training.video import TrainingVideo

ROWS, CHANNELS, SIGNALS = 160, 16, 3
HEIGHT, STYLE = (1.5, 3.5), 0.4
CLEAR_HEIGHT, CLEAR_STYLE = (3.5, 4.5), 1.5
LOOSE = 0.25
SHORT, LONG, IDLE = (4, 8), (16, 64), (3, 30)
TRAINING, TESTING = 240, 60
ROTATION = np.linalg.qr(np.random.default_rng(7).normal(size=(CHANNELS, CHANNELS)))[0]

MERGING = replace(RELEASED, class_agnostic=False)
"""Unlike in THUMOS14, actions of different classes overlap here."""

Detect = Callable[[np.ndarray], Detections]


def planted(seed: int, count: int, height: tuple[float, float] = HEIGHT, shift: float = STYLE) -> list[TrainingVideo]:
    """Sequences with their actions; classes 2 s and 2 s + 1 are those of signal s moved down and up."""
    videos = []
    for number in range(count):
        random = np.random.default_rng((seed, number))
        values, segments, labels = random.normal(size=(ROWS, CHANNELS)), [], []
        for signal in range(SIGNALS):
            start, style = int(random.integers(*IDLE)), int(random.integers(2))
            while True:
                low, high = LONG if random.integers(2) else SHORT
                length = int(random.integers(low, high + 1))
                if start + length >= ROWS:
                    break
                values[start : start + length, 2 * signal] += random.uniform(*height)
                values[start : start + length, 2 * signal + 1] += shift * (2 * style - 1)
                segments.append((start, start + length))
                labels.append(2 * signal + style)
                start += length + int(random.integers(*IDLE))
        rows = (values @ ROTATION.T).astype(np.float32)
        videos.append(TrainingVideo(f"{seed}-{number}", rows, np.array(segments, float), np.array(labels)))
    return videos


def loosely(videos: list[TrainingVideo], seed: int) -> list[TrainingVideo]:
    """The same with both ends of every segment moved by up to LOOSE of its length."""
    random = np.random.default_rng((99, seed))
    moved = []
    for video in videos:
        lengths = (video.segments[:, 1] - video.segments[:, 0])[:, None]
        segments = video.segments + random.uniform(-LOOSE, LOOSE, video.segments.shape) * lengths
        moved.append(replace(video, segments=segments))
    return moved


def oracle(rows: np.ndarray, heights: tuple[float, float] = HEIGHT) -> Detections:
    """The most likely segments of each signal, of someone who knows how the data are made."""
    hidden, height = rows @ ROTATION, float(np.mean(heights))
    leave, enter = 1 / np.mean([*SHORT, *LONG]), 1 / np.mean(IDLE)
    stay = np.log([[1 - enter, enter], [leave, 1 - leave]])
    segments, scores, labels = [], [], []
    for signal in range(SIGNALS):
        evidence = height * hidden[:, 2 * signal] - height**2 / 2
        on = _most_likely(evidence, stay)
        style = int(hidden[on, 2 * signal + 1].sum() > 0)
        edges = np.diff(np.concatenate([[0], on.astype(int), [0]]))
        for start, end in np.flatnonzero(edges).reshape(-1, 2).tolist():
            segments.append((start, end))
            labels.append(2 * signal + style)
            scores.append(1 / (1 + np.exp(-evidence[start:end].mean() * np.sqrt(end - start))))
    return Detections(np.array(segments, float).reshape(-1, 2), np.array(scores), np.array(labels, int))


def _most_likely(evidence: np.ndarray, stay: np.ndarray) -> np.ndarray:
    """Viterbi over off and on: (T,) bool."""
    best, came = np.array([0.0, -np.inf]), np.zeros((len(evidence), 2), int)
    for t, value in enumerate(evidence):
        options = best[:, None] + stay
        came[t], best = options.argmax(0), options.max(0) + np.array([0.0, value])
    on, state = np.zeros(len(evidence), bool), int(best.argmax())
    for t in range(len(evidence) - 1, -1, -1):
        on[t], state = state, came[t, state]
    return on


def energy(rows: np.ndarray) -> Detections:
    """Where the smoothed sum of squares exceeds that of noise by one deviation; every class at once."""
    smooth = np.convolve((rows.astype(np.float64) ** 2).sum(1), np.ones(5) / 5, mode="same")
    limit = CHANNELS + np.sqrt(2 * CHANNELS / 5)
    borders = np.flatnonzero(np.diff(np.concatenate([[0], (smooth > limit).astype(int), [0]]))).reshape(-1, 2)
    scores = np.array([1 - limit / smooth[start:end].mean() for start, end in borders])
    classes = 2 * SIGNALS
    return Detections(
        borders.repeat(classes, 0).astype(float), scores.repeat(classes), np.tile(np.arange(classes), len(borders))
    )


def in_windows(detect: Detect) -> Detect:
    """Detections in every window of ReAct's, merged as ReAct's are."""

    def merged(rows: np.ndarray) -> Detections:
        windows = react_windows(len(rows), REACT.clip_len)
        parts = [detect(rows[window]) for window in windows]
        segments = np.concatenate([part.segments + window.start for part, window in zip(parts, windows, strict=True)])
        scores, labels = (np.concatenate(column) for column in zip(*((p.scores, p.labels) for p in parts), strict=True))
        kept = soft_nms(segments / len(rows), scores, labels, MERGING)
        return kept._replace(segments=kept.segments * len(rows))

    return merged


def score(detect: Detect, videos: list[TrainingVideo]) -> float:
    """Average mAP of a detector on sequences."""
    truth, found = [], []
    for video in videos:
        truth += [(video.name, str(n), *s) for s, n in zip(video.segments.tolist(), video.labels, strict=True)]
        kept = detect(video.values)
        columns = zip(kept.segments.tolist(), kept.labels, kept.scores.tolist(), strict=True)
        found += [(video.name, str(label), *segment, value) for segment, label, value in columns]
    protocol = protocol_named("thumos14")
    return evaluate(Annotations.from_rows(truth), Predictions.from_rows(found), protocol).average_mAP


ACTIONFORMER = ActionFormerConfig(
    in_channels=CHANNELS,
    classes=2 * SIGNALS,
    width=64,
    heads=4,
    stem_layers=1,
    ranges=((0, 4), (4, 8), (8, 16), (16, 1e4)),
    windows=9,
    max_len=ROWS,
)
REACT = ReActConfig(
    in_channels=CHANNELS,
    classes=2 * SIGNALS,
    width=64,
    heads=4,
    decoder_layers=3,
    feed_forward=128,
    queries=30,
    clip_len=96,
)


def actionformer(videos: list[TrainingVideo], seed: int, folder: Path, **changes: object) -> Detect:
    losses = LossConfig(sampling=str(changes.pop("sampling", "centre")))  # type: ignore[arg-type]
    config = replace(ACTIONFORMER, **changes)  # type: ignore[arg-type]
    torch.manual_seed(seed)
    head = ActionFormerHead(ActionFormer(config), ActionFormerSequences(videos, config), losses, batch_size=8)
    schedule = Schedule(epochs=40, lr=2e-3, weight_decay=0.05, decay="cosine", warmup_epochs=5, clip_norm=1.0, ema=0.99)
    head.network.load_state_dict(train(head, schedule, folder, seed=seed).state)
    network = head.network.eval()

    def detect(rows: np.ndarray) -> Detections:
        kept = soft_nms(*point_candidates(*predict_points(network, rows)), Nms())
        return kept._replace(segments=kept.segments.astype(np.float64) + 0.5)

    return detect


def react(videos: list[TrainingVideo], seed: int, folder: Path, epochs: int = 20, **changes: object) -> Detect:
    batch_size, lr = int(str(changes.pop("batch_size", 16))), float(str(changes.pop("lr", 1e-3)))
    config = replace(REACT, **changes)  # type: ignore[arg-type]
    torch.manual_seed(seed)
    data = ReActWindows(videos, config.clip_len)
    head = ReActHead(ReAct(config), data, batch_size=batch_size, contrastive_epochs=2)
    schedule = Schedule(epochs=epochs, lr=lr, decay="cosine", clip_norm=1.0, ema=0.99)
    head.network.load_state_dict(train(head, schedule, folder, seed=seed).state)
    network = head.network.eval()

    @torch.inference_mode()
    def detect(rows: np.ndarray) -> Detections:
        windows = react_windows(len(rows), config.clip_len)
        held = np.zeros((len(windows), config.clip_len, CHANNELS), np.float32)
        lengths = torch.tensor([window.stop - window.start for window in windows])
        for row, window in zip(held, windows, strict=True):
            row[: window.stop - window.start] = rows[window]
        output = network(torch.from_numpy(held), torch.arange(config.clip_len) >= lengths[:, None])
        return react_detections(output.segments[-1].numpy(), output.scores().numpy(), windows, rule=MERGING)

    return detect


VARIANTS: dict[str, tuple[Callable[..., Detect], dict[str, object]]] = {
    "react": (react, {}),
    "react, no relational mask": (react, {"relation": False}),
    "actionformer": (actionformer, {}),
    "actionformer, no pyramid": (actionformer, {"ranges": ((0, 1e4),), "stem_layers": 4}),
    "actionformer, no centre sampling": (actionformer, {"sampling": "all"}),
    "actionformer, loose labels": (actionformer, {}),
    "actionformer, no centre sampling, loose labels": (actionformer, {"sampling": "all"}),
    "react, no quality head": (react, {"quality": False}),
    "react, clear": (react, {}),
    "react, eight times the steps, clear": (react, {"epochs": 40, "batch_size": 4, "lr": 5e-4}),
    "actionformer, clear": (actionformer, {}),
}
"""Without its pyramid ActionFormer keeps as many blocks, all on one level."""


CLEAR = tuple(name for name in VARIANTS if name.endswith("clear"))
UNTRAINED: dict[str, Detect] = {
    "oracle": oracle,
    "energy": energy,
    "oracle in windows": in_windows(oracle),
    "oracle, clear": lambda rows: oracle(rows, CLEAR_HEIGHT),
    "oracle in windows, clear": in_windows(lambda rows: oracle(rows, CLEAR_HEIGHT)),
}
_DATA = (ROWS, CHANNELS, SIGNALS, HEIGHT, STYLE, SHORT, LONG, IDLE, TRAINING, TESTING, CLEAR_HEIGHT, CLEAR_STYLE)
DESIGN = hashlib.sha256(repr((_DATA, ACTIONFORMER, REACT)).encode()).hexdigest()[:8]
"""Changes with data and networks: rows of another design do not count."""


def measure(name: str, seed: int) -> dict[str, object]:
    start = time.process_time()
    how = (CLEAR_HEIGHT, CLEAR_STYLE) if name.endswith("clear") else (HEIGHT, STYLE)
    tests = planted(10_000, TESTING, *how)
    if name in UNTRAINED:
        found = score(UNTRAINED[name], tests)
    else:
        make, changes = VARIANTS[name]
        videos = planted(seed, TRAINING, *how)
        videos = loosely(videos, seed) if name.endswith("loose labels") else videos
        with tempfile.TemporaryDirectory() as folder:
            found = score(make(videos, seed, Path(folder), **changes), tests)
    seconds = round(time.process_time() - start)
    return {"variant": name, "seed": seed, "mAP": round(found, 4), "cpu_s": seconds, "design": DESIGN}


def read_rows(path: Path) -> list[dict[str, object]]:
    lines = path.read_text().splitlines() if path.exists() else []
    return [row for row in map(json.loads, lines) if row["design"] == DESIGN]


def summary(rows: list[dict[str, object]]) -> str:
    """Markdown: a line a variant, mean, each seed, share of the ceiling, and what a part is worth, seed by seed."""
    scores: dict[str, dict[int, float]] = {}
    for row in rows:
        scores.setdefault(str(row["variant"]), {})[int(str(row["seed"]))] = 100 * float(str(row["mAP"]))
    lines = ["| variant | mAP | of the ceiling | seeds | less than the whole, by seed |", "|---|---|---|---|---|"]
    untrained = [[name for name in UNTRAINED if name.endswith("clear") == clear] for clear in (False, True)]
    for name in [*untrained[0], *(v for v in VARIANTS if v not in CLEAR), *untrained[1], *CLEAR]:
        found = scores.get(name, {})
        if not found:
            continue
        head, *changes = name.split(", ")
        kind = [change for change in changes if change in ("loose labels", "clear")]
        whole = scores.get(", ".join([head, *kind]), {}) if len(changes) > len(kind) and kind != ["clear"] else {}
        ceiling = "oracle in windows" if name.startswith("react") else "oracle"
        highest = scores[ceiling + (", clear" if name.endswith("clear") else "")][0]
        lost = [whole[seed] - value for seed, value in found.items() if seed in whole]
        each = ", ".join(f"{value:.1f}" for value in found.values()) if len(found) > 1 else ""
        mean = float(np.mean(list(found.values())))
        beside = f"{np.mean(lost):.1f} ({', '.join(f'{value:.1f}' for value in lost)})" if lost else ""
        lines.append(f"| {name} | {mean:.1f} | {mean / highest:.2f} | {each} | {beside} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="file of rows, read and added to")
    parser.add_argument("--variants", nargs="+", choices=list(VARIANTS), default=list(VARIANTS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--summary", action="store_true", help="print the table of the rows that are there")
    arguments = parser.parse_args()
    if arguments.summary:
        print(summary(read_rows(arguments.out)))
        return
    torch.set_num_threads(arguments.threads)
    wanted = [*((name, 0) for name in UNTRAINED), *((v, s) for s in arguments.seeds for v in arguments.variants)]
    for name, seed in wanted:
        if not any((row["variant"], row["seed"]) == (name, seed) for row in read_rows(arguments.out)):
            line = json.dumps(measure(name, seed))
            with open(arguments.out, "a") as file:
                file.write(line + "\n")
            print(line, flush=True)


if __name__ == "__main__":
    main()
