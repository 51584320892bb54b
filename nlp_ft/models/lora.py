"""Low-rank adapters (LoRA) in the blocks of a model, through PEFT; a saved run has them merged into its weights.

Hu et al. 2021, https://arxiv.org/abs/2106.09685: beside a frozen weight W trains the product of two small matrices,
W + alpha / rank * B A. The model keeps its class and its forward pass.
"""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from safetensors.torch import save_file
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from nlp_ft.errors import ModelError, listed
from nlp_ft.extras import require_peft
from nlp_ft.layerwise import LayerMap
from nlp_ft.patterns import SECONDS, endless_pattern
from nlp_ft.recipe.strategy import LoraSection

FOLDER = "adapter"
"""Folder of the adapter in a run folder."""
QUERY_AND_VALUE = (
    ("query", "value"),
    ("q_proj", "v_proj"),
    ("query_proj", "value_proj"),
    ("q_lin", "v_lin"),
    ("q", "v"),
    ("Wqkv",),
    ("query_key_value",),
    ("c_attn",),
)
"""Names of the projections to queries and values, for architectures that PEFT's table lacks, such as DistilBERT."""


@dataclass(frozen=True)
class Adapters:
    """The adapters of a model.

    Args:
        config: PEFT's configuration, as it is saved.
        lowest_layer: layer id of the lowest block that has one.
        frozen: names of all other parameters below the head; they never train.
        head: names of the parameters of the head, which train whole.
    """

    config: Any
    lowest_layer: int
    frozen: tuple[str, ...]
    head: tuple[str, ...]

    def save_and_merge(self, model: nn.Module, folder: Path) -> None:
        """Save adapters and head in PEFT's format; then add the adapters to the weights and take them out of the model.

        `PeftModel.from_pretrained(base, folder)` makes the same model of the pretrained one.
        """
        folder.mkdir(exist_ok=True)
        named = dict(model.named_parameters())
        own = [name for name in named if ".lora_" in name]
        saved = {name.replace(".default.", "."): named[name] for name in own}
        saved |= {name: named[name] for name in self.head}
        tensors = {f"base_model.model.{name}": tensor.detach().cpu().contiguous() for name, tensor in saved.items()}
        save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
        self.config.inference_mode = True
        self.config.save_pretrained(folder)
        for path, module in list(model.named_modules()):
            if hasattr(module, "lora_A") and hasattr(module, "merge"):
                module.merge(safe_merge=True)
                above, _, name = path.rpartition(".")
                setattr(model.get_submodule(above), name, module.get_base_layer())
        del model.peft_config


def add_adapters(
    model: PreTrainedModel,
    section: LoraSection,
    layer_map: LayerMap,
    blocks: int | Literal["all"],
    base_name: str,
) -> Adapters:
    """Put adapters beside the weights of the top blocks, in place; before training they change no output.

    Args:
        model: the model.
        section: the section `strategy.lora` of the recipe.
        layer_map: the layer map of the model without adapters.
        blocks: number of blocks with adapters, from the top.
        base_name: name of the pretrained model, for the saved configuration.

    Raises:
        ModelError: PEFT is not installed, the blocks have no such module, or a weight of the head cannot be saved.
    """
    peft = require_peft(ModelError)
    lowest = 1 if blocks == "all" else layer_map.num_layers + 1 - blocks
    layer_of = {
        path: layer_map.aligned_layer(f"{path}.weight")
        for path, module in model.named_modules()
        if isinstance(module, nn.Linear | Conv1D)
    }
    linear = [path for path, layer in layer_of.items() if lowest <= layer <= layer_map.num_layers]
    if section.target_modules == "auto":
        adapted = _by_table(peft, model, linear)
    else:
        adapted = _by_patterns(section.target_modules, linear)
    head = tuple(layer_map.parameters(layer_map.head_layer))
    config = peft.LoraConfig(
        r=section.rank,
        lora_alpha=section.alpha,
        lora_dropout=section.dropout,
        target_modules=adapted,
        fan_in_fan_out=isinstance(model.get_submodule(adapted[0]), Conv1D),
        base_model_name_or_path=base_name,
    )
    modules_of_head = _modules_of(model, head)
    peft.inject_adapter_in_model(config, model)
    # Not before: PEFT would train a copy of the head instead of the head.
    config.modules_to_save, config.target_modules = modules_of_head, adapted
    frozen = [name for name, _ in model.named_parameters() if ".lora_" not in name and name not in head]
    return Adapters(config, min(layer_of[path] for path in adapted), tuple(frozen), head)


def _by_patterns(patterns: Sequence[str], linear: Sequence[str]) -> list[str]:
    if (endless := endless_pattern(patterns, linear)) is not None:
        raise ModelError(
            f"strategy.lora.target_modules: the search for {endless!r} in the names of the layers takes more than "
            f"{SECONDS} seconds; a repetition inside a repetition, as in (a+)+, does that"
        )
    found: dict[str, None] = {}
    for pattern in patterns:
        matched = [path for path in linear if re.search(pattern, path)]
        if not matched:
            raise ModelError(
                f"strategy.lora.target_modules: {pattern!r} matches no linear layer of these blocks; {_known(linear)}"
            )
        found |= dict.fromkeys(matched)
    return list(found)


def _by_table(peft: Any, model: PreTrainedModel, linear: Sequence[str]) -> list[str]:
    """Take the layers of PEFT's table for the architecture, else its projections to queries and values."""
    config = getattr(model.config, "encoder_config", model.config)
    table = peft.utils.TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING
    for names in [table.get(config.model_type, ()), *QUERY_AND_VALUE]:
        if isinstance(names, str):
            found = [path for path in linear if re.fullmatch(names, path)]
        else:
            found = [path for path in linear if path.rpartition(".")[2] in names]
        if found:
            return found
    raise ModelError(
        f"strategy.lora.target_modules: no queries and values are known of {config.model_type}; name its linear layers "
        f"by patterns; {_known(linear)}"
    )


def _known(linear: Sequence[str]) -> str:
    return f"there are {listed(linear[-12:], 12)}" if linear else "they have no linear layer"


def _modules_of(model: nn.Module, names: Collection[str]) -> list[str]:
    """Find the largest modules that hold only parameters of the head. Raises: ModelError: one is in none."""
    found: list[str] = []
    for path, module in model.named_modules():
        own = {f"{path}.{name}" for name, _ in module.named_parameters()}
        if path and own and own <= set(names) and not any(path.startswith(f"{other}.") for other in found):
            found.append(path)
    for name in names:
        if not any(name.startswith(f"{path}.") for path in found):
            raise ModelError(
                f"strategy lora: {name} belongs to the head, but to no module of the head alone that PEFT could save"
            )
    return found
