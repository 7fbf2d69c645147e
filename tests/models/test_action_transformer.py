from dataclasses import replace

import pytest
import torch

from vidtad.errors import InputError
from vidtad.models import action_transformer as at
from vidtad.models import i3d
from vidtad.models.roi import crop_and_resize

SMALL = at.ActionTransformerConfig(
    classes=5, channels=104, width=16, feedforward=32, reduced=8, embedding=4, shrink=8, proposals=7, rpn_width=16
)
BOXES = torch.tensor([[0.1, 0.1, 0.5, 0.9], [0.4, 0.2, 0.9, 0.8], [0.0, 0.0, 1.0, 1.0]])


def millions(*modules: torch.nn.Module) -> float:
    return sum(p.numel() for m in modules for p in m.parameters()) / 1e6


def small(**changes: object) -> at.ActionTransformer:
    torch.manual_seed(0)
    return at.ActionTransformer(replace(SMALL, **changes)).eval()


def maps(steps: int = 4, clips: int = 1) -> tuple[torch.Tensor]:
    torch.manual_seed(1)
    return (torch.rand(clips, SMALL.channels, steps, 5, 6),)


def test_sizes_are_those_of_table_1() -> None:
    trunk = at.I3dTrunk()
    low = at.ActionTransformer(at.ActionTransformerConfig(query="low", i3d_head=False))
    high = at.ActionTransformer(at.ActionTransformerConfig(i3d_head=False))
    both = at.ActionTransformer()
    assert millions(trunk) == pytest.approx(7.52, abs=0.01)
    assert millions(low.rpn) == pytest.approx(3.87, abs=0.005)
    assert millions(trunk, low) == pytest.approx(13.9, abs=0.1)
    assert millions(trunk, high) == pytest.approx(19.2, abs=0.05)
    baseline = millions(trunk, both.rpn, both.i3d)
    assert baseline == pytest.approx(16.23, abs=0.02)


@torch.inference_mode()
def test_the_trunk_is_i3d_to_mixed_4f() -> None:
    torch.manual_seed(0)
    whole = i3d.InceptionI3d(num_classes=2).eval()
    parts = at.from_i3d(whole.state_dict())
    trunk = at.I3dTrunk().eval()
    trunk.load_state_dict(parts[0])
    clip = torch.rand(1, 3, 9, 64, 64) * 2 - 1
    torch.testing.assert_close(trunk(clip)[0], whole.run(clip)["Mixed_4f"])
    head = at.ActionTransformer(at.ActionTransformerConfig(proposals=0)).i3d
    missing = head.load_state_dict(parts[1], strict=False)
    assert {key.split(".")[0] for key in missing.missing_keys} == {"classes", "offsets"} and not missing.unexpected_keys


@torch.inference_mode()
def test_a_box_is_scored_for_itself() -> None:
    network, (seen,) = small(), maps(clips=2)
    order = torch.tensor([2, 0, 1])
    first = network.run((seen,), [BOXES, BOXES[:1]])
    again = network.run((seen,), [BOXES[order], BOXES[:1]])
    for one, other in zip(first, again, strict=True):
        torch.testing.assert_close(other, torch.cat([one[:3][order], one[3:]]))
    torch.testing.assert_close(network((seen,), [BOXES, BOXES[:1]]), first.logits[:, 1:])


@torch.inference_mode()
def test_attention_that_knows_nothing_is_the_mean() -> None:
    unit = small().tx.layers[0][0]
    unit.key.weight.zero_()
    cells, query = torch.rand(120, SMALL.channels + 8), torch.rand(3, SMALL.width)
    torch.testing.assert_close(unit.attend(query, cells), unit.value(cells).mean(dim=0).expand(3, -1))


