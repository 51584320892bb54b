"""Reads the label names from the configuration of a model."""

from transformers import PreTrainedModel


def label_names(model: PreTrainedModel) -> list[str]:
    """List the label names of a classifier in the order of their ids."""
    return [name for _, name in sorted((int(i), name) for i, name in (model.config.id2label or {}).items())]
