"""What is frozen gives the same in two passes in train mode, at each depth, whatever draws dropout and wherever."""

from typing import Any
from unittest import mock

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from nlp_ft.layerwise import LayerMap, set_trainable, set_trainable_layers
from tests.layerwise import text_census, vision_census
from tests.layerwise.families import build
from tests.layerwise.soundness import live_where_frozen, random_where_frozen

# Containers that draw themselves, one that holds its dropout behind the blocks, one whose blocks are lists.
FAST = ["bart", "biogpt", "starcoder2", "t5", "xlm"]
BUILT = [name for name in text_census.MODEL_TYPES if name not in text_census.CANNOT_BE_BUILT]
FIXED: dict[str, dict[str, Any]] = {"reformer": {"hash_seed": 0, "axial_pos_embds": False}}
"""Reformer draws its hashes in eval mode too, unless they have a seed."""
SLOW = [pytest.param(name, head, marks=pytest.mark.slow) for name in BUILT for head in text_census.heads_of(name)]


@pytest.mark.parametrize(("model_type", "head"), [*[(name, "sequence") for name in FAST], ("xlm", "bare"), *SLOW])
def test_two_passes_in_train_mode_give_the_same_wherever_a_text_model_is_frozen(model_type: str, head: str) -> None:
    model = text_census.build(model_type, head, drop_rate=0.3, **FIXED.get(model_type, {}))
    inputs = text_census.batch(model)
    # A bare Perceiver reads vectors, whose size cannot be guessed.
    layer_map = LayerMap.from_model(model, example=inputs if "inputs" in inputs else None)
    depths = range(1, layer_map.head_layer + 1)
    live = {depth: live_where_frozen(model, layer_map, depth, inputs) for depth in depths}
    assert live == {depth: [] for depth in depths}


@pytest.mark.parametrize("model_type", ["starcoder2", "t5", "xlm"])
def test_the_oracle_sees_the_one_container_that_is_live(model_type: str) -> None:
    model = text_census.build(model_type, drop_rate=0.3, **FIXED.get(model_type, {}))
    layer_map, inputs = LayerMap.from_model(model), text_census.batch(model)
    set_trainable(model, layer_map, 2)
    # The one thing that a freezing by parameters alone leaves live.
    partly = [module for module in model.modules() if not module.training and any(map(trains, module.parameters()))]
    with mock.patch("tests.layerwise.soundness.set_trainable"):
        assert live_where_frozen(model, layer_map, 2, inputs) == []
        for module in partly:
            for each in [module, *(child for child in module.children() if next(child.parameters(), None) is None)]:
                each.__dict__.pop("train", None)
        assert live_where_frozen(model, layer_map, 2, inputs) != []


def trains(parameter: nn.Parameter) -> bool:
    return parameter.requires_grad


FAST_NETWORK = "mobilenet_v3_small"
OTHERS = [pytest.param(name, marks=pytest.mark.slow) for name in vision_census.MODELS if name != FAST_NETWORK]


@pytest.mark.parametrize("name", [FAST_NETWORK, *OTHERS])
def test_nothing_random_happens_below_what_trains_in_a_network_of_torchvision(name: str) -> None:
    model = vision_census.build(name)
    layer_map, inputs = LayerMap.from_model(model, grain="stage"), vision_census.image(name)
    depths = range(1, layer_map.head_layer + 1)
    live = {depth: random_where_frozen(model, layer_map, depth, inputs) for depth in depths}
    assert live == {depth: [] for depth in depths}


def lora() -> nn.Module:
    """Two blocks with adapters beside the queries and values, and a classifier that trains."""
    config = LoraConfig(task_type="SEQ_CLS", r=2, lora_dropout=0.1, target_modules=["query", "value"])
    model: nn.Module = get_peft_model(build("bert"), config)
    return model


def live_dropouts(model: nn.Module) -> list[str]:
    return [name for name, module in model.named_modules() if isinstance(module, nn.Dropout) and module.training]


