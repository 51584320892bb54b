"""What every task in the registry offers: the members of its protocols, and a trained run that reads its inputs."""

import inspect
from importlib import import_module
from typing import get_type_hints

import pytest

from nlp_ft.prediction.predict import RUNS
from nlp_ft.tasks.outputs import Outputs
from nlp_ft.tasks.registry import TASKS, task_class
from nlp_ft.tasks.task import Task


def members(protocol: type) -> set[str]:
    """The public names of a protocol."""
    return {name for name in {*vars(protocol), *protocol.__annotations__} if not name.startswith("_")}


@pytest.mark.parametrize("name", TASKS)
def test_a_task_and_its_outputs_have_all_members_of_their_protocols(name: str) -> None:
    if name == "image_classification":
        pytest.importorskip("torchvision")
    task = task_class(name)
    # What a task sets in __init__ is no attribute of its class.
    assert members(Task) - set(dir(task)) <= {"example_input", "group_by_length", "notes", "num_workers"}
    outputs = get_type_hints(task.outputs_of)["return"]
    assert members(Outputs) - set(dir(outputs)) == set()
    assert not inspect.isabstract(outputs)


@pytest.mark.parametrize("inputs", RUNS)
def test_every_trained_run_can_be_made(inputs: str) -> None:
    if inputs == "images":
        pytest.importorskip("torchvision")
    module, _, class_name = RUNS[inputs].partition(":")
    assert not inspect.isabstract(getattr(import_module(module), class_name))
