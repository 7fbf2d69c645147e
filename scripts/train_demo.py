"""Make the bundles of `vidtad demo` again: `python scripts/train_demo.py --work DIR --head react` (or actionformer).

Renders clips, trains the small extractor on their windows, extracts features with it, trains the head and writes
`vidtad/data/demo-HEAD.safetensors`. Every seed is in this file. Stages whose output lies in DIR are skipped.
"""

import argparse
import dataclasses
import itertools
import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vidtad.evaluation import Evaluation, evaluate_files
from vidtad.extractors import PRESETS, ClipExtractor, build
from vidtad.features import Features
from vidtad.heads.actionformer.training import ActionFormerHead, ActionFormerSequences
from vidtad.heads.react.training import ReActHead, ReActWindows
from vidtad.heads.registry import load_detector
from vidtad.hub.bundle import Bundle, save_bundle
from vidtad.models.actionformer import ActionFormer
from vidtad.models.actionformer_config import ActionFormerConfig
from vidtad.models.react import ReAct, ReActConfig
from vidtad.models.tiny3d import EVERY, FEATURES, Tiny3D
from vidtad.pipelines.detect.temporal import detect_features
from vidtad.pipelines.extract.extraction import LoadedExtractor, digest, extract_file
from vidtad.synth import CLASSES, write_clips
from vidtad.timeline import Timeline, merge, write_timeline_json
from vidtad.training.loop import Head, Schedule, train
from vidtad.training.video import TrainingVideo
from vidtad.video import open_video

ROOT = Path(__file__).resolve().parent.parent
# `vidtad demo` and the tests use seeds below 100 000.
SPLITS = {"train": range(100_000, 100_360), "validation": range(200_000, 200_040), "test": range(300_000, 300_050)}
STEPS = 4  # labels of a window: one for each quarter
BATCH, SAMPLES, RATE, SEED = 48, 72_000, 3e-3, 20240

SPLICED = 1500


@dataclass(frozen=True)
class Recipe:
    """How one head is trained: its sizes, the rows of a training sequence, its schedule, and what makes it."""

    config: ReActConfig | ActionFormerConfig
    rows: int
    schedule: Schedule
    make: Callable[[list[TrainingVideo]], Head]


REACT = ReActConfig(
    in_channels=FEATURES, classes=len(CLASSES), width=128, encoder_layers=2, decoder_layers=3, feed_forward=512,
    queries=20, clip_len=96, stride_rate=0.5,
)  # fmt: skip
ACTIONFORMER = ActionFormerConfig(
    in_channels=FEATURES, classes=len(CLASSES), width=128, stem_layers=1, windows=9, max_len=96,
    ranges=((0, 4), (4, 8), (8, 16), (16, 10000)),
)  # fmt: skip


def react_head(videos: list[TrainingVideo]) -> Head:
    data = ReActWindows(videos, REACT.clip_len, REACT.stride_rate, rescale_anchor=True)
    return ReActHead(ReAct(REACT), data, contrastive_epochs=1)


def actionformer_head(videos: list[TrainingVideo]) -> Head:
    return ActionFormerHead(ActionFormer(ACTIONFORMER), ActionFormerSequences(videos, ACTIONFORMER), batch_size=16)


RECIPES = {
    "react": Recipe(
        REACT, REACT.clip_len,
        Schedule(epochs=20, lr=4e-4, decay="cosine", warmup_epochs=0, clip_norm=1.0, ema=0.995, evaluate_from=4),
        react_head,
    ),
    "actionformer": Recipe(
        ACTIONFORMER, ACTIONFORMER.max_len,
        Schedule(epochs=10, lr=6e-4, decay="cosine", warmup_epochs=1, weight_decay=0.05, clip_norm=1.0, ema=0.99,
                 evaluate_from=3),
        actionformer_head,
    ),
}  # fmt: skip


def render_split(work: Path, split: str) -> dict:
    """Write the clips of a split, once. Returns their ActivityNet document."""
    folder = work / "clips" / split
    truth = folder / "ground_truth.json"
    if not truth.exists():
        write_clips(folder, SPLITS[split], 1, subset=split)
    return json.loads(truth.read_text())


