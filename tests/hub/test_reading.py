"""Checkpoints of every container kind are read by content, and none of them runs anything."""

import argparse
import gzip
import io
import pickle
import struct
import tarfile
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from vidtad.errors import InputError
from vidtad.hub import reading as weights
from vidtad.hub.reading import read_checkpoint, state_dict


class Payload:
    """Pickled, it calls `open(marker, "w")` when read by a plain unpickler."""

    def __init__(self, marker: Path):
        self.marker = str(marker)

    def __reduce__(self):
        return (open, (self.marker, "w"))


TENSORS = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.bias": torch.tensor([1.0, -2.0]), "n": torch.tensor(7)}
ARRAYS = {name: tensor.numpy() for name, tensor in TENSORS.items()}


def torch_zip(path, value):
    torch.save(value, path)


def torch_legacy(path, value):
    torch.save(value, path, _use_new_zipfile_serialization=False)


def numpy_pickle(path, value, protocol=2):
    path.write_bytes(pickle.dumps(value, protocol=protocol))


def zipped(path, value):
    """An .npz written by hand, with `value` as an array of objects."""
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.array([value], dtype=object), allow_pickle=True)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("w.npy", buffer.getvalue())


def gzipped(writer):
    def write(path, value):
        writer(path, value)
        path.write_bytes(gzip.compress(path.read_bytes()))

    return write


def same(found):
    assert list(found) == list(TENSORS)
    for name, tensor in TENSORS.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor)


TORCH_WRITERS = {
    "zip": torch_zip,
    "legacy": torch_legacy,
    "zip.gz": gzipped(torch_zip),
    "legacy.gz": gzipped(torch_legacy),
}


@pytest.mark.parametrize("kind", TORCH_WRITERS)
def test_torch_files_are_recognised_under_any_name(tmp_path, kind):
    path = tmp_path / "weights.pkl"  # PySlowFast's AVA files are torch files with this ending
    TORCH_WRITERS[kind](path, {"epoch": 3, "model_state": OrderedDict(TENSORS)})
    checkpoint = read_checkpoint(path)
    assert checkpoint["epoch"] == 3
    same(checkpoint["model_state"])
    assert type(checkpoint["model_state"]) is dict


@pytest.mark.parametrize("compress", [False, True])
def test_safetensors_and_gzip_of_it(tmp_path, compress):
    path = tmp_path / "weights.pt"
    save_file(TENSORS, path)
    if compress:
        path.write_bytes(gzip.compress(path.read_bytes()))
    found = read_checkpoint(path)
    same({name: found[name] for name in TENSORS})


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz(tmp_path, save):
    path = tmp_path / "weights.npz"
    save(path, **ARRAYS, fortran=np.asfortranarray(np.arange(6.0).reshape(2, 3)), big=np.arange(3, dtype=">i4"))
    found = read_checkpoint(path)
    assert found.pop("fortran").tolist() == [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]
    assert found.pop("big").tolist() == [0, 1, 2]
    same(found)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("compress", [False, True])
def test_numpy_pickles_of_every_protocol(tmp_path, protocol, compress):
    path = tmp_path / "weights.pth"
    value = OrderedDict(ARRAYS)
    value["fortran"] = np.asfortranarray(np.arange(6, dtype=">f4").reshape(2, 3))
    value["text"] = np.array(["one", "three"])
    value["score"] = np.float64(0.5)
    value["empty"] = np.zeros((0, 4), np.float32)
    value["others"] = {"seen": {1, 2}, "raw": b"\x00\xff", "pair": (1, None)}
    (gzipped(numpy_pickle) if compress else numpy_pickle)(path, value, *([] if compress else [protocol]))
    found = read_checkpoint(path)
    assert found.pop("fortran").tolist() == [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]
    assert found.pop("text") == ["one", "three"]
    assert found.pop("score") == 0.5
    assert found.pop("empty").shape == (0, 4)
    assert found.pop("others") == {"seen": [1, 2], "raw": b"\x00\xff", "pair": [1, None]}
    same(found)


def python2_string(text: bytes) -> bytes:
    return (b"U" + bytes([len(text)]) if len(text) < 256 else b"T" + struct.pack("<I", len(text))) + text


def test_caffe2_pickle_written_by_python_2(tmp_path):
    """{"blobs": {"conv1_w": float32 array}} as Python 2's cPickle writes it: byte strings throughout."""
    data = np.array([1.5, -2.0], "<f4").tobytes()
    array = b"".join(
        [
            b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00t",
            python2_string(b"b"),
            b"tR(K\x01(K\x02tcnumpy\ndtype\n(",
            python2_string(b"f4"),
            b"K\x00K\x01tR(K\x03",
            python2_string(b"<"),
            b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89",
            python2_string(data),
            b"tb",
        ]
    )
    blobs = b"}(" + python2_string(b"conv1_w") + array + python2_string(b"lr") + b"K\x01" + b"u"
    path = tmp_path / "model.pkl"
    path.write_bytes(b"\x80\x02}" + python2_string(b"blobs") + blobs + b"s.")
    found = state_dict(read_checkpoint(path), "caffe2")
    assert list(found) == ["conv1_w"]
    assert found["conv1_w"].tolist() == [1.5, -2.0]


