"""Where structure and one pass could mislead: fused towers, objects as input, a scale a block, lifted weights."""

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from transformers import LxmertConfig, LxmertForQuestionAnswering

from nlp_ft.errors import LayerMapError
from nlp_ft.layerwise import LayerMap, build_optimizer, set_trainable
from nlp_ft.layerwise.prefix import FrozenPrefix
from tests.layerwise.test_prefix import build, padded_batch


@pytest.fixture(scope="module")
def lxmert() -> LxmertForQuestionAnswering:
    """Three text layers beside four of images, then two that fuse both."""
    settings: dict[str, Any] = {
        "vocab_size": 50,
        "hidden_size": 16,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "num_qa_labels": 3,
        "l_layers": 3,
        "x_layers": 2,
        "r_layers": 4,
        "visual_feat_dim": 8,
        "max_position_embeddings": 32,
    }
    return LxmertForQuestionAnswering(LxmertConfig(**settings))


def lxmert_map(model: nn.Module) -> LayerMap:
    inputs = {
        "input_ids": torch.arange(6)[None],
        "visual_feats": torch.rand(1, 4, 8),
        "visual_pos": torch.rand(1, 4, 4),
    }
    return LayerMap.from_model(model, example=inputs)


def test_a_tower_that_feeds_fusion_blocks_has_the_rates_of_the_text_beside_it(lxmert: nn.Module) -> None:
    groups = build_optimizer(lxmert, layer_map=lxmert_map(lxmert), lr=1.0, layer_decay=0.5).param_groups
    rate = {name: group["lr"] for group in groups for name in group["param_names"]}
    blocks = {"layer": (0.0625, 0.125, 0.25), "r_layers": (0.03125, 0.0625, 0.125, 0.25), "x_layers": (0.5, 1.0)}
    for block_list, rates in blocks.items():
        for number, expected in enumerate(rates):
            of_block = {rate[n] for n in rate if n.startswith(f"lxmert.encoder.{block_list}.{number}.")}
            assert of_block == {expected}, (block_list, number)


def test_one_trainable_block_is_the_last_one_that_fuses(lxmert: nn.Module) -> None:
    layer_map = lxmert_map(lxmert)
    set_trainable(lxmert, layer_map, layer_map.num_layers)
    trained = {
        n.rpartition(".layers.")[0] or ".".join(n.split(".")[2:4])
        for n, p in lxmert.named_parameters()
        if p.requires_grad and ".encoder." in n
    }
    set_trainable(lxmert, layer_map, 0)
    assert trained == {"x_layers.1"}


@dataclass
class State:
    hidden: torch.Tensor


class TakesObjects(nn.Module):
    """Blocks that take the hidden states in an object."""

    def __init__(self, kind: Any) -> None:
        super().__init__()
        self.kind = kind
        self.words, self.positions = nn.Embedding(64, 4), nn.Embedding(16, 4)
        self.blocks = nn.ModuleList(ObjectBlock() for _ in range(2))
        self.head = nn.Linear(4, 2)

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        state = self.kind(hidden=self.words(input_ids) + self.positions.weight[: input_ids.shape[1]])
        for block in self.blocks:
            state = block(state)
        return self.head(state.hidden[:, 0])


class ObjectBlock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, state: Any) -> Any:
        return type(state)(hidden=state.hidden + self.down(self.up(state.hidden)))


IDS = {"input_ids": torch.arange(6)[None]}


@pytest.mark.parametrize("kind", [State, SimpleNamespace])
def test_embeddings_before_blocks_that_take_an_object_are_layer_0(kind: Any) -> None:
    layer_map = LayerMap.from_model(TakesObjects(kind), example=IDS)
    assert {name: layer_map.layer_id(name) for name in ("words.weight", "positions.weight", "head.weight")} == {
        **{"words.weight": 0, "positions.weight": 0, "head.weight": 3}
    }


class Hidden:
    """Shows its tensor to nobody who does not know it."""

    __slots__ = ("_hidden",)

    def __init__(self, hidden: torch.Tensor) -> None:
        self._hidden = hidden

    @property
    def hidden(self) -> torch.Tensor:
        return self._hidden


def test_blocks_in_whose_input_no_tensor_is_found_are_said() -> None:
    notes = LayerMap.from_model(TakesObjects(Hidden), example=IDS).notes
    assert [note.partition(":")[0] for note in notes] == ["2 block(s) got arguments in which no tensors were found"]


class Scaled(nn.Module):
    """What each block gives is scaled by a vector of its own, which stands in a list beside the blocks."""

    def __init__(self, scales: Any) -> None:
        super().__init__()
        self.words = nn.Embedding(64, 4)
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)) for _ in range(3))
        self.scales, self.head = scales, nn.Linear(4, 2)

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        hidden = self.words(input_ids)
        for block, scale in zip(self.blocks, self.scales):
            hidden = hidden + (scale(block(hidden)) if callable(scale) else scale * block(hidden))
        return self.head(hidden[:, 0])


class Scale(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.ones(4))

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return hidden * self.factor


@pytest.mark.parametrize("kind", ["parameters", "modules"])
def test_scales_in_a_list_of_one_a_block_belong_to_their_blocks(kind: str) -> None:
    three = range(3)
    scales = nn.ParameterList(nn.Parameter(torch.ones(4)) for _ in three) if kind == "parameters" else None
    layer_map = LayerMap.from_model(Scaled(scales or nn.ModuleList(Scale() for _ in three)), example=IDS)
    ids = {name: layer_map.layer_id(name) for name in layer_map._layer_ids if name.startswith("scales.")}
    assert list(ids.values()) == [1, 2, 3]


