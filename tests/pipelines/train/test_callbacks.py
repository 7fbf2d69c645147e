"""Curves for TensorBoard: the numbers of the log, the same after a restart."""

import sys
from pathlib import Path

import pytest

from vidtad.errors import InputError
from vidtad.pipelines.train.callbacks import Board, Watcher, board_of, reporter


class Scored:
    epoch = -1


def records(first: int, last: int) -> list[dict]:
    return [{"epoch": 0, "step": n, "steps": 5, "lr": 0.1, "loss": 10.0 - n} for n in range(first, last)]


def curve(folder: Path, name: str) -> dict[int, float]:
    loader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = loader.EventAccumulator(str(folder))
    events.Reload()
    return {event.step: round(event.value, 6) for event in events.Scalars(name)}


def test_a_resumed_run_goes_on_with_its_curve(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    evaluation = {"epoch": 0, "step": 2, "steps": 5, "evaluation": {"average_mAP": 0.25}}
    for run in ([*records(0, 2), evaluation, *records(2, 4)], records(1, 5)):
        board = Board(tmp_path)
        for record in run:
            board(record)
        board.close()
    assert curve(tmp_path, "loss") == {n: 10.0 - n for n in range(5)}
    assert set(curve(tmp_path, "lr")) == set(range(5))


def test_without_the_package_it_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    monkeypatch.delitem(sys.modules, "torch.utils.tensorboard", raising=False)
    with pytest.raises(InputError, match=r"pip install .vidtad\[tensorboard\]"):
        board_of(tmp_path, wanted=True)
    assert board_of(tmp_path, wanted=False) is None


def test_the_terminal_gets_every_batch() -> None:
    seen, scorer = [], Scored()
    report = reporter(Watcher(progress=lambda *shown: seen.append(shown)), scorer, 3, None)  # type: ignore[arg-type]
    for record in [*records(0, 2), {"epoch": 1, "step": 2, "steps": 5, "evaluation": {}}]:
        report(record)
    assert [shown[:3] for shown in seen] == [("training", 1, 5), ("training", 2, 5)]
    assert seen[0][3] == "epoch 1/3, loss 10.000" and scorer.epoch == 1
