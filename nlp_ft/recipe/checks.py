"""Checks of settings that only some tasks have, or that do not go together."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nlp_ft.recipe.recipe import Recipe


def check_strategy(recipe: "Recipe") -> None:
    """Check that the strategy agrees with the rates and the head of the recipe. Raises: ValueError."""
    strategy, decay = recipe.strategy, recipe.optimizer.layer_decay
    if strategy.name == "full" and decay != 1:
        raise ValueError(
            f"strategy full trains all layers at one rate, but optimizer.layer_decay is {decay}; set it to 1, or did "
            "you mean strategy: llrd?"
        )
    if getattr(recipe.model, "keep_head", False):
        if strategy.name == "scratch":
            raise ValueError("model.keep_head has no meaning under scratch, where all weights are random")
        if strategy.reinit_top:
            raise ValueError("model.keep_head has no place beside strategy.reinit_top, which also renews the head")


def check_calibration(recipe: "Recipe") -> None:
    """Check that a temperature can be fitted. Raises: ValueError."""
    if recipe.training.calibration is None:
        return
    field = f"training.calibration {recipe.training.calibration}"
    if not recipe.has_one_label:
        raise ValueError(
            f"{field} is for tasks that choose one label or candidate, not for {recipe.task}; leave it out"
        )
    if recipe.data.validation is None:
        raise ValueError(f"{field} needs data.validation, a split or a share such as 10%")


def refuse_other_heads(recipe: "Recipe", own: str) -> None:
    """Refuse settings of heads and labels where the head is Transformers' own. Raises: ValueError."""
    model = recipe.model
    refused = {
        f"strategy.grain {recipe.strategy.grain}": recipe.strategy.grain != "block",
        "loss.class_weights": recipe.loss.class_weights is not None,
        "loss.label_smoothing": recipe.loss.label_smoothing != 0,
        f"model.pooling {getattr(model, 'pooling', None)}": getattr(model, "pooling", "auto") != "auto",
        f"model.head.type {model.head.type}": model.head.type != "linear",
        "model.head.dropout": model.head.dropout is not None,
    }
    for field, is_set in refused.items():
        if is_set:
            raise ValueError(f"{field} is not for {recipe.task}, whose head is {own}; leave it out")


def check_train_rows(recipe: "Recipe") -> None:
    """Check that rows drawn by class have classes. Raises: ValueError."""
    train_rows = recipe.data.train_rows
    if isinstance(train_rows, str) and not recipe.has_classes:
        raise ValueError(
            f"data.train_rows {train_rows} is for rows of one class each, which {recipe.task} does not have; give a "
            "number of rows such as 1000"
        )
