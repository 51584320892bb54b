"""Gradients are clipped to the bit as torch does it, and on CPU left alone where torch would multiply by 1."""

import math
from unittest.mock import Mock

import pytest
import torch
from accelerate import Accelerator
from torch import nn

from nlp_ft.training.clipping import clip_gradients

CPU = Mock(spec=Accelerator, device=torch.device("cpu"))


def parameters_with(*gradients: torch.Tensor | None) -> list[nn.Parameter]:
    parameters = []
    for gradient in gradients:
        parameters.append(nn.Parameter(torch.zeros(2 if gradient is None else gradient.shape)))
        parameters[-1].grad = None if gradient is None else gradient.clone()
    return parameters


def random_gradients() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    return [torch.randn(shape, generator=generator) for shape in [(7, 5), (3,), (4, 2, 6)]]


def assert_clipped_as_by_torch(gradients: list[torch.Tensor], max_norm: float) -> None:
    ours, reference = parameters_with(*gradients), parameters_with(*gradients)
    clip_gradients(CPU, ours, max_norm)
    torch.nn.utils.clip_grad_norm_(reference, max_norm)
    for parameter, expected in zip(ours, reference, strict=True):
        torch.testing.assert_close(parameter.grad, expected.grad, rtol=0, atol=0, equal_nan=True)


def test_a_norm_of_5_is_brought_to_1() -> None:
    first, second, unused = parameters = parameters_with(torch.tensor([3.0, 0.0]), torch.tensor([[4.0]]), None)
    clip_gradients(CPU, parameters, 1.0)
    torch.testing.assert_close(first.grad, torch.tensor([3 / 5.000001, 0.0]), rtol=1e-7, atol=0)
    torch.testing.assert_close(second.grad, torch.tensor([[4 / 5.000001]]), rtol=1e-7, atol=0)
    assert unused.grad is None


def test_gradients_within_the_bound_are_not_written_to() -> None:
    parameters = parameters_with(*random_gradients())
    before = [parameter.grad._version for parameter in parameters if parameter.grad is not None]
    clip_gradients(CPU, parameters, 100.0)
    assert [parameter.grad._version for parameter in parameters if parameter.grad is not None] == before
    assert all(torch.equal(p.grad, g) for p, g in zip(parameters, random_gradients()) if p.grad is not None)


@pytest.mark.parametrize("max_norm", [1e-8, 0.3, 1.0, 7.0, 100.0])
def test_any_bound_gives_the_bits_of_torch(max_norm: float) -> None:
    assert_clipped_as_by_torch(random_gradients(), max_norm)


@pytest.mark.parametrize("ulps", range(-20, 21))
def test_a_bound_next_to_the_norm_gives_the_bits_of_torch(ulps: int) -> None:
    norm = torch.nn.utils.get_total_norm(random_gradients())
    bits = norm.view(torch.int32) + ulps
    assert_clipped_as_by_torch(random_gradients(), bits.view(torch.float32).item())


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_norm_that_is_no_number_spoils_all_gradients_as_in_torch(value: float) -> None:
    gradients = [*random_gradients(), torch.tensor([value])]
    assert_clipped_as_by_torch(gradients, 1.0)
    parameters = parameters_with(*gradients)
    clip_gradients(CPU, parameters, 1.0)
    assert parameters[-1].grad is not None
    assert parameters[-1].grad.isnan().all()


def test_without_any_gradient_nothing_happens() -> None:
    [parameter] = parameters_with(None)
    clip_gradients(CPU, [parameter], 1.0)
    clip_gradients(CPU, [], 1.0)
    assert parameter.grad is None


def test_on_another_device_the_accelerator_clips() -> None:
    accelerator = Mock(spec=Accelerator, device=torch.device("cuda"))
    parameters = parameters_with(*random_gradients())
    clip_gradients(accelerator, parameters, 0.5)
    accelerator.clip_grad_norm_.assert_called_once_with(parameters, 0.5)
    assert all(torch.equal(p.grad, g) for p, g in zip(parameters, random_gradients()) if p.grad is not None)
