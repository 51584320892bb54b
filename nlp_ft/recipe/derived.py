"""Derives the settings that a recipe leaves out from its data and its model, each with a reason. Imports no torch.

The rules were chosen on validation splits with scripts/bench/defaults.py; docs/defaults.md has the table and the
sources. A key whose value is null in the recipe is derived; a value in the recipe is never changed.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from nlp_ft.defaults import DEEP_HEAD_LR_RATIO, LR
from nlp_ft.durations import Duration
from nlp_ft.recipe.recipe import Recipe
from nlp_ft.recipe.resolve import Layer
from nlp_ft.recipe.training import Threshold

BASE_WIDTH = 768
"""Width of BERT-base, whose rate is `defaults.LR`."""
LOWEST_LR, HIGHEST_LR = 1e-5, 3e-4
NETWORK_LR = 1e-4
"""Rate of a pretrained image network, whose width says little; from practice, not measured here."""
SCRATCH_LR = 5e-4
LION_RATIO = 5
"""Lion takes a rate three to ten times lower than AdamW (Chen et al. 2023, https://arxiv.org/abs/2302.06675)."""
LORA_RATIO = 10
"""Rate of adapters / rate of full fine-tuning: 10 x that of BERT-base is the 5e-4 of Hu et al. 2021. Not tuned here."""
SMALL_BATCH, LARGE_BATCH, MANY_ROWS = 16, 32, 20_000
FEWEST_EPOCHS, MOST_EPOCHS, FEWEST_STEPS = 3, 50, 300
MOST_EVALUATIONS, MOST_CHECKPOINTS = 10, 3


@dataclass(frozen=True)
class Derived:
    """A setting that the recipe leaves out: its dotted key, its value, and why it has that value."""

    key: str
    value: float | str | Duration
    reason: str

    @property
    def shown(self) -> str:
        """The value as a recipe writes it."""
        return f"{self.value:g}" if isinstance(self.value, float) else str(self.value)


DERIVED_KEYS = (
    "optimizer.lr",
    "optimizer.head_lr",
    "training.per_device_batch_size",
    "training.duration",
    "training.evaluate_every",
    "training.checkpoint_every",
    "training.threshold",
)


def derive_rates(recipe: Recipe, hidden_size: int | None, head_ratio: int) -> list[Derived]:
    """Derive the learning rates that the recipe leaves out.

    Args:
        recipe: the recipe.
        hidden_size: width of the encoder: numbers in the vector of a token; None for a network without one width.
        head_ratio: rate of a new head divided by the base rate, see `nlp_ft.layerwise.param_groups.head_lr_ratio`.
    """
    found: list[Derived] = []
    lr = recipe.optimizer.lr
    ratio = DEEP_HEAD_LR_RATIO if hidden_size is None else head_ratio
    why = "the head has several layers" if head_ratio == DEEP_HEAD_LR_RATIO else "the head is one new linear layer"
    if hidden_size is None:
        why = "the head of an image network is new"
    elif recipe.task == "token_classification" and not trains_head_alone(recipe):
        why = "each word of a text trains the head"
    if lr is None:
        lr, reason = _base_rate(recipe, hidden_size)
        if trains_head_alone(recipe) and not _keeps_head(recipe):
            lr, reason = ratio * lr, f"{ratio} x the rate of an {reason}: {why}"
        found.append(Derived("optimizer.lr", _two_digits(lr), reason))
    if recipe.optimizer.head_lr is None and _has_new_head_on_pretrained(recipe):
        head_lr, times = ratio * lr, f"{ratio} x optimizer.lr"
        if recipe.strategy.lora is not None:
            head_lr, times = head_lr / LORA_RATIO, f"{times} / {LORA_RATIO}, for the higher rate is of the adapters"
        found.append(Derived("optimizer.head_lr", _two_digits(head_lr), f"{times}: {why}"))
    return found


def derive_batch(recipe: Recipe, num_rows: int) -> list[Derived]:
    """Derive the batch size from the rows of train, if the recipe leaves it out and counts no tokens."""
    training = recipe.training
    if training.per_device_batch_size is not None or training.max_tokens_per_batch is not None:
        return []
    is_large = num_rows > MANY_ROWS
    size = LARGE_BATCH if is_large else SMALL_BATCH
    reason = f"train has {'more than' if is_large else 'at most'} {MANY_ROWS:,} rows"
    return [Derived("training.per_device_batch_size", size, reason)]


def derive_lengths(recipe: Recipe, steps_per_epoch: int) -> list[Derived]:
    """Derive the length of the run, and the times between evaluations and checkpoints, where the recipe has none."""
    found: list[Derived] = []
    duration = recipe.training.duration
    if duration is None:
        duration, reason = _duration(steps_per_epoch)
        found.append(Derived("training.duration", duration, reason))
    total = duration.steps(steps_per_epoch)
    for key, most in (("evaluate_every", MOST_EVALUATIONS), ("checkpoint_every", MOST_CHECKPOINTS)):
        if getattr(recipe.training, key) is None:
            every, reason = _interval(total, steps_per_epoch, most)
            if key == "evaluate_every" and _waits_for_plateau(recipe):
                every, reason = Duration(1, "ep"), "once an epoch, because a phase waits for a plateau"
            found.append(Derived(f"training.{key}", every, reason))
    return found


def derive_threshold(recipe: Recipe) -> list[Derived]:
    """Derive the threshold of the labels, if rows have several and the recipe leaves it out."""
    if not recipe.has_label_sets or recipe.training.threshold is not None:
        return []
    threshold = threshold_of(recipe)
    tuned, fixed = "one for all labels, with the best micro F1 on validation", "there is no validation to tune it on"
    return [Derived("training.threshold", threshold, tuned if threshold == "tuned" else fixed)]


def threshold_of(recipe: Recipe) -> Threshold:
    """Return the threshold of the labels, or the way to find it: that of the recipe, or the derived one."""
    if recipe.training.threshold is not None:
        return recipe.training.threshold
    return 0.5 if recipe.data.validation is None else "tuned"


def in_words(derived: Sequence[Derived]) -> dict[str, str]:
    """Return the value and the reason of each derived setting, under its dotted key."""
    return {one.key: f"{one.shown} ({one.reason})" for one in derived}


def format_derived(derived: Sequence[Derived]) -> str:
    """Write each derived setting with its reason, one a line."""
    lines = [f"  {key}: {words}" for key, words in in_words(derived).items()]
    return "\n".join(["not in the recipe, so derived:", *lines])


def derived_layers(derived: Sequence[Derived]) -> list[Layer]:
    """Make a layer of settings for each derived one, to be laid over those of the recipe."""
    parts = [(one, one.key.split(".")) for one in derived]
    return [Layer(f"derived: {one.reason}", {section: {key: one.value}}) for one, (section, key) in parts]


def filled(recipe: Recipe, derived: Sequence[Derived]) -> Recipe:
    """Return a copy of the recipe with the derived settings in it."""
    for one in derived:
        section, _, key = one.key.partition(".")
        changed = getattr(recipe, section).model_copy(update={key: one.value})
        recipe = recipe.model_copy(update={section: changed})
    return recipe


def _base_rate(recipe: Recipe, hidden_size: int | None) -> tuple[float, str]:
    if _begins_at_random(recipe):
        lr, reason = SCRATCH_LR, f"{'encoder' if hidden_size else 'image network'} with random weights"
    elif hidden_size is None:
        lr, reason = NETWORK_LR, "image network with pretrained weights"
    else:
        by_width = LR * BASE_WIDTH / hidden_size
        lr = min(HIGHEST_LR, max(LOWEST_LR, by_width))
        bound = "" if lr == by_width else f", but {'at most' if lr < by_width else 'at least'} {lr:g}"
        reason = f"encoder of width {hidden_size}: {LR:g} x {BASE_WIDTH} / {hidden_size}{bound}"
    if recipe.strategy.lora is not None:
        lr, reason = LORA_RATIO * lr, f"{reason}, x {LORA_RATIO} for adapters"
    if recipe.optimizer.name == "lion":
        lr, reason = lr / LION_RATIO, f"{reason}, / {LION_RATIO} for Lion"
    return lr, reason


def _duration(steps_per_epoch: int) -> tuple[Duration, str]:
    if FEWEST_EPOCHS * steps_per_epoch >= FEWEST_STEPS:
        return Duration(FEWEST_EPOCHS, "ep"), f"at least {FEWEST_STEPS} steps"
    if MOST_EPOCHS * steps_per_epoch <= FEWEST_STEPS:
        reason = f"at most {MOST_EPOCHS} epochs, of {steps_per_epoch} step{'s' * (steps_per_epoch != 1)} each"
        return Duration(MOST_EPOCHS, "ep"), reason
    reason = f"{FEWEST_EPOCHS} epochs would be {FEWEST_EPOCHS * steps_per_epoch} steps, too few to learn a new head"
    return Duration(FEWEST_STEPS, "st"), reason


def _interval(total: int, steps_per_epoch: int, most: int) -> tuple[Duration, str]:
    if total <= most * steps_per_epoch:
        return Duration(1, "ep"), "once an epoch"
    reason = f"{most} times in the run of {total} steps"
    return Duration(math.ceil(total / most), "st"), reason


def _has_new_head_on_pretrained(recipe: Recipe) -> bool:
    is_new = not _begins_at_random(recipe) and not _keeps_head(recipe)
    # The other conventions say themselves which rate the head has.
    return is_new and not trains_head_alone(recipe) and recipe.optimizer.convention == "top"


def _begins_at_random(recipe: Recipe) -> bool:
    """Whether the network has no pretrained weights; that of images may be named without any."""
    return recipe.strategy.name == "scratch" or getattr(recipe.model, "weights", "") is None


def _keeps_head(recipe: Recipe) -> bool:
    return bool(getattr(recipe.model, "keep_head", False))


def trains_head_alone(recipe: Recipe) -> bool:
    """Whether the encoder is frozen in the whole run."""
    return recipe.strategy.trainable_blocks == 0 and recipe.strategy.unfreeze is None


def _waits_for_plateau(recipe: Recipe) -> bool:
    return recipe.strategy.unfreeze is not None and recipe.strategy.unfreeze.plateau is not None


def _two_digits(rate: float) -> float:
    return float(f"{rate:.1e}")
