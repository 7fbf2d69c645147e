"""Models by name: the registry's facts, what is added, listed, shown, and what `--model NAME` means."""

import hashlib
import json
import re

import numpy as np
import pytest
import torch

from vidtad.errors import InputError, RunError
from vidtad.heads import catalogue as checkpoints
from vidtad.heads.catalogue import (
    CHECKPOINTS,
    Checkpoint,
    add,
    builtin_bundle,
    bundle_path,
    cache_dir,
    fetch,
    fetch_detector,
    list_models,
    resolve_model,
    show,
)
from vidtad.heads.react.convert import bundle_from_react
from vidtad.hub.bundle import Bundle, load_bundle, save_bundle
from vidtad.hub.reading import LAYOUTS
from vidtad.hub.registry import THUMOS14_CLASSES
from vidtad.models.react import THUMOS14, ReAct

UNREAD_LAYOUTS = {"caffe", "hdf5", "archive"}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("VIDTAD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(checkpoints, "BUILTIN_FOLDER", tmp_path / "data")


def a_bundle(name="mine", **changes):
    values = {
        "name": name,
        "head": "react",
        "head_config": {},
        "classes": ("jump", "wave"),
        "extractor": "i3d",
        "sampling": {"window": 16, "stride": 4, "fps": None},
        "channels": (("rgb", 1024),),
        "head_weights": {"w": torch.ones(2)},
    }
    return Bundle(**values | changes)


def build_in(**changes):
    folder = checkpoints.BUILTIN_FOLDER
    return save_bundle(
        a_bundle(**{"name": "react-demo", "demonstration": True} | changes), folder / "react-demo.safetensors"
    )


TASKS = {"classification", "temporal detection", "person detection", "person boxes", "flow", "features"}


def test_the_registry_is_sound():
    for id, checkpoint in CHECKPOINTS.items():
        assert id == checkpoint.id and re.fullmatch(r"[a-z0-9][a-z0-9.-]*", id)
        assert checkpoint.layout in LAYOUTS or checkpoint.layout in UNREAD_LAYOUTS
        assert checkpoint.url or checkpoint.how_to_get
        assert checkpoint.url is None or re.fullmatch(r"https?://[^ ]+", checkpoint.url)
        assert checkpoint.sha256 is None or re.fullmatch("[0-9a-f]{8,64}", checkpoint.sha256)
        assert checkpoint.md5 is None or re.fullmatch("[0-9a-f]{32}", checkpoint.md5)
        assert checkpoint.task in TASKS
    urls = [checkpoint.url for checkpoint in CHECKPOINTS.values() if checkpoint.url]
    assert len(urls) == len(set(urls))


@pytest.mark.parametrize(
    ("id", "facts"),
    [
        ("i3d-rgb-kinetics400", {"sha256": None, "classes": 400, "layout": "i3d-piergiaj"}),
        ("tsp-r2plus1d-34-activitynet", {"sha256": "0d2cf854", "classes": 200}),
        ("tsn-r50-1x1x8-kinetics400-rgb", {"sha256": "2692d16c"}),
        ("bninception-imagenet", {"sha256": "52deb4733"}),
        ("raft-large", {"sha256": "ff5fadd5", "task": "flow"}),
        ("slowfast-8x8-r50-ava", {"sha256": None, "classes": 80, "task": "person detection"}),
        ("slowfast-epic100", {"licence": "non-commercial"}),
        ("actionformer-features-thumos14", {"md5": "375f76ffbf7447af1035e694971ec9b2", "url": None}),
        ("acar-r50-ava", {"classes": 60, "url": None}),
    ],
)
def test_facts_of_the_registry(id, facts):
    assert {name: getattr(CHECKPOINTS[id], name) for name in facts} == facts


def test_thumos14_labels():
    assert len(THUMOS14_CLASSES) == 20
    assert list(THUMOS14_CLASSES) == sorted(THUMOS14_CLASSES)
    assert (THUMOS14_CLASSES[4], THUMOS14_CLASSES[7]) == ("CliffDiving", "Diving")


def test_every_extractor_names_known_checkpoints():
    from vidtad.extractors import PRESETS

    for preset in PRESETS.values():
        assert set(preset.checkpoints) <= set(CHECKPOINTS)


def test_a_path_is_a_bundle(tmp_path):
    path = save_bundle(a_bundle(), tmp_path / "my.safetensors")
    bundle, notice = resolve_model(path)
    assert bundle.name == "mine" and notice is None
    with pytest.raises(InputError, match="no such bundle file"):
        resolve_model(tmp_path / "other.safetensors")


def test_a_name_is_resolved_in_order():
    build_in()
    bundle, notice = resolve_model("react")
    assert bundle.demonstration
    assert "built-in demonstration" in notice and "vidtad models add FILE --as react-thumos14" in notice
    assert "\n" not in notice

    save_bundle(a_bundle("react-thumos14"), cache_dir() / "bundles" / "react-thumos14.safetensors")
    bundle, notice = resolve_model("react")
    assert (bundle.name, notice) == ("react-thumos14", None)

    save_bundle(a_bundle("react"), cache_dir() / "bundles" / "react.safetensors")
    assert resolve_model("react")[0].name == "react"
    assert resolve_model("react-thumos14")[0].name == "react-thumos14"
    assert resolve_model("react-demo")[0].demonstration
    assert builtin_bundle("react").demonstration


def build_in_people(head):
    folder = checkpoints.BUILTIN_FOLDER
    name = f"demo-{head}"
    return save_bundle(a_bundle(name, head=head, demonstration=True), folder / f"{name}.safetensors")


def test_heads_of_people_have_a_demonstration_too(monkeypatch):
    for head in ("linear", "acar", "acfb"):
        build_in_people(head)
    bundle, notice = resolve_model("acar")
    assert bundle.name == "demo-acar" and "vidtad models add FILE --as acar-r101-ava-kinetics" in notice
    assert "vidtad train --model acfb" in resolve_model("acfb")[1]
    save_bundle(a_bundle("acar-r50-ava", head="acar"), cache_dir() / "bundles" / "acar-r50-ava.safetensors")
    assert resolve_model("acar")[0].name == "acar-r50-ava" and builtin_bundle("acar").name == "demo-acar"
    # Dry runs and further training want the published size.
    assert bundle_path("acfb") is None and bundle_path("demo-acfb") is not None


def test_a_published_detector_with_an_address_is_preferred_to_the_demonstration(monkeypatch):
    build_in_people("linear")
    assert resolve_model("demo-linear")[0].demonstration
    asked = []

    def offline(id, **_):
        asked.append(id)
        raise RunError(f"{id} cannot be fetched")

    monkeypatch.setattr(checkpoints, "fetch", offline)
    bundle, notice = resolve_model("linear")
    assert bundle.demonstration and "cannot be fetched; `linear` is the built-in demonstration detector" in notice
    assert asked == ["slowfast-8x8-r50-ava"]


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("raect", "did you mean react"),
        ("react-thumos", "did you mean react-thumos14"),
        ("nothing-like-it", "vidtad models list"),
        ("react-thumos14", "models add FILE --as react-thumos14"),
        ("raft-small", "not a detector bundle"),
        ("x" * 5000, "no such bundle file"),
        ("\0", "vidtad models list"),
        ("", "vidtad models list"),
    ],
)
def test_unknown_names(name, answer):
    with pytest.raises(InputError, match=answer):
        resolve_model(name)


