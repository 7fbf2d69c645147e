"""docs/reproduce.md from its first line to its last, on small made-up features and with small networks."""

import json
import re
import shlex
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from tests.test_docs import BLOCK, ROOT
from vidtad.cli import app
from vidtad.errors import InputError
from vidtad.features import load_features
from vidtad.heads.actionformer.presets import EGO4D_VARIANTS, PRESETS, ActionFormerPreset
from vidtad.heads.react import recipe as settings
from vidtad.hub.bundle import load_bundle
from vidtad.hub.registry import THUMOS14_CLASSES
from vidtad.models.actionformer import ActionFormer
from vidtad.models.react import ReAct
from vidtad.pipelines.train.third_party_features import adopt_features
from vidtad.training.loop import Schedule

PAGE = (ROOT / "docs" / "reproduce.md").read_text()
ROWS = 40


def small(preset: ActionFormerPreset) -> ActionFormerPreset:
    """The same with a network that takes no time; inputs and classes stay."""
    several = isinstance(preset.network.in_channels, tuple)
    spans = (5, 5, -1) if preset.network.resize else 5
    network = replace(
        preset.network, width=(8, 4, 4) if several else 16, heads=2, stem_layers=1, windows=spans, max_len=32,
        ranges=((0, 4), (4, 8), (8, 1e4)),
    )  # fmt: skip
    return replace(preset, network=network, training=replace(preset.training, epochs=2, warmup_epochs=1))


@pytest.fixture
def small_recipes(monkeypatch: pytest.MonkeyPatch) -> None:
    for table in (PRESETS, EGO4D_VARIANTS):
        for name, preset in table.items():
            monkeypatch.setitem(table, name, small(preset))  # type: ignore[arg-type]
    for name, (network, _, published) in settings._REACT_PUBLISHED.items():
        tiny = replace(network, width=16, heads=4, feed_forward=32, queries=6, decoder_layers=2, encoder_layers=1)
        monkeypatch.setitem(settings._REACT_PUBLISHED, name, (tiny, Schedule(epochs=7, drop_epochs=(6,)), published))


def annotate(path: Path, subsets: tuple[str, str], names: tuple[str, ...], ids: tuple[int, ...]) -> None:
    """Six videos of 7 s, two of which are in the second subset, with two actions each."""
    database = {}
    for number in range(6):
        actions = [
            {"segment": [1.0 + shift, 2.5 + shift], "label": names[which], "label_id": ids[which]}
            for which, shift in ((number % 2, 0.0), (1 - number % 2, 3.0))
        ]
        entry = {"subset": subsets[number >= 4], "duration": 7.0, "fps": 30.0, "annotations": actions}
        database[f"video_{number}"] = entry
    path.write_text(json.dumps({"version": "x", "database": database}))


def features(folder: Path, width: int, prefix: str = "", suffix: str = ".npy", rows: int = ROWS) -> None:
    folder.mkdir()
    for number in range(6):
        values = np.random.default_rng(number).normal(size=(rows, width)).astype(np.float32)
        target = folder / f"{prefix}video_{number}{suffix}"
        if suffix == ".npz":
            np.savez(target, feats=values)
        elif suffix == ".csv":
            np.savetxt(target, values, "%.6f", ",", header=",".join(f"score{n}" for n in range(width)), comments="")
        else:
            np.save(target, values)


def hdf5(path: Path, width: int, numbers: Iterable[int], prefix: str = "", rows: int = ROWS) -> None:
    h5py = pytest.importorskip("h5py")
    with h5py.File(path, "w") as file:
        for number in numbers:
            values = np.random.default_rng(number).normal(size=(rows, width))
            file[f"{prefix}video_{number}"] = values.astype(np.float32)


def checkpoint(path: Path, preset: str) -> None:
    torch.manual_seed(0)
    network = ActionFormer(PRESETS[preset].network)
    network.set_prior(0.2)
    state = {f"module.{key}": value for key, value in network.state_dict().items()}
    torch.save({"epoch": 34, "state_dict": {}, "state_dict_ema": state}, path)


