"""Every classification model of torchvision without its weights in memory, and what a right layer map of each is.

The oracle knows nothing of how layer maps are made: it has literal tables of where each family keeps its blocks and how
many each model has, and the order in which the modules run.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any
from unittest import mock

import torch
import torchvision
from torch import nn
from torchvision.models.regnet import BlockParams

from nlp_ft.layerwise import LayerMap
from tests.layerwise.execution import Execution, is_at, record

MODELS = torchvision.models.list_models(module=torchvision.models)
IMAGE_SIZES = {"inception_v3": 299, "maxvit_t": 224, "vit": 224}


@dataclass(frozen=True)
class Family:
    """Patterns of the beginnings of parameter names."""

    block: str
    """One match up to the end of a module's path, one block; they run in the order in which they are registered."""
    head: str
    """The task head."""
    stem: str
    """What comes before the first block, whenever it is used."""


CONVOLUTIONS = "convolutions"
"""In place of a pattern: a chain without blocks, each convolution with its norm being one."""

FAMILIES = {
    "resnet": Family(r"layer\d\.\d+", r"fc\.", r"conv1\.|bn1\."),
    "densenet": Family(r"features\.denseblock\d\.denselayer\d+", r"classifier\.", r"features\.(conv|norm)0\."),
    "convnext": Family(r"features\.[1357]\.\d+", r"classifier\.2\.", r"features\.0\."),
    "efficientnet": Family(r"features\.[1-7]\.\d+", r"classifier\.", r"features\.0\."),
    "efficientnet_v2_s": Family(r"features\.[1-6]\.\d+", r"classifier\.", r"features\.0\."),
    "mobilenet_v2": Family(r"features\.([1-9]|1[0-7])", r"classifier\.", r"features\.0\."),
    "mobilenet_v3_large": Family(r"features\.([1-9]|1[0-5])", r"classifier\.3\.", r"features\.0\."),
    "mobilenet_v3_small": Family(r"features\.([1-9]|1[01])", r"classifier\.3\.", r"features\.0\."),
    "mnasnet": Family(r"layers\.([89]|1[0-3])\.\d+", r"classifier\.", r"layers\.[0-7]\."),
    "regnet": Family(r"trunk_output\.block\d\.block\d-\d+", r"fc\.", r"stem\."),
    "shufflenet": Family(r"stage[234]\.\d+", r"fc\.", r"conv1\."),
    "googlenet": Family(r"inception\d[a-e]", r"fc\.|aux[12]\.", r"conv[123]\."),
    "inception": Family(r"Mixed_\d[a-e]", r"fc\.|AuxLogits\.", r"Conv2d_"),
    "squeezenet1_0": Family(r"features\.([345789]|10|12)", r"classifier\.", r"features\.0\."),
    "squeezenet1_1": Family(r"features\.([34679]|1[0-2])", r"classifier\.", r"features\.0\."),
    "vit": Family(r"encoder\.layers\.encoder_layer_\d+", r"heads\.", r"class_token|conv_proj\.|encoder\.pos_emb"),
    "swin": Family(r"features\.[1357]\.\d+", r"head\.", r"features\.0\."),
    "maxvit": Family(r"blocks\.\d\.layers\.\d+", r"classifier\.5\.", r"stem\."),
    "vgg": Family(CONVOLUTIONS, r"classifier\.6\.", r"features\.0\."),
    "alexnet": Family(CONVOLUTIONS, r"classifier\.6\.", r"features\.0\."),
}

