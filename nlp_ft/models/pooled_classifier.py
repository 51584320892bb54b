"""A classifier that plain Transformers classes cannot express: any encoder with a chosen pooling and a chosen head.

It is registered with Transformers' Auto classes when nlp_ft is imported, so that a saved folder loads with
`AutoModelForSequenceClassification.from_pretrained(folder)` and `pipeline(..., model=folder)`.
"""

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from transformers import (
    AutoModel,
    AutoModelForSequenceClassification,
    AutoModelForTextEncoding,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.modeling_outputs import SequenceClassifierOutput

from nlp_ft.errors import ModelError
from nlp_ft.models.configs import PooledClassifierConfig
from nlp_ft.models.heads import ClassificationHead
from nlp_ft.models.losses import loss_of_labels
from nlp_ft.models.pooling import LAYERS_CONCATENATED, AttentionPooling, LayerMix, pool, pool_layers

OF_LAYERS = ("layer_mix", "last_4")
"""Poolings that read the output of several layers."""


class PooledClassifier(PreTrainedModel):
    """An encoder, a pooling and a head; a pooling with weights of its own belongs to the head.

    Args:
        config: configuration of the classifier.
        encoder: the encoder, if it is loaded already; None builds it from the config with random weights.

    Raises:
        ModelError: the config has no `encoder_config`, or the encoder has fewer layers than the pooling reads.
    """

    config_class = PooledClassifierConfig
    base_model_prefix = "encoder"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True
    # Makes the Trainer pass `num_items_in_batch`, by which `forward` divides the loss.
    accepts_loss_kwargs = True

    def __init__(self, config: PooledClassifierConfig, encoder: nn.Module | None = None) -> None:
        super().__init__(config)
        inner = config.encoder_config
        if inner is None:
            raise ModelError("config.json: encoder_config is missing")
        if encoder is None:
            encoder = encoder_auto_class(inner).from_config(inner, **encoder_options(inner, config.pooling))
        self.encoder = encoder
        self.pooling = pooling_module(config)
        width = LAYERS_CONCATENATED if config.pooling == "last_4" else 1
        self.head = ClassificationHead(
            width * inner.hidden_size,
            len(config.id2label or {}),
            config.head_type,
            config.bottleneck_size,
            config.activation,
            config.head_dropout,
        )
        self._encoder_takes = set(inspect.signature(encoder.forward).parameters)
        self._counts_positions = is_decoder(inner)
        self._own_hidden_states = bool(inner.output_hidden_states)
        self.post_init()  # type: ignore[no-untyped-call]  # of Transformers

    @property
    def _reads_layers(self) -> bool:
        return self.config.pooling in OF_LAYERS or self.config.layer is not None

    def _init_weights(self, module: nn.Module) -> None:
        """Initialize linear layers: weights normal with the encoder's standard deviation, biases 0; and poolings."""
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=getattr(self.config.encoder_config, "initializer_range", 0.02))
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, AttentionPooling):
            nn.init.zeros_(module.context)
        elif isinstance(module, LayerMix):
            nn.init.zeros_(module.weights)
            nn.init.ones_(module.gamma)

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        num_items_in_batch: torch.Tensor | int | None = None,
        position_ids: torch.Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> SequenceClassifierOutput | tuple[torch.Tensor, ...]:
        """Compute the logits, (batch, num_labels), and the loss of `config.problem_type` if there are labels.

        Args:
            input_ids: token ids, (batch, seq_len).
            attention_mask: (batch, seq_len), 1 for tokens and 0 for padding; None means no padding.
            token_type_ids: (batch, seq_len), for encoders that take them.
            inputs_embeds: embedded tokens, (batch, seq_len, hidden), instead of `input_ids`.
            labels: label ids, (batch,); see `loss_of_labels` for labels of other shapes.
            num_items_in_batch: number of labels in the whole effective batch; None averages over this batch.
            position_ids: (batch, seq_len), for encoders that take them; None counts the tokens of each text in a
                decoder, on whichever side it is padded.
            output_attentions: whether to return the encoder's attentions; None follows its config.
            output_hidden_states: whether to return the encoder's hidden states; None follows its config.
            return_dict: False returns a tuple of all values that are not None; None follows the config.
        """
        if position_ids is None and attention_mask is not None and self._counts_positions:
            # A decoder counts from the first place of the batch, which a text that is padded on the left does not have.
            position_ids = (attention_mask.long().cumsum(-1) - 1).clamp(min=0)
        given = {
            "input_ids": input_ids,
            "inputs_embeds": inputs_embeds,
            "attention_mask": attention_mask,
            "output_attentions": output_attentions,
            "output_hidden_states": self._reads_layers or output_hidden_states,
        }
        for key, value in {"token_type_ids": token_type_ids, "position_ids": position_ids}.items():
            if key in self._encoder_takes:
                given[key] = value
        output = self.encoder(**{key: value for key, value in given.items() if value is not None}, return_dict=True)
        logits = self.head(self._pooled(output, attention_mask))
        loss = None if labels is None else loss_of_labels(self.config, logits, labels, num_items_in_batch)
        asked = self._own_hidden_states if output_hidden_states is None else output_hidden_states
        hidden_states = output.get("hidden_states") if asked else None
        result = SequenceClassifierOutput(
            loss=loss, logits=logits, hidden_states=hidden_states, attentions=output.get("attentions")
        )
        as_dict = self.config.return_dict if return_dict is None else return_dict
        return result if as_dict else result.to_tuple()

    def _pooled(self, output: Any, attention_mask: torch.Tensor | None) -> torch.Tensor:
        """Pool the output of the encoder to one vector for each text, (batch, hidden); `last_4` has 4 * hidden."""
        if self.config.pooling == "pooler":
            pooler_output: torch.Tensor = output.pooler_output
            return pooler_output
        hidden = output.last_hidden_state
        if attention_mask is None:
            attention_mask = torch.ones(hidden.shape[:2], dtype=torch.long, device=hidden.device)
        if self.config.pooling in OF_LAYERS:
            layers = pool_layers(self._layers(output), attention_mask)
            return layers if self.pooling is None else self.pooling(layers)
        if self.config.layer is not None:
            hidden = self._layers(output)[self.config.layer]
        if self.pooling is not None:
            return self.pooling(hidden, attention_mask)  # type: ignore[no-any-return]
        return pool(hidden, attention_mask, self.config.pooling, self.config.cls_position)

    def _layers(self, output: Any) -> Sequence[torch.Tensor]:
        """Take the layers that the pooling reads out of the output of the encoder. Raises: ModelError."""
        layers: Sequence[torch.Tensor] = output.get("decoder_hidden_states") or output.get("hidden_states") or ()
        expected = num_blocks(self.config.encoder_config) + 1
        if len(layers) != expected or any(layer.shape != layers[0].shape for layer in layers):
            shapes = [list(layer.shape) for layer in layers]
            raise ModelError(
                f"model.pooling: {self.config.pooling} needs {expected} layers of one shape from this "
                f"{self.config.encoder_config.model_type} encoder, which gives {shapes}; use mean"
            )
        return layers[-LAYERS_CONCATENATED:] if self.config.pooling == "last_4" else layers


