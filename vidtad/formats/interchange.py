"""The formats a timeline is passed on in: names, writers, and the readers of those that can be read back."""

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from vidtad.errors import InputError
from vidtad.formats import ava_timeline, boris, columns_timeline, cvat, elan, labelstudio, srt, via3, webvtt
from vidtad.formats.cvat import FrameTimes
from vidtad.formats.document import named, read_text
from vidtad.formats.shared import Videos, file_stems, from_player, on_player, only
from vidtad.plugins import Table
from vidtad.runtime.files import still_there, write_text
from vidtad.timeline import FORMAT, Timeline, read_timeline


@dataclass(frozen=True)
class Format:
    """One format. `write` takes a timeline and returns {suffix: text}, the main file first.

    `read` takes (text, videos, path) and returns a timeline; it is asked for texts that `fits` says yes to. A format
    without them is written only. one_video: a file holds one video only. by_frame: writer and reader also take the
    time of every frame.
    """

    says: str
    write: Callable[..., Mapping[str, str]]
    read: Callable[..., Timeline] | None = None
    fits: Callable[[str], bool] | None = None
    one_video: bool = False
    by_frame: bool = False
    on_player: bool = False
    """Whether its times are those of a player, which counts from the container's start, not from the first frame."""


_OWN = {
    "activitynet": Format("ActivityNet results JSON", columns_timeline.write_activitynet, columns_timeline.read),
    "annotations": Format(
        "ActivityNet ground truth JSON, to train on", columns_timeline.write_annotations, columns_timeline.read
    ),
    "csv": Format("one row a segment", columns_timeline.write_csv, columns_timeline.read),
    "ava": Format("AVA rows of person boxes", ava_timeline.write, ava_timeline.read, ava_timeline.fits),
    "srt": Format("SubRip subtitles", srt.write, srt.read, srt.fits, one_video=True, on_player=True),
    "vtt": Format("WebVTT subtitles", webvtt.write, webvtt.read, webvtt.fits, one_video=True, on_player=True),
    "elan": Format("ELAN .eaf, a tier per class", elan.write, elan.read, elan.fits, one_video=True, on_player=True),
    "labelstudio": Format(
        "Label Studio tasks with predictions", labelstudio.write, labelstudio.read, labelstudio.fits, on_player=True
    ),
    "cvat": Format("CVAT for video 1.1 tracks", cvat.write, cvat.read, cvat.fits, one_video=True, by_frame=True),
    "via": Format("VIA 3 project", via3.write, via3.read, via3.fits, one_video=True, on_player=True),
    "boris": Format("BORIS tabular events", boris.write, boris.read, boris.fits, on_player=True),
    "thumos": Format("THUMOS'14 detection text", columns_timeline.write_thumos, columns_timeline.read),
}
FORMATS: Mapping[str, Format] = Table("vidtad.formats", Format, _OWN)
"""All formats by name, built in and installed."""
OTHER_NAMES = {"eaf": "elan", "webvtt": "vtt", "via3": "via", "subrip": "srt", "label-studio": "labelstudio"}


def format_named(name: str) -> tuple[str, Format]:
    """(proper name, format). Raises InputError naming the near ones."""
    proper = OTHER_NAMES.get(name.strip().lower(), name.strip().lower())
    if proper in FORMATS:
        return proper, FORMATS[proper]
    near = difflib.get_close_matches(proper, [*FORMATS, *OTHER_NAMES], n=2)
    hint = f"did you mean {' or '.join(near)}? There" if near else "there"
    raise InputError(f"no format {name!r}; {hint} are {', '.join(FORMATS)}")


def parse_names(names: str | Iterable[str]) -> list[str]:
    """Proper names of `a,b` or of a list of such, each once. Raises InputError for an unknown one."""
    given = [names] if isinstance(names, str) else list(names)
    words = [word for text in given for word in text.split(",") if word.strip()]
    return list(dict.fromkeys(format_named(word)[0] for word in words))


