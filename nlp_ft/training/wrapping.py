"""Renews the wrapper of several processes, and compiled graphs, when other layers train than before."""

import torch
from accelerate import Accelerator

from nlp_ft.training.accelerator import is_compiled


def rewrapped(accelerator: Accelerator, model: torch.nn.Module) -> torch.nn.Module:
    """Prepare the same model anew, because other layers train than before.

    DistributedDataParallel looks at `requires_grad` only when it is made: gradients of layers that it did not know
    would not be averaged over the processes. A compiled graph may leave the layers out that were frozen
    (https://github.com/pytorch/pytorch/issues/139476).
    """
    if is_compiled(accelerator):
        torch._dynamo.reset()
    bare: torch.nn.Module = accelerator.unwrap_model(model, keep_torch_compile=False)
    if bare is model:
        return bare
    bare = accelerator.unwrap_model(model, keep_fp32_wrapper=False, keep_torch_compile=False)
    # Accelerate's mark that would let it give the model back as it is.
    bare.__dict__.pop("_is_accelerate_prepared", None)
    prepared: torch.nn.Module = accelerator.prepare_model(bare)
    return prepared
