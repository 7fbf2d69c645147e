"""Video -> keyframes -> people -> what each does -> timeline, in one pass with bounded memory."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vidtad import __version__
from vidtad.errors import InputError, RunError
from vidtad.extractors.keyframe_stream import KeyClip, KeyframeClips, every, preparation
from vidtad.extractors.stream import prefetch
from vidtad.formats.person_boxes import BoxFile, read_person_boxes
from vidtad.heads.person.boxes import (
    DEFAULT,
    HOG,
    People,
    PersonDetector,
    Tracker,
    check_name,
    load_persons,
    nobody,
    tidy,
)
from vidtad.heads.person.bundle import convention_of, load_network
from vidtad.heads.person.options import OWN, PeopleDecoding, PeopleOptions
from vidtad.heads.person.scoring import Scored, Scorer, faster
from vidtad.heads.person.segments import REACH, merged
from vidtad.hub.bundle import Bundle
from vidtad.hub.fields import known_fields
from vidtad.models.acfb import BankOptions
from vidtad.models.action_transformer import ActionTransformer
from vidtad.pipelines.extract.extraction import Decoding, expected_frames
from vidtad.pipelines.extract.load import pick_precision
from vidtad.progress import Progress, no_progress
from vidtad.runtime.device_memory import Parts
from vidtad.runtime.sources import Source, read_hashed, source_of
from vidtad.timeline import PersonBox, Timeline
from vidtad.video import open_video, resample


class PeopleDetector:
    """Who does what in a video, with one bundle. The network and the person detector are loaded once.

    `precision`: of the trunk, see `pick_precision`; heads compute in float32.
    """

    def __init__(
        self, bundle: Bundle, options: PeopleOptions | None = None, device: str = "cpu", precision: str = "auto"
    ):
        self.precision = pick_precision(precision, device)
        self.bundle, self.options, self.device = bundle, options or PeopleOptions(), device
        decoding = known_fields(PeopleDecoding, bundle.decoding, f"bundle {bundle.name}: decoding")
        self.decoding = replace(decoding, **self.options.thresholds())
        self.rule = self.decoding.rule()
        self.convention, step_s = convention_of(bundle)
        self.step_s = self.options.every_s or step_s
        self.network = faster(load_network(bundle, self.options.weights, device=device), self.precision, device)
        self._chosen = self.options.persons or self.decoding.persons
        if self._chosen != OWN:
            check_name(self._chosen)
        own = self._chosen == OWN and self.options.boxes is None
        if own and not (isinstance(self.network.head, ActionTransformer) and self.network.head.rpn is not None):
            raise InputError(
                f"detector {bundle.name} proposes no boxes itself: pass --persons {DEFAULT} or --boxes FILE"
            )
        if own and (self.options.scales or self.options.flip):
            raise InputError("boxes the network proposes itself differ between scales: pass --persons or --boxes too")
        self._own = own
        self._parts = Parts(device, f"a single keyframe of {bundle.name}")
        self._persons: PersonDetector | None = None
        self._file: tuple[BoxFile, str] | None = None

    @property
    def display_score(self) -> float:
        """Score from which a table shows a segment."""
        return self.decoding.display_score

    def identity(self, path: Path | Source, decoding: Decoding) -> dict[str, Any]:
        """What decides a timeline's content; `warnings` are filled in by the run."""
        options, bundle = self.options, self.bundle
        identity: dict[str, Any] = {
            "name": bundle.name,
            "head": bundle.head,
            "sha256": bundle.sha256,
            "classes": list(bundle.classes),
            "decoding": asdict(self.decoding),
            "keyframes": {"every_s": self.step_s, "scales": list(options.scales), "flip": options.flip},
            "clips": self.convention.to_json(),
            "persons": self._persons_identity(),
            "trunk": bundle.extractor,
            "trunk_weights": options.weights or bundle.extractor_checkpoint or f"bundle:{bundle.name}",
            "source_sha256": source_of(path).sha256,
            "decoder": decoding.decoder,
            "vidtad": __version__,
            "warnings": [],
        }
        if self.precision != "float32":
            identity["precision"] = self.precision
        if bundle.demonstration:
            identity["demonstration"] = True
        if options.dry_run or bundle.training.get("random_weights"):
            identity["random_weights"] = True
        return identity

    def __call__(
        self,
        path: Path | Source,
        decoding: Decoding = Decoding(),
        progress: Progress = no_progress,
        *,
        video_id: str | None = None,
        identity: Mapping[str, Any] | None = None,
    ) -> Timeline:
        """The timeline of one video, with `people`. `video_id` defaults to the file's stem; `identity`: what the
        method of that name gave, if it was called.

        Raises InputError for an unusable video, and when the boxes file has none of it; Changed (a RunError) when
        the video, for a `Source` since it was first looked at, is replaced or changes.
        """
        film = source_of(path)
        path = film.path
        name = video_id or path.stem
        with (
            open_video(path, decoder=decoding.decoder, fps=decoding.assumed_fps, strict=decoding.strict) as video,
            film.watched(),
        ):
            made = dict(identity if identity is not None else self.identity(film, decoding))
            times, given = self._times(name)
            prepare = preparation(self.convention, self.options.scales, torch.device(self.device))
            source = KeyframeClips(resample(video, self.convention.fps), times, self.convention, prepare)
            total = expected_frames(video.info, self.convention.fps)

            def read() -> None:
                progress(source.frames_read, total)

            with closing(prefetch(source, depth=self.options.batch)) as keys:
                people = self._people(self._scored(keys, given, read), self._spacing(times))
            try:
                info, warnings = video.final_info, list(video.report.warnings)
            except RuntimeError:  # stopped after the last keyframe asked for: the rest was never read
                info, warnings = video.info, []
        if not source.frames_read:
            raise InputError(f"{path}: no frame could be decoded; the file is damaged or not a video")
        if source.beyond:
            warnings.append(f"{source.beyond} keyframes of the boxes file lie after the last frame and were left out")
        notes = self._persons.notes if self._persons is not None else ()
        made["warnings"] = [*warnings, *notes, *self._parts.notes()]
        people = [person for person in people if person.time_s <= info.duration_s]
        spacing = self._spacing(times)
        rule = replace(self.rule, bridge_s=max(self.rule.bridge_s, REACH * spacing))
        segments = merged(people, rule, step_s=spacing, duration_s=info.duration_s)
        return Timeline({name: tuple(segments)}, {name: info}, made, {name: tuple(people)})

    def _spacing(self, times: Iterable[float]) -> float:
        if isinstance(times, list) and len(times) > 1:
            return float(np.median(np.diff(times)))
        return self.step_s

    def _times(self, name: str) -> tuple[Iterable[float], dict[float, People] | None]:
        """Times of the keyframes, and the boxes of each where a file gives them."""
        if self.options.boxes is None:
            return every(self.step_s), None
        boxes, _ = self._boxes(self.options.boxes)
        if name not in boxes:
            there = ", ".join(list(boxes)[:3])
            raise InputError(f"{self.options.boxes}: no boxes of video {name!r}; it has those of {there}")
        given = {time_s: tidy(*entry) for time_s, entry in boxes[name].items()}
        return list(given), given

    def _boxes(self, path: Path) -> tuple[BoxFile, str]:
        """The boxes file and its SHA-256, read once."""
        if self._file is None:
            threshold, offset_s = self.decoding.person_score, self.options.boxes_offset_s
            self._file = read_hashed(path, lambda file: read_person_boxes(file, threshold=threshold, offset_s=offset_s))
        return self._file

    def _scored(
        self, keys: Iterator[KeyClip], given: dict[float, People] | None, read: Callable[[], None]
    ) -> Iterator[Scored]:
        scorer = Scorer(
            self.network,
            self.convention,
            flip=self.options.flip,
            bank=BankOptions(self.decoding.bank_reach_s, self.decoding.bank_per_second),
            device=self.device,
            parts=self._parts,
        )
        if self._own:
            for batch in _batches(keys, 1):
                yield from self._parts(lambda part: self._proposed(scorer, part[0]), batch)
                read()
            return

        def fed() -> Iterator[tuple[list[KeyClip], list[People]]]:
            for batch in _batches(keys, self.options.batch):
                yield batch, self._who(batch, given)
                read()

        yield from scorer(fed())

    def _who(self, batch: Sequence[KeyClip], given: dict[float, People] | None) -> list[People]:
        if given is not None:
            return [given.get(key.time_s, nobody()) for key in batch]
        return self.persons()([key.picture for key in batch])

    def persons(self) -> PersonDetector:
        """The person detector, loaded at its first use."""
        if self._persons is None:
            weights, threshold = self.options.persons_weights, self.decoding.person_score
            if weights is None and self.options.persons is None and self.options.dry_run:
                weights = "random"  # a dry run fetches nothing
            try:
                self._persons = load_persons(self._chosen, weights, threshold=threshold, device=self.device)
            except RunError as error:
                if self.options.persons is not None:
                    raise
                self._persons = load_persons(HOG)
                self._persons.notes = (*self._persons.notes, f"{self._chosen} could not be had: {error}")
        return self._persons

    def _persons_identity(self) -> dict[str, Any]:
        if self._own:
            return {"detector": OWN}
        if self.options.boxes is not None:
            file = self.options.boxes
            return {"boxes": file.name, "sha256": self._boxes(file)[1], "offset_s": self.options.boxes_offset_s}
        return self.persons().identity

    @torch.inference_mode()
    def _proposed(self, scorer: Scorer, key: KeyClip) -> Scored:
        head = self.network.head
        assert isinstance(head, ActionTransformer)
        clips = scorer.normalised([key], 0)
        found = head.detect(self.network.trunk(clips), (clips.shape[3], clips.shape[4]))[0]
        kept = found.person >= self.decoding.person_score
        people = People(found.boxes[kept].cpu().numpy(), found.person[kept].cpu().numpy())
        return Scored(key.time_s, people, found.scores[kept].float().cpu().numpy())

    def _people(self, scored: Iterator[Scored], spacing_s: float) -> list[PersonBox]:
        decoding, classes = self.decoding, self.bundle.classes
        tracker = Tracker(decoding.same_iou, max(decoding.gone_s, REACH * spacing_s))
        found = []
        for time_s, people, scores in scored:
            tracks = tracker(time_s, people.boxes)
            for track, box, box_score, row in zip(tracks, people.boxes, people.scores, scores, strict=True):
                kept = np.flatnonzero(row >= decoding.action_score)
                order = kept[np.argsort(-row[kept], kind="stable")]
                actions = tuple((classes[k], round(float(row[k]), 6)) for k in order)
                x1, y1, x2, y2 = (round(float(side), 6) for side in box)
                if x1 < x2 and y1 < y2:
                    found.append(PersonBox(time_s, int(track), (x1, y1, x2, y2), round(float(box_score), 6), actions))
        return found


def _batches(keys: Iterator[KeyClip], size: int) -> Iterator[list[KeyClip]]:
    for first in keys:
        yield [first, *(key for _, key in zip(range(size - 1), keys, strict=False))]
