"""Other decoders, by explicit choice only: decord, OpenCV, torchcodec.

None of them is trusted with times or counts: both come from the packet index, and a file on which a backend
delivers anything else is refused. What each gets wrong was measured on clips whose frames carry their numbers:
decord hangs on transport streams whose clock restarts, cannot open AV1, and reads ahead without bound; OpenCV
stops silently at damage, opens AV1 without giving a frame (5.0), and returns rubbish for interlaced pictures;
torchcodec raises at damage and loses frames of some interlaced files.
"""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from vidtad.errors import InputError
from vidtad.video.header import Promise
from vidtad.video.plan import read_plan
from vidtad.video.pyav import AvPicture, PyavDecoder
from vidtad.video.scale import Scaler
from vidtad.video.shown import SDR, opencv_converts
from vidtad.video.types import Damage, Decoded, Decoder

TORCHCODEC_CHUNK = 8
_scaler = Scaler()


@dataclass(frozen=True)
class ArrayPicture:
    """A picture that is pixels already: (H, W, 3) uint8, upright."""

    pixels: np.ndarray

    def rgb(self, height: int, width: int) -> np.ndarray:
        """Pixels scaled to (height, width, 3) uint8."""
        if self.pixels.shape[:2] == (height, width):
            return self.pixels
        import av

        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(self.pixels), format="rgb24")
        return _scaler.rgb(frame, height, width)


class PlannedDecoder:
    """A backend that gives pictures in order; their number and times are those of the packet index.

    Raises InputError when the file is of a kind the backend is known to get wrong, or when it delivers other
    than the index announces.
    """

    name = ""

    def __init__(self, path: str | Path, promise: Promise) -> None:
        self.path, self.promise = path, promise
        self.time_base = promise.time_base
        self.damage = Damage()
        self.plan = read_plan(path, promise)
        doubt = self.plan.doubt or self._general() or self.unsuited()
        if doubt:
            raise self.refusal(doubt)

    def _general(self) -> str:
        """What only PyAV is asked for rightly: one of several films, mirrored pictures."""
        if self.promise.several:
            return "it holds several films"
        return "its pictures are mirrored" if self.promise.info.mirrored else ""

    def unsuited(self) -> str:
        """Why this backend must not be used on this file, or ''."""
        return ""

    def pictures(self) -> Iterator[np.ndarray]:
        """Upright RGB pictures (H, W, 3) uint8 in presentation order."""
        raise NotImplementedError

    def refusal(self, reason: str) -> InputError:
        """The error that says this file needs another decoder."""
        return InputError(f"{self.path}: {self.name} cannot read it rightly ({reason}); use --decoder pyav")

    def decode(self) -> Iterator[Decoded]:
        """Every frame once, in presentation order, upright."""
        times, count = self.plan.times, 0
        info = self.promise.info
        for pixels in self.pictures():
            if count == len(times):
                raise self.refusal(f"it delivers more than the {count} frames there are")
            if pixels.shape != (info.height, info.width, 3):
                shape = " x ".join(str(n) for n in pixels.shape[1::-1])
                raise self.refusal(f"it delivers pictures of {shape} instead of {info.width} x {info.height}")
            follows = count + 1 < len(times)
            length = times[count + 1] - times[count] if follows else self.plan.last_length
            picture = ArrayPicture(pixels)
            yield Decoded(times[count], length, info.height, info.width, picture)
            count += 1
        if count < len(times):
            raise self.refusal(f"it delivers {count} of {len(times)} frames")

    def close(self) -> None:
        """Free the file."""

    def module(self, name: str, extra: str) -> Any:
        """The backend's module. Raises InputError naming the extra to install."""
        try:
            return import_module(name)
        except ImportError as error:
            raise InputError(
                f"Decoder {self.name} is not installed; install it with: pip install 'vidtad[{extra}]', "
                "or use --decoder pyav"
            ) from error
        except (OSError, RuntimeError) as error:
            raise InputError(
                f"Decoder {self.name} is installed but does not load (torchcodec needs FFmpeg's shared "
                "libraries, version 4 to 9, on the system); use --decoder pyav"
            ) from error


class DecordDecoder(PlannedDecoder):
    """decord, read from the first frame to the last. It buffers decoded frames without bound while it waits.

    Hangs inside it hold the interpreter, so it runs in a process of its own (see `vidtad.video.isolate`).
    """

    name = "decord"

    def unsuited(self) -> str:
        """Containers decord was seen to hang on or to read without giving frames."""
        return "transport streams make it hang" if self.promise.container == "mpegts" else ""

    def pictures(self) -> Iterator[np.ndarray]:
        """Upright RGB pictures (H, W, 3) uint8 in presentation order."""
        decord = self.module("decord", "decord")
        try:
            reader = decord.VideoReader(str(Path(self.path).absolute()), num_threads=2)
            if len(reader) != len(self.plan.times):
                raise self.refusal(f"it counts {len(reader)} frames where there are {len(self.plan.times)}")
            for _ in range(len(reader)):
                yield reader.next().asnumpy()
        except StopIteration:
            return
        except (decord.DECORDError, RuntimeError) as error:
            raise self.refusal("it gives up on it") from error


