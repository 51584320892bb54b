"""Looking before training: every problem of a recipe at once, and the layer table of a model or recipe."""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from accelerate import PartialState
from transformers import PreTrainedModel

from nlp_ft.data.labels import label_counts
from nlp_ft.data.splits import progress_bars
from nlp_ft.data.text import load_labelled_splits
from nlp_ft.errors import NlpFtError
from nlp_ft.layerwise import LayerMap, set_trainable
from nlp_ft.models.text import build_classifier, check_max_length, load_tokenizer
from nlp_ft.recipe import Recipe
from nlp_ft.recipe_loader import apply_overrides, load_recipe, recipe_from_dict
from nlp_ft.training import setup
from nlp_ft.training.describe import layer_table
from nlp_ft.training.precision import mixed_precision
from nlp_ft.training.run_folder import RunFolder


def find_problems(recipe: Recipe) -> list[str]:
    """Everything that would stop the recipe from training here, one line each; nothing is written or trained."""
    rows: dict[str, int] = {}

    def check_data() -> None:
        with progress_bars(False):
            raw, labels = load_labelled_splits(recipe.data)
        ids = {value: i for i, value in enumerate(labels)}
        rows.update(label_counts([ids[value] for value in raw["train"][recipe.data.label][:]], list(labels.values())))

    def check_model() -> None:
        tokenizer = load_tokenizer(recipe.model)
        model = build_classifier(recipe.model, list(rows) or ["0", "1"], tokenizer)
        check_max_length(recipe.data.max_length, model)
        setup.lowest_trainable_layer(recipe.strategy, LayerMap.from_model(model).num_layers)

    def check_plan() -> None:
        if rows:
            setup.make_loss(recipe.loss, rows)
            batch = recipe.training.per_device_batch_size * recipe.training.gradient_accumulation_steps
            plan = setup.plan_steps(recipe.training, -(-sum(rows.values()) // batch), recipe.seed, False)
            setup.make_schedule(recipe.schedule, plan)

    checks: list[Callable[[], object]] = [
        check_data,
        check_model,
        check_plan,
        lambda: setup.optimizer_class(recipe.optimizer.name),
        lambda: mixed_precision(recipe.training.precision, PartialState().device),
        lambda: setup.check_trackers(recipe),
        # A run that is there already is no fault of the recipe.
        lambda: RunFolder(recipe.output_dir, overwrite=True),
    ]
    problems = []
    for check in checks:
        try:
            check()
        except NlpFtError as error:
            problems.append(str(error))
    return problems


def describe_layers(model_or_recipe: str, overrides: Sequence[str] = ()) -> str:
    """The layer table of a recipe, or of a model with the default settings; no weights are loaded.

    Raises:
        NlpFtError: the recipe, its data or the model cannot be read, or the model has no layer map.
    """
    if Path(model_or_recipe).suffix in (".yaml", ".yml"):
        recipe = load_recipe(model_or_recipe, overrides)
        labels = _label_names(recipe)
    else:
        values = {"data": {"train": "-"}, "model": {"name": model_or_recipe}, "output_dir": "-"}
        recipe = recipe_from_dict(apply_overrides(values, overrides), model_or_recipe)
        labels = ["0", "1"]
    model = _structure(recipe, labels)
    layer_map = LayerMap.from_model(model)
    set_trainable(model, layer_map, setup.lowest_trainable_layer(recipe.strategy, layer_map.num_layers))
    return layer_table(layer_map, setup.make_optimizer(recipe.optimizer, model, layer_map).param_groups)


def _label_names(recipe: Recipe) -> list[str]:
    with progress_bars(False):
        return list(load_labelled_splits(recipe.data)[1].values())


def _structure(recipe: Recipe, labels: Sequence[str]) -> PreTrainedModel:
    with torch.device("meta"):
        return build_classifier(recipe.model, labels, pretrained=False)
