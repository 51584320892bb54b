"""The presets: what the name of a strategy, or of a task, sets in a recipe. Plain data, to print, copy and override."""

from collections.abc import Mapping
from typing import Any, Literal

from nlp_ft.defaults import LAYER_DECAY

StrategyName = Literal[
    "full",
    "llrd",
    "head_only",
    "top_layers",
    "gradual",
    "lp_ft",
    "discriminative",
    "ulmfit",
    "lora",
    "probe",
    "scratch",
]
Preset = dict[str, dict[str, Any]]
"""Section -> its settings, as a recipe writes them."""

STRATEGY_PRESETS: dict[str, Preset] = {
    "full": {"strategy": {"trainable_blocks": "all"}, "optimizer": {"layer_decay": 1.0}},
    "llrd": {"strategy": {"trainable_blocks": "all"}, "optimizer": {"layer_decay": LAYER_DECAY}},
    "head_only": {"strategy": {"trainable_blocks": 0}, "optimizer": {"layer_decay": 1.0}},
    "top_layers": {"strategy": {"trainable_blocks": 2}, "optimizer": {"layer_decay": 1.0}},
    "gradual": {"strategy": {"unfreeze": {}}, "optimizer": {"layer_decay": LAYER_DECAY}},
    "lp_ft": {
        "strategy": {"unfreeze": {"order": "all_at_once", "every": "30%", "restart_lr": True}},
        "optimizer": {"layer_decay": 1.0},
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
    "lora": {"strategy": {"trainable_blocks": "all", "lora": {}}, "optimizer": {"layer_decay": 1.0}},
    "probe": {
        "strategy": {"trainable_blocks": 0, "probe": {}},
        "optimizer": {"layer_decay": 1.0},
        "training": {"feature_cache": "off", "precision": "fp32"},
    },
    "scratch": {"strategy": {"trainable_blocks": "all"}, "optimizer": {"layer_decay": 1.0}},
}
"""Strategy -> its preset; what a recipe says itself takes precedence.

`lp_ft`: linear probing, then fine-tuning (Kumar et al. 2022, https://arxiv.org/abs/2202.10054). `ulmfit`: Howard and
Ruder 2018, https://arxiv.org/abs/1801.06146. `discriminative`: two rates, one for the features and one for the head.
`lora`: low-rank adapters (Hu et al. 2021, https://arxiv.org/abs/2106.09685). `probe`: linear classifier probes (Alain
and Bengio 2016, https://arxiv.org/abs/1610.01644); its features are computed in float32, and a model that reads them
rounded to bf16 is not the one that was solved for.
"""

TASK_PRESETS: dict[str, Preset] = {
    "multi_label_classification": {"training": {"metric": "macro_f1"}},
    "text_regression": {"training": {"metric": "spearman"}},
    "question_answering": {"training": {"metric": "f1"}},
    "token_classification": {"training": {"metric": "span_f1"}},
}
"""Task -> the settings whose default differs from that of classification."""

UNFREEZING = tuple(name for name, preset in STRATEGY_PRESETS.items() if "unfreeze" in preset["strategy"])
"""The strategies that begin with some layers and train more and more."""

_REPLACED_BY = {"layers": ("every", "order"), "plateau": ("every",), "loss_below": ("every",)}
"""Setting of `unfreeze` -> the settings of a preset that it takes the place of."""


def laid_over(preset: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """A preset completed and overridden by given settings, in nested sections too.

    Where the given settings hold `layers`, `plateau` or `loss_below`, the preset's `every` and `order` are left out.
    """
    return merged(without_replaced(preset, given), given)


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of both, in nested sections too; where both have one, that of `above`."""
    both_sections = [
        key for key, value in above.items() if isinstance(value, dict) and isinstance(below.get(key), dict)
    ]
    return {**below, **above, **{key: merged(below[key], above[key]) for key in both_sections}}


def without_replaced(preset: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """A preset without the settings that the given ones take the place of, though they have other names."""
    replaced = {key for name, keys in _REPLACED_BY.items() if given.get(name) is not None for key in keys}
    return {
        key: without_replaced(value, given[key])
        if isinstance(value, dict) and isinstance(given.get(key), dict)
        else value
        for key, value in preset.items()
        if key not in replaced
    }
