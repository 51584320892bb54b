"""Hostile values in recipes: numbers that are none, YAML that explodes, texts that do not show, paths of the shell."""

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nlp_ft.errors import LayerMapError, RecipeError
from nlp_ft.patterns import endless_pattern
from nlp_ft.recipe.loader import json_schema, load_recipe, recipe_from_dict
from nlp_ft.training.inspection import describe_layers
from tests.recipe.test_recipe import a_recipe, problems, with_data, written

LAUGHS = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{name}: &{name} [{','.join([f'*{before}'] * 9)}]\n" for before, name in zip("abcdefgh", "bcdefghi")
)
GRADUAL = {"name": "gradual"}


def numbers(schema: Any, place: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every part of a JSON Schema that says integer or number, with where it stands."""
    if isinstance(schema, dict):
        if schema.get("type") in ("integer", "number"):
            yield place, schema
        for key, value in schema.items():
            yield from numbers(value, f"{place}.{key}")
    if isinstance(schema, list):
        for number, value in enumerate(schema):
            yield from numbers(value, f"{place}.{number}")


def test_every_number_of_a_recipe_has_a_lower_and_an_upper_bound() -> None:
    found = dict(numbers(json.loads(json_schema())["$defs"]))
    # What these two may hold, a check over both numbers of the pair says.
    pairs = {place for place in found if "betas" in place or "crop_scale" in place}
    assert len(found) > 40
    bounds = ({"minimum", "exclusiveMinimum"}, {"maximum", "exclusiveMaximum"})
    assert [
        place for place, part in found.items() if place not in pairs and not all(b & part.keys() for b in bounds)
    ] == []


@pytest.mark.parametrize(
    ("values", "line"),
    [
        (a_recipe(seed=True), "seed must be a whole number, got True"),
        (a_recipe(seed=3.0), "seed must be a whole number, got 3.0; did you mean 3?"),
        (a_recipe(seed="3"), "seed must be a whole number, got '3'; did you mean 3?"),
        (a_recipe(seed="²"), "seed must be a whole number, got '²'"),
        (a_recipe(optimizer={"lr": True}), "optimizer.lr must be a number, got True"),
        (a_recipe(optimizer={"lr": "1e-4"}), "optimizer.lr must be a number, got '1e-4'; did you mean 1e-4?"),
        (a_recipe(optimizer={"betas": [True, 0.9]}), "optimizer.betas.0 must be a number, got True"),
        (a_recipe(optimizer={"eps": float("inf")}), "optimizer.eps must be in (0, 1], got inf"),
        (a_recipe(optimizer={"eps": float("nan")}), "optimizer.eps must be in (0, 1], got nan"),
        (a_recipe(schedule={"ratio": float("inf")}), "schedule.ratio must be in (1, 1e+06], got inf"),
        (a_recipe(training={"per_device_batch_size": True}),
         "training.per_device_batch_size must be a whole number, got True"),
        (a_recipe(training={"feature_cache_gb": float("inf")}),
         "training.feature_cache_gb must be in (0, 1e+06], got inf"),
        (a_recipe(training={"early_stopping": {"min_delta": float("inf")}}),
         "training.early_stopping.min_delta must be in [0, 1000], got inf"),
        (a_recipe(loss={"class_weights": {"a": float("inf")}}),
         "loss.class_weights.a must be a finite number, got inf"),
        (a_recipe(loss={"class_weights": {"a": True}}), "loss.class_weights.a must be a number, got True"),
        (a_recipe(training={"duration": "9" * 400 + "ep"}),
         f"training.duration must be at most 1000000000ep, got '{'9' * 56}..."),
        (a_recipe(training={"duration": 10**400}),
         "training.duration must be a duration such as 3ep (epochs), 200st (steps) or 10% (of the run), "
         f"got 1{'0' * 56}..."),
        (a_recipe(training={"duration": "²ep"}),
         "training.duration must be a duration such as 3ep (epochs), 200st (steps) or 10% (of the run), got '²ep'"),
        (a_recipe(model={"name": "m", "head": {"bottleneck_size": 10**12}}),
         "model.head.bottleneck_size must be in [1, 65536], got 1000000000000"),
        (a_recipe(task="image_classification", data={"train": "a", "image_size": 10**12}),
         "data.image_size must be in [8, 4096], got 1000000000000"),
        (a_recipe(task="image_classification",
                  data={"train": "a", "augmentation": {"crop": "random", "crop_padding": 10**12}}),
         "data.augmentation.crop_padding must be in [0, 4096], got 1000000000000"),
        (a_recipe(task="image_classification",
                  data={"train": "a", "augmentation": {"rand_augment": {"num_ops": 10**12}}}),
         "data.augmentation.rand_augment.num_ops must be in [1, 100], got 1000000000000"),
        (a_recipe(strategy={"name": "top_layers", "trainable_blocks": True}),
         "strategy.trainable_blocks must be a whole number or 'all', got True"),
        (a_recipe(data={"train": "a", "validation": "b"},
                  strategy={**GRADUAL, "unfreeze": {"plateau": {"at_least": "2ep", "at_most": "1ep"}}}),
         "strategy.unfreeze.plateau.at_least must be at most at_most, which is 1ep, got 2ep"),
        (a_recipe(strategy={**GRADUAL, "unfreeze": {"loss_below": {"value": 1, "at_most": "0st"}}}),
         "strategy.unfreeze.loss_below.at_most must be above 0, got 0st"),
        (with_data(label_names=[True, False]),
         "data.label_names.0 must be a text, got True; put it in quotes"),
    ],
)  # fmt: skip
def test_a_number_is_a_finite_number_within_bounds(values: dict[str, Any], line: str) -> None:
    assert problems(values)[0] == line


@pytest.mark.parametrize(
    ("values", "line"),
    [
        (with_data(train=" "), "data.train must be a text that is not blank, got ' '"),
        (with_data(train=["a", "\u200b"]), r"data.train.1 must be a text that is not blank, got '\u200b'"),
        (with_data(label_names=["a", ""]), "data.label_names.1 must be a text that is not blank, got ''"),
        (with_data(train="a\0b"), r"data.train must be a text without NUL characters, got 'a\x00b'"),
        (with_data(train="a\ud800"), r"data.train must be a text without lone surrogates, got 'a\ud800'"),
        (with_data(train="a" * 5000), f"data.train must have at most 4096 characters, got '{'a' * 56}..."),
        (a_recipe(output_dir="$HOME/x"), "output_dir must be a path in which no variable stands, such as $HOME: write "
         "out what it stands for, or ~ for home, got '$HOME/x'"),
        (a_recipe(output_dir="a/${X}"), "output_dir must be a path in which no variable stands, such as $HOME: write "
         "out what it stands for, or ~ for home, got 'a/${X}'"),
        (a_recipe(output_dir="~nobody-here/x"), "output_dir must be a path whose ~ is a home folder here; a file of "
         "that name is written ./~NAME, got '~nobody-here/x'"),
        (a_recipe(output_dir="a\nb"), r"output_dir must be a path without control characters, got 'a\nb'"),
        (a_recipe(**{"se\ned\u200b": 1}),
         "se\\ned\\u200b is not a key of a recipe; did you mean seed?"),
        (a_recipe(model={"name": "m", "layer_rules": [["(", 0]]}), "model.layer_rules.0.0 must be a regular expression "
         "(missing ), unterminated subpattern at position 0), got '('"),
        (a_recipe(model={"name": "m", "layer_rules": [["a{99999999999}", 0]]}), "model.layer_rules.0.0 must be a "
         "regular expression (the repetition number is too large), got 'a{99999999999}'"),
        (a_recipe(model={"name": "m", "layer_rules": [["a", 10**11]]}),
         "model.layer_rules.0.1 must be at most 10000 or 'head', got 100000000000"),
    ],
)  # fmt: skip
def test_a_text_shows_and_a_path_is_what_it_says(values: dict[str, Any], line: str) -> None:
    assert problems(values) == [line]


def test_a_tilde_is_the_home_folder_in_every_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    values = a_recipe(data={"train": ["~/a.csv", "b~.csv", "./~c"]}, model={"name": "~/model"}, output_dir="~/runs/x")
    recipe = recipe_from_dict(values)
    assert recipe.data.train == ["/home/me/a.csv", "b~.csv", "./~c"]
    assert (recipe.model.name, recipe.output_dir) == ("/home/me/model", "/home/me/runs/x")
    monkeypatch.setenv("HOME", "")
    assert len(problems(values)) == 3


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (LAUGHS, "line 6, column 4: not valid YAML: it holds more than 100,000 values, aliases written out"),
        ("a: &a {b: *a}", "line 1, column 4: not valid YAML: an alias holds itself"),
        ("a: " + "[" * 60 + "]" * 60, "line 1, column 53: not valid YAML: it is nested too deeply, more than 50 "
         "sections or lists inside each other"),
        ("[" * 5000, "line 1, column 51: not valid YAML: it is nested too deeply, more than 50 sections or lists "
         "inside each other"),
        ("a: !!bool maybe", "line 1, column 4: not valid YAML: 'maybe' is no bool"),
        ("a: !!int [1]", "line 1, column 4: not valid YAML: a sequence is no int"),
        ("a: !!map [1]", "line 1, column 4: not valid YAML: a sequence is no section of `key: value` lines"),
        ("a: !!timestamp x", "line 1, column 4: not valid YAML: could not determine a constructor for the tag "
         "'tag:yaml.org,2002:timestamp'"),
        ("a: " + "9" * 5000, "line 1, column 4: not valid YAML: a number of 5000 characters; at most 100 are read"),
        ('a: "\\U00110000"', "not valid YAML: chr() arg not in range(0x110000)"),
    ],
    ids=lambda value: value[:12],
)  # fmt: skip
def test_yaml_that_explodes_or_lies_about_itself_is_refused_at_once(text: str, problem: str, tmp_path: Path) -> None:
    file, start = written(tmp_path, text), time.monotonic()
    with pytest.raises(RecipeError) as caught:
        load_recipe(file)
    assert str(caught.value) == f"{file}: {problem}"
    assert time.monotonic() - start < 20


def test_a_pipe_a_device_and_a_huge_file_are_no_recipes(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "huge").write_bytes(b"#" * 1_000_001)
    for file, reason in [
        (tmp_path / "pipe", "it is a pipe or device, not a file"),
        (Path("/dev/zero"), "it is a pipe or device, not a file"),
        (tmp_path / "huge", "it is larger than 1,000,000 bytes"),
    ]:
        with pytest.raises(RecipeError) as caught:
            load_recipe(file)
        assert str(caught.value) == f"{file}: cannot be read as a recipe: {reason}"
    with pytest.raises(RecipeError, match=r"^a\\x00b: cannot be read as a recipe: embedded null byte$"):
        load_recipe("a\0b")


def test_an_override_does_not_take_the_place_of_what_is_no_section(tmp_path: Path) -> None:
    file = written(tmp_path, "optimizer: [1]\n")
    with pytest.raises(RecipeError) as caught:
        load_recipe(file, ["optimizer.lr=1"])
    assert str(caught.value) == "'optimizer.lr=1' cannot be set: optimizer is no section, but [1]"


def test_of_many_problems_the_first_fifty_are_told_and_counted(tmp_path: Path) -> None:
    lines = problems(a_recipe(**{f"unknown{number}": 1 for number in range(70)}))
    assert (len(lines), lines[-1]) == (51, "and 20 more")


def test_a_pattern_that_backtracks_for_ever_is_found_within_its_time() -> None:
    names = [f"encoder.layer.{'a' * 40}.{number}.weight!" for number in range(3)]
    patterns = ["^encoder", "layer.*weight.*$", "(a+)+$", "x*y*"]
    assert endless_pattern(patterns[:2], names) is None
    assert endless_pattern(patterns, names, seconds=2) == "(a+)+$"


def test_a_layer_rule_that_backtracks_for_ever_is_refused_in_place_of_a_hang(
    tiny_encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nlp_ft.tasks.task.endless_pattern", lambda found, names: endless_pattern(found, names, 2))
    with pytest.raises(LayerMapError) as caught:
        describe_layers(str(tiny_encoder), ["model.pooling=mean", "model.layer_rules=[['((.*)*.*)*!', 1]]"])
    assert str(caught.value).startswith(
        "model.layer_rules: the search for '((.*)*.*)*!' in the names of the parameters"
    )
