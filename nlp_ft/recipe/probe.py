"""The section of a recipe for the strategy `probe`, and what else of a recipe it allows. Imports no torch."""

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from nlp_ft.recipe.sections import Section
from nlp_ft.recipe.values import MOST_LAYERS, Whole

if TYPE_CHECKING:
    from nlp_ft.recipe.recipe import Recipe

ProbeClassifier = Literal["logistic", "svm"]
POOLINGS = ("auto", "cls", "mean", "max")
"""Poolings without weights of their own, that read one layer."""
OF_LOOP = {
    "optimizer": (
        "name", "lr", "head_lr", "layer_decay", "convention", "weight_decay", "betas", "eps", "momentum",
    ),
    "schedule": ("name", "warmup", "ratio"),
    "loss": ("label_smoothing",),
    "training": (
        "duration", "per_device_batch_size", "max_tokens_per_batch", "gradient_accumulation_steps", "max_grad_norm",
        "evaluate_every", "checkpoint_every", "keep", "early_stopping",
    ),
}  # fmt: skip
"""Section -> its settings that only optimizer steps use."""
PRESET = {"optimizer": {"layer_decay": 1.0}}
"""Settings of these whose preset under probe is not their default."""


class ProbeSection(Section):
    """The linear model of `probe`, and the features that it reads."""

    layer: Literal["auto", "mean"] | Annotated[Whole, Field(ge=0, le=MOST_LAYERS)] = Field(
        "auto",
        description="The features: the output of one block, counted from 1 at the input (0 for the embeddings), or the "
        "`mean` of all of them. `auto` takes the last block, or what is better in cross-validation by more than one "
        "standard error. Images have the input of the head alone.",
    )
    classifier: ProbeClassifier = Field(
        "logistic",
        description="`logistic`: logistic regression. `svm`: a linear support vector machine, whose scores are no "
        "probabilities. Numbers have a ridge regression instead.",
    )
    folds: Whole = Field(
        5, ge=2, le=100, description="Parts of train in the cross-validation that chooses layer and penalty."
    )


def check_probe(recipe: "Recipe") -> None:
    """Check that a recipe with strategy probe asks for one linear layer on frozen features. Raises: ValueError."""
    probe, model = recipe.strategy.probe, recipe.model
    if probe is None:
        return
    if not recipe.has_row_vectors:
        raise ValueError(
            f"strategy probe needs one vector a row, which {recipe.task} does not have; did you mean head_only?"
        )
    pooling = getattr(model, "pooling", None)
    windows_max = getattr(recipe.data, "truncation", "") == "windows" and recipe.data.window_pooling == "max"  # type: ignore[attr-defined]
    refused = {
        f"model.head.type {model.head.type}": (model.head.type != "linear", "its head is one linear layer"),
        f"model.pooling {pooling}": (pooling not in (None, *POOLINGS), f"use {', '.join(POOLINGS)}"),
        "model.keep_head": (getattr(model, "keep_head", False), "it puts its own solution into the head"),
        "data.window_pooling max": (windows_max, "the windows of a text are averaged; use mean"),
        "training.feature_cache": (recipe.training.feature_cache != "off", "features are computed once; leave it out"),
        f"strategy.probe.layer {probe.layer}": (pooling is None and probe.layer != "auto", "images have one layer"),
        "loss.class_weights": (recipe.has_label_sets and recipe.loss.class_weights is not None, "leave it out"),
    }
    for field, (is_set, why) in refused.items():
        if is_set:
            raise ValueError(f"{field} has no place under strategy probe: {why}")


def probe_notes(recipe: "Recipe") -> list[str]:
    """Name the settings of a recipe that differ from their defaults, but mean nothing to a probe; [] for none."""
    if recipe.strategy.probe is None:
        return []
    found = []
    for name, keys in OF_LOOP.items():
        section = getattr(recipe, name)
        defaults = {key: field.default for key, field in type(section).model_fields.items()} | PRESET.get(name, {})
        found += [f"{name}.{key}" for key in keys if getattr(section, key) not in (None, defaults[key])]
    return [f"without meaning under strategy probe, which takes no steps: {', '.join(found)}"] if found else []
