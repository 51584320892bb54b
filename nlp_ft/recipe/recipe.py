"""A recipe: what to train, on what, and how; validated as a whole and frozen. Imports no torch.

The field descriptions carry the units; the JSON Schema made from them completes recipes in editors.
"""

from typing import ClassVar, Literal, Self, get_args

from pydantic import Field, model_validator

from nlp_ft.recipe.checks import check_calibration, check_strategy, check_train_rows, refuse_other_heads
from nlp_ft.recipe.choices import ChoiceDataSection
from nlp_ft.recipe.images import ImageDataSection, ImageModelSection
from nlp_ft.recipe.probe import check_probe
from nlp_ft.recipe.questions import QuestionDataSection
from nlp_ft.recipe.sections import (
    ChoiceMetric,
    ClassMetric,
    DataSection,
    LossSection,
    ModelSection,
    MultiLabelMetric,
    NumberMetric,
    OptimizerSection,
    QuestionMetric,
    ScheduleSection,
    Section,
    TagMetric,
)
from nlp_ft.recipe.strategy import StrategySection
from nlp_ft.recipe.text import TextDataSection, TextModelSection
from nlp_ft.recipe.training import TrainingSection
from nlp_ft.recipe.values import Folder, Whole
from nlp_ft.recipe.words import WordsDataSection

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
        check_strategy(self)
        check_probe(self)
        check_calibration(self)
        check_train_rows(self)
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


class TextRecipe(Recipe):
    """Text classification: a label for each text or pair of texts."""

    has_one_label: ClassVar[bool] = True
    has_classes: ClassVar[bool] = True
    data: TextDataSection = Field(description="Where the texts and labels come from.")
    model: TextModelSection = Field(description="The pretrained encoder, its pooling and its head.")

    @model_validator(mode="after")
    def _check_text(self) -> Self:
        if self.strategy.grain != "block":
            raise ValueError(f"strategy.grain {self.strategy.grain} is for images; the layers of a text are its blocks")
        return self


class MultiLabelRecipe(TextRecipe):
    """Multi-label classification: any number of labels, also none, for each text or pair of texts."""

    metrics: ClassVar[tuple[str, ...]] = get_args(MultiLabelMetric)
    has_one_label: ClassVar[bool] = False
    has_classes: ClassVar[bool] = False
    has_label_sets: ClassVar[bool] = True
    takes_columns: ClassVar[bool] = True


class RegressionRecipe(TextRecipe):
    """Text regression: a number, or several, for each text or pair of texts, such as how alike the two are."""

    metrics: ClassVar[tuple[str, ...]] = get_args(NumberMetric)
    has_one_label: ClassVar[bool] = False
    has_classes: ClassVar[bool] = False
    takes_columns: ClassVar[bool] = True

    @model_validator(mode="after")
    def _check_numbers(self) -> Self:
        of_labels = {
            "data.label_names": self.data.label_names is not None,
            "loss.class_weights": self.loss.class_weights is not None,
            "loss.label_smoothing": self.loss.label_smoothing != 0,
        }
        for field, is_set in of_labels.items():
            if is_set:
                raise ValueError(f"{field} is for labels; {self.task} learns numbers")
        return self


class QuestionRecipe(Recipe):
    """Question answering: the part of a context that answers a question, or that there is none."""

    metrics: ClassVar[tuple[str, ...]] = get_args(QuestionMetric)
    has_row_vectors: ClassVar[bool] = False
    data: QuestionDataSection = Field(description="Where the questions, contexts and answers come from.")
    model: TextModelSection = Field(description="The pretrained encoder and its head.")

    @model_validator(mode="after")
    def _check_questions(self) -> Self:
        refuse_other_heads(self, "one linear layer that scores each token as the start and as the end of the answer")
        return self


class ChoiceRecipe(Recipe):
    """Multiple choice: the right one of several candidates for a prompt."""

    metrics: ClassVar[tuple[str, ...]] = get_args(ChoiceMetric)
    has_one_label: ClassVar[bool] = True
    has_row_vectors: ClassVar[bool] = False
    data: ChoiceDataSection = Field(description="Where the prompts, candidates and labels come from.")
    model: TextModelSection = Field(description="The pretrained encoder and its head.")

    @model_validator(mode="after")
    def _check_choices(self) -> Self:
        refuse_other_heads(self, "the one that Transformers has, with a score for each candidate")
        return self


class WordsRecipe(Recipe):
    """Token classification: a tag for each word, such as the names of persons and places in a text."""

    metrics: ClassVar[tuple[str, ...]] = get_args(TagMetric)
    has_row_vectors: ClassVar[bool] = False

    data: WordsDataSection = Field(description="Where the words and their tags come from.")
    model: TextModelSection = Field(
        description="The pretrained encoder, with a linear layer on the vector of each token."
    )

    @model_validator(mode="after")
    def _check_words(self) -> Self:
        if self.strategy.grain != "block":
            raise ValueError(f"strategy.grain {self.strategy.grain} is for images; the layers of a text are its blocks")
        if self.model.pooling != "auto":
            raise ValueError(
                f"model.pooling {self.model.pooling} is for whole texts; here each word has its own vector"
            )
        if self.model.head.type != "linear":
            raise ValueError(f"model.head.type must be linear for {self.task}, got {self.model.head.type}")
        return self


class ImageRecipe(Recipe):
    """Image classification: a label for each image."""

    has_one_label: ClassVar[bool] = True
    has_classes: ClassVar[bool] = True
    data: ImageDataSection = Field(description="Where the images and labels come from.")
    model: ImageModelSection = Field(description="The torchvision network, its weights and its head.")

    @model_validator(mode="after")
    def _check_images(self) -> Self:
        if self.strategy.lora is not None:
            raise ValueError("strategy lora is for texts; of an image network, train the top_layers")
        if self.training.max_tokens_per_batch is not None:
            raise ValueError(
                f"training.max_tokens_per_batch {self.training.max_tokens_per_batch} is for texts; of images, "
                "training.per_device_batch_size says how many go together"
            )
        return self


RECIPES: dict[str, type[Recipe]] = {
    "text_classification": TextRecipe,
    "multi_label_classification": MultiLabelRecipe,
    "text_regression": RegressionRecipe,
    "token_classification": WordsRecipe,
    "question_answering": QuestionRecipe,
    "multiple_choice": ChoiceRecipe,
    "image_classification": ImageRecipe,
}
"""Task -> the class of its recipe."""
