"""One long video over several workers: rows of a time range, equal to those of a pass over the whole video."""

import math
from collections.abc import Iterator
from fractions import Fraction
from itertools import islice
from pathlib import Path

from vidtad.extractors.base import ClipConvention
from vidtad.extractors.stream import feature_rows
from vidtad.features import Provenance
from vidtad.pipelines.extract.extraction import Decoding, LoadedExtractor, expected_frames, provenance_of
from vidtad.pipelines.extract.resume import Scratch, Span
from vidtad.progress import Progress, no_progress
from vidtad.runtime.locks import claim
from vidtad.runtime.sources import Source, source_of
from vidtad.video import Frame, resample
from vidtad.video.index import Index, Inexact, read_index


def part_of_file(
    path: Path,
    loaded: LoadedExtractor,
    out: Path,
    share: tuple[int, int],
    *,
    decoding: Decoding = Decoding(),
    batch: int = 8,
    overwrite: bool = False,
    progress: Progress = no_progress,
) -> None:
    """Part `share` of what `extract_file` does with the same arguments, which then finds the rows there.

    Nothing is done where a file of features is: whether it is the right one is for `extract_file` to say.
    """
    path, out = Path(path), Path(out)
    if overwrite or not (out / f"{path.stem}.npy").exists():
        source = Source(path)
        identity = provenance_of(source, loaded, decoding)
        extract_range(source, loaded, out, share, identity=identity, decoding=decoding, batch=batch, progress=progress)


def extract_range(
    path: Path | Source,
    loaded: LoadedExtractor,
    folder: Path,
    share: tuple[int, int],
    *,
    identity: Provenance,
    decoding: Decoding = Decoding(),
    batch: int = 8,
    progress: Progress = no_progress,
) -> bool:
    """Part `share` = (number from 0, parts in all) of a video's rows, left in `folder` for `extract_features` to join.

    Of a `Source`, what was hashed for `identity` is what is read, or Changed (a RunError) is raised.
    Returns False where nothing was done because a pass over the whole video has to: frames of a damaged file, or
    of one without reliable times, have numbers only there, as rows have values only there once memory ran out.
    Raises Busy while another process is at work on the same rows, and like `extract_features`.
    """
    source = source_of(path)
    path = source.path
    index = read_index(path, decoder=decoding.decoder, fps=decoding.assumed_fps, strict=decoding.strict)
    convention = loaded.extractor.convention
    span = None if index is None else spans(index, convention, share[1], batch)[share[0]]
    if index is None or span is None:
        return False
    scratch = Scratch(folder, path.stem, identity, span)
    if scratch.complete():
        return True
    with claim(scratch.lock, str(path)):
        try:
            with source.watched():
                whole = _rows(index, loaded, scratch, batch, progress, source)
        except Inexact:
            whole = False
        if not whole:
            scratch.path.unlink(missing_ok=True)
        elif span[1] is None:
            scratch.end()
    return whole


def _rows(
    index: Index, loaded: LoadedExtractor, scratch: Scratch, batch: int, progress: Progress, source: Source
) -> bool:
    extractor, convention = loaded.extractor, loaded.extractor.convention
    assert scratch.span is not None
    first, stop = scratch.span
    skip = first + scratch.begin()
    fps = convention.fps or index.info.fps
    begin = skip * convention.stride
    # Pictures of flow lie between frames: one more. All frames up to the next range are looked at for damage.
    end = None if stop is None else (stop - 1) * convention.stride + max(convention.window, convention.stride) + 1
    total = (expected_frames(index.info, fps) or begin) - begin if end is None else end - begin
    frames = islice(_frames(index, convention.fps, begin), None if end is None else end - begin)
    for rows in feature_rows(frames, extractor, fps=float(fps), batch=batch, skip=skip, first=begin, stop=stop):
        if rows.batch < batch:
            return False
        source.check()
        scratch.append(rows.times_s, rows.values)
        progress(rows.frames_read, total)
    return stop is None or scratch.rows() == stop - first


def _frames(index: Index, fps: Fraction | None, first: int) -> Iterator[Frame]:
    if fps is None:
        return index.frames(first)
    source = max(0, index.number_before(float(first / fps)) - 1)
    return resample(index.frames(source), fps, first)


def spans(index: Index, convention: ClipConvention, parts: int, batch: int) -> list[Span | None]:
    """The rows of each of `parts` ranges, the last one open; None for what is too short to be divided so far.

    Ranges begin where a batch of the whole video does: networks compute a batch together, and the last bits of a
    row depend on its neighbours there.
    """
    frames = len(index)
    if convention.fps is not None:
        frames = math.floor(index.info.duration_s * convention.fps)
    if convention.flow is not None:
        frames -= 1
    rows = (frames - convention.window) // convention.stride + 1
    bounds = [round(k * rows / parts / batch) * batch for k in range(parts)]
    if rows < 1 or len(set(bounds)) < parts:
        return [None] * parts
    return [*zip(bounds, [*bounds[1:], None], strict=True)]
