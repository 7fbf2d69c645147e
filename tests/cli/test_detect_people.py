"""`vidtad detect` with heads that say who does what, through the command line, with small seeded networks."""

import csv
import json
from pathlib import Path

import pytest

from tests.bundles import seeded_react
from tests.cli.test_detect import run
from tests.pipelines.detect.test_person_detector import HEADS, SEEN, a_bundle, clip
from vidtad.errors import RunError
from vidtad.formats.ava import read_boxes, read_label_map
from vidtad.heads import catalogue as checkpoints
from vidtad.heads.person import bundle as people_bundle
from vidtad.heads.person.bundle import person_bundle, random_network
from vidtad.hub.bundle import save_bundle
from vidtad.pipelines.detect import person_detector as detection
from vidtad.timeline import read_timeline

__all__ = ["clip"]


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("bundles")
    return {head: save_bundle(a_bundle(head), folder / f"{head}.safetensors") for head in HEADS}


def boxes(clip: Path) -> tuple[object, ...]:
    return "--boxes", clip.with_name("boxes.csv")


@pytest.mark.parametrize("head", HEADS)
def test_every_head_to_a_table_and_a_timeline(head: str, clip: Path, bundles: dict[str, Path], tmp_path: Path) -> None:
    result = run("detect", clip, "--model", bundles[head], *boxes(clip), "--out", tmp_path)
    assert result.exit_code == 0, result.stderr
    timeline = read_timeline(tmp_path / f"{clip.stem}.json")
    assert [person.time_s for person in timeline.people[clip.stem]] == [0, 0, 1, 1, 2, 2, 3, 3]
    header = next(line for line in result.stdout.splitlines() if "action" in line)
    assert header.split() == ["person", "start", "end", "action", "score"]
    assert "2 people at 4 keyframes; all in" in result.stdout
    rows = list(csv.DictReader((tmp_path / f"{clip.stem}.csv").open()))
    assert {row["track"] for row in rows} <= {"0", "1"} and len(rows) == len(timeline.results[clip.stem]) > 0


def test_options_reach_the_detector(clip: Path, bundles: dict[str, Path], tmp_path: Path) -> None:
    options = ("--persons", "fasterrcnn-fast", "--persons-weights", "random", "--every", 2, "--batch", 1)
    command = ("detect", clip, "--model", bundles["linear"], "--scales", "96,128", "--flip", *options)
    document = json.loads(run(*command, "--precision", "bf16", "--out", "-").stdout)
    assert document["detector"]["precision"] == "bf16"
    assert document["detector"]["keyframes"] == {"every_s": 2.0, "scales": [96, 128], "flip": True}
    assert document["detector"]["persons"]["detector"] == "fasterrcnn-fast"
    assert {person["time_s"] for person in document["people"][clip.stem]} == {0.0, 2.0}


def test_scores_from_which_people_and_actions_count(clip: Path, bundles: dict[str, Path], tmp_path: Path) -> None:
    scored = tmp_path / "boxes.csv"
    scored.write_text("".join(f"{clip.stem},1,0.{x},0.1,0.{x + 3},0.9,,{s}\n" for x, s in ((1, 0.9), (5, 0.66))))
    command = ("detect", clip, "--model", bundles["linear"], "--boxes", scored, "--out", "-")

    def document(*more: object) -> dict:
        result = run(*command, *more)
        assert result.exit_code == 0, result.stderr
        return json.loads(result.stdout)

    assert len(document()["people"][clip.stem]) == 1
    both = document("--person-score", 0.65, "--action-score", 0)
    assert [len(person["actions"]) for person in both["people"][clip.stem]] == [3, 3]
    assert both["detector"]["sha256"] == document()["detector"]["sha256"]
    assert (both["detector"]["decoding"]["person_score"], both["detector"]["decoding"]["start"]) == (0.65, 0.5)
    none = document("--person-score", 0.65, "--action-score", 1)
    assert sum(len(person["actions"]) for person in none["people"][clip.stem]) < 6
    wrong = run(*command, "--person-score", 7)
    assert wrong.exit_code == 2 and "--person-score 7: scores lie between 0 and 1" in wrong.stderr


