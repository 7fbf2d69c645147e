"""Files that nobody meant well with, through the command line: one sentence, no traceback, nothing outside the folder.

Whatever stands in a file, a command ends with 0, 1 or 2, and writes where it was told to.
"""

import copy
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

from tests.bundles import seeded_react
from tests.clips import numbered_frames, write_clip
from tests.formats import label_samples as samples
from tests.formats.timelines import overlapping, two_persons
from vidtad.cli import app
from vidtad.timeline import Segment, Timeline
from vidtad.video import probe

SMALL = {"width": 32, "heads": 4, "queries": 8, "clip_len": 16, "feed_forward": 64}
ESCAPES = (
    "../evil",
    "/tmp/evil",
    "..",
    "a/../../evil",
    "..\\evil",
    "C:\\evil",
    "evil\0",
    "",
    "-",
    "x" * 300,
    "con",
    "\n",
)
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 3),
    st.sampled_from([10**400, -(10**30), 2**63, 1e308, -1e308, float("nan"), float("inf"), 5e-324, -0.0]),
    st.sampled_from(["", "nan", "inf", "1/0", "0", "-1", "1e999", "\ud800", "\0", "<script>", "٣", *ESCAPES]),
    st.sampled_from([[], {}, [[]], [None], {"a": 1}, [1, 2], [[[[[[]]]]]], {"": {}}]),
    st.text(max_size=5),
)


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def civil(result: Result) -> None:
    """It ended in one of the three ways a command may end in."""
    assert result.exit_code in (0, 1, 2), result.output
    assert result.exception is None or isinstance(result.exception, SystemExit), repr(result.exception)
    for word in ("Traceback", "internal error"):
        assert word not in result.output, result.output
    if result.exit_code == 2 and result.stdout == "":
        assert len(result.stderr.splitlines()) < 12, result.stderr


@contextmanager
def cage() -> Iterator[Path]:
    """A folder for one example, and the claim that nothing beside its `out` is added or changed."""
    with tempfile.TemporaryDirectory() as name:
        inner = Path(name) / "deep" / "cage"
        inner.mkdir(parents=True)
        yield inner
        outside = [p for p in Path(name).rglob("*") if p.is_file() and not p.is_relative_to(inner)]
        assert not outside, f"written outside: {outside}"
        given = {"in", "out"}
        assert {p.name for p in inner.iterdir()} <= given, sorted(p.name for p in inner.iterdir())
        assert not Path("/tmp/evil").exists() and not Path("evil").exists()


@st.composite
def damaged(draw: st.DrawFn, document: Any) -> Any:
    """`document` (JSON values) with one to three places changed, taken away, doubled or renamed."""
    document = copy.deepcopy(document)
    for _ in range(draw(st.integers(1, 3))):
        places = list(_places(document))
        if not places:
            break
        holder, key = draw(st.sampled_from(places))
        action = draw(st.sampled_from(["value", "value", "drop", "rename", "wrap"]))
        if action == "value":
            holder[key] = copy.deepcopy(draw(VALUES))
        elif action == "drop":
            del holder[key]
        elif action == "wrap":
            holder[key] = [holder[key], holder[key]]
        elif isinstance(holder, dict):
            holder[draw(st.sampled_from([*ESCAPES, "x", "segment", "__class__"]))] = holder.pop(key)
    return document


def _places(node: Any) -> Iterator[tuple[Any, Any]]:
    entries = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in list(entries):
        yield node, key
        yield from _places(value)


@st.composite
def bitten(draw: st.DrawFn, whole: bytes) -> bytes:
    """`whole` cut off, or with a few bytes changed, most of them near the start."""
    data = bytearray(whole)
    for _ in range(draw(st.integers(0, 4))):
        near = draw(st.booleans())
        place = draw(st.integers(0, min(len(data), 200) - 1 if near else len(data) - 1))
        data[place] = draw(st.integers(0, 255))
    return bytes(data[: draw(st.one_of(st.just(len(data)), st.integers(0, len(data))))])


