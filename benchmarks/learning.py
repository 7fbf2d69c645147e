"""Do both temporal heads learn, and does each of their parts help? mAP on feature sequences with planted actions.

    python benchmarks/learning.py                  every variant, one JSON line each
    python benchmarks/learning.py --seeds 0 1 2 --variants actionformer "actionformer, no pyramid"

The data: sequences of ROWS rows and CHANNELS channels of white noise (deviation 1). Three hidden signals, mixed into
all channels by a fixed rotation, are raised by HEIGHT while an action lasts. A signal carries two classes that differ
in nothing but duration: 4 to 8 rows, or 16 to 48. Nothing else is to be known, so the oracle knows all there is: it
rotates back, finds the most likely on and off times of each signal (Viterbi, with the true height, noise and mean
durations), names a segment by its length, and scores it by its mean evidence. Its mAP is the ceiling noise leaves.

A variant is trained on sequences of its own seed and scored on others, all variants on the same. `ratio` is its mAP
(THUMOS14's, averaged over tIoU 0.3 to 0.7) over the oracle's.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from vidtad.evaluation.protocols import protocol_named
from vidtad.evaluation.scoring import evaluate
from vidtad.formats.tables import Annotations, Predictions
from vidtad.models.actionformer import ActionFormer
from vidtad.models.actionformer_config import ActionFormerConfig
from vidtad.models.actionformer_losses import LossConfig
from vidtad.models.react import ReAct, ReActConfig
from vidtad.pipelines.actionformer_head import predict_points
from vidtad.postprocess import Detections, Nms, point_candidates, react_detections, soft_nms
from vidtad.training.actionformer import ActionFormerHead, ActionFormerSequences
from vidtad.training.loop import Schedule, train
from vidtad.training.react import ReActHead, ReActWindows
from vidtad.training.video import TrainingVideo
from vidtad.windows import react_windows

ROWS, CHANNELS, SIGNALS, HEIGHT = 160, 16, 3, 2.0
SHORT, LONG, BORDER = (4, 8), (16, 48), 12
IDLE = (3, 30)
TRAINING, TESTING = 96, 60
ROTATION = np.linalg.qr(np.random.default_rng(7).normal(size=(CHANNELS, CHANNELS)))[0]

Detect = Callable[[np.ndarray], Detections]


def planted(seed: int, count: int) -> list[TrainingVideo]:
    """Sequences with their actions; class 2 s + 1 is the long one of signal s."""
    videos = []
    for number in range(count):
        random = np.random.default_rng((seed, number))
        values, segments, labels = random.normal(size=(ROWS, CHANNELS)), [], []
        for signal in range(SIGNALS):
            start = int(random.integers(*IDLE))
            while True:
                long = int(random.integers(2))
                length = int(random.integers(LONG[0], LONG[1] + 1) if long else random.integers(SHORT[0], SHORT[1] + 1))
                if start + length >= ROWS:
                    break
                values[start : start + length, signal] += HEIGHT
                segments.append((start, start + length))
                labels.append(2 * signal + long)
                start += length + int(random.integers(*IDLE))
        rows = (values @ ROTATION.T).astype(np.float32)
        videos.append(TrainingVideo(f"{seed}-{number}", rows, np.array(segments, float), np.array(labels)))
    return videos


def oracle(rows: np.ndarray) -> Detections:
    """The most likely segments of each signal, of someone who knows how the data are made."""
    evidence = HEIGHT * (rows @ ROTATION)[:, :SIGNALS] - HEIGHT**2 / 2
    leave, enter = 1 / np.mean([*SHORT, *LONG]), 1 / np.mean(IDLE)
    stay = np.log([[1 - enter, enter], [leave, 1 - leave]])
    segments, scores, labels = [], [], []
    for signal in range(SIGNALS):
        best, came = np.array([0.0, -np.inf]), np.zeros((len(rows), 2), int)
        for t, value in enumerate(evidence[:, signal]):
            options = best[:, None] + stay
            came[t], best = options.argmax(0), options.max(0) + np.array([0.0, value])
        on, state = np.zeros(len(rows) + 2, int), int(best.argmax())
        for t in range(len(rows) - 1, -1, -1):
            on[t + 1], state = state, came[t, state]
        borders = np.flatnonzero(np.diff(on)).reshape(-1, 2)
        for start, end in borders.tolist():
            segments.append((start, end))
            labels.append(2 * signal + int(end - start >= BORDER))
            scores.append(1 / (1 + np.exp(-evidence[start:end, signal].mean() * np.sqrt(end - start))))
    return Detections(np.array(segments, float).reshape(-1, 2), np.array(scores), np.array(labels, int))


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
    schedule = Schedule(
        epochs=50, lr=2e-3, weight_decay=0.05, decay="cosine", warmup_epochs=5, clip_norm=1.0, ema=0.99
    )
    head.network.load_state_dict(train(head, schedule, folder, seed=seed).state)
    network = head.network.eval()

    def detect(rows: np.ndarray) -> Detections:
        kept = soft_nms(*point_candidates(*predict_points(network, rows)), Nms())
        return kept._replace(segments=kept.segments.astype(np.float64) + 0.5)

    return detect


def react(videos: list[TrainingVideo], seed: int, folder: Path, **changes: object) -> Detect:
    config = replace(REACT, **changes)  # type: ignore[arg-type]
    torch.manual_seed(seed)
    head = ReActHead(ReAct(config), ReActWindows(videos, config.clip_len), contrastive_epochs=3)
    schedule = Schedule(epochs=30, lr=1e-3, decay="cosine", clip_norm=1.0, ema=0.99)
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
        return react_detections(output.segments[-1].numpy(), output.scores().numpy(), windows)

    return detect


VARIANTS: dict[str, tuple[Callable[..., Detect], dict[str, object]]] = {
    "actionformer": (actionformer, {}),
    "actionformer, no pyramid": (actionformer, {"ranges": ((0, 1e4),)}),
    "actionformer, no centre sampling": (actionformer, {"sampling": "all"}),
    "react": (react, {}),
    "react, no relational mask": (react, {"relation": False}),
    "react, no quality head": (react, {"quality": False}),
}


def cases(names: list[str], seeds: list[int]) -> Iterator[dict[str, object]]:
    tests = planted(10_000, TESTING)
    ceiling = score(oracle, tests)
    yield {"variant": "oracle", "mAP": round(ceiling, 4)}
    for name in names:
        make, changes = VARIANTS[name]
        found, start = [], time.process_time()
        for seed in seeds:
            with tempfile.TemporaryDirectory() as folder:
                found.append(score(make(planted(seed, TRAINING), seed, Path(folder), **changes), tests))
        seconds = round((time.process_time() - start) / len(seeds))
        ratio = round(float(np.mean(found)) / ceiling, 4)
        each = [round(value, 4) for value in found]
        yield {"variant": name, "mAP": round(float(np.mean(found)), 4), "seeds": each, "ratio": ratio, "cpu_s": seconds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variants", nargs="+", choices=list(VARIANTS), default=list(VARIANTS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    for case in cases(arguments.variants, arguments.seeds):
        print(json.dumps(case), flush=True)


if __name__ == "__main__":
    main()
