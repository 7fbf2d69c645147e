"""Handing timelines to people and other programs: finding the videos behind them, converting files."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from vidtad.arrays import is_array, video_of
from vidtad.errors import InputError
from vidtad.formats.ava import is_rows, read_label_map
from vidtad.formats.ava_timeline import MAP
from vidtad.formats.document import read_text
from vidtad.formats.interchange import FORMATS, parse_names, read_any, write_formats, write_one
from vidtad.formats.people import linked, sampled, segments_of
from vidtad.formats.person_labels import read_person_labels
from vidtad.formats.shared import labels_of
from vidtad.formats.tables import Annotations
from vidtad.runtime.files import is_file
from vidtad.runtime.names import composed
from vidtad.timeline import PersonBox, Timeline, merge
from vidtad.video import VideoInfo, open_video, probe

LEVELS_UP = 4
"""Folders above a timeline in which its video is looked for."""


def read_all(path: Path, videos: Mapping[str, VideoInfo] | None = None, *, every_s: float | None = None) -> Timeline:
    """One timeline of a file of any known format, or of all `.json` timelines of a folder.

    every_s: of people only the boxes nearest to each multiple of so many seconds, see `formats.people.sampled`.
    Raises InputError when nothing usable is there; in a folder, files of another kind are passed over.
    """
    if not path.is_dir():
        timeline = read_any(path, videos, varying_times((videos or {}).values()), between=every_s is not None)
        return timeline if every_s is None else _sampled(timeline, every_s)
    found = []
    for file in sorted(path.glob("*.json")):
        try:
            found.append(read_any(file, videos))
        except InputError:
            continue
    if not found:
        raise InputError(f"{path}: no timeline (*.json) in this folder")
    return merge(found) if every_s is None else _sampled(merge(found), every_s)


def _sampled(timeline: Timeline, every_s: float) -> Timeline:
    people = {name: tuple(sampled(found, every_s)) for name, found in timeline.people.items()}
    return replace(timeline, people=people)


def known_videos(paths: Iterable[Path]) -> dict[str, VideoInfo]:
    """{id: what the header says} of video files. Raises InputError for one that is none."""
    return {video_of(path): probe(path) for path in paths}


def with_videos(timeline: Timeline, files: Sequence[Path]) -> Timeline:
    """The timeline with what is known of its videos renewed from files, matched by their names.

    A single file goes with a single video whatever their names. Raises InputError for a file that fits none.
    """
    if len(files) == 1 and len(timeline.videos) == 1:
        (name,) = timeline.videos
        return replace(timeline, videos={name: probe(files[0])})
    found = by_name(files, timeline)
    if files and not found:
        raise InputError(f"{files[0]}: the timeline is of {', '.join(list(timeline.videos)[:3])}, not of this video")
    return replace(timeline, videos={**timeline.videos, **{name: probe(path) for name, path in found.items()}})


def by_name(files: Iterable[Path], timeline: Timeline) -> dict[str, Path]:
    """{id in the timeline: file} of those files that are its videos by name."""
    ids = {composed(name): name for name in timeline.videos}
    return {ids[name]: path for path in files if (name := video_of(path)) in ids}


def varying_times(infos: Iterable[VideoInfo]) -> dict[str, list[float]]:
    """{id: seconds of every frame} of those videos that vary their rate and can be opened; they are decoded."""
    found = {}
    for info in infos:
        path = Path(info.path)
        if not info.constant_rate and path.is_file():
            with open_video(path) as video:
                found[path.stem] = [frame.time_s for frame in video]
    return found


def times_for(timeline: Timeline, formats: Iterable[str]) -> dict[str, list[float]]:
    """{video: seconds of every frame} that writers of these formats need: see `varying_times`; often none."""
    if not any(FORMATS[name].by_frame for name in formats):
        return {}
    by_stem = varying_times(timeline.videos.values())
    return {name: by_stem[Path(i.path).stem] for name, i in timeline.videos.items() if Path(i.path).stem in by_stem}


def convert(
    source: Path,
    names: str | Sequence[str],
    out: Path | None = None,
    *,
    videos: Sequence[Path] = (),
    min_score: float | None = None,
    everything: bool = False,
    every_s: float | None = None,
    warn: Callable[[str], None] = lambda sentence: None,
) -> list[Path]:
    """Write `source` (a file of any known format, or a folder of timelines) in other formats; returns the files.

    `out` is a folder, or with one format a file; beside the source by default. `videos`: files that tell frame
    rates and sizes. Segments count from `min_score` on, by default from the display threshold of the timeline's
    detector; with `everything` all. `every_s`: see `read_all`. `warn` is told what a reader found and did not take.
    Raises InputError for what cannot be read or expressed, RunError for a failed write.
    """
    wanted = parse_names(names)
    if not wanted:
        raise InputError(f"convert to which format? There are {', '.join(FORMATS)}.")
    timeline = read_all(source, known_videos(videos), every_s=every_s)
    if "converted_from" in timeline.detector:
        for sentence in timeline.detector.get("warnings", ()):
            warn(f"{source}: {sentence}")
    if videos:
        timeline = with_videos(timeline, videos)
    timeline = timeline.at_least(timeline.display_score if min_score is None and not everything else min_score)
    times = times_for(timeline, wanted)
    if out is not None and out.suffix and not out.is_dir():
        if len(wanted) > 1:
            raise InputError(f"--out {out}: a file holds one format; name a folder for {', '.join(wanted)}")
        return write_one(timeline, out, wanted[0], times, source)
    folder = out or (source if source.is_dir() else source.parent)
    return write_formats(timeline, folder, wanted, times, source)


def locate(timeline: Timeline, files: Sequence[Path], near: Path) -> dict[str, Path]:
    """{id: video file}: of those given (a single one goes with a single video), else where the timeline says.

    Its path is looked up from here, from the timeline's folder and from those above it, then the file's name alone.
    Raises InputError when a file was given and fits no video.
    """
    if len(files) == 1 and len(timeline.videos) == 1:
        return {next(iter(timeline.videos)): files[0]}
    given = by_name(files, timeline)
    if files and not given:
        raise InputError(f"{files[0]}: the timeline is of {', '.join(list(timeline.videos)[:3])}, not of this video")
    folder = (near if near.is_dir() else near.parent).resolve()
    around = [Path(), folder, *folder.parents[:LEVELS_UP]]
    found = {}
    for name, info in timeline.videos.items():
        stated = Path(info.path)
        candidates = [*(place / stated for place in around), *(place / stated.name for place in around)]
        candidates = candidates if info.path else []
        usable = [path for path in candidates if not is_array(path) and is_file(path)]
        if name in given or usable:
            found[name] = given.get(name) or usable[0]
    return found


def read_truth(path: Path, timeline: Timeline, label_map: Path | None = None) -> Annotations:
    """Ground truth of any known layout; AVA rows of persons as a segment for each person and action.

    label_map: names of the numbers in AVA rows; by default `NAME.ava.pbtxt` beside them, else AVA's 80. Raises
    InputError for what cannot be read, and for AVA rows of which the detector of `timeline` knows no class.
    """
    from vidtad.formats.reading import read_annotations

    path = Path(path)
    try:
        return read_annotations(path)
    except InputError:
        if not _holds_persons(path):
            raise
    beside = path.with_name(path.name.removesuffix(".csv").removesuffix(".ava") + MAP)
    if label_map is None and beside.is_file():
        label_map = beside
    labels = read_person_labels(path, None if label_map is None else read_label_map(label_map))
    known = set(timeline.detector.get("classes", ())) | set(labels_of(timeline))
    if known and label_map is None and not known & set(labels.classes):
        raise InputError(
            f"{path}: none of its classes ({', '.join(labels.classes[:3])}) is one of the timeline; if its numbers are "
            "not AVA's, name them with --label-map"
        )
    rows = []
    for video, keyframes in labels.videos.items():
        boxes = [
            PersonBox(second, -1, box, 1.0, tuple((label, 1.0) for label in sorted(actions)))
            for second, people in keyframes.items()
            for box, actions in people.items()
        ]
        rows += [(video, s.label, s.start_s, s.end_s) for s in segments_of(linked(boxes))]
    return Annotations.from_rows(rows, source="ava")


def _holds_persons(path: Path) -> bool:
    try:
        return not path.is_dir() and is_rows(read_text(path))
    except InputError:
        return False


def report(
    source: Path,
    out: Path | None = None,
    *,
    videos: Sequence[Path] = (),
    truth: Path | None = None,
    label_map: Path | None = None,
    threshold: float | None = None,
    embed: bool = False,
) -> tuple[list[Path], list[str]]:
    """Write the web page of `source`, a timeline or other predictions or a folder of timelines.

    `out` is by default `NAME.html` beside a file of one video, else the folder `NAME-report`. truth, label_map: see
    `read_truth`. Returns the files, the one to open first, and the ids whose video was not found. Raises InputError
    for unusable input.
    """
    from vidtad.render.report import Clip, write_report

    timeline = read_all(source, known_videos(videos) if not source.is_dir() else None)
    clips = locate(timeline, videos, source)
    if out is None:
        stem = source.resolve().name if source.is_dir() else source.name.split(".")[0]
        several = len(timeline.videos) != 1
        out = source.parent / (f"{stem}-report" if several else f"{stem}.html")
    if len(timeline.videos) != 1 and out.suffix.lower() in (".html", ".htm"):
        raise InputError(f"--out {out}: {len(timeline.videos)} videos make a page each; name a folder")
    written = write_report(
        timeline,
        out,
        clips={name: Clip(path, embed) for name, path in clips.items()},
        truth=None if truth is None else read_truth(truth, timeline, label_map),
        threshold=timeline.display_score if threshold is None else threshold,
    )
    return written, [name for name in timeline.videos if name not in clips]
