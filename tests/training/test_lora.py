"""Strategy lora: frozen weights to the bit, the merged model, PEFT's own reading of the adapter, resume, processes."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from nlp_ft.errors import ModelError, NlpFtError
from nlp_ft.layerwise import LayerMap
from nlp_ft.models.lora import add_adapters
from nlp_ft.patterns import endless_pattern
from nlp_ft.prediction.predict import load_run
from nlp_ft.recipe.loader import load_recipe, recipe_from_dict
from nlp_ft.recipe.strategy import LoraSection
from nlp_ft.training.inspection import audit_recipe, describe_layers, find_problems
from nlp_ft.training.run import train
from tests.layerwise.families import FAMILIES, build
from tests.rounding import assert_equal_but_for_rounding
from tests.tiny import save_tiny_encoder, tiny_recipe
from tests.tiny_decoders import save_tiny_decoder
from tests.training.test_gradual import assert_equal_to_the_bit, write_recipe
from tests.training.test_run import same, weights
from tests.training.watched import in_a_process, in_two_processes, watched_steps, watched_train

peft = pytest.importorskip("peft")
LORA: dict[str, Any] = {"name": "lora", "lora": {"rank": 2}}
TEXTS = ["the cat runs", "big", "the dog sleeps the bird eats cold"]


def run_in(folder: Path, encoder: Path, **changes: Any) -> Path:
    values = tiny_recipe(folder, encoder, **{"strategy": LORA, "model": {"pooling": "auto"}, **changes})
    train(recipe_from_dict(values))
    return folder / "run"


def logits_of(model: torch.nn.Module, folder: Path) -> torch.Tensor:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    with torch.no_grad():
        return model.eval()(**tokenizer(TEXTS, padding=True, return_tensors="pt")).logits


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny_encoder: Path) -> Path:
    return run_in(tmp_path_factory.mktemp("lora"), tiny_encoder)


def test_all_weights_but_those_of_adapters_and_head_are_the_pretrained_ones_to_the_bit(
    run: Path, tiny_encoder: Path
) -> None:
    before, after = load_file(tiny_encoder / "model.safetensors"), weights(run)
    changed = {name for name in before if not torch.equal(before[name], after[f"bert.{name}"])}
    # The pooler belongs to the head.
    adapted = [f"encoder.layer.{i}.attention.self.{name}.weight" for i in (0, 1) for name in ("query", "value")]
    assert changed == {*adapted, "pooler.dense.weight", "pooler.dense.bias"}


def test_the_saved_weights_are_the_pretrained_ones_and_the_scaled_products_of_the_adapter(
    run: Path, tiny_encoder: Path
) -> None:
    before, after = load_file(tiny_encoder / "model.safetensors"), weights(run)
    adapter = load_file(run / "adapter" / "adapter_model.safetensors")
    name = "encoder.layer.1.attention.self.query"
    low, high = (adapter[f"base_model.model.bert.{name}.lora_{side}.weight"] for side in "AB")
    assert (low.shape, high.shape) == ((2, 16), (16, 2))
    assert_equal_but_for_rounding(after[f"bert.{name}.weight"], before[f"{name}.weight"] + 16 / 2 * high @ low)


@pytest.mark.parametrize("kind", ["bert", "pooled", "gpt2", "llama"])
def test_the_merged_model_and_the_adapter_on_its_base_give_the_same_logits(tmp_path: Path, kind: str) -> None:
    is_decoder = kind in ("gpt2", "llama")
    encoder = save_tiny_decoder(tmp_path / "e", kind) if is_decoder else save_tiny_encoder(tmp_path / "e")
    pooling = "layer_mix" if kind == "pooled" else "auto"
    run = run_in(tmp_path, encoder, model={"pooling": pooling})
    merged = AutoModelForSequenceClassification.from_pretrained(run)
    source = merged.config if kind == "pooled" else AutoModelForSequenceClassification.from_pretrained(encoder).config
    source.num_labels, source.pad_token_id = 3, merged.config.pad_token_id
    base = AutoModelForSequenceClassification.from_config(source)
    pretrained = load_file(encoder / "model.safetensors")
    loaded = getattr(base, base.base_model_prefix).load_state_dict(pretrained, strict=False)
    assert {name.partition(".")[0] for name in loaded.unexpected_keys} <= {"pooler"}  # which layer_mix does not use
    assert {name.partition(".")[0] for name in loaded.missing_keys} == set()
    adapted = peft.PeftModel.from_pretrained(base, run / "adapter")
    assert_equal_but_for_rounding(logits_of(adapted, run), logits_of(merged, run))
    assert "lora" not in "".join(weights(run))


def test_a_saved_run_predicts_what_it_wrote_before_the_merge(run: Path) -> None:
    lines = (run / "test_predictions.csv").read_text().splitlines()
    header, rows = lines[0].split(","), [line.split(",") for line in lines[1:]]
    told = {row[header.index("text")]: float(row[header.index("score")]) for row in rows}
    found = load_run(run).predict(list(told))
    assert [prediction.score for prediction in found] == pytest.approx(list(told.values()), abs=2e-6)


@pytest.mark.slow
def test_a_killed_run_resumes_to_the_bit_with_its_adapter(tmp_path: Path, tiny_encoder: Path) -> None:
    strategy = {**LORA, "lora": {"rank": 2, "dropout": 0.1}}
    files = [write_recipe(tmp_path, tiny_encoder, name, strategy) for name in ("whole", "broken")]
    watched_train(str(files[0]))
    assert in_a_process(files[1], 6) == -9
    assert in_a_process(files[1], 10**9) == 0
    assert_equal_to_the_bit(tmp_path / "broken", tmp_path / "whole")
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        assert (tmp_path / "broken/adapter" / name).read_bytes() == (tmp_path / "whole/adapter" / name).read_bytes()


@pytest.mark.slow
def test_two_processes_end_as_one_does(tmp_path: Path, tiny_encoder: Path) -> None:
    settings: dict[str, Any] = {"dropout": 0.0, "head_dropout": 0.0}
    two = write_recipe(tmp_path, tiny_encoder, "two", LORA, per_device_batch_size=4, **settings)
    result = in_two_processes({two: {}})
    assert result.returncode == 0, result.stderr[-3000:]
    assert watched_steps(tmp_path / "two", 0) == watched_steps(tmp_path / "two", 1)
    train(load_recipe(str(write_recipe(tmp_path, tiny_encoder, "one", LORA, **settings))))
    one, other = weights(tmp_path / "one"), weights(tmp_path / "two")
    assert max(float((one[name] - other[name]).abs().max()) for name in one) < 1e-5


def test_adapters_in_the_top_block_leave_the_blocks_below_frozen_and_cached(
    tmp_path: Path, tiny_encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NLP_FT_CACHE", str(tmp_path / "cache"))
    strategy = {**LORA, "trainable_blocks": 1}
    found = {}
    for name, cache in (("off", "off"), ("auto", "auto")):
        settings = {"duration": "12ep", "evaluate_every": "4ep", "head_dropout": 0.0, "dropout": 0.0}
        train(load_recipe(str(write_recipe(tmp_path, tiny_encoder, name, strategy, feature_cache=cache, **settings))))
        found[name] = weights(tmp_path / name)
    assert {folder.name.rpartition("-")[2] for folder in (tmp_path / "cache/features").glob("*-*")} == {"1"}
    assert max(float((found["off"][key] - found["auto"][key]).abs().max()) for key in found["off"]) < 1e-5
    config = json.loads((tmp_path / "auto/adapter/adapter_config.json").read_text())
    assert config["target_modules"] == [f"encoder.encoder.layer.1.attention.self.{name}" for name in ("query", "value")]


def test_the_rates_of_adapters_decay_from_block_to_block_and_the_table_counts_what_trains(
    tmp_path: Path, tiny_encoder: Path
) -> None:
    changes = {"strategy": LORA, "optimizer": {"lr": 1e-3, "head_lr": 1e-2, "layer_decay": 0.5}}
    run = run_in(tmp_path, tiny_encoder, **changes, model={"pooling": "mean"})
    rows = [line.split() for line in (run / "layers.txt").read_text().splitlines()[2:6]]
    assert [(row[0], row[-4], row[-1]) for row in rows] == [
        ("3", "0.01", "yes"),
        ("2", "0.001", "128"),  # query and value, rank 2: 2 x (16 + 16) x 2
        ("1", "0.0005", "128"),
        ("0", "0.00025", "frozen"),
    ]
    assert json.loads((run / "summary.json").read_text())["num_trainable_parameters"] == 51 + 2 * 128


def test_the_layers_and_the_audit_of_a_recipe_know_the_adapters(tmp_path: Path, tiny_encoder: Path) -> None:
    file = write_recipe(tmp_path, tiny_encoder, "run", LORA)
    assert "128" in describe_layers(str(file))
    assert list(audit_recipe(str(file))) == []


@pytest.mark.parametrize("family", [name for name in FAMILIES if name != "xlnet"])
def test_every_family_has_adapters_in_each_block_and_its_logits_at_first(family: str) -> None:
    from tests.layerwise.families import batch

    model = build(family).eval()
    with torch.no_grad():
        before = model(**batch()).logits
        layer_map = LayerMap.from_model(model)
        adapters = add_adapters(model, LoraSection(), layer_map, "all", "base")
        assert torch.equal(model(**batch()).logits, before)
    after = LayerMap.from_model(model)
    own = [name for name, _ in model.named_parameters() if ".lora_" in name]
    assert {after.layer_id(name) for name in own} == set(range(1, layer_map.num_layers + 1))
    assert {*own, *adapters.frozen, *adapters.head} == {name for name, _ in model.named_parameters()}


def test_patterns_choose_the_linear_layers_of_the_blocks() -> None:
    model = build("bert")
    section = LoraSection(target_modules=[r"attention\.self\.key$", r"layer\.1\.output\.dense"])
    adapters = add_adapters(model, section, LayerMap.from_model(model), "all", "base")
    assert adapters.config.target_modules == [
        "bert.encoder.layer.0.attention.self.key",
        "bert.encoder.layer.1.attention.self.key",
        "bert.encoder.layer.1.output.dense",
    ]


def test_a_pattern_without_a_layer_is_refused_with_the_names_there_are(tmp_path: Path, tiny_encoder: Path) -> None:
    strategy = {**LORA, "lora": {"target_modules": ["q_proj"]}}
    [problem] = find_problems(load_recipe(str(write_recipe(tmp_path, tiny_encoder, "run", strategy))))
    assert problem.startswith(
        "strategy.lora.target_modules: 'q_proj' matches no linear layer of these blocks; there are "
    )
    assert "layer.1.attention.self.query" in problem


def test_an_architecture_without_known_queries_is_refused_with_the_names_there_are() -> None:
    model = build("xlnet")
    with pytest.raises(ModelError, match="no queries and values are known of xlnet; name its linear layers"):
        add_adapters(model, LoraSection(), LayerMap.from_model(model), "all", "base")


def test_a_pattern_that_backtracks_for_ever_is_refused_in_place_of_a_hang(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nlp_ft.models.lora.endless_pattern", lambda found, names: endless_pattern(found, names, 1))
    model, section = build("xlnet"), LoraSection(target_modules=["((.*)*.*)*!"])
    with pytest.raises(ModelError, match=r"^strategy\.lora\.target_modules: the search for '\(\(\.\*\)\*"):
        add_adapters(model, section, LayerMap.from_model(model), "all", "base")


def test_without_peft_a_message_says_how_to_install_it(
    tmp_path: Path, tiny_encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    file = write_recipe(tmp_path, tiny_encoder, "run", LORA)
    assert find_problems(load_recipe(str(file))) == [
        "strategy lora needs peft, which is not installed; try: pip install 'nlp-ft[lora]'"
    ]


@pytest.mark.parametrize(
    ("strategy", "message"),
    [
        ({"name": "lora", "trainable_blocks": 0}, "trainable_blocks must be at least 1 under lora"),
        ({"name": "lora", "reinit_top": 1}, "reinit_top has no place under lora"),
        ({"name": "lora", "lora": None}, "lora must not be null under lora"),
        ({"name": "full", "lora": {}}, "lora belongs to strategy lora, got it under full"),
        ({"name": "lora", "lora": {"rank": 0}}, "strategy.lora.rank must be in \\[1, 4096\\], got 0"),
        ({"name": "lora", "lora": {"target_modules": []}}, "strategy.lora.target_modules"),
        ({"name": "lora", "unfreeze": {"every": "1ep"}}, "unfreeze belongs to gradual"),
    ],
)
def test_settings_that_make_no_sense_are_refused(
    tmp_path: Path, tiny_encoder: Path, strategy: dict[str, Any], message: str
) -> None:
    with pytest.raises(NlpFtError, match=message):
        recipe_from_dict(tiny_recipe(tmp_path, tiny_encoder, strategy=strategy))


def test_a_run_repeats_to_the_bit(run: Path, tmp_path: Path, tiny_encoder: Path) -> None:
    assert same(weights(run_in(tmp_path, tiny_encoder)), weights(run))


def test_the_adapter_of_a_regression_holds_the_head_that_gives_numbers_in_the_unit_of_the_data(
    tmp_path: Path, tiny_encoder: Path
) -> None:
    (tmp_path / "numbers.csv").write_text(
        "text,label\n" + "".join(f"the cat {'runs ' * (i % 4)},{70 + i % 4}\n" for i in range(24))
    )
    data = {"train": str(tmp_path / "numbers.csv"), "validation": None, "test": None}
    training = {"metric": "spearman", "duration": "1ep"}
    run = run_in(tmp_path, tiny_encoder, task="text_regression", data=data, training=training)
    saved, adapter = weights(run), load_file(run / "adapter/adapter_model.safetensors")
    for name in ("classifier.weight", "classifier.bias"):
        assert torch.equal(adapter[f"base_model.model.{name}"], saved[name])
    # In the unit of the deviation the bias would be near 0.
    assert saved["classifier.bias"].item() == pytest.approx(71.5, abs=1)
