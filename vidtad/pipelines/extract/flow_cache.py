"""Optical flow as pictures on disk, named as denseflow names them: kept while it is computed, or read instead."""

import hashlib
import io
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from vidtad.errors import InputError, RunError
from vidtad.extractors import GIVEN, FlowExtractor, TwoStream
from vidtad.extractors.flows import Give
from vidtad.pipelines.extract.load import LoadedExtractor
from vidtad.runtime.files import atomic_write, still_there
from vidtad.runtime.sources import Changed

FIRSTS = tuple((first, suffix) for first in (0, 1) for suffix in (".jpg", ".png"))
"""Numbers of the first picture and suffixes, the ones to be preferred first."""
LARGEST = 1 << 26
"""Bytes of a picture's file at most."""


def stream_of_flow(loaded: LoadedExtractor, option: str) -> FlowExtractor:
    """The stream that sees flow. Raises InputError, which names the `option` that wants one."""
    extractor = loaded.extractor
    stream = extractor.flow if isinstance(extractor, TwoStream) else extractor
    if isinstance(stream, FlowExtractor):
        return stream
    raise InputError(f"extractor {extractor.name} sees no optical flow: add --stream rgb,flow or drop {option}")


def check_flow_from(flow_from: Path, videos: Sequence[Path] = ()) -> None:
    """Raise InputError, before any weights are fetched, where pictures of flow cannot be.

    Of several videos, one that lacks them does not stop the others: only a single one is looked for.
    """
    if not flow_from.is_dir():
        raise InputError(f"--flow-from {flow_from}: no such folder")
    if len(videos) == 1:
        FlowPictures.of(flow_from, videos[0])


@contextmanager
def keeping_flow(loaded: LoadedExtractor, folder: Path | None) -> Iterator[None]:
    """While open, the flow of every pair is written to `folder` as denseflow does: `flow_x_00000.jpg`, `flow_y_...`.

    JPEG of quality 95, levels of 0 to 255 for -20 to 20 pixels. None keeps nothing. Raises InputError for an extractor
    that sees no flow, RunError (out of the frame stream) for a failed write.
    """
    if folder is None:
        yield
        return
    stream = stream_of_flow(loaded, "--keep-flow")
    kept = stream.keep = FlowFolder(folder)
    try:
        yield
        kept.check()
    finally:
        stream.keep = None


@contextmanager
def giving_flow(loaded: LoadedExtractor, give: Give, pictures_sha256: str) -> Iterator[LoadedExtractor]:
    """While open, the extractor asks `give` for flow; its settings name the pictures by their hash.

    Raises InputError for an extractor that computes its flow, or sees none.
    """
    stream = stream_of_flow(loaded, "--flow-from")
    if stream.method is not GIVEN:
        raise InputError(f"extractor {loaded.extractor.name} computes its flow: load it with flow=GIVEN to read it")
    if stream.keep is not None:
        raise InputError("no flow is computed that could be kept: --keep-flow does not go with --flow-from")
    stream.give = give
    try:
        yield replace(loaded, extra={**loaded.extra, "flow_pictures_sha256": pictures_sha256})
    finally:
        stream.give = None


@dataclass
class FlowFolder:
    """Pictures of optical flow on disk, an x and a y one a pair of frames, numbered from 0; `pairs` so far."""

    folder: Path
    pairs: int = 0

    def __call__(self, number: int, levels: np.ndarray) -> None:
        """Write one pair's levels (h, w, 2) uint8. Raises RunError when that fails."""
        import cv2

        for axis, name in enumerate("xy"):
            done, data = cv2.imencode(".jpg", np.ascontiguousarray(levels[..., axis]), [cv2.IMWRITE_JPEG_QUALITY, 95])
            if not done:
                raise RunError(f"{self.folder}: picture {number} of flow could not be encoded")
            with atomic_write(self.folder / f"flow_{name}_{number:05d}.jpg") as file:
                file.write(data.tobytes())
        self.pairs = number + 1

    def check(self) -> None:
        """Raise RunError when pictures that were written are gone."""
        there = set(os.listdir(self.folder)) if self.folder.is_dir() else set()
        names = (f"flow_{axis}_{number:05d}.jpg" for number in range(self.pairs) for axis in "xy")
        gone = next((name for name in names if name not in there), None)
        if gone is not None:
            still_there([self.folder / gone])


