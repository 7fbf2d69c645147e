"""Video -> feature rows -> feature file, resumable: rows already on disk are never computed twice."""

import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from vidtad.errors import InputError
from vidtad.extractors.preprocess import target_size
from vidtad.extractors.stream import Clip, Rows, feature_rows, wanted_frames
from vidtad.features import Features, Grid, Provenance, load_features, save_features, sidecar_of
from vidtad.pipelines.claims import claimed
from vidtad.pipelines.extract.flow_cache import FlowPictures, giving_flow, keeping_flow, stream_of_flow
from vidtad.pipelines.extract.load import LoadedExtractor, bundle_extractor, digest, load_extractor
from vidtad.pipelines.extract.resume import Scratch
from vidtad.progress import Progress, no_progress
from vidtad.runtime.sources import Source, source_of
from vidtad.video import VideoInfo, open_video, resample
from vidtad.video.index import Inexact, read_index

if TYPE_CHECKING:
    from fractions import Fraction

__all__ = [
    "Decoding",
    "Extracted",
    "InTheWay",
    "LoadedExtractor",
    "Progress",
    "Scratch",
    "bundle_extractor",
    "claimed",
    "digest",
    "expected_frames",
    "extract_features",
    "extract_file",
    "extract_in_steps",
    "load_extractor",
    "no_progress",
    "provenance_of",
    "reading_flow",
]

SPARE_PICTURES = 1
"""By so many pairs may the pictures of a video's flow exceed it: some tools make one for the last frame too."""
T = TypeVar("T")
Steps = Generator[list[Clip], Rows, T]
"""Work that may pause once: it yields windows, is sent their rows, and returns its result."""


@dataclass(frozen=True)
class Decoding:
    """How a video is read: backend name, the rate to assume where a file states none, damage as an error."""

    decoder: str = "pyav"
    assumed_fps: "Fraction | None" = None
    strict: bool = False


class InTheWay(InputError):
    """Where features belong there are others, of another making."""


@dataclass(frozen=True)
class Extracted:
    """What became of one video: `reused` when a finished file of the same content was there already.

    `seconds` are those of the work; those of a pause do not count.
    """

    path: Path
    features: Features
    seconds: float
    reused: bool


def extract_file(
    path: Path,
    loaded: LoadedExtractor,
    out: Path,
    *,
    decoding: Decoding = Decoding(),
    batch: int = 8,
    overwrite: bool = False,
    progress: Progress = no_progress,
    keep_flow: Path | None = None,
    flow_from: Path | None = None,
) -> Extracted:
    """Features of one video as `<out>/<stem>.npy` with its sidecar.

    A finished pair made by the same extractor, weights and settings from the same bytes is read back and kept; one
    made otherwise is never replaced unless `overwrite`. After a kill the rows computed so far are taken up again.
    Optical flow, where there is any, is kept as pictures under `<keep_flow>/<stem>`, or taken from those under
    `<flow_from>/<stem>` by an extractor loaded with flow=GIVEN; they are of its settings then, by their hash. Raises
    InputError for an unusable video, or pictures that are missing or not of the size flow is seen at; RunError for a
    failed write, Busy (a RunError) while another process is at work on it.
    """
    path, out = Path(path), Path(out)
    flow_folder = None if keep_flow is None else Path(keep_flow) / path.stem
    with (
        claimed(out, path),
        keeping_flow(loaded, flow_folder),
        reading_flow(path, loaded, decoding, flow_from) as extractor,
    ):
        return _whole(_extract_claimed(path, extractor, out, decoding, batch, overwrite, progress, leaving=False))


@contextmanager
def reading_flow(
    path: Path, loaded: LoadedExtractor, decoding: Decoding, flow_from: Path | None
) -> Iterator[LoadedExtractor]:
    """The extractor, which while this is open takes its flow from the pictures under `<flow_from>/<stem>`, if any.

    They are checked first: see `extract_file`.
    """
    if flow_from is None:
        yield loaded
        return
    from vidtad.video import probe

    settings = stream_of_flow(loaded, "--flow-from").convention
    info, pictures = probe(path, fps=decoding.assumed_fps), FlowPictures.of(flow_from, path)
    size = target_size(info.height, info.width, settings.resize, settings.interpolation)
    pictures.check(size)
    expected = expected_frames(info, settings.fps or info.fps) or 0
    missing = pictures.first_missing(filter(wanted_frames(loaded.extractor.convention), range(expected - 1)))
    if missing is not None and _has_pair(path, decoding, settings.fps, missing):
        raise pictures.refusal(missing)
    surely = pictures.count() - SPARE_PICTURES
    if surely >= expected and not _has_pair(path, decoding, settings.fps, surely - 1):
        raise InputError(
            f"{pictures.folder}: holds the flow of {pictures.count()} pairs of frames, more than {path.name} has"
            f"{'' if settings.fps is None else f' at {settings.fps} frames a second'}; it was made of another video "
            "or at another rate"
        )
    total, pictures = pictures.hashed()
    with giving_flow(loaded, lambda number: pictures.levels(number, size), total) as giving:
        yield giving


