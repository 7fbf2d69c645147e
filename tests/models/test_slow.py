"""The slow pathway alone: on one frame it is a 2D ResNet, which torchvision has."""

import re

import pytest
import torch
from torch import Tensor
from torchvision.models import resnet50

from vidtad.errors import InputError
from vidtad.heads.person.convert import bundle_from_people
from vidtad.models import slow
from vidtad.models.slowfast import SlowFastOptions
from vidtad.models.slowfast_keys import from_published


def released(network: torch.nn.Module, classes: int = 80) -> dict[str, Tensor]:
    """A 2D ResNet-50 under the names of pytorchvideo's SLOW_4x16_R50_DETECTION, its weights in the middle of time."""
    state = {}
    for key, tensor in network.state_dict().items():
        if key.startswith("fc."):
            continue
        name = re.sub(r"^conv1\.", "blocks.0.conv.", re.sub(r"^bn1\.", "blocks.0.norm.", key))
        block = re.match(r"layer(\d)\.(\d)\.(.+)", name)
        if block:
            inner = block[3].replace("downsample.0.", "branch1_conv.").replace("downsample.1.", "branch1_norm.")
            for number, letter in zip("123", "abc", strict=True):
                inner = inner.replace(f"conv{number}.", f"branch2.conv_{letter}.")
                inner = inner.replace(f"bn{number}.", f"branch2.norm_{letter}.")
            name = f"blocks.{block[1]}.res_blocks.{block[2]}.{inner}"
        if tensor.ndim == 4:
            tensor = tensor.unsqueeze(2)
            if re.match(r"blocks\.[34].*conv_a", name):
                tensor = torch.nn.functional.pad(tensor, (0, 0, 0, 0, 1, 1))
        state[f"model.{name}"] = tensor
    state["detection_head.proj.weight"] = torch.randn(classes, 2048)
    state["detection_head.proj.bias"] = torch.zeros(classes)
    return state


@pytest.fixture(scope="module")
def resnet() -> torch.nn.Module:
    torch.manual_seed(0)
    return resnet50(weights=None).eval()


@torch.inference_mode()
def test_one_frame_is_a_picture_to_a_resnet(resnet: torch.nn.Module) -> None:
    state = {key: value for key, value in from_published(released(resnet)).items() if not key.startswith("head.")}
    network = slow.load(state, SlowFastOptions()).eval()
    picture = torch.randn(1, 3, 64, 64)
    x = resnet.maxpool(torch.relu(resnet.bn1(resnet.conv1(picture))))
    wanted = resnet.layer4(resnet.layer3(resnet.layer2(resnet.layer1(x))))
    (found,) = network(picture.unsqueeze(2))
    torch.testing.assert_close(found.squeeze(2), wanted, rtol=1e-4, atol=1e-4 * wanted.abs().max().item())


@torch.inference_mode()
def test_the_released_detector_becomes_a_bundle(resnet: torch.nn.Module) -> None:
    from vidtad.heads.person.bundle import load_network

    bundle = bundle_from_people({"model_state": released(resnet)}, "slow-4x16-r50-ava")
    assert (bundle.head, bundle.extractor, len(bundle.classes)) == ("linear", "slow/ava", 80)
    network = load_network(bundle)
    (maps,) = network.trunk(torch.randn(1, 3, 4, 64, 96))
    assert maps.shape == (1, 2048, 4, 4, 6)
    assert network(torch.randn(1, 3, 4, 64, 96), [torch.tensor([[0.1, 0.1, 0.9, 0.9]])]).shape == (1, 80)


def test_what_is_missing_or_left_over_is_said(resnet: torch.nn.Module) -> None:
    state = released(resnet)
    del state["model.blocks.3.res_blocks.1.branch2.norm_b.weight"]
    with pytest.raises(InputError, match=r"s4.*pathway0_res1"):
        bundle_from_people({"model_state": state}, "slow-4x16-r50-ava")
    with pytest.raises(InputError, match="surplus"):
        bundle_from_people({"model_state": released(resnet) | {"surplus": torch.zeros(1)}}, "slow-4x16-r50-ava")