@dataclass(frozen=True)
class FlowPictures:
    """Pictures of one video's flow, made here or by denseflow (numbered from 0) or dense_flow (from 1).

    They are `flow_x_00000` and `flow_y_00000`, .jpg or .png, `first` being the number of the first pair's.
    """

    folder: Path
    first: int
    suffix: str
    known: np.ndarray | None = field(default=None, compare=False, repr=False)

    @classmethod
    def of(cls, flow_from: Path, video: Path) -> "FlowPictures":
        """Those of `video`, in the folder of its name. Raises InputError where there are none."""
        folder = Path(flow_from) / video.stem
        if not folder.is_dir():
            raise InputError(f"{folder}: no such folder, but --flow-from wants one with the flow of {video.name}")
        for first, suffix in FIRSTS:
            found = cls(folder, first, suffix)
            if found.path("x", 0).name in found._names():
                return found
        raise InputError(f"{folder}: neither flow_x_00000 nor flow_x_00001, .jpg or .png, is here to begin with")

    def path(self, axis: str, number: int) -> Path:
        """The picture along `axis` (x, y) of the pair `number`, from 0."""
        return self.folder / f"flow_{axis}_{number + self.first:05d}{self.suffix}"

    def levels(self, number: int, size: tuple[int, int]) -> np.ndarray:
        """(h, w, 2) uint8 of the pair `number`. Raises InputError for what is no picture of `size` = (h, w) pixels,
        Changed (a RunError) for other content than `hashed` saw."""
        axes = []
        for row, axis in enumerate("xy"):
            path = self.path(axis, number)
            found, digest = self._read(path, size)
            if self.known is not None and digest[:8] != self.known[row, number].tobytes():
                raise Changed(f"{path}: was changed or replaced while it was read; run the same command again")
            axes.append(found)
        return np.stack(axes, axis=-1)

    def hashed(self) -> tuple[str, "FlowPictures"]:
        """As `sha256`, and the same pictures with eight bytes of each one's hash."""
        known = np.zeros((2, self.count()), "V8")
        return self._total(known), replace(self, known=known)

    def check(self, size: tuple[int, int]) -> None:
        """Raise InputError like `levels`, for the very first picture."""
        self._read(self.path("x", 0), size)

    def _read(self, path: Path, size: tuple[int, int]) -> tuple[np.ndarray, bytes]:
        """The picture, and the SHA-256 of its file."""
        from PIL import Image

        try:
            data = self._bytes(path)
            with Image.open(io.BytesIO(data), formats=("JPEG", "PNG")) as picture:
                width, height = picture.size
                if (height, width) != size:
                    raise InputError(
                        f"{path}: {width} x {height} pixels, but the extractor sees this video's flow at "
                        f"{size[1]} x {size[0]}; lengths of flow scale with the picture, so it is not rescaled"
                    )
                if picture.mode not in ("L", "RGB"):
                    raise InputError(f"{path}: not a grey picture of 8 bits, which flow is kept in")
                return np.asarray(picture.convert("L")), hashlib.sha256(data).digest()
        except FileNotFoundError as error:
            raise InputError(self._absence(path)) from error
        except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
            raise InputError(f"{path}: cannot be decoded as a JPEG or PNG picture ({error})") from error

    def _bytes(self, path: Path) -> bytes:
        with open(path, "rb") as file:
            data = file.read(LARGEST + 1)
        if len(data) > LARGEST:
            raise InputError(f"{path}: larger than {LARGEST >> 20} MiB, so not a picture of flow")
        return data

    def _absence(self, path: Path) -> str:
        return f"{path}: this picture of flow is missing, and frames of the video want it"

    def first_missing(self, numbers: Iterable[int]) -> int | None:
        """The first of these pairs that lacks a picture."""
        there = set(self._names())
        return next((n for n in numbers if any(self.path(axis, n).name not in there for axis in "xy")), None)

    def count(self) -> int:
        """How many pairs they reach to, missing ones included."""
        digits = len("flow_x_")
        return max(int(name[digits : -len(self.suffix)]) for name in self._names()) - self.first + 1

    def refusal(self, number: int) -> InputError:
        """What to raise for a pair that lacks a picture."""
        x, y = (self.path(axis, number) for axis in "xy")
        return InputError(self._absence(y if x.exists() else x))

    def sha256(self) -> str:
        """Of names and content of all pictures. Raises InputError when one cannot be read."""
        return self._total(None)

    def _total(self, known: np.ndarray | None) -> str:
        total, digits = hashlib.sha256(), len("flow_x_")
        for name in sorted(self._names()):
            try:
                own = hashlib.sha256(self._bytes(self.folder / name))
            except OSError as error:
                raise InputError(f"{self.folder / name}: cannot be read ({error.strerror or error})") from error
            total.update(f"{name} {own.hexdigest()}\n".encode())
            number = int(name[digits : -len(self.suffix)]) - self.first
            if known is not None and 0 <= number < known.shape[1]:
                known["xy".index(name[digits - 2]), number] = own.digest()[:8]
        return total.hexdigest()

    def _names(self) -> Iterator[str]:
        form = re.compile(rf"flow_[xy]_\d{{5,}}{re.escape(self.suffix)}")
        try:
            return filter(form.fullmatch, os.listdir(self.folder))
        except OSError as error:
            raise InputError(f"{self.folder}: cannot be read ({error.strerror or error})") from error
