"""How the stick people move: plans of actions, joint angles over time, joints in space."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.random import Generator

from vidtad.synth.spec import CLASSES, Action, Level

# Angles in radians. f: forward, a: away from the body; el_* turns the forearm against the upper arm.
_SIDE = ("hip_f", "hip_a", "knee", "sh_f", "sh_a", "el_f", "el_a")
ANGLES = (*(f"{side}_{name}" for side in "lr" for name in _SIDE), "lean", "lift", "yaw")
_INDEX = {name: index for index, name in enumerate(ANGLES)}
_REST = {"sh_a": 0.16, "el_f": 0.2, "hip_a": 0.06, "knee": 0.05, "hip_f": 0.025}

# Lengths in body heights.
_UPPER_ARM, _FOREARM, _THIGH, _SHIN, _TORSO, _NECK = 0.17, 0.17, 0.25, 0.25, 0.30, 0.10
SHOULDER, _HIP = 0.115, 0.07
HEAD_RADIUS = 0.07
JOINTS = ("pelvis", "neck", "head", "l_shoulder", "l_elbow", "l_hand", "r_shoulder", "r_elbow", "r_hand",
          "l_hip", "l_knee", "l_foot", "r_hip", "r_knee", "r_foot")  # fmt: skip
_EASE_S = 0.25


@dataclass(frozen=True)
class _Style:
    """How one person does one action: tempo factor, reach (about 1), leading side, way to walk or turn."""

    tempo: float
    reach: float
    side: str
    way: float


def _bump(phase: np.ndarray) -> np.ndarray:
    """0 -> 1 -> 0 over each whole phase."""
    return 0.5 - 0.5 * np.cos(2 * np.pi * phase)


def _both(**angles: np.ndarray | float) -> dict[str, np.ndarray | float]:
    return {f"{side}_{name}": value for side in "lr" for name, value in angles.items()}


def _jump(t: np.ndarray, s: _Style) -> dict[str, np.ndarray | float]:
    phase = (t * 1.05 * s.tempo) % 1.0
    flight = np.clip((phase - 0.4) / 0.5, 0, 1)
    crouch = _bump(np.clip(phase / 0.4, 0, 1)) + 0.4 * _bump(np.clip((phase - 0.9) / 0.1, 0, 1))
    up = np.sin(np.pi * flight)
    return {
        **_both(hip_f=0.75 * crouch, knee=1.3 * crouch),
        **_both(sh_f=-0.5 * crouch + 2.2 * s.reach * up, sh_a=0.2 + 0.3 * up),
        "lean": 0.3 * crouch,
        "lift": 0.2 * s.reach * up,
    }


def _kick(t: np.ndarray, s: _Style) -> dict[str, np.ndarray | float]:
    phase = (t * 1.0 * s.tempo) % 1.0
    back = _bump(np.clip(phase / 0.3, 0, 1))
    out = _bump(np.clip((phase - 0.2) / 0.8, 0, 1))
    other = "l" if s.side == "r" else "r"
    return {
        f"{s.side}_hip_f": -0.5 * back + 1.5 * s.reach * out,
        f"{s.side}_knee": 0.8 * back + 0.15,
        f"{s.side}_sh_f": -0.5 * out,
        f"{other}_sh_f": 0.8 * out,
        "lean": -0.25 * out,
        "yaw": s.way * 1.1,
    }


def _spin(t: np.ndarray, s: _Style) -> dict[str, np.ndarray | float]:
    step = np.sin(2 * np.pi * 1.6 * s.tempo * t)
    return {
        **_both(sh_a=0.55 * s.reach, el_f=0.1),
        "l_hip_f": 0.25 * np.maximum(step, 0),
        "l_knee": 0.5 * np.maximum(step, 0),
        "r_hip_f": 0.25 * np.maximum(-step, 0),
        "r_knee": 0.5 * np.maximum(-step, 0),
    }


def _squat(t: np.ndarray, s: _Style) -> dict[str, np.ndarray | float]:
    down = _bump(t * 0.62 * s.tempo) ** 0.8 * min(s.reach, 1.1)
    return {
        **_both(hip_f=1.6 * down, knee=2.1 * down, hip_a=0.15, sh_f=1.4 * down, el_f=0.1),
        "lean": 0.45 * down,
    }


def _walk(t: np.ndarray, s: _Style) -> dict[str, np.ndarray | float]:
    angle = 2 * np.pi * 0.95 * s.tempo * t
    swing = 0.5 * s.reach * np.sin(angle)
    lag = np.maximum(np.cos(angle), 0)
    lead = np.maximum(-np.cos(angle), 0)
    return {
        "l_hip_f": swing, "r_hip_f": -swing, "l_knee": 0.1 + 0.8 * lag, "r_knee": 0.1 + 0.8 * lead,
        "l_sh_f": -0.9 * swing, "r_sh_f": 0.9 * swing, **_both(el_f=0.4, sh_a=0.08),
        "lean": 0.06, "yaw": s.way * 1.35,
    }  # fmt: skip


def _wave(t: np.ndarray, s: _Style) -> dict[str, np.ndarray | float]:
    beat = np.sin(2 * np.pi * 1.5 * s.tempo * t)
    return {
        f"{s.side}_sh_a": 1.75 + 0.2 * s.reach * beat,
        f"{s.side}_sh_f": 0.15,
        f"{s.side}_el_f": 0.0,
        f"{s.side}_el_a": 0.95 + 0.65 * s.reach * beat,
    }


_MOVES: dict[str, Callable[[np.ndarray, _Style], dict[str, np.ndarray | float]]] = dict(
    zip(CLASSES, (_jump, _kick, _spin, _squat, _walk, _wave), strict=True)
)


@dataclass(frozen=True, eq=False)
class Motion:
    """A plan worked out: `angles` (frames, 17), `travel` (frames,) in body heights, and the actions."""

    angles: np.ndarray
    travel: np.ndarray
    actions: tuple[Action, ...]


def plan(rng: Generator, level: Level, frames: int) -> tuple[Action, ...]:
    """Idle and action stretches in turn. Every boundary lies on a frame, so seconds are exact."""
    fps, frame, last = float(level.fps), 0, ""
    actions: list[Action] = []
    while True:
        idle, length = rng.uniform(*level.idle_seconds), rng.uniform(*level.action_seconds)
        # One stretch in eight follows the one before at once: idle is not the only thing around an action.
        start = frame + max(2, round((0.2 if actions and rng.random() < 0.125 else idle) * fps))
        end = start + round(length * fps)
        if end + round(0.4 * fps) > frames:
            return tuple(actions)
        label = str(rng.choice([name for name in CLASSES if name != last]))
        actions.append(Action(label, float(start / level.fps), float(end / level.fps)))
        frame, last = end, label


def move(rng: Generator, level: Level, frames: int, reach: tuple[float, float]) -> Motion:
    """Draw a plan and act it out. `reach`: how far the person may travel left and right, in body heights."""
    t = np.arange(frames) / float(level.fps)
    angles = _idle(rng, t)
    velocity, at = np.zeros(frames), 0.0
    actions = plan(rng, level, frames)
    for action in actions:
        tempo, side = rng.uniform(*level.speed), str(rng.choice(["l", "r"]))
        style = _Style(tempo, rng.uniform(0.85, 1.15), side, way=float(rng.choice([-1.0, 1.0])))
        envelope = _envelope(t, action)
        if action.label == "walk":
            style, pace = _route(style, action, at, reach)
            velocity += envelope * pace
            at += pace * float(envelope.sum()) / float(level.fps)
        _apply(angles, _MOVES[action.label](t - action.start_s, style), envelope)
        if action.label == "spin":
            angles[:, _INDEX["yaw"]] += _turns(t, action, style)
    if rng.random() < level.decoys:
        _fidget(rng, t, angles, actions)
    travel = np.concatenate([[0.0], np.cumsum(velocity[:-1]) / float(level.fps)])
    return Motion(angles, travel, actions)


def _route(style: _Style, action: Action, at: float, reach: tuple[float, float]) -> tuple[_Style, float]:
    """Walk towards the side that has room; slower where there is little. Returns style and velocity."""
    seconds = action.end_s - action.start_s
    way = style.way
    room = reach[1] - at if way > 0 else at - reach[0]
    if room < 0.35 * seconds:
        left, right = at - reach[0], reach[1] - at
        way, room = (1.0, right) if right > left else (-1.0, left)
    pace = min(0.62 * style.tempo * style.reach, max(room, 0.0) / seconds)
    return replace(style, way=way), way * pace


def _turns(t: np.ndarray, action: Action, style: _Style) -> np.ndarray:
    """Yaw that a spin adds: whole turns, each in about 1.4 s."""
    seconds = action.end_s - action.start_s
    turns = max(1, round(seconds / 1.4 * style.tempo))
    done = np.clip((t - action.start_s) / seconds, 0, 1)
    # A little ease at both ends; mostly even speed.
    done = 0.75 * done + 0.25 * (0.5 - 0.5 * np.cos(np.pi * done))
    # Whole turns leave no trace, so past the end the yaw is what it was.
    return np.where(done < 1, style.way * 2 * math.pi * turns * done, 0.0)


def _envelope(t: np.ndarray, action: Action) -> np.ndarray:
    """How much of an action is on: 0 outside, 1 inside, eased over a quarter of a second within both ends."""
    edge = np.minimum(t - action.start_s, action.end_s - t) / _EASE_S
    edge = np.clip(edge, 0, 1)
    return edge * edge * (3 - 2 * edge)


def _apply(angles: np.ndarray, target: dict[str, np.ndarray | float], envelope: np.ndarray) -> None:
    for name, value in target.items():
        column = angles[:, _INDEX[name]]
        column += envelope * (value - column)


def _idle(rng: Generator, t: np.ndarray) -> np.ndarray:
    """Standing: rest angles with a slow small sway, facing roughly the camera. (frames, 17)"""
    angles = np.zeros((len(t), len(ANGLES)))
    for name, index in _INDEX.items():
        rest = _REST.get(name[2:], 0.0) if name[:2] in ("l_", "r_") else 0.0
        sway = 0.0 if name in ("lift", "yaw") else rng.uniform(0.005, 0.035)
        rate, phase = rng.uniform(0.15, 0.5), rng.uniform(0, 2 * np.pi)
        habit = rng.normal(0, 0.03) if sway else 0.0
        angles[:, index] = rest + habit + sway * np.sin(2 * np.pi * rate * t + phase)
    angles[:, _INDEX["lift"]] = 0.0
    angles[:, _INDEX["yaw"]] = rng.uniform(-0.6, 0.6)
    return angles


def _fidget(rng: Generator, t: np.ndarray, angles: np.ndarray, actions: tuple[Action, ...]) -> None:
    """Unlabelled half-movements in the idle stretches longer than a second."""
    edges = [0.0, *(second for action in actions for second in (action.start_s, action.end_s)), float(t[-1])]
    for start, end in zip(edges[::2], edges[1::2], strict=True):
        if end - start < 1.0:
            continue
        side = str(rng.choice(["l", "r"]))
        choices: tuple[dict[str, np.ndarray | float], ...] = (
            {f"{side}_sh_a": 0.9},
            {"lean": 0.4, **_both(hip_f=0.3, knee=0.3)},
            {"yaw": rng.uniform(-0.8, 0.8)},
        )
        _apply(
            angles,
            choices[int(rng.integers(3))],
            _envelope(t, Action("", start + 0.2, min(end - 0.1, start + 1.4))),
        )


def joints(angles: np.ndarray) -> np.ndarray:
    """(frames, 17) angles -> (frames, 15, 3) joints in body heights: x to the right, y up, z to the viewer.

    The lower foot stands on y = 0 (plus the lift), the pelvis above x = 0, z = 0 before the turn by the yaw.
    """
    column = {name: angles[:, index] for name, index in _INDEX.items()}
    out = {"pelvis": np.zeros((len(angles), 3))}
    torso = np.stack([np.zeros(len(angles)), np.cos(column["lean"]), np.sin(column["lean"])], -1)
    out["neck"] = torso * _TORSO
    out["head"] = torso * (_TORSO + _NECK + 0.01)
    for side, sign in (("l", -1.0), ("r", 1.0)):
        right = np.array([sign, 0.0, 0.0])
        part = {name: column[f"{side}_{name}"] for name in _SIDE}
        out[f"{side}_shoulder"] = torso * (_TORSO - 0.01) + right * SHOULDER
        arm = _direction(part["sh_f"], part["sh_a"], sign)
        out[f"{side}_elbow"] = out[f"{side}_shoulder"] + arm * _UPPER_ARM
        fore = _direction(part["sh_f"] + part["el_f"], part["sh_a"] + part["el_a"], sign)
        out[f"{side}_hand"] = out[f"{side}_elbow"] + fore * _FOREARM
        out[f"{side}_hip"] = np.broadcast_to(right * _HIP, out["pelvis"].shape)
        out[f"{side}_knee"] = out[f"{side}_hip"] + _direction(part["hip_f"], part["hip_a"], sign) * _THIGH
        shin = _direction(part["hip_f"] - part["knee"], part["hip_a"], sign)
        out[f"{side}_foot"] = out[f"{side}_knee"] + shin * _SHIN
    body = np.stack([out[name] for name in JOINTS], 1)
    lowest = np.minimum(out["l_foot"][:, 1], out["r_foot"][:, 1])
    body[..., 1] += (column["lift"] - lowest)[:, None]
    cos, sin = np.cos(column["yaw"])[:, None], np.sin(column["yaw"])[:, None]
    x, z = body[..., 0] * cos + body[..., 2] * sin, body[..., 2] * cos - body[..., 0] * sin
    return np.stack([x, body[..., 1], z], -1)


def _direction(forward: np.ndarray, aside: np.ndarray, sign: float) -> np.ndarray:
    """Unit vector of a limb that hangs straight down at angles 0, 0."""
    cos = np.cos(aside)
    return np.stack([sign * np.sin(aside), -cos * np.cos(forward), cos * np.sin(forward)], -1)