def test_names_never_leave_the_cache(tmp_path):
    save_bundle(a_bundle(), tmp_path / "secret.safetensors")
    with pytest.raises(InputError):
        resolve_model("../../secret")


def test_no_builtin():
    with pytest.raises(InputError, match="no built-in detector is called 'react'; there is none"):
        builtin_bundle("react")


def test_add_a_bundle(tmp_path):
    path = save_bundle(a_bundle(), tmp_path / "trained.safetensors")
    added = add(path)
    assert added.name == "mine" and added.path.read_bytes() == path.read_bytes()
    assert resolve_model("mine")[0].sha256 == load_bundle(path).sha256
    assert add(added.path).path == added.path
    renamed = add(path, name="football")
    assert resolve_model("football")[0].name == "football"
    assert renamed.path == cache_dir() / "bundles" / "football.safetensors"
    with pytest.raises(InputError, match="bundle name"):
        add(path, name="../escape")


def react_checkpoint(path):
    """A file laid out as the authors' release, with aliases, the optimizer and seeded weights."""
    torch.manual_seed(0)
    weights = ReAct(THUMOS14).state_dict()
    aliases = {
        f"transformer.decoder.{key}": value for key, value in weights.items() if key.startswith("segment_embed.")
    }
    torch.save({"meta": {"epoch": 20}, "state_dict": {**weights, **aliases}, "optimizer": {"state": {}}}, path)
    return weights, aliases