PAYLOAD_WRITERS = {
    **TORCH_WRITERS,
    "pickle-0": lambda path, value: numpy_pickle(path, value, 0),
    "pickle-2": numpy_pickle,
    "pickle-4": lambda path, value: numpy_pickle(path, value, 4),
    "pickle.gz": gzipped(numpy_pickle),
    "npz": zipped,
    "npz.gz": gzipped(zipped),
}


@pytest.mark.parametrize("kind", PAYLOAD_WRITERS)
def test_a_payload_is_refused_and_does_not_run(tmp_path, kind):
    marker = tmp_path / "ran"
    path = tmp_path / "weights.pth"
    PAYLOAD_WRITERS[kind](path, {"state_dict": {"w": Payload(marker)}})
    with pytest.raises(InputError, match=r"weights\.pth"):
        read_checkpoint(path)
    assert not marker.exists()


def test_the_payload_would_have_run(tmp_path):
    marker = tmp_path / "ran"
    pickle.loads(pickle.dumps(Payload(marker))).close()
    assert marker.exists()


@pytest.mark.parametrize(
    "code",
    [
        b"cos\nsystem\n(S'true'\ntR.",
        b"\x80\x04\x8c\x08builtins\x8c\x04eval\x93\x8c\x011\x85R.",
        b"\x80\x04\x8c\x05numpy\x8c\x0fdtype.__class__\x93.",
        b"(S'true'\nios\nsystem\n.",
        b"\x80\x02\x82\x01.",
        b"\x80\x02cnumpy\nload\n.",
        b"\x80\x02cnumpy\ndtype\n(U\x01OtR.",
    ],
)
def test_names_outside_the_table_are_refused(tmp_path, code):
    path = tmp_path / "weights.pkl"
    path.write_bytes(code)
    with pytest.raises(InputError, match="refused"):
        read_checkpoint(path)


def test_a_payload_in_a_torch_zip_with_arrays_beside_it(tmp_path):
    """numpy names that are allowed do not open the door to numpy's own constructors."""
    path = tmp_path / "weights.pth"
    torch.save({"w": np.array([{"not": "numbers"}], dtype=object)}, path)
    with pytest.raises(InputError):
        read_checkpoint(path)


def test_what_training_scripts_leave_beside_the_weights(tmp_path):
    path = tmp_path / "weights.pth"
    torch.save(
        {
            "model": TENSORS,
            "best": np.float64(0.25),
            "curve": np.arange(3),
            "args": argparse.Namespace(lr=0.1),
            "parameter": torch.nn.Parameter(torch.ones(2)),
            "shape": torch.Size([2, 3]),
        },
        path,
    )
    if tuple(int(part) for part in torch.__version__.split(".")[:2]) < (2, 7):
        pytest.skip("PyTorch before 2.7 cannot be given stand-ins")
    found = read_checkpoint(path)
    same(found["model"])
    assert found["best"] == 0.25
    assert found["curve"].tolist() == [0, 1, 2]
    assert found["args"] == {"lr": 0.1}
    assert type(found["parameter"]) is torch.Tensor and not found["parameter"].requires_grad
    assert found["shape"] == [2, 3]


def test_gzip_bomb_is_refused(tmp_path):
    path = tmp_path / "weights.pth"
    path.write_bytes(gzip.compress(bytes(17 << 20)))
    with pytest.raises(InputError, match="unpacks to more than 16777216 bytes"):
        read_checkpoint(path)


def test_npz_bomb_is_refused(tmp_path):
    path = tmp_path / "weights.npz"
    np.savez_compressed(path, a=np.zeros(3 << 20), b=np.zeros(3 << 20))
    with pytest.raises(InputError, match="unpacks to more than"):
        read_checkpoint(path)


def test_compressed_torch_zip_is_refused(tmp_path):
    plain, path = tmp_path / "plain.pth", tmp_path / "weights.pth"
    torch.save({"w": torch.zeros(1 << 20)}, plain)
    with zipfile.ZipFile(plain) as source, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as target:
        for name in source.namelist():
            target.writestr(name, source.read(name))
    with pytest.raises(InputError, match="compressed or overlapping"):
        read_checkpoint(path)


def test_a_tensor_larger_than_its_file_is_refused(tmp_path):
    path = tmp_path / "weights.pth"
    torch.save({"w": torch.zeros(1).expand(1 << 40)}, path)
    with pytest.raises(InputError, match="claims more"):
        read_checkpoint(path)


@pytest.mark.parametrize("slot", [1 << 30, (1 << 32) - 1])
def test_a_huge_memo_slot_takes_no_memory(tmp_path, slot):
    path = tmp_path / "weights.pkl"
    path.write_bytes(b"\x80\x02}r" + struct.pack("<I", slot) + b".")
    with pytest.raises(InputError, match="memo"):
        read_checkpoint(path)


