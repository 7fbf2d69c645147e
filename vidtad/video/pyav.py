"""The default decoder: PyAV, packet by packet, going on after what cannot be decoded."""

import heapq
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from vidtad.video.header import Promise, judge, open_container, video_stream
from vidtad.video.rates import time_base
from vidtad.video.scale import Scaler
from vidtad.video.shown import Orientation, orientation_of
from vidtad.video.stamps import DECODING
from vidtad.video.types import Damage, Decoded

# Consecutive read errors after which the rest of a file is given up.
MOST_READ_ERRORS = 100
# Presentation times sent to the decoder and not yet seen again; a decoder holds back far fewer frames.
MOST_PENDING = 512
UPRIGHT = Orientation()


@dataclass(frozen=True)
class AvPicture:
    """A PyAV frame and which way up it is shown."""

    frame: Any
    shown: Orientation
    scaler: Scaler

    def rgb(self, height: int, width: int) -> np.ndarray:
        """Pixels (height, width, 3) uint8, upright."""
        if self.shown.swaps:
            height, width = width, height
        stored = self.scaler.rgb(self.frame, height, width)
        return stored if self.shown == UPRIGHT else self.shown.apply(stored)


class PyavDecoder:
    """Decoder over PyAV (see `vidtad.video.types.Decoder`). Raises InputError when the file does not open."""

    name = "pyav"

    def __init__(self, path: str | Path, promise: Promise | None = None) -> None:
        self.path = path
        self.container = open_container(path)
        self.stream = video_stream(self.container, path)
        self.stream.thread_type = "AUTO"
        self.time_base = time_base(self.stream)
        self._by_decoding = promise is not None and promise.stamps == DECODING
        self._step = 1
        self._sent: list[int | None] | None = []
        self.damage = Damage()
        # Of the whole film: the bitstream may say it on its first frame alone, which is far from where a seek lands.
        info = None if promise is None else promise.info
        self._shown = None if info is None else Orientation(info.rotation // 90, info.mirrored)
        self._scaler = Scaler()
        self._peeked: Iterator[Decoded] | None = None
        self._pending: list[int] = []
        self._last: int | None = None
        self._orderly = True
        # Damage spreads through prediction: after it, pictures are suspect until the next sound keyframe.
        self._suspect = False
        self._failures_seen = 0

    def close(self) -> None:
        """Close the file; frames already handed over stay valid."""
        self.container.close()

    def seek(self, ticks: int) -> None:
        """Make the next `decode` start at the keyframe at or before `ticks`, as far as the container can."""
        import av

        try:
            self.container.seek(ticks, stream=self.stream)
        except av.error.FFmpegError:
            self.container.seek(0)
        self._peeked = None
        self._pending.clear()
        self._last, self._orderly = None, True
        self._suspect, self._failures_seen = False, self.damage.failures

    def examine(self, fps: Fraction | None) -> Promise:
        """What header and first frame promise; `decode` still gives that frame first. Raises InputError."""
        flow = self._frames()
        first = next(flow, None)
        picture = first.picture if first else None
        frame = picture.frame if isinstance(picture, AvPicture) else None
        sent, self._sent = self._sent or [], None
        promise = judge(self.path, self.container, self.stream, frame, fps, sent)
        if first is not None and frame is not None and promise.stamps == DECODING:
            self._by_decoding, first = True, replace(first, ticks=frame.dts)
            self._last = frame.dts
        self._peeked = chain([first], flow) if first else flow
        return promise

    def decode(self) -> Iterator[Decoded]:
        """Every frame once, in presentation order, upright; after `seek`, those from there on."""
        flow, self._peeked = self._peeked or self._frames(), None
        return flow

    def _frames(self) -> Iterator[Decoded]:
        for packet in self._packets():
            for frame in self._tolerant(packet):
                yield self._handed(frame)
        if self._pending and self._orderly and self._last is not None:
            yield from self._tail()
        for ticks in self._pending:
            self.damage.lose(ticks)

    def _handed(self, frame: Any) -> Decoded:
        ticks = frame.dts if self._by_decoding else frame.pts
        if self._by_decoding and self._last is not None:
            if ticks is None:  # the decoder's last frames come without a packet of their own
                ticks = self._last + self._step
            self._step = max(1, ticks - self._last)
        if ticks is None or (self._last is not None and ticks <= self._last):
            self._orderly = False
        else:
            while self._pending and self._pending[0] <= ticks:
                overdue = heapq.heappop(self._pending)
                if overdue < ticks and self.damage.failures:
                    self.damage.lose(overdue)
        self._last = ticks
        if self._shown is None:
            self._shown = orientation_of(frame)
        height, width = (frame.width, frame.height) if self._shown.swaps else (frame.height, frame.width)
        if frame.is_corrupt or self.damage.failures > self._failures_seen:
            self._suspect = True
        if frame.key_frame and not frame.is_corrupt:
            self._suspect = False
        self._failures_seen = self.damage.failures
        picture = AvPicture(frame, self._shown, self._scaler)
        return Decoded(ticks, frame.duration or 0, height, width, picture, self._suspect)

    def _packets(self) -> Iterator[Any]:
        import av

        packets, errors = self.container.demux(self.stream), 0
        while errors < MOST_READ_ERRORS:
            try:
                packet = next(packets)
            except StopIteration:
                return
            except (av.error.FFmpegError, OSError):
                errors += 1
                self.damage.failures += 1
                # A generator that raised is finished: take up reading where the container stands.
                packets = self.container.demux(self.stream)
                continue
            errors = 0
            if self._sent is not None and packet.size:
                self._sent.append(packet.pts)
            if packet.pts is not None and packet.size and not packet.is_discard:
                heapq.heappush(self._pending, packet.dts if self._by_decoding and packet.dts else packet.pts)
                if len(self._pending) > MOST_PENDING:
                    heapq.heappop(self._pending)
            yield packet

    def _tolerant(self, packet: Any) -> list[Any]:
        import av

        try:
            return packet.decode()
        except EOFError:
            return []
        except (av.error.FFmpegError, ValueError):
            self.damage.failures += 1
            return []

    def _tail(self) -> Iterator[Decoded]:
        """Frames that threads held back when the last packets failed: FFmpeg drops those while draining."""
        last = self._last
        with open_container(self.path) as container:
            stream = video_stream(container, self.path)
            stream.thread_type, stream.codec_context.thread_count = "NONE", 1
            import av

            with suppress(av.error.FFmpegError):
                container.seek(last, stream=stream)
            failures = 0
            for packet in container.demux(stream):
                try:
                    frames = packet.decode()
                except (av.error.FFmpegError, EOFError, ValueError):
                    failures += 1
                    frames = []
                for frame in frames:
                    if frame.pts is not None and frame.pts > last:
                        yield self._handed(frame)
            self.damage.failures = max(self.damage.failures, failures)
