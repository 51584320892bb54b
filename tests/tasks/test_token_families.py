"""Taggers of families with other tokenizers and other names of dropouts: DeBERTa with SentencePiece, DistilBERT."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from tokenizers.models import Unigram
from tokenizers.pre_tokenizers import Metaspace
from tokenizers.processors import TemplateProcessing
from transformers import AutoModel, AutoModelForTokenClassification, PreTrainedTokenizerFast

from nlp_ft.data.words.encoding import encode_words, word_tokenizer
from nlp_ft.errors import ModelError
from nlp_ft.models.text import build_classifier
from nlp_ft.prediction.predict import load_run
from nlp_ft.recipe.loader import recipe_from_dict
from nlp_ft.recipe.text import TextModelSection
from nlp_ft.recipe.words import WordsDataSection
from nlp_ft.tasks.registry import task_of
from nlp_ft.training.run import train
from tests.tiny import save_tiny_encoder, tiny_config
from tests.tiny_words import tagged_rows, words_recipe, write_rows

SPECIAL = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]"]
PIECES = ["▁the", "▁cat", "▁dog", "▁bi", "rd", "▁red", "▁gr", "een", "▁blue", "▁runs", "▁sle", "eps", "▁eats", "▁", "s"]


@pytest.fixture(scope="module")
def deberta(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny DeBERTa-v2 with a Unigram tokenizer as of SentencePiece: `▁` begins each word."""
    folder = tmp_path_factory.mktemp("deberta")
    vocabulary = [*((token, 0.0) for token in SPECIAL), *((piece, -1.0) for piece in PIECES)]
    tokenizer = Tokenizer(Unigram(vocabulary, unk_id=3))
    tokenizer.pre_tokenizer = Metaspace()
    tokenizer.post_processor = TemplateProcessing("[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)])
    names = {"pad_token": 0, "cls_token": 1, "sep_token": 2, "unk_token": 3, "mask_token": 4}
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_max_length=64, **{name: SPECIAL[place] for name, place in names.items()}
    ).save_pretrained(folder)
    torch.manual_seed(0)
    AutoModel.from_config(tiny_config("deberta-v2", vocab_size=len(vocabulary))).save_pretrained(folder)
    return folder


def test_the_first_piece_of_a_word_decides_its_tag(deberta: Path) -> None:
    tokenizer = word_tokenizer(PreTrainedTokenizerFast.from_pretrained(deberta))
    data = WordsDataSection(train="-", max_length=16, stride=2)
    encoded = encode_words([["the", "bird", "sleeps", "red"]], tokenizer, data)
    pieces = tokenizer.convert_ids_to_tokens(encoded["input_ids"][0])
    assert pieces == ["[CLS]", "▁the", "▁bi", "rd", "▁sle", "eps", "▁red", "[SEP]"]
    assert encoded["words"][0] == [-100, 0, 1, -100, 2, -100, 3, -100]


def test_a_run_of_one_file_with_a_split_column_learns_and_its_head_can_be_kept(deberta: Path, tmp_path: Path) -> None:
    folds = {"train": 120, "dev": 20}
    rows = [
        {**row, "fold": fold} for seed, (fold, number) in enumerate(folds.items()) for row in tagged_rows(number, seed)
    ]
    file = write_rows(tmp_path / "rows.jsonl", rows)
    data = {"source": str(file), "split_column": "fold", "train": "train", "validation": "dev", "test": None}
    training = {"duration": "15ep"}
    recipe = words_recipe(tmp_path, deberta, data=data, training=training, baselines=False)
    train(recipe_from_dict(recipe))
    run = tmp_path / "run"
    summary = json.loads((run / "summary.json").read_text())
    assert {split: of["rows"] for split, of in summary["data"].items()} == {"train": 120, "validation": 20}
    assert summary["metrics"]["validation"]["span_f1"] > 0.9
    text = "the bird sleeps red"
    assert [(one.text, one.label) for one in load_run(run).predict(text)] == [("bird", "animal"), ("red", "colour")]
    kept = recipe_from_dict({**recipe, "model": {"name": str(run), "keep_head": True}, "output_dir": "-"})
    task = task_of(kept)
    saved = load_file(run / "model.safetensors")["classifier.weight"]
    assert torch.equal(task.build_model(task.label_names()).state_dict()["classifier.weight"], saved)
    renewed = task_of(recipe_from_dict({**recipe, "model": {"name": str(run)}, "output_dir": "-"}))
    assert not torch.equal(renewed.build_model(task.label_names()).state_dict()["classifier.weight"], saved)


@pytest.mark.parametrize("model_type", ["bert", "distilbert", "deberta-v2", "electra", "mpnet"])
@pytest.mark.parametrize("pretrained", [True, False])
def test_the_dropout_of_the_head_is_set_whatever_the_configuration_calls_it(
    model_type: str, pretrained: bool, tmp_path: Path
) -> None:
    save_tiny_encoder(tmp_path, model_type)
    section = TextModelSection.model_validate({"name": str(tmp_path), "head": {"dropout": 0.37}})
    model = build_classifier(section, ["O", "x"], pretrained=pretrained, auto_class=AutoModelForTokenClassification)
    found = {name: module.p for name, module in model.named_modules() if isinstance(module, torch.nn.Dropout)}
    assert {name for name, p in found.items() if p == 0.37} == {"dropout"}


def test_the_dropout_of_a_head_that_has_none_is_refused(tmp_path: Path) -> None:
    save_tiny_encoder(tmp_path, "xlnet")
    section = TextModelSection.model_validate({"name": str(tmp_path), "head": {"dropout": 0.37}})
    with pytest.raises(ModelError, match=r"^model\.head\.dropout: XLNetForTokenClassification has no dropout before"):
        build_classifier(section, ["O", "x"], pretrained=False, auto_class=AutoModelForTokenClassification)
