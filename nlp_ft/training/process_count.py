"""Decides whether a run may go on with another number of processes: where its steps stay the same but for rounding."""

import torch
from transformers import PreTrainedModel

from nlp_ft.layerwise.modes import is_kept_inside, keeps_statistics
from nlp_ft.tasks.task import Task
from nlp_ft.training.build import example_inputs


def obstacle(task: Task, model: PreTrainedModel) -> str | None:
    """Say what would differ on another number of processes; None if only rounding would. Collective.

    Args:
        task: the task of the run.
        model: the model, on its device.
    """
    if task.tokenizer is None:
        return "images of one micro-batch may be mixed"
    if any(map(keeps_statistics, model.modules())):
        return "the model keeps running statistics of the micro-batches"
    if _draws(model, {key: value.to(model.device) for key, value in example_inputs(task).items()}):
        return "the model draws random numbers (dropout), which each process does for itself"
    return None


def _draws(model: PreTrainedModel, example: dict[str, torch.Tensor]) -> bool:
    """Whether a forward pass in train mode draws random numbers."""
    modes = [(module, module.training) for module in model.modules()]
    if any(is_kept_inside(module) for module, _ in modes):
        return True
    before = _random_states(model.device)
    try:
        for module, _ in modes:
            # Not `model.train()`, which leaves frozen modules in eval mode: a later phase may train them.
            module.training = True
        with torch.no_grad():
            model(**example)
    finally:
        for module, mode in modes:
            module.training = mode
    return any(not torch.equal(one, other) for one, other in zip(before, _random_states(model.device), strict=True))


def _random_states(device: torch.device) -> list[torch.Tensor]:
    states = [torch.get_rng_state()]
    return states + ([torch.cuda.get_rng_state(device)] if device.type == "cuda" else [])
