"""What a recipe becomes before training begins, and what is said of it."""

from dataclasses import dataclass

import torch
from accelerate import Accelerator
from transformers import PreTrainedModel

from nlp_ft.data.batching import EpochStream
from nlp_ft.layerwise import LayerMap, set_trainable
from nlp_ft.layerwise.freezing import count_parameters
from nlp_ft.models.text import freeze_unused_parameters
from nlp_ft.recipe import Recipe
from nlp_ft.training import setup
from nlp_ft.training.describe import layer_table
from nlp_ft.training.evaluation import Predictions, predict_split
from nlp_ft.training.loop import LoopSettings
from nlp_ft.training.precision import precision_name
from nlp_ft.training.run_folder import RunFolder
from nlp_ft.training.task import Data, Task, task_of


@dataclass(frozen=True)
class Parts:
    """The objects of a run."""

    recipe: Recipe
    accelerator: Accelerator
    folder: RunFolder
    task: Task
    model: PreTrainedModel
    layer_map: LayerMap
    optimizer: torch.optim.Optimizer
    stream: EpochStream
    plan: LoopSettings

    @property
    def data(self) -> Data:
        """The splits."""
        return self.task.data

    def predict(self, split: str) -> Predictions:
        """The model's predictions for every row of a split; collective."""
        return predict_split(
            self.accelerator,
            self.model,
            self.data.encoded[split],
            self.data.lengths(split),
            self.task.collator(training=False),
            self.recipe.training.eval_batch_size,
            self.task.num_workers,
        )


def build_parts(recipe: Recipe, folder: RunFolder, accelerator: Accelerator) -> Parts:
    """Read the data, load the model, map its layers. Raises: NlpFtError: what cannot be read, loaded or mapped."""
    task = task_of(recipe)
    with accelerator.main_process_first():
        data = task.data
    model = task.build_model(data.label_names)
    layer_map = task.map_layers(model)
    set_trainable(model, layer_map, setup.lowest_trainable_layer(recipe.strategy, layer_map.num_layers))
    example = task.collator(training=False)([data.encoded["train"][0]])
    example.pop("labels")
    unused = freeze_unused_parameters(model, example)
    if unused:
        accelerator.print(f"never used by this model's forward pass, so frozen: {', '.join(unused)}")
    model.to(accelerator.device)
    optimizer = setup.make_optimizer(recipe.optimizer, model, layer_map)
    stream = setup.make_stream(recipe, task, accelerator)
    plan = setup.plan_steps(recipe.training, stream.steps_per_epoch, recipe.seed, "validation" in data.encoded)
    return Parts(recipe, accelerator, folder, task, model, layer_map, optimizer, stream, plan)


def announce(parts: Parts, data_report: str) -> None:
    """Say once, before training, what was read and decided."""
    total, trainable = count_parameters(parts.model)
    stream, plan, say = parts.stream, parts.plan, parts.accelerator.print
    say("\n".join([data_report, *parts.task.notes]))
    say(f"\n{layer_table(parts.layer_map, parts.optimizer.param_groups)}\n")
    say(f"{type(parts.model).__name__}: {trainable:,} of {total:,} parameters train ({trainable / total:.1%})")
    say(
        f"effective batch {stream.effective_batch_size} = {stream.per_device_batch_size} per device x "
        f"{stream.num_processes} process(es) x {stream.gradient_accumulation_steps} accumulated; "
        f"{plan.total_steps} steps, {plan.steps_per_epoch} an epoch; {parts.accelerator.device.type} in "
        f"{precision_name(parts.accelerator)} with {torch.get_num_threads()} thread(s)\n"
    )
