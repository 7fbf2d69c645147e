"""The time grid is exact; feature files survive the round trip and refuse what does not belong together."""

import json
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vidtad.errors import InputError, RunError
from vidtad.features import Assumed, Features, Grid, Provenance, StoredRows, load_features, save_features, sidecar_of
from vidtad.video import VideoInfo


def make(rows: int = 5, width: int = 3) -> Features:
    video = VideoInfo(path="v.mp4", width=64, height=48, fps=Fraction(30000, 1001), duration_s=1.2, frames=36)
    grid = Grid.regular(video.fps, 4, 16, rows)
    values = np.random.default_rng(0).normal(size=(rows, width)).astype(np.float32)
    provenance = Provenance("i3d", (("rgb", width),), "random:0", "ab" * 32, "cd" * 32, {"crop": 224}, ("odd",))
    return Features(values, grid, video, provenance)


def test_row_times_follow_the_published_formula() -> None:
    grid = Grid.regular(Fraction(30000, 1001), 4, 16, 1000)
    expected = [(Fraction(i * 4) + 8) / Fraction(30000, 1001) for i in range(1000)]
    np.testing.assert_allclose(grid.times_s, np.array(expected, dtype=float), rtol=0, atol=1e-12)


@given(st.integers(1, 50), st.integers(1, 16), st.integers(1, 64), st.fractions(1, 120))
def test_seconds_is_linear_on_a_regular_grid(rows: int, stride: int, span: int, fps: Fraction) -> None:
    grid = Grid.regular(fps, stride, span, rows)
    positions = np.linspace(-3, rows + 3, 41)
    expected = (positions * stride + span / 2) / float(fps)
    np.testing.assert_allclose(grid.seconds(positions), expected, rtol=1e-9, atol=1e-9)


def test_seconds_follows_variable_rows() -> None:
    grid = Grid(Fraction(10), 5, 5, np.array([0.0, 1.0, 4.0]))
    assert grid.seconds([0, 0.5, 1, 1.5, 2, 3, -1]).tolist() == [0, 0.5, 1, 2.5, 4, 4.5, -0.5]


@pytest.mark.parametrize("times", [[], [0.0, 0.0], [1.0, 0.5], [float("nan")]])
def test_bad_row_times_are_refused(times: list[float]) -> None:
    with pytest.raises(InputError, match="row times"):
        Grid(Fraction(25), 4, 16, np.array(times))


def test_round_trip(tmp_path: Path) -> None:
    features = make()
    path = save_features(features, tmp_path, "v")
    again = load_features(path, check_hash=True)
    np.testing.assert_array_equal(again.values, features.values)
    np.testing.assert_array_equal(again.grid.times_s, features.grid.times_s)
    assert again.grid.fps == features.grid.fps
    assert again.video == features.video
    assert again.provenance == features.provenance
    assert np.load(path).dtype == np.float32  # other tools read the array as it is
    sidecar = json.loads(sidecar_of(path).read_text())
    assert (sidecar["window"], sidecar["stride"], sidecar["frames"], sidecar["channels"]) == (16, 4, 36, [["rgb", 3]])


def test_a_changed_array_is_noticed(tmp_path: Path) -> None:
    path = save_features(make(), tmp_path, "v")
    np.save(path, np.load(path) + 1)
    with pytest.raises(InputError, match="does not match its sidecar"):
        load_features(path, check_hash=True)


def test_rows_and_times_must_agree(tmp_path: Path) -> None:
    path = save_features(make(rows=5), tmp_path, "v")
    np.save(path, np.load(path)[:4])
    with pytest.raises(InputError, match="4 feature rows but 5 row times"):
        load_features(path)


def test_nan_rows_are_refused(tmp_path: Path) -> None:
    path = save_features(make(), tmp_path, "v")
    values = np.load(path)
    values[3, 1] = np.nan
    np.save(path, values)
    with pytest.raises(InputError, match="row 3 holds NaN"):
        load_features(path)


def test_foreign_arrays_need_a_grid(tmp_path: Path) -> None:
    path = tmp_path / "foreign.npy"
    np.save(path, np.ones((7, 4), dtype=np.float64))
    with pytest.raises(InputError, match=r"no sidecar foreign\.json beside it; pass --fps"):
        load_features(path)
    features = load_features(path, Assumed(4, 16, Fraction(25)))
    assert features.values.dtype == np.float32
    assert features.grid.times_s[2] == pytest.approx((2 * 4 + 8) / 25)
    assert features.video.duration_s == pytest.approx((6.5 * 4 + 8) / 25)


@pytest.mark.parametrize("content", [b"", b"text", b"\x93NUMPY\x01\x00"])
def test_what_is_no_array_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.npy"
    path.write_bytes(content)
    with pytest.raises(InputError, match="not a feature file"):
        load_features(path)


def test_pickled_arrays_are_never_executed(tmp_path: Path) -> None:
    path = tmp_path / "x.npy"
    np.save(path, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match="not a feature file"):
        load_features(path)


@pytest.mark.parametrize("change", [{"fps_exact": "0"}, {"times_s": "x"}, {"channels": 3}, {"format": "other"}])
def test_a_broken_sidecar_is_one_sentence(tmp_path: Path, change: dict) -> None:
    path = save_features(make(), tmp_path, "v")
    document = json.loads(sidecar_of(path).read_text())
    sidecar_of(path).write_text(json.dumps(document | change))
    with pytest.raises(InputError):
        load_features(path)


def test_a_stored_array_is_read_by_the_slice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float16)
    np.save(tmp_path / "a.npy", values)
    held = load_features(tmp_path / "a.npy", Assumed(4, 16, Fraction(25)), stored=True).values
    assert isinstance(held, StoredRows) and held.shape == (50, 3) and len(held) == 50
    assert not any(isinstance(value, np.ndarray) for value in vars(held).values())
    read = held[10:20]
    assert read.dtype == np.float32 and read.shape == (10, 3) and read.base is None
    np.testing.assert_array_equal(read, values[10:20].astype(np.float32))
    np.testing.assert_array_equal(np.asarray(held), values.astype(np.float32))
    (tmp_path / "a.npy").unlink()
    with pytest.raises(RunError, match="cannot be read"):
        held[:1]


FEW_FILES = """
import resource, sys
from fractions import Fraction
from pathlib import Path
import numpy as np
from vidtad.errors import InputError
from vidtad.features import Assumed, load_features
grid = Assumed(4, 16, Fraction(25))
paths = sorted(Path(sys.argv[1]).glob("*.npy"))
resource.setrlimit(resource.RLIMIT_NOFILE, (60, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
held = [load_features(path, grid, stored=True) for path in paths]
assert [float(h.values[1:2][0, 0]) for h in held] == [float(n) for n in range(len(paths))]
mapped = []
try:
    for path in paths:
        mapped.append(load_features(path, grid))
except InputError as error:
    print(len(held), error)
"""


def test_more_feature_files_than_files_may_be_open(tmp_path: Path) -> None:
    pytest.importorskip("resource")
    for number in range(100):
        np.save(tmp_path / f"{number:03}.npy", np.full((4, 2), number, np.float32))
    done = subprocess.run([sys.executable, "-c", FEW_FILES, str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    # Maps run out of descriptors, and that is what is said.
    assert done.stdout.startswith("100 ") and "cannot be read (Too many open files)" in done.stdout
