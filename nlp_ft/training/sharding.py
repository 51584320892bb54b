"""Shards a model over the processes of a run by FSDP2, and puts it together again.

Between two passes each process holds a part of every parameter, cut along the first axis (a DTensor), and of its
gradient and its optimizer state; a block is whole only while it is computed. Layers may be frozen and unfrozen at any
time. Zhao et al. 2023, https://arxiv.org/abs/2304.11277.

`accelerate launch --use_fsdp --fsdp_version 2` asks for it, and torch does it: Accelerate (1.15) would choose the parts
by class names, compute everything in bfloat16, and leave processes on a CPU alone.
"""

import os
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from accelerate import Accelerator
from accelerate.utils import convert_outputs_to_fp32
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from transformers import PreTrainedModel

from nlp_ft.environment import is_on, num_launched
from nlp_ft.errors import TrainingError
from nlp_ft.layerwise import LayerMap
from nlp_ft.layerwise.blocks import block_modules
from nlp_ft.layerwise.freezing import unused_parameters
from nlp_ft.layerwise.modes import keeps_statistics
from nlp_ft.screen import say
from nlp_ft.training.agreement import require_equal_weights
from nlp_ft.training.whole_tensors import gathered

FLAG = "ACCELERATE_USE_FSDP"


def is_wanted() -> bool:
    """Whether the launch asks for a sharded model; one process has nothing to share."""
    return is_on(FLAG) and num_launched() > 1


@contextmanager
def unknown_to_accelerate() -> Iterator[None]:
    """Let Accelerate start inside as without FSDP, so that it does the same on every device."""
    before = os.environ.get(FLAG)
    os.environ[FLAG] = "false"
    try:
        yield
    finally:
        del os.environ[FLAG]
        if before is not None:
            os.environ[FLAG] = before


def is_sharded(model: nn.Module) -> bool:
    """Whether `placed` has sharded the model."""
    return isinstance(model, FSDPModule)


def placed(
    model: PreTrainedModel, layer_map: LayerMap, example: Mapping[str, torch.Tensor], accelerator: Accelerator
) -> PreTrainedModel:
    """Move a model to the device of its process, whole or, if the launch asks for it, in parts; collective.

    Args:
        model: the model in main memory; changed in place, before it has an optimizer.
        layer_map: its layer map; the parts are its blocks, and all else.
        example: inputs for a pass that shows whether the parts come together.
        accelerator: the accelerator of the run.

    Raises:
        TrainingError: the model cannot be sharded.
    """
    if not is_wanted():
        model.to(accelerator.device)
        return model
    for name, module in model.named_modules():
        if keeps_statistics(module):
            raise TrainingError(
                f"this launch asks for FSDP, but {name} keeps running statistics, which each process would count for "
                "itself; launch with `accelerate launch --multi_gpu`"
            )
    require_equal_weights(accelerator, model)
    kind = type(model).__name__
    blocks = _blocks(model, layer_map)
    half = torch.bfloat16 if accelerator.mixed_precision == "bf16" else None
    mesh = init_device_mesh(accelerator.device.type, (accelerator.num_processes,))
    policy = MixedPrecisionPolicy(param_dtype=half, reduce_dtype=torch.float32, cast_forward_inputs=False)
    for module in (*blocks, model):
        # True for the whole model too, or the parameters outside of blocks would stay whole after an evaluation.
        fully_shard(module, mesh=mesh, reshard_after_forward=True, mp_policy=policy)
    # torch warns of models that return a view, which nobody must change in place; nobody does.
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view tensor")
    # torch makes a class with another name, and config.json and messages name the class.
    type(model).__name__ = kind
    layer_map.rebind(model)
    with accelerator.autocast():
        _require_pass(model, {key: value.to(accelerator.device) for key, value in example.items()})
    say(
        f"FSDP: {accelerator.num_processes} processes share weights, gradients and optimizer state; {len(blocks)} "
        "block(s) are put together one at a time"
    )
    return model


def in_precision(model: nn.Module, accelerator: Accelerator) -> nn.Module:
    """Let a sharded model compute as a whole one does: matrix products in the precision of the run, outputs in float32.

    Without this, autocast would keep a copy of every weight from the forward pass to the backward pass; the weights are
    gathered in bfloat16 already, so it finds nothing to copy.
    """
    if accelerator.native_amp:
        model.forward = convert_outputs_to_fp32(accelerator.autocast()(model.forward))
    return model


def unshard(model: nn.Module, layer_map: LayerMap, accelerator: Accelerator) -> None:
    """Put the whole weights into the model of the main process, in main memory, to be saved; collective.

    The models of the other processes are not changed, and no process can compute with its model any more.
    """
    if not is_sharded(model):
        return
    named = dict(model.named_parameters())
    full = {
        named[name]: nn.Parameter(tensor, named[name].requires_grad)
        for name, tensor in gathered(named, accelerator).items()
    }
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter in full:
                module._parameters[name] = full[parameter]
    layer_map.rebind(model)


def _require_pass(model: nn.Module, example: Mapping[str, torch.Tensor]) -> None:
    """Try a forward and a backward pass through all layers. Raises: TrainingError: a part was not whole."""
    flags = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    try:
        unused_parameters(model, example)
    except RuntimeError as error:
        if "DTensor" not in str(error):
            raise
        raise TrainingError(
            f"this launch asks for FSDP, but {type(model).__name__} uses weights of a block outside of the block; "
            "launch with `accelerate launch --multi_gpu`"
        ) from error
    for parameter, flag in flags:
        parameter.requires_grad_(flag)


def _blocks(model: nn.Module, layer_map: LayerMap) -> list[nn.Module]:
    """Find the blocks that can be sharded by themselves: they run once in a pass, and share no weight with others."""
    everywhere = Counter(id(parameter) for _, parameter in model.named_parameters(remove_duplicate=False))
    found = []
    for layer, block in block_modules(model, layer_map).items():
        inside = Counter(id(parameter) for _, parameter in block.named_parameters(remove_duplicate=False))
        is_alone = all(everywhere[key] == times for key, times in inside.items())
        # A list of modules is not called, so nothing would put its parts together.
        if is_alone and layer not in layer_map.shared_layers and not isinstance(block, nn.ModuleList | nn.ModuleDict):
            found.append(block)
    return found
