"""What a recipe becomes before training begins, and what is said of it."""

from collections import Counter
from dataclasses import dataclass

import torch
from accelerate import Accelerator
from accelerate.utils import DynamoBackend
from transformers import PreTrainedModel

from nlp_ft.data.batch_loading import EpochStream
from nlp_ft.layerwise import LayerMap, Unfreezer, set_trainable_layers
from nlp_ft.layerwise.first_token import Place, first_token_places
from nlp_ft.layerwise.freezing import count_parameters
from nlp_ft.layerwise.unfreezing.phase_table import phase_table
from nlp_ft.models.reinit import reinit_top
from nlp_ft.models.text import unused_parameters
from nlp_ft.recipe import Recipe
from nlp_ft.tasks.outputs import Outputs, Predictions
from nlp_ft.tasks.registry import task_of
from nlp_ft.tasks.task import Data, Task
from nlp_ft.training import setup
from nlp_ft.training.evaluation import predict_split
from nlp_ft.training.features.cache import FeatureCache
from nlp_ft.training.layer_table import layer_table
from nlp_ft.training.loop import LoopSettings
from nlp_ft.training.precision import precision_name
from nlp_ft.training.run_folder import RunFolder

EXAMPLE_ROWS = 3


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
    unfreezer: Unfreezer
    stream: EpochStream
    plan: LoopSettings
    first_token: tuple[Place, ...]
    """Where the model goes on with the first token alone."""

    @property
    def data(self) -> Data:
        """The splits."""
        return self.task.data

    @property
    def outputs(self) -> Outputs:
        """What the model's outputs mean."""
        return self.task.outputs

    def example(self) -> dict[str, torch.Tensor]:
        """Inputs of a few rows of train, on the device."""
        return {key: value.to(self.accelerator.device) for key, value in example_of(self.task).items()}

    def predict(self, split: str, features: FeatureCache | None = None) -> Predictions:
        """The model's predictions for every row of a split, with the features of `validation` or none; collective."""
        return predict_split(
            self.accelerator,
            self.model,
            self.outputs,
            self.data.encoded[split],
            self.data.lengths(split),
            self.task.collator(training=False),
            self.recipe.training.eval_batch_size,
            self.task.num_workers,
            features,
        )


def example_of(task: Task) -> dict[str, torch.Tensor]:
    """Inputs of a few rows of train; of unlike length, so that there is padding."""
    order = task.data.lengths("train").argsort()
    rows = sorted({int(order[int(i * (len(order) - 1) / (EXAMPLE_ROWS - 1))]) for i in range(EXAMPLE_ROWS)})
    batch = task.collator(training=False)([task.data.encoded["train"][row] for row in rows])
    return {key: value for key, value in batch.items() if key not in ("labels", "row")}


def build_parts(recipe: Recipe, folder: RunFolder, accelerator: Accelerator) -> Parts:
    """Read the data, load the model, map its layers. Raises: NlpFtError: what cannot be read, loaded or mapped."""
    task = task_of(recipe)
    with accelerator.main_process_first():
        data = task.data
    model = task.build_model(data.label_names)
    layer_map = task.map_layers(model)
    if recipe.strategy.reinit_top:
        reinit_top(model, task.build_model(data.label_names, False), layer_map, recipe.strategy.reinit_top)
    schedule = setup.make_unfreeze_schedule(recipe.strategy, layer_map.num_layers)
    example = task.collator(training=False)([data.encoded["train"][0]])
    example.pop("labels")
    unused = unused_parameters(model, example)
    if unused:
        accelerator.print(f"never used by this model's forward pass, so frozen: {', '.join(unused)}")
    set_trainable_layers(model, layer_map, schedule.phases[0].layers, unused)
    first_token = _first_token(recipe, accelerator, task, model, layer_map)
    model.to(accelerator.device)
    optimizer = setup.make_optimizer(recipe.optimizer, model, layer_map)
    stream = setup.make_stream(recipe, task, accelerator)
    plan = setup.plan_steps(recipe, stream.steps_per_epoch, "validation" in data.encoded)
    unfreezer = Unfreezer(
        model,
        optimizer,
        setup.make_unfreeze_plan(schedule, plan),
        layer_map,
        setup.make_lr_schedule(recipe.schedule, plan),
        unused,
    )
    return Parts(recipe, accelerator, folder, task, model, layer_map, optimizer, unfreezer, stream, plan, first_token)


def _first_token(
    recipe: Recipe, accelerator: Accelerator, task: Task, model: PreTrainedModel, layer_map: LayerMap
) -> tuple[Place, ...]:
    # A compiled model is left as it was compiled.
    is_compiled = accelerator.state.dynamo_plugin.backend != DynamoBackend.NO
    if task.tokenizer is None or recipe.training.trim_last_block == "off" or is_compiled:
        return ()
    # Padded on the left, the first token stands elsewhere in another batch than in the trial.
    if task.tokenizer.padding_side == "left":
        return ()
    return first_token_places(model, layer_map, example_of(task))


def announce(parts: Parts, data_report: str) -> None:
    """Say once, before training, what was read and decided."""
    total, trainable = count_parameters(parts.model)
    stream, plan, say = parts.stream, parts.plan, parts.accelerator.print
    say("\n".join([data_report, *parts.task.notes]))
    say(f"\n{layer_table(parts.layer_map, parts.optimizer.param_groups)}\n")
    has_phases = len(parts.unfreezer.plan.schedule.phases) > 1
    if has_phases:
        say(f"{_phases(parts)}\n")
    say(
        f"{type(parts.model).__name__}: {trainable:,} of {total:,} parameters train"
        f"{' at first' if has_phases else ''} ({trainable / total:.1%})"
    )
    say(
        f"effective batch {stream.batches.describe(stream.lengths)}; "
        f"{plan.total_steps} steps, {plan.steps_per_epoch} an epoch; {parts.accelerator.device.type} in "
        f"{precision_name(parts.accelerator)} with {torch.get_num_threads()} thread(s)\n"
    )
    if parts.first_token:
        say("last block: behind its attention only the first token goes on, the one that the head reads\n")


def _phases(parts: Parts) -> str:
    sizes: Counter[int] = Counter()
    for name, parameter in parts.model.named_parameters():
        sizes[parts.layer_map.aligned_layer(name)] += parameter.numel()
    groups = parts.optimizer.param_groups
    rates = {parts.layer_map.aligned_layer(group["param_names"][0]): group["initial_lr"] for group in groups}
    return phase_table(parts.unfreezer.plan, sizes, rates)
