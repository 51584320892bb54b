"""Recipes for images: defaults, what the task decides, and what is refused in plain words."""

from typing import Any

import pytest

from nlp_ft.errors import RecipeError
from nlp_ft.recipe import ImageRecipe, TextRecipe
from nlp_ft.recipe.images import ImageDataSection, ImageModelSection
from nlp_ft.recipe.loader import recipe_from_dict


def image_recipe(**changes: Any) -> dict[str, Any]:
    recipe = {"task": "image_classification", "data": {"train": "a"}, "model": {"name": "resnet18"}, "output_dir": "x"}
    return {**recipe, **changes}


def text_recipe(**changes: Any) -> dict[str, Any]:
    return {"data": {"train": "a.csv"}, "model": {"name": "m"}, "output_dir": "x", **changes}


def problems(values: dict[str, Any]) -> list[str]:
    with pytest.raises(RecipeError) as caught:
        recipe_from_dict(values, "r.yaml")
    return [line.removeprefix("r.yaml: ") for line in str(caught.value).splitlines()]


def test_the_task_decides_the_sections_and_text_is_the_default() -> None:
    images, texts = recipe_from_dict(image_recipe()), recipe_from_dict(text_recipe())
    assert (type(images), type(texts)) == (ImageRecipe, TextRecipe)
    assert (images.task, texts.task) == ("image_classification", "text_classification")
    assert recipe_from_dict(text_recipe(task="text_classification")) == texts
    assert isinstance(images.data, ImageDataSection)
    assert isinstance(images.model, ImageModelSection)
    assert (images.model.weights, images.model.head.type, images.model.head.bottleneck_size) == (
        "DEFAULT",
        "linear",
        512,
    )
    assert images.data.augmentation.model_dump() == {
        "crop": "random_resized",
        "crop_scale": (0.35, 1.0),
        "crop_padding": 0,
        "horizontal_flip": 0.5,
        "vertical_flip": 0.0,
        "rotation": 0.0,
        "translation": 0.0,
        "rand_augment": None,
        "mixup": 0.0,
        "cutmix": 0.0,
    }


@pytest.mark.parametrize(
    ("values", "lines"),
    [
        (image_recipe(task="images"),
         ["task must be 'text_classification', 'multi_label_classification', 'text_regression', "
          "'token_classification', 'question_answering', 'multiple_choice' or 'image_classification', got 'images'"]),
        (image_recipe(task=3), None),
        (image_recipe(data={"train": "a", "max_length": 9, "imagesize": 9}),
         ["data.max_length is not a key of a recipe; did you mean task: text_classification, which has it?",
          "data.imagesize is not a key of a recipe; did you mean image_size?"]),
        (text_recipe(model={"name": "m", "weights": None}),
         ["model.weights is not a key of a recipe; did you mean task: image_classification, which has it?"]),
        (text_recipe(strategy={"grain": "stage"}),
         ["strategy.grain stage is for images; the layers of a text are its blocks"]),
        (image_recipe(data={"train": "a", "augmentation": {"crop_scale": [0.5, 0.1], "mixup": -1}}),
         ["data.augmentation.mixup must be in [0, 100), got -1"]),
        (image_recipe(data={"train": "a", "augmentation": {"crop_scale": [0.5, 0.1]}}),
         ["data.augmentation.crop_scale must be two shares in (0, 1], the smaller first, got [0.5, 0.1]"]),
        (image_recipe(data={"train": "a", "augmentation": {"crop_padding": 4}}),
         ["data.augmentation.crop_padding is a setting of crop: random, not of random_resized"]),
        (image_recipe(data={"train": "a", "image_size": 4}), ["data.image_size must be in [8, 4096], got 4"]),
        (image_recipe(data={"train": "a", "image_size": 64, "resize_size": 32}),
         ["data.resize_size must be at least image_size 64, got 32"]),
        (image_recipe(data={"revision": "main", "train": "a"}),
         ["data.config and revision belong to a Hub data set; name it in source"]),
        (image_recipe(training={"max_tokens_per_batch": 512}),
         ["training.max_tokens_per_batch 512 is for texts; of images, training.per_device_batch_size says how many go "
          "together"]),
        (image_recipe(training={"early_stopping": {}}),
         ["training.early_stopping needs data.validation, a split or a share such as 10%"]),
        (image_recipe(optimizer={"layer_decay": 0.5}, strategy="full"), None),
    ],
)  # fmt: skip
def test_mistakes_are_told_in_plain_words(values: dict[str, Any], lines: list[str] | None) -> None:
    found = problems(values)
    assert found == lines if lines is not None else len(found) == 1
