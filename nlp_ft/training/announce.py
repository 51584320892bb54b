"""Says, once before training, what a run will do: data, layers, phases, sizes and steps."""

import torch
from accelerate import Accelerator

from nlp_ft.layerwise.freezing import count_parameters
from nlp_ft.layerwise.unfreezing.phase_table import phase_table_of
from nlp_ft.recipe import Recipe
from nlp_ft.recipe.derived import format_derived
from nlp_ft.screen import is_verbose, say
from nlp_ft.tables import short_count, short_share, shortened
from nlp_ft.tasks import baselines
from nlp_ft.training.build import RunParts
from nlp_ft.training.facts import versions
from nlp_ft.training.layer_table import layer_table, short_layer_table
from nlp_ft.training.loop_state import LoopSettings
from nlp_ft.training.precision import precision_name
from nlp_ft.training.verdict.collect import highest_rate

NAME_WIDTH = 40
"""Most columns of a name in the first line."""


def announce(parts: RunParts, accelerator: Accelerator) -> None:
    """Say the data report, the layer table, the phases if there are several, and the size and length of the run.

    On a verbose screen the layer table is the one of layers.txt, and the versions of the libraries are there, too.
    """
    recipe, task, layered, settings, stream = parts.recipe, parts.task, parts.layered, parts.settings, parts.stream
    total, trainable = count_parameters(parts.model)
    has_phases = len(layered.schedule.phases) > 1
    place, name = (shortened(text, NAME_WIDTH) for text in (recipe.output_dir, recipe.model.name))
    say(f"{place}: {recipe.strategy.name} on {name}, seed {recipe.seed}\n")
    say("\n".join([task.format_report(parts.report), *task.notes]))
    _say_decided(parts)
    if recipe.strategy.probe is not None:
        say(f"\nfeatures of the frozen network ({short_count(total)} parameters) on {accelerator.device.type}\n")
        return
    table = layer_table if is_verbose() else short_layer_table
    later = {layer for phase in layered.schedule.phases for layer in phase.layers}
    say(f"\n{table(layered.layer_map, parts.optimizer.param_groups, later)}\n")
    rate = highest_rate(parts)
    is_given = rate.setting not in {one.key for one in parts.derived}
    if is_given and not rate.low <= rate.value <= rate.high:
        say(f"warning: {rate}; {rate.suggested:.1g} is a usual one\n")
    if has_phases:
        groups = parts.optimizer.param_groups
        say(f"{phase_table_of(parts.unfreezer.plan, parts.model, layered.layer_map, groups)}\n")
    say(
        f"{type(parts.model).__name__}: {short_count(trainable)} of {short_count(total)} parameters train"
        f"{' at first' if has_phases else ''} ({short_share(trainable, total)})"
    )
    say(
        f"effective batch {stream.batches.describe(stream.lengths)}; "
        f"{settings.total_steps} steps, {settings.steps_per_epoch} an epoch; {_schedule(recipe, settings)}; "
        f"{accelerator.device.type} in "
        f"{precision_name(accelerator)} with {torch.get_num_threads()} thread{'s' * (torch.get_num_threads() != 1)}\n"
    )
    if settings.metric:
        say(
            f"evaluated on validation, whose loss each line has (the bar has that of train); `best` marks the best "
            f"{settings.metric.replace('_', ' ')} so far\n"
        )


def _say_decided(parts: RunParts) -> None:
    """Say what nobody asked for: derived settings, baselines left out, parameters without use, and versions."""
    if parts.derived:
        say(f"\n{format_derived(parts.derived)}")
    rows = len(parts.task.data.encoded["train"])
    if parts.recipe.baselines == "auto" and not baselines.are_wanted("auto", rows):
        say(f"baselines: none, as train has more than {baselines.MOST_ROWS:,} rows; baselines: true computes them")
    if parts.layered.unused:
        say(f"never used by this model's forward pass, so frozen: {', '.join(parts.layered.unused)}")
    if is_verbose():
        say("versions: " + ", ".join(f"{name} {version}" for name, version in versions(parts.task.libraries).items()))


def _schedule(recipe: Recipe, settings: LoopSettings) -> str:
    steps = recipe.schedule.warmup.steps(settings.steps_per_epoch, settings.total_steps)
    return f"{recipe.schedule.name.replace('_', ' ')} schedule" + (f" after {steps} steps of warm-up" if steps else "")
