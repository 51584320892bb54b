"""The features of a pretrained network: the vector of each row in each layer, from one pass over a split."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel

from nlp_ft.data.batch import model_inputs
from nlp_ft.data.batch_loading import load_batches
from nlp_ft.data.windows import Windows
from nlp_ft.errors import ModelError, TrainingError
from nlp_ft.layerwise.eval_mode import evaluating
from nlp_ft.models.pooling import pool
from nlp_ft.models.scaling import last_linear
from nlp_ft.recipe import Recipe
from nlp_ft.tasks.task import Task

TokenPooling = Literal["cls", "mean", "max"]


def layer_features(
    recipe: Recipe,
    task: Task,
    splits: Sequence[str],
    pooling: TokenPooling | None = None,
    model: PreTrainedModel | None = None,
    rows: np.ndarray | None = None,
) -> dict[str, np.ndarray]:
    """Compute the features of all layers in one pass over each split, with the pretrained weights as they are.

    A text has a vector in each layer: the embeddings, and the output of each block, pooled over its tokens; that of a
    text of several windows is the mean of theirs. An image has one vector, the input of the head.

    Args:
        recipe: the recipe.
        task: its task; each of its rows must have one vector.
        splits: the splits, such as `train` and `test`.
        pooling: how the vectors of the tokens become one; None takes that of the model if it is `cls`, `mean` or
            `max`, else `mean`.
        model: the network on its device; None builds it, and uses the accelerator if there is one.
        rows: numbers of the rows of each split that get features, ascending; None takes all.

    Returns:
        Split -> features, (layers + 1, rows, hidden), float32; the features of images are (1, rows, hidden).

    Raises:
        NlpFtError: data or model cannot be read, the rows of the task have no vector each, or the layers differ in
            shape.
    """
    if not recipe.has_row_vectors:
        raise TrainingError(f"a probe needs one vector a row, which the rows of {recipe.task} do not have")
    network: Any = model
    if network is None:
        network = task.build_model(task.data.label_names)
        network.to(torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu"))
    return {split: _of_split(recipe, task, split, pooling, network, rows) for split in splits}


def _of_split(
    recipe: Recipe,
    task: Task,
    split: str,
    pooling: TokenPooling | None,
    model: PreTrainedModel,
    rows: np.ndarray | None,
) -> np.ndarray:
    """Compute the features of the rows of a split, (layers, rows, hidden)."""
    lengths, windows, size = task.data.lengths(split), task.data.windows(split), recipe.training.eval_batch_size
    chosen = np.arange(len(lengths)) if rows is None else windows.of_rows(rows)
    order = np.argsort(-lengths[chosen], kind="stable")
    batches = [order[i : i + size] for i in range(0, len(order), size)]
    encoded = [chosen[batch] for batch in batches]
    loaded = load_batches(task.data.encoded[split], encoded, task.collator(training=False), task.num_workers)
    found: np.ndarray | None = None
    with evaluating(model), torch.inference_mode():
        for places, batch in zip(batches, loaded):
            inputs = {key: value.to(model.device) for key, value in model_inputs(batch).items()}
            vectors = _vectors_of_layers(model, inputs, pooling, len(task.data.label_names))
            if found is None:
                found = np.empty((len(vectors), len(order), vectors.shape[-1]), np.float32)
            found[:, places] = vectors.float().cpu().numpy()
    assert found is not None  # no split is empty
    if broken := int((~np.isfinite(found).all((0, 2))).sum()):
        raise ModelError(
            f"the frozen network computes no finite numbers for {broken:,} of {len(order):,} inputs of {split}, so a "
            "probe has nothing to read; check the weights of model.name"
        )
    windows = windows.selected(chosen)
    return found if windows.num_rows == len(order) else _of_rows(found, windows)


def _of_rows(features: np.ndarray, windows: Windows) -> np.ndarray:
    """Take the mean over the windows of each row: (layers, windows, hidden) to (layers, rows, hidden)."""
    counts = np.diff([*windows.starts, len(windows.rows)])
    sums = np.add.reduceat(features, windows.starts, axis=1)
    return np.asarray(sums / counts[:, None], dtype=np.float32)


def _vectors_of_layers(
    model: PreTrainedModel, inputs: Mapping[str, torch.Tensor], pooling: TokenPooling | None, num_labels: int
) -> torch.Tensor:
    """Compute the vector of each row in each layer, (layers, batch, hidden). Raises: ModelError."""
    if "input_ids" not in inputs:
        with _head_input(model, num_labels) as seen:
            model(**inputs)
        return seen[0].unsqueeze(0)
    output = model(**inputs, output_hidden_states=True)
    layers = output.get("decoder_hidden_states") or output.get("hidden_states") or ()
    mask = inputs.get("attention_mask", torch.ones_like(inputs["input_ids"]))
    shapes = {tuple(layer.shape) for layer in layers}
    if len(shapes) != 1 or next(iter(shapes))[:2] != tuple(mask.shape):
        raise ModelError(
            f"a probe reads the layers of an encoder, which must have one shape, (batch, seq_len, hidden); those of "
            f"this {model.config.model_type} have {sorted(shapes) or 'none'}"
        )
    own = getattr(model.config, "pooling", "mean")
    kind: Any = pooling or (own if own in ("cls", "max") else "mean")
    position: Any = getattr(model.config, "cls_position", "first")
    return torch.stack([pool(layer, mask, kind, position) for layer in layers])


@contextmanager
def _head_input(model: PreTrainedModel, num_labels: int) -> Iterator[list[torch.Tensor]]:
    """Note the input of the last linear layer, (batch, hidden), inside the block. Raises: ModelError."""
    seen: list[torch.Tensor] = []
    head = last_linear(model, num_labels)
    if head is None:
        raise ModelError(
            f"model.name: {getattr(model.config, 'backbone', 'this model')} has no linear head, which a probe needs"
        )

    def note(module: nn.Module, args: tuple[Any, ...]) -> None:
        seen.append(args[0])

    handle = head.register_forward_pre_hook(note)
    try:
        yield seen
    finally:
        handle.remove()
