"""Does each person-box head learn what it is for? Frame mAP on generated clips in which people act at a distance.

Two people at the ends of a wide picture, a third between them. Whoever stretches an arm "hands over" when the other
one stretches an arm too, and merely "reaches out" when not: the two look alike, and what tells them apart is further
away than what a cell of the maps sees. ACAR and ACFB read the very trunk the linear head trained, frozen: what they
gain, they gain by relating people. Prints one JSON line a head: its frame mAP (AVA's rules, box IoU 0.5) against
the linear head's of the same run, with annotated boxes and with boxes the Action Transformer proposed.

    python benchmarks/people_learning.py --clips 60 --epochs 25 --out /tmp/people
"""

import argparse
import csv
import json
import sys
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np

from vidtad.bundle import Bundle
from vidtad.evaluation.frames import evaluate_frames
from vidtad.evaluation.protocols import protocol_named
from vidtad.extractors.person_presets import TRUNKS
from vidtad.formats.ava import Boxes, image_key, people_text, rows
from vidtad.formats.tables import Findings
from vidtad.models.acar import AcarConfig
from vidtad.models.acfb import REPORTED
from vidtad.models.action_transformer import ActionTransformerConfig
from vidtad.models.roi import LinearConfig
from vidtad.pipelines.people.detection import PeopleDetector, PeopleOptions
from vidtad.pipelines.people.training import PeopleJob, run_people_training
from vidtad.timeline import Timeline, write_timeline_json
from vidtad.training.loop import Schedule
from vidtad.training.people import Augmentation

HEIGHT, WIDTH, FPS, SCENE_S, SCENES = 64, 240, 15, 3, 6
CLASSES = ("hand over", "reach out", "squat", "stand")


@dataclass(frozen=True)
class Person:
    """Where a person stands (pixels), how tall they are, and their colour."""

    x: float
    tall: float
    colour: tuple[int, int, int]
    facing: int


def scenes(rng: np.random.Generator) -> list[tuple[str, str, str]]:
    """What the people on the left, in the middle and on the right do in each scene."""
    found = []
    for _ in range(SCENES):
        kind, idle = rng.integers(4), ("stand", "squat")
        left, middle, right = (idle[rng.integers(2)] for _ in range(3))
        if kind == 0:
            left = right = "hand over"
        elif kind == 1:
            left = "reach out"
        elif kind == 2:
            right = "reach out"
        found.append((left, middle, right))
    return found


def draw(picture: np.ndarray, person: Person, action: str, phase: float) -> tuple[float, float, float, float]:
    """Draw one person, `phase` 0-1 through the scene; their box in pixels."""
    effort = float(np.sin(np.pi * min(max(phase, 0), 1)) ** 0.5)
    low = 0.28 * person.tall * effort * (0.6 + 0.4 * np.sin(phase * 18)) if action == "squat" else 0.0
    ground, tall = 0.94 * HEIGHT, person.tall
    hip, shoulder, head = ground - 0.45 * tall + low, ground - 0.8 * tall + low, ground - 0.91 * tall + low
    arm = effort if action in ("hand over", "reach out") else 0.0
    angle = arm * (np.pi / 2 + 0.15 * np.sin(phase * 25))
    hand = (
        person.x + person.facing * 0.34 * tall * np.sin(angle),
        shoulder + 0.34 * tall * np.cos(angle),
    )
    lines = [((person.x, hip), (person.x, shoulder)), ((person.x, shoulder), hand)]
    lines.append(((person.x, shoulder), (person.x - person.facing * 0.06 * tall, shoulder + 0.33 * tall)))
    for side in (-1, 1):
        knee = (person.x + side * (0.07 * tall + 0.5 * low), (hip + ground) / 2)
        lines += [((person.x, hip), knee), (knee, (person.x + side * 0.08 * tall, ground))]
    points = [point for line in lines for point in line]
    for start, end in lines:
        ends = [tuple(round(16 * value) for value in point) for point in (start, end)]
        cv2.line(picture, *ends, person.colour, max(2, round(tall / 14)), cv2.LINE_AA, 4)
    centre = (int(16 * person.x), int(16 * head))
    cv2.circle(picture, centre, int(16 * 0.09 * tall), person.colour, -1, cv2.LINE_AA, 4)
    across = [x for x, _ in points]
    return min(across) - 2, head - 0.09 * tall - 1, max(across) + 2, ground + 2