# Models -> number of blocks at each resolution, as published; the papers are those that torchvision's pages cite.
# What a paper calls two stages of one resolution (EfficientNet, MnasNet) is one here.
PUBLISHED = {
    "convnext_tiny": [3, 3, 9, 3],
    "convnext_small convnext_base convnext_large": [3, 3, 27, 3],
    "densenet121": [6, 12, 24, 16],
    "densenet161": [6, 12, 36, 24],
    "densenet169": [6, 12, 32, 32],
    "densenet201": [6, 12, 48, 32],
    "efficientnet_b0": [1, 2, 2, 3 + 3, 4 + 1],
    "efficientnet_b1 efficientnet_b2": [2, 3, 3, 4 + 4, 5 + 2],
    "efficientnet_b3": [2, 3, 3, 5 + 5, 6 + 2],
    "efficientnet_b4": [2, 4, 4, 6 + 6, 8 + 2],
    "efficientnet_b5": [3, 5, 5, 7 + 7, 9 + 3],
    "efficientnet_b6": [3, 6, 6, 8 + 8, 11 + 3],
    "efficientnet_b7": [4, 7, 7, 10 + 10, 13 + 4],
    "efficientnet_v2_s": [2, 4, 4, 6 + 9, 15],
    "efficientnet_v2_m": [3, 5, 5, 7 + 14, 18 + 5],
    "efficientnet_v2_l": [4, 7, 7, 10 + 19, 25 + 7],
    "googlenet": [2, 5, 2],
    "inception_v3": [3, 5, 3],
    "maxvit_t": [2, 2, 5, 2],
    "mnasnet0_5 mnasnet0_75 mnasnet1_0 mnasnet1_3": [3, 3, 3 + 2, 4 + 1],
    "mobilenet_v2": [1, 2, 3, 4 + 3, 3 + 1],
    "mobilenet_v3_large": [1, 2, 3, 4 + 2, 3],
    "mobilenet_v3_small": [1, 2, 3 + 2, 3],
    "regnet_x_400mf": [1, 2, 7, 12],
    "regnet_x_800mf": [1, 3, 7, 5],
    "regnet_x_1_6gf": [2, 4, 10, 2],
    "regnet_x_3_2gf": [2, 6, 15, 2],
    "regnet_x_8gf": [2, 5, 15, 1],
    "regnet_x_16gf": [2, 6, 13, 1],
    "regnet_x_32gf": [2, 7, 13, 1],
    "regnet_y_400mf": [1, 3, 6, 6],
    "regnet_y_800mf": [1, 3, 8, 2],
    "regnet_y_1_6gf": [2, 6, 17, 2],
    "regnet_y_128gf": [2, 7, 17, 1],
    "regnet_y_3_2gf": [2, 5, 13, 1],
    "regnet_y_8gf": [2, 4, 10, 1],
    "regnet_y_16gf": [2, 4, 11, 1],
    "regnet_y_32gf": [2, 5, 12, 1],
    "resnet18": [2, 2, 2, 2],
    "resnet34 resnet50 resnext50_32x4d wide_resnet50_2": [3, 4, 6, 3],
    "resnet101 resnext101_32x8d resnext101_64x4d wide_resnet101_2": [3, 4, 23, 3],
    "resnet152": [3, 8, 36, 3],
    "shufflenet_v2_x0_5 shufflenet_v2_x1_0 shufflenet_v2_x1_5 shufflenet_v2_x2_0": [4, 8, 4],
    "squeezenet1_0": [3, 4, 1],
    "squeezenet1_1": [2, 2, 4],
    "swin_t swin_v2_t": [2, 2, 6, 2],
    "swin_s swin_b swin_v2_s swin_v2_b": [2, 2, 18, 2],
    # One resolution throughout: without stages, the blocks stand for them.
    "vit_b_16 vit_b_32": [1] * 12,
    "vit_l_16 vit_l_32": [1] * 24,
    "vit_h_14": [1] * 32,
    # Chains: their convolutions.
    "alexnet": [1, 1, 3],
    "vgg11 vgg11_bn": [1, 1, 2, 2, 2],
    "vgg13 vgg13_bn": [2, 2, 2, 2, 2],
    "vgg16 vgg16_bn": [2, 2, 3, 3, 3],
    "vgg19 vgg19_bn": [2, 2, 4, 4, 4],
}
STAGES = {name: counts for names, counts in PUBLISHED.items() for name in names.split()}


def family_of(name: str) -> Family:
    """By the longest beginning of the model's name; ResNeXt and Wide ResNet are laid out as ResNet is."""
    short = re.sub(r"^wide_|next(?=\d+_)", lambda match: "" if match[0] == "wide_" else "net", name)
    return FAMILIES[max((key for key in FAMILIES if short.startswith(key)), key=len)]


def build(name: str) -> nn.Module:
    """The model in its published size, on the meta device: shapes and names, no weights."""
    settings: dict[str, Any] = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    with numbers_of_regnet_on_cpu(), torch.device("meta"):
        model: nn.Module = torchvision.models.get_model(name, weights=None, **settings)
    return model


@contextmanager
def numbers_of_regnet_on_cpu() -> Iterator[None]:
    """RegNet computes its widths with tensors and reads them, which the meta device cannot."""
    from_init_params = BlockParams.from_init_params

    def on_cpu(*args: Any, **kwargs: Any) -> BlockParams:
        with torch.device("cpu"):
            return from_init_params(*args, **kwargs)

    with mock.patch.object(BlockParams, "from_init_params", on_cpu):
        yield


