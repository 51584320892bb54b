"""Finds a task by its name in recipes; a task is imported when it is first needed."""

from pkgutil import resolve_name
from typing import Any

from nlp_ft.errors import ModelError
from nlp_ft.extras import require_torchvision
from nlp_ft.recipe import Recipe
from nlp_ft.tasks.task import Task

TASKS = {
    "text_classification": "nlp_ft.tasks.text_classification:TextClassification",
    "multi_label_classification": "nlp_ft.tasks.multi_label_classification:MultiLabelClassification",
    "text_regression": "nlp_ft.tasks.text_regression:TextRegression",
    "token_classification": "nlp_ft.tasks.token_classification:TokenClassification",
    "question_answering": "nlp_ft.tasks.question_answering:QuestionAnswering",
    "multiple_choice": "nlp_ft.tasks.multiple_choice:MultipleChoice",
    "image_classification": "nlp_ft.tasks.image_classification:ImageClassification",
}
"""Name of a task in recipes -> its module and class."""
NEED_TORCHVISION = {"image_classification"}


def task_class(name: str) -> Any:
    """Import the class of a task. Raises: ModelError: it needs a package that is not installed."""
    if name in NEED_TORCHVISION:
        require_torchvision(ModelError)
    return resolve_name(TASKS[name])


def task_of(recipe: Recipe) -> Task:
    """Make the task of a recipe. Raises: ModelError: it needs a package that is not installed."""
    task: Task = task_class(recipe.task)(recipe)
    return task
