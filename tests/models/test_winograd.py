"""Convolutions by Winograd's algorithm against the plain ones."""

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from vidtad.models import winograd
from vidtad.models.fold import for_inference
from vidtad.models.i3d import InceptionI3d
from vidtad.models.winograd import Winograd


@pytest.fixture(autouse=True)
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small maps gain nothing; here they are computed by tiles all the same."""
    monkeypatch.setattr(winograd, "pays", lambda x, weight: True)


def case(seed: int, shape: tuple[int, ...], outputs: int, taps: int | None) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    kernel = (3, 3) if taps is None else (taps, 3, 3)
    x = torch.randn(shape, generator=generator)
    weight = torch.randn(outputs, shape[1], *kernel, generator=generator)
    return x, weight, torch.randn(outputs, generator=generator)


def exact(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    plain = F.conv2d if x.ndim == 4 else F.conv3d
    around = [size // 2 for size in weight.shape[2:]]
    return plain(x.double(), weight.double(), None if bias is None else bias.double(), padding=around)


@given(
    seed=st.integers(0, 2**16),
    batch=st.integers(1, 3),
    channels=st.integers(1, 5),
    outputs=st.integers(1, 5),
    sides=st.tuples(st.integers(1, 11), st.integers(1, 11)),
    time=st.sampled_from([None, 1, 2, 5]),
    taps=st.sampled_from([1, 3]),
    biased=st.booleans(),
)
def test_sums_are_those_of_the_convolution(
    seed: int,
    batch: int,
    channels: int,
    outputs: int,
    sides: tuple[int, int],
    time: int | None,
    taps: int,
    biased: bool,
) -> None:
    shape = (batch, channels, *sides) if time is None else (batch, channels, time, *sides)
    x, weight, bias = case(seed, shape, outputs, None if time is None else taps)
    with torch.inference_mode():
        found = Winograd(weight, bias if biased else None)(x)
    expected = exact(x, weight, bias if biased else None)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=5e-6 * max(1.0, float(expected.abs().max())))


def test_rounding_is_near_that_of_the_plain_sum() -> None:
    x, weight, _ = case(0, (1, 64, 4, 28, 28), 96, 3)
    expected = exact(x, weight, None)
    with torch.inference_mode():
        found, plain = Winograd(weight, None)(x), F.conv3d(x, weight, padding=1)
    errors = [
        float((value - expected).pow(2).mean().sqrt() / expected.pow(2).mean().sqrt()) for value in (found, plain)
    ]
    assert errors[0] < 8 * errors[1] and errors[0] < 2e-6


@pytest.mark.parametrize("held", [1, 40_000, 10**9])
@pytest.mark.parametrize("taps", [None, 3])
def test_parts_of_any_size_give_the_same(monkeypatch: pytest.MonkeyPatch, held: int, taps: int | None) -> None:
    monkeypatch.setattr(winograd, "HELD", held)
    x, weight, bias = case(1, (3, 4, 13, 10) if taps is None else (3, 4, 2, 13, 10), 6, taps)
    with torch.inference_mode():
        found = Winograd(weight, bias)(x)
    torch.testing.assert_close(found.double(), exact(x, weight, bias), rtol=0, atol=1e-4)
    channels_last = torch.channels_last if taps is None else torch.channels_last_3d
    assert found.is_contiguous(memory_format=channels_last)


def test_steps_in_time_side_by_side_add_up_to_the_kernel() -> None:
    x, weight, bias = case(2, (1, 3, 5, 8, 8), 4, 3)
    with torch.inference_mode():
        sums = Winograd(weight, bias).taps((1, 0, 2))(x[0].movedim(1, 0)).unflatten(1, (3, 4))
    middle = sums[2, 0] + sums[1, 1] + sums[3, 2]
    torch.testing.assert_close(middle.double(), exact(x, weight, bias)[0, :, 2], rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("module", "fits"),
    [
        (nn.Conv2d(2, 2, 3, padding=1), True),
        (nn.Conv3d(2, 2, (1, 3, 3), padding=(0, 1, 1)), True),
        (nn.Conv3d(2, 2, 3, padding=1), True),
        (nn.Conv2d(2, 2, 3), False),
        (nn.Conv2d(2, 2, 3, padding=1, stride=2), False),
        (nn.Conv2d(2, 2, 3, padding=2, dilation=2), False),
        (nn.Conv2d(2, 2, 3, padding=1, groups=2), False),
        (nn.Conv2d(2, 2, 3, padding=1, padding_mode="reflect"), False),
        (nn.Conv2d(2, 2, 3, padding="same"), False),
        (nn.Conv3d(2, 2, 3, padding=(0, 1, 1)), False),
        (nn.Conv3d(2, 2, (2, 3, 3), padding=(1, 1, 1)), False),
        (nn.Conv1d(2, 2, 3, padding=1), False),
        (nn.Linear(2, 2), False),
    ],
)
def test_which_convolutions_it_stands_for(module: nn.Module, fits: bool) -> None:
    assert Winograd.fits(module) == fits


def test_a_network_for_inference_has_it_in_float32_alone() -> None:
    network = InceptionI3d()
    assert isinstance(for_inference(network).Mixed_3b.b1b.conv3d, Winograd)
    assert not isinstance(for_inference(network, torch.bfloat16).Mixed_3b.b1b.conv3d, Winograd)
    assert isinstance(network.Mixed_3b.b1b.conv3d, nn.Conv3d)


class TestWhereItPays:
    """`pays` itself, under the name it had before the fixture."""

    @pytest.fixture(autouse=True)
    def always(self) -> None:
        """Not here."""

    @staticmethod
    def maps(shape: tuple[int, ...], device: str = "cpu", dtype: torch.dtype = torch.float32) -> SimpleNamespace:
        numel = 1
        for size in shape:
            numel *= size
        return SimpleNamespace(
            shape=shape, ndim=len(shape), device=torch.device(device), dtype=dtype, numel=lambda: numel
        )

    @pytest.mark.parametrize(
        ("shape", "kernel", "expected"),
        [
            ((4, 64, 8, 56, 56), (192, 64, 3, 3, 3), True),
            ((32, 128, 28, 28), (128, 128, 3, 3), True),
            ((32, 512, 7, 7), (512, 512, 3, 3), True),
            ((4, 16, 8, 28, 28), (32, 16, 3, 3, 3), False),  # few channels
            ((32, 64, 56, 56), (64, 64, 3, 3), False),
            ((1, 512, 7, 7), (512, 512, 3, 3), False),  # few tiles for so many weights
            ((32, 512, 7, 7), (1152, 512, 3, 3), False),  # too much memory
        ],
    )
    def test_shapes_decide(self, shape: tuple[int, ...], kernel: tuple[int, ...], expected: bool) -> None:
        weight = torch.empty(kernel, device="meta")
        with torch.inference_mode():
            assert winograd.pays(self.maps(shape), weight) == expected
            assert not winograd.pays(self.maps(shape, device="cuda"), weight)
            assert not winograd.pays(self.maps(shape, dtype=torch.bfloat16), weight)
        assert not winograd.pays(self.maps(shape), weight), "gradients take the plain convolution"
