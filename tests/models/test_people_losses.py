import numpy as np
import pytest
import torch

from tests.models.test_action_transformer import BOXES, SMALL, maps, small
from vidtad.models import people_losses as pl


def test_poses_share_a_softmax_and_the_loss_is_on_probabilities() -> None:
    rng = np.random.default_rng(0)
    logits, targets = rng.normal(size=(3, 7)), (rng.uniform(size=(3, 7)) < 0.4).astype(float)
    pose = np.exp(logits[:, :4]) / np.exp(logits[:, :4]).sum(axis=1, keepdims=True)
    scores = np.concatenate([pose, 1 / (1 + np.exp(-logits[:, 4:]))], axis=1)
    expected = -(targets * np.log(scores) + (1 - targets) * np.log(1 - scores)).mean()
    found = pl.class_loss(torch.tensor(logits), torch.tensor(targets), poses=4)
    assert found.item() == pytest.approx(expected, rel=1e-6)
    plain = pl.class_loss(torch.tensor(logits), torch.tensor(targets))
    assert plain.item() == pytest.approx(
        torch.nn.functional.binary_cross_entropy_with_logits(torch.tensor(logits), torch.tensor(targets)).item()
    )


@pytest.mark.parametrize("poses", [0, 4])
def test_parts_of_a_batch_add_up(poses: int) -> None:
    logits, targets = torch.randn(5, 7, dtype=torch.double), torch.randint(0, 2, (5, 7)).double()
    whole = pl.class_loss(logits, targets, poses)
    parts = [pl.class_loss(logits[s], targets[s], poses, joint=5) for s in (slice(0, 2), slice(2, 5))]
    torch.testing.assert_close(sum(parts), whole, rtol=1e-6, atol=0)
    assert pl.class_loss(logits[:0], targets[:0], poses, joint=5).item() == 0


def test_extreme_logits_stay_finite() -> None:
    logits = torch.tensor([[200.0, -200, 300, -300]], requires_grad=True)
    loss = pl.class_loss(logits, torch.tensor([[0.0, 1, 0, 1]]), poses=2)
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(logits.grad).all()


def test_regions_take_all_labels_of_the_person_they_overlap() -> None:
    regions = torch.tensor([[0.1, 0.1, 0.5, 0.88], [0.0, 0.9, 0.1, 1.0], [0.4, 0.2, 0.9, 0.8]])
    labels = torch.tensor([[1.0, 0, 1], [0, 1, 0]])
    found = pl.assign(regions, BOXES[:2], labels)
    assert found.classes.tolist() == [[0, 1, 0, 1], [1, 0, 0, 0], [0, 0, 1, 0]]
    assert found.people.tolist() == [True, False, True]
    torch.testing.assert_close(found.truth, torch.stack([BOXES[0], regions[1], BOXES[1]]))
    nobody = pl.assign(regions, BOXES[:0], labels[:0])
    assert nobody.classes[:, 0].all() and not nobody.classes[:, 1:].any() and not nobody.people.any()


def test_sampling_keeps_the_shares() -> None:
    many = pl.Assigned(torch.rand(100, 4), torch.rand(100, 3), torch.rand(100, 4), torch.arange(100) < 50)
    found = pl.sample(many, pl.TransformerLosses(samples=16))
    assert len(found.regions) == 16 and int(found.people.sum()) == 4
    few = pl.Assigned(many.regions[:6], many.classes[:6], many.truth[:6], torch.arange(6) < 1)
    assert len(pl.sample(few, pl.TransformerLosses(samples=16)).regions) == 6


def test_given_boxes_are_classified_where_they_are() -> None:
    network, seen = small(proposals=0), maps(clips=2)
    targets = [torch.eye(5)[:2], torch.eye(5)[2:3]]
    terms = pl.transformer_loss(network, seen, [BOXES[:2], BOXES[2:]], targets, size=(80, 96))
    assert set(terms) == {"class", "i3d_class"}
    logits = network.run(seen, [BOXES[:2], BOXES[2:]]).logits
    wanted = torch.cat([torch.zeros(3, 1), torch.cat(targets)], dim=1)
    each = torch.nn.functional.binary_cross_entropy_with_logits(logits, wanted, reduction="none").sum(dim=1)
    torch.testing.assert_close(terms["class"], (each[:2].mean() + each[2]) / 2)


def test_all_terms_and_their_gradients() -> None:
    torch.manual_seed(0)
    network, seen = small().train(), maps(clips=2)
    targets = [torch.eye(5)[:2], torch.eye(5)[2:3]]
    terms = pl.transformer_loss(network, seen, [BOXES[:2], BOXES[2:]], targets, size=(80, 96))
    assert set(terms) == {"objectness", "proposal", "class", "box", "i3d_class", "i3d_box"}
    sum(terms.values()).backward()
    assert {name for name, p in network.named_parameters() if p.grad is None} == set()


@pytest.mark.parametrize(("proposals", "steps"), [(7, 40), (0, 80)])
def test_a_few_steps_overfit(proposals: int, steps: int) -> None:
    torch.manual_seed(0)
    network, seen = small(dropout=0.0, proposals=proposals), maps(clips=1)
    truth, targets = [BOXES[:2]], [torch.eye(SMALL.classes)[[1, 3]]]
    optimiser = torch.optim.Adam(network.parameters(), 2e-3)
    losses = []
    for _ in range(steps):
        loss = sum(pl.transformer_loss(network.train(), seen, truth, targets, size=(80, 96)).values())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert np.mean(losses[-5:]) < 0.4 * np.mean(losses[:5])
    if not proposals:
        assert network.eval()(seen, truth).argmax(dim=1).tolist() == [1, 3]
