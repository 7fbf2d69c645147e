import pytest
import torch

from vidtad.errors import InputError
from vidtad.models import acar

CONFIG = acar.AcarConfig(width=12, reduced=8, hidden=4, depth=2, mlp_1x1=False)


def head() -> acar.AcarHead:
    torch.manual_seed(0)
    return acar.AcarHead(CONFIG).eval()


@torch.inference_mode()
def test_clips_do_not_see_each_other_and_an_empty_one_gives_no_rows() -> None:
    network = head()
    slow, fast = torch.randn(3, 8, 2, 6, 7), torch.randn(3, 4, 4, 6, 7)
    boxes = [
        torch.tensor([[0.1, 0.1, 0.6, 0.9], [0.4, 0.0, 1.0, 1.0]]),
        torch.zeros(0, 4),
        torch.tensor([[0, 0, 1.0, 1]]),
    ]
    together = network((slow, fast), boxes)
    assert together.shape == (3, 60)
    alone = network((slow[2:], fast[2:]), boxes[2:])
    torch.testing.assert_close(together[2:], alone)
    fewer = network((slow[:1], fast[:1]), [boxes[0][:1]])
    assert not torch.allclose(together[:1], fewer), "the other actor of the clip must matter"


@torch.inference_mode()
def test_padding_is_no_context() -> None:
    network = head()
    slow, fast = torch.randn(1, 8, 2, 6, 8), torch.randn(1, 4, 4, 6, 8)
    boxes = [torch.tensor([[0.0, 0.0, 0.4, 0.5]])]
    found = network.run((slow, fast), boxes, [(0.6, 1.0)])
    assert found.first_order[0].shape == (1, 4, 4, 3)
    slow[..., 5:] = 9
    torch.testing.assert_close(network.run((slow, fast), boxes, [(0.6, 1.0)]).logits, found.logits)


@pytest.mark.parametrize("share", [0.6, 0.7, 0.8, 0.9])
def test_a_share_kept_in_single_precision_is_no_cell_more(share: float) -> None:
    kept = torch.tensor([share]).tolist()[0]
    maps = torch.randn(1, 8, 2, 6, 10), torch.randn(1, 4, 4, 6, 10)
    found = head().run(maps, [torch.tensor([[0.0, 0.0, 0.4, 0.5]])], [(kept, 1.0)])
    assert found.first_order[0].shape[3] == round(10 * share) - 2


def test_scores_are_one_pose_and_independent_actions() -> None:
    scores = acar.scores(torch.zeros(2, 60))
    torch.testing.assert_close(scores[:, :13].sum(dim=1), torch.ones(2))
    torch.testing.assert_close(scores[:, 13:], torch.full((2, 47), 0.5))


def test_sizes_are_read_from_the_weights() -> None:
    weights = head().state_dict()
    loaded = acar.load_head(weights)
    assert len(loaded.hr2o) == 2 and loaded.hr2o[0].conv.kernel_size == (3, 3)
    with pytest.raises(InputError, match="missing: conv2"):
        acar.load_head({key: value for key, value in weights.items() if not key.startswith("conv2")})
