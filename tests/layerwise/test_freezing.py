"""Frozen layers stay frozen to the bit, in eval mode, through training, copies and files."""

import copy
import io
import pickle
from typing import Any

import pytest
import torch
from torch import nn

from nlp_ft.errors import LayerMapError
from nlp_ft.layerwise import LayerMap, UnfreezeSchedule, build_optimizer, set_trainable, set_trainable_layers
from nlp_ft.layerwise.checks import check_optimizer
from nlp_ft.layerwise.freezing import count_parameters
from tests.layerwise.families import FAMILIES, batch, build


class Block(nn.Module):
    """What a frozen part must not let through: running statistics and dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.dense, self.norm, self.dropout = nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Dropout(0.5)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return self.dropout(torch.tanh(self.norm(self.dense(hidden))))


def tower() -> tuple[nn.Sequential, LayerMap]:
    """Four modules: embeddings, block 1, block 2, head."""
    torch.manual_seed(0)
    model = nn.Sequential(Block(), Block(), Block(), nn.Linear(8, 2))
    names = [name for name, _ in model.named_parameters()]
    return model, LayerMap({name: int(name[0]) for name in names}, 2, dict(model.named_parameters()))


def state_of(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def differing(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> list[str]:
    assert before.keys() == after.keys()
    return [name for name, value in before.items() if not torch.equal(value, after[name])]


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> None:
    generator = torch.Generator().manual_seed(steps)
    for _ in range(steps):
        model.train()
        optimizer.zero_grad()
        inputs = torch.randn(16, 8, generator=generator)
        nn.functional.cross_entropy(model(inputs), (inputs.sum(1) > 0).long()).backward()
        optimizer.step()


@pytest.mark.parametrize(
    ("optimizer_class", "kwargs"),
    [(torch.optim.AdamW, {}), (torch.optim.SGD, {"momentum": 0.9}), (torch.optim.Adafactor, {})],
)
def test_fifty_steps_move_no_bit_of_the_frozen_part_nor_of_its_optimizer_state(
    optimizer_class: type[torch.optim.Optimizer], kwargs: dict[str, Any]
) -> None:
    model, layer_map = tower()
    optimizer = build_optimizer(
        model, layer_map=layer_map, lr=0.01, weight_decay=0.1, optimizer_class=optimizer_class, **kwargs
    )
    # Momentum and second moments of the part that is frozen next.
    train(model, optimizer, steps=5)
    set_trainable(model, layer_map, 2)
    frozen, trainable = model[:2], model[2:]
    before, moments = state_of(model), copy.deepcopy([optimizer.state[p] for p in frozen.parameters()])
    train(model, optimizer, steps=50)
    moved = differing(before, state_of(model))
    assert moved == [name for name in model.state_dict() if name[0] in "23"]
    assert [parameter.grad for parameter in frozen.parameters()] == [None] * len(list(frozen.parameters()))
    assert all(parameter.grad is not None for parameter in trainable.parameters())
    for kept, parameter in zip(moments, frozen.parameters(), strict=True):
        torch.testing.assert_close(optimizer.state[parameter], kept, rtol=0, atol=0)


def test_the_gradients_of_a_backward_pass_before_freezing_are_dropped() -> None:
    model, layer_map = tower()
    model(torch.randn(4, 8)).sum().backward()
    set_trainable(model, layer_map, 3)
    assert [name for name, parameter in model.named_parameters() if parameter.grad is not None] == [
        "3.weight",
        "3.bias",
    ]
    assert [name for name, parameter in model.named_parameters() if parameter.requires_grad] == ["3.weight", "3.bias"]


def test_train_mode_does_not_reach_the_frozen_modules() -> None:
    model, layer_map = tower()
    set_trainable(model, layer_map, 2)
    for mode in (True, False, True):
        model.train(mode)
        assert [m.training for part in model[:2] for m in part.modules()] == [False] * 8
        assert [m.training for part in model[2:] for m in part.modules()] == [mode] * 5
        assert model.training is mode


def test_unfreezing_brings_back_train_mode_at_once() -> None:
    model, layer_map = tower()
    set_trainable(model, layer_map, 2)
    set_trainable(model, layer_map, 1)
    assert [part.training for part in model] == [False, True, True, True]
    set_trainable(model, layer_map, 0)
    assert all(module.training for module in model.modules())


@pytest.mark.parametrize("is_nested", [False, True])
@pytest.mark.parametrize(("lowest", "live"), [(0, [True] * 3), (2, [False, True, True]), (3, [False, False, True])])
def test_a_batch_norm_without_weights_counts_its_batches_where_the_layer_before_it_trains(
    lowest: int, live: list[bool], is_nested: bool
) -> None:
    norms = [nn.BatchNorm1d(8, affine=False) for _ in range(3)]
    linear = [nn.Linear(8, 8) for _ in range(5)]
    body: list[nn.Module] = [linear[0], norms[0], linear[1], linear[2], norms[1]]
    head = [linear[3], norms[2], linear[4]]
    model = nn.Sequential(nn.Sequential(*body), *head) if is_nested else nn.Sequential(*body, *head)
    layers = {id(parameter): min(place, 3) for place, one in enumerate(linear) for parameter in one.parameters()}
    layer_map = LayerMap({name: layers[id(parameter)] for name, parameter in model.named_parameters()}, 2)
    set_trainable(model, layer_map, lowest)
    model.train()
    assert [norm.training for norm in norms] == live


def test_freezing_a_model_in_eval_mode_leaves_it_in_eval_mode() -> None:
    model, layer_map = tower()
    model.eval()
    set_trainable(model, layer_map, 2)
    assert not any(module.training for module in model.modules())


@pytest.mark.parametrize("family", FAMILIES)
def test_the_frozen_prefix_gives_the_same_output_twice_in_train_mode(family: str) -> None:
    model = build(family)
    set_trainable(model, LayerMap.from_model(model), 2)
    outputs = outputs_of_the_first_block(model.train())
    assert torch.equal(outputs[0], outputs[1])


@pytest.mark.parametrize("family", FAMILIES)
def test_the_same_prefix_gives_two_outputs_while_it_trains(family: str) -> None:
    outputs = outputs_of_the_first_block(build(family))
    assert not torch.equal(outputs[0], outputs[1])


def outputs_of_the_first_block(model: nn.Module) -> list[torch.Tensor]:
    """Of two passes; ALBERT's shared block gives the output of its last run."""
    blocks = next(module for module in model.modules() if isinstance(module, nn.ModuleList))
    outputs: list[torch.Tensor] = []
    block = blocks[0]
    hook = block.register_forward_hook(lambda _, inputs, out: outputs.append(out if torch.is_tensor(out) else out[0]))
    for _ in range(2):
        model(**batch())
    hook.remove()
    return [outputs[len(outputs) // 2 - 1], outputs[-1]]


@pytest.mark.parametrize("family", FAMILIES)
def test_training_the_head_alone_makes_the_whole_encoder_deterministic(family: str) -> None:
    model = build(family)
    layer_map = LayerMap.from_model(model)
    set_trainable(model, layer_map, layer_map.head_layer)
    encoder = model.base_model.train()
    first, second = (encoder(**batch()).last_hidden_state for _ in range(2))
    assert torch.equal(first, second)
    assert not first.requires_grad


@pytest.mark.parametrize("head", ["sequence", "bare"])
@pytest.mark.parametrize("family", FAMILIES)
def test_an_unfrozen_model_trains_as_one_that_never_was_frozen(family: str, head: str) -> None:
    untouched, model = build(family, head), build(family, head)
    layer_map = LayerMap.from_model(model)
    set_trainable(model, layer_map, layer_map.head_layer)
    set_trainable(model, layer_map, 0)
    assert all(module.training for module in model.train().modules())
    for each in (untouched, model):
        torch.manual_seed(1)
        each(**batch())[0].sum().backward()
    for (name, ours), theirs in zip(model.named_parameters(), untouched.parameters(), strict=True):
        assert ours.requires_grad, name
        assert (ours.grad is None) == (theirs.grad is None), name
        assert ours.grad is None or torch.equal(ours.grad, theirs.grad), name


def test_unfreezing_lets_batch_norm_gather_statistics_again() -> None:
    model, layer_map = tower()
    set_trainable(model, layer_map, 2)
    set_trainable(model, layer_map, 1)
    before = state_of(model)
    model.train()(torch.randn(16, 8))
    statistics = ["norm.running_mean", "norm.running_var", "norm.num_batches_tracked"]
    assert differing(before, state_of(model)) == [f"{part}.{name}" for part in (1, 2) for name in statistics]


def test_a_copy_of_a_frozen_model_and_the_model_go_their_own_ways() -> None:
    model, layer_map = tower()
    set_trainable(model, layer_map, 2)
    released, kept = copy.deepcopy(model), copy.deepcopy(model)
    set_trainable(released, layer_map, 0)
    assert all(module.training for module in released.train().modules())
    for each in (model, kept):
        assert [part.training for part in each.train()] == [False, False, True, True]
    set_trainable(model, layer_map, 0)
    assert [part.training for part in kept.train()] == [False, False, True, True]
    assert all(part.train() is part for part in kept)
    assert [p.requires_grad for p in kept.parameters()] == [False] * 8 + [True] * 6


def test_a_frozen_model_survives_pickling_and_stays_frozen() -> None:
    model, layer_map = tower()
    set_trainable(model, layer_map, 2)
    loaded = pickle.loads(pickle.dumps(model))  # noqa: S301  # our own bytes
    assert [part.training for part in loaded.train()] == [False, False, True, True]


def test_a_frozen_model_can_be_saved_whole_and_loaded() -> None:
    model, layer_map = tower()
    set_trainable(model, layer_map, 2)
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    loaded = torch.load(file, weights_only=False)
    assert differing(state_of(model), state_of(loaded)) == []


def test_freezing_the_embeddings_freezes_a_decoder_that_is_tied_to_them() -> None:
    model = build("bert", "masked")
    set_trainable(model, LayerMap.from_model(model), 1)
    assert model.cls.predictions.decoder.weight.requires_grad is False
    assert model.cls.predictions.decoder.bias.requires_grad is True
    assert model.cls.predictions.decoder.training is True


@pytest.mark.parametrize("name", ["bert.embeddings.word_embeddings.weight", "cls.predictions.decoder.weight"])
def test_a_tied_weight_never_trains_by_whichever_of_its_names_that_is_said(name: str) -> None:
    model = build("bert", "masked")
    layer_map = LayerMap.from_model(model)
    set_trainable_layers(model, layer_map, list(layer_map), never=[name])
    frozen = [name for name, parameter in model.named_parameters() if not parameter.requires_grad]
    assert frozen == ["bert.embeddings.word_embeddings.weight"]
    others = torch.optim.SGD([parameter for parameter in model.parameters() if parameter.requires_grad])
    check_optimizer(others, model, layer_map, list(layer_map), never=[name])


@pytest.mark.parametrize("layer", [-1, 4])
def test_a_layer_that_does_not_exist_is_refused_and_nothing_is_changed(layer: int) -> None:
    model, layer_map = tower()
    with pytest.raises(LayerMapError, match=f"^lowest_trainable_layer must lie between 0 and 3, got {layer}$"):
        set_trainable(model, layer_map, layer)
    assert all(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize(
    ("lowest", "trainable"),
    [(5, 65_922), (4, 328_578), (3, 591_234), (1, 1_116_546), (0, 1_116_546)],
)
def test_the_worked_example_of_four_linear_layers_counts_to_the_digit(lowest: int, trainable: int) -> None:
    backbone = nn.Sequential(*(nn.Linear(512, 512) for _ in range(4)))
    head = nn.Sequential(nn.Linear(512, 128), nn.ReLU(), nn.Linear(128, 2))
    model = nn.ModuleDict({"backbone": backbone, "head": head})
    layers = {
        name: int(name.split(".")[1]) + 1 if name.startswith("backbone") else 5 for name, _ in model.named_parameters()
    }
    assert count_parameters(backbone) == (1_050_624, 1_050_624)
    set_trainable(model, LayerMap(layers, num_layers=4), lowest)
    assert count_parameters(model) == (1_116_546, trainable)


def test_a_tied_weight_counts_once() -> None:
    # 1,504 embeddings, two blocks of 2,224, and of the head the transform (272 + 32) and one bias of 50.
    assert count_parameters(build("bert", "masked")) == (6_306, 6_306)


def test_two_towers_unfreeze_side_by_side_from_the_head_down() -> None:
    """Text of three blocks beside an image tower of two: a phase counts from the head in each."""
    depth = {"text": 3, "image": 2}
    names = {f"{tower}_{layer}": (tower, layer) for tower, blocks in depth.items() for layer in range(blocks + 1)}
    model = nn.ModuleDict({name: nn.Linear(2, 2, bias=False) for name in [*names, "head"]})
    layer_map = LayerMap(
        {f"{name}.weight": layer for name, (_, layer) in names.items()} | {"head.weight": 4},
        3,
        stacks=depth,
        stack_of={f"{name}.weight": tower for name, (tower, _) in names.items()} | {"head.weight": "text"},
    )
    trained = []
    for phase in UnfreezeSchedule.gradual(3).phases:
        set_trainable_layers(model, layer_map, phase.layers)
        trained.append({name for name, module in model.items() if module.weight.requires_grad})
    joined = [{"head"}, {"text_3", "image_2"}, {"text_2", "image_1"}, {"text_1"}, {"text_0", "image_0"}]
    assert trained == [set.union(*joined[: phase + 1]) for phase in range(5)]
