"""The labels that a model's configuration names."""

from transformers import PreTrainedModel


def label_names(model: PreTrainedModel) -> list[str]:
    """The labels of a classifier, in the order of their ids."""
    return [name for _, name in sorted((int(i), name) for i, name in (model.config.id2label or {}).items())]
