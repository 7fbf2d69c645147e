"""Drawing a clip: texture, camera, people, light and noise, frame by frame."""

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.random import Generator

from vidtad.synth.pose import HEAD_RADIUS, JOINTS, SHOULDER, Motion, joints, move
from vidtad.synth.spec import Level, PersonTruth, Truth, level_of

_J = {name: index for index, name in enumerate(JOINTS)}
# (from, to, part): part picks the colour and the thickness.
_LIMBS = tuple(
    (f"{side}_{a}", f"{side}_{b}", part)
    for side in "lr"
    for a, b, part in (
        ("shoulder", "elbow", 1),
        ("elbow", "hand", 2),
        ("hip", "knee", 0),
        ("knee", "foot", 0),
    )
)
_SHIFT = 4  # fractional bits of the drawing coordinates
_REACH = 0.45  # furthest a limb gets to one side, in body heights


@dataclass(frozen=True, eq=False)
class _Figure:
    """One person ready to draw: `points` (frames, 15, 2) pixels, `depth` (frames, 15), colours (4, 3) of
    trousers, shirt, skin, outline; thickness, radius of the head and height in pixels."""

    points: np.ndarray
    depth: np.ndarray
    colours: np.ndarray
    thickness: int
    head: float
    tall: float


@dataclass(frozen=True, eq=False)
class _Scene:
    """Everything drawn behind and over the people. `camera` (frames, 2) pixels."""

    canvas: np.ndarray
    margin: int
    camera: np.ndarray
    things: tuple[tuple[np.ndarray, int, tuple[int, int, int], bool], ...]
    gain: np.ndarray
    shade: np.ndarray
    noise: np.ndarray
    noise_at: np.ndarray


def render(seed: int, level: int | Level = 1) -> tuple[Iterator[np.ndarray], Truth]:
    """A clip from its seed: frames (H, W, 3) uint8 RGB one by one, and what is true about it.

    The same seed and level give the same frames. Raises InputError for an unknown level.
    """
    level = level_of(level)
    rng = np.random.default_rng([seed, 0x76696474])
    frames = round(rng.uniform(*level.seconds) * float(level.fps))
    scene = _scene(rng, level, frames)
    people, figures = [], []
    count = int(rng.integers(level.people[0], level.people[1] + 1))
    for number in range(count):
        lane = (number * level.width / count, level.width / count)
        figure, motion = _figure(rng, level, frames, scene, lane)
        people.append(PersonTruth(motion.actions, _boxes(figure, level)))
        figures.append(figure)
    truth = Truth(seed, level.fps, frames, level.width, level.height, tuple(people))
    return (_draw(scene, figures, level, index) for index in range(frames)), truth


def _smooth(rng: Generator, frames: int, every: float, level: Level) -> np.ndarray:
    """(frames, 2) smooth random path of unit variance that turns about every `every` seconds."""
    knots = int(frames / float(level.fps) / every) + 4
    values = rng.normal(size=(knots, 2))
    at = np.arange(frames) / float(level.fps) / every
    left = at.astype(int)
    part = (0.5 - 0.5 * np.cos(np.pi * (at - left)))[:, None]
    return values[left] * (1 - part) + values[left + 1] * part


def _scene(rng: Generator, level: Level, frames: int) -> _Scene:
    pan = np.clip(_smooth(rng, frames, 3.0, level) * level.camera_pan * level.height, -28, 28)
    shake = _smooth(rng, frames, 0.25, level) * level.camera_shake
    margin = 36
    camera = np.clip(pan + shake, -margin + 2, margin - 2)
    size = (level.height + 2 * margin, level.width + 2 * margin)
    things: list[tuple[np.ndarray, int, tuple[int, int, int], bool]] = []
    for _ in range(int(rng.integers(level.clutter[0], level.clutter[1] + 1))):
        start = rng.uniform((0, 0), (level.width, level.height))
        speed = rng.uniform(-14, 14, 2) * (1.0, 0.5)
        path = start + speed * (np.arange(frames) / float(level.fps))[:, None]
        path = np.abs((path + 40) % (2 * (np.array([level.width, level.height]) + 80)) - 40)
        red, green, blue = rng.integers(40, 216, 3).tolist()
        things.append((path, int(rng.integers(4, 14)), (red, green, blue), bool(rng.random() < 0.5)))
    slow = 1 + level.flicker * _smooth(rng, frames, 0.8, level)[:, 0]
    tilt = rng.uniform(-0.15, 0.15, 2)
    down, across = np.linspace(-1, 1, level.height), np.linspace(-1, 1, level.width)
    ramp = down[:, None] * tilt[0] + across[None] * tilt[1]
    noise = np.rint(rng.normal(0, level.noise, (level.height + 32, level.width + 32, 3))).astype(np.int16)
    return _Scene(
        canvas=_texture(rng, size), margin=margin, camera=camera, things=tuple(things), gain=slow,
        shade=np.repeat((1 + ramp)[..., None], 3, -1).astype(np.float32), noise=noise,
        noise_at=rng.integers(0, 32, (frames, 2)),
    )  # fmt: skip


