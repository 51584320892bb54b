"""The strategies by name: each is part of a recipe as plain data, to print, copy and override."""

from collections.abc import Mapping
from typing import Any

STRATEGY_PRESETS: dict[str, dict[str, dict[str, Any]]] = {
    "full": {"strategy": {"trainable_blocks": "all"}, "optimizer": {"layer_decay": 1.0}},
    "llrd": {"strategy": {"trainable_blocks": "all"}, "optimizer": {"layer_decay": 0.9}},
    "head_only": {"strategy": {"trainable_blocks": 0}, "optimizer": {"layer_decay": 1.0, "lr": 1e-3}},
    "top_layers": {"strategy": {"trainable_blocks": 2}, "optimizer": {"layer_decay": 1.0}},
    "gradual": {"strategy": {"unfreeze": {}}, "optimizer": {"layer_decay": 0.9, "head_lr": 1e-3}},
    "lp_ft": {
        "strategy": {"unfreeze": {"order": "all_at_once", "every": "30%", "restart_lr": True}},
        "optimizer": {"layer_decay": 1.0, "head_lr": 1e-3},
    },
    "discriminative": {
        "strategy": {"trainable_blocks": "all"},
        "optimizer": {"layer_decay": 1.0, "lr": 1e-5, "head_lr": 1e-3},
    },
    "ulmfit": {
        "strategy": {"unfreeze": {}},
        "optimizer": {"layer_decay": 1 / 2.6, "convention": "ulmfit"},
        "schedule": {"name": "slanted_triangular", "warmup": "10%"},
    },
    "scratch": {"strategy": {"trainable_blocks": "all"}, "optimizer": {"layer_decay": 1.0}},
}
"""What a strategy's name stands for; the recipe itself goes before.

`lp_ft`: linear probing, then fine-tuning (Kumar et al. 2022, https://arxiv.org/abs/2202.10054). `ulmfit`: Howard and
Ruder 2018, https://arxiv.org/abs/1801.06146. `discriminative`: two rates, for the features and for the head.
"""


TASK_PRESETS: dict[str, dict[str, dict[str, Any]]] = {"text_regression": {"training": {"metric": "spearman"}}}
"""Task -> what of its recipes has another default than in classification."""


def laid_over(preset: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """The given values before those of the preset, in mappings inside too.

    Of the preset's `unfreeze`, what the given one replaces goes.
    """
    replaced = {"layers": ("every", "order"), "plateau": ("every",), "loss_below": ("every",)}
    gone = {key for name, keys in replaced.items() if given.get(name) is not None for key in keys}
    preset = {key: value for key, value in preset.items() if key not in gone}
    inner = {
        key: laid_over(preset[key], value)
        for key, value in given.items()
        if isinstance(value, dict) and isinstance(preset.get(key), dict)
    }
    return {**preset, **given, **inner}
