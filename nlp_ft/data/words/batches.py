"""Makes batches of words: pads the tokens, and beside them the labels of tokens, their words, and the tags of rows."""

from collections.abc import Sequence
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from nlp_ft.data.batch import IGNORED_LABEL, TOKEN_INPUTS
from nlp_ft.data.batch_loading import PaddingCollator, padded


class WordCollator(PaddingCollator):
    """Pads rows of `encode_tagged` to the longest of their batch. See `PaddingCollator`.

    A batch holds `input_ids`, `attention_mask`, ..., `labels` and `words`, (batch, seq_len), and `tags`, (batch, most
    words), all three filled up with -100; new inputs have neither `labels` nor `tags`.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        super().__init__(tokenizer, [*TOKEN_INPUTS, "labels", "words"])
        self._fill |= dict.fromkeys(("labels", "words"), IGNORED_LABEL)

    def __call__(self, rows: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        batch = super().__call__(rows)
        if "tags" in rows[0]:
            batch["tags"] = padded([row["tags"] for row in rows], IGNORED_LABEL, least=1)
        return batch