def test_boxes_from_another_clock(clip: Path, bundles: dict[str, Path], tmp_path: Path) -> None:
    late = tmp_path / "boxes.csv"
    rows = [line.split(",") for line in clip.with_name("boxes.csv").read_text().splitlines()]
    late.write_text("".join(",".join([row[0], f"{int(row[1]) + 900}", *row[2:]]) + "\n" for row in rows))
    command = ("detect", clip, "--model", bundles["linear"], "--out", "-")
    given, shifted = run(*command, *boxes(clip)), run(*command, "--boxes", late, "--boxes-offset", 900)
    people = [json.loads(result.stdout)["people"][clip.stem] for result in (given, shifted)]
    assert people[0] == people[1] and len(people[0]) == 8


def test_worker_processes_give_the_same(clip: Path, bundles: dict[str, Path], tmp_path: Path) -> None:
    command = ("detect", clip, "--model", bundles["acar"], *boxes(clip))
    assert run(*command, "--out", tmp_path / "one").exit_code == 0
    assert run(*command, "--out", tmp_path / "two", "--workers", 1, "--shard", "1/1").exit_code == 0
    one, two = (read_timeline(tmp_path / name / f"{clip.stem}.json") for name in ("one", "two"))
    assert one.people == two.people and one.results == two.results and one.detector == two.detector


def test_ava_rows_beside_the_timeline(clip: Path, bundles: dict[str, Path], tmp_path: Path) -> None:
    command = ("detect", clip, "--model", bundles["linear"], *boxes(clip), "--out", tmp_path, "--format", "ava")
    assert run(*command).exit_code == 0
    rows = read_boxes(tmp_path / f"{clip.stem}.ava.csv")
    assert len(rows.box) == 8 * 3 and rows.images[0] == (clip.stem, "0.000000")
    assert list(read_label_map(tmp_path / f"{clip.stem}.ava.pbtxt").values()) == ["jump", "wave", "walk"]


def test_a_second_run_reads_back(
    clip: Path, bundles: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ("detect", clip, "--model", bundles["linear"], *boxes(clip), "--out", tmp_path)
    first = run(*command)
    monkeypatch.setattr(detection.PeopleDetector, "__call__", lambda *_: pytest.fail("computed again"))
    assert run(*command).stdout == first.stdout
    other = run(*command, "--flip")
    assert other.exit_code == 2 and "--overwrite" in other.stderr


def test_people_at_keyframes_far_apart_are_still_followed(clip: Path, tmp_path: Path) -> None:
    still = tmp_path / "boxes.csv"
    still.write_text("".join(f"{clip.stem},{second},0.1,0.1,0.5,0.9\n" for second in (0, 3)))
    bundle = a_bundle("linear", decoding={**SEEN, "gone_s": 1.0, "bridge_s": 1.0})
    hasty = save_bundle(bundle, tmp_path / "hasty.safetensors")
    document = json.loads(run("detect", clip, "--model", hasty, "--boxes", still, "--out", "-").stdout)
    assert [person["track"] for person in document["people"][clip.stem]] == [0, 0]


def test_offline_hog_stands_in_and_it_is_said(
    clip: Path, bundles: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = detection.load_persons

    def offline(name: str, *args: object, **settings: object) -> object:
        if name == "hog":
            return real(name)
        raise RunError("no connection")

    monkeypatch.setattr(detection, "load_persons", offline)
    (tmp_path / "clips").mkdir()
    for name in ("a.mp4", "b.mp4"):
        (tmp_path / "clips" / name).write_bytes(clip.read_bytes())
    result = run("detect", tmp_path / "clips", "--model", bundles["linear"], "--out", tmp_path, "--every", 2)
    assert result.exit_code == 0, result.stderr
    assert result.stderr.count("HOG detector, a fallback") == 1, "said once for the whole batch"
    assert result.stderr.count("fasterrcnn could not be had: no connection") == 1
    assert len(read_timeline(tmp_path / "b.json").detector["warnings"]) == 2
    asked = run("detect", clip, "--model", bundles["linear"], "--out", tmp_path / "2", "--persons", "fasterrcnn")
    assert asked.exit_code == 1 and asked.stderr.strip() == "vidtad: no connection"


def test_nobody_there_is_said(clip: Path, bundles: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "boxes.csv").write_text(f"{clip.stem},1\n{clip.stem},99,0.1,0.1,0.5,0.9\n")
    result = run("detect", clip, "--model", bundles["linear"], "--boxes", tmp_path / "boxes.csv", "--out", tmp_path)
    assert result.exit_code == 0, result.stderr
    assert "0 of 0 segments" in result.stdout and "nobody was found" in result.stdout


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--persons", "hogg"), "did you mean hog?"),
        (("--persons", "own"), "proposes no boxes itself"),
        (("--persons", "hog", "--persons-weights", "random"), "has no weights"),
        (("--boxes", "nope.csv"), "nope.csv: no such file"),
        (("--boxes", __file__, "--persons", "hog"), "leave out --boxes, or --persons"),
        (("--boxes-offset", "3"), "name it with --boxes"),
        (("--scales", "big"), "256,288,320"),
        (("--scales", "16"), "too small"),
        (("--every", "0"), "above 0"),
        (("--stride", "4"), "--stride: only for feature files"),
        (("--precision", "bf17"), "did you mean bf16"),
    ],
)
def test_misuse_is_one_sentence(
    options: tuple[str, ...], said: str, clip: Path, bundles: dict[str, Path], tmp_path: Path
) -> None:
    result = run("detect", clip, "--model", bundles["linear"], "--out", tmp_path / "out", *options)
    assert (result.exit_code, result.stdout) == (2, ""), result.stderr
    assert said in result.stderr and len(result.stderr.splitlines()) == 1 and not (tmp_path / "out").exists()


