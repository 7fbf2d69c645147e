"""What features and people are measured on and against: a video made for it, and loops as one would write them.

For every window they seek to the keyframe before it, decode up to its end, resize, and run the published network in
float32, norms not folded, batch 1; TV-L1 by OpenCV for each pair of the window.
"""

from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

FPS = 30
PEOPLE = ((0.1, 0.1, 0.4, 0.9), (0.35, 0.2, 0.6, 1.0), (0.6, 0.1, 0.95, 0.8))


def write_movie(path: Path, frames: int, height: int) -> None:
    """A texture that a camera pans over; 340x256 as THUMOS14's features want it, else 16:9."""
    import av
    import cv2

    width = 340 if height == 256 else height * 16 // 9 // 2 * 2
    cell = max(1, height // 32)
    grain = np.random.default_rng(0).integers(0, 256, (height // cell + 40, width // cell + 40, 3), np.uint8)
    scene = cv2.resize(grain, None, fx=cell, fy=cell, interpolation=cv2.INTER_CUBIC)
    reach = 15 * cell
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=FPS, options={"preset": "veryfast", "g": "250"})
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        for k in range(frames):
            y, x = int(reach * (1 + np.sin(k / 20))), int(reach * (1 + np.cos(k / 23)))
            picture = np.ascontiguousarray(scene[y : y + height, x : x + width])
            out.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        out.mux(stream.encode(None))


def write_boxes(path: Path, video: Path, seconds: int) -> None:
    """AVA rows of `PEOPLE` at every second of a video."""
    rows = [f"{video.stem},{t},{','.join(map(str, box))}" for t in range(seconds) for box in PEOPLE]
    path.write_text("\n".join(rows) + "\n")


class PlainReader:
    """Any frames of a video by seeking, as with PyAV by hand."""

    def __init__(self, path: Path):
        import av

        self.container = av.open(str(path))
        self.stream = self.container.streams.video[0]
        self.stream.thread_type = "AUTO"

    def frames(self, first: int, count: int) -> Iterator[np.ndarray]:
        """`count` RGB pictures from frame `first` on."""
        assert self.stream.time_base is not None
        self.container.seek(round(first / FPS / self.stream.time_base), stream=self.stream)
        for frame in self.container.decode(self.stream):
            number = round(frame.time * FPS)
            if number >= first + count:
                return
            if number >= first:
                yield frame.to_ndarray(format="rgb24")


class PlainExtraction:
    """One window after the other, each decoded by itself, through the published network."""

    def __init__(self, path: Path, name: str, frames: int, windows: int, stride: int | None = None):
        from vidtad.extractors import PRESETS, random_weights
        from vidtad.pipelines.extract.load import load_extractor

        extractor = load_extractor(name, "random:0", stride=stride, fps=Fraction(FPS)).extractor
        weights = random_weights(name, 0)
        self.reader, self.convention, self.parts = PlainReader(path), extractor.convention, []
        for part in getattr(extractor, "streams", (extractor,)):
            prefix = f"{part.convention.channels[0][0]}."
            own = {key.removeprefix(prefix): value for key, value in weights.items() if key.startswith(prefix)}
            network: Any = PRESETS[part.name].network()
            network.load_state_dict(own or weights)
            self.parts.append((part, network.eval()))
        settings = self.convention
        usable = frames - (settings.flow is not None)
        there = (usable - settings.window) // settings.stride + 1
        self.chosen = np.unique(np.linspace(0, there - 1, min(there, windows)).round().astype(int))
        self.row(0)

    def __call__(self) -> tuple[np.ndarray, np.ndarray]:
        """(numbers of the windows, their rows)."""
        return self.chosen, np.stack([self.row(int(number)) for number in self.chosen])

    def row(self, number: int) -> np.ndarray:
        """The feature row of one window."""
        import torch

        rows, window = [], self.convention.window
        flow = self.convention.flow is not None
        pictures = list(self.reader.frames(number * self.convention.stride, window + flow))
        for part, network in self.parts:
            own = plain_flow(pictures, part.convention) if part.convention.flow else pictures[:window]
            prepared = np.stack([part.prepare(own[pick]) for pick in part.convention.shown])
            clip = torch.from_numpy(prepared).float()
            clip = (clip - torch.tensor(part.convention.mean)) / torch.tensor(part.convention.std)
            with torch.inference_mode():
                rows.append(network.features(clip.permute(3, 0, 1, 2)[None].contiguous())[0].numpy())
        return np.concatenate(rows)


def plain_flow(pictures: list[np.ndarray], settings: Any) -> list[np.ndarray]:
    """TV-L1 between neighbours, one pair after the other, in levels."""
    import cv2

    from vidtad.extractors.preprocess import resized, target_size
    from vidtad.flow import quantise

    size = target_size(*pictures[0].shape[:2], settings.resize, settings.interpolation)
    greys = [cv2.cvtColor(resized(p, size, settings.interpolation), cv2.COLOR_RGB2GRAY) for p in pictures]
    solver = cv2.optflow.DualTVL1OpticalFlow_create()  # type: ignore[attr-defined]
    return [quantise(solver.calc(a, b, None)) for a, b in pairwise(greys)]


def acar_bundle() -> Any:
    """Random weights, the last layer's so small that scores are neither 0 nor 1: differences are to be seen."""
    from vidtad.heads.person.bundle import random_bundle

    bundle = random_bundle("acar")
    weights = dict(bundle.head_weights)
    return replace(bundle, head_weights={**weights, "fc2.weight": weights["fc2.weight"] / 1000})


class PlainPeople:
    """One clip after the other, each decoded by itself, through the published network of `bundle`."""

    def __init__(self, path: Path, frames: int, windows: int, bundle: Any = None, device: str = "cpu"):
        from vidtad.extractors.keyframe_stream import preparation
        from vidtad.heads.person.bundle import convention_of, load_network

        bundle, self.device = bundle or acar_bundle(), device
        self.network, (self.convention, _) = load_network(bundle, device=device), convention_of(bundle)
        self.reader, self.prepare = PlainReader(path), preparation(self.convention)
        last = max(frames // FPS - 2, 1)
        self.chosen = np.unique(np.linspace(min(2, last), last, min(last, windows)).round().astype(int))
        self.row(int(self.chosen[0]))

    def __call__(self) -> tuple[np.ndarray, np.ndarray]:
        """(numbers of the keyframes, scores of the first person at each)."""
        return self.chosen, np.stack([self.row(int(number)) for number in self.chosen])

    def row(self, second: int) -> np.ndarray:
        """Scores of the first person at one keyframe."""
        import torch

        settings = self.convention
        first, rate = settings.first(settings.centre(second)), float(settings.fps)
        numbers = [round((first + k) * FPS / rate) for k in range(0, settings.window, settings.step)]
        decoded = list(self.reader.frames(max(numbers[0], 0), numbers[-1] + 1 - max(numbers[0], 0)))
        pictures = [decoded[min(max(number, 0) - max(numbers[0], 0), len(decoded) - 1)] for number in numbers]
        clip = torch.from_numpy(np.stack([self.prepare(picture)[0] for picture in pictures])).float()
        clip = (clip - torch.tensor(settings.mean)) / torch.tensor(settings.std)
        with torch.inference_mode():
            clips = clip.permute(3, 0, 1, 2)[None].contiguous().to(self.device)
            logits = self.network(clips, [torch.tensor(PEOPLE, device=self.device)])
            found = self.network.scores(logits)[0].cpu().numpy()
        return np.where(found >= 0.01, found, 0.0)
