"""A recipe and the code that reads it agree on names and defaults, where each has to have its own."""

import inspect
from collections.abc import Callable
from typing import Any, get_args

import numpy as np
import pytest
import torch
from accelerate.tracking import LOGGER_TYPE_TO_CLASS
from transformers.activations import ACT2FN

from nlp_ft import cli
from nlp_ft.data.sources import SPLITS
from nlp_ft.data.tokens import kept_positions
from nlp_ft.data.transforms import IMAGE_SIZE, SHARE_SEEN
from nlp_ft.errors import TrainingError, UnfreezeError
from nlp_ft.integrations.hf_trainer import LayerwiseTrainer
from nlp_ft.integrations.lightning import layerwise_optimizer
from nlp_ft.integrations.strategy import LayerwiseSettings
from nlp_ft.layerwise import LayerMap, Plateau, UnfreezeSchedule, build_lr_schedule, layerwise_param_groups
from nlp_ft.layerwise.param_groups import build_optimizer, lr_scales
from nlp_ft.layerwise.unfreezing.triggers import LOWER_IS_BETTER, TRIGGERS
from nlp_ft.models.configs import ImageClassifierConfig, PooledClassifierConfig
from nlp_ft.models.heads import ClassificationHead
from nlp_ft.models.image_classifier import BOTTLENECK_DROPOUT
from nlp_ft.models.pooling import pool
from nlp_ft.recipe import RECIPES, ImageRecipe, Recipe, RegressionRecipe, TextRecipe
from nlp_ft.recipe.images import ImageDataSection, ImageHeadSection
from nlp_ft.recipe.presets import STRATEGY_PRESETS, UNFREEZING
from nlp_ft.recipe.sections import (
    DataSection,
    HeadSection,
    LossSection,
    OptimizerSection,
    ScheduleSection,
    Section,
)
from nlp_ft.recipe.strategy import REPLACED_BY_LAYERS, PlateauSection, StrategySection, UnfreezeSection
from nlp_ft.recipe.text import TextDataSection, TextModelSection
from nlp_ft.recipe.training import TrainingSection
from nlp_ft.tasks.classes import ClassOutputs
from nlp_ft.tasks.image_classification import MOST_WORKERS
from nlp_ft.tasks.losses import ClassificationLoss
from nlp_ft.tasks.metrics import score
from nlp_ft.tasks.registry import TASKS
from nlp_ft.tasks.text_regression import NumberOutputs
from nlp_ft.training.build import optimizer_class
from nlp_ft.training.precision import mixed_precision


def names_of(section: type[Section], field: str) -> tuple[Any, ...]:
    """The names that a field of Literal type, or a list of such, admits."""
    annotation = section.model_fields[field].annotation
    names = get_args(annotation)
    return get_args(names[0]) if annotation == list[names[0]] else names  # type: ignore[valid-type]


def default_of(section: type[Section], field: str) -> Any:
    return section.model_fields[field].default


def parameter_of(function: Callable[..., Any], name: str) -> Any:
    return inspect.signature(function).parameters[name].default


def test_the_tasks_are_those_of_the_registry_and_each_has_a_recipe() -> None:
    assert set(names_of(Recipe, "task")) == set(RECIPES) == set(TASKS)


def test_the_strategies_are_the_presets_and_those_that_unfreeze_are_told_by_the_integrations() -> None:
    assert names_of(StrategySection, "name") == tuple(STRATEGY_PRESETS)
    assert UNFREEZING == ("gradual", "lp_ft", "ulmfit")
    with pytest.raises(UnfreezeError, match=", ".join(UNFREEZING)):
        LayerwiseSettings("full", unfreeze={})


