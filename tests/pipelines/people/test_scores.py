"""Person-box networks as inference computes them, against the same ones as they are published."""

import pytest
import torch

from vidtad.pipelines.people.bundle import random_network
from vidtad.pipelines.people.scores import faster


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
