"""Wraps the model again, and resets compiled graphs, when other layers begin to train."""

import torch
from accelerate import Accelerator

from nlp_ft.training.accelerator import is_compiled


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
