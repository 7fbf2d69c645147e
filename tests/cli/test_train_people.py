"""`vidtad train` of heads that say who does what, through the command line, with a trunk that one core trains."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from tests.bundles import seeded_react
from tests.cli.test_detect import run
from tests.pipelines.detect.test_person_detector import SEEN, a_bundle
from tests.pipelines.train.test_person import labelled
from tests.torchrun import by_two
from vidtad.errors import InputError
from vidtad.hub.bundle import load_bundle, save_bundle
from vidtad.pipelines.train import person as training
from vidtad.runtime.locks import claim

__all__ = ["labelled"]
QUICK = ("--weights", "random:1", "--epochs", 1, "--val-fraction", 0.25)


def command(labelled: Path, out: Path, *more: object) -> tuple[object, ...]:
    return "train", "--videos", labelled, "--annotations", labelled / "labels.csv", "--out", out, *more


@pytest.mark.parametrize("model", ["linear", "acar", "action-transformer"])
def test_labels_to_a_bundle_that_detects(model: str, labelled: Path, tmp_path: Path) -> None:
    trunk = "i3d/tiny" if model == "action-transformer" else "slowfast/tiny"
    out = tmp_path / "mine.safetensors"
    result = run(*command(labelled, out, "--model", model, "--trunk", trunk, *QUICK))
    assert result.exit_code == 0, result.stderr
    assert "Average precision" in result.stdout and "given the labelled boxes, of synth_" in result.stdout
    assert result.stdout.splitlines()[-1] == f"next: vidtad detect VIDEO --model {out}"
    bundle = load_bundle(out)
    assert (bundle.head, bundle.extractor) == (model, trunk) and bundle.scores["validation"]["protocol"]
    records = [json.loads(line) for line in (tmp_path / "mine.safetensors.work" / "log.jsonl").open()]
    assert records[-1]["evaluation"]["frame_mAP"] == pytest.approx(bundle.scores["validation"]["frame_mAP"])
    clip = min(labelled.glob("*.mp4"))
    detected = run("detect", clip, "--model", out, "--boxes", labelled / "labels.csv", "--out", tmp_path / "t")
    assert detected.exit_code == 0, detected.stderr
    assert "2 people at 2 keyframes" in detected.stdout


def test_labels_by_name_are_ground_truth_and_their_ap_weighs_an_ensemble(labelled: Path, tmp_path: Path) -> None:
    names = ("jump", "spin", "wave")
    decoding = {**SEEN, "action_score": 0.0}
    for seed in (0, 1):
        bundle = replace(a_bundle("linear", seed, decoding=decoding), classes=names)
        path = save_bundle(bundle, tmp_path / f"{seed}.safetensors")
        more = ("--boxes", labelled / "labels.csv", "--out", tmp_path / f"t{seed}", "--format", "ava")
        assert run("detect", labelled, "--model", path, *more).exit_code == 0
        scored = run("evaluate", labelled / "labels.csv", tmp_path / f"t{seed}", "--json")
        assert scored.exit_code == 0, scored.stderr
        document = json.loads(scored.stdout)
        assert list(document["ap"]) == ["1 jump", "2 spin", "3 wave"] and document["protocol"] == "ava"
        assert 0 < document["average_mAP"] <= 1 and not document["warnings"]
        (tmp_path / f"{seed}.json").write_text(scored.stdout)
    files = [tmp_path / f"{seed}.json" for seed in (0, 1)]
    weights = ("--ap", files[0], "--ap", files[1])
    joint = run("ensemble", tmp_path / "t0", tmp_path / "t1", *weights, "--out", tmp_path / "t")
    assert joint.exit_code == 0, joint.stderr
    both = run("evaluate", labelled / "labels.csv", tmp_path / "t")
    assert both.exit_code == 0 and "3 classes" in both.stdout
    rows = min((tmp_path / "t0").glob("*.ava.csv"))
    by_number = run("evaluate", labelled / "labels.csv", rows)
    assert by_number.exit_code == 2 and "--label-map" in by_number.stderr


def test_acfb_fills_its_bank_from_an_acar_bundle_and_json_is_one_document(labelled: Path, tmp_path: Path) -> None:
    start = save_bundle(a_bundle("acar", decoding=SEEN), tmp_path / "acar.safetensors")
    out = tmp_path / "mine.safetensors"
    more = ("--model", "acfb", "--start", start, "--epochs", 1, "--val-fraction", 0, "--json")
    result = run(*command(labelled, out, *more))
    assert result.exit_code == 0, result.stderr
    document = json.loads(result.stdout)
    assert document["bundle"] == str(out) and document["held_out"] == [] and document["scores"] == {}
    trained = load_bundle(out)
    assert trained.training["started_from"] == "acar.safetensors"
    assert any(key.startswith("bank.") for key in trained.head_weights)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["acar.safetensors", out.name, f"{out.name}.work"]


def test_a_frozen_trunk_and_a_second_run(labelled: Path, tmp_path: Path) -> None:
    bundle = a_bundle("linear")
    start = save_bundle(bundle, tmp_path / "start.safetensors")
    more = ("--model", "linear", "--start", start, "--freeze-trunk", "--epochs", 2, "--val-fraction", 0)
    first = run(*command(labelled, tmp_path / "mine.safetensors", *more))
    assert first.exit_code == 0, first.stderr
    assert "no video was held out" in first.stdout
    trained = load_bundle(tmp_path / "mine.safetensors")
    assert bundle.extractor_weights is not None and trained.extractor_weights is not None
    assert all((trained.extractor_weights[key] == value).all() for key, value in bundle.extractor_weights.items())
    log = tmp_path / "mine.safetensors.work" / "log.jsonl"
    before = log.read_text()
    assert run(*command(labelled, tmp_path / "mine.safetensors", *more)).exit_code == 0
    assert log.read_text() == before and load_bundle(tmp_path / "mine.safetensors").sha256 == trained.sha256


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--model", "liner"), "did you mean linear?"),
        (("--features", "x", "--fps", 25, "--strict"), "--features, --fps, --strict: not for --model linear"),
        (("--weights", "random:q"), "must be a number"),
        (("--weights", "random", "--val-fraction", 1.5), "between 0 and 1"),
        (("--weights", "random", "--trunk", "slowfast/tnyi"), "did you mean slowfast/tiny"),
        (("--trunk", "slowfast/tiny"), "starts from trained weights"),
        (("--start", "x.safetensors", "--weights", "random"), "leave out --weights"),
        (("--start", "nope.safetensors"), "no such bundle file"),
        (("--weights", "random", "--label-map", "nope.pbtxt"), "nope.pbtxt"),
    ],
)
def test_misuse_is_one_sentence(options: tuple[object, ...], said: str, labelled: Path, tmp_path: Path) -> None:
    result = run(*command(labelled, tmp_path / "x.safetensors", "--model", "linear", *options))
    assert (result.exit_code, result.stdout) == (2, ""), result.stderr
    assert said in result.stderr and len(result.stderr.splitlines()) == 1 and not list(tmp_path.iterdir())


def test_videos_and_a_fitting_start_are_asked_for(labelled: Path, tmp_path: Path) -> None:
    out = tmp_path / "x.safetensors"
    nowhere = run("train", "--annotations", labelled / "labels.csv", "--model", "acar", "--out", out)
    assert nowhere.exit_code == 2 and "--videos DIR" in nowhere.stderr
    start = seeded_react(tmp_path / "r.safetensors")
    result = run(*command(labelled, out, "--model", "linear", "--start", start))
    assert result.exit_code == 2 and "says what happens when" in result.stderr


def test_labels_of_the_other_kind_are_recognised(labelled: Path, tmp_path: Path) -> None:
    out = tmp_path / "x.safetensors"
    segments = labelled / "ground_truth.json"
    people = run("train", "--videos", labelled, "--annotations", segments, "--model", "acar", *QUICK, "--out", out)
    assert people.exit_code == 2 and "train --model react or actionformer on them" in people.stderr
    rows = run(*command(labelled, out, "--model", "react"))
    assert rows.exit_code == 2 and "train --model linear or acar or acfb or action-transformer on them" in rows.stderr
    refused = run("train", "--videos", labelled, "--annotations", segments, "--freeze-trunk", "--out", out)
    assert refused.exit_code == 2 and "--freeze-trunk: not for --model react" in refused.stderr


def test_a_preset_reaches_the_job(labelled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def stop(job: training.PeopleJob, progress: object) -> None:
        seen.append(training.with_preset(job))
        raise InputError("seen")

    monkeypatch.setattr(training, "run_people_training", stop)
    result = run(*command(labelled, tmp_path / "x.safetensors", "--preset", "acar-r101"))
    assert result.exit_code == 2 and "seen" in result.stderr
    assert (seen[0].model, seen[0].trunk, seen[0].schedule.epochs) == ("acar", "slowfast/acar-r101", 5)
    wrong = ("--model", "linear", "--preset", "acar-r51")
    monkeypatch.undo()
    result = run(*command(labelled, tmp_path / "x.safetensors", *wrong))
    assert result.exit_code == 2 and "did you mean acar-r50" in result.stderr


@pytest.mark.slow
def test_two_processes_share_the_work_and_one_writes(labelled: Path, tmp_path: Path) -> None:
    start = save_bundle(a_bundle("acar", decoding=SEEN), tmp_path / "acar.safetensors")
    out = tmp_path / "mine.safetensors"
    more = ("--model", "acfb", "--start", start, "--epochs", 2, "--val-fraction", 0.25, "--device", "cpu")
    said = by_two(*command(labelled, out, *more))
    assert "next: vidtad detect" in said[0][0] and said[1][0] == ""
    alone = tmp_path / "alone.safetensors"
    assert run(*command(labelled, alone, *more)).exit_code == 0
    records = [
        [json.loads(line) for line in path.with_name(f"{path.name}.work").joinpath("log.jsonl").open()]
        for path in (out, alone)
    ]
    assert [record["step"] for record in records[0]] == [record["step"] for record in records[1]]
    assert records[0][0]["loss"] == pytest.approx(records[1][0]["loss"], rel=0.05)  # each process drops out by itself
    assert load_bundle(out).classes == load_bundle(alone).classes


def test_a_second_training_of_one_bundle_is_told(labelled: Path, tmp_path: Path) -> None:
    with claim(tmp_path / ".mine.safetensors.lock"):
        result = run(*command(labelled, tmp_path / "mine.safetensors", "--model", "linear", *QUICK))
    assert result.exit_code == 1 and "mine.safetensors: another process is at work on it" in result.stderr
    assert not list(tmp_path.iterdir())