def test_options_about_people_are_refused_elsewhere(clip: Path, tmp_path: Path) -> None:
    bundle = seeded_react(tmp_path / "r.safetensors", width=32, heads=4, queries=8, clip_len=16)
    for options in (("--persons", "hog"), ("--flip",), ("--every", "1"), boxes(clip)):
        result = run("detect", clip, "--model", bundle, "--out", tmp_path / "out", *options)
        assert result.exit_code == 2 and f"{options[0]}: only for detectors that say who" in result.stderr
        assert len(result.stderr.splitlines()) == 1
    result = run("detect", clip, "--model", "motion", "--out", tmp_path / "out", "--scales", "256")
    assert result.exit_code == 2 and "--scales: only for" in result.stderr and not (tmp_path / "out").exists()


def test_a_head_that_is_not_here(clip: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(checkpoints, "_installed_path", lambda name: None)
    monkeypatch.setattr(checkpoints, "_builtin_path", lambda name: None)
    for head, said in {"acar": "vidtad models add", "acfb": "vidtad train --model acfb"}.items():
        result = run("detect", clip, "--model", head)
        assert result.exit_code == 2 and said in result.stderr and "--weights random" in result.stderr
    wrong = run("detect", clip, "--model", "acar", "--weights", "random:x")
    assert wrong.exit_code == 2 and "must be a number" in wrong.stderr


def test_a_dry_run_fetches_nothing(clip: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(checkpoints, "_installed_path", lambda name: None)
    monkeypatch.setattr(checkpoints, "_builtin_path", lambda name: None)
    monkeypatch.setattr(checkpoints, "fetch", lambda *_: pytest.fail("fetched"))

    def small(head: str, seed: int) -> object:
        trunk, config = HEADS[head]
        network = random_network(head, trunk, config, seed)
        more = {"decoding": {**SEEN, "persons": "fasterrcnn-fast"}, "training": {"random_weights": True}}
        return person_bundle(f"{head}-random", head, network, trunk=trunk, classes=("a", "b", "c"), **more)

    monkeypatch.setattr(people_bundle, "random_bundle", small)
    result = run("detect", clip, "--model", "acar", "--weights", "random:3", "--out", tmp_path, "--every", 2)
    assert result.exit_code == 0, result.stderr
    assert "carry no meaning" in result.stderr and "person boxes come from random weights" in result.stderr
    detector = read_timeline(tmp_path / f"{clip.stem}.json").detector
    assert detector["random_weights"] and detector["persons"]["weights"] == "random"