KNOWS_MATRICES = (4, 13)
OTHER_MATRICES = frozenset({1, 4, 7, 8})
"""The first OpenCV seen to heed a stream's matrix (4.12 takes BT.601's for all, 7 levels of 255 off on BT.709), and the
matrices (ITU-T H.273: BT.709, FCC, SMPTE 240M, YCgCo) that are not BT.601's."""


def _release(module: Any) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", module.__version__)[:2])


class OpencvDecoder(PlannedDecoder):
    """OpenCV's FFmpeg reader, in order."""

    name = "opencv"

    def unsuited(self) -> str:
        """Interlaced pictures come out of several OpenCV releases as rubbish, with read() true; HDR it tone-maps."""
        if self.promise.interlaced:
            return "interlaced pictures come out as rubbish"
        return "HDR comes out tone-mapped, as by no other decoder" if self.promise.info.dynamic_range != SDR else ""

    def _doubt(self, frame: Any, knows_matrices: bool) -> str:
        """Why it must not be trusted with a frame (PyAV's), or ''. A broadcast may change in the middle."""
        if frame.interlaced_frame:
            return "interlaced pictures come out as rubbish"
        if opencv_converts(frame):
            return "its wide colours come out converted, as by no other decoder"
        if int(frame.colorspace) in OTHER_MATRICES and not knows_matrices:
            return "an OpenCV older than 4.13 reads its colours with the wrong matrix"
        return ""

    def pictures(self) -> Iterator[np.ndarray]:
        """Upright RGB pictures (H, W, 3) uint8 in presentation order."""
        # FFmpeg inside OpenCV would write its complaints about a damaged file over the program's own output.
        os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
        cv2 = self.module("cv2", "opencv")
        # The back end is named so that a % in the file name is not taken for an image sequence.
        capture = cv2.VideoCapture(str(Path(self.path).absolute()), cv2.CAP_FFMPEG)
        # OpenCV says nothing of a frame's kind: PyAV decodes beside it, without converting, and is asked about each.
        beside, knows = PyavDecoder(self.path, self.promise), _release(cv2) >= KNOWS_MATRICES
        try:
            for decoded in beside.decode():
                doubt = self._doubt(decoded.picture.frame, knows) if isinstance(decoded.picture, AvPicture) else ""
                if doubt:
                    raise self.refusal(f"{doubt}, from {float(decoded.ticks or 0) * float(self.time_base):.2f} s on")
                there, pixels = capture.read()
                if not there:
                    return
                yield cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)
            while (answer := capture.read())[0]:
                yield cv2.cvtColor(answer[1], cv2.COLOR_BGR2RGB)
        finally:
            beside.close()
            capture.release()


class TorchcodecDecoder(PlannedDecoder):
    """torchcodec, in order; its own times are exact and have to agree with the packet index."""

    name = "torchcodec"

    def unsuited(self) -> str:
        """Transport streams: it was seen to begin with frame 12 under the time of frame 0."""
        return "transport streams lose their first frames" if self.promise.container == "mpegts" else ""

    def pictures(self) -> Iterator[np.ndarray]:
        """Upright RGB pictures (H, W, 3) uint8 in presentation order."""
        module = self.module("torchcodec.decoders", "torchcodec")
        times = self.plan.times
        try:
            reader = module.VideoDecoder(str(Path(self.path).absolute()), dimension_order="NHWC", num_ffmpeg_threads=2)
            if len(reader) != len(times):
                raise self.refusal(f"it counts {len(reader)} frames where there are {len(times)}")
            for start in range(0, len(reader), TORCHCODEC_CHUNK):
                batch = reader.get_frames_in_range(start, min(start + TORCHCODEC_CHUNK, len(reader)))
                for offset, own_s in enumerate(batch.pts_seconds.tolist()):
                    if abs(own_s - float(times[start + offset] * self.time_base)) > 1e-3:
                        raise self.refusal(f"its time for frame {start + offset} is off")
                    yield batch.data[offset].numpy()
        except (RuntimeError, ValueError, IndexError) as error:
            raise self.refusal("it gives up on it") from error


DECODERS: dict[str, type[Decoder]] = {
    "pyav": PyavDecoder,
    "decord": DecordDecoder,
    "opencv": OpencvDecoder,
    "torchcodec": TorchcodecDecoder,
}


def decoder_class(name: str) -> type[Decoder]:
    """The decoder of that name. Raises InputError naming those there are."""
    if name not in DECODERS:
        raise InputError(f"There is no decoder {name!r}; choose one of {', '.join(DECODERS)}")
    return DECODERS[name]