@pytest.mark.parametrize(("lowest", "base", "adapters"), [(0, 8, 4), (2, 4, 2), (3, 1, 0)])
def test_under_lora_the_dropout_of_base_modules_is_live_in_layers_that_train(
    lowest: int, base: int, adapters: int
) -> None:
    model = lora()
    never = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    everywhere = live_dropouts(model.train())
    set_trainable_layers(model, LayerMap.from_model(model), range(lowest, 4), never)
    live = live_dropouts(model.train())
    assert [sum(("lora" in name) is of_adapter for name in live) for of_adapter in (False, True)] == [base, adapters]
    assert lowest or live == everywhere


def test_statistics_of_a_frozen_norm_stay_in_a_layer_that_trains_beside_it() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    layer_map = LayerMap({name: int(name[0]) for name, _ in model.named_parameters()}, 1)
    set_trainable_layers(model, layer_map, range(3), never=("1.weight", "1.bias"))
    model.train()(torch.randn(8, 4))
    assert model[1].num_batches_tracked == 0


def disabled_train(self: nn.Module, mode: bool = True) -> nn.Module:
    """The idiom by which a part is kept in eval mode for good."""
    return self


def test_a_train_method_of_the_modules_own_is_there_again_after_unfreezing() -> None:
    norm: Any = nn.BatchNorm1d(4).eval()
    model = nn.Sequential(nn.Linear(4, 4), norm, nn.Linear(4, 2))
    norm.train = disabled_train.__get__(norm)
    layer_map = LayerMap({name: int(name[0]) for name, _ in model.named_parameters()}, 1)
    for lowest in (2, 1, 0, 2, 0):
        set_trainable(model, layer_map, lowest)
        before = norm.running_mean.clone()
        model.train()(torch.randn(8, 4))
        assert torch.equal(norm.running_mean, before)
    assert [module.training for module in model] == [True, False, True]
    assert norm.train.__func__ is disabled_train


class KeepsNormInEval(nn.Sequential):
    """A backbone whose class keeps its statistics, as detection models do."""

    def train(self, mode: bool = True) -> "KeepsNormInEval":
        super().train(mode)
        self[1].training = False
        return self


def test_a_train_method_of_the_modules_class_has_its_say_after_unfreezing() -> None:
    backbone = KeepsNormInEval(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 4))
    model = nn.Sequential(backbone, nn.Linear(4, 2))
    names = [name for name, _ in model.named_parameters()]
    layer_map = LayerMap({name: int(name[2]) if name[0] == "0" else 3 for name in names}, 2)
    for lowest in (3, 1, 0):
        set_trainable(model, layer_map, lowest)
        model.train()
        assert [module.training for module in backbone] == [lowest == 0, False, lowest < 3]


class Drawing(nn.Module):
    """A model that is its own container: it draws between its embeddings and its blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.blocks, self.head = nn.Linear(4, 4), nn.ModuleList([nn.Linear(4, 4)]), nn.Linear(4, 2)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        hidden = nn.functional.dropout(self.embed(rows), 0.5, training=self.training)
        return self.head(self.blocks[0](hidden))


def test_a_model_that_draws_itself_says_train_mode_to_its_loop_and_draws_nothing_in_its_frozen_part() -> None:
    model = Drawing()
    layer_map = LayerMap(_layers(model), 1)
    set_trainable(model, layer_map, 1)
    was_training = model.train().training
    model.eval()
    model.train(was_training)
    rows = torch.randn(8, 4)
    assert torch.equal(model(rows), model(rows))
    assert model.training is was_training is True
    with pytest.raises(RuntimeError):
        model(rows[:, :3])
    assert model.training is True, "a pass that failed must not leave it in eval mode"
    set_trainable(model, layer_map, 0)
    assert not torch.equal(model(rows), model(rows))


def _layers(model: nn.Module) -> dict[str, int]:
    layer_of = {"embed": 0, "blocks": 1, "head": 2}
    return {name: layer_of[name.partition(".")[0]] for name, _ in model.named_parameters()}
