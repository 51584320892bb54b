"""The guard for a pass in eval mode: modes and gradients inside, and each module's own mode afterwards."""

import pytest
import torch
from torch import nn

from nlp_ft.layerwise.eval_mode import evaluating


def modes(model: nn.Module) -> list[bool]:
    return [module.training for module in model.modules()]


def test_every_module_is_in_eval_mode_without_gradients_and_has_its_own_mode_afterwards() -> None:
    model = nn.Sequential(nn.Linear(1, 1), nn.Dropout(), nn.BatchNorm1d(1))
    model[1].eval()
    with evaluating(model):
        assert modes(model) == [False, False, False, False]
        assert not model(torch.ones(2, 1)).requires_grad
    assert modes(model) == [True, True, False, True]
    assert torch.is_grad_enabled()


def test_the_modes_are_restored_after_an_error() -> None:
    model = nn.Sequential(nn.Linear(1, 1))
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"), evaluating(model):
        model(torch.ones(1, 2))
    assert modes(model) == [True, True]
