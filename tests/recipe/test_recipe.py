"""Recipes: YAML 1.2, every problem at once in plain words, presets, overrides, and the way back to a file."""

import math
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import ValidationError

from nlp_ft.durations import Duration
from nlp_ft.errors import RecipeError
from nlp_ft.recipe.loader import (
    apply_overrides,
    dump_yaml,
    load_recipe,
    read_yaml,
    recipe_from_dict,
    recipe_to_dict,
)
from nlp_ft.recipe.presets import STRATEGY_PRESETS
from nlp_ft.recipe.strategy import StrategySection

SHIPPED = sorted((Path(__file__).parents[2] / "recipes").glob("*.yaml"))
PLANTED_MISTAKES = """
data: {source: a.csv, split_column: split, truncation: hed, num_proc: 0, valdation: validation}
model: {pooling: avg, head: {dropout: 1.5, activaton: relu}, dropout: -0.1}
strategy: lrd
optimizer: {name: adam, lr: 0, layer_decay: 9.0, warmup: 10%}
schedule: {warmup: 110%}
loss: {label_smoothing: 10}
training: {duration: 3 epochs, metric: acuracy, early_stopping: {patience: 0}}
seed: -1
trackers: [wandb, tensorbord]
layer_decay: 0.9
"""
EXPECTED_LINES = [
    "data.num_proc must be in [1, 1024], got 0",
    "data.truncation must be 'head', 'tail', 'head_tail' or 'windows', got 'hed'; did you mean head?",
    "data.valdation is not a key of a recipe; did you mean validation?",
    "model.name is missing: Hub id, folder, or `package:NAME/PATH` in an installed package, of the encoder. Its "
    "weights must be safetensors.",
    "model.head.dropout must be in [0, 1), got 1.5; did you mean 0.15?",
    "model.head.activaton is not a key of a recipe; did you mean activation?",
    "model.pooling must be 'auto', 'cls', 'mean', 'max', 'attention', 'layer_mix', 'last_4' or 'pooler', got 'avg'",
    "model.dropout must be in [0, 1), got -0.1",
    "strategy.name must be 'full', 'llrd', 'head_only', 'top_layers', 'gradual', 'lp_ft', 'discriminative', 'ulmfit', "
    "'lora', 'probe' or 'scratch', got 'lrd'; did you mean llrd?",
    "optimizer.name must be 'adamw', 'adafactor', 'sgd' or 'lion', got 'adam'; did you mean adamw?",
    "optimizer.lr must be in (0, 10), got 0",
    "optimizer.layer_decay must be in (0, 1], got 9.0; did you mean 0.9?",
    "optimizer.warmup is not a key of a recipe; did you mean schedule.warmup?",
    "schedule.warmup must be at most 100%, got '110%'",
    "loss.label_smoothing must be in [0, 1), got 10; did you mean 0.1?",
    "training.duration must be a duration such as 3ep (epochs), 200st (steps) or 10% (of the run), got '3 epochs'",
    "training.metric must be 'accuracy', 'macro_f1', 'micro_f1', 'weighted_f1', 'matthews', 'loss', 'samples_f1', "
    "'average_precision', 'subset_accuracy', 'hamming_loss', 'spearman', 'pearson', 'mse', 'rmse', 'mae', 'span_f1', "
    "'span_precision', 'span_recall', 'f1', 'exact_match' or 'above_chance', got 'acuracy'; "
    "did you mean accuracy?",
    "training.early_stopping.patience must be in [1, 1000000], got 0",
    "seed must be in [0, 4294967296), got -1",
    "output_dir is missing: The run folder, which the run makes. If it exists, `--resume` continues the run in it and "
    "`--overwrite` replaces it.",
    "trackers.1 must be 'tensorboard', 'wandb' or 'trackio', got 'tensorbord'; did you mean tensorboard?",
    "layer_decay is not a key of a recipe; did you mean optimizer.layer_decay?",
]


def a_recipe(**changes: Any) -> dict[str, Any]:
    return {"data": {"train": "a.csv"}, "model": {"name": "m"}, "output_dir": "runs/x", **changes}


def with_data(**changes: Any) -> dict[str, Any]:
    return a_recipe(data={"train": "a.csv", **changes})


def written(folder: Path, text: str | bytes) -> Path:
    file = folder / "r.yaml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return file


