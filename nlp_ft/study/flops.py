"""Counts the floating-point operations of training steps, of which what is frozen costs no backward pass.

Counted are matrix products, convolutions and attention, forward and backward, by PyTorch's own counter; a product and a
sum are two operations. One real step is counted for each phase, outside of any run.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from nlp_ft.data.batch import model_inputs, output_logits
from nlp_ft.data.batch_loading import load_batches
from nlp_ft.layerwise.freezing import set_trainable_layers
from nlp_ft.recipe import Recipe
from nlp_ft.tasks.task import Task
from nlp_ft.training import build

Batch = Mapping[str, torch.Tensor]


def flops_of_run(summary: Mapping[str, Any], of_phases: Sequence[int]) -> int:
    """Count the operations of the training steps of a run.

    Blocks whose features were stored, and that the run therefore skipped, count as if they had been computed.

    Args:
        summary: what its summary.json holds.
        of_phases: the operations of a step in each phase of its recipe, see `flops_of_phases`.
    """
    borders = [*(phase["step"] for phase in summary["phases"]), summary["global_step"]]
    steps = [end - start for start, end in pairwise(borders)]
    return sum(number * flops for number, flops in zip(steps, of_phases))


def flops_of_phases(recipe: Recipe, task: Task) -> list[int]:
    """Count the operations of an optimizer step, forward and backward, in each phase of a recipe.

    Args:
        recipe: the recipe with its derived settings.
        task: the task; of its training batches, the one whose size is nearest to their mean is taken.
    """
    layered = build.layered_model(recipe, task, task.data.label_names, pretrained=False)
    device = torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    model: Any = layered.model
    model.to(device)
    batches = typical_batches(recipe, task)
    found = []
    for phase in layered.schedule.phases:
        set_trainable_layers(model, layered.layer_map, phase.layers, layered.frozen)
        # The counter does not know the other kernels of attention on CPUs.
        with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
            for batch in batches:
                inputs = {key: value.to(device) for key, value in model_inputs(batch).items()}
                torch.autograd.backward(output_logits(model(**inputs)).float().sum())
        found.append(int(counter.get_total_flops()))
        model.zero_grad()
    return found


def typical_batches(recipe: Recipe, task: Task) -> list[Batch]:
    """Load the micro-batches of an optimizer step whose number of tokens, with padding, is nearest to the mean."""
    lengths = task.data.lengths("train")
    steps = build.effective_batches(recipe, task, 1).of_epoch(lengths, recipe.seed, 0)
    tokens = np.array([sum(len(rows) * int(lengths[rows].max()) for rows in micro) for micro in steps])
    chosen = steps[int(np.abs(tokens - tokens.mean()).argmin())]
    return list(load_batches(task.data.encoded["train"], chosen, task.collator(training=True)))