def num_blocks(config: PreTrainedConfig) -> int:
    """Count the blocks of the stack whose output is the encoder's: of an encoder and a decoder, the latter's."""
    has_decoder = config.is_encoder_decoder and encoder_auto_class(config) is AutoModel
    names = ("decoder_layers", "num_decoder_layers") if has_decoder else ()
    counts = (getattr(config, name, None) for name in (*names, "num_hidden_layers"))
    return next(count for count in counts if isinstance(count, int))


def pooling_module(config: PooledClassifierConfig) -> AttentionPooling | LayerMix | None:
    """Make the module of a pooling that has weights; None for the others.

    Raises:
        ModelError: the encoder does not have the layers that the pooling reads.
    """
    encoder: Any = config.encoder_config
    if config.layer is not None and config.layer not in range(num_blocks(encoder) + 1):
        raise ModelError(f"config.json: layer must be 0 to {num_blocks(encoder)}, got {config.layer!r}")
    if config.pooling == "last_4" and num_blocks(encoder) < LAYERS_CONCATENATED:
        raise ModelError(
            f"model.pooling: last_4 reads the last {LAYERS_CONCATENATED} blocks, but this {encoder.model_type} encoder "
            f"has {num_blocks(encoder)}; use mean or layer_mix"
        )
    if config.pooling == "attention":
        return AttentionPooling(encoder.hidden_size)
    return LayerMix(num_blocks(encoder) + 1) if config.pooling == "layer_mix" else None


def is_decoder(config: PreTrainedConfig) -> bool:
    """Whether a token sees the tokens before it alone, as in GPT-2 and Llama: the family has no masked language model.

    XLNet, which has none either, sees all tokens.
    """
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_FOR_MASKED_LM_MAPPING

    is_causal = type(config) in MODEL_FOR_CAUSAL_LM_MAPPING and type(config) not in MODEL_FOR_MASKED_LM_MAPPING
    return is_causal and config.model_type != "xlnet" and not config.is_encoder_decoder


def encoder_auto_class(config: PreTrainedConfig) -> Any:
    """Choose the Auto class of an encoder: of T5's family, whose decoder needs tokens of its own, the encoder alone."""
    from transformers import MODEL_FOR_TEXT_ENCODING_MAPPING

    has_encoder_alone = config.is_encoder_decoder and type(config) in MODEL_FOR_TEXT_ENCODING_MAPPING
    return AutoModelForTextEncoding if has_encoder_alone else AutoModel


def encoder_options(config: PreTrainedConfig, pooling: str) -> dict[str, bool]:
    """Return the options of an encoder's class that leave out a pooler which `pooling` does not use."""
    from transformers import MODEL_MAPPING

    encoder_class: Any = MODEL_MAPPING[type(config)]
    takes = "add_pooling_layer" in inspect.signature(encoder_class.__init__).parameters
    return {"add_pooling_layer": pooling == "pooler"} if takes else {}


def register() -> None:
    """Register the model class with AutoModelForSequenceClassification."""
    AutoModelForSequenceClassification.register(PooledClassifierConfig, PooledClassifier, exist_ok=True)


register()