def test_shared_parts_are_not_multiplied(tmp_path):
    """Sixty lists, each holding the previous one ten times, would be 10**60 items when copied naively."""
    value = [1]
    for _ in range(60):
        value = [value] * 10
    path = tmp_path / "weights.pkl"
    path.write_bytes(pickle.dumps(value, 2))
    assert len(read_checkpoint(path)) == 10


def test_endless_nesting_is_refused(tmp_path):
    value: list = []
    value.append(value)
    path = tmp_path / "weights.pkl"
    path.write_bytes(pickle.dumps(value, 2))
    with pytest.raises(InputError, match="deep"):
        read_checkpoint(path)


def test_files_that_are_no_checkpoints(tmp_path):
    path = tmp_path / "weights.pth"
    for data, problem in [
        (b"", "not a checkpoint"),
        (b"<html>quota exceeded</html>", "not a checkpoint"),
        (b"PK\x03\x04" + bytes(50), "damaged"),
        (b"\x1f\x8b" + bytes(50), "gzip"),
    ]:
        path.write_bytes(data)
        with pytest.raises(InputError, match=problem):
            read_checkpoint(path)
    with pytest.raises(InputError, match="no such"):
        read_checkpoint(tmp_path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(InputError, match="not a checkpoint"):
        read_checkpoint(path)
    with tarfile.open(path, "w") as archive:
        archive.addfile(tarfile.TarInfo("weights"))
    with pytest.raises(InputError, match="tar archive"):
        read_checkpoint(path)


def test_torchscript_is_refused(tmp_path):
    path = tmp_path / "weights.pt"
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("m/data.pkl", "m/constants.pkl", "m/code/__torch__.py"):
            archive.writestr(name, "")
    with pytest.raises(InputError, match="TorchScript"):
        read_checkpoint(path)


SAMPLES: dict[str, bytes] = {}


def samples(folder: Path) -> dict[str, bytes]:
    if not SAMPLES:
        for kind, writer in TORCH_WRITERS.items():
            writer(folder / kind, {"state_dict": TENSORS})
        numpy_pickle(folder / "pickle", ARRAYS)
        save_file(TENSORS, folder / "safetensors")
        np.savez_compressed(folder / "a.npz", **ARRAYS)
        SAMPLES.update({path.name: path.read_bytes() for path in folder.iterdir()})
    return SAMPLES


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_damage_is_an_input_error(tmp_path_factory, data):
    """Flipped bytes and cuts give a checkpoint or one sentence, never another exception."""
    folder = tmp_path_factory.mktemp("damage")
    known = samples(folder)
    kind = data.draw(st.sampled_from(sorted(known)))
    raw = bytearray(known[kind])
    if data.draw(st.booleans()):
        del raw[data.draw(st.integers(0, len(raw))) :]
    for _ in range(data.draw(st.integers(0, 4))):
        if raw:
            raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    path = folder / "damaged"
    path.write_bytes(raw)
    try:
        read_checkpoint(path)
    except InputError as error:
        assert "\n" not in str(error)


def test_layouts_find_the_network():
    ema = {f"module.{name}": tensor + 1 for name, tensor in TENSORS.items()}
    last = {f"module.{name}": tensor for name, tensor in TENSORS.items()}
    checkpoint = {"epoch": 35, "state_dict": last, "state_dict_ema": ema, "optimizer": {}}
    found = state_dict(checkpoint, "actionformer")
    assert torch.equal(found["a.bias"], TENSORS["a.bias"] + 1)
    same(state_dict({"state_dict": last}, "actionformer"))
    same(state_dict(last, "torch"))
    same(state_dict(TENSORS, "plain"))
    same(state_dict({"model": TENSORS}, "tsp"))
    same(state_dict({"model_state": TENSORS, "cfg": "x"}, "pyslowfast"))
    aliased = {**TENSORS, "transformer.decoder.segment_embed.0.layers.0.weight": torch.ones(1)}
    same(state_dict({"meta": {}, "state_dict": aliased, "optimizer": {}}, "react"))


def test_a_prefix_only_some_keys_have_is_kept():
    mixed = {"module.a": torch.ones(1), "b": torch.ones(1)}
    assert list(state_dict(mixed, "torch")) == ["module.a", "b"]


@pytest.mark.parametrize("checkpoint", [[1, 2], {}, {"state_dict": {}}, {"epoch": 3}, {"state_dict": {"w": 1}}, 3])
def test_no_network_in_it(checkpoint):
    with pytest.raises(InputError, match="the checkpoint holds"):
        state_dict(checkpoint, "react")


def test_bounds_are_as_documented():
    assert weights._limit(1) == 16 << 20
    assert weights._limit(10 << 20) == 500 << 20
    assert weights._limit(1 << 40) == weights.MAX_BYTES
