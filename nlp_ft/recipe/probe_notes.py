"""Which settings of a recipe mean nothing to a probe, which takes no optimizer steps. Imports no torch."""

from nlp_ft.recipe.recipe import Recipe

OF_LOOP = {
    "optimizer": (
        "name", "lr", "head_lr", "layer_decay", "convention", "weight_decay", "betas", "eps", "momentum",
    ),
    "schedule": ("name", "warmup", "ratio"),
    "loss": ("label_smoothing",),
    "training": (
        "duration", "per_device_batch_size", "max_tokens_per_batch", "gradient_accumulation_steps", "max_grad_norm",
        "evaluate_every", "checkpoint_every", "keep", "early_stopping",
    ),
}  # fmt: skip
"""Section -> its settings that only optimizer steps use."""
PRESET = {"optimizer": {"layer_decay": 1.0}}
"""Settings of these whose preset under probe is not their default."""


def probe_notes(recipe: Recipe) -> list[str]:
    """Name the settings of a recipe that differ from their defaults, but mean nothing to a probe; [] for none."""
    if recipe.strategy.probe is None:
        return []
    found = []
    for name, keys in OF_LOOP.items():
        section = getattr(recipe, name)
        defaults = {key: field.default for key, field in type(section).model_fields.items()} | PRESET.get(name, {})
        found += [f"{name}.{key}" for key in keys if getattr(section, key) not in (None, defaults[key])]
    return [f"without meaning under strategy probe, which takes no steps: {', '.join(found)}"] if found else []