def test_add_the_authors_react(tmp_path):
    path = tmp_path / "epoch_20.pth"
    weights, aliases = react_checkpoint(path)
    assert (len(weights), len(aliases)) == (171, 24)
    with pytest.raises(InputError, match="--as"):
        add(path)
    added = add(path, name="react-thumos14")
    assert len(added.notes) == 1 and "no hash of react-thumos14 is published" in added.notes[0]
    bundle, notice = resolve_model("react")
    assert notice is None and bundle.name == "react-thumos14"
    assert bundle.head_weights.keys() == weights.keys()
    assert all(torch.equal(bundle.head_weights[key], weights[key]) for key in weights)
    assert bundle.classes == THUMOS14_CLASSES and bundle.width == 2048
    assert bundle.training["checkpoint_sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert fetch_detector("react-thumos14") == added.path
    row = next(row for row in list_models() if row["name"] == "react-thumos14")
    assert (row["cached"], row["kind"], row["classes"]) == (True, "bundle", 20)


def test_the_converted_react_runs(tmp_path):
    from vidtad.heads.registry import load_detector

    react_checkpoint(tmp_path / "a.pth")
    detector = load_detector(load_bundle(add(tmp_path / "a.pth", name="react-thumos14").path))
    values = np.random.default_rng(0).standard_normal((300, 2048), dtype=np.float32)
    assert len(detector(values).scores)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda weights: weights.pop("query_embed.weight"), "missing: query_embed.weight"),
        (lambda weights: weights.update(extra=torch.ones(1)), "unused: extra"),
        (lambda weights: weights.update({"iou_predictor.bias": torch.ones(3)}), "another shape"),
        (
            lambda weights: weights.update({"transformer.decoder.segment_embed.0.layers.0.bias": torch.ones(3)}),
            "differs from",
        ),
        (lambda weights: weights.update({"iou_predictor.bias": torch.tensor([float("nan")])}), "not finite"),
    ],
)
def test_other_weights_are_not_react(change, problem):
    weights = ReAct(THUMOS14).state_dict()
    change(weights)
    with pytest.raises(InputError, match=problem):
        bundle_from_react({"state_dict": weights})


def test_react_was_released_for_thumos14_only():
    with pytest.raises(InputError, match="the preset is thumos14"):
        bundle_from_react({}, "activitynet")


def known(monkeypatch, **changes):
    values = {"id": "net", "task": "classification", "layout": "plain", "network": "net", "source": "test"}
    checkpoint = Checkpoint(**values | {"url": "https://host.invalid/net.pth"} | changes)
    monkeypatch.setitem(CHECKPOINTS, checkpoint.id, checkpoint)
    return checkpoint


def test_add_a_checkpoint_with_a_published_hash(tmp_path, monkeypatch):
    path = tmp_path / "download.bin"
    torch.save({"w": torch.ones(2)}, path)
    known(monkeypatch, sha256=hashlib.sha256(path.read_bytes()).hexdigest()[:8])
    added = add(path)
    assert (added.name, added.notes) == ("net", ())
    assert fetch("net", offline=True) == added.path
    assert added.path.read_bytes() == path.read_bytes()
    torch.save({"w": torch.zeros(2)}, path)
    with pytest.raises(InputError, match=r"not net .*published"):
        add(path, name="net")