def write(path: Path, document: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(json.dumps(document).encode("utf-8", "surrogatepass"))
    return path


TRUTH = {
    "version": "1",
    "taxonomy": [],
    "database": {
        "match": {
            "duration": 60.0,
            "subset": "validation",
            "annotations": [{"label": "walk", "segment": [9.0, 21.0]}, {"label": "run", "segment": [40.0, 60.0]}],
        }
    },
}
TIMELINES = [overlapping().to_json(), two_persons().to_json()]
OUTPUTS = "activitynet annotations csv ava srt vtt elan labelstudio cvat via boris thumos".split()  # noqa: SIM905


@given(st.sampled_from(TIMELINES).flatmap(damaged), st.sampled_from(OUTPUTS))
def test_timelines_to_other_formats(document: Any, to: str) -> None:
    with cage() as folder:
        civil(run("convert", write(folder / "in" / "t.json", document), "--to", to, "--out", folder / "out"))


@given(st.sampled_from(TIMELINES).flatmap(damaged))
def test_timelines_to_reports(document: Any) -> None:
    with cage() as folder:
        civil(run("report", write(folder / "in" / "t.json", document), "--out", folder / "out"))


@given(damaged(TRUTH), damaged(TIMELINES[0]), st.booleans())
def test_timelines_against_truth(truth: Any, document: Any, diagnose: bool) -> None:
    with cage() as folder:
        files = write(folder / "in" / "gt.json", truth), write(folder / "in" / "t.json", document)
        civil(run("evaluate", *files, *(["--diagnose"] if diagnose else [])))


@pytest.mark.parametrize("name", ESCAPES)
def test_names_of_videos_never_lead_out_of_the_folder(name: str) -> None:
    documents = []
    for whole in TIMELINES:
        document = copy.deepcopy(whole)
        for part in ("results", "videos", "people"):
            if part in document:
                document[part][name] = document[part].pop("match")
        document["videos"]["other"] = copy.deepcopy(document["videos"][name])
        documents.append(document)
    for document in documents:
        for to in OUTPUTS:
            with cage() as folder:
                path = write(folder / "in" / "t.json", document)
                civil(run("convert", path, "--to", to, "--out", folder / "out"))
        with cage() as folder:
            civil(run("report", write(folder / "in" / "t.json", document), "--out", folder / "out"))


@pytest.fixture(scope="module")
def short_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("short") / "clip.mp4", numbered_frames(20), 25)


@pytest.mark.parametrize("name", ESCAPES)
def test_videos_made_of_a_timeline_stay_in_the_folder(name: str, short_clip: Path) -> None:
    found = tuple(Segment(0.2, 0.6, label, 0.9) for label in (name or "walk", "../../evil"))
    timeline = Timeline({name: found}, {name: replace(probe(short_clip), path="gone.mp4")}, {"name": "test"})
    with cage() as folder:
        told = (write(folder / "in" / "t.json", timeline.to_json()), "--video", short_clip)
        for command, *options in (
            ("clips", "--out", folder / "out" / "clips"),
            ("overlay", "--out", folder / "out" / "overlay"),
            ("overlay",),
        ):
            result = run(command, *told, *options)
            civil(result)
            assert result.exit_code == 0, result.output
        made = {place: list((folder / place).glob("*.mp4")) for place in ("out/clips", "out/overlay", "in")}
        assert [len(files) for files in made.values()] == [2, 1, 1]
        assert sum(path.is_file() for path in folder.rglob("*")) == 5, "nothing but these and the timeline"


LABELS = {
    "x.eaf": samples.EAF.encode(),
    "x.boris": json.dumps(samples.BORIS).encode(),
    "x.csv": samples.CSV.encode(),
    "x.json": json.dumps(TRUTH).encode(),
}


@given(st.sampled_from(sorted(LABELS)).flatmap(lambda name: st.tuples(st.just(name), bitten(LABELS[name]))))
def test_label_files(file: tuple[str, bytes]) -> None:
    with cage() as folder:
        (folder / "in").mkdir()
        (folder / "in" / file[0]).write_bytes(file[1])
        civil(run("labels", "check", folder / "in" / file[0]))
        civil(run("labels", "convert", folder / "in" / file[0], "--out", folder / "out" / "labels.json"))


@given(damaged(samples.BORIS))
def test_label_projects(document: Any) -> None:
    with cage() as folder:
        civil(run("labels", "check", write(folder / "in" / "x.boris", document)))


