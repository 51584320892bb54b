"""Decides before training whether a run caches the outputs of its frozen blocks, by weighing work against bytes."""

import shutil
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object

from nlp_ft.environment import feature_folder
from nlp_ft.layerwise import UnfreezePlan
from nlp_ft.layerwise.prefix import FrozenPrefix
from nlp_ft.recipe.training import TrainingSection
from nlp_ft.screen import say
from nlp_ft.tasks.task import Task
from nlp_ft.training.accelerator import is_compiled
from nlp_ft.training.build import LayeredModel, RunParts, example_inputs
from nlp_ft.training.features.cache import FeatureCache, lowest_trained
from nlp_ft.training.features.spec import CacheSpec, Split
from nlp_ft.training.features.store import build_cache, bytes_in
from nlp_ft.training.loop_state import LoopSettings, LoopState
from nlp_ft.training.sharding import is_sharded

BYTES_IN_GB = 10**9


@dataclass(frozen=True)
class SplitUse:
    """How a run uses one split: its number of tokens, and the passes through it in each phase."""

    tokens: int
    passes: Sequence[float]


@dataclass(frozen=True)
class Savings:
    """The expected worth of a cache; the unit of work is one token that passes through one block."""

    boundaries: tuple[int, ...]
    """The boundaries that a phase will use and that fit into the budget."""
    work_saved: float
    work_of_pass: float
    bytes_needed: int

    @property
    def pays(self) -> bool:
        """Whether more work is saved than done."""
        return self.work_saved > self.work_of_pass


def expected_savings(
    boundary_of_phase: Sequence[int], splits: Sequence[SplitUse], bytes_of: Mapping[int, int], budget: int
) -> Savings:
    """Weigh one pass through the frozen blocks against the passes that it spares.

    Args:
        boundary_of_phase: the boundary at which each phase could begin, 0 for none.
        splits: the use of each split.
        bytes_of: boundary -> bytes on the disk, all splits together.
        budget: most bytes on the disk.
    """

    def saved(kept: Sequence[int]) -> float:
        used = [max((k for k in kept if k <= boundary), default=0) for boundary in boundary_of_phase]
        return sum(split.tokens * passes * k for split in splits for passes, k in zip(split.passes, used))

    kept = sorted({boundary for boundary in boundary_of_phase if boundary})
    while kept and sum(bytes_of[k] for k in kept) > budget:
        kept.remove(max(kept, key=lambda k: saved([other for other in kept if other != k])))
    work_of_pass = sum(split.tokens for split in splits) * max(kept, default=0)
    return Savings(tuple(kept), saved(kept), work_of_pass, sum(bytes_of[k] for k in kept))


def phase_lengths(plan: UnfreezePlan) -> list[int]:
    """Estimate the steps of each phase; phases that a condition ends are assumed to divide the run evenly."""
    starts: list[int] = []
    for number, start in enumerate(plan.expected_starts()):
        even = plan.total_steps * number // len(plan.schedule.phases)
        starts.append(max([*starts, even if start is None else start]))
    return [following - start for start, following in pairwise([*starts, plan.total_steps])]


def cache_of_run(parts: RunParts, state: LoopState, accelerator: Accelerator, run_tag: str) -> FeatureCache | None:
    """Find or make the features that the run will use; None if there can be none or they do not pay. Collective.

    The seconds that this takes are added to `state.train_seconds`.

    Args:
        parts: the objects of the run.
        state: the state with which the run begins or continues.
        accelerator: the accelerator of the run.
        run_tag: distinguishes this run's unfinished files from those of another run.
    """
    started = time.perf_counter()
    section, task, layered, plan = parts.recipe.training, parts.task, parts.layered, parts.unfreezer.plan
    lowest = [lowest_trained(plan, number + 1) for number in range(len(plan.schedule.phases))]
    if section.feature_cache == "off" or max(lowest) < 2:
        return None
    if reason := _obstacle(task, layered.model, accelerator, run_tag):
        say(f"feature cache: off, {reason}\n")
        return None
    spec = _cache_spec(section, task, layered, accelerator)
    boundary_of_phase = [next((k for k in range(layer - 1, 0, -1) if spec.prefix.can_enter(k)), 0) for layer in lowest]
    bytes_of = {boundary: spec.bytes_of(boundary) for boundary in set(boundary_of_phase) - {0}}
    savings = expected_savings(boundary_of_phase, _uses(plan, parts.settings, spec.splits), bytes_of, spec.budget)
    say(_decision(savings, any(boundary_of_phase), spec.dtype))
    if not savings.pays:
        return None
    # Layers that have been unfrozen by now no longer have the cached values.
    left = [boundary for boundary in savings.boundaries if boundary < lowest[len(state.unfreeze.starts) - 1]]
    features = build_cache(spec, left, accelerator, run_tag) if left else None
    state.train_seconds += time.perf_counter() - started
    return features