@pytest.fixture
def downloads(tmp_path: Path, small_recipes: None) -> Path:
    """What the page takes as downloaded."""
    diving = (THUMOS14_CLASSES[0], THUMOS14_CLASSES[7])
    annotate(tmp_path / "thumos14.json", ("Validation", "Test"), diving, (0, 7))
    for kind in ("i3d", "tsp"):
        annotate(tmp_path / f"anet1.3_{kind}.json", ("training", "validation"), ("jump", "swim"), (0, 1))
    annotate(tmp_path / "epic_verb.json", ("training", "validation"), ("take", "wash"), (0, 2))
    annotate(tmp_path / "epic_noun.json", ("training", "validation"), ("tap", "spoon"), (0, 1))
    annotate(tmp_path / "ego4d.json", ("training", "validation"), ("cut", "stir"), (3, 4))
    hdf5(tmp_path / "rgb_val.h5", 1024, range(4), rows=ROWS * 5)
    hdf5(tmp_path / "rgb_test.h5", 1024, range(4, 6), rows=ROWS * 5)
    hdf5(tmp_path / "flow_val.h5", 1024, range(4), rows=ROWS * 5 - 7)
    hdf5(tmp_path / "flow_test.h5", 1024, range(4, 6), rows=ROWS * 5)
    features(tmp_path / "csv_mean_100", 400, prefix="v_", suffix=".csv", rows=100)
    features(tmp_path / "i3d_features", 2048)
    features(tmp_path / "anet_i3d", 2048, prefix="v_")
    features(tmp_path / "anet_tsp", 512, prefix="v_")
    features(tmp_path / "epic_features", 2304, suffix=".npz")
    for name, width in (("slowfast", 2304), ("omnivore", 1536), ("egovlp", 256)):
        features(tmp_path / name, width)
    (tmp_path / "cuhk.json").write_text(json.dumps({f"video_{n}": [0.9, 0.3] for n in range(6)}))
    (tmp_path / "classes.txt").write_text("jump\nswim\n")
    (tmp_path / "verbs.txt").write_text("\n".join(["take", "put", "wash", *(f"verb {n}" for n in range(3, 97))]))
    (tmp_path / "nouns.txt").write_text("\n".join(["tap", "spoon", *(f"noun {n}" for n in range(2, 300))]))
    torch.manual_seed(0)
    torch.save({"meta": {}, "state_dict": ReAct().state_dict()}, tmp_path / "react_thumos14.pth")
    for file, preset in (
        ("epoch_034", "thumos14"),
        ("anet_i3d", "activitynet-i3d"),
        ("anet_tsp", "activitynet-tsp"),
        ("epic_verb", "epic100-verb"),
        ("epic_noun", "epic100-noun"),
    ):
        checkpoint(tmp_path / f"{file}.pth.tar", preset)
    return tmp_path


def run(command: str) -> str:
    result = CliRunner().invoke(app, shlex.split(command)[1:])
    assert result.exit_code == 0, f"{command}\n{result.stderr}"
    return result.stdout


