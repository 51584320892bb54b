"""Sets the dropouts that a recipe names, inside the encoder and before the head."""

from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from nlp_ft.errors import ModelError
from nlp_ft.models.config_checks import DROPOUTS
from nlp_ft.recipe.text import TextModelSection


def set_dropouts(config: PreTrainedConfig, model: TextModelSection) -> None:
    """Set the dropouts of a configuration, where it has them: those inside the encoder, and that before the head.

    Raises:
        ModelError: the encoder has no dropout that could be set.
    """
    if model.dropout is not None:
        fields = [field for field in DROPOUTS if getattr(config, field, None) is not None]
        if not fields and model.dropout:
            raise ModelError(f"model.dropout: {config.model_type} has no dropout; leave it out, or set it to 0")
        for field in fields:
            setattr(config, field, model.dropout)
    # Each plain class reads the dropout before its last layer from one of these fields.
    for field in ("classifier_dropout", "classifier_dropout_prob", "seq_classif_dropout", "summary_last_dropout"):
        if hasattr(config, field) and model.head.dropout is not None:
            setattr(config, field, model.head.dropout)


def set_head_dropout(built: PreTrainedModel, model: TextModelSection) -> None:
    """Set the dropouts of a built head: DeBERTa and DistilBERT, for one, read it from a setting of the encoder.

    Raises:
        ModelError: the head has no dropout.
    """
    if model.head.dropout is None:
        return
    prefix = f"{built.base_model_prefix}."
    found = [
        module
        for name, module in built.named_modules()
        if isinstance(module, nn.Dropout) and not name.startswith(prefix)
    ]
    for module in found:
        module.p = model.head.dropout
    if not found and model.head.dropout:
        raise ModelError(
            f"model.head.dropout: {type(built).__name__} has no dropout before its head; leave it out, or set it to 0"
        )
