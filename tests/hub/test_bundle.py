"""A bundle survives its file unchanged, and nothing but a sound bundle is loaded."""

import dataclasses
import hashlib
import json
import struct
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from vidtad.errors import InputError
from vidtad.hub.bundle import MAX_HEADER, Bundle, bundle_name, load_bundle, read_document, save_bundle
from vidtad.runtime.files import sha256


def a_bundle(**changes):
    values = {
        "name": "my-detector",
        "head": "react",
        "head_config": {"classes": 2},
        "classes": ("jump", "wave"),
        "extractor": "i3d",
        "sampling": {"window": 16, "stride": 4, "fps": None},
        "channels": (("rgb", 1024),),
        "head_weights": {"w": torch.arange(6.0).reshape(2, 3).t(), "n": torch.tensor(3)},
    }
    return Bundle(**values | changes)


texts = st.text(st.characters(exclude_categories=("Cs",)), max_size=20)
plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
documents = st.dictionaries(texts, plain, max_size=3)
dtypes = st.sampled_from([torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.bool])


@st.composite
def tensors(draw):
    shape = draw(st.lists(st.integers(0, 3), max_size=3))
    tensor = torch.arange(max(1, torch.Size(shape).numel()))[: torch.Size(shape).numel()].reshape(shape)
    tensor = tensor.to(draw(dtypes))
    return tensor.transpose(0, -1) if draw(st.booleans()) and tensor.ndim else tensor


weights = st.dictionaries(texts, tensors(), min_size=1, max_size=3)


@settings(max_examples=60, deadline=None)
@given(
    bundle=st.builds(
        a_bundle,
        name=st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,99}", fullmatch=True),
        head_config=documents,
        classes=st.lists(texts.filter(str.strip), min_size=1, max_size=4, unique=True).map(tuple),
        channels=st.lists(st.tuples(texts.filter(bool), st.integers(1, 10**6)), max_size=3).map(tuple),
        sampling=st.fixed_dictionaries(
            {
                "window": st.integers(1, 100),
                "stride": st.integers(1, 100),
                "fps": st.sampled_from([None, 25, "30000/1001"]),
            }
        ),
        decoding=documents,
        training=documents,
        scores=documents,
        licence=st.none() | texts,
        demonstration=st.booleans(),
        extractor_checkpoint=st.none() | texts,
        extractor_sha256=st.none() | st.just("0f" * 32),
        head_weights=weights,
        extractor_weights=st.none() | weights,
    )
)
def test_round_trip(tmp_path_factory, bundle):
    path = tmp_path_factory.mktemp("bundle") / "b.safetensors"
    save_bundle(bundle, path)
    loaded = load_bundle(path)
    assert loaded.document() == bundle.document()
    assert (loaded.classes, loaded.channels) == (bundle.classes, bundle.channels)
    for part in ("head_weights", "extractor_weights"):
        before, after = getattr(bundle, part), getattr(loaded, part)
        assert (before is None) == (after is None)
        for key, tensor in (before or {}).items():
            assert after.keys() == before.keys()
            assert after[key].dtype == tensor.dtype and torch.equal(after[key], tensor)
    assert loaded.sha256 == bundle.sha256 == sha256(path)


def test_the_same_bundle_gives_the_same_bytes(tmp_path):
    first = save_bundle(a_bundle(), tmp_path / "a").read_bytes()
    assert save_bundle(a_bundle(head_config={"classes": 2}), tmp_path / "b").read_bytes() == first
    assert a_bundle().sha256 == hashlib.sha256(first).hexdigest()
    assert a_bundle(classes=("jump", "run")).sha256 != a_bundle().sha256


def test_a_changed_copy_has_another_identity(tmp_path):
    loaded = load_bundle(save_bundle(a_bundle(), tmp_path / "b"))
    assert dataclasses.replace(loaded, name="other").sha256 != loaded.sha256


def test_tied_weights_are_saved(tmp_path):
    tied = torch.ones(3)
    loaded = load_bundle(save_bundle(a_bundle(head_weights={"a": tied, "b": tied}), tmp_path / "b"))
    assert torch.equal(loaded.head_weights["b"], tied)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"name": "../escape"}, "bundle name"),
        ({"name": ""}, "bundle name"),
        ({"name": "a/b"}, "bundle name"),
        ({"head": ""}, "head must be"),
        ({"licence": 3}, "licence must be"),
        ({"demonstration": 1}, "demonstration must be"),
        ({"extractor_sha256": "abc"}, "64 lower-case"),
        ({"classes": ()}, "classes must be"),
        ({"classes": ("jump", "jump")}, "listed twice"),
        ({"classes": ("jump", " ")}, "class name"),
        ({"classes": "jump"}, "classes must be"),
        ({"sampling": {"window": 16}}, "sampling.stride"),
        ({"sampling": {"window": 0, "stride": 4}}, "sampling.window"),
        ({"sampling": {"window": 16, "stride": True}}, "sampling.stride"),
        ({"sampling": {"window": 16, "stride": 4, "fps": -1}}, "sampling.fps"),
        ({"sampling": {"window": 16, "stride": 4, "fps": "1/0"}}, "sampling.fps"),
        ({"sampling": {"window": 16, "stride": 4, "fps": "fast"}}, "sampling.fps"),
        ({"channels": (("rgb", 0),)}, "channels must be"),
        ({"channels": ("rgb",)}, "channels must be"),
        ({"decoding": {"sigma": float("nan")}}, "decoding.sigma: nan"),
        ({"decoding": {"sigma": float("inf")}}, "decoding.sigma: inf"),
        ({"training": {"when": object()}}, "training.when: object"),
        ({"training": {1: 2}}, "key 1"),
        ({"training": {"text": "\ud800"}}, "not valid Unicode"),
        ({"training": [1]}, "training must be"),
        ({"head_weights": {}}, "at least one tensor"),
        ({"head_weights": {"w": [1.0]}}, "not a named tensor"),
        ({"head_weights": {"w": torch.tensor([1.0, float("nan")])}}, "not finite"),
        ({"head_weights": {"w": torch.tensor([float("inf")], dtype=torch.bfloat16)}}, "not finite"),
        ({"extractor_weights": {}}, "at least one tensor"),
    ],
)
def test_what_makes_no_bundle(changes, problem):
    with pytest.raises(InputError, match=problem):
        a_bundle(**changes)


