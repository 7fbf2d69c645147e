"""Feature arrays in the formats that data sets publish: the same rows from each, and no harm from any."""

import sys
import zipfile
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from vidtad.arrays import arrays_among, arrays_in, file_of, is_array, read_rows
from vidtad.errors import InputError
from vidtad.features import Assumed, StoredRows, load_features

VALUES = np.random.default_rng(0).normal(size=(30, 4)).astype(np.float32)
ASSUMED = Assumed(16, 16, Fraction(25))


def write(path: Path, values: np.ndarray = VALUES) -> Path:
    """`values` in the format of the suffix; the path of the array."""
    if path.suffix == ".npy":
        np.save(path, values)
    elif path.suffix == ".npz":
        np.savez_compressed(path, feats=values, other=np.zeros(3))
    elif path.suffix == ".csv":
        head = ",".join(f"score_{n}" for n in range(values.shape[1]))
        np.savetxt(path, values, "%.9g", ",", header=head, comments="")
    else:
        h5py = pytest.importorskip("h5py")
        with h5py.File(path, "a") as file:
            file["v_one"] = values
            file.create_group("not a video")
        return path / "v_one"
    return path


@pytest.mark.parametrize("name", ["a.npy", "a.npz", "a.csv", "a.h5", "a.hdf5"])
def test_every_format_gives_the_same_rows(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name)
    assert is_array(path) and file_of(path) == tmp_path / name and arrays_in(tmp_path / name) == [path]
    np.testing.assert_array_equal(read_rows(path), VALUES)
    features = load_features(path, ASSUMED)
    np.testing.assert_array_equal(features.values, VALUES)
    assert features.grid.times_s[1] == pytest.approx(24 / 25)
    held = StoredRows(path)
    assert held.shape == (30, 4)
    np.testing.assert_array_equal(held[3:9], VALUES[3:9])
    twice = np.array([0, 2, 2, 29])
    np.testing.assert_array_equal(held[twice], VALUES[twice])


def test_a_table_may_have_no_heading(tmp_path: Path) -> None:
    np.savetxt(tmp_path / "a.csv", VALUES[:1], "%.9g", ",")
    np.testing.assert_array_equal(read_rows(tmp_path / "a.csv"), VALUES[:1])


def test_a_folder_is_read_in_one_format(tmp_path: Path) -> None:
    write(tmp_path / "labels.csv")
    assert arrays_among(tmp_path.iterdir()) == [tmp_path / "labels.csv"]
    held = write(tmp_path / "many.h5")
    assert arrays_among(tmp_path.iterdir()) == [held]
    write(tmp_path / "a.npz")
    assert arrays_among(tmp_path.iterdir()) == [tmp_path / "a.npz"]
    write(tmp_path / "a.npy")
    assert arrays_among(tmp_path.iterdir()) == [tmp_path / "a.npy"]


def test_rows_without_a_rate_are_spread_over_the_video(tmp_path: Path) -> None:
    path = write(tmp_path / "a.npy")
    grid = load_features(path, Assumed(5, 5, None, 60.0)).grid
    assert grid.seconds(-0.5) == pytest.approx(0) and grid.seconds(29.5) == pytest.approx(60.0, abs=1e-3)
    with pytest.raises(InputError, match=r"no sidecar a\.json beside it says at which rate: pass --fps"):
        load_features(path, Assumed(5, 5))


def test_the_content_is_part_of_where_rows_came_from(tmp_path: Path) -> None:
    made = []
    for values, fps in ((VALUES, 25), (VALUES + 1, 25), (VALUES, 30)):
        path = write(tmp_path / "a.npy", values)
        made.append(load_features(path, Assumed(16, 16, Fraction(fps)), check_hash=True).provenance.fingerprint())
    assert len(set(made)) == 3


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("a.npz", b"PK\x03\x04 no more", "not a feature file"),
        ("a.csv", b"video,label\nx,run\n", "table of numbers"),
        ("a.csv", b"\xff\xfe\x00", "table of numbers"),
        ("a.h5", b"\x89HDF\r\n\x1a\n and no more", "not a readable HDF5 file"),
        ("a.h5", b"", "not a readable HDF5 file"),
    ],
)
def test_what_is_damaged_is_one_sentence(tmp_path: Path, name: str, content: bytes, sentence: str) -> None:
    if name == "a.h5":
        pytest.importorskip("h5py")
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=sentence):
        read_rows(arrays_in(tmp_path / name)[0])