def image(name: str) -> torch.Tensor:
    """Two images (2, 3, size, size) on the meta device."""
    size = next((size for start, size in IMAGE_SIZES.items() if name.startswith(start)), 64)
    return torch.empty(2, 3, size, size, device="meta")


def differences(model: nn.Module, maps: dict[str, LayerMap], name: str) -> list[str]:
    """Where layer maps, keyed on their grain, depart from the tables and the order of execution; empty when right."""
    execution = record(model.train(), lambda: model(image(name)))
    found = []
    for grain, layer_map in maps.items():
        each = [against(name, model, layer_map, execution, units) for units in readings(name, model, grain)]
        found += [f"{grain}: {line}" for line in min(each, key=len)]
    return found


def against(
    name: str, model: nn.Module, layer_map: LayerMap, execution: Execution, units: list[list[str]]
) -> list[str]:
    """Where a layer map departs from one reading of the tables."""
    found = []
    if layer_map.num_layers != len(units):
        found.append(f"depth: expected {len(units)}, got {layer_map.num_layers}")
    starts = [execution.first_entered(*paths) for paths in units]
    for parameter, _ in model.named_parameters():
        found_ids = expected_ids(parameter, family_of(name), units, starts, execution)
        expected = {layer_map.head_layer if layer_id is None else layer_id for layer_id in found_ids}
        if layer_map.layer_id(parameter) not in expected:
            allowed = " or ".join(map(str, sorted(expected)))
            found.append(f"{parameter}: expected {allowed}, got {layer_map.layer_id(parameter)}")
    return found + out_of_order(model, layer_map, execution, family_of(name))


def readings(name: str, model: nn.Module, grain: str) -> list[list[list[str]]]:
    """The paths that make block or stage 1, 2, ...; a chain of convolutions without blocks can be read in two ways."""
    family = family_of(name)
    if family.block == CONVOLUTIONS:
        blocks = convolutions(model)
        # Either the first convolution is the stem, or the stem is empty.
        return [units for start in (1, 0) if (units := grouped(blocks, STAGES[name], grain, start))]
    matches = (re.match(rf"({family.block})\.", parameter) for parameter, _ in model.named_parameters())
    paths = list(dict.fromkeys(match[1] for match in matches if match))
    return [grouped([[path] for path in paths], STAGES[name], grain)]


def grouped(blocks: list[list[str]], counts: list[int], grain: str, start: int = 0) -> list[list[str]]:
    """The blocks from `start`, one each or those of a stage together."""
    assert len(blocks) == sum(counts), f"there are {len(blocks)} blocks, published are {sum(counts)}"
    if grain == "block":
        return blocks[start:]
    ends = list(accumulate(counts))
    stages = [
        [path for block in blocks[max(start, end - count) : end] for path in block] for count, end in zip(counts, ends)
    ]
    return [stage for stage in stages if stage]


def convolutions(model: nn.Module) -> list[list[str]]:
    """Each convolution of a chain with the norm behind it."""
    found: list[list[str]] = []
    for path, module in model.get_submodule("features").named_children():
        if isinstance(module, nn.Conv2d):
            found.append([])
        if list(module.parameters()):
            found[-1].append(f"features.{path}")
    return found


def expected_ids(
    parameter: str, family: Family, units: list[list[str]], starts: list[int], execution: Execution
) -> set[int | None]:
    """Block or stage of a parameter, None for the head; of what stands between two either, as nothing decides."""
    if re.match(family.head, parameter):
        return {None}
    for layer_id, paths in enumerate(units, 1):
        if is_at(parameter, paths):
            return {layer_id}
    if re.match(family.stem, parameter):
        return {0}
    before = sum(start < execution.first_entered(parameter.rpartition(".")[0]) for start in starts)
    return {before, before + 1 if before < len(units) else None}


def out_of_order(model: nn.Module, layer_map: LayerMap, execution: Execution, family: Family) -> list[str]:
    """Modules of a lower layer that first run after one of a higher layer did; auxiliary heads run where they like."""
    runs: list[tuple[int, str, int]] = []
    for parameter, _ in model.named_parameters():
        module = parameter.rpartition(".")[0]
        if module in execution.entered and module and not re.match(f"{family.head}|{family.stem}", parameter):
            runs.append((execution.entered[module], parameter, layer_map.layer_id(parameter)))
    runs.sort()
    return [
        f"{later} (layer {low}) runs after {earlier} (layer {high})"
        for (_, earlier, high), (_, later, low) in pairwise(runs)
        if low < high
    ]
