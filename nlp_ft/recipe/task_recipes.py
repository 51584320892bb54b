"""The recipes of the tasks: what `data` and `model` hold in each, and what else a task allows. Imports no torch."""

from typing import ClassVar, Self, get_args

from pydantic import Field, model_validator

from nlp_ft.recipe.choices import ChoiceDataSection
from nlp_ft.recipe.images import ImageDataSection, ImageModelSection
from nlp_ft.recipe.questions import QuestionDataSection
from nlp_ft.recipe.recipe import Recipe
from nlp_ft.recipe.sections import ChoiceMetric, MultiLabelMetric, NumberMetric, QuestionMetric, TagMetric
from nlp_ft.recipe.text import TextDataSection, TextModelSection
from nlp_ft.recipe.words import WordsDataSection


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
        _refuse_other_heads(self, "one linear layer that scores each token as the start and as the end of the answer")
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
        _refuse_other_heads(self, "the one that Transformers has, with a score for each candidate")
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


def _refuse_other_heads(recipe: Recipe, own: str) -> None:
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
