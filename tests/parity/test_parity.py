"""Every golden fixture against the adapter of its kind, within the fixture's own tolerance.

`VIDTAD_PARITY` names a folder of fixtures; the default is the copies kept beside this file.
"""

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest

from tests.parity import documents
from tests.parity.adapters import ADAPTERS
from tests.parity.tolerance import check

ROOT = Path(os.environ.get("VIDTAD_PARITY") or Path(__file__).parent / "fixtures")
FOLDERS = sorted(path.parent for path in ROOT.glob("*/manifest.json"))


class Recorded(Mapping[str, np.ndarray]):
    """The arrays of a fixture, remembering which ones an adapter took as inputs."""

    def __init__(self, arrays: Mapping[str, np.ndarray]):
        self.arrays, self.read = arrays, set[str]()

    def __getitem__(self, name: str) -> np.ndarray:
        self.read.add(name)
        return self.arrays[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.arrays)

    def __len__(self) -> int:
        return len(self.arrays)

    def __contains__(self, name: object) -> bool:
        return name in self.arrays


def arrays_of(folder: Path) -> dict[str, np.ndarray]:
    if not (folder / "io.npz").exists():
        return {}
    with np.load(folder / "io.npz", allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


def test_fixtures_are_there() -> None:
    assert FOLDERS, f"no fixture folders under {ROOT}"


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_parity(folder: Path) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    kind = manifest.get("adapter", folder.name)
    assert kind in ADAPTERS, f"no adapter for fixture kind {kind!r}"
    io = Recorded(arrays_of(folder))
    outputs = ADAPTERS[kind](manifest, io, folder)
    if not io.arrays:
        documents.compare(manifest, folder, outputs)
        return
    # An adapter may look at what it is to give, to read a slice or match an order; it is compared all the same.
    expected = {
        name: array
        for name, array in io.arrays.items()
        if name not in io.read or name in outputs or name.startswith("out.")
    }
    missing = sorted(expected.keys() - outputs.keys())
    assert not missing, f"outputs not computed: {missing}"
    assert outputs, "the adapter returned nothing"
    for name, stored in expected.items():
        check(kind, manifest, name, np.asarray(outputs[name]), stored)
