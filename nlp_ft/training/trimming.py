"""Whether a run trains with the used rows of its embedding table alone: decided before training, and said."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from accelerate.utils import DynamoBackend

from nlp_ft.data.columns import mark_values
from nlp_ft.layerwise.prefix import TOLERANCE
from nlp_ft.models.vocabulary import UsedVocabulary, lookup_table
from nlp_ft.training.parts import Parts

ELEMENTWISE = ("adamw", "sgd", "lion")
"""Optimizers that update an element from its own gradient and history alone; Adafactor takes means over rows."""
LARGEST_SHARE = 0.5
"""Of rows in use, above which trimming is not worth the while."""


def used_vocabulary(parts: Parts) -> UsedVocabulary | None:
    """The rows of the embedding table that train and validation use; None where it stays whole."""
    if parts.task.tokenizer is None or parts.recipe.training.trim_vocabulary == "off":
        return None
    embedding = lookup_table(parts.model)
    if embedding is None or not _trains_by_elements(parts, embedding.weight):
        return None
    used = torch.zeros(embedding.num_embeddings, dtype=torch.bool)
    for split in parts.data.encoded.keys() - {"test"}:
        mark_values(parts.data.encoded[split], "input_ids", used.numpy())
    # Longformer pads once more, by the id that its config says.
    marks = [*parts.task.tokenizer.all_special_ids, getattr(parts.model.config, "pad_token_id", None)]
    used[[mark for mark in marks if mark is not None and mark < len(used)]] = True
    num_used = int(used.sum())
    if num_used > LARGEST_SHARE * len(used):
        return None
    vocabulary = UsedVocabulary(embedding, used, parts.optimizer)
    if not _changes_nothing(parts, vocabulary):
        return None
    parts.accelerator.print(
        f"embedding table: {num_used:,} of its {len(used):,} rows are in use; the others get no gradient, and what "
        "weight decay does to them is done at the end\n"
    )
    return vocabulary


@contextmanager
def trimmed(vocabulary: UsedVocabulary | None) -> Iterator[None]:
    """Inside, the table has only its rows in use; the others get what they missed when the training is through."""
    if vocabulary is None:
        yield
        return
    vocabulary.trim()
    try:
        yield
    finally:
        vocabulary.restore()
    vocabulary.decay_unused()


@contextmanager
def whole(vocabulary: UsedVocabulary | None) -> Iterator[None]:
    """Within `trimmed`: the table with all its rows, as they are until the first of them trains."""
    if vocabulary is None:
        yield
        return
    vocabulary.restore()
    try:
        yield
    finally:
        vocabulary.trim()


def _trains_by_elements(parts: Parts, table: torch.Tensor) -> bool:
    name = next(name for name, parameter in parts.model.named_parameters() if parameter is table)
    layer = parts.layer_map.aligned_layer(name)
    return (
        any(layer in phase.layers for phase in parts.unfreezer.plan.schedule.phases)
        and parts.recipe.optimizer.name in ELEMENTWISE
        # A compiled model is left as it was compiled.
        and parts.accelerator.state.dynamo_plugin.backend == DynamoBackend.NO
    )


def _changes_nothing(parts: Parts, vocabulary: UsedVocabulary) -> bool:
    """Whether the model gives the same logits with the table trimmed: it might read the weight by another way.

    Up to rounding: a table at another address may be summed in another order.
    """
    example = parts.example()
    was_training = parts.model.training
    parts.model.eval()
    with torch.no_grad():
        before = parts.model(**example).logits
        vocabulary.trim()
        after = parts.model(**example).logits
        vocabulary.restore()
    parts.model.train(was_training)
    return torch.allclose(before, after, rtol=TOLERANCE, atol=TOLERANCE)
