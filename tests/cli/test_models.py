"""`vidtad models`, `info` and `evaluate` through the command line."""

import itertools
import json
import re
from pathlib import Path

import pytest
from pytest import MonkeyPatch
from typer.testing import CliRunner, Result

from tests.bundles import seeded_react
from tests.clips import numbered_frames, write_clip
from vidtad.cli import app


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_list_names_published_checkpoints_with_their_facts() -> None:
    document = json.loads(run("models", "list", "--json").stdout)
    rows = {row["name"]: row for row in document["models"]}
    assert rows["i3d-rgb-kinetics400"]["cached"] is False
    assert rows["react-thumos14"]["classes"] == 20
    assert "i3d-rgb-kinetics400" in run("models", "list").stdout


def test_list_groups_by_task_and_says_how_to_get_what_is_not_here(tmp_path: Path, monkeypatch: MonkeyPatch) -> None:
    monkeypatch.setenv("VIDTAD_CACHE", str(tmp_path / "cache"))
    text = run("models", "list").stdout
    groups = [line.split(":")[0] for line in text.splitlines() if re.match(r"[a-z -]+: \d+ models? *$", line)]
    assert len(groups) == len(set(groups)) and {"temporal detection", "classification", "flow"} <= set(groups)
    lines = {line.split()[0]: line.split() for line in text.splitlines() if line.strip()}
    assert lines["react-thumos14"][-4:] == ["by", "hand", "first", "use"]
    assert lines["raft-large"][1:] == ["fetch", "published"]
    assert lines["demo-react"][-2:] == ["built", "in"]
    assert "models fetch NAME" in text and "pinned at first use" in text and "models add FILE" in text


def test_list_is_filtered_and_has_no_empty_column(tmp_path: Path, monkeypatch: MonkeyPatch) -> None:
    monkeypatch.setenv("VIDTAD_CACHE", str(tmp_path / "cache"))
    text = run("models", "list", "--task", "flow").stdout
    assert "raft-small" in text and "react" not in text
    assert not {"classes", "size", "licence"} & set(text.split())
    for row in json.loads(run("models", "list", "--fetchable", "--task", "Temporal", "--json").stdout)["models"]:
        assert row["fetchable"] and row["task"] == "temporal detection"
    rows = json.loads(run("models", "list", "--fetchable", "--json").stdout)["models"]
    assert {row["get"] for row in rows} == {"fetch"} and {row["hash"] for row in rows} == {"published", "first use"}
    wrong = run("models", "list", "--task", "dancing")
    assert wrong.exit_code == 2 and "flow" in wrong.stderr and len(wrong.stderr.splitlines()) == 1
    assert "no model is like that" in run("models", "list", "--cached", "--fetchable").stdout


def test_show_prints_a_card(tmp_path: Path, monkeypatch: MonkeyPatch) -> None:
    monkeypatch.setenv("VIDTAD_CACHE", str(tmp_path / "cache"))
    card = run("models", "show", "demo-react").stdout.splitlines()
    assert card[0] == "demo-react" and "built in" in card[1] and "generated classes" in card[1]
    assert not any("{" in line or "=" in line for line in card)
    card = run("models", "show", "react-thumos14").stdout.splitlines()
    assert "to be got by hand" in card[1] and "no hash" in card[2]
    place = cache_file(tmp_path, "i3d-rgb-kinetics400", "rgb_imagenet.pt")
    place.with_name("rgb_imagenet.pt.sha256").write_text("ab" * 32 + "\n")
    assert "ab" * 32 in run("models", "show", "i3d-rgb-kinetics400").stdout
    assert json.loads(run("models", "show", "react-thumos14", "--json").stdout)["hash"] == "first use"


def cache_file(folder: Path, id: str, name: str) -> Path:
    place = folder / "cache" / "checkpoints" / id / name
    place.parent.mkdir(parents=True)
    place.write_bytes(b"weights")
    return place


@pytest.mark.parametrize("kind, hash", [("linear", "d934a48f"), ("max", "13a9078e"), ("focal", "dd59e26f")])
def test_the_slowfast_files_of_mmaction2_have_an_address_and_a_hash(kind: str, hash: str) -> None:
    shown = json.loads(run("models", "show", f"mmaction2-slowfast-r50-ava-{kind}", "--json").stdout)
    assert shown["fetchable"] and shown["sha256"] == hash and shown["hash"] == "published"
    assert shown["url"].startswith("https://") and shown["url"].endswith(f"_20220906-{hash}.pth")


