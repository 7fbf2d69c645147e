"""Which array of a download is a video's."""

import json
from pathlib import Path

import numpy as np
import pytest

from tests.pipelines.train.test_data import each, labels_of
from vidtad.errors import InputError
from vidtad.features import Assumed, load_features
from vidtad.pipelines.train.data import find_material
from vidtad.pipelines.train.third_party_features import adopt_features

WIDTH = 2048
"""Channels of the features that ReAct was published with for THUMOS14."""


def hdf5(path: Path, names: tuple[str, ...], width: int = WIDTH) -> Path:
    """An HDF5 file of one array a name; every value of the first is 0, of the second 1 and so on."""
    h5py = pytest.importorskip("h5py")
    with h5py.File(path, "w") as file:
        for number, name in enumerate(names):
            file[name] = np.full((9, width), number, np.float32)
    return path


def annotated(path: Path, *names: str) -> Path:
    action = {"segment": [0.1, 0.2], "label": "eat"}
    entry = {"subset": "training", "duration": 1.0, "fps": 30.0, "annotations": [action]}
    path.write_text(json.dumps({"database": dict.fromkeys(names, entry)}))
    return path


def test_dots_belong_to_the_name_of_an_array_in_a_file(tmp_path: Path) -> None:
    """`clip.1` and `clip.2` are two videos, and neither is called `clip`."""
    source = hdf5(tmp_path / "all.h5", ("clip.1", "clip.2"))
    labels = labels_of(each("clip.2"))
    material = find_material(labels, None, source, foreign=lambda name, path: Assumed(4, 16, None, 1.0))
    assert material.features == {"clip.2": source / "clip.2"} and material.unused == ("clip.1",)
    annotations = annotated(tmp_path / "a.json", "clip.1", "clip.2")
    adopted = adopt_features("react", "thumos14", annotations, [source], tmp_path / "out")
    assert adopted.written == ("clip.1", "clip.2")
    assert [load_features(tmp_path / "out" / f"clip.{n}.npy").values.mean() for n in (1, 2)] == [0.0, 1.0]


def test_two_arrays_of_one_name_are_not_one_of_them(tmp_path: Path) -> None:
    """Of a pattern's files the last was taken, without a word."""
    for number in (1, 2):
        hdf5(tmp_path / f"part_{number}.h5", ("video",))
    with pytest.raises(InputError, match=r"part_1\.h5/video and .*part_2\.h5/video have one name"):
        annotations = annotated(tmp_path / "a.json", "video")
        adopt_features("react", "thumos14", annotations, [tmp_path / "part_*.h5"], tmp_path / "out")