@pytest.mark.slow
def test_the_page_runs_from_downloads_to_scores(downloads: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(downloads)
    printed = {}
    for kind, text in BLOCK.findall(PAGE):
        for line in text.replace("\\\n", " ").splitlines() if kind == "console" else ():
            printed[line] = run(line)
    trained = {line: text for line, text in printed.items() if line.startswith("vidtad train")}
    rows = {line: [row.split() for row in text.splitlines()] for line, text in trained.items()}
    averages = [next(row[-1] for row in rows[line] if row[:1] == ["published"]) for line in rows]
    assert averages == ["55.2", "66.8", "36.0", "36.6", "23.5", "21.9", "22.1", "32.6"]
    for line, text in trained.items():
        assert re.search(r"here, (test|validation) ", text), line
    assert sum("average" in text.lower() for line, text in printed.items() if " evaluate " in line) == 7
    assert load_bundle(downloads / "my-anet-tsp.safetensors").classes == ("action",)
    assert load_bundle(downloads / "my-ego4d.safetensors").head_config["in_channels"] == [2304, 1536, 256]
    fused = json.loads((downloads / "fused-tsp" / "video_4.json").read_text())
    assert {segment["label"] for segment in fused["results"]["video_4"]} == {"jump", "swim"}


def test_the_page_names_every_published_row() -> None:
    for preset in ("thumos14", "activitynet-i3d", "activitynet-tsp", "epic100-verb", "epic100-noun", "ego4d"):
        assert f"--preset {preset}" in PAGE
    for name, preset in PRESETS.items():
        if name != "ego4d":
            assert f"{100 * preset.score:.1f}" in PAGE


def test_react_trains_on_resized_features(tmp_path: Path, small_recipes: None) -> None:
    annotate(tmp_path / "a.json", ("training", "validation"), ("jump", "swim"), (0, 1))
    features(tmp_path / "tsn", 400)
    adopt_features("react", "activitynet", tmp_path / "a.json", [tmp_path / "tsn"], tmp_path / "f", fit=True)
    out = tmp_path / "m.safetensors"
    printed = run(f"vidtad train --features {tmp_path / 'f'} --annotations {tmp_path / 'a.json'} --model react "
                  f"--preset activitynet --video-scores {scores(tmp_path)} --out {out}")  # fmt: skip
    assert "32.6" in printed and load_bundle(out).head_config["resize"]


@pytest.mark.parametrize(
    ("preset", "width", "suffix", "prefix", "step_s"),
    [
        ("activitynet-i3d", 2048, ".npy", "v_", 16 / 25),
        ("activitynet-tsp", 512, ".h5", "v_", 16 / 15),
        ("epic100-verb", 2304, ".npz", "", 16 / 30),
        ("ego4d", 256, ".npy", "", 16 / 30),
    ],
)
def test_downloads_of_one_array_train_and_detect_as_they_are(
    tmp_path: Path, small_recipes: None, preset: str, width: int, suffix: str, prefix: str, step_s: float
) -> None:
    annotate(tmp_path / "a.json", ("training", "validation"), ("jump", "swim"), (0, 1))
    if suffix == ".h5":
        (tmp_path / "f").mkdir()
        hdf5(tmp_path / "f" / "train.h5", width, range(4), prefix)
        hdf5(tmp_path / "f" / "valid.h5", width, range(4, 6), prefix)
    else:
        features(tmp_path / "f", width, prefix, suffix)
    out = tmp_path / "m.safetensors"
    printed = run(f"vidtad train --features {tmp_path / 'f'} --annotations {tmp_path / 'a.json'} --model actionformer "
                  f"--preset {preset} --out {out}")  # fmt: skip
    assert "published" in printed and "here, validation" in printed and "next: vidtad detect FEATURES" in printed
    copies = list((tmp_path / "m.safetensors.work").glob("rows/*.npy"))
    assert len(copies) == (0 if suffix == ".npy" else 6)
    bundle = load_bundle(out)
    kind = (EGO4D_VARIANTS["E"] if preset == "ego4d" else PRESETS[preset]).features
    assert bundle.sampling == {"window": kind.window, "stride": kind.stride, "fps": str(kind.fps)}
    assert bundle.channels == kind.channels and bundle.extractor == kind.extractor
    run(f"vidtad detect {tmp_path / 'f'} --model {out} --out {tmp_path / 't'} --quiet")
    found = json.loads((tmp_path / "t" / f"{prefix}video_4.json").read_text())
    rows = (ROWS - 0.5) * step_s + 0.5 * kind.window / kind.fps
    assert found["videos"][f"{prefix}video_4"]["duration_s"] == pytest.approx(rows)
    run(f"vidtad evaluate {tmp_path / 'a.json'} {tmp_path / 't'} --subset validation")


def test_detecting_and_evaluating_gives_the_score_of_the_training(
    tmp_path: Path, small_recipes: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    annotate(tmp_path / "a.json", ("Validation", "Test"), ("jump", "swim"), (0, 1))
    features(tmp_path / "down", 2048)
    adopt_features("react", "thumos14", tmp_path / "a.json", [tmp_path / "down"], tmp_path / "f")
    trained = json.loads(run("vidtad train --features f --annotations a.json --model react --preset thumos14 "
                             "--out m.safetensors --json"))["scores"]["test"]  # fmt: skip
    run("vidtad detect f --model m.safetensors --out t --quiet")
    lines = [line for line in PAGE.splitlines() if line.startswith("vidtad evaluate thumos14.json timelines-react ")]
    scored = json.loads(run(lines[0].replace("thumos14.json timelines-react", "a.json t") + " --json"))
    assert scored["mAP"] == pytest.approx(trained["mAP"]) and max(scored["mAP"]) > 0


def test_features_as_they_are_give_what_adopted_ones_give(tmp_path: Path, small_recipes: None) -> None:
    annotate(tmp_path / "a.json", ("training", "validation"), ("jump", "swim"), (0, 1))
    features(tmp_path / "down", 2304, suffix=".npz")
    adopt_features("actionformer", "epic100-verb", tmp_path / "a.json", [tmp_path / "down"], tmp_path / "adopted")
    records = []
    for folder in ("down", "adopted"):
        out = tmp_path / f"{folder}.safetensors"
        run(f"vidtad train --features {tmp_path / folder} --annotations {tmp_path / 'a.json'} --model actionformer "
            f"--preset epic100-verb --out {out}")  # fmt: skip
        log = next(tmp_path.glob(f"{folder}.safetensors.work/training-*/log.jsonl"))
        records.append((log.read_text(), load_bundle(out).scores, load_bundle(out).sampling))
    assert records[0] == records[1]


def test_scores_of_a_hundred_bins_train_as_they_are(tmp_path: Path, small_recipes: None) -> None:
    annotate(tmp_path / "a.json", ("training", "validation"), ("jump", "swim"), (0, 1))
    features(tmp_path / "csv", 400, prefix="v_", suffix=".csv", rows=100)
    command = (f"vidtad train --features {tmp_path / 'csv'} --annotations {tmp_path / 'a.json'} --model react "
               f"--preset activitynet --out {tmp_path / 'm.safetensors'}")  # fmt: skip
    result = CliRunner().invoke(app, shlex.split(command)[1:])
    assert result.exit_code == 0, result.stderr
    assert "taken for tsn/activitynet" in result.stderr and "differ" not in result.stderr
    assert re.search(r"published +49\.6 +33\.0 +8\.6 +32\.6\s+here, validation +\d", result.stdout), result.stdout


def scores(folder: Path) -> Path:
    path = folder / "scores.json"
    table = {f"video_{n}": [0.9, 0.3] for n in range(6)}
    path.write_text(json.dumps({"class": ["jump", "swim"], "results": table}))
    return path


def test_without_scores_of_videos_one_class_is_scored(tmp_path: Path, small_recipes: None) -> None:
    annotate(tmp_path / "a.json", ("training", "validation"), ("jump", "swim"), (0, 1))
    features(tmp_path / "tsp", 512)
    command = (f"vidtad train --features {tmp_path / 'tsp'} --annotations {tmp_path / 'a.json'} --model actionformer "
               f"--preset activitynet-tsp --out {tmp_path / 'm.safetensors'} --json")  # fmt: skip
    result = CliRunner().invoke(app, shlex.split(command)[1:])
    assert result.exit_code == 0 and "--video-scores" in result.stderr
    assert json.loads(result.stdout)["scores"]["validation"]["instances"] == 4


def test_downloaded_rows_are_where_the_data_set_says(tmp_path: Path) -> None:
    annotate(tmp_path / "a.json", ("training", "validation"), ("jump", "swim"), (0, 1))
    features(tmp_path / "one", 1024, rows=11)
    features(tmp_path / "two", 1024, prefix="v_", suffix=".npz", rows=11)
    (tmp_path / "two" / "v_video_5.npz").unlink()
    sources = [tmp_path / "one", tmp_path / "two"]
    found = adopt_features("react", "thumos14", tmp_path / "a.json", sources, tmp_path / "out", every=5)
    assert found.missing == ("video_5",) and len(found.written) == 5
    held = load_features(tmp_path / "out" / "video_0.npy", check_hash=True)
    one = np.load(tmp_path / "one" / "video_0.npy")
    assert held.values.shape == (3, 2048) and (held.values[1, :1024] == one[5]).all()
    assert held.provenance.channels == (("rgb", 1024), ("flow", 1024)) and held.video.duration_s == 7.0
    adopt_features("react", "thumos14", tmp_path / "a.json", sources, tmp_path / "rate", every=5, fit=False)
    rate = load_features(tmp_path / "rate" / "video_0.npy").grid
    assert rate.seconds(-0.5) == pytest.approx(0) and rate.seconds(0.5) == pytest.approx(5 / 30)
    assert held.grid.seconds(2.5) == pytest.approx(7.0, abs=1e-4)  # as released: 3 rows are the whole video
    spread = adopt_features("react", "thumos14", tmp_path / "a.json", sources, tmp_path / "fit", fit=True)
    grid = load_features(tmp_path / "fit" / f"{spread.written[0]}.npy").grid
    assert grid.seconds(10.5) == pytest.approx(7.0, abs=1e-4)


def test_adopting_again_keeps_what_is_the_same_and_replaces_nothing_else(tmp_path: Path) -> None:
    annotate(tmp_path / "a.json", ("training", "validation"), ("jump", "swim"), (0, 1))
    features(tmp_path / "tsp", 512)
    (tmp_path / "tsp" / "video_5.npy").unlink()
    command = ["adopt", str(tmp_path / "tsp"), "--annotations", str(tmp_path / "a.json"), "--preset", "activitynet-tsp"]
    command += ["--out", str(tmp_path / "f")]
    first = CliRunner().invoke(app, command)
    assert first.exit_code == 0 and "next: vidtad train --features" in first.stdout
    assert first.stderr.count("\n") == 1 and "video_5" in first.stderr
    made = {path: path.stat().st_mtime_ns for path in (tmp_path / "f").iterdir()}
    (tmp_path / "f" / "video_3.json").unlink()  # as after a kill
    again = json.loads(CliRunner().invoke(app, [*command, "--json"]).stdout)
    assert again["missing"] == ["video_5"] and len(again["written"]) == 5
    now = {path: path.stat().st_mtime_ns for path in (tmp_path / "f").iterdir()}
    assert now.keys() == made.keys() and {path.stem for path in made if made[path] != now[path]} == {"video_3"}
    other = CliRunner().invoke(app, [*command, "--every", "2"])
    assert other.exit_code == 2 and "--overwrite" in other.stderr and other.stderr.count("\n") == 1
    assert len(load_features(tmp_path / "f" / "video_0.npy").values) == ROWS
    assert CliRunner().invoke(app, [*command, "--every", "2", "--overwrite"]).exit_code == 0
    assert len(load_features(tmp_path / "f" / "video_0.npy", check_hash=True).values) == ROWS // 2


def test_downloads_are_never_written_over(tmp_path: Path) -> None:
    annotate(tmp_path / "a.json", ("training", "validation"), ("jump", "swim"), (0, 1))
    features(tmp_path / "tsp", 512)
    features(tmp_path / "other", 512, rows=ROWS - 1)
    before = {path: path.read_bytes() for path in tmp_path.glob("*/*.npy")}
    for out, more, sentence in (("tsp", ("--overwrite",), "one of the downloaded"), ("other", (), "--overwrite")):
        command = ["adopt", str(tmp_path / "tsp"), "--annotations", str(tmp_path / "a.json")]
        command += ["--preset", "activitynet-tsp", "--out", str(tmp_path / out), *more]
        result = CliRunner().invoke(app, command)
        assert result.exit_code == 2 and sentence in result.stderr, result.stderr
    assert {path: path.read_bytes() for path in tmp_path.glob("*/*")} == before


def test_downloads_that_do_not_fit_are_one_sentence(tmp_path: Path) -> None:
    annotate(tmp_path / "a.json", ("training", "validation"), ("jump", "swim"), (0, 1))
    features(tmp_path / "one", 1024, rows=11)
    features(tmp_path / "two", 1024, rows=12)
    features(tmp_path / "six", 6)
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "video_0.npy").write_bytes(b"no array")

    def adopt(preset: str, *folders: str, model: str = "actionformer") -> None:
        adopt_features(model, preset, tmp_path / "a.json", [tmp_path / f for f in folders], tmp_path / "out")

    for arguments, sentence in (
        (("thumos14", "one", "two"), "12 rows, but"),
        (("ego4d", "six"), "6 channels .* wants 2304 or"),
        (("thumos15", "one"), "there is react thumos14"),
        (("thumos14", "bad"), "not a feature file"),
        (("thumos14", "nowhere"), "no feature file"),
    ):
        with pytest.raises(InputError, match=sentence):
            adopt(*arguments)
    document = json.loads((tmp_path / "a.json").read_text())
    for entry in document["database"].values():
        del entry["fps"]
    (tmp_path / "a.json").write_text(json.dumps(document))
    features(tmp_path / "wide", 2048)
    with pytest.raises(InputError, match="no fps"):
        adopt("thumos14", "wide")