@given(damaged(TRUTH))
def test_ground_truth(document: Any) -> None:
    with cage() as folder:
        civil(run("labels", "check", write(folder / "in" / "gt.json", document)))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A clip, a small bundle, and the features and sidecar that fit it, as bytes."""
    folder = tmp_path_factory.mktemp("made")
    clip = write_clip(folder / "clip.mp4", numbered_frames(40), 25)
    bundle = seeded_react(folder / "bundle.safetensors", **SMALL)
    assert run("extract", clip, "--extractor", "tiny3d", "--weights", "random", "--out", folder / "f").exit_code == 0
    return {
        "clip": clip.read_bytes(),
        "bundle": bundle,
        "npy": (folder / "f" / "clip.npy").read_bytes(),
        "sidecar": json.loads((folder / "f" / "clip.json").read_text()),
    }


def detect_in(folder: Path, made: dict[str, Any], npy: bytes, sidecar: Any) -> Result:
    (folder / "in").mkdir()
    (folder / "in" / "clip.npy").write_bytes(npy)
    options: tuple[object, ...] = ("--fps", 25, "--stride", 4, "--window", 16)
    if sidecar is not None:
        write(folder / "in" / "clip.json", sidecar)
        options = ()
    return run("detect", folder / "in" / "clip.npy", "--model", made["bundle"], "--out", folder / "out", *options)


@settings(max_examples=25)
@given(st.data())
def test_sidecars(made: dict[str, Any], data: st.DataObject) -> None:
    with cage() as folder:
        civil(detect_in(folder, made, made["npy"], data.draw(damaged(made["sidecar"]))))


@settings(max_examples=25)
@given(st.data())
def test_feature_arrays(made: dict[str, Any], data: st.DataObject) -> None:
    with cage() as folder:
        sidecar = data.draw(st.sampled_from([None, made["sidecar"]]))
        civil(detect_in(folder, made, data.draw(bitten(made["npy"])), sidecar))


@given(
    st.sampled_from(["<f4", "<f8", "|O", "<c8", "<M8[s]", "|S5", "<i4", "|b1", "|V8", "x", "<f2", ">f4"]),
    st.lists(st.sampled_from([0, 1, 3, 128, -1, 2**31, 2**62, 10**30]), max_size=4),
)
@example("<f4", [2**62, 128])
@example("<f4", [2**31, 2**31])
def test_headers_of_arrays_that_promise_too_much(made: dict[str, Any], kind: str, shape: list[int]) -> None:
    text = f"{{'descr': {kind!r}, 'fortran_order': False, 'shape': {tuple(shape)!r}, }}".encode()
    text += b" " * (-(len(text) + 11) % 64) + b"\n"
    with cage() as folder:
        npy = b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + bytes(4096)
        civil(detect_in(folder, made, npy, None))


def test_a_pickle_in_an_array_is_never_run(made: dict[str, Any]) -> None:
    class Payload:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkdir, ("/tmp/evil",)

    with cage() as folder:
        np.save(folder / "x.npy", np.array([Payload()], dtype=object), allow_pickle=True)
        npy = (folder / "x.npy").read_bytes()
        (folder / "x.npy").unlink()
        result = detect_in(folder, made, npy, None)
        civil(result)
        assert result.exit_code == 2


@settings(max_examples=25)
@given(st.data())
def test_bundles(made: dict[str, Any], data: st.DataObject) -> None:
    whole = made["bundle"].read_bytes()
    with cage() as folder:
        (folder / "in").mkdir()
        path = folder / "in" / "b.safetensors"
        path.write_bytes(data.draw(bitten(whole)))
        civil(run("models", "show", path))
        (folder / "in" / "x.npy").write_bytes(made["npy"])
        numbers = ("--fps", 25, "--stride", 4, "--window", 16)
        civil(run("detect", folder / "in" / "x.npy", "--model", path, "--out", folder / "out", *numbers))


@settings(max_examples=25)
@given(st.data())
def test_documents_of_bundles(made: dict[str, Any], data: st.DataObject) -> None:
    whole = made["bundle"].read_bytes()
    size = int.from_bytes(whole[:8], "little")
    header = json.loads(whole[8 : 8 + size])
    document = data.draw(damaged(json.loads(header["__metadata__"]["vidtad"])))
    header["__metadata__"]["vidtad"] = json.dumps(document)
    text = json.dumps(header).encode()
    with cage() as folder:
        (folder / "in").mkdir()
        path = folder / "in" / "b.safetensors"
        path.write_bytes(len(text).to_bytes(8, "little") + text + whole[8 + size :])
        civil(run("models", "show", path))
        (folder / "in" / "x.npy").write_bytes(made["npy"])
        numbers = ("--fps", 25, "--stride", 4, "--window", 16)
        civil(run("detect", folder / "in" / "x.npy", "--model", path, "--out", folder / "out", *numbers))


@settings(max_examples=25)
@given(st.data())
def test_video_containers(made: dict[str, Any], data: st.DataObject) -> None:
    with cage() as folder:
        (folder / "in").mkdir()
        path = folder / "in" / "clip.mp4"
        path.write_bytes(data.draw(bitten(made["clip"])))
        civil(run("info", path))
        civil(run("extract", path, "--extractor", "tiny3d", "--weights", "random", "--out", folder / "out"))


@settings(max_examples=30)
@given(st.data())
def test_a_finished_timeline_that_was_tampered_with(made: dict[str, Any], data: st.DataObject) -> None:
    with cage() as folder:
        assert detect_in(folder, made, made["npy"], made["sidecar"]).exit_code == 0
        target = folder / "out" / "clip.json"
        write(target, data.draw(damaged(json.loads(target.read_text()))))
        before = target.read_bytes()
        result = run("detect", folder / "in" / "clip.npy", "--model", made["bundle"], "--out", folder / "out")
        civil(result)
        assert target.read_bytes() == before, "what is not ours is never replaced"
