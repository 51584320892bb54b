"""Where each setting of a recipe comes from, and the resolved recipe that `validate --resolved` prints."""

from pathlib import Path
from typing import Any

import pytest

from nlp_ft.cli import main
from nlp_ft.errors import RecipeError
from nlp_ft.recipe import ImageRecipe, Recipe
from nlp_ft.recipe.loader import load_recipe, recipe_from_dict, recipe_from_layers
from nlp_ft.recipe.origins import origins, resolved_yaml
from nlp_ft.recipe.presets import STRATEGY_PRESETS
from nlp_ft.recipe.resolve import settings_layers
from nlp_ft.recipe.yaml_reader import parse_yaml, read_yaml

SHIPPED = sorted((Path(__file__).parents[2] / "recipes").glob("*.yaml"))


def a_recipe(**changes: Any) -> dict[str, Any]:
    return {"data": {"train": "a.csv"}, "model": {"name": "m"}, "output_dir": "runs/x", **changes}


def origins_of(values: dict[str, Any], *overrides: str) -> dict[str, str]:
    layers = settings_layers(values, overrides)
    return origins(recipe_from_layers(layers), layers)


def printed(values: dict[str, Any], *overrides: str) -> tuple[Recipe, str]:
    """The recipe, and its resolved YAML."""
    layers = settings_layers(values, overrides)
    recipe = recipe_from_layers(layers)
    return recipe, resolved_yaml(recipe, layers)


def test_each_of_the_five_origins_is_told() -> None:
    found = origins_of(a_recipe(task="text_regression", strategy="gradual", optimizer={"lr": 1e-4}), "seed=3")
    assert {key: found[key] for key in ("seed", "optimizer.lr", "optimizer.layer_decay", "training.metric")} == {
        "seed": "command line",
        "optimizer.lr": "file",
        "optimizer.layer_decay": "preset of strategy gradual",
        "training.metric": "preset of task text_regression",
    }
    assert found["optimizer.eps"] == "default"


def test_file_and_command_line_go_before_the_presets() -> None:
    values = a_recipe(task="text_regression", strategy="head_only", optimizer={"layer_decay": 1.0})
    found = origins_of(values, "optimizer.lr=0.5", "training.metric=mse")
    assert found["optimizer.lr"] == found["training.metric"] == "command line"
    assert found["optimizer.layer_decay"] == "file"


def test_the_name_of_a_strategy_alone_comes_from_the_file_and_its_settings_from_the_preset() -> None:
    found = origins_of(a_recipe(strategy="head_only"))
    assert found["strategy.name"] == "file"
    assert found["strategy.trainable_blocks"] == found["optimizer.layer_decay"] == "preset of strategy head_only"


def test_without_a_strategy_its_name_is_a_default_and_its_preset_counts() -> None:
    found = origins_of(a_recipe())
    assert found["strategy.name"] == "default"
    assert found["optimizer.layer_decay"] == "preset of strategy llrd"


def test_a_strategy_of_the_command_line_brings_its_preset_and_replaces_that_of_the_file() -> None:
    values = a_recipe(strategy={"name": "top_layers", "trainable_blocks": 3}, optimizer={"lr": 1e-4})
    found = origins_of(values, "strategy=gradual")
    assert found["strategy.name"] == "command line"
    assert found["strategy.trainable_blocks"] == "default"
    assert found["optimizer.layer_decay"] == "preset of strategy gradual"
    assert found["optimizer.lr"] == "file"


def test_one_key_of_a_strategy_on_the_command_line_leaves_the_others_to_the_file() -> None:
    found = origins_of(a_recipe(strategy="top_layers"), "strategy.trainable_blocks=3")
    assert (found["strategy.name"], found["strategy.trainable_blocks"]) == ("file", "command line")


def test_nested_sections_and_lists_have_their_origins_too() -> None:
    values = a_recipe(
        data={"train": ["a.csv", "b.csv"], "validation": "v.csv", "text": ["q", "a"]},
        training={"early_stopping": {"patience": 2}},
    )
    found = origins_of(values, "data.text=[x, y]", "training.early_stopping.min_delta=0.1")
    assert found["data.train"] == found["training.early_stopping.patience"] == "file"
    assert found["data.text"] == found["training.early_stopping.min_delta"] == "command line"


def test_what_replaces_a_setting_of_a_preset_leaves_that_setting_to_the_default() -> None:
    values = a_recipe(strategy={"name": "lp_ft", "unfreeze": {"loss_below": {"value": 0.5}}})
    found = origins_of(values)
    assert found["strategy.unfreeze.loss_below.value"] == "file"
    assert found["strategy.unfreeze.every"] == "default"
    assert found["strategy.unfreeze.order"] == "preset of strategy lp_ft"


