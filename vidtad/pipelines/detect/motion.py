"""`--model motion`: something happens from here to there. Nothing is trained, any footage will do.

Optical flow at a small size, the camera's motion taken out, what is left held against the scene's usual restlessness.
"""

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vidtad import __version__
from vidtad.arrays import is_array
from vidtad.errors import InputError
from vidtad.flow import DIS_LEAST_PX, grey
from vidtad.flow.camera import residual
from vidtad.heads.motion import MotionSettings, motion_segments
from vidtad.hub.bundle import Bundle
from vidtad.hub.fields import known_fields
from vidtad.pipelines.detect.worker import Job, Worker
from vidtad.pipelines.extract.extraction import expected_frames
from vidtad.progress import Progress
from vidtad.runtime.sources import Source
from vidtad.timeline import Segment, Timeline
from vidtad.video import Frame, open_video, probe


@dataclass(frozen=True)
class Step:
    """What moved between two pictures: percent of the picture's diagonal a second, NaN where the shot changes.

    `frames`: pictures read so far.
    """

    start_s: float
    end_s: float
    energy: float
    frames: int


def steps(frames: Iterable[Frame], settings: MotionSettings = MotionSettings()) -> Iterator[Step]:
    """How much moves from each picture to the next one at least `every_s` later. Two pictures are held at a time."""
    import cv2

    solver = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_FAST)  # type: ignore[attr-defined]
    before: tuple[float, np.ndarray] | None = None
    for count, frame in enumerate(frames, start=1):
        # A hair of slack, so that rates which are a multiple of the wanted one are met exactly.
        if before is not None and frame.time_s - before[0] < settings.every_s - 0.002:
            continue
        scale = min(1.0, settings.side_px / min(frame.height, frame.width))
        size = (max(DIS_LEAST_PX, round(frame.height * scale)), max(DIS_LEAST_PX, round(frame.width * scale)))
        picture = cv2.GaussianBlur(grey(frame.rgb(size)), (5, 5), 0)
        if before is not None:
            found = residual(before[1], picture, solver.calc(before[1], picture, None))
            per_second = 100 / float(np.hypot(*picture.shape)) / (frame.time_s - before[0])
            energy = np.nan if found.cut else found.energy() * per_second
            yield Step(before[0], frame.time_s, float(energy), count)
        before = frame.time_s, picture


class MotionWorker(Worker):
    """For detection of motion alone: videos only."""

    def __init__(self, bundle: Bundle, job: Job):
        super().__init__(bundle, job)
        self.settings: MotionSettings = known_fields(MotionSettings, bundle.decoding, f"bundle {bundle.name}: decoding")
        if len(bundle.classes) != 1:
            raise InputError(f"bundle {bundle.name}: motion has one class name, not {len(bundle.classes)}")
        if job.weights is not None:
            raise InputError(f"detector {bundle.name} has no weights: leave out --weights")

    @property
    def display_score(self) -> float:
        """Score from which a table shows a segment."""
        return max(self.job.min_score, self.settings.display_score)

    def timeline(self, path: Path, progress: Progress) -> Timeline:
        """As calling, for the one process that has claimed the output."""
        if is_array(path):
            raise InputError(
                f"{path}: detector {self.bundle.name} looks at pictures, not at features; give it the video itself"
            )
        probe(path, fps=self.job.decoding.assumed_fps)  # a clear sentence before the file's bytes are hashed
        source = Source(path)
        identity = self._identity(source)
        return self.finished_or(path, identity, lambda: self._detect(source, identity, progress))

    def _detect(self, source: Source, identity: dict[str, Any], progress: Progress) -> Timeline:
        path, decoding = source.path, self.job.decoding
        edges, energy = [0.0], []
        with (
            source.watched(),
            open_video(path, decoder=decoding.decoder, fps=decoding.assumed_fps, strict=decoding.strict) as video,
        ):
            total = expected_frames(video.info, video.info.fps)
            for step in steps(video, self.settings):
                edges.append(step.end_s)
                energy.append(step.energy)
                progress(step.frames, total)
            info, warnings = video.final_info, list(video.report.warnings)
        if not info.frames:
            raise InputError(f"{path}: no frame could be decoded; the file is damaged or not a video")
        edges[-1] = max(edges[-1], info.duration_s)
        found = motion_segments(np.array(edges), np.array(energy), self.settings)
        label = self.bundle.classes[0]
        segments = [Segment(start, end, label, score) for start, end, score in found if score >= self.job.min_score]
        return Timeline({path.stem: tuple(segments)}, {path.stem: info}, {**identity, "warnings": warnings})

    def _identity(self, source: Source) -> dict[str, Any]:
        decoding = self.job.decoding
        return {
            "name": self.bundle.name,
            "head": self.bundle.head,
            "sha256": self.bundle.sha256,
            "classes": list(self.bundle.classes),
            "decoding": asdict(self.settings),
            "min_score": self.job.min_score,
            "decoder": decoding.decoder,
            "assumed_fps": None if decoding.assumed_fps is None else str(decoding.assumed_fps),
            "source_sha256": source.sha256,
            "vidtad": __version__,
            "warnings": [],
        }
