"""Person-box networks as inference computes them, against the same ones as they are published."""

import numpy as np
import pytest
import torch
from torch import nn

from vidtad.errors import RunError
from vidtad.extractors.keyframe_stream import KeyClip
from vidtad.extractors.person_presets import TRUNKS
from vidtad.heads.person.boxes import People
from vidtad.heads.person.bundle import random_network
from vidtad.heads.person.scoring import Scorer, faster
from vidtad.models.people import PersonNetwork


@pytest.mark.parametrize(("head", "trunk"), [("acar", "slowfast/tiny"), ("action-transformer", "i3d/tiny")])
def test_inference_changes_no_score_in_float32_and_little_in_bf16(head: str, trunk: str) -> None:
    network = random_network(head, trunk)
    generator = torch.Generator().manual_seed(2)
    clips = torch.randn(3, 3, 16, 96, 96, generator=generator)
    boxes = [torch.tensor([[0.1, 0.1, 0.6, 0.9]]), torch.zeros(0, 4), torch.tensor([[0.2, 0.0, 1.0, 1.0]] * 2)]
    if network.in_pixels:
        boxes = [rows * 96 for rows in boxes]
    with torch.inference_mode():
        published = network.scores(network(clips, boxes))
        exact = network.scores(faster(network)(clips, boxes))
        short = network.scores(faster(network, "bf16")(clips, boxes))
    assert published.std() > 1e-4
    torch.testing.assert_close(exact, published, rtol=1e-4, atol=1e-5)
    assert short.dtype == torch.float32
    assert not torch.equal(short, published)
    torch.testing.assert_close(short, published, rtol=0.1, atol=0.02)


class _Small(nn.Module):
    """A trunk on a device with room for `room` clips at a time."""

    def __init__(self, trunk: nn.Module, room: int):
        super().__init__()
        self.trunk, self.room = trunk, room
        self.tried: list[int] = []

    def forward(self, clips: torch.Tensor) -> tuple[torch.Tensor, ...]:
        self.tried.append(len(clips))
        if len(clips) > self.room:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB")
        return tuple(self.trunk(clips))


def _keyframes(count: int) -> tuple[list[KeyClip], list[People]]:
    rng = np.random.default_rng(3)
    keys, people = [], []
    for at in range(count):
        clip = rng.integers(0, 255, (16, 64, 64, 3), np.uint8)
        keys.append(KeyClip(float(at), clip[8], (clip,)))
        boxes = np.array([[0.1, 0.1, 0.6, 0.9], [0.3, 0.2, 0.9, 1.0]], np.float32)[: at % 3]
        people.append(People(boxes, np.full(len(boxes), 0.9, np.float32)))
    return keys, people


@pytest.mark.parametrize("head", ["acar", "acfb"])
@pytest.mark.parametrize(("room", "tried"), [(3, [3]), (1, [3, 1, 1, 1])])
def test_a_device_without_room_for_a_batch_gets_it_in_parts(head: str, room: int, tried: list[int]) -> None:
    network = random_network(head, "slowfast/tiny").eval()
    convention = TRUNKS["slowfast/tiny"].convention
    keys, people = _keyframes(5)  # two of the five show nobody
    with torch.inference_mode():
        plain = list(Scorer(network, convention)([(keys, people)]))
        small = _Small(network.trunk, room)
        scorer = Scorer(PersonNetwork(small, network.head, network.bank).eval(), convention)
        found = list(scorer([(keys, people)]))
    assert len(scorer.parts.notes()) == (room < 3)
    assert [entry.time_s for entry in found] == [0.0, 1.0, 2.0, 3.0, 4.0]
    assert small.tried == tried
    for one, other in zip(plain, found, strict=True):
        np.testing.assert_allclose(one.scores, other.scores, rtol=1e-4, atol=1e-5)


def test_a_single_keyframe_that_does_not_fit_is_one_sentence() -> None:
    network = random_network("acar", "slowfast/tiny").eval()
    small = PersonNetwork(_Small(network.trunk, 0), network.head, network.bank).eval()
    keys, people = _keyframes(3)
    with torch.inference_mode(), pytest.raises(RunError, match="out of memory on cpu with a single keyframe"):
        list(Scorer(small, TRUNKS["slowfast/tiny"].convention)([(keys, people)]))
