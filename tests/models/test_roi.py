"""Boxes of several clips, in any order."""

import pytest
import torch

from vidtad.errors import InputError
from vidtad.models.acar import AcarConfig, AcarHead
from vidtad.models.acfb import AcfbHead
from vidtad.models.action_transformer import ActionTransformer, ActionTransformerConfig
from vidtad.models.roi import LinearConfig, LinearHead, by_clip

SMALL = AcarConfig(width=12, reduced=8, hidden=8, classes=5, poses=2)
TRANSFORMER = ActionTransformerConfig(shrink=52, classes=5)
REGIONS = torch.tensor(
    [
        [0, 0.1, 0.1, 0.6, 0.9],
        [0, 0.3, 0.0, 0.9, 0.8],
        [2, 0.0, 0.2, 0.5, 0.7],
        [2, 0.4, 0.1, 1.0, 1.0],
        [2, 0.2, 0.3, 0.8, 0.9],
    ]
)
HEADS = {
    "linear": lambda: LinearHead(LinearConfig(width=12, classes=5, pixels=False)),
    "acar": lambda: AcarHead(SMALL),
    "acfb": lambda: AcfbHead(SMALL),
    "action-transformer": lambda: ActionTransformer(TRANSFORMER),
}


@pytest.mark.parametrize("name", HEADS)
@torch.inference_mode()
def test_boxes_in_any_order_give_the_same(name: str) -> None:
    torch.manual_seed(0)
    head = HEADS[name]().eval()
    width = TRANSFORMER.channels if name == "action-transformer" else 12
    maps = [torch.rand(3, width, 2, 8, 10)]

    def logits(regions: torch.Tensor) -> torch.Tensor:
        boxes, back = by_clip(regions, 3)
        return head(maps, boxes)[back]

    due = logits(REGIONS)
    for order in ([3, 0, 4, 1, 2], [4, 3, 2, 1, 0], [0, 2, 1, 3, 4]):
        assert torch.allclose(logits(REGIONS[order]), due[order], atol=1e-5)


def test_boxes_of_no_clip_are_refused() -> None:
    for number in (3.0, -1.0, 0.5, float("nan")):
        with pytest.raises(InputError, match="one of 3 clips"):
            by_clip(torch.tensor([[number, 0, 0, 1, 1]]), 3)
