"""Generated clips of people who act on each other at a distance: three stick people, boxes, who does what when.

Whoever at an end of the picture stretches an arm "hands over" when the person at the other end stretches one too, and
merely "reaches out" when not. The two look alike; what tells them apart is done by another person, far away.
"""

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.random import Generator

from vidtad.runtime.files import atomic_write, still_there, write_json, write_text
from vidtad.synth.spec import Action, Level, PersonTruth, Truth
from vidtad.synth.write import encode, entry, video_id

PEOPLE_CLASSES = ("hand over", "reach out", "squat", "stand")
SHAPE = Level(width=240, height=64, people=(3, 3), noise=4.0, crf=18)
"""Of the clips: only size, rate, noise and compression are used."""
SCENE_S = 3
"""Seconds of a scene, throughout which everyone does one thing."""
SCENES = 6
_SHIFT = 4  # fractional bits of the drawing coordinates


@dataclass(frozen=True)
class _Figure:
    """Where a person stands and how tall they are (pixels), their colour, and the side they look to (1 or -1)."""

    x: float
    tall: float
    colour: tuple[int, int, int]
    facing: int


def render_people(seed: int, scenes: int = SCENES) -> tuple[Iterator[np.ndarray], Truth]:
    """A clip of `scenes` scenes from its seed: frames (64, 240, 3) uint8 RGB one by one, and what is true about it.

    Everyone does one of `PEOPLE_CLASSES` at any time. People are numbered from left to right.
    """
    rng = np.random.default_rng([seed, 0x70656F70])
    coarse = rng.integers(60, 140, (8, 30, 3), np.uint8)
    background = np.asarray(cv2.resize(coarse, (SHAPE.width, SHAPE.height)))
    figures = _figures(rng)
    plan = [_scene(rng) for _ in range(scenes)]
    frames = round(scenes * SCENE_S * SHAPE.fps)
    people = []
    for number, figure in enumerate(figures):
        boxes = [_pose(figure, *_doing(plan, number, frame))[1] for frame in range(frames)]
        scale = np.tile([SHAPE.width, SHAPE.height], 2)
        actions = tuple(
            Action(scene[number], float(k * SCENE_S), float((k + 1) * SCENE_S)) for k, scene in enumerate(plan)
        )
        people.append(PersonTruth(actions, np.clip(np.array(boxes) / scale, 0, 1).astype(np.float32)))
    truth = Truth(seed, SHAPE.fps, frames, SHAPE.width, SHAPE.height, tuple(people))
    noise = np.random.default_rng([seed, 0x6E6F6973])
    return (_draw(background, figures, plan, frame, noise) for frame in range(frames)), truth


