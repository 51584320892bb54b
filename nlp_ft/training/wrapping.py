"""Wraps the model for several processes, and again when other layers begin to train."""

import torch
from accelerate import Accelerator

from nlp_ft.training.accelerator import is_compiled
from nlp_ft.training.sharding import in_precision, is_sharded


def wrapped(
    accelerator: Accelerator, model: torch.nn.Module, optimizer: torch.optim.Optimizer
) -> tuple[torch.nn.Module, torch.optim.Optimizer]:
    """Prepare model and optimizer; a sharded model needs no wrapper."""
    if is_sharded(model):
        return in_precision(model, accelerator), accelerator.prepare_optimizer(optimizer, device_placement=False)
    prepared: tuple[torch.nn.Module, torch.optim.Optimizer] = accelerator.prepare(model, optimizer)
    return prepared


def rewrapped(accelerator: Accelerator, model: torch.nn.Module) -> torch.nn.Module:
    """Unwrap the model and prepare it again, because other layers begin to train.

    DistributedDataParallel reads `requires_grad` only in its constructor: it would not average the gradients of layers
    that were frozen then. A compiled graph may leave out the layers that were frozen when it was compiled
    (https://github.com/pytorch/pytorch/issues/139476).
    """
    if is_compiled(accelerator):
        torch._dynamo.reset()
    bare: torch.nn.Module = accelerator.unwrap_model(model, keep_torch_compile=False)
    if bare is model:
        return bare
    bare = accelerator.unwrap_model(model, keep_fp32_wrapper=False, keep_torch_compile=False)
    # With this mark, Accelerate would return the model unchanged.
    bare.__dict__.pop("_is_accelerate_prepared", None)
    prepared: torch.nn.Module = accelerator.prepare_model(bare)
    return prepared
