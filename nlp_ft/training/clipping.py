"""Clipping of the gradients' norm; on CPU without a second pass over gradients that are short enough."""

from collections.abc import Sequence

import torch
from accelerate import Accelerator
from torch.nn.utils import clip_grads_with_norm_, get_total_norm


def clip_gradients(accelerator: Accelerator, parameters: Sequence[torch.nn.Parameter], max_norm: float) -> None:
    """Scale all gradients by one factor so that their common norm is at most `max_norm`; the bits are those of torch.

    Elsewhere than on CPU the accelerator does it: reading the norm would wait for the device, and fp16 has a scale.
    """
    if accelerator.device.type != "cpu":
        accelerator.clip_grad_norm_(parameters, max_norm)
        return
    norm = get_total_norm([parameter.grad for parameter in parameters if parameter.grad is not None])
    # Torch's own factor, before it is limited to 1; one that is no number must reach the gradients as well.
    if not max_norm / (norm + 1e-6) >= 1:
        clip_grads_with_norm_(parameters, max_norm, norm)