def test_what_a_rule_lifts_above_a_boundary_closes_it_for_the_cache() -> None:
    """It trains while all that is kept at the boundary is taken to stand still."""
    model, batch = build("bert"), padded_batch()
    assert FrozenPrefix(model, LayerMap.from_model(model), batch).boundaries == (1, 2)
    lifted = LayerMap.from_model(model, rules=[("position_embeddings", "head")])
    assert FrozenPrefix(model, lifted, batch).boundaries == ()
    to_block_2 = LayerMap.from_model(model, rules=[("position_embeddings", 2)])
    assert FrozenPrefix(model, to_block_2, batch).boundaries == (2,)
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_a_weight_without_a_shape_is_named() -> None:
    block = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    with pytest.raises(LayerMapError, match=r"^0\.weight has no shape yet; run one batch through the model first$"):
        LayerMap.from_model(nn.Sequential(nn.LazyLinear(3), block, block))


class AroundAnEncoder(nn.Module):
    """As people write it: no model of Transformers, but it holds one, here with weights of its own before the head."""

    encoder: Any

    def __init__(self) -> None:
        super().__init__()
        self.encoder = build("bert").bert
        self.mix = nn.Parameter(torch.zeros(()))
        self.out = nn.Linear(self.encoder.config.hidden_size, 2)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        hidden = self.encoder(input_ids, attention_mask=attention_mask).last_hidden_state
        logits: torch.Tensor = self.out(hidden.mean(1) * self.mix)
        return logits


def test_an_input_of_a_module_around_an_encoder_is_guessed() -> None:
    layer_map = LayerMap.from_model(AroundAnEncoder())
    assert [name for name in layer_map.parameters(layer_map.head_layer) if "pooler" not in name] == [
        "mix",
        "out.weight",
        "out.bias",
    ]
    assert layer_map.layer_id("encoder.embeddings.word_embeddings.weight") == 0


class Head(nn.Module):
    """Two weights, as a block has."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(8, 6), nn.Linear(6, 2)

    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.second(self.first(vectors).relu())
        return logits


class Backbone(nn.Sequential):
    """A stem and three blocks of convolutions, and the mean over the pixels."""

    def __init__(self) -> None:
        blocks = [nn.Sequential(nn.Conv2d(8, 8, 1), nn.ReLU(), nn.Conv2d(8, 8, 1)) for _ in range(3)]
        super().__init__(nn.Conv2d(3, 8, 1), nn.Sequential(*blocks), nn.AdaptiveAvgPool2d(1), nn.Flatten())


class Around(nn.Module):
    """A backbone and a head as attributes."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.backbone, self.head = Backbone(), head

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(self.backbone(pixels))
        return logits


@pytest.mark.parametrize(
    "model",
    [
        nn.Sequential(Backbone(), Head()),
        nn.Sequential(Backbone(), nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 2))),
        Around(nn.Sequential(nn.Dropout(0.1), Head())),
        Around(nn.Sequential(nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8)), Head())),
    ],
    ids=["two in a row", "sequential in a row", "in a sequential", "two in a sequential"],
)
def test_a_head_of_several_layers_in_a_sequential_is_no_block(model: nn.Module) -> None:
    layer_map = LayerMap.from_model(model, example=torch.rand(1, 3, 4, 4))
    name = "backbone" if isinstance(model, Around) else "0"
    assert layer_map.num_layers == 3
    assert set(layer_map.parameters(0)) == {f"{name}.0.weight", f"{name}.0.bias"}
    assert set(layer_map.parameters(layer_map.head_layer)) == {
        n for n, _ in model.named_parameters() if not n.startswith(f"{name}.")
    }


class Towers(nn.Module):
    """Four blocks beside two; what the two compute is used last, so that a rule's number counts among them."""

    def __init__(self) -> None:
        super().__init__()
        self.deep, self.flat = (
            nn.ModuleList(nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8)) for _ in range(blocks)) for blocks in (4, 2)
        )
        self.between, self.head = nn.Linear(8, 8), nn.Linear(16, 2)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        deep, flat = inputs, inputs
        for block in self.deep:
            deep = block(deep)
        for block in self.flat:
            flat = block(flat)
        logits: torch.Tensor = self.head(torch.cat([deep, self.between(flat)], -1))
        return logits


def test_a_rule_places_no_parameter_above_the_blocks_of_its_stack() -> None:
    def mapped(layer: Any) -> LayerMap:
        return LayerMap.from_model(Towers(), rules=[("between", layer)], example=torch.rand(2, 3, 8))

    assert (mapped(2).below_head("between.weight"), mapped(5).below_head("between.weight")) == (1, 0)
    for layer in (3, 4):
        with pytest.raises(LayerMapError, match=rf"^between.weight: layer {layer} .* 2 blocks of stack flat, .* is 5 "):
            mapped(layer)


@pytest.mark.parametrize("rest", [[("^1", 1)], [("^0", 0), ("^1", 1)]])
def test_the_first_rule_for_any_name_of_a_tied_weight_is_one_for_all_its_names(rest: list[Any]) -> None:
    model = nn.Sequential(*(nn.Linear(8, 8, bias=False) for _ in range(3)))
    model[2].weight = model[0].weight
    layer_map = LayerMap.from_model(model, rules=[("^2", "head"), *rest])
    assert [layer_map.layer_id(f"{place}.weight") for place in range(3)] == [2, 1, 2]
