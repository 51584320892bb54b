"""A recipe: what to train, on what, and how; validated as a whole and frozen. Imports no torch.

The field descriptions carry the units; the JSON Schema made from them completes recipes in editors.
"""

from collections.abc import Sequence
from typing import ClassVar, Literal, Self, get_args

from pydantic import Field, model_validator

from nlp_ft.recipe.images import ImageDataSection, ImageModelSection
from nlp_ft.recipe.sections import (
    ClassMetric,
    DataSection,
    LossSection,
    ModelSection,
    NumberMetric,
    OptimizerSection,
    ScheduleSection,
    Section,
    TrainingSection,
)
from nlp_ft.recipe.strategy import StrategySection
from nlp_ft.recipe.text import TextDataSection, TextModelSection
from nlp_ft.recipe.values import Folder, Whole


class Recipe(Section):
    """A fine-tuning run, from data to run folder; `TextRecipe` and `ImageRecipe` say what `data` and `model` hold."""

    task: Literal["text_classification", "text_regression", "image_classification"] = Field(
        "text_classification",
        description="What is learned: a label or a number for each text or pair of texts, or a label for each image. "
        "It decides which keys `data` and `model` have.",
    )
    data: DataSection = Field(description="Where rows and labels come from.")
    model: ModelSection = Field(description="The pretrained network and its head.")
    strategy: StrategySection = Field(StrategySection(), description="What is trained.")
    optimizer: OptimizerSection = Field(OptimizerSection(), description="The optimizer and its rates.")
    schedule: ScheduleSection = Field(ScheduleSection(), description="How the rates move over the run.")
    loss: LossSection = Field(LossSection(), description="Cross-entropy and its weights.")
    training: TrainingSection = Field(TrainingSection(), description="The loop.")
    seed: Whole = Field(0, ge=0, lt=2**32, description="Of the head's weights, the order of the data and dropout.")
    output_dir: Folder = Field(
        description="The run folder; it must not exist, unless --overwrite or --resume is given."
    )
    trackers: list[Literal["tensorboard", "wandb", "trackio"]] = Field(
        default_factory=list, description="Where metrics go beside metrics.jsonl; each needs its package."
    )
    baselines: bool = Field(
        False,
        description="Score the majority label, and for texts TF-IDF with logistic regression, on the test split too.",
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.strategy.name == "full" and self.optimizer.layer_decay != 1:
            raise ValueError(
                f"strategy full trains all layers at one rate, but optimizer.layer_decay is "
                f"{self.optimizer.layer_decay}; set it to 1, or did you mean strategy: llrd?"
            )
        unfreeze = self.strategy.unfreeze
        needs_validation = {
            "training.early_stopping": self.training.early_stopping is not None,
            "strategy.unfreeze.plateau": unfreeze is not None and unfreeze.plateau is not None,
            "strategy.unfreeze.restore_best": unfreeze is not None and unfreeze.restore_best,
        }
        for field, is_set in needs_validation.items():
            if is_set and self.data.validation is None:
                raise ValueError(f"{field} needs data.validation, a split or a share such as 10%")
        weights, names = self.loss.class_weights, self.data.label_names
        if isinstance(weights, dict) and names is not None and set(weights) != set(names):
            raise ValueError(f"loss.class_weights must name exactly the labels of data.label_names: {names}")
        return self


class TextRecipe(Recipe):
    """Text classification."""

    metrics: ClassVar[tuple[str, ...]] = get_args(ClassMetric)

    data: TextDataSection = Field(description="Where the texts and labels come from.")
    model: TextModelSection = Field(description="The pretrained encoder, its pooling and its head.")

    @model_validator(mode="after")
    def _check_task(self) -> Self:
        if self.strategy.grain != "block":
            raise ValueError(f"strategy.grain {self.strategy.grain} is for images; the layers of a text are its blocks")
        _require_metrics(self, self.metrics)
        return self


class RegressionRecipe(TextRecipe):
    """A number for each text or pair of texts, such as how alike the two are."""

    metrics: ClassVar[tuple[str, ...]] = get_args(NumberMetric)

    @model_validator(mode="after")
    def _check_numbers(self) -> Self:
        of_labels = {
            "data.label_names": self.data.label_names is not None,
            "loss.class_weights": self.loss.class_weights is not None,
            "loss.label_smoothing": self.loss.label_smoothing != 0,
        }
        for field, is_set in of_labels.items():
            if is_set:
                raise ValueError(f"{field} is for labels; text_regression learns numbers")
        return self


class ImageRecipe(Recipe):
    """Image classification."""

    data: ImageDataSection = Field(description="Where the images and labels come from.")
    model: ImageModelSection = Field(description="The torchvision network, its weights and its head.")

    @model_validator(mode="after")
    def _check_task(self) -> Self:
        if self.training.max_tokens_per_batch is not None:
            raise ValueError(
                f"training.max_tokens_per_batch {self.training.max_tokens_per_batch} is for texts; of images, "
                "training.per_device_batch_size says how many go together"
            )
        _require_metrics(self, get_args(ClassMetric))
        return self


def _require_metrics(recipe: Recipe, known: Sequence[str]) -> None:
    given: dict[str, str] = {"training.metric": recipe.training.metric}
    if recipe.strategy.unfreeze is not None and recipe.strategy.unfreeze.plateau is not None:
        given["strategy.unfreeze.plateau.metric"] = recipe.strategy.unfreeze.plateau.metric
    for field, metric in given.items():
        if metric not in known:
            raise ValueError(f"{field} {metric} is no metric of {recipe.task}, which has {', '.join(known)}")


RECIPES: dict[str, type[Recipe]] = {
    "text_classification": TextRecipe,
    "text_regression": RegressionRecipe,
    "image_classification": ImageRecipe,
}
"""Task -> the recipe of it."""
