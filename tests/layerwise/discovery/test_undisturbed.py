"""A trial leaves the model as it was: modules, attributes, configuration, buffers, modes, random numbers."""

from collections import deque
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from transformers import BigBirdConfig, BigBirdForSequenceClassification

from nlp_ft.layerwise import LayerMap
from nlp_ft.layerwise.discovery.undisturbed import undisturbed
from nlp_ft.layerwise.prefix import FrozenPrefix
from tests.layerwise import text_census, vision_census
from tests.layerwise.soundness import changed, state_of
from tests.layerwise.test_prefix import padded_batch

FAST = ["bert", "big_bird", "bigbird_pegasus", "funnel"]
BUILT = [name for name in text_census.MODEL_TYPES if name not in text_census.CANNOT_BE_BUILT]
OTHERS = [pytest.param(name, marks=pytest.mark.slow) for name in BUILT if name not in FAST]


@pytest.mark.parametrize("model_type", [*FAST, *OTHERS])
def test_a_layer_map_leaves_every_type_of_text_model_as_it_was(model_type: str) -> None:
    model = text_census.build(model_type).train()
    before = state_of(model)
    LayerMap.from_model(model)
    assert changed(before, state_of(model)) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", vision_census.MODELS)
def test_a_layer_map_leaves_every_network_of_torchvision_as_it_was(name: str) -> None:
    model = vision_census.build(name).train()
    before = state_of(model)
    LayerMap.from_model(model)
    assert changed(before, state_of(model)) == []


def big_bird() -> BigBirdForSequenceClassification:
    """Sparse attention, which a text of fewer than 5 + 2 blocks turns into full attention for good."""
    settings: dict[str, Any] = {
        "vocab_size": 20,
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "max_position_embeddings": 64,
        "block_size": 2,
        "num_random_blocks": 1,
    }
    torch.manual_seed(0)
    return BigBirdForSequenceClassification(BigBirdConfig(**settings))


def test_bigbird_computes_sparse_attention_after_its_layer_map_was_made() -> None:
    long = {"input_ids": torch.arange(48)[None] % 16 + 4}
    model, mapped = big_bird().eval(), big_bird().eval()
    LayerMap.from_model(mapped)
    with torch.no_grad():
        assert torch.equal(model(**long).logits, mapped(**long).logits)
    assert mapped.bert.attention_type == "block_sparse"


def test_trials_of_the_cache_leave_the_model_as_it_was() -> None:
    model = big_bird().train()
    layer_map, before = LayerMap.from_model(model), state_of(model)
    assert 1 in FrozenPrefix(model, layer_map, padded_batch()).boundaries
    assert changed(before, state_of(model)) == []


class Restless(nn.Module):
    """Changes all that a module can change in a pass."""

    passes: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.seen, self.recent, self.sizes, self.kinds = {"rows": 0}, deque([1], maxlen=2), [1], {"a"}
        self.register_buffer("passes", torch.zeros(2))
        self.inner = nn.ModuleList([nn.Linear(2, 2)])

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        self.seen["rows"] += len(rows)
        self.recent.append(2)
        self.sizes.append(3)
        self.kinds.add("b")
        self.passes += 1
        self.inner.append(nn.Linear(2, 2))
        self.new = True
        np.random.seed(0)
        return self.inner[0](rows) + torch.rand(2)


def test_what_a_pass_changes_in_any_kind_of_attribute_is_put_back() -> None:
    model = Restless()
    before, numbers = state_of(model), np.random.get_state(legacy=False)["state"]["key"].tolist()
    with undisturbed(model):
        model(torch.ones(3, 2))
        assert len(changed(before, state_of(model))) > 7
    assert changed(before, state_of(model)) == []
    assert np.random.get_state(legacy=False)["state"]["key"].tolist() == numbers
