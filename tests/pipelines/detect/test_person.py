"""Timelines of people on disk: written once, read back, never overwritten by another making."""

from pathlib import Path

import pytest

from tests.bundles import seeded_react
from tests.pipelines.detect.test_person_detector import a_bundle, clip, options
from vidtad.errors import InputError
from vidtad.hub.bundle import load_bundle
from vidtad.pipelines.detect.dispatch import worker_for
from vidtad.pipelines.detect.person import PeopleWorker
from vidtad.pipelines.detect.person_detector import PeopleDetector
from vidtad.pipelines.detect.worker import Job
from vidtad.timeline import read_timeline

__all__ = ["clip"]


def test_a_finished_timeline_is_read_back(clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = a_bundle("linear")
    worker = worker_for(bundle, Job(out=tmp_path), options(clip))
    assert isinstance(worker, PeopleWorker)
    first = worker(clip)
    assert read_timeline(tmp_path / f"{clip.stem}.json").people == first.people
    assert (tmp_path / f"{clip.stem}.csv").read_text().startswith("video,start_s,end_s,label,score")
    monkeypatch.setattr(PeopleDetector, "__call__", lambda *_: pytest.fail("computed again"))
    assert worker(clip).people == first.people
    with pytest.raises(InputError, match="--overwrite"):
        worker_for(bundle, Job(out=tmp_path), options(clip, every_s=0.5))(clip)


def test_segments_under_the_asked_score_are_left_out(clip: Path) -> None:
    bundle = a_bundle("linear", decoding={"action_score": 0.0, "start": 0.0, "keep": 0.0})
    everything = worker_for(bundle, Job(out=None), options(clip))(clip).results[clip.stem]
    scores = sorted(s.score for s in everything)
    some = worker_for(bundle, Job(out=None, min_score=scores[-2]), options(clip))(clip).results[clip.stem]
    assert len(everything) == 6 and [s.score for s in some] == scores[:-3:-1]


def test_other_heads_get_their_own_worker(clip: Path, tmp_path: Path) -> None:
    react = load_bundle(seeded_react(tmp_path / "react.safetensors"))
    assert not isinstance(worker_for(react, Job(out=None)), PeopleWorker)
    with pytest.raises(InputError, match="leave out options about people"):
        worker_for(react, Job(out=None), options(clip))
    with pytest.raises(InputError, match="not at feature files"):
        worker_for(a_bundle("linear"), Job(out=None), options(clip))(tmp_path / "x.npy")
