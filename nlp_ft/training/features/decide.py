"""Whether a run keeps what its frozen blocks give: decided before training by weighing work and bytes, and said."""

import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from hashlib import blake2b
from itertools import pairwise
from pathlib import Path

import torch
from accelerate.utils import DynamoBackend, gather_object

from nlp_ft.environment import feature_folder
from nlp_ft.layerwise import UnfreezePlan
from nlp_ft.layerwise.prefix import FrozenPrefix
from nlp_ft.training.features.cache import FeatureCache, lowest_trained
from nlp_ft.training.features.store import FeaturePlan, Split, build_cache, bytes_in
from nlp_ft.training.loop import LoopState
from nlp_ft.training.parts import Parts

BYTES_IN_GB = 10**9


@dataclass(frozen=True)
class Passes:
    """Tokens of one split, and how often the run goes through them in each phase."""

    tokens: int
    of_phase: Sequence[float]


@dataclass(frozen=True)
class Savings:
    """What a cache is expected to be worth; work is counted in tokens that pass through one block."""

    boundaries: tuple[int, ...]
    """Those that some phase will use and that the budget has room for."""
    work_saved: float
    work_of_pass: float
    bytes_needed: int

    @property
    def pays(self) -> bool:
        """Whether more work is saved than done."""
        return self.work_saved > self.work_of_pass


def expected_savings(
    boundary_of_phase: Sequence[int], splits: Sequence[Passes], bytes_of: Mapping[int, int], budget: int
) -> Savings:
    """Weigh one pass through the frozen blocks against the passes that it spares.

    Args:
        boundary_of_phase: the boundary at which each phase could begin, 0 for none.
        splits: with their passes.
        bytes_of: boundary -> bytes that it takes on disk, all splits together.
        budget: bytes that may be taken.
    """

    def saved(kept: Sequence[int]) -> float:
        used = [max((k for k in kept if k <= boundary), default=0) for boundary in boundary_of_phase]
        return sum(split.tokens * passes * k for split in splits for passes, k in zip(split.of_phase, used))

    kept = sorted({boundary for boundary in boundary_of_phase if boundary})
    while kept and sum(bytes_of[k] for k in kept) > budget:
        kept.remove(max(kept, key=lambda k: saved([other for other in kept if other != k])))
    work_of_pass = sum(split.tokens for split in splits) * max(kept, default=0)
    return Savings(tuple(kept), saved(kept), work_of_pass, sum(bytes_of[k] for k in kept))


def phase_lengths(plan: UnfreezePlan) -> list[int]:
    """Steps of each phase; where a condition ends one, as if the phases divided the run evenly."""
    starts: list[int] = []
    for number, start in enumerate(plan.expected_starts()):
        even = plan.total_steps * number // len(plan.schedule.phases)
        starts.append(max([*starts, even if start is None else start]))
    return [following - start for start, following in pairwise([*starts, plan.total_steps])]


def cache_of_run(parts: Parts, state: LoopState) -> FeatureCache | None:
    """The features that the run will use, made or found; None where they cannot be had or do not pay. Collective."""
    training, plan, say = parts.recipe.training, parts.unfreezer.plan, parts.accelerator.print
    lowest = [lowest_trained(plan, number + 1) for number in range(len(plan.schedule.phases))]
    if training.feature_cache == "off" or max(lowest) < 2:
        return None
    if reason := _obstacle(parts):
        say(f"feature cache: off, {reason}\n")
        return None
    store = _feature_plan(parts, min(int(training.feature_cache_gb * BYTES_IN_GB), _free_bytes(parts)))
    boundary_of_phase = [next((k for k in range(layer - 1, 0, -1) if store.prefix.can_enter(k)), 0) for layer in lowest]
    bytes_of = {boundary: store.bytes_of(boundary) for boundary in set(boundary_of_phase) - {0}}
    savings = expected_savings(boundary_of_phase, _passes(parts, store.splits), bytes_of, store.budget)
    if not savings.boundaries:
        can_enter = any(boundary_of_phase)
        why = (
            "feature_cache_gb or the disk is too small"
            if can_enter
            else "this model cannot be entered between its blocks"
        )
        say(f"feature cache: off, {why}\n")
        return None
    numbers = f"{savings.work_of_pass:.2g} token-blocks to make it, {savings.work_saved:.2g} spared"
    if not savings.pays:
        say(f"feature cache: off, it would not pay ({numbers})\n")
        return None
    blocks = ", ".join(map(str, savings.boundaries))
    say(
        f"feature cache: what block(s) {blocks} give is kept, {savings.bytes_needed / BYTES_IN_GB:.2g} GB in "
        f"{str(store.dtype).removeprefix('torch.')} ({numbers})\n"
    )
    # What has been unfrozen by now has left its values.
    left = [boundary for boundary in savings.boundaries if boundary < lowest[len(state.unfreeze.starts) - 1]]
    if not left:
        return None
    run_name = blake2b(str(parts.folder.final.absolute()).encode(), digest_size=4).hexdigest()
    return build_cache(store, left, parts.accelerator, run_name)


def _obstacle(parts: Parts) -> str | None:
    if parts.task.tokenizer is None:
        return "images are drawn anew in each epoch"
    if parts.accelerator.state.dynamo_plugin.backend != DynamoBackend.NO:
        return "the model is compiled whole"
    if not _is_shared(parts, feature_folder()):
        return f"{feature_folder()} cannot be written, or not by all machines; NLP_FT_CACHE names another place"
    return None


def _is_shared(parts: Parts, folder: Path) -> bool:
    """Whether all processes see what the main one writes there; collective."""
    mark = folder / f"{blake2b(str(parts.folder.final.absolute()).encode(), digest_size=4).hexdigest()}.mark"
    if parts.accelerator.is_main_process:
        with suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            mark.touch()
    parts.accelerator.wait_for_everyone()
    is_seen = all(gather_object([mark.exists()]))
    if is_seen and parts.accelerator.is_main_process:
        mark.unlink(missing_ok=True)
    return is_seen


def _free_bytes(parts: Parts) -> int:
    """Room on the cache's disk beside what it holds; the least that a process sees, for all must decide alike."""
    return int(min(gather_object([shutil.disk_usage(feature_folder()).free + bytes_in(feature_folder())])))


def _feature_plan(parts: Parts, budget: int) -> FeaturePlan:
    data, training = parts.data, parts.recipe.training
    names: list[str] = [name for name in ("train", "validation") if name in data.encoded]
    splits = {name: Split(data.encoded[name], data.lengths(name)) for name in names}
    half = torch.float16 if parts.accelerator.mixed_precision == "fp16" else torch.bfloat16
    exact = training.feature_precision == "fp32" or (
        training.feature_precision == "auto" and parts.accelerator.mixed_precision == "no"
    )
    return FeaturePlan(
        parts.model,
        parts.layer_map,
        FrozenPrefix(parts.model, parts.layer_map, parts.example()),
        splits,
        parts.task.collator(training=False),
        training.eval_batch_size,
        torch.float32 if exact else half,
        feature_folder(),
        budget,
    )


def _passes(parts: Parts, splits: Mapping[str, Split]) -> list[Passes]:
    """Through train once an epoch, through validation at each evaluation."""
    lengths, every = phase_lengths(parts.unfreezer.plan), {"train": parts.plan.steps_per_epoch}
    every["validation"] = parts.plan.evaluate_every
    return [
        Passes(int(split.lengths.sum()), [length / every[name] for length in lengths]) for name, split in splits.items()
    ]
