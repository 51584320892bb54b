"""What the recipes of all tasks have: what to train, on what, and how; validated as a whole and frozen. No torch.

The field descriptions carry the units; the JSON Schema made from them completes recipes in editors.
"""

from typing import ClassVar, Literal, Self, get_args

from pydantic import Field, model_validator

from nlp_ft.recipe.probe import POOLINGS
from nlp_ft.recipe.sections import (
    ClassMetric,
    DataSection,
    LossSection,
    ModelSection,
    OptimizerSection,
    ScheduleSection,
    Section,
)
from nlp_ft.recipe.strategy import StrategySection
from nlp_ft.recipe.training import TrainingSection
from nlp_ft.recipe.values import Folder, Whole

TaskName = Literal[
    "text_classification",
    "multi_label_classification",
    "text_regression",
    "token_classification",
    "question_answering",
    "multiple_choice",
    "image_classification",
]


class Recipe(Section):
    """A fine-tuning run, from data to run folder. The recipe of each task says what `data` and `model` hold."""

    metrics: ClassVar[tuple[str, ...]] = get_args(ClassMetric)
    """The validation scores of the task, by which a model can be chosen."""
    has_label_sets: ClassVar[bool] = False
    """Whether a row may have any number of labels."""
    takes_columns: ClassVar[bool] = False
    """Whether `data.label` may be a list of columns."""
    has_row_vectors: ClassVar[bool] = True
    """Whether the head reads one vector a row, as a probe does."""
    has_one_label: ClassVar[bool] = False
    """Whether a prediction is one of several labels or candidates, whose probabilities add up to 1."""
    has_classes: ClassVar[bool] = False
    """Whether each row belongs to one class, so that rows can be drawn by class."""

    task: TaskName = Field(
        "text_classification",
        description="What the model learns: `text_classification`, a label for each text or pair of texts; "
        "`multi_label_classification`, any number of labels for each; `text_regression`, a number for each; "
        "`token_classification`, a tag for each word, such as the entities of a text; `question_answering`, the part "
        "of a text that answers a question; `multiple_choice`, the right one of several candidates; "
        "`image_classification`, a label for each image. It decides which keys `data` and `model` have.",
    )
    data: DataSection = Field(description="Where the rows and labels come from.")
    model: ModelSection = Field(description="The pretrained network and its head.")
    strategy: StrategySection = Field(
        StrategySection(), description="Which layers train, and when: the name of a strategy, or a section."
    )
    optimizer: OptimizerSection = Field(OptimizerSection(), description="The optimizer and its learning rates.")
    schedule: ScheduleSection = Field(
        ScheduleSection(), description="How the learning rates change over the run: warm-up, then decay."
    )
    loss: LossSection = Field(LossSection(), description="Class weights and label smoothing.")
    training: TrainingSection = Field(
        TrainingSection(), description="Length, batches, precision, evaluation and checkpoints."
    )
    seed: Whole = Field(
        0,
        ge=0,
        lt=2**32,
        description="Seed of new weights, the order of the rows, dropout, image augmentation and the rows that "
        "`data.train_rows` draws. A validation split that is drawn from train is the same for every seed.",
    )
    output_dir: Folder = Field(
        description="The run folder, which the run makes. If it exists, `--resume` continues the run in it and "
        "`--overwrite` replaces it."
    )
    trackers: list[Literal["tensorboard", "wandb", "trackio"]] = Field(
        [],
        description="Experiment trackers that get the metrics, beside `metrics.jsonl` in the run folder; the package "
        "of each must be installed.",
    )
    baselines: Literal["auto"] | bool = Field(
        "auto",
        description="Also score simple baselines on validation and test: the majority label (or the mean number), and "
        "for texts TF-IDF with a linear model. `auto`: if train has at most 20,000 rows, for which they take seconds.",
    )

    report: bool = Field(
        True,
        description="Record how each layer trains (gradients, updates, drift), and write `report.html` and the hardest "
        "rows of train into the run folder at the end.",
    )

    @model_validator(mode="after")
    def _check_strategy(self) -> Self:
        if self.strategy.name == "full" and self.optimizer.layer_decay != 1:
            raise ValueError(
                f"strategy full trains all layers at one rate, but optimizer.layer_decay is "
                f"{self.optimizer.layer_decay}; set it to 1, or did you mean strategy: llrd?"
            )
        if getattr(self.model, "keep_head", False):
            if self.strategy.name == "scratch":
                raise ValueError("model.keep_head has no meaning under scratch, where all weights are random")
            if self.strategy.reinit_top:
                raise ValueError("model.keep_head has no place beside strategy.reinit_top, which also renews the head")
        return self

    @model_validator(mode="after")
    def _check_probe(self) -> Self:
        """Check that a recipe with strategy probe asks for one linear layer on frozen features."""
        probe, model = self.strategy.probe, self.model
        if probe is None:
            return self
        if not self.has_row_vectors:
            raise ValueError(
                f"strategy probe needs one vector a row, which {self.task} does not have; did you mean head_only?"
            )
        pooling = getattr(model, "pooling", None)
        windows_max = getattr(self.data, "truncation", "") == "windows" and self.data.window_pooling == "max"  # type: ignore[attr-defined]
        refused = {
            f"model.head.type {model.head.type}": (model.head.type != "linear", "its head is one linear layer"),
            f"model.pooling {pooling}": (pooling not in (None, *POOLINGS), f"use {', '.join(POOLINGS)}"),
            "model.keep_head": (getattr(model, "keep_head", False), "it puts its own solution into the head"),
            "data.window_pooling max": (windows_max, "the windows of a text are averaged; use mean"),
            "training.feature_cache": (
                self.training.feature_cache != "off",
                "features are computed once; leave it out",
            ),
            f"strategy.probe.layer {probe.layer}": (pooling is None and probe.layer != "auto", "images have one layer"),
            "loss.class_weights": (self.has_label_sets and self.loss.class_weights is not None, "leave it out"),
        }
        for field, (is_set, why) in refused.items():
            if is_set:
                raise ValueError(f"{field} has no place under strategy probe: {why}")
        return self

    @model_validator(mode="after")
    def _check_calibration(self) -> Self:
        if self.training.calibration is None:
            return self
        field = f"training.calibration {self.training.calibration}"
        if not self.has_one_label:
            raise ValueError(
                f"{field} is for tasks that choose one label or candidate, not for {self.task}; leave it out"
            )
        if self.data.validation is None:
            raise ValueError(f"{field} needs data.validation, a split or a share such as 10%")
        return self

    @model_validator(mode="after")
    def _check_train_rows(self) -> Self:
        train_rows = self.data.train_rows
        if isinstance(train_rows, str) and not self.has_classes:
            raise ValueError(
                f"data.train_rows {train_rows} is for rows of one class each, which {self.task} does not have; give a "
                "number of rows such as 1000"
            )
        return self

    @model_validator(mode="after")
    def _check_validation(self) -> Self:
        unfreeze = self.strategy.unfreeze
        needs_validation = {
            "training.early_stopping": self.training.early_stopping is not None,
            f"training.threshold {self.training.threshold}": isinstance(self.training.threshold, str),
            "strategy.unfreeze.plateau": unfreeze is not None and unfreeze.plateau is not None,
            "strategy.unfreeze.restore_best": unfreeze is not None and unfreeze.restore_best,
        }
        for field, is_set in needs_validation.items():
            if is_set and self.data.validation is None:
                raise ValueError(f"{field} needs data.validation, a split or a share such as 10%")
        return self

    @model_validator(mode="after")
    def _check_class_weights(self) -> Self:
        weights, names = self.loss.class_weights, self.data.label_names
        if isinstance(weights, dict) and names is not None and set(weights) != set(names):
            raise ValueError(f"loss.class_weights must name exactly the labels of data.label_names: {names}")
        return self

    @model_validator(mode="after")
    def _check_label_sets(self) -> Self:
        columns = getattr(self.data, "label", None)
        of_sets = {
            "data.label_separator": getattr(self.data, "label_separator", None) is not None,
            "training.threshold": self.training.threshold is not None,
        }
        if isinstance(columns, list) and not self.takes_columns:
            raise ValueError(
                f"data.label must be one column for {self.task}, got {columns}; several columns are for task: "
                "multi_label_classification (0 or 1 in each) and task: text_regression (a number in each)"
            )
        for field, is_set in of_sets.items():
            if is_set and not self.has_label_sets:
                raise ValueError(f"{field} is for task: multi_label_classification, not for {self.task}")
        return self

    @model_validator(mode="after")
    def _check_metrics(self) -> Self:
        given: dict[str, str] = {"training.metric": self.training.metric}
        if self.strategy.unfreeze is not None and self.strategy.unfreeze.plateau is not None:
            given["strategy.unfreeze.plateau.metric"] = self.strategy.unfreeze.plateau.metric
        for field, metric in given.items():
            if metric not in self.metrics:
                raise ValueError(f"{field} {metric} is no metric of {self.task}, which has {', '.join(self.metrics)}")
        return self
