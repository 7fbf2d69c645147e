"""Open a video, walk its frames once, and say what was found."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Protocol

from vidtad.errors import InputError
from vidtad.video.access import Access
from vidtad.video.backends import decoder_class
from vidtad.video.clock import Clock, Stamp
from vidtad.video.header import Promise, examine, open_container, packets_of
from vidtad.video.isolate import IsolatedDecoder
from vidtad.video.pyav import PyavDecoder
from vidtad.video.types import Decoded, Decoder, DecodeReport, Frame, VideoInfo

# Decoders that were seen to hang inside native code, where only ending the process helps.
UNTRUSTED = {"decord"}


def probe(path: str | Path, *, fps: Fraction | None = None) -> VideoInfo:
    """What the header says (one frame is decoded, for size and rotation).

    `fps` is the rate to assume where the file has no usable times of its own (raw streams, broken headers);
    it changes nothing elsewhere. Raises InputError with one sentence when the file is missing, a directory,
    not a regular file, empty, no video, incomplete, a picture, sound only, larger than 67 million pixels a
    frame, or claims an impossible frame rate while `fps` is not given.
    """
    return examine(path, fps=fps).info


def open_video(
    path: str | Path,
    *,
    decoder: str = "pyav",
    fps: Fraction | None = None,
    strict: bool = False,
    isolate: bool | None = None,
) -> "Video":
    """A `Video`, to be used as a context manager and iterated. `fps` and errors as in `probe`.

    `decoder` is pyav, decord, opencv or torchcodec; the last three raise InputError, at the latest while
    iterating, on files they do not read rightly. With `strict` any damage raises InputError while iterating;
    without it, everything decodable is delivered and `Video.report` tells what was lost. `isolate` decodes in
    a child process whose death or standstill raises RunError; by default decord alone gets one.
    """
    return Video(path, decoder=decoder, fps=fps, strict=strict, isolate=isolate)


class Video:
    """A video file. Iterating yields every `Frame` once, in presentation order, times increasing from 0.

    Pictures are upright and of one size (the first frame's). Each `iter` is a new pass over the file; after a
    complete one, `report` and `final_info` are available. Memory does not depend on the file's length.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        decoder: str = "pyav",
        fps: Fraction | None = None,
        strict: bool = False,
        isolate: bool | None = None,
    ) -> None:
        self._decoder_class = decoder_class(decoder)
        self.path = path
        self.strict = strict
        self.decoder = decoder
        self._fps = fps
        self._isolate = decoder in UNTRUSTED if isolate is None else isolate
        self._access: Access | None = None
        self._open: Decoder | None = None
        if decoder == "pyav" and not self._isolate:
            # One opening serves both the header and the first pass.
            ready = PyavDecoder(path)
            try:
                self.promise: Promise = ready.examine(fps)
            except BaseException:
                ready.close()
                raise
            self._ready: PyavDecoder | None = ready
        else:
            self.promise, self._ready = examine(path, fps=fps), None
        self.info: VideoInfo = replace(self.promise.info, decoder=decoder)
        self._report: DecodeReport | None = None

    def __enter__(self) -> "Video":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Free the file; frames already taken stay valid."""
        for source in (self._open, self._ready):
            if source is not None:
                source.close()
        self._open = self._ready = None
        if self._access is not None:
            self._access.close()
            self._access = None

    @property
    def report(self) -> DecodeReport:
        """What the last complete pass found. Raises RuntimeError before one has ended."""
        if self._report is None:
            raise RuntimeError("the report is available after iterating to the end")
        return self._report

    @property
    def final_info(self) -> VideoInfo:
        """`info` with frames, duration and rate as found. Raises RuntimeError like `report`."""
        return as_found(self.info, self.report)

    def __iter__(self) -> Iterator[Frame]:
        if self._open is not None:
            self._open.close()
        self._report = None
        source = self._open = self._ready or self._source()
        self._ready = None
        walk = Walk(self, self.promise, source)
        try:
            yield from walk.frames()
        finally:
            source.close()
        self._report = walk.report()
        if self.strict and (self._report.broke_at_s is not None):
            raise InputError(self._report.warnings[-1])

    def at(self, times_s: Sequence[float]) -> list[Frame]:
        """For each time in seconds the frame nearest to it (of two the earlier), in the order given.

        The frames are those of a sequential pass, to the pixel; times outside the video give its first or last
        frame. With pyav this seeks (`Frame.index` then counts packets in presentation order); where seeking is
        not exact, and with the other decoders, the file is walked from the start. Raises InputError like
        iterating.
        """
        if self._access is None:
            seeking = self.decoder == "pyav" and not self._isolate
            self._access = Access(self.path, self.promise, self._frames_anew, seeking)
        return self._access.at(times_s)

    def _frames_anew(self) -> Iterator[Frame]:
        source = self._source()
        try:
            yield from Walk(self, self.promise, source).frames()
        finally:
            source.close()

    def _source(self) -> Decoder:
        if self._isolate:
            return IsolatedDecoder(self.path, self.promise, name=self.decoder, fps=self._fps)
        return self._decoder_class(self.path, self.promise)  # type: ignore[call-arg]


def as_found(info: VideoInfo, found: DecodeReport) -> VideoInfo:
    """What a header promises, with frames, duration and rate as a pass found them."""
    return replace(
        info,
        frames=found.frames,
        duration_s=found.duration_s,
        fps=found.fps,
        constant_rate=found.constant_rate,
    )


def _places(first_s: Sequence[float], count: int) -> str:
    """The first few places in seconds, in words."""
    return ", ".join(f"{at:.2f}" for at in first_s) + " s" + (" and further places" if count > len(first_s) else "")


class Walked(Protocol):
    """What a pass is over."""

    path: str | Path
    strict: bool
    info: VideoInfo


class Walk:
    """One pass: places decoded pictures on the time line and keeps account of what goes wrong."""

    def __init__(self, video: Walked, promise: Promise, source: Decoder) -> None:
        self.video, self.promise, self.source = video, promise, source
        self.clock = Clock(source.time_base, video.info.fps, promise.by_index, promise.duration_s)
        self.count = 0
        self.damaged = 0
        self.first_damaged: int | Fraction | None = None
        self.resized_to: tuple[int, int] | None = None

    def frames(self) -> Iterator[Frame]:
        for decoded, ticks in self.clock.placed(self._stamps()):
            yield self._frame(decoded, ticks)
            if self.video.strict and (self.source.damage.failures or self.damaged):
                raise InputError(self._damage_sentence(self.broke_at(), 0.0))

    def _stamps(self) -> Iterator[Stamp[Decoded]]:
        for decoded in self.source.decode():
            yield Stamp(decoded, decoded.ticks, decoded.duration, self.source.damage.failures > 0)

    def _frame(self, decoded: Decoded, ticks: int | Fraction) -> Frame:
        clock, info = self.clock, self.video.info
        if decoded.damaged:
            self.damaged += 1
            self.first_damaged = ticks if self.first_damaged is None else self.first_damaged
        if (decoded.height, decoded.width) != (info.height, info.width):
            self.resized_to = (decoded.width, decoded.height)
        self.count += 1
        return Frame(
            index=self.count - 1,
            time_s=clock.seconds(ticks),
            duration_s=clock.seconds(clock.last_length),
            height=info.height,
            width=info.width,
            picture=decoded.picture,
            damaged=decoded.damaged,
        )

    def broke_at(self) -> float | None:
        """Seconds of the first damage, or None."""
        damage = self.source.damage
        places: list[int | Fraction] = []
        if self.first_damaged is not None:
            places.append(self.first_damaged)
        if damage.first_lost is not None and self.clock.first is not None and not self.clock.by_index:
            places.append(max(0, damage.first_lost - self.clock.first))
        if not places:
            return self.clock.seconds(self.clock.end()) if damage.failures else None
        return self.clock.seconds(min(places))

    def missing(self, end_s: float) -> float:
        """Seconds of the promised duration that are absent at the end, 0 when nothing notable is."""
        promised = self.promise.duration_s
        if promised is None or self.clock.jumps:
            return 0.0
        short = promised - end_s
        slack = max(0.25, 2.5 / float(self.video.info.fps))
        if self.promise.solid:
            return short if short > slack else 0.0
        if short <= max(1.0, slack, 0.02 * promised):
            return 0.0
        return short if self.source.damage.failures or not self._other_stream_reaches(promised) else 0.0

    def _other_stream_reaches(self, promised_s: float) -> bool:
        """Whether sound or subtitles fill the time the container promises beyond the video."""
        with open_container(self.video.path) as container:
            start = (container.start_time or 0) / 1_000_000
            others = [s for s in container.streams if s.type != "video"]
            if not others:
                return False
            return any(
                packet.pts is not None
                and float((packet.pts + (packet.duration or 0)) * packet.time_base) - start > promised_s - 1
                for packet in packets_of(container, others)
            )

    def _damage_sentence(self, broke_at: float | None, missing: float) -> str:
        said = f"{self.video.path}: damaged at {broke_at or 0.0:.2f} s"
        if missing:
            said += f"; {missing:.2f} s of the promised {self.promise.duration_s or 0:.2f} s are missing"
        lost = self.source.damage.failures
        parts = []
        if lost:
            parts.append(f"{lost} packet{'s' * (lost != 1)} could not be decoded")
        if self.damaged:
            parts.append(f"{self.damaged} frame{'s' * (self.damaged != 1)} may be smeared")
        return said + (f" ({', '.join(parts)})" if parts else "")

    def report(self) -> DecodeReport:
        """Raises InputError when there was no frame at all."""
        if not self.count:
            raise InputError(f"{self.video.path}: no frame of it can be decoded; the file is damaged")
        clock = self.clock
        end_s = clock.seconds(clock.end())
        missing, broke_at = self.missing(end_s), self.broke_at()
        if missing:
            broke_at = min(broke_at or end_s, end_s)
        warnings = list(self.promise.warnings)
        if clock.jumps:
            places = _places(clock.jumps_at_s, clock.jumps)
            warnings.append(f"{self.video.path}: its clock jumps at {places}; times were joined up")
        if clock.moved:
            places = _places(clock.moved_at_s, clock.moved)
            warnings.append(
                f"{self.video.path}: {clock.moved} of {self.count} frame times are missing, repeated or out of order "
                f"({places}); those frames were placed between their neighbours"
            )
        if self.resized_to:
            width, height = self.resized_to
            warnings.append(
                f"{self.video.path}: the picture size changes to {width} x {height}; "
                f"everything is scaled to {self.video.info.width} x {self.video.info.height}"
            )
        if broke_at is not None:
            warnings.append(self._damage_sentence(broke_at, missing))
        return DecodeReport(
            frames=self.count,
            duration_s=end_s,
            constant_rate=clock.constant(),
            fps=self.video.info.fps if clock.by_index else clock.rate(self.video.info.fps, self.count),
            damaged_frames=self.damaged,
            lost_packets=self.source.damage.failures,
            broke_at_s=broke_at,
            missing_s=missing,
            warnings=tuple(warnings),
        )