def prepared_frames(work: Path, split: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All frames of a split as the extractor prepares them (N, 96, 96, 3) uint8 (memory map), the first frame of each
    clip (clips + 1,), and the class of each frame (N,), the last one being background."""
    database = render_split(work, split)["database"]
    counts = [entry["frames"] for entry in database.values()]
    starts = np.concatenate([[0], np.cumsum(counts)])
    path = work / f"{split}.npy"
    preset = PRESETS["tiny3d"]
    side = preset.convention.crop
    if not path.exists():
        extractor = ClipExtractor("tiny3d", preset.convention, Tiny3D())
        partial = path.with_suffix(".tmp.npy")
        frames = np.lib.format.open_memmap(partial, "w+", np.uint8, (int(starts[-1]), side, side, 3))
        for name, start in zip(database, starts, strict=False):
            with open_video(work / "clips" / split / f"{name}.mp4") as video:
                for offset, frame in enumerate(video):
                    frames[start + offset] = extractor.prepare(frame.rgb())
        frames.flush()
        os.replace(partial, path)
    labels = np.full(int(starts[-1]), len(CLASSES))
    for entry, start in zip(database.values(), starts, strict=False):
        for action in entry["annotations"]:
            first, last = (round(second * entry["fps"]) for second in action["segment"])
            labels[start + first : start + last] = CLASSES.index(action["label"])
    return np.load(path, mmap_mode="r"), starts, labels


class Windows:
    """Random windows with the class shares of their quarters."""

    def __init__(self, frames: np.ndarray, starts: np.ndarray, labels: np.ndarray, window: int):
        self.frames, self.window = frames, window
        self.first = np.concatenate([np.arange(a, b - window + 1) for a, b in itertools.pairwise(starts)])
        self.shares = np.eye(len(CLASSES) + 1, dtype=np.float32)[labels]

    def take(self, numbers: np.ndarray) -> tuple[np.ndarray, Tensor]:
        """Windows by number: the frames the network looks at (B, 8, H, W, 3) uint8, and (B, 4, classes + 1) shares."""
        picked = [slice(first, first + self.window) for first in self.first[numbers]]
        shares = np.stack([self.shares[rows].reshape(STEPS, -1, len(CLASSES) + 1).mean(1) for rows in picked])
        return np.stack([self.frames[rows][::EVERY] for rows in picked]), torch.from_numpy(shares)


def augmented(pictures: np.ndarray, rng: np.random.Generator) -> Tensor:
    """Normalised clips (B, 3, T, H, W) bfloat16, half of them mirrored, each of varied brightness and contrast."""
    convention = PRESETS["tiny3d"].convention
    clips = torch.empty(pictures.shape, dtype=torch.bfloat16)
    for clip, picture in zip(clips, pictures, strict=True):
        picture = picture[:, :, ::-1].copy() if rng.random() < 0.5 else picture
        gain, shift = rng.uniform(0.75, 1.25) / convention.std[0], rng.uniform(-0.15, 0.15)
        clip.copy_(torch.from_numpy(picture)).sub_(convention.mean[0]).mul_(gain).add_(shift)
    return clips.permute(0, 4, 1, 2, 3)


def window_loss(logits: Tensor, shares: Tensor) -> Tensor:
    """Cross entropy of every quarter against its shares of the classes."""
    return -(shares * logits.unflatten(-1, (STEPS, -1)).log_softmax(-1)).sum(-1).mean()


@torch.inference_mode()
def window_accuracy(network: nn.Module, head: nn.Module, windows: Windows) -> float:
    """Share of quarters whose largest class is found, over every 60th window."""
    network.eval()
    normalise = ClipExtractor("tiny3d", PRESETS["tiny3d"].convention, network).normalise
    right = []
    every = np.arange(0, len(windows.first), 60)
    for numbers in np.split(every, range(BATCH, len(every), BATCH)):
        pictures, shares = windows.take(numbers)
        logits = head(network(normalise(pictures))).unflatten(-1, (STEPS, -1))
        right.append((logits.argmax(-1) == shares.argmax(-1)).float().mean(1))
    network.train()
    return float(torch.cat(right).mean())


def train_extractor(work: Path, samples: int = SAMPLES) -> dict[str, Tensor]:
    """Train `Tiny3D` to name the class of each quarter of a window. Returns its state dict."""
    path = work / "tiny3d.pt"
    if path.exists():
        return torch.load(path, weights_only=True)
    torch.manual_seed(SEED)
    rng = np.random.default_rng(SEED)
    window = PRESETS["tiny3d"].convention.window
    train = Windows(*prepared_frames(work, "train"), window)
    validation = Windows(*prepared_frames(work, "validation"), window)
    network = Tiny3D().to(memory_format=torch.channels_last)
    head = nn.Linear(FEATURES, STEPS * (len(CLASSES) + 1))
    parameters = [*network.parameters(), *head.parameters()]
    optimiser = torch.optim.AdamW(parameters, RATE, weight_decay=0.02)
    steps = samples // BATCH
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, steps, pct_start=0.1)
    began, running = time.time(), 0.0
    for step in range(steps):
        pictures, shares = train.take(rng.integers(len(train.first), size=BATCH))
        clips = augmented(pictures, rng)
        with torch.autocast("cpu", torch.bfloat16):
            features = network(clips)
        loss = window_loss(head(nn.functional.dropout(features.float(), 0.2)), shares)
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 5.0)
        optimiser.step()
        schedule.step()
        running += (loss.item() - running) / min(step + 1, 50)
        if step % 100 == 99 or step == steps - 1:
            found = window_accuracy(network, head, validation)
            print(f"extractor step {step + 1}/{steps} loss {running:.3f} validation {found:.3f} "
                  f"{time.time() - began:.0f} s", flush=True)  # fmt: skip
    torch.save(network.state_dict(), path)
    return network.state_dict()


def rounded(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights as they are shipped: half precision, without batch-norm counters."""
    return {key: value.half() for key, value in state.items() if not key.endswith("num_batches_tracked")}


def features_of(work: Path, split: str, state: dict[str, Tensor]) -> dict[str, Features]:
    """Features of every clip of a split, through the same code as `vidtad extract`."""
    loaded = LoadedExtractor(build("tiny3d", state), "bundle:demo", digest(state))
    names = render_split(work, split)["database"]
    clips, out = work / "clips" / split, work / "features" / split
    return {name: extract_file(clips / f"{name}.mp4", loaded, out).features for name in names}


def training_videos(features: dict[str, Features], database: dict) -> list[TrainingVideo]:
    """Clips with their truth in row positions."""
    videos = []
    for name, found in features.items():
        actions = database[name]["annotations"]
        seconds = np.array([action["segment"] for action in actions]).reshape(-1, 2)
        labels = np.array([CLASSES.index(action["label"]) for action in actions])
        videos.append(TrainingVideo(name, found.values, found.grid.positions(seconds) + 0.5, labels))
    return videos


def spliced(videos: list[TrainingVideo], count: int, rows: int, rng: np.random.Generator) -> list[TrainingVideo]:
    """New sequences of up to `rows` rows from pieces of the given ones, cut in the middle of idle stretches."""
    pieces = []
    for video in videos:
        middles = (video.segments[1:, 0] + video.segments[:-1, 1]) / 2
        cuts = [0, *np.rint(middles).astype(int).tolist(), len(video.values)]
        pieces += [(video, part, a, b) for part, (a, b) in enumerate(itertools.pairwise(cuts)) if b > a]
    made = []
    for number in range(count):
        length, values, segments, labels = 0, [], [], []
        for index in rng.permutation(len(pieces))[: int(rng.integers(2, 7))]:
            video, part, a, b = pieces[index]
            if length + b - a > rows:
                break
            values.append(video.values[a:b])
            segments.append(video.segments[part] + length - a)
            labels.append(video.labels[part])
            length += b - a
        if length:
            table = np.array(segments), np.array(labels)
            made.append(TrainingVideo(f"spliced-{number}", np.concatenate(values), *table))
    return made


def detector_bundle(kind: str, network_state: dict[str, Tensor], state: dict[str, Tensor], **more: Any) -> Bundle:
    """The bundle of a head and an extractor, weights as shipped."""
    convention = PRESETS["tiny3d"].convention
    return Bundle(
        name=f"demo-{kind}",
        head=kind,
        head_config=dataclasses.asdict(RECIPES[kind].config),
        classes=CLASSES,
        extractor="tiny3d",
        sampling={"window": convention.window, "stride": convention.stride, "fps": str(convention.fps)},
        channels=convention.channels,
        head_weights=rounded(network_state),
        licence="Apache-2.0",
        demonstration=True,
        extractor_weights=rounded(state),
        **more,
    )


def detections(bundle: Bundle, features: dict[str, Features]) -> Timeline:
    """Timelines of all clips, as `vidtad detect` makes them from features."""
    detector = load_detector(bundle)
    return merge(detect_features(found, detector, name) for name, found in features.items())


def scores_of(bundle: Bundle, features: dict[str, Features], work: Path, split: str) -> tuple[Evaluation, Timeline]:
    """Temporal mAP of a bundle on the features of a split."""
    timeline = detections(bundle, features)
    path = work / f"{split}_timeline.json"
    write_timeline_json(timeline, path)
    return evaluate_files(work / "clips" / split / "ground_truth.json", path, "thumos14"), timeline


def best_display_score(timeline: Timeline, database: dict) -> float:
    """Score whose segments agree best with the truth: highest F1 at tIoU 0.5, one match for each action."""
    found, total = [], 0
    for name, segments in timeline.results.items():
        free = [(action["label"], *action["segment"]) for action in database[name]["annotations"]]
        total += len(free)
        for segment in sorted(segments, key=lambda item: -item.score):
            near = [t for t in free if t[0] == segment.label and _tiou(t[1:], (segment.start_s, segment.end_s)) >= 0.5]
            found.append((segment.score, bool(near)))
            if near:
                free.remove(near[0])
    found.sort(reverse=True)
    hits = np.cumsum([hit for _, hit in found])
    f1 = 2 * hits / (np.arange(1, len(found) + 1) + total)
    print(f"best F1 on validation {f1.max():.3f}", flush=True)
    return round(float(found[int(f1.argmax())][0]), 3)


def _tiou(a: tuple[float, float], b: tuple[float, float]) -> float:
    inside = max(0.0, min(a[1], b[1]) - max(a[0], b[0]))
    return inside / (a[1] - a[0] + b[1] - b[0] - inside)


def train_head(work: Path, kind: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Train a head on the training features. Returns its state dict."""
    recipe = RECIPES[kind]
    database = render_split(work, "train")["database"]
    videos = training_videos(features_of(work, "train", state), database)
    videos += spliced(videos, SPLICED, recipe.rows, np.random.default_rng(SEED))
    validation = features_of(work, "validation", state)
    torch.manual_seed(SEED)

    def evaluate(network: nn.Module) -> dict[str, float]:
        result, _ = scores_of(detector_bundle(kind, network.state_dict(), state), validation, work, "validation")
        return {"average_mAP": result.average_mAP} | {
            f"mAP@{tiou:.1f}": float(value) for tiou, value in zip(result.protocol.tiou, result.mAP, strict=True)
        }

    def progress(record: Mapping[str, Any]) -> None:
        if "evaluation" in record or record["step"] % 50 == 0:
            print({key: round(value, 4) if isinstance(value, float) else value for key, value in record.items()
                   if key in ("epoch", "step", "steps", "loss", "evaluation")}, flush=True)  # fmt: skip

    folder = work / f"head-{kind}"
    return train(recipe.make(videos), recipe.schedule, folder, seed=SEED, progress=progress, evaluate=evaluate).state


def finish(work: Path, kind: str, state: dict[str, Tensor], head: dict[str, Tensor]) -> None:
    """Choose the display score on validation clips, score on test clips, write the bundle."""
    features = features_of(work, "validation", state)
    validation, timeline = scores_of(detector_bundle(kind, head, state), features, work, "validation")
    decoding = {"display_score": best_display_score(timeline, render_split(work, "validation")["database"])}
    test, _ = scores_of(detector_bundle(kind, head, state), features_of(work, "test", state), work, "test")
    training = {
        "data": "generated clips (vidtad.synth, level 1); nothing recorded",
        "script": "scripts/train_demo.py",
        "clips": {split: len(seeds) for split, seeds in SPLITS.items()},
        "seeds": {split: [seeds.start, seeds.stop] for split, seeds in SPLITS.items()},
        "extractor_windows": SAMPLES,
        "seed": SEED,
        "schedule": dataclasses.asdict(RECIPES[kind].schedule),
    }
    scores = {"validation": _scores(validation), "test": _scores(test)}
    bundle = detector_bundle(kind, head, state, decoding=decoding, training=training, scores=scores)
    path = save_bundle(bundle, ROOT / "vidtad" / "data" / f"{bundle.name}.safetensors")
    print(json.dumps(scores, indent=1))
    print(f"{path}: {path.stat().st_size / 1e6:.2f} MB")


def _scores(result: Evaluation) -> dict[str, Any]:
    document = result.to_json()
    kept = ("protocol", "average_mAP", "mAP", "tiou_thresholds", "videos", "instances", "ap")
    return {key: document[key] for key in kept}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="folder for clips, frames, features")
    parser.add_argument("--head", choices=RECIPES, default="react")
    parser.add_argument("--samples", type=int, default=SAMPLES, help="windows to train the extractor on")
    arguments = parser.parse_args()
    state = rounded(train_extractor(arguments.work, arguments.samples))
    finish(arguments.work, arguments.head, state, train_head(arguments.work, arguments.head, state))


if __name__ == "__main__":
    main()