def _has_pair(path: Path, decoding: Decoding, fps: "Fraction | None", number: int) -> bool:
    """Whether there is a pair of frames of this number: headers, of damaged files above all, promise too many."""
    with open_video(path, decoder=decoding.decoder, fps=decoding.assumed_fps, strict=decoding.strict) as video:
        frames = video if fps is None else resample(video, fps)
        return sum(1 for _ in islice(frames, number + 2)) == number + 2


def extract_in_steps(
    path: Path,
    loaded: LoadedExtractor,
    out: Path,
    *,
    decoding: Decoding = Decoding(),
    batch: int = 8,
    overwrite: bool = False,
    progress: Progress = no_progress,
) -> Steps[Extracted]:
    """As `extract_file`, but the last windows, where they are fewer than `batch`, are yielded and their rows awaited.

    It holds no decoder by then, only its lock and those windows. Closing it gives them up; a later run makes the rows.
    """
    with claimed(Path(out), Path(path)):
        return (
            yield from _extract_claimed(
                Path(path), loaded, Path(out), decoding, batch, overwrite, progress, leaving=True
            )
        )


def _whole(steps: Steps[T]) -> T:
    """The result of work that does not pause."""
    try:
        next(steps)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]
    raise AssertionError("it paused")


def _extract_claimed(
    path: Path,
    loaded: LoadedExtractor,
    out: Path,
    decoding: Decoding,
    batch: int,
    overwrite: bool,
    progress: Progress,
    *,
    leaving: bool,
) -> Steps[Extracted]:
    begun = time.monotonic()
    target = out / f"{path.stem}.npy"
    source = Source(path)
    identity = provenance_of(source, loaded, decoding)
    scratch = Scratch(out, path.stem, identity)
    if target.exists() and not overwrite:
        found = _finished(target)
        if found is not None and found.provenance.fingerprint() == identity.fingerprint():
            scratch.remove()
            return Extracted(target, found, time.monotonic() - begun, reused=True)
        # An unfinished pair is ours to complete only when the rows it is made of are still there.
        if found is not None or not (scratch.rows() or scratch.joined()):
            raise InTheWay(
                f"{target}: exists and was made from another video or with other settings; "
                "pass --overwrite to replace it, or another --out"
            )
    features, paused_s = yield from _features(
        source, loaded, scratch, identity, decoding, batch, progress, leaving=leaving
    )
    save_features(features, out, path.stem)
    scratch.remove()
    return Extracted(target, features, time.monotonic() - begun - paused_s, reused=False)


def provenance_of(path: Path | Source, loaded: LoadedExtractor, decoding: Decoding) -> Provenance:
    """Identity of the features that this video, extractor and settings give.

    Raises InputError for an unusable file, Changed (a RunError) for one that changes meanwhile.
    """
    from vidtad.video import probe

    source, convention = source_of(path), loaded.extractor.convention
    # A clear sentence for anything that is no video, before its bytes are read.
    probe(source.path, fps=decoding.assumed_fps)
    return Provenance(
        extractor=loaded.extractor.name,
        channels=convention.channels,
        weights=loaded.weights,
        weights_sha256=loaded.weights_sha256,
        source_sha256=source.sha256,
        settings=loaded.settings()
        | {
            "decoder": decoding.decoder,
            "assumed_fps": None if decoding.assumed_fps is None else str(decoding.assumed_fps),
            "random_weights": loaded.is_random,
        },
    )


def _finished(target: Path) -> Features | None:
    """The features under `target` when array and sidecar are whole and belong together."""
    if not sidecar_of(target).exists():
        return None
    try:
        return load_features(target, check_hash=True)
    except InputError:
        return None