def test_archives_of_other_things_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "two.npz", rgb=VALUES, flow=VALUES)
    with pytest.raises(InputError, match=r"holds rgb, flow, and no array called feats"):
        read_rows(tmp_path / "two.npz")
    np.savez(tmp_path / "objects.npz", feats=np.array([{"a": 1}], dtype=object))
    with pytest.raises(InputError, match="not a feature file"):
        read_rows(tmp_path / "objects.npz")
    np.savez(tmp_path / "numbers.npz", feats=np.ones((3, 4), int))
    with pytest.raises(InputError, match="floating-point"):
        read_rows(tmp_path / "numbers.npz")


def test_an_archive_that_unpacks_to_too_much_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vidtad.arrays.LARGEST", 1 << 10)
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("feats.npy", bytes(1 << 12))
    with pytest.raises(InputError, match="unpacks to more"):
        read_rows(tmp_path / "a.npz")
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("v", (1 << 20, 4), "f4", chunks=(1024, 4))  # takes no room on the disk
    with pytest.raises(InputError, match="more than"):
        load_features(tmp_path / "a.h5" / "v", ASSUMED)


def test_an_hdf5_file_reaches_no_other_file(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    write(tmp_path / "secret.h5")
    (tmp_path / "secret.bin").write_bytes(VALUES.tobytes())
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["fine"] = VALUES
        file["linked"] = h5py.ExternalLink("secret.h5", "/v_one")
        file["soft"] = h5py.SoftLink("/fine")
        outside = [(str(tmp_path / "secret.bin"), 0, VALUES.nbytes)]
        file.create_dataset("outside", VALUES.shape, "f4", external=outside)
        layout = h5py.VirtualLayout(VALUES.shape, "f4")
        layout[:] = h5py.VirtualSource(str(tmp_path / "secret.h5"), "v_one", VALUES.shape)
        file.create_virtual_dataset("virtual", layout)
    assert arrays_in(tmp_path / "a.h5") == [tmp_path / "a.h5" / "fine"]
    for name in ("linked", "soft", "outside", "virtual", "nothing"):
        with pytest.raises(InputError, match="no array of this name"):
            read_rows(tmp_path / "a.h5" / name)
    with pytest.raises(InputError, match="name one as"):
        read_rows(tmp_path / "a.h5")


def test_without_h5py_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.h5").write_bytes(b"\x89HDF\r\n\x1a\n")
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(InputError, match=r"pip install 'vidtad\[hdf5\]'"):
        arrays_in(tmp_path / "a.h5")


@pytest.mark.parametrize("seed", range(60))
def test_hdf5_files_with_wrong_bytes_are_one_sentence_or_read(tmp_path: Path, seed: int) -> None:
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["a"] = VALUES
        file.create_dataset("b", data=VALUES, chunks=(7, 4), compression="gzip")
    random = np.random.default_rng(seed)
    data = bytearray((tmp_path / "a.h5").read_bytes())
    for place in random.integers(0, len(data), 8).tolist():
        data[place] = int(random.integers(256))
    (tmp_path / "a.h5").write_bytes(data)
    try:
        for path in arrays_in(tmp_path / "a.h5"):
            load_features(path, ASSUMED)
    except InputError as error:
        assert "\n" not in str(error)


def test_fill_values_that_a_file_does_not_hold_are_refused(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("hollow", shape=(1 << 15, 1 << 14), dtype="f4", chunks=True)
        file["sound"] = VALUES
    assert (tmp_path / "a.h5").stat().st_size < 1 << 16
    with pytest.raises(InputError, match=r"announces 2048 MiB of features and holds \d+ KiB"):
        read_rows(tmp_path / "a.h5" / "hollow")
    assert read_rows(tmp_path / "a.h5" / "sound").shape == VALUES.shape


def test_archives_whose_arrays_share_a_name_are_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        for name in ("feats", "feats.npy"):
            with archive.open(name, "w") as entry:
                np.lib.format.write_array(entry, VALUES)
    with pytest.raises(InputError, match="two of its arrays have one name"):
        read_rows(tmp_path / "a.npz")


@pytest.mark.parametrize("name", ["..", "CON", "nul.x", "a" * 300, "a\nb", "a:b"])
def test_names_that_no_result_can_have_are_refused_before_any_work(name: str, tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    try:
        with h5py.File(tmp_path / "a.h5", "w") as file:
            file[name] = VALUES
            there = list(file)
    except ValueError:
        return  # HDF5 itself has no such name
    if there != [name]:
        return  # HDF5 took it for a path
    with pytest.raises(InputError, match="no result can be named like its array") as error:
        arrays_in(tmp_path / "a.h5")
    assert "\n" not in str(error.value)