def write_clip(path: Path, seed: int) -> list[list[Any]]:
    """Render one clip; its labelled rows `video,second,x1,y1,x2,y2,action,person`."""
    rng = np.random.default_rng([seed, 7])
    background = cv2.resize(rng.integers(60, 140, (8, 30, 3), np.uint8), (WIDTH, HEIGHT))
    tall = rng.uniform(30, 40, 3)
    places = (rng.uniform(24, 36), rng.uniform(112, 128), rng.uniform(204, 216))
    people = [
        Person(x, t, tuple(int(c) for c in rng.integers(170, 256, 3)), facing)
        for x, t, facing in zip(places, tall, (1, int(rng.choice([-1, 1])), -1), strict=True)
    ]
    plan, labelled = scenes(rng), []
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=Fraction(FPS), options={"crf": "18", "preset": "veryfast"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for number in range(SCENES * SCENE_S * FPS):
            time_s = number / FPS
            scene, phase = plan[int(time_s // SCENE_S)], (time_s % SCENE_S) / SCENE_S
            picture = background.copy()
            for person, (who, action) in zip(people, enumerate(scene), strict=True):
                box = draw(picture, person, action, phase)
                # Keyframes at whole seconds, those between two scenes left out.
                if number % FPS == 0 and time_s % SCENE_S > 0:
                    x1, y1, x2, y2 = np.clip(np.array(box) / [WIDTH, HEIGHT, WIDTH, HEIGHT], 0, 1).round(4)
                    labelled.append([path.stem, int(time_s), x1, y1, x2, y2, action, who])
            noisy = np.clip(picture + rng.normal(0, 4, picture.shape), 0, 255).astype(np.uint8)
            file.mux(stream.encode(av.VideoFrame.from_ndarray(noisy, format="rgb24")))
        file.mux(stream.encode())
    return labelled


def jobs(folder: Path, epochs: int) -> dict[str, PeopleJob]:
    """One job a head, small networks, all over the same split."""
    slow = replace(TRUNKS["slowfast/tiny"].convention, window=16, resize=(HEIGHT, WIDTH))
    transformer = replace(TRUNKS["i3d/tiny"].convention, resize=(HEIGHT, WIDTH))
    schedule = Schedule(epochs=epochs, lr=1e-3, decay="cosine", warmup_epochs=1, clip_norm=1.0)
    acar = AcarConfig(reduced=64, hidden=32)
    shared = {"val_fraction": 0.25, "batch": 8, "schedule": schedule, "augmentation": Augmentation(jitter=0.03)}
    base = PeopleJob(folder / "labels.csv", folder / "clips", folder / "x.safetensors", **shared)
    slowfast = replace(base, trunk="slowfast/tiny", weights="random", convention=slow)
    found = {
        "linear": replace(slowfast, model="linear", config=LinearConfig()),
        "acar": replace(base, model="acar", config=acar, freeze_trunk=True),
        "acfb": replace(base, model="acfb", config=replace(REPORTED, reduced=64, hidden=32)),
        "action-transformer": replace(
            base,
            model="action-transformer",
            trunk="i3d/tiny",
            weights="random",
            convention=transformer,
            config=ActionTransformerConfig(
                width=64, feedforward=128, reduced=32, embedding=16, shrink=8, proposals=30, rpn_width=64, dropout=0.1
            ),
        ),
    }
    found = {name: replace(job, out=folder / f"{name}.safetensors") for name, job in found.items()}
    found["acar"] = replace(found["acar"], start=found["linear"].out)
    found["acfb"] = replace(found["acfb"], start=found["acar"].out)
    return found


def held_out(bundle: Bundle, folder: Path, held: list[str], boxes: Path | None) -> tuple[float, Timeline]:
    """Frame mAP on the held-out clips with boxes from a file, or (None) the network's own; and its timeline."""
    bundle = replace(bundle, decoding={"action_score": 0.0, "person_score": 0.3})
    options = PeopleOptions(boxes=boxes) if boxes else PeopleOptions(persons="own")
    detector = PeopleDetector(bundle, options)
    timelines = [detector(folder / "clips" / f"{name}.mp4") for name in held]
    people = {name: found for timeline in timelines for name, found in timeline.people.items()}
    whole = Timeline({}, {n: t.videos[n] for t in timelines for n in t.videos}, timelines[0].detector, people)
    found = rows(people_text(whole), Findings())
    ids = {name: number for number, name in enumerate(bundle.classes, 1)}
    truth: list[tuple[Any, ...]] = []
    with open(folder / "labels.csv") as file:
        for row in csv.reader(file):
            if row[0] in held:
                truth.append((image_key(row[0], float(row[1])), [float(side) for side in row[2:6]], ids[row[6]]))
    images = {image: number for number, image in enumerate(dict.fromkeys(t[0] for t in truth))}
    gt = Boxes(
        tuple(images),
        np.array([images[t[0]] for t in truth]),
        np.array([t[1] for t in truth]),
        np.array([t[2] for t in truth]),
        np.zeros(len(truth)),
    )
    return evaluate_frames(gt, found, protocol_named("ava"), dict(enumerate(bundle.classes, 1))).average_mAP, whole


def main() -> None:
    """Generate, train every head, evaluate, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=int, default=60)
    parser.add_argument("--epochs", type=int, default=25)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--heads", default="linear,acar,acfb,action-transformer")
    parser.add_argument("--device", default="cpu")
    given = parser.parse_args()
    folder = given.out
    (folder / "clips").mkdir(parents=True, exist_ok=True)
    if not (folder / "labels.csv").exists():
        labelled = [
            row for seed in range(given.clips) for row in write_clip(folder / "clips" / f"c{seed:03}.mp4", seed)
        ]
        with open(folder / "labels.csv", "w", newline="") as file:
            csv.writer(file).writerows(labelled)
    trained = {}
    for name, job in jobs(folder, given.epochs).items():
        if name in given.heads.split(","):
            print(f"training {name}", file=sys.stderr)
            trained[name] = run_people_training(replace(job, device=given.device), progress=_watch)
    proposed: Path | None = None
    held = sorted(path.stem for path in (folder / "clips").glob("*.mp4"))
    held = [name for name in held if name in _held(trained)]
    if "action-transformer" in trained:
        _, timeline = held_out(trained["action-transformer"].bundle, folder, held, None)
        if any(timeline.people.values()):
            proposed = folder / "proposed.json"
            write_timeline_json(timeline, proposed)
    first: dict[str, float] = {}
    for name, result in trained.items():
        assert result.scores is not None
        per_class = {c: round(float(ap[0]), 3) for c, ap in zip(result.scores.classes, result.scores.ap, strict=True)}
        line: dict[str, Any] = {"case": f"{name}, annotated boxes", "ours": round(result.scores.average_mAP, 4)}
        _say(line | {"per_class": per_class}, first, "given")
        if proposed is not None:
            score, _ = held_out(result.bundle, folder, held, proposed)
            _say({"case": f"{name}, proposed boxes", "ours": round(score, 4)}, first, "found")


def _say(line: dict[str, Any], first: dict[str, float], kind: str) -> None:
    base = first.setdefault(kind, line["ours"])
    print(json.dumps(line | {"baseline": base, "ratio": round(line["ours"] / base, 3)}), flush=True)


def _held(trained: dict[str, Any]) -> set[str]:
    return {name for result in trained.values() for name in result.held}


def _watch(record: Any) -> None:
    if record.get("step", 1) % 50 == 0 and "loss" in record:
        print(f"  step {record['step']}/{record['steps']} loss {record['loss']:.4f}", file=sys.stderr)


if __name__ == "__main__":
    main()