def problems(values: dict[str, Any]) -> list[str]:
    with pytest.raises(RecipeError) as caught:
        recipe_from_dict(values, "r.yaml")
    return [line.removeprefix("r.yaml: ") for line in str(caught.value).splitlines()]


@pytest.mark.parametrize(
    ("scalar", "value"),
    [
        ("2e-5", 2e-5), ("1e3", 1000.0), (".5", 0.5), ("-1.", -1.0), ("-.INF", -math.inf), ("010", 10), ("+4", 4),
        ("no", "no"), ("yes", "yes"), ("on", "on"), ("12:30", "12:30"), ("2024-01-01", "2024-01-01"), ("1_0", "1_0"),
        ("null", None), ("~", None), ("", None), ("true", True), ("False", False), ("'1'", "1"), ("3ep", "3ep"),
    ],
)  # fmt: skip
def test_scalars_are_those_of_yaml_1_2(scalar: str, value: object, tmp_path: Path) -> None:
    read = read_yaml(written(tmp_path, f"key: {scalar}\n"))["key"]
    assert (read, type(read)) == (value, type(value))


def test_a_section_without_keys_has_its_defaults_and_one_of_an_unknown_name_is_refused() -> None:
    assert recipe_from_dict(a_recipe(optimizer=None)) == recipe_from_dict(a_recipe())
    assert problems(a_recipe(optimiser=None)) == ["optimiser is not a key of a recipe; did you mean optimizer?"]


