"""Make the bundles of `vidtad demo --model linear` (acar, acfb, action-transformer) again.

    python scripts/train_people_demo.py --work DIR

Renders clips, trains the heads one after the other (ACAR on the linear head's trunk, frozen; ACFB on ACAR's), and
writes `vidtad/data/demo-HEAD.safetensors`. Every seed is in this file. Stages whose output lies in DIR are skipped;
training that was interrupted goes on. Takes about half an hour of one CPU core.
"""

import argparse
import json
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from vidtad.extractors.person_presets import TRUNKS
from vidtad.heads.person.job import PeopleJob
from vidtad.heads.person.training import Augmentation
from vidtad.hub.bundle import Bundle, load_bundle, save_bundle
from vidtad.models.acar import AcarConfig
from vidtad.models.acfb import REPORTED
from vidtad.models.action_transformer import ActionTransformerConfig
from vidtad.models.roi import LinearConfig
from vidtad.pipelines.train.person import run_people_training
from vidtad.synth import write_people_clips
from vidtad.training.loop import Schedule

ROOT = Path(__file__).resolve().parent.parent
# `vidtad demo`, the benchmark and the tests use seeds below 100 000.
CLIPS = range(100_000, 100_048)
SEED = 7
SIDE = 64  # of the clips themselves: nothing is scaled
SHIPPED = ("linear", "acar", "acfb", "action-transformer")


@dataclass(frozen=True)
class Recipe:
    """How one head is trained: the job, all but its files, and the head whose bundle it starts from."""

    job: PeopleJob
    after: str | None = None


def recipes() -> dict[str, Recipe]:
    """One for each head, over the same clips and the same split."""
    slow = replace(TRUNKS["slowfast/tiny"].convention, window=16, resize=SIDE)
    transformer = replace(TRUNKS["i3d/tiny"].convention, resize=SIDE)
    base = PeopleJob(
        Path(), Path(), Path(), batch=8, val_fraction=0.25, seed=SEED, augmentation=Augmentation(jitter=0.03),
        schedule=_schedule(8),
    )  # fmt: skip
    on_slowfast = replace(base, trunk="slowfast/tiny", weights="random", convention=slow)
    on_i3d = replace(base, trunk="i3d/tiny", weights="random", convention=transformer)
    small = ActionTransformerConfig(
        width=64, feedforward=128, reduced=32, embedding=16, shrink=8, proposals=30, rpn_width=64, dropout=0.1,
        anchors=(16, 24, 32),
    )  # fmt: skip
    sizes = {"reduced": 64, "hidden": 32, "poses": 0}
    return {
        "linear": Recipe(replace(on_slowfast, model="linear", config=LinearConfig())),
        "acar": Recipe(replace(base, model="acar", config=AcarConfig(**sizes), freeze_trunk=True), after="linear"),
        "acfb": Recipe(replace(base, model="acfb", config=replace(REPORTED, **sizes)), after="acar"),
        "action-transformer": Recipe(
            replace(on_i3d, model="action-transformer", config=small, schedule=_schedule(TRANSFORMER_EPOCHS))
        ),
    }


TRANSFORMER_EPOCHS = 16


def _schedule(epochs: int) -> Schedule:
    return Schedule(epochs=epochs, lr=1e-3, decay="cosine", warmup_epochs=1, clip_norm=1.0)


def train(work: Path, name: str) -> Path:
    """Train one head in `work`, with those it starts from, unless that was done. Returns its bundle as trained."""
    recipe, out = recipes()[name], work / f"{name}.safetensors"
    if out.exists():
        return out
    start = None if recipe.after is None else train(work, recipe.after)
    clips = work / "clips"
    if not (clips / "ground_truth.json").exists():
        write_people_clips(clips, CLIPS, "training")
    files = {"annotations": clips / "people.csv", "label_map": clips / "classes.pbtxt", "videos": clips, "out": out}
    began = time.process_time()
    print(f"{name}: training", file=sys.stderr, flush=True)
    result = run_people_training(replace(recipe.job, start=start, **files), progress=_watch)
    assert result.scores is not None
    print(f"{name}: frame mAP {result.scores.average_mAP:.3f} on held-out clips with annotated boxes, "
          f"{(time.process_time() - began) / 60:.1f} CPU minutes in this run", flush=True)  # fmt: skip
    return out


def decoding(name: str) -> dict[str, Any]:
    """How the shipped bundle of a head finds people, and that it tells every score."""
    own = name == "action-transformer"
    return {"action_score": 0.0, **({"persons": "own", "person_score": 0.5} if own else {"persons": "hog"})}


def shipped(name: str, trained: Path) -> Bundle:
    """The bundle as it is shipped: half precision, without batch-norm counters, on generated clips only."""
    bundle = load_bundle(trained)
    training = {
        **bundle.training,
        "data": "generated clips (vidtad.synth.people); nothing recorded",
        "script": "scripts/train_people_demo.py",
        "clips": len(CLIPS),
        "seeds": [CLIPS.start, CLIPS.stop],
    }
    return replace(
        bundle, name=f"demo-{name}", head_weights=_rounded(bundle.head_weights), decoding=decoding(name),
        extractor_weights=_rounded(bundle.extractor_weights or {}), training=training, licence="Apache-2.0",
        demonstration=True,
    )  # fmt: skip


def _rounded(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {key: value.half() for key, value in state.items() if not key.endswith("num_batches_tracked")}


def _watch(record: Mapping[str, Any]) -> None:
    if "evaluation" in record or record["step"] % 50 == 0:
        kept = ("epoch", "step", "steps", "loss", "class", "box", "objectness", "proposal", "i3d_class", "evaluation")
        line = {k: round(v, 4) if isinstance(v, float) else v for k, v in record.items() if k in kept}
        print(json.dumps(line), file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="folder for clips, checkpoints and trained bundles")
    parser.add_argument("--heads", default=",".join(SHIPPED), help="separated by commas")
    parser.add_argument("--out", type=Path, default=ROOT / "vidtad" / "data", help="folder of the shipped bundles")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for name in arguments.heads.split(","):
        trained = train(arguments.work, name)
        path = save_bundle(shipped(name, trained), arguments.out / f"demo-{name}.safetensors")
        print(f"{path}: {path.stat().st_size / 1e6:.2f} MB", flush=True)


if __name__ == "__main__":
    main()
