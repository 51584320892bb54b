"""How far texts are from general English in the feature space of a pretrained encoder.

The distance of a text to its nearest neighbour among `GENERAL_TEXTS`, divided by that of these to each other. Vectors
are means over the tokens of the middle layer: there, registers of English prose lie close together, and other
languages, code and noise do not. It does not tell subjects apart: a legal text is as near as a tweet.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from nlp_ft.layerwise.eval_mode import evaluating
from nlp_ft.models.pooling import pool
from nlp_ft.study.advise.general_texts import GENERAL_TEXTS
from nlp_ft.study.advise.prior import SIMILAR
from nlp_ft.study.advise.words import count_words, texts_of, words_in
from nlp_ft.tasks.task import Task

ROWS = 64
"""Rows of train that are compared."""
MOST_TOKENS = 64
"""Where texts are cut: the vector of a long text is a mean of more, and lies elsewhere."""
MOST_UNKNOWN = 0.05
"""Share of unknown tokens in general English, up to which an encoder knows it."""
BATCH = 16
ROUNDING = 1e-6
"""A distance up to this is none, in float32."""


@dataclass(frozen=True)
class Domain:
    """The distance to general English, in the distances within it; None with the reason why it is not measured."""

    distance: float | None
    why_not: str = ""


def domain_of(task: Task, model: PreTrainedModel, seconds: float) -> Domain | None:
    """Measure how far rows of train are from general English; None where there are no texts.

    Args:
        task: the task.
        model: its network, on its device, with the pretrained weights.
        seconds: the time that it may take, about; a slower encoder is not measured.
    """
    if task.tokenizer is None:
        return None
    num_rows = task.data.windows("train").num_rows
    rows = np.unique(np.linspace(0, num_rows - 1, min(num_rows, ROWS)).round().astype(np.int64))
    joined = [" ".join(parts).strip() for parts in texts_of(task.data.inputs("train", rows))]
    texts = [text for text in joined if text]
    return domain_of_texts(texts, task.tokenizer, model, seconds) if texts else None


def domain_of_texts(
    texts: Sequence[str], tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel, seconds: float
) -> Domain:
    """Measure how far texts are from general English; see `domain_of`."""
    general = count_words(words_in(GENERAL_TEXTS), tokenizer)
    if general.tokens_per_word > SIMILAR or general.unknown > MOST_UNKNOWN:
        return Domain(None, "the tokenizer was not made for English, the language of the texts to compare with")
    begun = time.perf_counter()
    _vectors(GENERAL_TEXTS[:BATCH], tokenizer, model)
    needed = (time.perf_counter() - begun) * (len(GENERAL_TEXTS) + len(texts)) / BATCH
    if needed > seconds:
        return Domain(None, f"it would take {needed:.1f} s, and --budget leaves {seconds:.1f} s for it")
    vectors, reference = (_vectors(of, tokenizer, model) for of in (texts, GENERAL_TEXTS))
    distance = relative_distance(vectors, reference)
    return Domain(distance) if np.isfinite(distance) else Domain(None, "the encoder gives its vectors no distances")


def relative_distance(vectors: np.ndarray, reference: np.ndarray) -> float:
    """Divide the median distance to the nearest neighbour in the reference by that within the reference.

    Args:
        vectors: (texts, hidden).
        reference: (reference texts, hidden).

    Returns:
        The ratio of two medians of 1 - cosine; NaN where most of the reference is one vector.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        unit, of_reference = (of / np.linalg.norm(of, axis=1, keepdims=True) for of in (vectors, reference))
        within = 1 - of_reference @ of_reference.T
        np.fill_diagonal(within, np.inf)
        nearest = (1 - unit @ of_reference.T).min(1)
        apart = float(np.median(within.min(1)))
        return float(np.median(nearest)) / apart if apart > ROUNDING else float("nan")


def _vectors(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel) -> np.ndarray:
    """Compute the mean of the middle layer over the tokens of each text, (texts, hidden), in float64."""
    encoder: Any = model.base_model
    if encoder.config.is_encoder_decoder:
        encoder = encoder.get_encoder()
    found = []
    with evaluating(model), torch.inference_mode():
        for start in range(0, len(texts), BATCH):
            cut: Any = tokenizer(
                list(texts[start : start + BATCH]),
                padding=True,
                truncation=True,
                max_length=min(MOST_TOKENS, tokenizer.model_max_length),
                return_tensors="pt",
            )
            inputs: Mapping[str, torch.Tensor] = cut.to(model.device)
            layers = encoder(**inputs, output_hidden_states=True).hidden_states
            vectors = pool(layers[len(layers) // 2], inputs["attention_mask"], "mean")
            found.append(vectors.double().cpu().numpy())
    return np.concatenate(found)
