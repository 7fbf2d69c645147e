"""Authors' checkpoint files to detector bundles."""

from collections.abc import Sequence
from pathlib import Path

from vidtad.errors import InputError, unknown
from vidtad.heads.registry import layouts
from vidtad.hub.bundle import Bundle


def convert_checkpoint(path: Path, kind: str, preset: str = "thumos14", classes: Sequence[str] | None = None) -> Bundle:
    """Bundle of an authors' checkpoint file, also of one you trained with their code.

    `kind`: whose layout, a name of `registry.layouts()`. `classes`: names in the order of the outputs, where the
    preset's are not those. Raises InputError, naming the file, for an unknown kind or preset and for another
    network's weights.
    """
    from vidtad.hub.reading import read_checkpoint
    from vidtad.runtime.sources import read_hashed

    readers = layouts()
    if kind not in readers:
        raise InputError(unknown("layout", kind, readers))
    checkpoint, digest = read_hashed(path, read_checkpoint)
    try:
        return readers[kind](checkpoint, preset, classes, digest)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