def render(timeline: Timeline, name: str, frame_times: FrameTimes | None = None) -> dict[str, str]:
    """{suffix: text} of a timeline in one format, the main file first. Raises InputError."""
    proper, format_ = format_named(name)
    if format_.one_video and len(timeline.videos) != 1:
        raise InputError(f"{proper} holds one video a file, and this timeline has {len(timeline.videos)}")
    if format_.on_player:
        timeline = on_player(timeline)
    if format_.by_frame:
        return dict(format_.write(timeline, frame_times))
    return dict(format_.write(timeline))


def write_formats(
    timeline: Timeline,
    folder: Path,
    names: str | Sequence[str],
    frame_times: FrameTimes | None = None,
    source: Path | None = None,
) -> list[Path]:
    """Write every video of a timeline in each format, atomically, and return the files.

    A format goes to `folder/VIDEO.suffix`; one that is JSON to `folder/FORMAT/VIDEO.suffix`, so that the
    folder keeps holding one timeline per video for whoever reads all its JSON files. Raises InputError for
    an unknown format, what a format cannot express, or a file in the place of `source`, before anything is written.
    """
    ready: list[tuple[Path, str]] = []
    stems = file_stems(timeline.videos)
    for name in parse_names(names):
        for video in timeline.videos:
            for suffix, text in render(only(timeline, video), name, frame_times).items():
                place = Path(folder) / name if suffix.endswith(".json") else Path(folder)
                ready.append((place / f"{stems[video]}{suffix}", text))
    return _write(ready, source)


def _write(ready: Sequence[tuple[Path, str]], source: Path | None) -> list[Path]:
    kept = source and source.resolve()
    for path, _ in ready:
        if kept and path.resolve() in (kept, *(kept.glob("*.json") if kept.is_dir() else ())):
            raise InputError(f"{path}: is what is read here; name another place with --out")
    for path, text in ready:
        write_text(path, text)
    still_there(path for path, _ in ready)
    return [path for path, _ in ready]


def write_one(
    timeline: Timeline, path: Path, name: str, frame_times: FrameTimes | None = None, source: Path | None = None
) -> list[Path]:
    """Write a timeline to `path`, and what belongs to it (a label map) beside it under the same stem.

    Raises InputError, before anything is written, for a file in the place of `source`.
    """
    ready = []
    main = ""
    for suffix, text in render(timeline, name, frame_times).items():
        main = main or suffix
        if suffix == main:
            target = Path(path)
        else:
            stem = Path(path).name.removesuffix(main)
            target = Path(path).with_name((stem if stem != Path(path).name else Path(path).stem) + suffix)
        ready.append((target, text))
    return _write(ready, source)


def read_any(
    path: Path, videos: Videos | None = None, frame_times: FrameTimes | None = None, *, between: bool = False
) -> Timeline:
    """A timeline from any of the formats, told apart by content.

    videos: what is known of videos by id, where the format does not say. between: see `cvat.read`.
    Raises InputError when the file is missing, broken or of no known format.
    """
    path, known = Path(path), dict(videos or {})
    with named(path):
        text = read_text(path)
        if text.lstrip()[:1] == "{" and f'"{FORMAT}"' in text:
            timeline = read_timeline(path)
            return Timeline(
                timeline.results, {**timeline.videos, **_same(known, timeline)}, timeline.detector, timeline.people
            )
        for format_ in FORMATS.values():
            if format_.read is not None and format_.fits is not None and format_.fits(text):
                if format_.by_frame:
                    return format_.read(text, known, path, frame_times, between=between)
                return _placed(format_.read(text, known, path), known, format_)
        return columns_timeline.read(text, known, path)


def _placed(timeline: Timeline, known: Videos, format_: Format) -> Timeline:
    """The timeline from the first frame of its videos on, where they are known. One known video is the only one's."""
    if not format_.on_player:
        return timeline
    videos = dict(timeline.videos)
    if len(videos) == len(known) == 1 and not videos.keys() & known.keys():
        videos = dict.fromkeys(videos, next(iter(known.values())))
    return replace(from_player(replace(timeline, videos=videos)), videos=timeline.videos)


def _same(known: Videos, timeline: Timeline) -> Videos:
    return {name: info for name, info in known.items() if name in timeline.videos}
