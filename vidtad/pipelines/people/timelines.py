"""One video to one timeline of people on disk, and the worker that fits a bundle."""

from dataclasses import replace
from pathlib import Path

from vidtad.bundle import Bundle
from vidtad.errors import InputError
from vidtad.files import write_text
from vidtad.formats.ava import people_text
from vidtad.models.people import HEADS
from vidtad.pipelines import motion
from vidtad.pipelines.extraction import Progress
from vidtad.pipelines.people.detection import PeopleDetector, PeopleOptions
from vidtad.pipelines.timelines import Job, Worker
from vidtad.timeline import Timeline


class PeopleWorker(Worker):
    """As `Worker`, for heads that say who does what: videos only. `ava_csv` writes `<out>/<id>.ava.csv` too."""

    def __init__(
        self,
        bundle: Bundle,
        job: Job,
        options: PeopleOptions | None = None,
        device: str = "cpu",
        *,
        ava_csv: bool = False,
    ):
        self.job, self.device, self.bundle, self.ava_csv = job, device, bundle, ava_csv
        options = options or PeopleOptions()
        self.people = PeopleDetector(bundle, replace(options, weights=options.weights or job.weights), device)
        self.detector = self.people  # type: ignore[assignment]

    def timeline(self, path: Path, progress: Progress) -> Timeline:
        """The timeline of a video, written to the job's folder; a finished one of the same making is read back.

        Raises InputError for an unusable input or a timeline of another making in the way, RunError for a failed write.
        """
        job = self.job
        if path.suffix.lower() == ".npy":
            raise InputError(f"{path}: {self.bundle.name} looks at people in videos, not at feature files")
        identity = self.people.identity(path, job.decoding) | {"min_score": job.min_score}
        finished = self._finished(path, identity)
        if finished is not None:
            return finished
        timeline = self.people(path, job.decoding, progress)
        kept = {name: tuple(s for s in found if s.score >= job.min_score) for name, found in timeline.results.items()}
        detector = {**timeline.detector, "min_score": job.min_score}
        timeline = replace(timeline, results=kept, detector=detector)
        self._write(path, timeline)
        return timeline

    def _write(self, path: Path, timeline: Timeline) -> None:
        if self.ava_csv and self.job.out is not None:
            write_text(self.job.out / f"{path.stem}.ava.csv", people_text(timeline))
        super()._write(path, timeline)


def worker_for(
    bundle: Bundle, job: Job, options: PeopleOptions | None = None, device: str = "cpu", *, ava_csv: bool = False
) -> Worker:
    """The worker for this bundle's head. `options` and `ava_csv` are for heads that say who does what; given for
    another head, they raise InputError."""
    if bundle.head in HEADS:
        return PeopleWorker(bundle, job, options, device, ava_csv=ava_csv)
    if options is not None or ava_csv:
        raise InputError(
            f"detector {bundle.name} says what happens when, not who does it: leave out options about people"
        )
    if bundle.head == motion.HEAD:
        return motion.MotionWorker(bundle, job)
    return Worker(bundle, job, device)