def test_the_metrics_of_labels_and_of_numbers_are_those_that_are_scored() -> None:
    ids, numbers = np.array([0, 1]), np.array([0.5, 1.0])
    assert {*score(ids, ids), "loss"} == set(TextRecipe.metrics) == set(ImageRecipe.metrics)
    assert {*NumberOutputs().score(numbers, numbers), "loss"} == set(RegressionRecipe.metrics)
    assert set(ClassOutputs.shown_metrics) <= set(TextRecipe.metrics)
    assert set(NumberOutputs.shown_metrics) <= set(RegressionRecipe.metrics)
    assert set(LOWER_IS_BETTER) <= {*TextRecipe.metrics, *RegressionRecipe.metrics}
    assert set(names_of(TrainingSection, "metric")) == {*TextRecipe.metrics, *RegressionRecipe.metrics}


@pytest.mark.parametrize("name", names_of(OptimizerSection, "name"))
def test_an_optimizer_has_a_class_that_takes_the_settings_which_a_recipe_admits(name: str) -> None:
    parameters = inspect.signature(optimizer_class(name)).parameters
    for setting, value in {"betas": (0.9, 0.95), "eps": 1e-8, "momentum": 0.5}.items():
        try:
            OptimizerSection.model_validate({"name": name, setting: value})
        except ValueError:
            continue
        assert setting in parameters


@pytest.mark.parametrize(
    ("refused", "names"),
    [
        (lambda: lr_scales(3, 0.5, "none"), names_of(OptimizerSection, "convention")),  # type: ignore[arg-type]
        (lambda: build_lr_schedule("none", 9), names_of(ScheduleSection, "name")),  # type: ignore[arg-type]
        (
            lambda: UnfreezeSchedule.gradual(3, order="none"),  # type: ignore[arg-type]
            names_of(UnfreezeSection, "order"),
        ),
    ],
    ids=["convention", "schedule", "order"],
)
def test_the_core_takes_the_names_of_a_recipe_and_no_others(refused: Callable[[], Any], names: tuple[str, ...]) -> None:
    with pytest.raises((TrainingError, UnfreezeError)) as caught:
        refused()
    told = str(caught.value).partition(" must be ")[2].partition(", got")[0].removeprefix("one of ")
    assert set(told.replace(" or ", ", ").split(", ")) == set(names)


def test_the_settings_of_unfreezing_are_those_of_the_schedule() -> None:
    with pytest.raises(UnfreezeError) as caught:
        UnfreezeSchedule.from_settings(3, "all", {"none": 1})
    told = str(caught.value).partition("there are ")[2].split(", ")
    assert set(told) == UnfreezeSection.model_fields.keys() - {"restore_best"}
    gradual, parsed = (
        set(inspect.signature(made).parameters) for made in (UnfreezeSchedule.gradual, UnfreezeSchedule.parse)
    )
    assert gradual - parsed - {"every"} == set(REPLACED_BY_LAYERS)
    assert list(TRIGGERS) == ["every", "plateau", "loss_below"]


@pytest.mark.parametrize("name", sorted({*names_of(TextModelSection, "pooling")} - {"auto", "pooler"}))
def test_every_pooling_of_a_recipe_is_computed(name: Any) -> None:
    vectors = torch.tensor([[[1.0], [4.0], [9.0]]])
    pooled = pool(vectors, torch.tensor([[1, 1, 0]]), name)
    assert pooled.tolist() == [[{"cls": 1.0, "mean": 2.5, "max": 4.0}[name]]]


@pytest.mark.parametrize("name", sorted({*names_of(TextDataSection, "truncation")} - {"windows"}))
def test_every_truncation_of_a_recipe_keeps_its_part(name: Any) -> None:
    data = TextDataSection(train="a", max_length=6, truncation=name, head_tokens=1)
    kept = kept_positions([1, 0, 0, 0, 0, 0, 0, 1], data)
    assert kept == {"head": [0, 1, 2, 3, 4, 7], "tail": [0, 3, 4, 5, 6, 7], "head_tail": [0, 1, 4, 5, 6, 7]}[name]


