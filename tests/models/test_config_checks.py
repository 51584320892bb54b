"""A config that makes no sense, half a run folder and a text too long end in one clear message; nothing is guessed."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModel, AutoTokenizer, PreTrainedConfig

from nlp_ft.errors import ModelError, RunFolderError
from nlp_ft.models.config_checks import check_config, usable_positions
from nlp_ft.models.configs import ImageClassifierConfig, PooledClassifierConfig
from nlp_ft.models.image_classifier import ImageClassifier
from nlp_ft.models.text import build_classifier, load_tokenizer
from nlp_ft.prediction.predict import load_run
from nlp_ft.recipe import TextRecipe
from nlp_ft.recipe.loader import dump_yaml, recipe_from_dict
from nlp_ft.recipe.text import TextModelSection
from nlp_ft.training.inspection import describe_layers
from tests.layerwise.text_census import build
from tests.tiny import LABELS, save_tiny_encoder, tiny_config, tiny_recipe


def with_config(folder: Path, **changes: Any) -> None:
    values = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**values, **changes}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_size": 0}, "hidden_size must be a whole number of at least 1, got 0"),
        ({"hidden_size": "big"}, "field 'hidden_size': TypeError: Field 'hidden_size' expected int, got str"),
        ({"num_hidden_layers": -1}, "num_hidden_layers must be a whole number of at least 0, got -1"),
        ({"intermediate_size": 0}, "intermediate_size must be a whole number of at least 1, got 0"),
        ({"num_attention_heads": 3}, r"hidden size \(16\) is not a multiple of the number of attention heads \(3\)"),
        ({"hidden_act": "nope"}, "hidden_act must be one of: .*gelu.*, got 'nope'"),
        ({"hidden_dropout_prob": 7}, r"hidden_dropout_prob must be a number in \[0, 1\], got 7"),
        ({"attn_implementation": "someone/kernels"}, "attn_implementation must be one of: .*, got 'someone/kernels'"),
        ({"vocab_size": 7}, r"the tokenizer gives ids up to 18 \('the'\), but the embeddings have 7 rows"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_config_that_makes_no_sense_is_refused_in_one_line_without_weights(
    tiny_encoder: Path, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    folder = shutil.copytree(tiny_encoder, tmp_path / "encoder")
    with_config(folder, **changes)
    with pytest.raises(ModelError, match=message) as caught:
        describe_layers(str(folder))
    assert str(caught.value).startswith("model.name: ")
    assert "\n" not in str(caught.value)


def unknown(word: Any) -> Any:
    """A word that type checkers take for one of those which a setting knows."""
    return word


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (lambda: PooledClassifierConfig(tiny_config(), unknown("median")), "pooling must be one of: cls, .*'median'"),
        (lambda: PooledClassifierConfig(tiny_config(), head_dropout=7), r"head_dropout must be a number in \[0, 1\]"),
        (lambda: PooledClassifierConfig(tiny_config(hidden_size=0)), "hidden_size must be a whole number"),
        (
            lambda: ImageClassifierConfig(head_type=unknown("round")),
            "head_type must be one of: linear, bottleneck, got 'round'",
        ),
        (lambda: ImageClassifierConfig(image_size=0), "image_size must be a whole number of at least 1, got 0"),
        (lambda: ImageClassifier(ImageClassifierConfig("resnet0")).config, "backbone 'resnet0' is not a class"),
    ],
)
def test_our_own_configs_refuse_what_they_do_not_know(config: Any, message: str) -> None:
    with pytest.raises(ModelError, match=f"config.json: {message}"):
        check_config(config())


@pytest.mark.parametrize(
    ("model_type", "usable"),
    [
        ("bert", 64),
        ("xlm-roberta", 63),
        ("camembert", 63),
        ("convbert", 64),
        ("longformer", 63),
        ("gpt2", 64),
        ("deberta-v2", 64),
        ("ernie", 64),
        ("mpnet", 62),
        ("opt", 64),
        ("bart", 64),
        ("ctrl", 64),
        ("xlnet", None),
    ],
)
def test_usable_positions_are_the_longest_text_that_the_model_takes(model_type: str, usable: int | None) -> None:
    model = build(model_type).eval()
    assert usable_positions(model) == usable

    def run(length: int) -> None:
        ids = torch.full((1, length), 7)
        ids[:, [4, 5, length - 1]] = 2  # ends of texts: BART wants one, Longformer three
        with torch.no_grad():
            model(input_ids=ids, attention_mask=torch.ones_like(ids))

    run(usable or 100)
    if usable:
        with pytest.raises((IndexError, RuntimeError)):
            run(usable + 1)


def test_a_decoder_without_a_padding_token_gets_that_of_its_tokenizer(tmp_path: Path) -> None:
    folder = save_tiny_encoder(tmp_path / "bert")
    config = AutoConfig.for_model("gpt2", vocab_size=19, n_embd=16, n_layer=2, n_head=2, n_positions=64)
    config.pad_token_id = None
    AutoModel.from_config(config).save_pretrained(folder)
    section = TextModelSection(name=str(folder))
    model = build_classifier(section, LABELS, load_tokenizer(section)).eval()
    assert model.config.pad_token_id == 0
    rows = [[7, 8], [9, 5, 6]]
    with torch.no_grad():
        alone = [model(input_ids=torch.tensor([row])).logits[0] for row in rows]
        batch = model(input_ids=torch.tensor([[7, 8, 0], rows[1]]), attention_mask=torch.tensor([[1, 1, 0], [1, 1, 1]]))
    torch.testing.assert_close(batch.logits, torch.stack(alone))


@pytest.fixture(scope="module")
def saved_run(tiny_encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with a random head: what loading reads, without a training."""
    folder = tmp_path_factory.mktemp("runs")
    values = tiny_recipe(folder, tiny_encoder)
    recipe = recipe_from_dict(values)
    assert isinstance(recipe, TextRecipe)
    tokenizer = load_tokenizer(recipe.model)
    build_classifier(recipe.model, LABELS, tokenizer).save_pretrained(folder / "run")
    tokenizer.save_pretrained(folder / "run")
    (folder / "run" / "recipe.yaml").write_text(dump_yaml(values))
    return folder / "run"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"id2label": {"0": "animal", "1": "colour", "3": "size"}}, "id2label has 3 labels but none for the id 2"),
        ({"id2label": {"0": "animal", "1": "size", "2": "size"}}, "id2label names 'size' twice"),
        (
            {"pooling": "median"},
            "pooling must be one of: cls, mean, max, attention, layer_mix, last_4, pooler, got 'median'",
        ),
        ({"encoder_config": None}, "encoder_config is missing"),
    ],
    ids=["hole", "twice", "pooling", "encoder"],
)
def test_half_a_run_folder_is_refused_by_name(
    saved_run: Path, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    folder = shutil.copytree(saved_run, tmp_path / "run")
    with_config(folder, **changes)
    with pytest.raises(RunFolderError, match=f"{folder}: its model is damaged: config.json: {message}"):
        load_run(folder)


def test_a_run_folder_without_the_config_of_its_tokenizer_is_refused(saved_run: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(saved_run, tmp_path / "run")
    (folder / "tokenizer_config.json").unlink()
    with pytest.raises(RunFolderError, match=r"it has no tokenizer_config\.json"):
        load_run(folder)


def test_a_saved_run_takes_what_peft_gives_it(saved_run: Path) -> None:
    run = load_run(saved_run)
    inputs = AutoTokenizer.from_pretrained(saved_run)("red cat", return_tensors="pt")
    given = {**inputs, "position_ids": torch.arange(inputs["input_ids"].shape[1])[None]}
    with torch.no_grad():
        plain = run.model(**inputs)
        output = run.model(**given, output_hidden_states=True, output_attentions=False, return_dict=True)
        pair = run.model(**inputs, labels=torch.tensor([0]), return_dict=False)
    torch.testing.assert_close(output.logits, plain.logits)
    assert (plain.hidden_states, len(output.hidden_states)) == (None, 3)
    assert [tuple(tensor.shape) for tensor in pair] == [(), (1, 3)]


def test_the_config_of_another_kind_passes() -> None:
    check_config(PreTrainedConfig())
