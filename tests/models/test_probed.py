"""A classifier that reads one layer of its encoder, or the mean of all, is saved and loaded as what it is."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification

from nlp_ft.errors import ModelError
from nlp_ft.layerwise.eval_mode import evaluating
from nlp_ft.models.configs import PooledClassifierConfig
from nlp_ft.models.pooled_classifier import PooledClassifier, encoder_options
from nlp_ft.models.probed import read_layer, read_mean
from tests.tiny import save_tiny_encoder
from tests.tiny_decoders import save_tiny_decoder

BATCH = {
    "input_ids": torch.tensor([[2, 6, 7, 3], [2, 8, 3, 0]]),
    "attention_mask": torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]]),
}


def a_classifier(folder: Path, model_type: str) -> PooledClassifier:
    save = save_tiny_decoder if model_type in ("gpt2", "llama") else save_tiny_encoder
    # The configuration that Transformers has not written the attention into.
    own = AutoConfig.from_pretrained(save(folder / "encoder", model_type))
    encoder = AutoModel.from_pretrained(folder / "encoder", **encoder_options(own, "mean"))
    torch.manual_seed(1)
    config = PooledClassifierConfig(own, id2label={0: "a", 1: "b"}, pad_token_id=0)
    return PooledClassifier(config, encoder).eval()


def states_of(model: PooledClassifier) -> tuple[torch.Tensor, ...]:
    with evaluating(model):
        return tuple(model(**BATCH, output_hidden_states=True).hidden_states)


def mean_of_tokens(state: torch.Tensor) -> torch.Tensor:
    return torch.stack([state[0].mean(0), state[1, :3].mean(0)])


# Where a norm follows the last block (modernbert, gpt2), the block above the layer stays.
@pytest.mark.parametrize(
    ("model_type", "layer", "blocks"),
    [
        ("bert", 0, 1), ("bert", 1, 1), ("bert", 2, 2), ("distilbert", 1, 1), ("albert", 1, 1), ("deberta-v2", 1, 1),
        ("xlnet", 1, 1), ("modernbert", 1, 2), ("gpt2", 1, 2), ("gpt2", 0, 1),
    ],
)  # fmt: skip
def test_the_head_reads_the_layer_and_the_blocks_above_are_gone(
    tmp_path: Path, model_type: str, layer: int, blocks: int
) -> None:
    model = a_classifier(tmp_path, model_type)
    expected = model.head(mean_of_tokens(states_of(model)[layer]))
    read_layer(model, layer, BATCH)
    model.save_pretrained(tmp_path / "saved")
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path / "saved")
    assert loaded.config.encoder_config.num_hidden_layers == blocks
    with torch.no_grad():
        assert torch.allclose(loaded(**BATCH).logits, expected, atol=1e-6)


def test_the_head_reads_the_mean_of_all_layers(tmp_path: Path) -> None:
    model = a_classifier(tmp_path, "bert")
    expected = model.head(mean_of_tokens(torch.stack(states_of(model)).mean(0)))
    read_mean(model)
    model.save_pretrained(tmp_path / "saved")
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path / "saved")
    with torch.no_grad():
        assert torch.allclose(loaded(**BATCH).logits, expected, atol=1e-6)


def test_a_layer_that_the_encoder_does_not_have_is_refused(tmp_path: Path) -> None:
    config: Any = a_classifier(tmp_path, "bert").config
    config.layer = 3
    with pytest.raises(ModelError, match=r"^config\.json: layer must be 0 to 2, got 3$"):
        PooledClassifier(config)