def test_no_is_a_label_name_and_switches_a_boolean_off(tmp_path: Path) -> None:
    text = "data: {train: a.csv, label_names: [no, yes]}\nmodel: {name: m}\noutput_dir: x\nbaselines: no\n"
    recipe = load_recipe(written(tmp_path, text))
    assert (recipe.data.label_names, recipe.baselines) == (["no", "yes"], False)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "must hold `key: value` lines, got nothing"),
        ("- a\n- b\n", r"must hold `key: value` lines, got '- a\n- b\n'"),
        (b"\xff\xfe\x00\x01", "cannot be read as a recipe: is not UTF-8 text"),
        (b"a\x00b", "not valid YAML: unacceptable character #x0000: special characters are not allowed"),
        ("data:\n  train: a\n  train: b\n", "line 3, column 3: not valid YAML: train is given twice"),
        ("seed: 1\ntext: a: b\n", "line 2, column 8: not valid YAML: mapping values are not allowed here"),
        ("a: [1\n", "line 2, column 1: not valid YAML: expected ',' or ']', but got '<stream end>'"),
        ("1: a\n", "line 1, column 1: not valid YAML: key 1 must be text"),
        ("a: !!python/name:os.system\n", "line 1, column 4: not valid YAML: could not determine a constructor for the "
         "tag 'tag:yaml.org,2002:python/name:os.system'"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_recipe_is_refused_with_the_place(text: str | bytes, message: str, tmp_path: Path) -> None:
    file = written(tmp_path, text)
    with pytest.raises(RecipeError) as caught:
        load_recipe(file)
    assert str(caught.value) == f"{file}: {message}"


def test_a_missing_file_a_folder_and_a_circular_alias_are_recipe_errors(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"none\.yaml: there is no such file$"):
        load_recipe(tmp_path / "none.yaml")
    with pytest.raises(RecipeError, match=r"cannot be read as a recipe: Is a directory$"):
        load_recipe(tmp_path)
    with pytest.raises(RecipeError):
        load_recipe(written(tmp_path, "data: &d {train: *d}\n"))


def test_every_planted_mistake_is_reported_at_once(tmp_path: Path) -> None:
    file = written(tmp_path, PLANTED_MISTAKES)
    with pytest.raises(RecipeError) as caught:
        load_recipe(file)
    assert str(caught.value).splitlines() == [f"{file}: {line}" for line in EXPECTED_LINES]


def test_a_problem_has_the_form_of_the_design_page_to_the_letter() -> None:
    with pytest.raises(RecipeError) as caught:
        recipe_from_dict(a_recipe(optimizer={"layer_decay": 9.0}), "recipes/sst2.yaml")
    problem = str(caught.value)
    assert problem == "recipes/sst2.yaml: optimizer.layer_decay must be in (0, 1], got 9.0; did you mean 0.9?"


@pytest.mark.parametrize(
    ("values", "line"),
    [
        (with_data(max_length="two"), "data.max_length must be a whole number, got 'two'"),
        (with_data(label_names=["a"]), "data.label_names must have at least 2 items, got ['a']"),
        (with_data(label_names=["a", "b", "a"]), "data.label_names must name each label once, got 'a' twice"),
        (with_data(train=3), "data.train must be a text or a list of texts, got 3; put it in quotes"),
        (with_data(train=[]), "data.train must name at least one file, got []"),
        (a_recipe(optimizer={"lr": "fast"}), "optimizer.lr must be a number, got 'fast'"),
        (a_recipe(optimizer=3), "optimizer must be a section of `key: value` lines, got 3"),
        (a_recipe(optimizer=[]), "optimizer must be a section of `key: value` lines, got []"),
        (a_recipe(strategy={"name": "top_layers", "trainable_blocks": "two"}),
         "strategy.trainable_blocks must be a whole number or 'all', got 'two'"),
        (a_recipe(schedule={"warmup": 10}), "schedule.warmup must be a duration such as 3ep (epochs), 200st (steps) "
         "or 10% (of the run), got 10; did you mean 10ep or 10st?"),
        (a_recipe(loss={"class_weights": {"a": 0, "b": 1}}), "loss.class_weights.a must be at least 1e-06, got 0"),
        (a_recipe(training={"batch_size": 8}),
         "training.batch_size is not a key of a recipe; did you mean per_device_batch_size?"),
        (a_recipe(training={"max_tokens_per_batch": 0}),
         "training.max_tokens_per_batch must be in [1, 1000000000], got 0"),
        (a_recipe(baselines="maybe"), "baselines must be 'auto' or true or false, got 'maybe'"),
        (a_recipe(trackers="wandb"), "trackers must be a list, got 'wandb'"),
    ],
)  # fmt: skip
def test_one_mistake_is_one_line_in_plain_words(values: dict[str, Any], line: str) -> None:
    assert problems(values) == [line]


@pytest.mark.parametrize(
    ("values", "line"),
    [
        (with_data(text=["a"]), "data.text must be one column or a list of two, got 1"),
        (with_data(text=["a", "b"], truncation="head_tail"),
         "data.truncation head_tail needs a single text; use head or tail for pairs"),
        (with_data(truncation="head_tail", head_tokens=126),
         "data.head_tokens must leave room for the end of the text within max_length 128, got 126"),
        (with_data(split_column="s"), "data.split_column needs source, the file(s) that hold that column"),
        (with_data(validation="100%"), "data.validation must be a share between 0% and 100%, got 100%"),
        (with_data(test="10%"), "data.test must be rows of their own, got 10%; a share of train is for validation"),
        (with_data(config="sst2"), "data.config and revision belong to a Hub data set; name it in source"),
        (a_recipe(data={}), "data.train must name the training file(s), or source the data set"),
        (a_recipe(strategy={"name": "head_only", "trainable_blocks": 2}),
         "strategy.trainable_blocks must be 0 under head_only, got 2; did you mean strategy.name: top_layers?"),
        (a_recipe(strategy={"trainable_blocks": 2}),
         "strategy.trainable_blocks must be all under llrd, got 2; did you mean strategy.name: top_layers?"),
        (a_recipe(strategy={"name": "top_layers", "trainable_blocks": -1}),
         "strategy.trainable_blocks must be at least 0 or 'all', got -1"),
        (a_recipe(strategy={"name": "full", "unfreeze": {}}),
         "strategy.unfreeze belongs to gradual, lp_ft, ulmfit, got it under full"),
        (a_recipe(strategy={"name": "gradual", "unfreeze": None}),
         "strategy.unfreeze must not be null under gradual; take the line away for its preset"),
        (a_recipe(strategy={"name": "scratch", "reinit_top": 1}),
         "strategy.reinit_top has no meaning under scratch, where all weights are random"),
        (a_recipe(strategy={"name": "gradual", "unfreeze": {"every": "1ep", "loss_below": {"value": 1}}}),
         "strategy.unfreeze.every and loss_below cannot both end a phase; give one"),
        (a_recipe(strategy={"name": "gradual", "unfreeze": {"layers": "head: 0st", "order": "bottom_up"}}),
         "strategy.unfreeze.layers says when each layer trains, so order has no place beside it"),
        (a_recipe(strategy={"name": "lp_ft", "unfreeze": {"blocks_per_phase": 2}}),
         "strategy.unfreeze.blocks_per_phase 2 has no place under order all_at_once, whose second phase trains all "
         "blocks"),
        (a_recipe(strategy="scratch", model={"name": "m", "keep_head": True}),
         "model.keep_head has no meaning under scratch, where all weights are random"),
        (with_data(text=["a", "a"]), "data.text must name two columns for pairs, got 'a' twice"),
        (a_recipe(strategy={"name": "llrd", "reinit_top": 1}, model={"name": "m", "keep_head": True}),
         "model.keep_head has no place beside strategy.reinit_top, which also renews the head"),
        (a_recipe(strategy={"name": "gradual", "unfreeze": {"plateau": {}}}),
         "strategy.unfreeze.plateau needs data.validation, a split or a share such as 10%"),
        (a_recipe(strategy={"name": "gradual", "unfreeze": {"restore_best": True}}),
         "strategy.unfreeze.restore_best needs data.validation, a split or a share such as 10%"),
        (a_recipe(strategy="full", optimizer={"layer_decay": 0.9}),
         "strategy full trains all layers at one rate, but optimizer.layer_decay is 0.9; set it to 1, or did you mean "
         "strategy: llrd?"),
        (a_recipe(optimizer={"name": "sgd", "betas": [0.9, 0.99]}),
         "optimizer.betas is a setting of adamw and lion, not of sgd"),
        (a_recipe(optimizer={"name": "lion", "eps": 1e-8}), "optimizer.eps is a setting of adamw, not of lion"),
        (a_recipe(optimizer={"momentum": 0.9}), "optimizer.momentum is a setting of sgd, not of adamw"),
        (a_recipe(optimizer={"betas": [0.9, 1]}), "optimizer.betas must be two numbers in [0, 1), got [0.9, 1.0]"),
        (a_recipe(training={"evaluate_every": "10%"}),
         "training.evaluate_every must be epochs or steps above 0, such as 3ep or 200st, got 10%"),
        (a_recipe(training={"max_tokens_per_batch": 512, "group_by_length": False}),
         "training.max_tokens_per_batch puts texts of like length together, so group_by_length: false has no place "
         "beside it; take one of the two away"),
        (a_recipe(training={"early_stopping": {}}),
         "training.early_stopping needs data.validation, a split or a share such as 10%"),
        (a_recipe(data={"train": "a.csv", "label_names": ["a", "b"]}, loss={"class_weights": {"a": 1, "c": 2}}),
         "loss.class_weights must name exactly the labels of data.label_names: ['a', 'b']"),
    ],
)  # fmt: skip
def test_fields_that_contradict_each_other_are_refused(values: dict[str, Any], line: str) -> None:
    assert problems(values) == [line]


@pytest.mark.parametrize(
    ("strategy", "blocks", "unfreezes", "layer_decay", "lr", "head_lr"),
    [
        ("full", "all", False, 1.0, None, None),
        ("llrd", "all", False, 0.9, None, None),
        ("head_only", 0, False, 1.0, None, None),
        ("top_layers", 2, False, 1.0, None, None),
        ("gradual", "all", True, 0.9, None, None),
        ("lp_ft", "all", True, 1.0, None, None),
        ("discriminative", "all", False, 1.0, 1e-5, 1e-3),
        ("ulmfit", "all", True, 1 / 2.6, None, None),
        ("scratch", "all", False, 1.0, None, None),
    ],
)
def test_a_strategy_stands_for_its_preset(
    strategy: str, blocks: int | str, unfreezes: bool, layer_decay: float, lr: float | None, head_lr: float | None
) -> None:
    recipe = recipe_from_dict(a_recipe(strategy=strategy))
    assert recipe == recipe_from_dict(a_recipe(strategy={"name": strategy}))
    assert recipe == recipe_from_dict(recipe_to_dict(recipe))
    assert (recipe.strategy.trainable_blocks, recipe.strategy.unfreeze is not None) == (blocks, unfreezes)
    assert (recipe.optimizer.layer_decay, recipe.optimizer.lr, recipe.optimizer.head_lr) == (layer_decay, lr, head_lr)


def test_every_preset_is_the_strategy_of_a_recipe() -> None:
    names = StrategySection.model_fields["name"].annotation
    assert list(STRATEGY_PRESETS) == list(get_args(names))


@pytest.mark.parametrize(
    ("unfreeze", "kept"),
    [
        ({}, {"order": "all_at_once", "every": Duration(30, "%"), "restart_lr": True}),
        ({"every": "1ep"}, {"order": "all_at_once", "every": Duration(1, "ep")}),
        ({"plateau": {"patience": 2}}, {"order": "all_at_once", "every": None}),
        ({"layers": "head: 0st, 1-2: 1ep, embeddings: never"}, {"order": "top_down", "every": None}),
    ],
)
def test_what_a_recipe_says_of_unfreezing_goes_before_its_preset(unfreeze: Any, kept: dict[str, Any]) -> None:
    recipe = recipe_from_dict(
        a_recipe(data={"train": "a", "validation": "b"}, strategy={"name": "lp_ft", "unfreeze": unfreeze})
    )
    section = recipe.strategy.unfreeze
    assert {name: getattr(section, name) for name in kept} == kept
    assert recipe == recipe_from_dict(recipe_to_dict(recipe))


def test_the_recipe_goes_before_the_preset_and_llrd_is_the_default() -> None:
    recipe = recipe_from_dict(a_recipe(strategy="head_only", optimizer={"lr": 0.5, "name": "sgd"}))
    assert (recipe.optimizer.lr, recipe.optimizer.layer_decay, recipe.optimizer.name) == (0.5, 1.0, "sgd")
    assert recipe_from_dict(a_recipe()) == recipe_from_dict(a_recipe(strategy="llrd"))


def test_a_recipe_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        recipe_from_dict(a_recipe()).seed = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    ("overrides", "result"),
    [
        (["optimizer.lr=1e-4", "optimizer.lr=2e-4"], {"optimizer": {"lr": 2e-4}}),
        (["training.early_stopping.patience=2"], {"training": {"early_stopping": {"patience": 2}}}),
        (["strategy.trainable_blocks=3"], {"strategy": {"name": "top_layers", "trainable_blocks": 3}}),
        (["data.label_names=[no, yes]"], {"data": {"train": "a.csv", "label_names": ["no", "yes"]}}),
        (["data.train=a=b.csv"], {"data": {"train": "a=b.csv"}}),
        (["output_dir="], {"output_dir": None}),
    ],
)
def test_an_override_goes_before_the_recipe(overrides: list[str], result: dict[str, Any]) -> None:
    values = a_recipe(strategy="top_layers")
    assert apply_overrides(values, overrides) == {**values, **result}
    assert values == a_recipe(strategy="top_layers")


