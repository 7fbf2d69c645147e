"""The main job on the embedded default: generated clips -> timelines -> scores against their exact truth."""

import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vidtad.errors import InputError
from vidtad.evaluation import Evaluation, evaluate_files
from vidtad.formats.shared import only
from vidtad.heads.catalogue import builtin_bundle
from vidtad.heads.registry import head_of
from vidtad.hub.bundle import Bundle
from vidtad.pipelines.detect.dispatch import worker_for
from vidtad.pipelines.detect.worker import Job, Worker
from vidtad.progress import Progress, no_progress
from vidtad.runtime.files import write_json
from vidtad.synth import write_clips, write_people_clips
from vidtad.timeline import Timeline, merge, write_timeline_json

FIRST_UNSEEN_SEED = 1
"""Seeds of the demonstration's clips start here; those of training start at 100 000."""


@dataclass(frozen=True)
class DemoResult:
    """What came out: one timeline over all clips, its scores, the wall time of everything.

    `boxes`: where a detector of people had its boxes from, None for other detectors.
    """

    timeline: Timeline
    evaluation: Evaluation
    display_score: float
    seconds: float
    boxes: str | None = None

    def one(self, video_id: str) -> Timeline:
        """The part of the timeline that belongs to one clip."""
        return only(self.timeline, video_id)

    def to_json(self) -> dict[str, Any]:
        """`average_mAP`, `mAP` per tIoU and the rest of the evaluation, with the wall time in `seconds`; for detectors
        of people also `frame_mAP` and `boxes`."""
        people = {"frame_mAP": self.evaluation.average_mAP, "boxes": self.boxes} if self.boxes else {}
        return (
            self.evaluation.to_json()
            | people
            | {
                "seconds": round(self.seconds, 2),
                "model": self.timeline.detector["name"],
                "demonstration": bool(self.timeline.detector.get("demonstration")),
            }
        )


def run_demo(
    out: Path,
    *,
    videos: int = 20,
    model: str = "react",
    level: int = 1,
    device: str = "cpu",
    progress: Progress = no_progress,
) -> DemoResult:
    """Render `videos` unseen clips of a level under `out`, detect in them with a built-in bundle, evaluate.

    Leaves `out/videos` (with their truth), `out/timelines` and `out/timeline.json`, replacing what is there. The
    detector that tells no classes apart is scored against `out/classless_truth.json`, which has a single one. Detectors
    of people get clips of `synth.people`, which have one level, and are scored by AVA's rules. Raises InputError for an
    unknown model or level, RunError when `out` cannot be written.
    """
    begun = time.monotonic()
    out = Path(out)
    bundle = builtin_bundle(model)
    if head_of(bundle).tells_who:
        if level != 1:
            raise InputError(f"level {level} does not exist for {bundle.name}: clips of people have one level, 1")
        return _run_people(out, bundle, videos, device, progress, begun)
    worker = worker_for(bundle, Job(out=out / "timelines", overwrite=True), device=device)
    clips = out / "videos"
    truth = write_clips(clips, range(FIRST_UNSEEN_SEED, FIRST_UNSEEN_SEED + videos), level)
    timeline = _detected(worker, clips, truth["database"], out, progress)
    truth_path = clips / "ground_truth.json"
    if head_of(worker.bundle).classless:
        for action in (action for clip in truth["database"].values() for action in clip["annotations"]):
            action["label"] = bundle.classes[0]
        truth_path = out / "classless_truth.json"
        write_json(truth_path, truth)
    evaluation = evaluate_files(truth_path, out / "timeline.json", "thumos14")
    return DemoResult(timeline, evaluation, worker.display_score, time.monotonic() - begun)


def _detected(worker: Worker, clips: Path, names: Collection[str], out: Path, progress: Progress) -> Timeline:
    """The timeline of all clips, also written to `out/timeline.json`."""
    timelines = []
    for count, name in enumerate(names, start=1):
        timelines.append(worker(clips / f"{name}.mp4"))
        progress(count, len(names))
    timeline = merge(timelines)
    write_timeline_json(timeline, out / "timeline.json")
    return timeline


def _run_people(out: Path, bundle: Bundle, videos: int, device: str, progress: Progress, begun: float) -> DemoResult:
    from vidtad.pipelines.detect.person_detector import OWN, PeopleOptions

    clips = out / "videos"
    truth = write_people_clips(clips, range(FIRST_UNSEEN_SEED, FIRST_UNSEEN_SEED + videos))
    own = bundle.decoding.get("persons") == OWN
    options = PeopleOptions(boxes=None if own else clips / "people.csv")
    worker = worker_for(bundle, Job(out=out / "timelines", overwrite=True), options, device)
    timeline = _detected(worker, clips, truth["database"], out, progress)
    evaluation = evaluate_files(clips / "people.csv", out / "timeline.json", "ava", label_map=clips / "classes.pbtxt")
    boxes = "its own proposals" if own else "annotated"
    return DemoResult(timeline, evaluation, worker.display_score, time.monotonic() - begun, boxes)
