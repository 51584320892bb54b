"""A layer map, an optimizer or layers that do not go with the model are refused with what is wrong."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from nlp_ft.errors import LayerMapError, TrainingError, UnfreezeError
from nlp_ft.layerwise import (
    LayerMap,
    UnfreezePlan,
    Unfreezer,
    UnfreezeSchedule,
    UnfreezeState,
    audit,
    build_lr_schedule,
    build_optimizer,
    layerwise_param_groups,
    set_learning_rates,
    set_trainable,
    set_trainable_layers,
)
from nlp_ft.layerwise.blocks import block_modules

RULES: list[Any] = [("^0", 0), ("^1", 1), ("^2", 2), ("^3", "head")]


def tower(blocks: int = 4) -> nn.Sequential:
    return nn.Sequential(*(nn.Linear(2, 2) for _ in range(blocks)))


def map_of(model: nn.Module, rules: Any = RULES) -> LayerMap:
    return LayerMap.from_model(model, rules=rules)


@pytest.mark.parametrize(
    "use",
    [
        lambda model, layer_map: layerwise_param_groups(model, layer_map),
        lambda model, layer_map: set_trainable(model, layer_map, 2),
        lambda model, layer_map: set_trainable_layers(model, layer_map, [3]),
        lambda model, layer_map: Unfreezer.gradual(model, torch.optim.SGD(model.parameters()), 8, layer_map=layer_map),
    ],
)
def test_a_map_of_another_model_is_refused_with_the_parameter(use: Callable[..., Any]) -> None:
    deeper = map_of(tower(5), [*RULES, ("^4", "head")])
    with pytest.raises(LayerMapError, match=r"^4\.weight is in the layer map but not in the model: .*from_model"):
        use(tower(), deeper)
    with pytest.raises(LayerMapError, match="is not a parameter of this layer map"):
        use(tower(5), map_of(tower()))
    with pytest.raises(LayerMapError, match=r"^expected a LayerMap, got str$"):
        use(tower(), "block 1")
    use(tower(), map_of(tower()))


@pytest.mark.parametrize("model", ["bert-base-uncased", tower().state_dict(), list(tower().parameters())])
def test_what_is_no_model_is_refused(model: Any) -> None:
    with pytest.raises(LayerMapError, match=r"torch\.nn\.Module, got "):
        build_optimizer(model)


@pytest.mark.parametrize("layers", [[4], [-1], ["head"], [True], [1.0]])
def test_layers_that_do_not_exist_freeze_nothing(layers: Any) -> None:
    model = tower()
    layer_map = map_of(model)
    with pytest.raises(LayerMapError, match=f"^layer {layers[0]!r} does not exist; layers go from 0"):
        set_trainable_layers(model, layer_map, layers)
    with pytest.raises(LayerMapError, match=f"^layer {layers[0]!r} does not exist"):
        layer_map.parameters(layers[0])
    assert all(parameter.requires_grad for parameter in model.parameters())
    set_trainable_layers(model, layer_map, np.arange(2, 4))
    assert [parameter.requires_grad for parameter in model.parameters()] == [False] * 4 + [True] * 4


@pytest.mark.parametrize("never", [["3.wieght"], "3.weight"])
def test_a_name_that_never_trains_is_that_of_a_parameter(never: Any) -> None:
    model = tower()
    with pytest.raises(LayerMapError, match=r"^never: .* is not a parameter of the model$"):
        set_trainable_layers(model, map_of(model), [3], never)


def with_a_new_head(model: nn.Sequential) -> torch.optim.Optimizer:
    optimizer = build_optimizer(model, layer_map=map_of(model))
    model[3] = nn.Linear(2, 2)
    return optimizer


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda model: torch.optim.SGD(model[3].parameters()), "6 parameters that will train .* such as 0.weight"),
        (lambda model: torch.optim.SGD(tower().parameters()), "8 parameters that will train .* such as 0.weight"),
        (with_a_new_head, "2 parameters that will train .* such as 3.weight"),
    ],
)
def test_an_optimizer_that_lacks_what_will_train_is_refused(make: Callable[..., Any], told: str) -> None:
    model = tower()
    optimizer = make(model)
    with pytest.raises(LayerMapError, match=f"^{told}; make the optimizer with build_optimizer"):
        Unfreezer.gradual(model, optimizer, 8, layer_map=map_of(model))
    with pytest.raises(LayerMapError, match=r"^expected an optimizer, got list$"):
        Unfreezer.gradual(model, [optimizer], 8, layer_map=map_of(model))  # type: ignore[arg-type]
    never = [name for name, _ in model.named_parameters()]
    Unfreezer.gradual(model, optimizer, 8, layer_map=map_of(model), never=never)


@pytest.mark.parametrize(
    ("state", "told"),
    [
        ({"starts": [0, 2]}, "expected an UnfreezeState, got "),
        (UnfreezeState([]), "of another plan: it has begun 0 phases, and this plan has 4"),
        (UnfreezeState([0, 1, 2, 3, 4]), "of another plan: it has begun 5 phases, and this plan has 4"),
    ],
)
def test_a_state_of_another_plan_is_refused(state: Any, told: str) -> None:
    model = tower()
    optimizer = build_optimizer(model, layer_map=map_of(model))
    with pytest.raises(UnfreezeError, match=told):
        Unfreezer.gradual(model, optimizer, 8, layer_map=map_of(model), state=state)


@pytest.mark.parametrize("steps", [2.5, 8.0, "8", None])
def test_a_run_lasts_a_whole_number_of_steps(steps: Any) -> None:
    model = tower()
    optimizer = build_optimizer(model, layer_map=map_of(model))
    with pytest.raises(UnfreezeError, match=f"^total_steps must be a whole number, got {steps!r}$"):
        Unfreezer.gradual(model, optimizer, steps, layer_map=map_of(model))


@pytest.mark.parametrize("rules", [["^0"], [("^0", 0, 1)], [(0, 0)], {"^0": 0}])
def test_rules_are_pairs(rules: Any) -> None:
    with pytest.raises(LayerMapError, match=r"^rules are pairs of a regular expression and a layer, got "):
        map_of(tower(), rules)


def test_rates_are_set_on_groups_of_layers_alone() -> None:
    with pytest.raises(TrainingError, match="no initial_lr; make it with build_optimizer"):
        set_learning_rates(torch.optim.SGD(tower().parameters()), 0.5)


@pytest.mark.parametrize("option", ["foreach", "differentiable"])
def test_an_option_that_excludes_the_fused_kernel_turns_it_off(option: str) -> None:
    model = tower()
    options: dict[str, Any] = {option: True}
    optimizer = build_optimizer(model, layer_map=map_of(model), **options)
    assert optimizer.defaults[option] is True
    assert not optimizer.defaults["fused"]


def test_a_name_in_place_of_a_class_of_optimizers_is_refused() -> None:
    model = tower()
    with pytest.raises(TrainingError, match=r"such as torch\.optim\.AdamW, got 'adamw'$"):
        build_optimizer(model, layer_map=map_of(model), optimizer_class="adamw")  # type: ignore[arg-type]


def test_an_audit_is_of_a_model_and_its_optimizer() -> None:
    model: Any = tower()
    optimizer: Any = torch.optim.SGD(model.parameters())
    for given in (optimizer, model), (model, None):
        with pytest.raises(TrainingError, match=r"^audit takes a model and its optimizer, in this order; got "):
            audit(*given)


def test_rates_of_a_schedule_are_refused_for_an_optimizer_without_groups_of_layers() -> None:
    model = tower()
    plan = UnfreezePlan(UnfreezeSchedule.fixed(2), 8, 4)
    with pytest.raises(UnfreezeError, match=r"^lr_schedule sets a rate for each layer; .* build_optimizer$"):
        Unfreezer(
            model,
            torch.optim.SGD(model.parameters()),
            plan,
            map_of(model),
            lr_schedule=lambda steps: build_lr_schedule("linear", steps),
        )


def test_a_layer_without_a_module_of_its_own_has_no_block() -> None:
    model = tower(3)
    model.extra = nn.Parameter(torch.ones(2))
    layer_map = map_of(model, [("extra", 1), ("^0", 0), ("^1", 2), ("^2", "head")])
    assert block_modules(model, layer_map) == {2: model[1]}