@torch.inference_mode()
def test_longer_clips_run_with_the_same_weights_and_the_centre_moves_along() -> None:
    network = small()
    assert network.run(maps(16), [BOXES]).logits.shape == network.run(maps(24), [BOXES]).logits.shape == (3, 6)
    constant = (torch.full((1, SMALL.channels, 16, 5, 6), 0.3),)
    longer = (torch.full((1, SMALL.channels, 24, 5, 6), 0.3),)
    located, further = (network.embedding(m[0]) for m in (constant, longer))
    assert located[0, -1, 0, 0, 0] != located[0, -1, -1, 0, 0], "time must be told"
    torch.testing.assert_close(located[0, -4:, 0, 0, 0], network.embedding.time(torch.tensor([[-15 / 16]]))[0])
    torch.testing.assert_close(further[0, -4:, 12, 0, 0], network.embedding.time(torch.tensor([[1 / 24]]))[0])


@torch.inference_mode()
def test_proposed_boxes_score_as_given_ones() -> None:
    network = small(nms=1.0)
    seen = maps(4, clips=2)
    size = (80, 96)
    proposals = [regions for regions, _ in network.rpn(seen[0], size)]
    assert all(0 < len(regions) <= 7 for regions in proposals)
    assert all(bool((regions >= 0).all() and (regions <= 1).all()) for regions in proposals)
    given = network.scores(network(seen, proposals)).split([len(regions) for regions in proposals])
    for found, expected in zip(network.detect(seen, size), given, strict=True):
        assert len(found.boxes) == len(expected)
        torch.testing.assert_close(found.scores.sort(dim=0).values, expected.sort(dim=0).values, rtol=1e-4, atol=1e-5)


def test_given_boxes_need_no_proposals() -> None:
    network = small(proposals=0, i3d_head=False)
    assert network.rpn is None and network(maps(), [BOXES]).shape == (3, 5)
    with pytest.raises(InputError, match="no region proposals"):
        network.detect(maps(), (80, 96))
    assert network(maps(), [BOXES[:0]]).shape == (0, 5)
    full = small()
    assert full.run(maps(), [BOXES[:0]]).i3d_logits.shape == (0, 6)


@torch.inference_mode()
def test_low_resolution_query_sees_the_mean_only() -> None:
    query = small(query="low").tx.layers[0][0].query
    regions = torch.rand(2, SMALL.channels + 8, 7, 7)
    shuffled = regions.flatten(2)[:, :, torch.randperm(49)].unflatten(2, (7, 7))
    torch.testing.assert_close(query(regions), query(shuffled))
    sharp = small().tx.layers[0][0].query
    assert not torch.allclose(sharp(regions), sharp(shuffled))


def test_crop_and_resize_samples_corners_and_between() -> None:
    ramp = torch.arange(5.0)[None, :, None] * 10 + torch.arange(6.0)
    found = crop_and_resize(ramp, torch.tensor([[0.2, 0.0, 0.6, 1.0], [0, 0, 1, 1]]), side=3)
    torch.testing.assert_close(found[0, 0], torch.tensor([[1.0, 2, 3], [21, 22, 23], [41, 42, 43]]))
    torch.testing.assert_close(found[1, 0, 1], torch.tensor([20, 22.5, 25]))


def test_codes_move_boxes_onto_targets() -> None:
    targets = BOXES.flip(0) * 0.9 + 0.02
    torch.testing.assert_close(at.decoded(BOXES, at.encoded(BOXES, targets)), targets)
    torch.testing.assert_close(at.decoded(BOXES, torch.zeros(3, 4)), BOXES)


def test_gradients_reach_every_part() -> None:
    network = small().train()
    seen = maps()
    network.rpn(seen[0], (80, 96), [BOXES])
    output = network.run(seen, [BOXES])
    sum(part.square().sum() for part in (*output, *network.rpn.losses.values())).backward()
    assert {name for name, p in network.named_parameters() if p.grad is None} == set()


def test_wrong_settings_are_refused() -> None:
    with pytest.raises(InputError, match="query"):
        at.ActionTransformerConfig(query="middle")