def _texture(rng: Generator, size: tuple[int, int]) -> np.ndarray:
    """A background: cloudy noise at several scales, stripes, boxes and discs, a floor. (H, W, 3) uint8"""
    height, width = size
    image = np.full((height, width, 3), rng.uniform(50, 205) + rng.normal(0, 18, 3), np.float32)
    for cell in (6, 14, 40):
        grid = rng.normal(0, rng.uniform(3, 13), (height // cell + 2, width // cell + 2, 3))
        image += cv2.resize(grid.astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC)
    if rng.random() < 0.5:
        period, angle = rng.uniform(9, 30), rng.uniform(0, np.pi)
        y, x = np.mgrid[:height, :width].astype(np.float32)
        wave = np.sin((x * np.cos(angle) + y * np.sin(angle)) * (2 * np.pi / period))
        image += (np.sign(wave) if rng.random() < 0.5 else wave)[..., None] * rng.uniform(4, 14)
    for _ in range(int(rng.integers(2, 8))):
        x, y = int(rng.integers(width)), int(rng.integers(height))
        side = rng.integers(8, 50, 2)
        colour = tuple(float(value) for value in image.mean((0, 1)) + rng.normal(0, 28, 3))
        if rng.random() < 0.6:
            cv2.rectangle(image, (x, y), (x + int(side[0]), y + int(side[1])), colour, -1)
        else:
            cv2.circle(image, (x, y), int(side[0]) // 2, colour, -1)
    if rng.random() < 0.6:
        image[int(height * rng.uniform(0.6, 0.8)) :] += rng.normal(0, 22, 3).astype(np.float32)
    return np.clip(image, 8, 247).astype(np.uint8)


def _figure(
    rng: Generator, level: Level, frames: int, scene: _Scene, lane: tuple[float, float] | None = None
) -> tuple[_Figure, Motion]:
    """A person within a lane (left edge and width in pixels; default the whole frame), so that none hides another."""
    left, room = lane or (0.0, float(level.width))
    tall = min(rng.uniform(*level.person_height) * level.height, (room - 8) / (2 * _REACH))
    # Room for a raised hand, a jump and the camera's path.
    ground = min(max(rng.uniform(0.84, 0.95) * level.height, 1.22 * tall), 0.95 * level.height)
    aside = min(max(0.28, (_REACH * tall + 4) / room), 0.5)
    home = left + rng.uniform(aside, 1 - aside) * room
    edge = 0.34 * tall + 5
    motion = move(rng, level, frames, ((left + edge - home) / tall, (left + room - edge - home) / tall))
    body = joints(motion.angles)
    across, up = body[..., 0] + motion.travel[:, None], body[..., 1]
    points = np.stack([home + tall * across, ground - tall * up], -1)
    # The operator follows the person: a quarter of the camera's path is left to be seen.
    points -= 0.25 * scene.camera[:, None]
    thickness = max(2, round(tall * rng.uniform(0.04, 0.065)))
    colours = _colours(rng, level, float(scene.canvas.mean()))
    head = HEAD_RADIUS * tall * rng.uniform(0.9, 1.15)
    return _Figure(points, body[..., 2], colours, thickness, head, tall), motion


def _colours(rng: Generator, level: Level, behind: float) -> np.ndarray:
    """Trousers, shirt, skin: each `contrast` brighter or darker than the mean behind; and the outline."""
    rows = []
    for _ in range(3):
        colour = rng.uniform(10, 245, 3)
        low, high = behind - level.contrast, behind + level.contrast
        brighter = (colour.mean() > behind or low < 30) and high < 225
        goal = rng.uniform(high, 245) if brighter else rng.uniform(10, low)
        rows.append(np.clip(colour + goal - colour.mean(), 0, 255))
    rows.append(np.full(3, 15.0 if np.mean(rows) > 110 else 240.0))
    return np.array(rows)


def _boxes(figure: _Figure, level: Level) -> np.ndarray:
    """(frames, 4) float32 hull of what is drawn of a person, in fractions of the frame, clipped to it."""
    pad = figure.thickness / 2 + 2.5
    head, round_head = figure.points[:, _J["head"]], figure.head + 2.5
    low = np.minimum(figure.points.min(1) - pad, head - round_head)
    high = np.maximum(figure.points.max(1) + pad, head + round_head)
    size = np.array([level.width, level.height], np.float64)
    return np.clip(np.concatenate([low / size, high / size], -1), 0, 1).astype(np.float32)


def _draw(scene: _Scene, figures: list[_Figure], level: Level, index: int) -> np.ndarray:
    dx, dy = (float(value) for value in scene.camera[index] + scene.margin)
    matrix = np.array([[1, 0, -dx], [0, 1, -dy]], np.float64)
    image = cv2.warpAffine(scene.canvas, matrix, (level.width, level.height), flags=cv2.INTER_LINEAR)
    for path, radius, colour, disc in scene.things:
        x, y = (int(value) for value in path[index] - scene.camera[index])
        if disc:
            cv2.circle(image, (x, y), radius, colour, -1, cv2.LINE_AA)
        else:
            cv2.rectangle(image, (x - radius, y - radius), (x + radius, y + radius), colour, -1)
    for figure in figures:
        _person(image, figure, index)
    image = cv2.multiply(image, scene.shade * np.float32(scene.gain[index]), dtype=cv2.CV_8U)
    row, column = scene.noise_at[index]
    noise = scene.noise[row : row + level.height, column : column + level.width]
    return cv2.add(image, noise, dtype=cv2.CV_8U)


def _person(image: np.ndarray, figure: _Figure, index: int) -> None:
    """Far limbs first, then the trunk and the head, then near limbs."""
    fixed = np.rint(figure.points[index] * (1 << _SHIFT)).astype(int)
    depth = figure.depth[index]
    colours = figure.colours.astype(int).tolist()
    limbs = sorted((float(depth[_J[a]] + depth[_J[b]]), a, b, part) for a, b, part in _LIMBS)
    trunk_drawn = False
    for near, a, b, part in [*limbs, (9.0, "", "", 0)]:
        if near > 0 and not trunk_drawn:
            _trunk(image, figure, fixed, depth, colours)
            trunk_drawn = True
        if not a:
            continue
        start, end = fixed[_J[a]].tolist(), fixed[_J[b]].tolist()
        cv2.line(image, start, end, colours[3], figure.thickness + 2, cv2.LINE_AA, _SHIFT)
        cv2.line(image, start, end, colours[part], figure.thickness, cv2.LINE_AA, _SHIFT)


def _trunk(image: np.ndarray, figure: _Figure, fixed: np.ndarray, depth: np.ndarray, colours: list) -> None:
    corners = fixed[[_J[name] for name in ("l_shoulder", "r_shoulder", "r_hip", "l_hip")]].astype(np.int32)
    cv2.polylines(image, [corners], True, colours[3], figure.thickness + 2, cv2.LINE_AA, _SHIFT)
    cv2.fillConvexPoly(image, corners, colours[1], cv2.LINE_AA, _SHIFT)
    cv2.polylines(image, [corners], True, colours[1], figure.thickness, cv2.LINE_AA, _SHIFT)
    # Which way the person faces: the line across the shoulders, turned a quarter.
    left, right = _J["l_shoulder"], _J["r_shoulder"]
    facing = (fixed[right, 0] - fixed[left, 0]) / (1 << _SHIFT) / (2 * SHOULDER * figure.tall)
    aside = (depth[left] - depth[right]) / (2 * SHOULDER)
    if facing > 0.15:
        neck, pelvis = fixed[_J["neck"]].tolist(), fixed[_J["pelvis"]].tolist()
        cv2.line(image, neck, pelvis, colours[2], max(1, figure.thickness // 2), cv2.LINE_AA, _SHIFT)
    head = fixed[_J["head"]].tolist()
    radius = int(figure.head * (1 << _SHIFT))
    cv2.circle(image, head, radius, colours[3], 2, cv2.LINE_AA, _SHIFT)
    cv2.circle(image, head, radius, colours[2], -1, cv2.LINE_AA, _SHIFT)
    if facing > -0.2:
        nose = (head[0] + int(0.6 * aside * radius), head[1])
        cv2.circle(image, nose, int(0.35 * radius), colours[3], -1, cv2.LINE_AA, _SHIFT)