def test_an_added_bundle_is_listed_shown_and_found_by_name(tmp_path: Path) -> None:
    bundle = seeded_react(tmp_path / "mine.safetensors", queries=4, width=32, heads=4)
    added = json.loads(run("models", "add", bundle, "--as", "kitchen", "--json").stdout)
    assert added["name"] == "kitchen" and Path(added["path"]).is_file()
    shown = json.loads(run("models", "show", "kitchen", "--json").stdout)
    assert shown["head"] == "react" and shown["classes"] == ["jump", "wave", "walk"]
    assert "kitchen" in run("models", "list", "--cached").stdout
    clip = write_clip(tmp_path / "clip.mp4", numbered_frames(40), 25)
    result = run("detect", clip, "--model", "kitchen", "--out", "-")
    assert result.exit_code == 0 and "clip" in json.loads(result.stdout)["results"]
    wrong = run("detect", clip, "--model", "kitchn", "--out", "-")
    assert wrong.exit_code == 2 and "kitchen" in wrong.stderr


def test_a_model_that_is_not_here_says_how_to_get_it(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4", numbered_frames(20), 25)
    result = run("detect", clip, "--model", "react-thumos14", "--out", tmp_path / "t")
    assert result.exit_code == 2 and "models add" in result.stderr
    assert not (tmp_path / "t").exists()


def test_a_payload_is_refused_and_does_not_run(tmp_path: Path) -> None:
    marker = tmp_path / "executed"
    payload = f"cposix\nsystem\n(S'touch {marker}'\ntR.".encode()
    (tmp_path / "evil.pth").write_bytes(payload)
    result = run("models", "add", tmp_path / "evil.pth", "--as", "react-thumos14")
    assert result.exit_code == 2 and len(result.stderr.splitlines()) == 1
    assert not marker.exists()


def test_info_of_a_video(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4", numbered_frames(50), 25)
    document = json.loads(run("info", clip, "--frames", "--json").stdout)
    assert (document["frames"], document["width"], document["height"], document["fps"]) == (50, 160, 96, 25.0)
    times = document["frame_times_s"]
    assert times[0] == 0 and len(times) == 50 and all(a < b for a, b in itertools.pairwise(times))
    assert "codec: h264" in run("info", clip).stdout


def test_info_of_the_installation() -> None:
    document = json.loads(run("info", "--json").stdout)
    assert document["libraries"]["torch"] and document["cache"]
    project = (Path(__file__).parents[2] / "pyproject.toml").read_text()
    needed = re.findall(r'^    "([\w-]+)>=', project.split("dependencies = [")[1].split("\n]")[0], re.MULTILINE)
    assert len(needed) > 8 and set(needed) <= document["libraries"].keys()


@pytest.fixture
def scored(tmp_path: Path) -> tuple[Path, Path]:
    annotations = [{"label": "a", "segment": [0, 10]}, {"label": "b", "segment": [20, 30]}]
    truth = {"version": "1", "taxonomy": [], "database": {"v": {"subset": "validation", "annotations": annotations}}}
    found = [
        {"label": "a", "score": 0.9, "segment": [0, 10]},
        {"label": "b", "score": 0.8, "segment": [20, 26]},
    ]
    (tmp_path / "gt.json").write_text(json.dumps(truth))
    (tmp_path / "preds.json").write_text(json.dumps({"version": "1", "results": {"v": found}, "external_data": {}}))
    return tmp_path / "gt.json", tmp_path / "preds.json"


def test_evaluate(scored: tuple[Path, Path]) -> None:
    document = json.loads(run("evaluate", *scored, "--json", "--tiou", 0.5, "--tiou", 0.75).stdout)
    assert document["mAP"] == [1.0, 0.5] and document["average_mAP"] == 0.75
    assert document["ap"] == {"a": [1.0, 1.0], "b": [1.0, 0.0]}
    assert (document["videos"], document["instances"], document["tiou_thresholds"]) == (1, 2, [0.5, 0.75])
    table = run("evaluate", *scored)
    assert table.exit_code == 0 and "mAP" in table.stdout


def test_evaluate_says_where_train_scores_otherwise(scored: tuple[Path, Path]) -> None:
    stderr = run("evaluate", *scored).stderr
    assert "protocol activitynet" in stderr and "--protocol thumos14" in stderr
    assert "train" not in run("evaluate", *scored, "--protocol", "activitynet").stderr


def test_swapped_files_are_explained(scored: tuple[Path, Path]) -> None:
    result = run("evaluate", scored[1], scored[0])
    assert result.exit_code == 2 and "swap" in result.stderr
