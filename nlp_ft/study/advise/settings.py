"""The settings that advice comes with, each with its reason, and the recipe that holds them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nlp_ft.durations import Duration
from nlp_ft.recipe import Recipe
from nlp_ft.recipe.derived import Derived
from nlp_ft.recipe.loader import dump_yaml
from nlp_ft.study.advise.evidence import Lengths
from nlp_ft.study.cells import with_strategy
from nlp_ft.tables import wrapped
from nlp_ft.tasks.task import Task
from nlp_ft.training import build
from nlp_ft.training.build import LayeredModel

MOST_CUT = 0.01
"""Share of the texts that may be cut."""
STEP = 8
"""Lengths are multiples of it."""
COMMENT_WIDTH = 100
AS_GIVEN = "as the recipe has it"


@dataclass(frozen=True)
class Setting:
    """A setting: its dotted key, its value as YAML holds it, and why."""

    key: str
    value: Any
    reason: str


def settings_of(recipe: Recipe, task: Task, lengths: Lengths | None, given: Mapping[str, Any]) -> list[Setting]:
    """Collect the settings of a recipe with the advised strategy.

    Args:
        recipe: the recipe, with the strategy and without derived settings.
        task: its task.
        lengths: the lengths of train.
        given: what the recipe itself says, as nested dicts; it is never changed.

    Raises:
        NlpFtError: the model cannot be read.
    """
    layered = build.structure(recipe, task, task.data.label_names)
    full, derived = build.with_derived(recipe, task, layered, task.data.lengths("train"), num_processes=1)
    found = [layers_setting(full, layered), *map(_of_derived, derived)]
    if full.strategy.trainable_blocks != 0:
        found.append(_decay(full.optimizer.layer_decay))
    found += [*length_settings(lengths, _takes_head_tail(recipe)), *_pooling(recipe, layered)]
    known = [one.key for one in found]
    for key in ("optimizer.lr", "training.duration", "training.per_device_batch_size"):
        value = _at(given, key)
        if key not in known and value is not None:
            found.append(Setting(key, value, AS_GIVEN))
    return [_as_given(one, _at(given, one.key)) for one in found]


def layers_setting(recipe: Recipe, layered: LayeredModel) -> Setting:
    """Say which layers the strategy trains."""
    layer_map, phases = layered.layer_map, layered.schedule.phases
    names = layered.schedule.layer_names(phases[-1].layers)
    begun = f", in {len(phases)} phases that begin with the head" if len(phases) > 1 else ""
    return Setting("strategy", recipe.strategy.name, f"trains {names} of {layer_map.num_layers} blocks{begun}")


def length_settings(lengths: Lengths | None, takes_head_tail: bool) -> list[Setting]:
    """Choose the greatest length, and which part of longer texts is kept.

    Args:
        lengths: the lengths of train; None gives no settings.
        takes_head_tail: whether the beginning and the end of a text can be kept.
    """
    if lengths is None or lengths.max_length is None:
        return []
    now, cut = lengths.max_length, lengths.cut(lengths.max_length)
    if not cut:
        why = f"the longest text has {lengths.longest} tokens, so nothing is cut; padding goes by batch"
        return [Setting("data.max_length", now, why)]
    if cut <= MOST_CUT:
        return [Setting("data.max_length", now, f"{cut:.1%} of the texts are longer and cut")]
    needed = STEP * -(-lengths.p99 // STEP)
    if lengths.limit is None or needed <= lengths.limit:
        why = f"99 % of the texts have at most {lengths.p99} tokens; at {now}, {cut:.1%} would be cut"
        return [Setting("data.max_length", needed, why)]
    why = f"the most that the model reads; {lengths.cut(lengths.limit):.1%} of the texts are longer"
    found = [Setting("data.max_length", lengths.limit, why)]
    if takes_head_tail and lengths.limit > 256:
        why = "beginning and end of long texts beat the beginning alone (Sun et al. 2019, arxiv.org/abs/1905.05583)"
        found.append(Setting("data.truncation", "head_tail", why))
    return found


def advised_values(values: Mapping[str, Any], strategy: str, own: str, settings: Sequence[Setting]) -> dict[str, Any]:
    """Put the settings into a recipe, as nested dicts; what it says itself about them stays.

    Args:
        values: the recipe as it was read.
        strategy: the advised strategy.
        own: its own strategy, whose rates stay only if it is the advised one.
        settings: the settings.
    """
    found = with_strategy(values, strategy, own)
    found.setdefault("strategy", strategy)
    for one in settings:
        section, _, key = one.key.partition(".")
        if key:
            of_section = dict(found.get(section) or {})
            if of_section.get(key) is None:
                of_section[key] = one.value
            found[section] = of_section
    return found


def advised_recipe(
    values: Mapping[str, Any], strategy: str, own: str, settings: Sequence[Setting], lines: Sequence[str]
) -> str:
    """Write the recipe of `advised_values` as YAML, below lines of comments."""
    text = wrapped("\n".join(lines), COMMENT_WIDTH)
    comments = "".join(f"# {line}".rstrip() + "\n" for line in text.split("\n"))
    return comments + dump_yaml(advised_values(values, strategy, own, settings))


def _at(given: Mapping[str, Any], key: str) -> Any:
    """Return what nested dicts hold under a dotted key; None where they hold nothing or a section."""
    section, _, name = key.partition(".")
    return (given.get(section) or {}).get(name) if name else None


def _as_given(one: Setting, given: Any) -> Setting:
    """Put the value that the recipe itself has in the place of an advised one, which is still said."""
    if given is None or one.reason == AS_GIVEN:
        return one
    more = "" if given == one.value else f"; advised is {one.value}: {one.reason}"
    return Setting(one.key, given, AS_GIVEN + more)


def _of_derived(one: Derived) -> Setting:
    value = str(one.value) if isinstance(one.value, Duration) else one.value
    return Setting(one.key, value, one.reason)


def _decay(value: float) -> Setting:
    why = "all layers have one rate" if value == 1 else "each block has that much of the rate of the one above"
    return Setting("optimizer.layer_decay", value, why)


def _takes_head_tail(recipe: Recipe) -> bool:
    return isinstance(getattr(recipe.data, "text", None), str) and hasattr(recipe.data, "head_tokens")


def _pooling(recipe: Recipe, layered: LayeredModel) -> list[Setting]:
    """Name the pooling, where the recipe has one."""
    chosen = getattr(recipe.model, "pooling", None)
    if chosen is None or not recipe.has_row_vectors:
        return []
    if chosen != "auto":
        return [Setting("model.pooling", chosen, AS_GIVEN)]
    pooling = getattr(layered.model.config, "pooling", "auto")
    own = "as the architecture's own classifier does it"
    # No architecture's own classifier does these.
    is_trained = pooling in ("mean", "max")
    return [Setting("model.pooling", pooling, "as sentence-transformers trained the model" if is_trained else own)]