def extract_features(
    path: Path | Source,
    loaded: LoadedExtractor,
    scratch: Scratch,
    *,
    identity: Provenance,
    decoding: Decoding = Decoding(),
    batch: int = 8,
    progress: Progress = no_progress,
) -> Features:
    """Feature rows of a video; `scratch` holds those of an earlier, interrupted run and receives the new ones.

    Where ranges that cover the video are complete (see `extract.ranges`), they are joined instead. Of a
    `Source`, what was hashed for `identity` is what is read, or Changed (a RunError) is raised.
    """
    source = source_of(path)
    features, _ = _whole(_features(source, loaded, scratch, identity, decoding, batch, progress, leaving=False))
    return features


def _features(
    source: Source,
    loaded: LoadedExtractor,
    scratch: Scratch,
    identity: Provenance,
    decoding: Decoding,
    batch: int,
    progress: Progress,
    *,
    leaving: bool,
) -> Steps[tuple[Features, float]]:
    """See `extract_features`; with the seconds of the pause."""
    convention = loaded.extractor.convention
    joined, paused_s = scratch.joined(), 0.0
    with source.watched():
        found = None if joined is None else _announced(source.path, decoding)
    if joined is None or found is None:
        found, paused_s = yield from _pass(source, loaded, scratch, decoding, batch, progress, leaving=leaving)
        joined = scratch.read()
    info, header_fps, warnings = found
    times_s, values = joined
    grid = Grid(convention.fps or header_fps, convention.stride, convention.window, times_s)
    return Features(values, grid, info, replace(identity, warnings=warnings)), paused_s


Found = tuple[VideoInfo, "Fraction", tuple[str, ...]]
"""What a pass over a video found, the rate its header states, and warnings."""


def _announced(path: Path, decoding: Decoding) -> Found | None:
    """What a pass would find in a video whose every frame was seen to be as its packets announce."""
    index = read_index(path, decoder=decoding.decoder, fps=decoding.assumed_fps, strict=decoding.strict)
    if index is None:
        return None
    try:
        info, warnings = index.found()
    except Inexact:
        return None
    return info, index.info.fps, warnings


def _pass(
    source: Source,
    loaded: LoadedExtractor,
    scratch: Scratch,
    decoding: Decoding,
    batch: int,
    progress: Progress,
    *,
    leaving: bool,
) -> Steps[tuple[Found, float]]:
    """Rows of the whole video from those in `scratch` on."""
    path, extractor, convention = source.path, loaded.extractor, loaded.extractor.convention
    padded, fitting, paused_s = 0, batch, 0.0
    left: list[Clip] | None = [] if leaving else None
    with (
        source.watched(),
        open_video(path, decoder=decoding.decoder, fps=decoding.assumed_fps, strict=decoding.strict) as video,
    ):
        fps = convention.fps or video.info.fps
        frames = video if convention.fps is None else resample(video, convention.fps)
        total = expected_frames(video.info, fps)
        skip = scratch.begin()
        for rows in feature_rows(frames, extractor, fps=float(fps), batch=batch, skip=skip, left=left):
            source.check()  # so that rows on the disk are always those of the file that was hashed
            scratch.append(rows.times_s, rows.values)
            padded, fitting = max(padded, rows.padded), rows.batch
            progress(rows.frames_read, total)
        info, header_fps, warnings = video.final_info, video.info.fps, video.report.warnings
    if left:
        progress(info.frames or 0, total)
        begun = time.monotonic()
        rows = yield left
        paused_s = time.monotonic() - begun
        scratch.append(rows.times_s, rows.values)
        padded, fitting = max(padded, rows.padded), min(fitting, rows.batch)
    if not scratch.rows():
        raise InputError(f"{path}: no frame could be decoded; the file is damaged or not a video")
    if padded:
        warnings = (*warnings, f"{path}: shorter than one window: its last frame was repeated {padded} times")
    if fitting < batch:
        warnings = (*warnings, f"{path}: memory ran out with batches of {batch} windows: went on with {fitting}")
    return (info, header_fps, tuple(warnings)), paused_s


def expected_frames(info: VideoInfo, fps: "Fraction") -> int | None:
    """Frames a reader at `fps` will see, as far as the header tells."""
    if info.duration_s > 0:
        return max(1, round(info.duration_s * float(fps)))
    return info.frames
