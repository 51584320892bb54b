"""Decoders as classifiers: the side of the padding, its token and the rows beside a text change no logit."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    LlamaTokenizer,
    PreTrainedTokenizerBase,
)

from nlp_ft.data.batch_loading import PaddingCollator
from nlp_ft.data.tokens import encode_texts
from nlp_ft.models.pooled_classifier import PooledClassifier, is_decoder
from nlp_ft.models.text import build_classifier, load_tokenizer
from nlp_ft.recipe.text import TextDataSection, TextModelSection
from tests.layerwise.families import FAMILIES
from tests.rounding import assert_equal_but_for_rounding
from tests.tiny_decoders import DECODERS, END, PAD, save_tiny_decoder

TEXTS = ["the cat runs", "big", "the dog sleeps the bird eats cold", "red red small warm"]
LABELS = ["animal", "colour", "size"]
POOLINGS = ["auto", "cls", "mean", "max", "attention", "layer_mix", "last_4"]


def classifier(folder: Path, **settings: Any) -> tuple[Any, PreTrainedTokenizerBase]:
    """A classifier in eval mode as a run makes it, and its tokenizer."""
    section = TextModelSection.model_validate({"name": str(folder), **settings})
    tokenizer = load_tokenizer(section)
    torch.manual_seed(1)
    return build_classifier(section, LABELS, tokenizer).eval(), tokenizer


def batch_of(tokenizer: PreTrainedTokenizerBase, texts: list[str], side: str) -> dict[str, torch.Tensor]:
    """The ids and the mask, and the positions by which plain classes know where a text begins."""
    batch = tokenizer(texts, padding=True, padding_side=side, return_tensors="pt")
    return {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}


def positions(mask: torch.Tensor) -> torch.Tensor:
    return (mask.cumsum(-1) - 1).clamp(min=0)


@pytest.mark.parametrize("has_padding", [True, False])
@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("model_type", DECODERS)
def test_a_batch_padded_on_either_side_equals_single_rows(
    tmp_path: Path, model_type: str, pooling: str, has_padding: bool
) -> None:
    model, tokenizer = classifier(save_tiny_decoder(tmp_path, model_type, has_padding), pooling=pooling)
    assert isinstance(model, PooledClassifier) is (pooling != "auto")
    right, left = (batch_of(tokenizer, TEXTS, side) for side in ("right", "left"))
    assert (left["input_ids"] != right["input_ids"]).any()
    if pooling == "auto":  # a plain class counts positions from the first place of the batch, unless it is told them
        left["position_ids"] = positions(left["attention_mask"])
    with torch.no_grad():
        expected = torch.cat([model(**batch_of(tokenizer, [text], "right")).logits for text in TEXTS])
        assert_equal_but_for_rounding(model(**right).logits, expected)
        assert_equal_but_for_rounding(model(**left).logits, expected)
    assert len({tuple(row) for row in expected.tolist()}) == len(TEXTS)


@pytest.mark.parametrize("model_type", DECODERS)
def test_what_a_run_pads_gives_the_logits_of_single_rows(tmp_path: Path, model_type: str) -> None:
    model, tokenizer = classifier(save_tiny_decoder(tmp_path, model_type))
    encoded = encode_texts([[*TEXTS, ""]], tokenizer, TextDataSection(train="a.csv", max_length=16))
    rows = [{"input_ids": ids} for ids in encoded["input_ids"]]
    collator = PaddingCollator(tokenizer, ["input_ids"])
    with torch.no_grad():
        expected = torch.cat([model(**collator([row])).logits for row in rows])
        assert_equal_but_for_rounding(model(**collator(rows)).logits, expected)


def test_an_empty_text_is_the_end_token_and_no_other_text_is_changed(tmp_path: Path) -> None:
    _, tokenizer = classifier(save_tiny_decoder(tmp_path))
    encoded = encode_texts([["", "big cat"]], tokenizer, TextDataSection(train="a.csv", max_length=16))
    assert tokenizer.batch_decode(encoded["input_ids"]) == [END, "big cat"]


def test_a_text_that_ends_in_the_token_that_pads_has_the_same_logits_alone_and_padded(tmp_path: Path) -> None:
    model, tokenizer = classifier(save_tiny_decoder(tmp_path))
    texts = [f"the cat {END}", TEXTS[2]]
    with torch.no_grad():
        expected = torch.cat([model(**batch_of(tokenizer, [text], "right")).logits for text in texts])
        assert_equal_but_for_rounding(model(**batch_of(tokenizer, texts, "right")).logits, expected)


def test_without_a_padding_token_the_end_token_pads_and_that_is_said_once(tmp_path: Path) -> None:
    folder, notes = save_tiny_decoder(tmp_path), list[str]()
    tokenizer = load_tokenizer(TextModelSection(name=str(folder)), notes.append)
    assert (tokenizer.pad_token, tokenizer.padding_side) == (END, "right")
    assert notes == [f"{folder} has no padding token; its end token {END} pads, which no text sees"]


def test_a_saved_tokenizer_pads_on_the_right_also_where_its_class_pads_on_the_left(tmp_path: Path) -> None:
    folder = save_tiny_decoder(tmp_path / "model", "llama")
    LlamaTokenizer(vocab={"<unk>": 0, "<s>": 1, "</s>": 2, "a": 3}, merges=[]).save_pretrained(folder)
    assert LlamaTokenizer.from_pretrained(folder).padding_side == "left"
    load_tokenizer(TextModelSection(name=str(folder))).save_pretrained(tmp_path / "run")
    assert LlamaTokenizer.from_pretrained(tmp_path / "run").padding_side == "right"


def test_a_padding_token_of_its_own_is_kept_and_nothing_is_said(tmp_path: Path) -> None:
    folder, notes = save_tiny_decoder(tmp_path, has_padding=True), list[str]()
    assert load_tokenizer(TextModelSection(name=str(folder)), notes.append).pad_token == PAD
    assert notes == []


def test_the_config_finds_the_last_token_by_the_token_of_the_tokenizer(tmp_path: Path) -> None:
    folder = save_tiny_decoder(tmp_path, "llama", has_padding=True)
    config = AutoConfig.from_pretrained(folder)
    config.pad_token_id = 7  # of another tokenizer, as some published folders have it
    config.save_pretrained(folder)
    model, tokenizer = classifier(folder)
    assert model.config.pad_token_id == tokenizer.pad_token_id == 2


@pytest.mark.parametrize("settings", [{}, {"pooling": "mean"}, {"head": {"type": "bottleneck", "bottleneck_size": 8}}])
@pytest.mark.parametrize("model_type", DECODERS)
def test_a_saved_decoder_loads_by_the_auto_class_with_equal_logits(
    tmp_path: Path, model_type: str, settings: dict[str, Any]
) -> None:
    model, tokenizer = classifier(save_tiny_decoder(tmp_path / "decoder", model_type), **settings)
    for part in (model, tokenizer):
        part.save_pretrained(tmp_path / "saved")
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path / "saved")
    own = AutoTokenizer.from_pretrained(tmp_path / "saved")
    with torch.no_grad():
        found = loaded(**own(TEXTS, padding=True, return_tensors="pt")).logits
        assert_equal_but_for_rounding(found, model(**batch_of(tokenizer, TEXTS, "right")).logits)


def test_a_bottleneck_on_a_decoder_reads_the_last_token_as_its_own_classifier_does(tmp_path: Path) -> None:
    model, tokenizer = classifier(save_tiny_decoder(tmp_path), head={"type": "bottleneck", "bottleneck_size": 8})
    assert (model.config.pooling, model.config.cls_position) == ("cls", "last")
    with torch.no_grad():
        ids = tokenizer("the cat runs", return_tensors="pt")
        last = model.encoder(**ids).last_hidden_state[:, -1]
        assert_equal_but_for_rounding(model(**ids).logits, model.head(last))


def test_decoders_are_told_from_encoders() -> None:
    assert all(is_decoder(AutoConfig.for_model(name)) for name in DECODERS)
    assert not any(is_decoder(AutoConfig.for_model(name)) for name in [*FAMILIES, "bart", "t5", "xlm-roberta"])