def write_people_clips(
    folder: Path,
    seeds: Collection[int],
    subset: str = "test",
    *,
    scenes: int = SCENES,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Render and encode clips: `people_<seed>.mp4`, `ground_truth.json` and `boxes.json` as `write_clips` has them,
    `people.csv` and `classes.pbtxt` in `folder`.

    `people.csv` holds AVA rows `video,second,x1,y1,x2,y2,action,person` at whole seconds, those between two scenes
    left out; `classes.pbtxt` names the numbers of its actions. Returns the ActivityNet document. Raises RunError when a
    file cannot be written.
    """
    folder = Path(folder)
    database, boxes, lines = {}, {}, []
    for count, seed in enumerate(seeds, start=1):
        frames, truth = render_people(seed, scenes)
        name = video_id(seed, "people")
        encode(folder / f"{name}.mp4", frames, SHAPE)
        database[name] = entry(truth, subset)
        boxes[name] = {str(track): np.round(person.boxes.astype(float), 4).tolist()
                       for track, person in enumerate(truth.people)}  # fmt: skip
        lines += [f"{name},{row}" for row in _rows(truth)]
        if progress is not None:
            progress(count, len(seeds))
    document = {"version": "vidtad synth people 1", "database": database}
    write_json(folder / "boxes.json", boxes)
    with atomic_write(folder / "people.csv") as file:
        file.write(("\n".join(lines) + "\n").encode())
    names = enumerate(PEOPLE_CLASSES, start=1)
    write_text(folder / "classes.pbtxt", "".join(f'item {{\n  name: "{n}"\n  id: {i}\n}}\n' for i, n in names))
    write_json(folder / "ground_truth.json", document)
    still_there([folder / "boxes.json", *(folder / f"{name}.mp4" for name in database)])
    return document


def _rows(truth: Truth) -> Iterator[str]:
    for second in range(int(truth.duration_s)):
        if second % SCENE_S == 0:
            continue
        for number, person in enumerate(truth.people):
            box = ",".join(f"{side:.4f}" for side in person.boxes[round(second * float(truth.fps))])
            label = person.actions[second // SCENE_S].label
            yield f"{second:04d},{box},{PEOPLE_CLASSES.index(label) + 1},{number}"


def _figures(rng: Generator) -> list[_Figure]:
    tall = rng.uniform(30, 40, 3)
    places = (rng.uniform(24, 36), rng.uniform(112, 128), rng.uniform(204, 216))
    facing = (1, int(rng.choice([-1, 1])), -1)
    return [
        _Figure(float(x), float(t), (int(c[0]), int(c[1]), int(c[2])), side)
        for x, t, c, side in zip(places, tall, rng.integers(170, 256, (3, 3)), facing, strict=True)
    ]


def _scene(rng: Generator) -> tuple[str, str, str]:
    """What the people on the left, in the middle and on the right do."""
    kind, idle = int(rng.integers(4)), ("stand", "squat")
    left, middle, right = (idle[int(rng.integers(2))] for _ in range(3))
    if kind == 0:
        left = right = "hand over"
    elif kind == 1:
        left = "reach out"
    elif kind == 2:
        right = "reach out"
    return left, middle, right


def _doing(plan: list[tuple[str, str, str]], number: int, frame: int) -> tuple[str, float]:
    """The action of a person at a frame, and how far its scene has got (0-1)."""
    time_s = frame / float(SHAPE.fps)
    return plan[int(time_s // SCENE_S)][number], (time_s % SCENE_S) / SCENE_S


def _pose(figure: _Figure, action: str, phase: float) -> tuple[list[tuple[Any, Any]], tuple[float, ...], float]:
    """Limbs as pairs of points, the box (x1, y1, x2, y2) and the head's height, all in pixels."""
    effort = float(np.sin(np.pi * min(max(phase, 0), 1)) ** 0.5)
    tall, x = figure.tall, figure.x
    low = 0.28 * tall * effort * (0.6 + 0.4 * np.sin(phase * 18)) if action == "squat" else 0.0
    ground = 0.94 * SHAPE.height
    hip, shoulder, head = ground - 0.45 * tall + low, ground - 0.8 * tall + low, ground - 0.91 * tall + low
    arm = effort if action in ("hand over", "reach out") else 0.0
    angle = arm * (np.pi / 2 + 0.15 * np.sin(phase * 25))
    hand = (x + figure.facing * 0.34 * tall * np.sin(angle), shoulder + 0.34 * tall * np.cos(angle))
    limbs: list[tuple[Any, Any]] = [((x, hip), (x, shoulder)), ((x, shoulder), hand)]
    limbs.append(((x, shoulder), (x - figure.facing * 0.06 * tall, shoulder + 0.33 * tall)))
    for side in (-1, 1):
        knee = (x + side * (0.07 * tall + 0.5 * low), (hip + ground) / 2)
        limbs += [((x, hip), knee), (knee, (x + side * 0.08 * tall, ground))]
    across = [point[0] for limb in limbs for point in limb]
    return limbs, (min(across) - 2, head - 0.09 * tall - 1, max(across) + 2, ground + 2), head


def _draw(
    background: np.ndarray, figures: list[_Figure], plan: list[tuple[str, str, str]], frame: int, noise: Generator
) -> np.ndarray:
    picture = background.copy()
    for number, figure in enumerate(figures):
        limbs, _, head = _pose(figure, *_doing(plan, number, frame))
        for start, end in limbs:
            first, last = ((round(16 * x), round(16 * y)) for x, y in (start, end))
            cv2.line(picture, first, last, figure.colour, max(2, round(figure.tall / 14)), cv2.LINE_AA, _SHIFT)
        centre = (round(16 * figure.x), round(16 * head))
        cv2.circle(picture, centre, round(16 * 0.09 * figure.tall), figure.colour, -1, cv2.LINE_AA, _SHIFT)
    noisy = picture + noise.normal(0, SHAPE.noise, picture.shape)
    return np.clip(noisy, 0, 255).astype(np.uint8)