def test_null_on_the_command_line_takes_a_section_of_the_file_back() -> None:
    found = origins_of(a_recipe(optimizer={"lr": 0.1}), "optimizer=null")
    assert found["optimizer.lr"] == "default"


def test_every_setting_is_a_line_with_its_origin() -> None:
    _, text = printed(
        a_recipe(strategy="gradual", loss={"class_weights": {"a": 1, "b # c": 2}}), "data.label_names=[a, 'b # c']"
    )
    lines = [line.split() for line in text.splitlines()]
    assert ["weight_decay:", "0.01", "#", "default"] in lines
    assert ["name:", "gradual", "#", "file"] in lines
    assert ["unfreeze:", "#", "preset", "of", "strategy", "gradual"] in lines
    assert ["label_names:", "[a,", "'b", "#", "c']", "#", "command", "line"] in lines
    assert ["class_weights:", "{a:", "1.0,", "'b", "#", "c':", "2.0}", "#", "file"] in lines
    assert ["optimizer:"] in lines
    columns = {line.index("# ") for line in text.splitlines() if "# " in line and "b # c" not in line}
    assert len(columns) == 1


# A head with a hidden layer, tags of words, and spans of answers.
REFUSED_BY_PROBE = ("compare_wnut17", "resnet50_bottleneck", "swag", "wnut17", "xquad")


@pytest.mark.parametrize("strategy", STRATEGY_PRESETS)
@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: file.stem)
def test_the_resolved_recipe_is_a_recipe_and_loads_as_the_same(file: Path, strategy: str) -> None:
    if strategy == "lora" and isinstance(load_recipe(str(file)), ImageRecipe):
        with pytest.raises(RecipeError, match="strategy lora is for texts"):
            load_recipe(str(file), ["strategy=lora"])
        return
    if strategy == "probe" and file.stem in REFUSED_BY_PROBE:
        with pytest.raises(RecipeError, match="strategy probe"):
            load_recipe(str(file), ["strategy=probe", "optimizer.layer_decay=1"])
        return
    # `full` refuses the decay that many of the files have.
    recipe, text = printed(read_yaml(file), f"strategy={strategy}", "optimizer.layer_decay=1")
    values = parse_yaml(text, "resolved.yaml")
    assert recipe_from_dict(values) == recipe
    assert set(origins_of(values).values()) == {"file"}


@pytest.mark.parametrize(
    "name",
    ["a: b", "x # y", "#", "- a", "[", "}", "a, b", "'", '"', "no", "null", "~", "1e3", "0x1", "12:30", " a ", "a\nb",
     "a\n", "\n a", "a\u2028b", "a\x85b", "é", "\U0001f600", "\\n", "%", "@", "!t", "&a", "*a", "?", "? a", "x" * 4000],
    ids=lambda name: ascii(name)[:12],
)  # fmt: skip
def test_any_text_comes_back_from_its_one_line(name: str) -> None:
    values = a_recipe(data={"train": "a.csv", "label_names": [name, "other"], "label": name, "text": [name, "t"]})
    recipe, text = printed({**values, "loss": {"class_weights": {name: 2.0, "other": 1.0}}})
    assert recipe_from_dict(parse_yaml(text, "resolved.yaml")) == recipe
    assert len(text.split("\n")) == len(printed(a_recipe())[1].split("\n"))


def test_validate_prints_the_resolved_recipe_before_it_looks_at_the_data(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "r.yaml"
    file.write_text("data: {train: none.csv}\nmodel: {name: m}\noutput_dir: runs/x\n")
    with pytest.raises(SystemExit, match="2"):
        main(["validate", str(file), "seed=7", "--resolved"])
    shown = capsys.readouterr()
    assert parse_yaml(shown.out, "shown")["seed"] == 7
    assert "# command line" in next(line for line in shown.out.splitlines() if line.startswith("seed:"))
    assert "there is no none.csv" in shown.err


def test_an_invalid_recipe_is_not_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "r.yaml"
    file.write_text("data: {train: none.csv}\nmodel: {name: m}\noutput_dir: runs/x\nseed: -1\n")
    with pytest.raises(SystemExit, match="2"):
        main(["validate", str(file), "--resolved"])
    assert capsys.readouterr().out == ""


def test_an_override_below_a_value_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"^'seed.x=1' cannot be set: seed is no section, but 3$"):
        settings_layers(a_recipe(seed=3), ["seed.x=1"])
