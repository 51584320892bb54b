"""Entering a model between its blocks gives the logits of the whole pass, to the bit."""

from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from nlp_ft.layerwise import LayerMap
from nlp_ft.layerwise.prefix import FrozenPrefix
from nlp_ft.models.configs import PooledClassifierConfig
from nlp_ft.models.pooled_classifier import PooledClassifier
from tests.layerwise import text_census
from tests.tiny import TINY_CONFIGS, tiny_config


def padded_batch(rows: int = 3) -> dict[str, torch.Tensor]:
    mask = torch.ones(rows, 9, dtype=torch.long)
    mask[0, 4:], mask[1, 7:] = 0, 0
    ids = torch.randint(4, 18, (rows, 9), generator=torch.Generator().manual_seed(1)) * mask
    return {"input_ids": ids, "attention_mask": mask}


def build(model_type: str) -> PreTrainedModel:
    torch.manual_seed(0)
    model: PreTrainedModel = AutoModelForSequenceClassification.from_config(tiny_config(model_type)).eval()
    return model


@pytest.mark.parametrize("model_type", [name for name in TINY_CONFIGS if name not in ("albert", "xlnet")])
def test_each_family_can_be_entered_after_each_block_with_the_same_logits_to_the_bit(model_type: str) -> None:
    model, batch = build(model_type), padded_batch()
    prefix = FrozenPrefix(model, LayerMap.from_model(model), padded_batch())
    assert prefix.boundaries == (1, 2)
    hidden = prefix.capture(batch, [1, 2])
    with torch.no_grad():
        whole = model(**batch).logits
        for boundary in (1, 2):
            values = hidden[boundary]
            if values.ndim == 3:
                values = values * batch["attention_mask"][..., None]  # what is stored has no padding
            with prefix.entered(boundary, values):
                assert torch.equal(model(**batch).logits, whole)
        assert torch.equal(model(**batch).logits, whole), "the way in was left open"


@pytest.mark.parametrize("pooling", ["mean", "max", "cls"])
def test_above_the_last_block_one_pooled_vector_a_row_is_enough(pooling: str) -> None:
    torch.manual_seed(0)
    model = PooledClassifier(PooledClassifierConfig(tiny_config(), pooling=pooling, num_labels=3)).eval()  # type: ignore[arg-type]
    batch = padded_batch()
    prefix = FrozenPrefix(model, LayerMap.from_model(model), batch)
    assert (prefix.is_pooled(2), prefix.takes_one_vector(2), prefix.takes_one_vector(1)) == (True, True, False)
    vectors = prefix.capture(batch, [2])[2]
    assert vectors.shape == (3, 16)
    with torch.no_grad(), prefix.entered(2, vectors):
        short = model(**{key: value[:, :1] for key, value in batch.items()}).logits
    with torch.no_grad():
        assert torch.equal(short, model(**batch).logits)


def test_a_pooled_vector_as_long_as_the_texts_is_no_row_of_tokens() -> None:
    torch.manual_seed(0)
    model = PooledClassifier(PooledClassifierConfig(tiny_config(), pooling="mean", num_labels=3)).eval()
    longer = {key: torch.cat([value, value[:, :1].repeat(1, 7)], 1) for key, value in padded_batch().items()}
    longer["attention_mask"][0, 4:] = 0
    assert longer["input_ids"].shape == (3, model.config.encoder_config.hidden_size)
    assert FrozenPrefix(model, LayerMap.from_model(model), longer).is_pooled(2)


def test_a_pooler_that_reads_the_first_token_alone_is_found_out() -> None:
    model = build("bert")
    prefix = FrozenPrefix(model, LayerMap.from_model(model), padded_batch())
    assert (prefix.is_pooled(2), prefix.takes_one_vector(2), prefix.takes_one_vector(1)) == (False, True, False)


def test_the_pass_below_a_boundary_leaves_modes_and_gradients_alone() -> None:
    model = build("bert").train()
    prefix = FrozenPrefix(model, LayerMap.from_model(model), padded_batch())
    hidden = prefix.capture(padded_batch(), [1])[1]
    assert not hidden.requires_grad
    assert all(module.training for module in model.modules())
    assert all(not module._forward_pre_hooks and "forward" not in module.__dict__ for module in model.modules())


@pytest.mark.parametrize(("model_type", "boundaries"), [("distilbert", ()), ("xlnet", (2,))])
def test_where_padding_moves_the_positions_of_a_text_its_hidden_states_are_not_kept(
    model_type: str, boundaries: tuple[int, ...]
) -> None:
    """DistilBERT counts positions from the left end of a batch; those of XLNet are relative."""
    model = build(model_type)
    left = {key: value.flip(1) for key, value in padded_batch().items()}
    assert FrozenPrefix(model, LayerMap.from_model(model), left).boundaries == boundaries


def test_a_model_that_reads_the_padding_behind_a_text_is_not_entered() -> None:
    model = text_census.build("convbert").eval()
    assert FrozenPrefix(model, LayerMap.from_model(model), padded_batch()).boundaries == ()


def test_a_model_of_two_towers_is_not_entered() -> None:
    torch.manual_seed(0)
    towers = nn.ModuleDict({name: nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)) for name in ("text", "image")})
    layers = {f"{tower}.{i}.{p}": i + 1 for tower in towers for i in range(2) for p in ("weight", "bias")}
    stack_of = {name: name.partition(".")[0] for name in layers}
    layer_map = LayerMap(layers, 2, stacks={"text": 2, "image": 2}, stack_of=stack_of)
    prefix = FrozenPrefix(towers, layer_map, padded_batch())
    assert (prefix.boundaries, prefix.can_enter(1), prefix.is_pooled(2)) == ((), False, False)


def test_a_shared_block_can_be_entered_above_it_only() -> None:
    model = build("albert")
    assert FrozenPrefix(model, LayerMap.from_model(model), padded_batch()).boundaries == (1,)


def test_a_model_whose_hidden_states_lie_otherwise_is_not_entered() -> None:
    """XLNet's are (seq_len, batch, hidden)."""
    model = build("xlnet")
    assert FrozenPrefix(model, LayerMap.from_model(model), padded_batch()).boundaries == ()


def test_a_model_whose_blocks_hand_on_more_than_hidden_states_is_not_entered() -> None:
    """T5's first block computes the position bias of all others."""
    from transformers import T5Config, T5ForSequenceClassification

    sizes: dict[str, Any] = {"vocab_size": 20, "d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2}
    sizes |= {"decoder_start_token_id": 0, "eos_token_id": 1}
    model = T5ForSequenceClassification(T5Config(**sizes)).eval()
    batch = padded_batch()
    batch["input_ids"][:, 3] = 1
    assert FrozenPrefix(model, LayerMap.from_model(model), batch).boundaries == ()