def _decision(savings: Savings, can_enter: bool, dtype: torch.dtype) -> str:
    """Write the sentence about the decision."""
    if not savings.boundaries:
        no_room, no_entry = (
            "feature_cache_gb or the disk is too small",
            "this model cannot be entered between its blocks",
        )
        return f"feature cache: off, {no_room if can_enter else no_entry}\n"
    gain = savings.work_saved / savings.work_of_pass
    if not savings.pays:
        return f"feature cache: off, as it would save {gain:.2g} times the work of filling it\n"
    blocks = f"block{'s' * (len(savings.boundaries) > 1)} {', '.join(map(str, savings.boundaries))}"
    return (
        f"feature cache: on, for the outputs of {blocks}: {savings.bytes_needed / BYTES_IN_GB:.2g} GB in "
        f"{str(dtype).removeprefix('torch.')}; it saves {gain:.2g} times the work of filling it\n"
    )


def _obstacle(task: Task, model: torch.nn.Module, accelerator: Accelerator, run_tag: str) -> str | None:
    if task.tokenizer is None:
        return "images are augmented anew in each epoch"
    if example_inputs(task)["input_ids"].ndim > 2:
        return "the model reads several texts for each row"
    if is_sharded(model):
        return "the processes share the model (FSDP)"
    if is_compiled(accelerator):
        return "the model is compiled whole"
    if not _is_shared(feature_folder(), accelerator, run_tag):
        return f"{feature_folder()} cannot be written, or not by all machines; NLP_FT_CACHE names another place"
    return None


def _is_shared(folder: Path, accelerator: Accelerator, run_tag: str) -> bool:
    """Whether all processes see what the main one writes there; collective."""
    mark = folder / f"{run_tag}.mark"
    if accelerator.is_main_process:
        with suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            mark.touch()
    accelerator.wait_for_everyone()
    is_seen = all(gather_object([mark.exists()]))
    if is_seen and accelerator.is_main_process:
        mark.unlink(missing_ok=True)
    return is_seen


def _free_bytes() -> int:
    """Return the bytes that the cache may take on its disk: free ones and its own; the minimum over all processes."""
    return int(min(gather_object([shutil.disk_usage(feature_folder()).free + bytes_in(feature_folder())])))


def _cache_spec(section: TrainingSection, task: Task, layered: LayeredModel, accelerator: Accelerator) -> CacheSpec:
    data, model = task.data, layered.model
    names: list[str] = [name for name in ("train", "validation") if name in data.encoded]
    half = torch.float16 if accelerator.mixed_precision == "fp16" else torch.bfloat16
    exact = section.feature_precision == "fp32" or (
        section.feature_precision == "auto" and accelerator.mixed_precision == "no"
    )
    example = {key: value.to(accelerator.device) for key, value in example_inputs(task).items()}
    return CacheSpec(
        model,
        layered.layer_map,
        FrozenPrefix(model, layered.layer_map, example),
        {name: Split(data.encoded[name], data.lengths(name)) for name in names},
        task.collator(training=False),
        section.eval_batch_size,
        torch.float32 if exact else half,
        feature_folder(),
        min(int(section.feature_cache_gb * BYTES_IN_GB), _free_bytes()),
    )


def _uses(plan: UnfreezePlan, settings: LoopSettings, splits: Mapping[str, Split]) -> list[SplitUse]:
    """Count the passes: through train once an epoch, through validation at each evaluation."""
    lengths, every = phase_lengths(plan), {"train": settings.steps_per_epoch}
    every["validation"] = settings.evaluate_every
    return [
        SplitUse(int(split.lengths.sum()), [length / every[name] for length in lengths])
        for name, split in splits.items()
    ]