def test_activations_trackers_and_precisions_are_known_to_their_libraries() -> None:
    assert set(names_of(HeadSection, "activation")) <= set(ACT2FN)
    assert set(names_of(Recipe, "trackers")) <= set(LOGGER_TYPE_TO_CLASS)
    found = [mixed_precision(name, torch.device("cuda")) for name in names_of(TrainingSection, "precision")[1:]]
    assert found == ["no", "bf16", "fp16"]


def test_the_splits_of_the_command_line_are_those_of_the_data() -> None:
    options = cli.build_parser()
    assert [options.parse_args(["eval", "run", "--split", split]).split for split in SPLITS] == list(SPLITS)
    assert set(SPLITS) <= DataSection.model_fields.keys()


@pytest.mark.parametrize(
    ("section", "function", "names"),
    [
        (OptimizerSection, layerwise_param_groups, ["layer_decay", "head_lr", "weight_decay", "convention"]),
        (OptimizerSection, build_optimizer, ["layer_decay", "head_lr", "weight_decay", "convention"]),
        (OptimizerSection, lr_scales, ["convention"]),
        (ScheduleSection, build_lr_schedule, ["ratio"]),
        (
            UnfreezeSection,
            UnfreezeSchedule.gradual,
            ["every", "blocks_per_phase", "order", "embeddings", "layer_warmup", "restart_lr"],
        ),
        (UnfreezeSection, UnfreezeSchedule.parse, ["layer_warmup", "restart_lr"]),
        (StrategySection, UnfreezeSchedule.fixed, ["trainable_blocks"]),
        (StrategySection, UnfreezeSchedule.from_settings, ["trainable_blocks", "unfreeze"]),
        (StrategySection, LayerMap.from_model, ["grain"]),
        (PlateauSection, Plateau, ["metric", "patience", "min_delta", "at_most"]),
        (HeadSection, ClassificationHead, ["bottleneck_size", "activation"]),
        (HeadSection, PooledClassifierConfig, ["bottleneck_size", "activation"]),
        (ImageHeadSection, ImageClassifierConfig, ["bottleneck_size", "activation"]),
        (LossSection, ClassificationLoss, ["class_weights", "label_smoothing"]),
    ],
    ids=lambda value: getattr(value, "__qualname__", None) or "",
)
def test_a_default_is_the_same_in_a_recipe_and_in_the_code(
    section: type[Section], function: Callable[..., Any], names: list[str]
) -> None:
    assert [parameter_of(function, name) for name in names] == [default_of(section, name) for name in names]


def test_the_default_strategy_and_head_are_those_of_the_code() -> None:
    named: list[Callable[..., Any]] = [LayerwiseSettings, LayerwiseTrainer, layerwise_optimizer]
    assert {parameter_of(taken, "strategy") for taken in named} == {default_of(StrategySection, "name")}
    heads: list[Callable[..., Any]] = [ClassificationHead, PooledClassifierConfig, ImageClassifierConfig]
    assert {parameter_of(head, "head_type") for head in heads} == {default_of(HeadSection, "type")}


@pytest.mark.parametrize(
    ("section", "field", "number"),
    [
        (ImageDataSection, "image_size", IMAGE_SIZE),
        (ImageDataSection, "resize_size", SHARE_SEEN),
        (ImageDataSection, "num_workers", MOST_WORKERS),
        (ImageHeadSection, "dropout", BOTTLENECK_DROPOUT),
        (HeadSection, "dropout", parameter_of(ClassificationHead, "dropout")),
        (HeadSection, "dropout", parameter_of(PooledClassifierConfig, "head_dropout")),
    ],
)
def test_a_number_that_a_description_names_is_that_of_the_code(
    section: type[Section], field: str, number: float
) -> None:
    described = (section.model_fields[field].description or "").replace(",", " ").replace(".", " . ").split()
    assert f" {str(number).replace('.', ' . ')} " in f" {' '.join(described)} "