def test_add_a_checkpoint_without_one(tmp_path, monkeypatch):
    known(monkeypatch)
    path = tmp_path / "net.pth"
    torch.save({"w": torch.ones(2)}, path)
    added = add(path)
    assert added.name == "net" and "taken as it is" in added.notes[0]
    assert fetch("net", offline=True) == added.path


def test_add_features_by_md5(tmp_path, monkeypatch):
    path = tmp_path / "features.tar.gz"
    path.write_bytes(b"features")
    known(monkeypatch, id="some-features", task="features", url=None, md5=hashlib.md5(b"features").hexdigest())
    added = add(path)
    assert (added.name, added.path) == ("some-features", path)
    assert not cache_dir().exists()


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"<html>quota exceeded</html>", "not a checkpoint"),
        (b"cos\nsystem\n(S'true'\ntR.", "not a checkpoint|refused"),
        (b"\x80\x02cos\nsystem\n(U\x04truetR.", "refused"),
    ],
)
def test_what_is_no_checkpoint_is_not_added(tmp_path, monkeypatch, data, problem):
    known(monkeypatch)
    path = tmp_path / "net.pth"
    path.write_bytes(data)
    with pytest.raises(InputError, match=problem):
        add(path)
    assert not cache_dir().exists()


def test_add_what_is_not_there(tmp_path):
    for path in (tmp_path / "none", tmp_path, tmp_path / "none.safetensors"):
        with pytest.raises(InputError, match=re.escape(str(path))):
            add(path)
    (tmp_path / "a.pth").write_bytes(b"x")
    with pytest.raises(InputError, match="did you mean react-thumos14"):
        add(tmp_path / "a.pth", name="react-thumos")


def test_list_and_show():
    build_in()
    save_bundle(a_bundle(), cache_dir() / "bundles" / "mine.safetensors")
    (cache_dir() / "bundles" / "broken.safetensors").write_bytes(b"x")
    rows = {row["name"]: row for row in list_models()}
    json.dumps(list(rows.values()), allow_nan=False)
    assert set(CHECKPOINTS) < set(rows)
    assert rows["react-demo"]["builtin"] and rows["react-demo"]["cached"]
    assert (rows["mine"]["classes"], rows["mine"]["builtin"], rows["mine"]["cached"]) == (2, False, True)
    assert rows["broken"]["problem"] == "not a sound bundle"
    assert not rows["raft-large"]["cached"]
    keys = {"name", "kind", "task", "classes", "size", "licence", "cached", "builtin"}
    assert all(keys <= set(row) for row in rows.values())

    shown = show("mine")
    json.dumps(shown, allow_nan=False)
    assert shown["classes"] == ["jump", "wave"] and shown["sha256"] == resolve_model("mine")[0].sha256
    assert show("react")["name"] == "react-demo"
    save_bundle(a_bundle("react-thumos14"), cache_dir() / "bundles" / "react-thumos14.safetensors")
    assert show("react")["name"] == "react-thumos14"
    assert show("react-thumos14")["published"]["source"] == "CausalLearning/ReAct"
    published = show("acar-r50-ava")
    assert "12vGZoWElxB-Lhn_sGz1aRMqAacexgKtm" in published["how_to_get"] and not published["cached"]
    assert "vidtad models fetch raft-large" in show("raft-large")["how_to_get"]
    with pytest.raises(InputError, match="did you mean raft-large"):
        show("raft-lagre")


def test_fetch_by_name():
    with pytest.raises(InputError, match="did you mean i3d-rgb-kinetics400"):
        fetch("i3d-rgb-kinetics40")
    with pytest.raises(RunError, match="models add FILE --as acar-r50-ava"):
        fetch("acar-r50-ava")
    with pytest.raises(RunError, match=r"fetching is off: get https://download\.pytorch\.org"):
        fetch("raft-large", offline=True)


def test_importing_imports_no_torch():
    import subprocess
    import sys

    code = "import vidtad.heads.catalogue as c, sys; c.list_models(); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
