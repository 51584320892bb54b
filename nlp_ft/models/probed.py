"""Makes a classifier read what a probe has chosen: one layer of its encoder, or the mean of all layers."""

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import torch
from transformers import AutoModel

from nlp_ft.layerwise.eval_mode import evaluating
from nlp_ft.models.pooled_classifier import PooledClassifier, encoder_options, num_blocks, pooling_module

TOLERANCE = 1e-5


def read_mean(model: PooledClassifier) -> None:
    """Make the model read the mean over the tokens and over all layers, in place."""
    config: Any = model.config
    config.pooling = "layer_mix"
    # Its weights are equal at first.
    model.pooling = pooling_module(config)
    assert model.pooling is not None
    model.pooling.to(model.device).requires_grad_(False)


def read_layer(model: PooledClassifier, layer: int, example: Mapping[str, torch.Tensor]) -> None:
    """Make the model read one layer, in place, and leave out the blocks above it.

    Where a norm follows the last block, the block above the layer stays: with it, the layer is the same as before.
    Encoders that cannot be built with fewer blocks stay whole.

    Args:
        model: the classifier; it reads the output of its encoder.
        layer: the layer, 0 for the embeddings.
        example: inputs of a few rows, on the device of the model, by which a shorter encoder is checked.
    """
    if layer == num_blocks(model.config.encoder_config):
        return
    model.config.layer = layer
    if model.config.encoder_config.is_encoder_decoder:
        return
    whole: Any = model.encoder
    expected = _output(model, layer, example)
    for blocks in sorted({max(1, layer), layer + 1}):
        shorter = _first_blocks(whole, blocks, model.config.pooling)
        if shorter is None:
            continue
        model.encoder, model.config.encoder_config = shorter, deepcopy(shorter.config)
        if torch.allclose(_output(model, layer, example), expected, rtol=TOLERANCE, atol=TOLERANCE):
            return
    model.encoder, model.config.encoder_config = whole, deepcopy(whole.config)


def _first_blocks(encoder: Any, blocks: int, pooling: str) -> Any:
    """Build an encoder of the first blocks of another one, with its weights; None if there is no such encoder."""
    config = deepcopy(encoder.config)
    for name, value in list(vars(config).items()):
        if isinstance(value, list) and len(value) == num_blocks(encoder.config):
            setattr(config, name, value[:blocks])  # a value for each block, such as the kind of its attention
    config.num_hidden_layers = blocks
    try:
        shorter = AutoModel.from_config(config, **encoder_options(config, pooling))
        given = encoder.state_dict()
        shorter.load_state_dict({name: given[name] for name in shorter.state_dict()})
    except Exception:  # each family refuses in its own way
        return None
    return shorter.to(encoder.device).requires_grad_(False).train(encoder.training)


def _output(model: PooledClassifier, layer: int, example: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Compute the output of a layer, (batch, seq_len, hidden), without what padding has there."""
    with evaluating(model):
        hidden: torch.Tensor = model(**example, output_hidden_states=True).hidden_states[layer]
    return hidden * example["attention_mask"].unsqueeze(-1)
