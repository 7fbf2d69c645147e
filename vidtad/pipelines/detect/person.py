"""One video to one timeline of people on disk, and the worker that fits a bundle."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vidtad.arrays import is_array
from vidtad.errors import InputError
from vidtad.hub.bundle import Bundle
from vidtad.pipelines.detect.worker import Job, Worker
from vidtad.progress import Progress
from vidtad.runtime.sources import Source
from vidtad.timeline import Timeline
from vidtad.video import probe

if TYPE_CHECKING:
    from vidtad.pipelines.detect.person_detector import PeopleOptions

# Networks that look at people are imported where they are used: torchvision's operators take a second to import.


class PeopleWorker(Worker):
    """For heads that say who does what: videos only."""

    def __init__(self, bundle: Bundle, job: Job, options: "PeopleOptions | None" = None, device: str = "cpu"):
        from vidtad.pipelines.detect.person_detector import PeopleDetector, PeopleOptions

        super().__init__(bundle, job, device)
        options = options or PeopleOptions()
        options = replace(options, weights=options.weights or job.weights)
        self.detector = PeopleDetector(bundle, options, device, job.precision)

    @property
    def display_score(self) -> float:
        """Score from which a table shows a segment."""
        return max(self.job.min_score, self.detector.display_score)

    def timeline(self, path: Path, progress: Progress) -> Timeline:
        """As calling, for the one process that has claimed the output."""
        job = self.job
        if is_array(path):
            raise InputError(f"{path}: {self.bundle.name} looks at people in videos, not at feature files")
        probe(path, fps=job.decoding.assumed_fps)  # a clear sentence before anything is fetched
        source = Source(path)
        identity = self.detector.identity(source, job.decoding) | {"min_score": job.min_score}
        return self.finished_or(path, identity, lambda: self._detect(source, identity, progress))

    def _detect(self, source: Source, identity: Mapping[str, Any], progress: Progress) -> Timeline:
        timeline = self.detector(source, self.job.decoding, progress, identity=identity)
        least = self.job.min_score
        kept = {name: tuple(s for s in found if s.score >= least) for name, found in timeline.results.items()}
        return replace(timeline, results=kept)
