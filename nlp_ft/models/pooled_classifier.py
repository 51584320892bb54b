"""A classifier that plain Transformers classes cannot express: any encoder with a chosen pooling and a chosen head.

It is registered with Transformers' Auto classes when nlp_ft is imported, so that a saved folder loads with
`AutoModelForSequenceClassification.from_pretrained(folder)` and `pipeline(..., model=folder)`.
"""

import inspect
from typing import Any

import torch
from torch import nn
from transformers import AutoModel, AutoModelForSequenceClassification, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput

from nlp_ft.errors import ModelError
from nlp_ft.models.configs import PooledClassifierConfig
from nlp_ft.models.heads import ClassificationHead
from nlp_ft.models.losses import loss_of_labels
from nlp_ft.models.pooling import pool


class PooledClassifier(PreTrainedModel):
    """An encoder, a pooling and a head.

    Args:
        config: configuration of the classifier.
        encoder: the encoder, if it is loaded already; None builds it from the config with random weights.

    Raises:
        ModelError: the config has no `encoder_config`.
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
            encoder = AutoModel.from_config(inner, **encoder_options(inner, config.pooling))
        self.encoder = encoder
        self.head = ClassificationHead(
            inner.hidden_size,
            len(config.id2label or {}),
            config.head_type,
            config.bottleneck_size,
            config.activation,
            config.head_dropout,
        )
        self._encoder_takes = set(inspect.signature(encoder.forward).parameters)
        self.post_init()  # type: ignore[no-untyped-call]  # of Transformers

    def _init_weights(self, module: nn.Module) -> None:
        """Initialize linear layers: weights normal with the encoder's standard deviation, biases 0."""
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=getattr(self.config.encoder_config, "initializer_range", 0.02))
            if module.bias is not None:
                nn.init.zeros_(module.bias)

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
            position_ids: (batch, seq_len), for encoders that take them.
            output_attentions: whether to return the encoder's attentions; None follows its config.
            output_hidden_states: whether to return the encoder's hidden states; None follows its config.
            return_dict: False returns a tuple of all values that are not None; None follows the config.
        """
        given = {
            "input_ids": input_ids,
            "inputs_embeds": inputs_embeds,
            "attention_mask": attention_mask,
            "output_attentions": output_attentions,
            "output_hidden_states": output_hidden_states,
        }
        for key, value in {"token_type_ids": token_type_ids, "position_ids": position_ids}.items():
            if key in self._encoder_takes:
                given[key] = value
        output = self.encoder(**{key: value for key, value in given.items() if value is not None}, return_dict=True)
        logits = self.head(self._pooled(output, attention_mask))
        loss = None if labels is None else loss_of_labels(self.config, logits, labels, num_items_in_batch)
        result = SequenceClassifierOutput(
            loss=loss, logits=logits, hidden_states=output.get("hidden_states"), attentions=output.get("attentions")
        )
        as_dict = self.config.return_dict if return_dict is None else return_dict
        return result if as_dict else result.to_tuple()

    def _pooled(self, output: Any, attention_mask: torch.Tensor | None) -> torch.Tensor:
        """Pool the output of the encoder to one vector for each text, (batch, hidden)."""
        if self.config.pooling == "pooler":
            pooler_output: torch.Tensor = output.pooler_output
            return pooler_output
        hidden = output.last_hidden_state
        if attention_mask is None:
            attention_mask = torch.ones(hidden.shape[:2], dtype=torch.long, device=hidden.device)
        return pool(hidden, attention_mask, self.config.pooling, self.config.cls_position)


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