def test_load_recipe_applies_the_overrides(tmp_path: Path) -> None:
    file = written(tmp_path, dump_yaml(a_recipe(strategy="top_layers")))
    recipe = load_recipe(file, ["strategy.trainable_blocks=3", "schedule.warmup=0.5ep"])
    assert (recipe.strategy.trainable_blocks, recipe.schedule.warmup) == (3, Duration(0.5, "ep"))
    with pytest.raises(RecipeError, match=r"^seed=\[1: line 1, column 3: not valid YAML: expected"):
        load_recipe(file, ["seed=[1"])


@pytest.mark.parametrize("override", ["optimizer", "optimizer.lr", "=3", ".lr=1", "optimizer.=1", "optimizer..lr=1"])
def test_an_override_of_another_form_is_refused(override: str) -> None:
    with pytest.raises(RecipeError) as caught:
        apply_overrides(a_recipe(), [override])
    assert str(caught.value) == f"'{override}' must have the form key=value, such as optimizer.lr=1e-4"


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: file.stem)
def test_a_shipped_recipe_comes_back_equal_from_its_own_dump(file: Path, tmp_path: Path) -> None:
    recipe = load_recipe(file)
    again = load_recipe(written(tmp_path, dump_yaml(recipe_to_dict(recipe))))
    assert (again, recipe_to_dict(again)) == (recipe, recipe_to_dict(recipe))


@pytest.mark.parametrize("name", ["08", "1e3", "-1e5", "010", "no", "null", "~", ".5", "12:30", "a: b", " x", "é"])
def test_a_label_name_comes_back_as_the_same_text(name: str, tmp_path: Path) -> None:
    recipe = recipe_from_dict(with_data(label_names=[name, "other"]))
    assert load_recipe(written(tmp_path, dump_yaml(recipe_to_dict(recipe)))) == recipe


@pytest.mark.parametrize("share", [0.25, "0.25", ".25"])
def test_a_share_of_validation_is_written_in_per_cent(share: object) -> None:
    assert problems(with_data(validation=share)) == [
        f"data.validation must be a place, or a share such as 25%, got {share!r}"
    ]