def test_documents_are_copied():
    config = {"sizes": [1, 2]}
    bundle = a_bundle(head_config=config)
    config["sizes"].append(3)
    assert bundle.head_config == {"sizes": [1, 2]}
    with pytest.raises(dataclasses.FrozenInstanceError):
        bundle.name = "other"


def rewritten(path, edit, data=b""):
    """The file at `path` with its `vidtad` document passed through `edit`."""
    save_bundle(a_bundle(), path)
    raw = path.read_bytes()
    length = struct.unpack("<Q", raw[:8])[0]
    header = json.loads(raw[8 : 8 + length])
    document = json.loads(header["__metadata__"]["vidtad"])
    header["__metadata__"]["vidtad"] = edit(document)
    new = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(new)) + new + raw[8 + length :] + data)
    return path


@pytest.mark.parametrize(
    ("edit", "problem"),
    [
        (lambda d: json.dumps(d | {"format": 2}), "newer vidtad"),
        (lambda d: json.dumps(d | {"format": "1"}), "no format number"),
        (lambda d: json.dumps(d | {"surprise": 1}), "newer vidtad"),
        (lambda d: json.dumps(d | {"head_weights": {}}), "newer vidtad"),
        (lambda d: json.dumps(d | {"classes": [1]}), "class name"),
        (lambda d: json.dumps(d | {"scores": {"mAP": float("nan")}}), "scores.mAP"),
        (lambda d: json.dumps({key: value for key, value in d.items() if key != "head"}), "head"),
        (lambda d: json.dumps(d)[:-1], "broken"),
        (lambda d: "[" * 100_000, "broken"),
        (lambda d: "[]", "broken"),
        (lambda d: json.dumps(d | {"name": "../../escape"}), "bundle name"),
    ],
)
def test_files_with_another_document(tmp_path, edit, problem):
    with pytest.raises(InputError, match=problem) as caught:
        load_bundle(rewritten(tmp_path / "b.safetensors", edit))
    assert "b.safetensors" in str(caught.value) and "\n" not in str(caught.value)


def test_files_that_are_no_bundles(tmp_path):
    path = tmp_path / "b.safetensors"
    for data, problem in [
        (b"", "not a bundle"),
        (b"hello, this is text", "not a bundle"),
        (struct.pack("<Q", MAX_HEADER + 1) + bytes(MAX_HEADER + 1), "exceeds"),
        (struct.pack("<Q", 2) + b"{}", "not a vidtad bundle"),
        (struct.pack("<Q", 2) + b"[]", "not a safetensors"),
        (struct.pack("<Q", 1 << 63) + b"{}", "cut off"),
    ]:
        path.write_bytes(data)
        with pytest.raises(InputError, match=problem):
            load_bundle(path)
    save_file({"w": torch.ones(2)}, path)
    with pytest.raises(InputError, match="not a vidtad bundle"):
        load_bundle(path)
    for missing in (tmp_path, tmp_path / "none", "\0"):
        with pytest.raises(InputError):
            load_bundle(missing)


def test_foreign_tensors_are_refused(tmp_path):
    path = tmp_path / "b.safetensors"
    text = json.dumps(a_bundle().document())
    save_file({"head.w": torch.ones(2), "w": torch.ones(2)}, path, metadata={"vidtad": text})
    with pytest.raises(InputError, match="unexpected tensor 'w'"):
        load_bundle(path)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_damage_is_an_input_error(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("damage") / "b.safetensors"
    raw = bytearray(save_bundle(a_bundle(), path).read_bytes())
    if data.draw(st.booleans()):
        del raw[data.draw(st.integers(0, len(raw) - 1)) :]
    for _ in range(data.draw(st.integers(0, 3))):
        if raw:
            raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(raw)
    try:
        load_bundle(path)
    except InputError as error:
        assert "\n" not in str(error)


def test_a_file_in_the_place_of_the_folder_is_misuse(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="a file is in the place"):
        save_bundle(a_bundle(), tmp_path / "file" / "b.safetensors")


def test_reading_the_document_imports_no_torch(tmp_path):
    path = save_bundle(a_bundle(), tmp_path / "b.safetensors")
    code = (
        "import sys; from vidtad.hub.bundle import read_document; "
        f"assert read_document({str(path)!r})['head'] == 'react'; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert read_document(path)["classes"] == ["jump", "wave"]


@pytest.mark.parametrize(
    ("text", "name"), [("my video model", "my-video-model"), ("../a", "a"), ("é", "bundle"), ("ok_1.v2", "ok_1.v2")]
)
def test_names_from_file_stems(text, name):
    assert bundle_name(text) == name
    assert a_bundle(name=name).name == name
